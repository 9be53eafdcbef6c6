package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"

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
	switch w.Server {
	case policy.Apache:
		options.Server = webserver.Apache{Program: w.Program, Config: w.Config, Include: w.Include, PIDFile: w.PIDFile, Scratch: options.State}
	case policy.Nginx:
		options.Server = webserver.Nginx{Program: w.Program, Config: w.Config, Include: w.Include, PIDFile: w.PIDFile, Scratch: options.State}
	default:
		return nil, fmt.Errorf("there is no web server of type %s", w.Server)
	}
	applier, err := webserver.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	return &Web{Applier: applier, Server: options.Server, Layout: layout, URL: w.URL}, nil
}

// web is the web server, or why there is none.
func (r *Root) web() (*Web, error) {
	if r.o.Web == nil {
		return nil, fmt.Errorf("there is no web server of upkeep's on this server: %w", upkeep.ErrRefused)
	}
	return r.o.Web, nil
}
