package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/declare"
)

func newServer(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "server",
		Short: "Servers with an agent: add, join, revoke, look",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(newServerAdd(a), newServerToken(a), newServerList(a), newServerImages(a), newServerRevoke(a), newServerRemove(a))
	return c
}

func newServerAdd(a *app) *cobra.Command {
	var server upkeep.Server
	c := &cobra.Command{
		Use:   "add NAME --role ROLE[,ROLE]",
		Short: "Declare a server and print the token with which its agent joins",
		Long: `Declare a server and print a token with which its agent joins, once and soon:

  upkeep join https://CONTROL:PORT TOKEN     on the server, as root

The token carries the fingerprint of control's authority, so that nobody in
between can pose as control. What the agent may do there is decided by the
policy file on that server.

The same again prints a new token. A server that is declared with other roles is
left as it is.`,
		Example: "  upkeep server add web1 --role web,files",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			server.Name = args[0]
			if err := a.addServer(c.Context(), up, server); err != nil {
				return err
			}
			return a.invite(c.Context(), up, args[0])
		},
	}
	c.Flags().BoolVar(&server.StaffOnly, "staff-only", false, "customers do not choose it for their sites")
	c.Flags().StringSliceVar(&server.Roles, "role", nil, "what it is for, one or more `roles`: "+strings.Join(upkeep.Roles, ", "))
	return c
}

// addServer declares a server, or leaves it as it is declared: no role is taken
// away by the way.
func (a *app) addServer(ctx context.Context, up *client.Client, server upkeep.Server) error {
	declared, err := up.Objects(ctx, upkeep.KindServer, server.Name)
	if errors.Is(err, upkeep.ErrNotFound) {
		_, err = a.declare(ctx, up, server)
		return err
	}
	if err != nil {
		return err
	}
	objects, err := declare.Read(server.Name, declared[0].Object)
	if err != nil {
		return err
	}
	is := objects[0].(upkeep.Server) // one, of the kind that was asked for
	roles := func(s upkeep.Server) string { return strings.Join(slices.Sorted(slices.Values(s.Roles)), ", ") }
	if roles(is) == roles(server) && is.StaffOnly == server.StaffOnly {
		return nil
	}
	text := "for " + strings.Join(is.Roles, ", ")
	if is.StaffOnly {
		text += ", for staff only"
	}
	return upkeep.WithHint(fmt.Errorf("server %s: is declared already, %s: %w", server.Name, text, upkeep.ErrConflict),
		"a new token: upkeep server token "+server.Name+"\nchange it with: upkeep get server "+server.Name+" -o yaml, and upkeep apply -f -")
}

// declare applies objects that a verb made of its flags.
func (a *app) declare(ctx context.Context, up *client.Client, objects ...upkeep.Object) (wire.ApplyResult, error) {
	text, err := documents(objects...)
	if err != nil {
		return wire.ApplyResult{}, err
	}
	result, err := up.Apply(ctx, []wire.Source{{File: "what was asked for", Text: text}}, false)
	a.warn(result)
	return result, withoutPlaces(err)
}

// withoutPlaces takes lines and columns of documents out of errors: the person
// gave flags and has seen no document.
func withoutPlaces(err error) error {
	var problem *wire.Problem
	if errors.As(err, &problem) {
		for i := range problem.Errors {
			problem.Errors[i].File, problem.Errors[i].Line, problem.Errors[i].Column = "", 0, 0
		}
	}
	return err
}

func newServerToken(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "token NAME",
		Short: "Print a new join token for a server that is declared",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			return a.invite(c.Context(), up, args[0])
		},
	}
}

func (a *app) invite(ctx context.Context, up *client.Client, name string) error {
	servers, err := up.Servers(ctx)
	if err != nil {
		return err
	}
	invitation, err := up.InviteServer(ctx, name)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(servers, func(s upkeep.AgentStatus) bool { return s.Name == name && s.State == "waiting" }) {
		fmt.Fprintf(a.err, "note: the token that was printed before for %s is no longer valid\n", upkeep.Printable(name))
	}
	if a.output != "table" {
		return a.show(invitation)
	}
	address := "https://CONTROL:PORT"
	if at, err := netip.ParseAddrPort(invitation.Listen); err == nil && at.Addr().IsUnspecified() {
		address = fmt.Sprintf("https://CONTROL:%d", at.Port())
	} else if invitation.Listen != "" {
		address = "https://" + invitation.Listen
	}
	_, err = fmt.Fprintf(a.out, "On %s, as root, before %s:\n  upkeep join %s %s\n", invitation.Server,
		invitation.Expires.Local().Format("15:04"), address, invitation.Token)
	if strings.Contains(address, "CONTROL") {
		fmt.Fprintf(a.out, "CONTROL is the name or the address by which %s reaches this machine.\n", invitation.Server)
	}
	return err
}

func newServerList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List servers and how their agents are",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			servers, err := up.Servers(c.Context())
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(append([]upkeep.AgentStatus{}, servers...))
			}
			if len(servers) == 0 {
				fmt.Fprintln(a.err, "no server is declared; upkeep server add NAME --role web declares one")
				return nil
			}
			if err := serverTable(servers, time.Now()).write(a.out); err != nil {
				return err
			}
			for _, s := range servers {
				if s.Facts == nil {
					continue
				}
				for _, warning := range s.Facts.Warnings {
					fmt.Fprintf(a.err, "warning: %s: %s\n", upkeep.Printable(s.Name), upkeep.Printable(warning))
				}
			}
			return nil
		},
	}
}

func serverTable(servers []upkeep.AgentStatus, now time.Time) *table {
	t := newTable("SERVER", "ROLES", "AGENT", "SINCE", "WEB SERVER", "SITES", "PENDING")
	for _, s := range servers {
		agent := s.State
		if s.Connected {
			agent = "connected"
		} else if s.State == "joined" {
			agent = "away"
		}
		web := ""
		if s.Facts != nil {
			web = s.Facts.WebServer
		}
		t.add(s.Name, strings.Join(s.Roles, ","), agent, ago(s.Since, now), web, strconv.Itoa(s.Sites), strconv.Itoa(s.Pending))
	}
	return t
}

func newServerRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "Revoke a server's certificate; its agent is refused at once",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			if err := up.RevokeServer(c.Context(), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s must join again; upkeep server token %[1]s prints a token\n", upkeep.Printable(args[0]))
			return err
		},
	}
}

func newServerRemove(a *app) *cobra.Command {
	var purge bool
	patience := time.Minute
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a server that no site uses, and revoke its certificate",
		Long: `Take a server back. Sites must have left it before, so that the agent has taken
what upkeep made there away: change or delete them and wait for their jobs.

With --purge its agent first takes away what no site needs and upkeep made all
the same: the files that all sites shared, and the line in the web server's
configuration. Homes and logs stay. The agent has to be connected, and its policy
to allow server.purge; stop and remove the agent itself there afterwards.`,
		Example: "  upkeep server remove web1 --purge",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if purge {
				if err := a.purge(c.Context(), args[0], patience); err != nil {
					return err
				}
			}
			// With the server goes its certificate, in one transaction: a server that is
			// still used keeps both.
			return a.delete(c.Context(), []deletion{{Kind: upkeep.KindServer, Name: args[0]}})
		},
	}
	c.Flags().BoolVar(&purge, "purge", false, "take away what upkeep made on the server first")
	c.Flags().DurationVar(&patience, "timeout", patience, "how `long` to wait for that")
	return c
}

// purge has the agent of a server take away what upkeep made there.
func (a *app) purge(ctx context.Context, server string, patience time.Duration) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	servers, err := up.Servers(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(servers, func(s upkeep.AgentStatus) bool { return s.Name == server })
	switch {
	case at < 0:
		return fmt.Errorf("server %s: %w", server, upkeep.ErrNotFound)
	case !slices.Contains(servers[at].Roles, upkeep.RoleWeb):
		return nil // nothing of upkeep's stays there
	case !servers[at].Connected:
		return upkeep.WithHint(fmt.Errorf("purging %s: its agent is not connected: %w", server, upkeep.ErrRefused),
			"start the agent there; or remove the server without --purge, and there: upkeep agent include --remove")
	}
	made, err := up.RunJob(ctx, wire.NewJob{Kind: upkeep.JobServerPurge, Server: server})
	if err != nil {
		return err
	}
	jobs, err := a.await(ctx, up, patience, made.ID)
	if err != nil {
		return err
	}
	return unlessDone(jobs)
}
