package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/agent"
	"upkeep/internal/link"
	"upkeep/internal/policy"
	"upkeep/internal/systemd"
)

// agentFolder is where an agent keeps its data when not told.
const agentFolder = "/var/lib/upkeep-agent"

func newAgent(a *app) *cobra.Command {
	g := agentVerb{app: a}
	c := &cobra.Command{
		Use:   "agent",
		Short: "Do the work on a server that has joined",
		Long: `Do on this server what control asks for, within the policy file that root keeps
here. The agent connects to control and never listens. As root it is two
processes: one without any privilege that holds the connection, and one that
verifies what control signed, holds it against the policy and does it.

A server joins with upkeep join. packaging/upkeep-agent.service runs this as a
service; packaging/agent-policy.yaml is a policy to start from.`,
		Example: "  upkeep agent --policy /etc/upkeep/agent-policy.yaml",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return g.run(c.Context()) },
	}
	c.Flags().StringVar(&g.policy, "policy", fromEnv("UPKEEP_POLICY", policy.DefaultFile), "`file` that says what is allowed here ($UPKEEP_POLICY)")
	c.Flags().StringVar(&g.level, "log", fromEnv("UPKEEP_LOG", "info"), "log from this `LEVEL` up: debug, info, warn, error ($UPKEEP_LOG)")
	c.AddCommand(newAgentFront(a))
	return c
}

type agentVerb struct {
	*app
	policy, level string
}

func (g *agentVerb) run(ctx context.Context) error {
	log, err := g.logger(g.level)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	identity, state := agent.StatePaths(g.agentData())
	manager := systemd.FromEnvironment(os.Getenv)
	return agent.Run(ctx, agent.RunOptions{
		Identity: identity, State: state, Policy: g.policy,
		Front:   []string{program, "agent", "front", "--log", g.level},
		Pipe:    []string{program, "logs"},
		Version: version(), Logger: log,
		Ready: func() {
			if err := manager.Notify(systemd.Ready); err != nil {
				log.Warn("telling the service manager", "err", err)
			}
		},
	})
}

// agentData is the folder of the agent on this server.
func (a *app) agentData() string {
	if a.data != "" {
		return a.data
	}
	return fromEnv("UPKEEP_DATA", agentFolder)
}

// logger logs to standard error from a level up.
func (a *app) logger(level string) (*slog.Logger, error) {
	var from slog.Level
	if err := from.UnmarshalText([]byte(level)); err != nil {
		return nil, &usageError{err: fmt.Errorf("--log %q must be debug, info, warn or error", level)}
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: from})), nil
}

// newAgentFront is the unprivileged half, which only the agent itself starts.
func newAgentFront(a *app) *cobra.Command {
	var level string
	c := &cobra.Command{
		Use:    "front",
		Short:  "The half of the agent that holds the link; the agent starts it",
		Hidden: true,
		Args:   noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := a.logger(level)
			if err != nil {
				return err
			}
			return agent.RunFront(c.Context(), version(), log)
		},
	}
	c.Flags().StringVar(&level, "log", "info", "log from this `LEVEL` up")
	return c
}

func newJoin(a *app) *cobra.Command {
	var server string
	c := &cobra.Command{
		Use:   "join URL TOKEN",
		Short: "Make this server one that control sends work to",
		Long: `Get this server its certificate from control, with a token that upkeep server
add has printed there. Control is recognised by the fingerprint in the token. The
token works once, and soon.

Then write a policy, and start the agent: systemctl enable --now upkeep-agent.`,
		Example: "  upkeep join https://control.example.test:8055 TOKEN",
		Args:    exactly("URL", "TOKEN"),
		RunE: func(c *cobra.Command, args []string) error {
			folder, _ := agent.StatePaths(a.agentData())
			if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
				return fmt.Errorf("joining: %w", err)
			}
			identity, err := link.Join(c.Context(), link.JoinOptions{Control: args[0], Token: args[1], Server: server, Folder: folder, Now: time.Now})
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(map[string]string{"server": identity.Server, "control": identity.Control, "folder": folder})
			}
			fmt.Fprintf(a.out, "joined as %s; what it needs is in %s\n", identity.Server, upkeep.Printable(folder))
			if _, err := os.Stat(policy.DefaultFile); errors.Is(err, os.ErrNotExist) {
				fmt.Fprintf(a.out, "next: write %s (packaging/agent-policy.yaml is one to start from)\n", policy.DefaultFile)
			}
			fmt.Fprintln(a.out, "then: upkeep agent"+agentFlag(a.data)+", or systemctl enable --now upkeep-agent")
			return nil
		},
	}
	c.Flags().StringVar(&server, "as", "", "refuse a token that is for another server than this `name`")
	return c
}

func agentFlag(data string) string {
	if data == "" {
		return ""
	}
	return " --data " + data
}
