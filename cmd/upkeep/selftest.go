package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/selftest"
)

func newSelftest(a *app) *cobra.Command {
	s := selftestVerb{app: a}
	c := &cobra.Command{
		Use:   "selftest --evil",
		Short: "Prove on this machine what a hosted customer cannot do",
		Long: `Start a control, an agent and an Apache for the purpose, with accounts of two
customers, and have one of them try every known attack on the other and on root:
hostile text in every field, names of others, links and races in its folders, huge
inputs, poisoned imports, forged and replayed orders, and control's own keys in
the wrong hands. The attacks are real. Nothing of it touches the system: as root
it all runs in namespaces of its own, with a copy of /etc for its throw-away users;
without root in a folder of this user, and attacks that need users are not tried.

A line for each attack says that its defence held, that it is BROKEN, or why it
was not tried. Status 1 when one is broken.`,
		Example: "  sudo upkeep selftest --evil\n  upkeep selftest --evil --only redirects,headers -o json",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return s.run(c.Context()) },
	}
	c.Flags().BoolVar(&s.evil, "evil", false, "attack")
	c.Flags().StringSliceVar(&s.only, "only", nil, "only these `attacks`, by name")
	c.Flags().StringVar(&s.keep, "keep", "", "leave all that was made, logs too, in this new `folder`")
	c.Flags().StringVar(&s.inside, "inside", "", "")
	if err := c.Flags().MarkHidden("inside"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

type selftestVerb struct {
	*app
	evil   bool
	only   []string
	keep   string
	inside string
}

func (s *selftestVerb) run(ctx context.Context) error {
	if !s.evil {
		return &usageError{err: errors.New("selftest needs to be told what to try"), hint: "upkeep selftest --evil attacks an upkeep that it starts for the purpose"}
	}
	if err := s.known(); err != nil {
		return err
	}
	if s.inside != "" {
		if err := selftest.Enter(s.inside); err != nil {
			return err
		}
		return s.attack(ctx, s.inside, selftest.Start)
	}
	dir, err := s.folder()
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		err = s.isolated(dir)
	} else {
		fmt.Fprintln(s.err, "note: not root: control, agent and Apache run as this user, and attacks that need users of accounts or control's keys are NOT TRIED")
		err = s.attack(ctx, dir, selftest.StartAlone)
	}
	if s.keep != "" {
		fmt.Fprintln(s.err, "kept:", upkeep.Printable(dir))
		return err
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// known refuses names of attacks that there are not.
func (s *selftestVerb) known() error {
	var all []string
	for _, attacks := range selftest.Attacks() {
		for _, one := range attacks {
			all = append(all, one.Name)
		}
	}
	slices.Sort(all)
	for _, name := range s.only {
		if !slices.Contains(all, name) {
			return &usageError{err: fmt.Errorf("--only %q must be an attack", name), hint: "attacks are " + strings.Join(all, ", ")}
		}
	}
	return nil
}

func (s *selftestVerb) folder() (string, error) {
	if s.keep == "" {
		return os.MkdirTemp("", "upkeep-selftest-")
	}
	dir, err := filepath.Abs(s.keep)
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	return dir, err
}

// isolated has this program do the rest in namespaces.
func (s *selftestVerb) isolated(dir string) error {
	argv := []string{"upkeep", "selftest", "--evil", "--inside", dir, "--output", s.output}
	if len(s.only) > 0 {
		argv = append(argv, "--only", strings.Join(s.only, ","))
	}
	cmd := selftest.Isolated(argv...)
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = s.out, s.err, "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	// The kernel kills it with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended) && ended.ExitCode() > 0:
		return statusError(ended.ExitCode()) // it has said why
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC):
		return upkeep.WithHint(fmt.Errorf("making namespaces for the attacks: %w", err), "root of a container may lack CAP_SYS_ADMIN; as another user than root, what needs no root is tried")
	}
	return err
}

// attack starts what is attacked, and tries.
func (s *selftestVerb) attack(ctx context.Context, dir string, start func(context.Context, selftest.Options) (*selftest.System, error)) (err error) {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	system, err := start(ctx, selftest.Options{Program: []string{program}, Dir: dir})
	if err != nil {
		return fmt.Errorf("starting what is to be attacked: %w", err)
	}
	defer func() { err = errors.Join(err, system.Close()) }()
	var only func(string) bool
	if len(s.only) > 0 {
		only = func(name string) bool { return slices.Contains(s.only, name) }
	}
	var results []selftest.Result
	if err := selftest.Run(ctx, &system.World, only, func(r selftest.Result) {
		results = append(results, r)
		s.tell(r)
	}); err != nil {
		return err
	}
	return s.conclude(results)
}

// tell prints the line of an attack.
func (s *selftestVerb) tell(r selftest.Result) {
	if s.output != "table" {
		return
	}
	text := r.Holds
	if r.Why != "" {
		text = r.Why
	}
	fmt.Fprintf(s.out, "%-9s  %-9s  %-26s  %5.1f s  %s\n", r.State, r.Family, r.Attack, r.Seconds, upkeep.Printable(text))
}

// conclude prints the sum.
func (s *selftestVerb) conclude(results []selftest.Result) error {
	count := map[string]int{}
	for _, r := range results {
		count[r.State]++
	}
	if s.output != "table" {
		if err := s.show(append([]selftest.Result{}, results...)); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(s.out, "%d attacks: %d held, %d broken, %d not tried\n", len(results), count[selftest.Held], count[selftest.Broken], count[selftest.NotTried])
	}
	if count[selftest.Broken] > 0 {
		return statusError(exitFailed)
	}
	return nil
}
