package console

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/task"
)

// serverPage is all that is known of one server.
type serverPage struct {
	serverRow
	Path string
	// Tells says what of its policy its agent told; Bounds are those in words.
	Tells  bool
	Bounds []bound
	// Verified is the last comparison with what is declared, nil without one.
	Verified *verified
	// Join is what its agent joins with, where it is not connected; empty where this
	// upkeep takes no agents.
	Join    string
	Joins   bool
	Sites   string // path to its sites
	JobList string
}

// bound is one thing that a policy says.
type bound struct{ Name, Says string }

// verified is how the files of a server compare with what is declared.
type verified struct {
	jobView
	Files []fileDiff
	Well  bool
}

func (c *Console) server(w http.ResponseWriter, r *http.Request) {
	ctx, now, name := r.Context(), c.o.Now(), r.PathValue("name")
	servers, err := c.o.Hosting.Servers.Servers(ctx)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	i := slices.IndexFunc(servers, func(s upkeep.AgentStatus) bool { return s.Name == name })
	if i < 0 {
		c.fault(w, r, http.StatusNotFound, "There is no such server. It may have been removed.")
		return
	}
	s := servers[i]
	v := serverPage{serverRow: viewServerRow(s, now), Path: serverPath(name), Joins: !s.Connected,
		Sites: "/sites?" + url.Values{"q": {name}}.Encode(), JobList: "/jobs?" + url.Values{"server": {name}}.Encode()}
	if s.Facts != nil && s.Facts.Allows != nil {
		v.Tells, v.Bounds = true, bounds(*s.Facts.Allows)
	}
	if listen := c.o.Hosting.Servers.Listen(); listen != "" {
		v.Join, _ = joinCommand(listen, "TOKEN")
	}
	if v.Web {
		if v.Verified, err = c.lastVerify(ctx, name); err != nil {
			c.broken(w, r, err)
			return
		}
	}
	c.render(w, r, http.StatusOK, "server.html", name, v)
}

func serverPath(name string) string { return "/servers/" + url.PathEscape(name) }

// bounds are what a policy allows, in words.
func bounds(a upkeep.Allowed) []bound {
	var all []bound
	folders := func(what string, roots map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(roots)) {
			all = append(all, bound{what + " " + name, roots[name]})
		}
	}
	folders("Folders below", a.Roots)
	folders("Images below", a.ImageRoots)
	if a.MaxImage > 0 {
		all = append(all, bound{"Largest image", a.MaxImage.About()})
	}
	if len(a.IncludeDirs) > 0 {
		all = append(all, bound{"Zone files included from", strings.Join(a.IncludeDirs, ", ")})
	}
	ids := "none: accounts get no users here"
	if a.UIDMin > 0 {
		ids = fmt.Sprintf("%d to %d", a.UIDMin, a.UIDMax)
	}
	budget := fmt.Sprintf("%d in an hour", a.DeleteBudget)
	if a.DeleteBudget == 0 {
		budget = "none"
	}
	return append(all, bound{"User ids of accounts", ids}, bound{"Removals", budget})
}

// lastVerify is the newest comparison of a server's files, nil where there is none.
func (c *Console) lastVerify(ctx context.Context, server string) (*verified, error) {
	jobs, err := c.o.Hosting.Bounds.Jobs(ctx, store.JobFilter{Server: server, Kind: upkeep.JobSiteSync, Object: task.SiteSync{Verify: true}.Object(), Limit: 1})
	if err != nil || len(jobs) == 0 {
		return nil, err
	}
	job, err := c.o.Hosting.Bounds.Job(ctx, jobs[0].ID) // with its result
	if err != nil {
		return nil, err
	}
	v := &verified{jobView: viewJob(job, c.o.Now(), true), Files: drift(job)}
	v.Well = job.State == upkeep.JobDone && len(v.Files) == 0
	return v, nil
}

// joinCommand is what is run on a server to join. The address is this machine's as
// others reach it, which cannot be known where all addresses are listened at.
func joinCommand(listen, token string) (command string, placeholder bool) {
	placeholder = listen == "" || strings.HasPrefix(listen, "[::]:") || strings.HasPrefix(listen, "0.0.0.0:")
	if placeholder {
		listen = "CONTROL:PORT"
	}
	return "upkeep join https://" + listen + " " + token, placeholder
}
