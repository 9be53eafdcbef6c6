package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/policy"
)

// RunOptions are what an agent of its own needs.
type RunOptions struct {
	// Identity is the folder in which upkeep join has put the identity; State that
	// of what the agent remembers.
	Identity, State string
	// Policy is the path of the policy.
	Policy string
	// Control is where control is, when that is elsewhere than at the join.
	Control string
	// Front is how this program is started to be the front: its arguments, the
	// name first. It then has to call [RunFront].
	Front []string
	// Pipe is the command that splits the logs of sites, program first.
	Pipe    []string
	Version string
	Logger  *slog.Logger
	// Ready is called once the agent works; may be nil.
	Ready func()
	// Prefix is as in [Options], for tests.
	Prefix string
}

// Run is an agent on a server until the context ends. As root it keeps the link
// in another process, which runs as the user that the policy names; else all is
// in this one, for whoever tries it out.
func Run(ctx context.Context, o RunOptions) (err error) {
	p, err := policy.Load(o.Policy)
	if err != nil {
		return err
	}
	keeper := &keeper{folder: o.Identity}
	if keeper.identity, err = link.ReadIdentity(o.Identity); err != nil {
		return err
	}
	keeper.identity.Control = cmp.Or(o.Control, keeper.identity.Control)
	if err := os.MkdirAll(o.State, 0o700); err != nil {
		return err
	}
	options := Options{
		Server: keeper.identity.Server, Key: keeper.identity.SigningKey, Policy: p, State: o.State, Version: o.Version, Logger: o.Logger, Prefix: o.Prefix,
	}
	if p.Web != nil {
		if options.Web, err = OpenWeb(ctx, p, o.State, o.Pipe, o.Logger); err != nil {
			return fmt.Errorf("opening the web server: %w", err)
		}
		defer func() { err = errors.Join(err, options.Web.Applier.Close()) }()
	}
	root, err := New(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if o.Ready != nil {
		o.Ready()
	}
	if os.Geteuid() != 0 {
		o.Logger.Warn("the agent does not run as root: it keeps the link itself, and can do what this user can")
		dial(ctx, root, keeper.current(), keeper.renew, o.Version, o.Logger)
		return nil
	}
	return supervise(ctx, o, p, root, keeper)
}

// keeper keeps the identity on disk for a front that may renew it and nothing
// else.
type keeper struct {
	folder   string
	mu       sync.Mutex
	identity link.Identity
}

func (k *keeper) current() link.Identity {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.identity
}

func (k *keeper) renew(text []byte) error {
	renewed, err := link.ParseIdentity(text)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := renewed.Renews(k.identity); err != nil {
		return err
	}
	if err := renewed.Write(k.folder); err != nil {
		return err
	}
	k.identity = renewed
	return nil
}

// dial holds the link and has a worker do what comes over it.
func dial(ctx context.Context, worker Worker, identity link.Identity, renew func([]byte) error, version string, log *slog.Logger) {
	front := NewFront(worker, version, log)
	defer front.Close()
	save := func(i link.Identity) error {
		text, err := i.Text()
		if err != nil {
			return err
		}
		return renew(text)
	}
	(&link.Dialer{Identity: identity, Save: save, Log: log, Now: time.Now}).Run(ctx, front.Serve)
}

// Pauses before a front that has died is started again.
const (
	firstRestart   = 100 * time.Millisecond
	longestRestart = 30 * time.Second
	steady         = time.Minute // a front that lived as long counts as new
)

// supervise keeps a front running.
func supervise(ctx context.Context, o RunOptions, p *policy.Policy, root *Root, keeper *keeper) error {
	who, err := frontUser(p.Front)
	if err != nil {
		return err
	}
	pause := firstRestart
	for {
		began := time.Now()
		err := oneFront(ctx, o, who, root, keeper)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steady {
			pause = firstRestart
		}
		o.Logger.Error("the front has ended", "error", err, "again_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		pause = min(2*pause, longestRestart)
	}
}

// frontUser finds the user that the front runs as.
func frontUser(name string) (*syscall.Credential, error) {
	found, err := user.Lookup(name)
	if err != nil {
		return nil, upkeep.WithHint(fmt.Errorf("the user of the agent's front: %w", err),
			"make it with: adduser --system --group "+name+" (the package does), or name another as front in the policy")
	}
	uid, err1 := strconv.ParseUint(found.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(found.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if uid == 0 || gid == 0 {
		return nil, fmt.Errorf("the user %s has root's number or group: the agent's front must have neither", name)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Descriptors that a front is given, after the standard ones.
const (
	frontSocket   = 3
	frontIdentity = 4
)

// oneFront starts a front and attends to it until it ends.
func oneFront(ctx context.Context, o RunOptions, who *syscall.Credential, root *Root, keeper *keeper) error {
	conn, theirs, err := socketpair()
	if err != nil {
		return err
	}
	defer conn.Close()
	identity, err := identityPipe(keeper.current())
	if err != nil {
		return errors.Join(err, theirs.Close())
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: o.Front, Dir: "/", Env: []string{}, Stderr: os.Stderr, ExtraFiles: []*os.File{theirs, identity},
		// Pdeathsig: no front outlives its root. A group of its own: a terminal's
		// interrupt is for root, which ends the front.
		SysProcAttr: &syscall.SysProcAttr{Credential: who, Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	ended := make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		// What is started from this thread, and nothing else, can never gain
		// privileges again (PR_SET_NO_NEW_PRIVS is inherited), and the parent-death
		// signal is tied to it: it lives as long as the front, and ends with it.
		runtime.LockOSThread()
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	err = <-started
	if err = errors.Join(err, theirs.Close(), identity.Close()); err != nil {
		return fmt.Errorf("starting the front: %w", err)
	}
	o.Logger.Info("the front runs", "pid", cmd.Process.Pid, "uid", who.Uid)
	said := attend(ctx, conn, root, keeper.renew)
	// A front whose socket has ended is of no use, whatever it still does.
	killed := cmd.Process.Kill()
	if errors.Is(killed, os.ErrProcessDone) {
		killed = nil
	}
	return errors.Join(said, killed, <-ended)
}

// socketpair is a connection to a child, and the child's end of it.
func socketpair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket for the front: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "front"), os.NewFile(uintptr(fds[1]), "root")
	conn, err := net.FileConn(mine)
	err = errors.Join(err, mine.Close()) // FileConn has a copy
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

// maxIdentity bounds an identity: what a pipe holds without a reader.
const maxIdentity = 60 << 10

// identityPipe is a pipe from which the identity can be read once. The key is on
// no disk that the front can read, and in no argument.
func identityPipe(identity link.Identity) (*os.File, error) {
	text, err := identity.Text()
	if err != nil {
		return nil, err
	}
	if len(text) > maxIdentity {
		return nil, fmt.Errorf("the identity has %d bytes; at most %d are passed on", len(text), maxIdentity)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if _, err := write.Write(text); err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	return read, write.Close()
}

// StatePaths are where an agent keeps its identity and what it remembers, below
// one folder.
func StatePaths(data string) (identity, state string) {
	return filepath.Join(data, "identity"), filepath.Join(data, "agent")
}
