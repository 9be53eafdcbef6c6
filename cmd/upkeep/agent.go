package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
	g := &agentVerb{app: a}
	c := &cobra.Command{
		Use:   "agent [--config FILE]",
		Short: "Do the work on a server that has joined",
		Long: `Do on this server what control asks for, within the policy file that root keeps
here. The agent connects to control and never listens. As root it is two
processes: one without any privilege that holds the connection, and one that
verifies what control signed, holds it against the policy and does it.

A server joins with upkeep join, which writes the configuration: control, data,
policy and log, each as the flag of that name, which goes before it.
packaging/upkeep-agent.service runs this as a service;
packaging/agent-policy.yaml is a policy to start from.`,
		Example: "  upkeep agent\n  upkeep agent --config /etc/upkeep/agent.yaml --log debug",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return g.run(c.Context()) },
	}
	flags := c.PersistentFlags()
	flags.StringVar(&g.config, "config", os.Getenv("UPKEEP_CONFIG"), configHelp)
	flags.StringVar(&g.flags.Control, "control", "", "control's `URL`, https://HOST:PORT, where it is no longer what it was at the join")
	flags.StringVar(&g.flags.Data, "data", os.Getenv("UPKEEP_DATA"), "`folder` of the identity and of what the agent remembers ($UPKEEP_DATA, else "+agentFolder+")")
	flags.StringVar(&g.flags.Policy, "policy", os.Getenv("UPKEEP_POLICY"), "`file` that says what is allowed here ($UPKEEP_POLICY, else "+policy.DefaultFile+")")
	flags.StringVar(&g.flags.Log, "log", os.Getenv("UPKEEP_LOG"), "log from this `LEVEL` up: debug, info, warn, error ($UPKEEP_LOG, else info)")
	c.AddCommand(newAgentFront(a), newAgentInclude(g))
	return c
}

const configHelp = "`file` with the agent's settings ($UPKEEP_CONFIG; else agent.yaml in the folder of --data or, without that, " + defaultAgentConfig + ", where there is one)"

type agentVerb struct {
	*app
	config string
	flags  agentConfig
}

// settings are those of the flags, then of the file, then the defaults.
func (g *agentVerb) settings() (agentConfig, error) {
	var file agentConfig
	path, err := configPath(g.config, g.flags.Data)
	if err == nil {
		file, err = loadAgentConfig(path)
	}
	if g.config == "" && errors.Is(err, fs.ErrNotExist) {
		err = nil // nobody has said that there is one
	}
	if err != nil {
		return file, err
	}
	settings := agentConfig{
		Control: cmp.Or(g.flags.Control, file.Control), Data: cmp.Or(g.flags.Data, file.Data, agentFolder),
		Policy: cmp.Or(g.flags.Policy, file.Policy, policy.DefaultFile), Log: cmp.Or(g.flags.Log, file.Log, "info"),
	}
	// A flag may say where from here; the halves of the agent work in other folders.
	if settings.Data, err = filepath.Abs(settings.Data); err != nil {
		return settings, err
	}
	settings.Policy, err = filepath.Abs(settings.Policy)
	return settings, err
}

// configPath is where the configuration is.
func configPath(said, data string) (string, error) {
	switch {
	case said != "":
		return filepath.Abs(said)
	case data != "":
		return filepath.Abs(filepath.Join(data, filepath.Base(defaultAgentConfig)))
	}
	return defaultAgentConfig, nil
}

func (g *agentVerb) run(ctx context.Context) error {
	settings, err := g.settings()
	if err != nil {
		return err
	}
	log, err := g.logger(settings.Log)
	if err != nil {
		return err
	}
	if settings.Control != "" {
		if err := link.CheckControl(settings.Control); err != nil {
			return &usageError{err: fmt.Errorf("--control: %w", err)}
		}
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	identity, state := agent.StatePaths(settings.Data)
	manager := systemd.FromEnvironment(os.Getenv)
	return agent.Run(ctx, agent.RunOptions{
		Identity: identity, State: state, Policy: settings.Policy, Control: settings.Control,
		Front:   []string{program, "agent", "front", "--log", settings.Log},
		Pipe:    []string{program, "logs"},
		Version: version(), Logger: log,
		Ready: func() {
			if err := manager.Notify(systemd.Ready); err != nil {
				log.Warn("telling the service manager", "err", err)
			}
		},
	})
}

// logger logs to standard error from a level up.
func (a *app) logger(level string) (*slog.Logger, error) {
	var from slog.Level
	if err := from.UnmarshalText([]byte(level)); err != nil {
		return nil, &usageError{err: fmt.Errorf("--log %q must be debug, info, warn or error", level)}
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: from})), nil
}

// newAgentInclude edits the web server's main configuration, which the agent
// itself does on nobody's order but to take its line out at a purge.
func newAgentInclude(g *agentVerb) *cobra.Command {
	var add, remove bool
	c := &cobra.Command{
		Use:   "include --add|--remove",
		Short: "Add the line that has the web server read upkeep's folder, or take it out",
		Long: `Add the one line that has this server's web server read the folder of sites to
its main configuration, at its end, or take it out again. Nothing else in it
changes. What the web server's own test does not accept is not done; it then
reloads, if it runs. The policy says which web server, folder and file that are.`,
		Example: "  upkeep agent include --add",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if add == remove {
				return &usageError{err: errors.New("give --add or --remove")}
			}
			settings, err := g.settings()
			if err != nil {
				return err
			}
			p, err := policy.Load(settings.Policy)
			if err != nil {
				return err
			}
			said, err := setInclude(c.Context(), p, add)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(g.out, said)
			return err
		},
	}
	c.Flags().BoolVar(&add, "add", false, "add the line")
	c.Flags().BoolVar(&remove, "remove", false, "take the line out; sites that are in the folder are not served any more")
	return c
}

// setInclude adds the line to the web server's configuration, or takes it out, and
// says what that changed.
func setInclude(ctx context.Context, p *policy.Policy, add bool) (string, error) {
	changed, err := agent.SetInclude(ctx, p, add)
	if err != nil {
		return "", err
	}
	said := map[[2]bool]string{{true, true}: "includes %s now", {true, false}: "includes %s already", {false, true}: "does not include %s any more", {false, false}: "did not include %s"}
	return fmt.Sprintf("%s "+said[[2]bool{add, changed}], p.Web.Config, p.Web.Include), nil
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
	var server, config string
	var include bool
	c := &cobra.Command{
		Use:   "join URL TOKEN",
		Short: "Make this server one that control sends work to",
		Long: `Get this server its certificate from control, with a token that upkeep server
add has printed there. Control is recognised by the fingerprint in the token. The
token works once, and soon. Where control is, the data folder and the policy stand
in the agent's configuration from then on.

Then write a policy, and start the agent: systemctl enable --now upkeep-agent. One
that runs when its server joins anew has to be started again. With
--include the policy has to be there before; the line that has the web server read
upkeep's folder is then added as upkeep agent include --add does.`,
		Example: "  upkeep join https://control.example.test:8055 TOKEN\n  upkeep join https://control.example.test:8055 TOKEN --include",
		Args:    exactly("URL", "TOKEN"),
		RunE: func(c *cobra.Command, args []string) error {
			said := cmp.Or(a.data, os.Getenv("UPKEEP_DATA")) // as the agent has it
			data, err := filepath.Abs(cmp.Or(said, agentFolder))
			if err != nil {
				return err
			}
			folder, _ := agent.StatePaths(data)
			file, err := configPath(config, said)
			if err != nil {
				return err
			}
			settings := agentConfig{Control: strings.TrimSuffix(args[0], "/"), Data: data, Policy: policy.DefaultFile}
			write, err := joinConfig(file, settings) // before the token is used up
			if err != nil {
				return err
			}
			_, err = link.ReadIdentity(folder)
			again := !errors.Is(err, fs.ErrNotExist)
			var included *policy.Policy
			if include {
				if included, err = joinPolicy(file); err != nil {
					return err
				}
			}
			if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
				return fmt.Errorf("joining: %w", err)
			}
			identity, err := link.Join(c.Context(), link.JoinOptions{Control: args[0], Token: args[1], Server: server, Folder: folder, Now: time.Now})
			if err != nil {
				return err
			}
			if write {
				if err := settings.write(file); err != nil {
					return fmt.Errorf("joined, but writing %s: %w", file, err)
				}
			}
			kept, err := loadAgentConfig(file)
			if err != nil {
				return fmt.Errorf("joined, but %w", err)
			}
			j := joined{Server: identity.Server, Control: identity.Control, Folder: folder, Config: file, Policy: cmp.Or(kept.Policy, policy.DefaultFile), Again: again}
			if included != nil {
				if j.Include, err = setInclude(c.Context(), included, true); err != nil {
					return upkeep.WithHint(fmt.Errorf("joined as %s, but adding the line that includes %s: %w", j.Server, included.Web.Include, err),
						"when that is fixed: upkeep agent include --add; there is no need to join again")
				}
			}
			start := "upkeep agent"
			switch {
			case config != "":
				start += " --config " + file
			case a.data != "":
				start += " --data " + data
			}
			return a.tellJoined(j, start)
		},
	}
	c.Flags().BoolVar(&include, "include", false, "also add the line that has the web server of the policy read upkeep's folder")
	c.Flags().StringVar(&config, "config", os.Getenv("UPKEEP_CONFIG"), configHelp)
	c.Flags().StringVar(&server, "as", "", "refuse a token that is for another server than this `name`")
	return c
}

// joined is what a join tells.
type joined struct {
	Server  string `json:"server"`
	Control string `json:"control"`
	Folder  string `json:"folder"`
	Config  string `json:"config"`
	Policy  string `json:"policy"`
	Again   bool   `json:"again"`             // it had joined before
	Include string `json:"include,omitempty"` // what was done about the line, if it was asked for
}

func (a *app) tellJoined(j joined, start string) error {
	if a.output != "table" {
		return a.show(j)
	}
	fmt.Fprintf(a.out, "joined as %s; what it needs is in %s, its settings are in %s\n", j.Server, upkeep.Printable(j.Folder), upkeep.Printable(j.Config))
	if j.Include != "" {
		fmt.Fprintln(a.out, upkeep.Printable(j.Include))
	} else if _, err := os.Stat(j.Policy); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(a.out, "next: write %s (packaging/agent-policy.yaml is one to start from)\n", upkeep.Printable(j.Policy))
	}
	if j.Again {
		fmt.Fprintln(a.out, "this server had joined before, and an agent that runs goes by that: systemctl restart upkeep-agent, or end it and start anew: "+upkeep.Printable(start))
		return nil
	}
	fmt.Fprintln(a.out, "then: "+upkeep.Printable(start)+", or systemctl enable --now upkeep-agent")
	return nil
}

// joinPolicy is the policy of an agent that is to join and has its configuration
// at a path. It is read before the token is used up.
func joinPolicy(config string) (*policy.Policy, error) {
	have, err := loadAgentConfig(config)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	p, err := policy.Load(cmp.Or(have.Policy, policy.DefaultFile))
	if err != nil {
		return nil, err
	}
	if p.Web == nil {
		return nil, upkeep.WithHint(fmt.Errorf("--include: the policy names no web server: %w", upkeep.ErrRefused), "it needs web with server and include; or join without --include")
	}
	return p, nil
}
