package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"upkeep/internal/api/client"
)

// app is what every verb is made with: the streams and the flags that all share.
type app struct {
	in       io.Reader
	out, err io.Writer

	data    string
	control string
	token   string
	output  string

	// started means that a verb runs: errors before are wrong usage.
	started bool
}

// run is the whole program but for the process it lives in.
func run(args []string, in io.Reader, out, err io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: in, out: out, err: err}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(err)
	verb, failure := root.ExecuteContextC(ctx)
	var usage *usageError
	if known := errors.As(failure, &usage); failure != nil && !a.started && !known {
		usage = &usageError{err: failure}
		failure = usage
	}
	if usage != nil && usage.hint == "" && verb.HasParent() {
		usage.hint = verb.CommandPath() + " --help"
	}
	return a.report(failure, jsonWanted(args))
}

// jsonWanted finds "-o json" in arguments that may be too wrong to parse.
func jsonWanted(args []string) bool {
	for i, arg := range args {
		switch {
		case arg == "--":
			return false
		case arg == "-ojson" || arg == "-o=json" || arg == "--output=json":
			return true
		case (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == "json":
			return true
		}
	}
	return false
}

const rootLong = `upkeep keeps what you host the way you declared it. It checks the hosts of a pool
and has DNS answer only with those that are alive, on your own name servers or
by answering itself; and it has web servers serve the sites that are declared,
by an agent on each server.

Try it:   upkeep up -f examples/quickstart.yaml     DNS failover
          upkeep up -f examples/sites.yaml          a site on an Apache of its own
Then:     upkeep pool status, upkeep site list

Verbs talk to the running upkeep over the control socket in its data folder,
or with --control and --token over HTTP.

` + exitHelp

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "upkeep",
		Short:         "Keep DNS and web servers the way they were declared",
		Long:          rootLong,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			a.started = true
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.data, "data", "", "data `folder` of the running upkeep (default $UPKEEP_DATA, else "+defaultFoldersText+")")
	flags.StringVar(&a.control, "control", os.Getenv("UPKEEP_CONTROL"), "`URL` of the running upkeep, in place of its data folder")
	flags.StringVar(&a.token, "token", os.Getenv("UPKEEP_TOKEN"), "token for --control, or the `file` that holds it")
	flags.StringVarP(&a.output, "output", "o", "table", "`form` of output: table, yaml or json")
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run it:"},
		&cobra.Group{ID: "declare", Title: "Say what should be:"},
		&cobra.Group{ID: "look", Title: "See and steer what is:"},
		&cobra.Group{ID: "image", Title: "Work on images, with no running upkeep:"},
	)
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetHelpCommandGroupID("")
	verbs := map[string][]*cobra.Command{
		"run":     {newUp(a), newServe(a), newAgent(a), newJoin(a), newBeat(a)},
		"declare": {newApply(a), newDiff(a), newGet(a), newDelete(a), newRegenerate(a), newVerify(a), newImport(a)},
		"look":    {newPool(a), newZone(a), newSite(a), newAccount(a), newUser(a), newJob(a), newServer(a), newEvents(a), newAudit(a), newBudget(a), newNotify(a), newSelftest(a)},
		"image":   {newImage(a)},
		"":        {newLogs(a), newVersion(a), newMan(a)},
	}
	for group, commands := range verbs {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	return root
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("there is no verb %q", args[0])
	if c.HasParent() {
		message = fmt.Sprintf("%s takes no argument such as %q", c.CommandPath(), args[0])
	}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return &usageError{err: errors.New(message), hint: "did you mean: " + strings.Join(near, ", ")}
	}
	return &usageError{err: errors.New(message)}
}

// verbsOnly is the Run of a command that only groups others.
func verbsOnly(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return noArgs(c, args)
	}
	return c.Help()
}

func (a *app) checkOutput() error {
	switch a.output {
	case "table", "yaml", "json":
		return nil
	}
	return &usageError{err: fmt.Errorf("-o %q must be table, yaml or json", a.output)}
}

const defaultFoldersText = "~/.local/share/upkeep, or /var/lib/upkeep"

// defaultFolders are where up and serve keep their data when not told.
func defaultFolders() (up, serve string) {
	serve = "/var/lib/upkeep"
	home := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(home) {
		user, err := os.UserHomeDir()
		if err != nil {
			return serve, serve
		}
		home = filepath.Join(user, ".local", "share")
	}
	return filepath.Join(home, "upkeep"), serve
}

// folder is the data folder that verbs look for a running upkeep in.
func (a *app) folder() string {
	if a.data != "" {
		return a.data
	}
	if data := os.Getenv("UPKEEP_DATA"); data != "" {
		return data
	}
	up, serve := defaultFolders()
	if _, err := os.Stat(filepath.Join(up, "control.sock")); err != nil {
		if _, err := os.Stat(filepath.Join(serve, "control.sock")); err == nil {
			return serve
		}
	}
	return up
}

// client speaks to the running upkeep that the flags name.
func (a *app) client() (*client.Client, error) {
	if a.control == "" {
		return client.OverSocket(a.folder()), nil
	}
	if a.data != "" {
		return nil, &usageError{err: fmt.Errorf("--data and --control name two different ways in; give one")}
	}
	token := a.token
	if text, err := os.ReadFile(token); token != "" && err == nil {
		token = strings.TrimSpace(string(text))
	} else if strings.ContainsRune(token, '/') {
		return nil, fmt.Errorf("reading token: %w", err)
	}
	c, err := client.OverTCP(a.control, token)
	if err != nil {
		return nil, &usageError{err: fmt.Errorf("--control: %w", err)}
	}
	return c, nil
}
