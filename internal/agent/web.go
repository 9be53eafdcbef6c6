package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/policy"
	"upkeep/internal/vhost"
	"upkeep/internal/webserver"
)

// Web is the web server that an agent has sites served by.
type Web struct {
	Applier *webserver.Applier
	Server  webserver.Server
	// Layout is the one that the applier has; Home is the root home of the policy.
	Layout vhost.Layout
	// URL is where the server answers.
	URL string
}

// OpenWeb opens the web server of a policy, which must have one. Pipe is the
// command that splits logs, program first. Close the Applier afterwards.
func OpenWeb(ctx context.Context, p *policy.Policy, state string, pipe []string, logger *slog.Logger) (*Web, error) {
	w := p.Web
	group, err := user.LookupGroup(p.Group)
	if err != nil {
		return nil, upkeep.WithHint(err, "set group in the agent's policy to the one that the web server runs as")
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return nil, err
	}
	layout := vhost.Layout{
		Include: w.Include, Pages: filepath.Join(w.Data, "pages"), Auth: filepath.Join(w.Data, "auth"), Logs: w.Logs,
		Home: p.Roots[policy.Home].Path, Listen: w.Listen, Scheme: w.Scheme, Port: w.Port, Group: gid, Pipe: append(slices.Clone(pipe), "--dir="+w.Logs),
	}
	options := webserver.Options{State: filepath.Join(state, "web"), URL: w.URL, PipeAbove: w.PipeAbove, Logger: logger}
	if w.PHP != nil {
		layout.FPM, layout.Sockets = w.PHP.Pools, w.PHP.Sockets
		options.PHP = &webserver.FPM{Program: w.PHP.Program, Config: w.PHP.Config, PIDFile: w.PHP.PIDFile}
	}
	asked, err := url.Parse(w.URL)
	if err != nil {
		return nil, err // which validation has refused
	}
	options.Address, options.Layout = asked.Host, layout
	if options.Server, err = webServer(w, options.State); err != nil {
		return nil, err
	}
	applier, err := webserver.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	return &Web{Applier: applier, Server: options.Server, Layout: layout, URL: w.URL}, nil
}

// webServer is the one that a policy names. Scratch is a folder of root's.
func webServer(w *policy.Web, scratch string) (webserver.Server, error) {
	switch w.Server {
	case policy.Apache:
		return webserver.Apache{Program: w.Program, Config: w.Config, Include: w.Include, PIDFile: w.PIDFile, Scratch: scratch}, nil
	case policy.Nginx:
		return webserver.Nginx{Program: w.Program, Config: w.Config, Include: w.Include, PIDFile: w.PIDFile, Scratch: scratch}, nil
	}
	return nil, fmt.Errorf("there is no web server of type %s", w.Server)
}

// SetInclude adds the line that includes the folder of sites to the main
// configuration of the policy's web server, or takes it out, and has the server
// read it if it runs. It reports whether that changed anything.
func SetInclude(ctx context.Context, p *policy.Policy, on bool) (changed bool, err error) {
	if p.Web == nil {
		return false, upkeep.WithHint(fmt.Errorf("the policy names no web server: %w", upkeep.ErrRefused), "it needs web with server and include")
	}
	server, err := webServer(p.Web, "")
	if err != nil {
		return false, err
	}
	includer, can := server.(webserver.Includer)
	if !can {
		return false, fmt.Errorf("the configuration of %s is not edited by upkeep: %w", p.Web.Server, upkeep.ErrRefused)
	}
	if on { // where nobody else may write: root's web server reads it
		if err := os.MkdirAll(p.Web.Include, 0o755); err != nil {
			return false, err
		}
	}
	if changed, err = includer.SetInclude(ctx, on); err != nil || !changed {
		return changed, err
	}
	if _, err := server.Process(); err != nil {
		return true, nil // it reads the line when it starts
	}
	return true, server.Reload(ctx)
}

// astray reports whether an object is a site that is not served any more as it was
// when it was applied.
func (r *Root) astray(object string) bool {
	site, is := strings.CutPrefix(object, upkeep.KindSite+"/")
	if !is || r.o.Web == nil {
		return false
	}
	_, astray := r.o.Web.Applier.Astray()[site]
	return astray
}

// web is the web server, or why there is none.
func (r *Root) web() (*Web, error) {
	if r.o.Web == nil {
		return nil, fmt.Errorf("there is no web server of upkeep's on this server: %w", upkeep.ErrRefused)
	}
	return r.o.Web, nil
}
