package client

import (
	"bufio"
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/api/wire"
)

// Jobs returns as many jobs as the filter's limit says, the newest first; without a
// limit those of one page.
func (c *Client) Jobs(ctx context.Context, f wire.JobFilter) ([]upkeep.Job, error) {
	query := chosenJobs(f)
	if f.Before != 0 {
		query.Set("before", strconv.FormatInt(f.Before, 10))
	}
	r := request{method: "GET", path: []string{"jobs"}, query: query}
	type page struct{ Jobs []upkeep.Job }
	if f.Limit == 0 {
		var answer page
		err := c.do(ctx, r, &answer)
		return answer.Jobs, err
	}
	query.Set("limit", strconv.Itoa(min(f.Limit, mostOnPage)))
	return pages(ctx, c, r, f.Limit, func(answer page) []upkeep.Job { return answer.Jobs })
}

func chosenJobs(f wire.JobFilter) url.Values {
	query := url.Values{}
	for name, value := range map[string]string{"account": f.Account, "server": f.Server, "kind": f.Kind, "object": f.Object} {
		if value != "" {
			query.Set(name, value)
		}
	}
	states := make([]string, len(f.States))
	for i, state := range f.States {
		states[i] = string(state)
	}
	if len(states) > 0 {
		query.Set("state", strings.Join(states, ","))
	}
	return query
}

// Job returns one job with its result.
func (c *Client) Job(ctx context.Context, id int64) (job upkeep.Job, err error) {
	err = c.do(ctx, request{method: "GET", path: []string{"jobs", strconv.FormatInt(id, 10)}}, &job)
	return job, err
}

// ChangeJob does one of "retry", "cancel" and "read" to a job.
func (c *Client) ChangeJob(ctx context.Context, id int64, action string) (job upkeep.Job, err error) {
	err = c.do(ctx, request{method: "POST", path: []string{"jobs", strconv.FormatInt(id, 10), action}}, &job)
	return job, err
}

// RunJob has a server do one job.
func (c *Client) RunJob(ctx context.Context, job wire.NewJob) (made upkeep.Job, err error) {
	err = c.do(ctx, request{method: "POST", path: []string{"jobs"}, body: job}, &made)
	return made, err
}

// FollowJobs calls each with jobs as they change, until it returns an error or
// ctx ends. ready is called once nothing that changes from then on is missed.
func (c *Client) FollowJobs(ctx context.Context, f wire.JobFilter, ready func() error, each func(upkeep.Job) error) error {
	response, err := c.send(ctx, request{method: "GET", path: []string{"jobs", "stream"}, query: chosenJobs(f), accept: "text/event-stream"}, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 8<<20)
	listening := false
	for lines.Scan() {
		if !listening {
			if listening = strings.HasPrefix(lines.Text(), ": "); listening {
				if err := ready(); err != nil {
					return err
				}
			}
			continue
		}
		data, is := strings.CutPrefix(lines.Text(), "data: ")
		if !is {
			continue
		}
		var job upkeep.Job
		if err := json.Unmarshal([]byte(data), &job); err != nil {
			return err
		}
		if err := each(job); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return lines.Err()
}

// Sites returns what servers serve, of all sites or of those of an account.
func (c *Client) Sites(ctx context.Context, account string) ([]upkeep.SiteStatus, error) {
	query := url.Values{}
	if account != "" {
		query.Set("account", account)
	}
	query.Set("limit", "10000") // so many are looked at together
	return pages(ctx, c, request{method: "GET", path: []string{"sites"}, query: query}, 0, func(answer struct{ Sites []upkeep.SiteStatus }) []upkeep.SiteStatus { return answer.Sites })
}

// Site returns what servers serve of one site.
func (c *Client) Site(ctx context.Context, name string) (site upkeep.SiteStatus, err error) {
	err = c.do(ctx, request{method: "GET", path: []string{"sites", name}}, &site)
	return site, err
}

// SiteHistory returns what a site was before, the newest first.
func (c *Client) SiteHistory(ctx context.Context, name string) ([]wire.Generation, error) {
	var answer struct{ Generations []wire.Generation }
	err := c.do(ctx, request{method: "GET", path: []string{"sites", name, "history"}}, &answer)
	return answer.Generations, err
}

// UndoSite declares a site as it was at a generation, 0 for the one before, if it
// still has the generation that it was read with, 0 for any.
func (c *Client) UndoSite(ctx context.Context, name string, generation, still int64) (site upkeep.SiteStatus, err error) {
	body := map[string]int64{"generation": generation}
	err = c.do(ctx, request{method: "POST", path: []string{"sites", name, "undo"}, body: body, match: still}, &site)
	return site, err
}

// PreviewSites has the web servers say what the documents would change there, by
// the jobs that it returns.
func (c *Client) PreviewSites(ctx context.Context, sources []wire.Source) ([]upkeep.Job, error) {
	var answer struct{ Jobs []upkeep.Job }
	err := c.do(ctx, request{method: "POST", path: []string{"sites", "preview"}, body: wire.Sources{Sources: sources}}, &answer)
	return answer.Jobs, err
}

// Servers returns the servers and their agents.
func (c *Client) Servers(ctx context.Context) ([]upkeep.AgentStatus, error) {
	return pages(ctx, c, request{method: "GET", path: []string{"servers"}}, 0, func(answer struct{ Servers []upkeep.AgentStatus }) []upkeep.AgentStatus { return answer.Servers })
}

// Images returns what servers last told of their images: of one, or of all with an
// empty name.
func (c *Client) Images(ctx context.Context, server string) ([]upkeep.ImageList, error) {
	query := url.Values{}
	if server != "" {
		query.Set("server", server)
	}
	var answer struct{ Servers []upkeep.ImageList }
	err := c.do(ctx, request{method: "GET", path: []string{"images"}, query: query}, &answer)
	return answer.Servers, err
}

// InviteServer makes a token with which the server's agent joins, once.
func (c *Client) InviteServer(ctx context.Context, name string) (invitation wire.Invitation, err error) {
	err = c.do(ctx, request{method: "POST", path: []string{"servers", name, "invitation"}}, &invitation)
	return invitation, err
}

// RevokeServer takes the certificate of a server's agent back.
func (c *Client) RevokeServer(ctx context.Context, name string) error {
	return c.do(ctx, request{method: "POST", path: []string{"servers", name, "revoke"}}, nil)
}

// SyncServer has a web server "regenerate" its files or "verify" them.
func (c *Client) SyncServer(ctx context.Context, name, action string) (job upkeep.Job, err error) {
	err = c.do(ctx, request{method: "POST", path: []string{"servers", name, action}}, &job)
	return job, err
}
