package chroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Init is the first process in the namespaces. It sets up the tree, starts the
// command, buries processes that nobody waits for, and when the command or the
// process outside ends, ends all others. It returns the exit status.
func Init(args []string) int {
	// What is given up is given up by a thread, and by what it starts (capabilities(7)).
	runtime.LockOSThread()
	report := os.NewFile(errorFD, "report")
	unix.CloseOnExec(errorFD)
	unix.CloseOnExec(aliveFD)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, append([]os.Signal{unix.SIGCHLD, unix.SIGWINCH}, passedOn...)...)
	tree := &tree{}
	defer tree.leave()
	if err := tree.enter(); err != nil {
		kind := trouble
		if errors.Is(err, errNoPlace) {
			kind = noPlace
		}
		fmt.Fprintf(report, "%s:%v", kind, err)
		return 1
	}
	console, err := newConsole(os.Stdin)
	if err != nil {
		fmt.Fprintf(report, "%s:%v", trouble, err)
		return 1
	}
	pid, err := start(args, console)
	if err != nil {
		console.close()
		fmt.Fprintf(report, "%s:%v", kindOf(err), err)
		return 1
	}
	report.Close()
	status := attend(pid, signals, console)
	end()
	console.close()
	return status
}

// start starts the command in a session of its own.
func start(args []string, console *console) (int, error) {
	if len(args) == 0 {
		args = []string{shell()}
	}
	path, err := lookup(args[0])
	if err != nil {
		return 0, err
	}
	stdin, stdout, stderr := console.streams()
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   environment(),
		Files: []uintptr{stdin, stdout, stderr},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: console.terminal != nil, Ctty: 0},
	})
	if err != nil {
		return 0, fmt.Errorf("starting %s in the image: %w", path, err)
	}
	console.started()
	return pid, nil
}

// kindOf is why a program was not started.
func kindOf(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notFound
	case errors.Is(err, unix.ENOEXEC):
		return otherFormat
	}
	return notStarted
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func shell() string {
	for _, path := range []string{"/bin/bash", "/bin/sh"} {
		if executable(path) {
			return path
		}
	}
	return "/bin/sh"
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func lookup(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	found := ""
	for _, folder := range filepath.SplitList(searchPath) {
		path := filepath.Join(folder, name)
		if executable(path) {
			return path, nil
		}
		if _, err := os.Stat(path); err == nil {
			found = path
		}
	}
	if found != "" {
		return found, nil // the kernel says why it cannot be executed
	}
	return "", fmt.Errorf("there is no program %s in the image: %w", name, fs.ErrNotExist)
}

// environment is what a login of root's would have, and the way to a proxy.
func environment() []string {
	env := []string{"PATH=" + searchPath, "HOME=/root", "USER=root", "LOGNAME=root", "SHELL=" + shell(), "LANG=C.UTF-8"}
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if name == "TERM" || strings.HasSuffix(strings.ToLower(name), "_proxy") {
			env = append(env, variable)
		}
	}
	return env
}

// attend waits for the command, and for whatever else becomes a child of the first
// process, passes signals on, and returns the command's status.
func attend(pid int, signals <-chan os.Signal, console *console) int {
	outside := make(chan struct{})
	go func() {
		unix.Read(aliveFD, make([]byte, 1)) // nothing is ever written
		close(outside)
	}()
	for {
		select {
		case <-outside:
			return 128 + int(unix.SIGKILL)
		case s := <-signals:
			switch s {
			case unix.SIGCHLD:
				if status, ended := bury(pid); ended {
					return status
				}
			case unix.SIGWINCH:
				console.resize()
			default:
				number, _ := s.(syscall.Signal)
				unix.Kill(pid, number) // it may have ended by now
			}
		}
	}
}

// bury waits for all children that have ended, and reports whether pid is one.
func bury(pid int) (status int, ended bool) {
	for {
		var ws unix.WaitStatus
		child, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || child <= 0 {
			return status, ended
		}
		if child == pid {
			status, ended = ws.ExitStatus(), true
			if ws.Signaled() {
				status = 128 + int(ws.Signal())
			}
		}
	}
}

// end ends all other processes in the namespace: first as a shutdown does, so that
// they can put away what they have.
func end() {
	const grace = 2 * time.Second
	unix.Kill(-1, unix.SIGTERM)
	unix.Kill(-1, unix.SIGCONT)
	for until := time.Now().Add(grace); time.Now().Before(until); {
		if none() {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	unix.Kill(-1, unix.SIGKILL)
	for !none() { // killed, they end
		<-time.After(time.Millisecond)
	}
}

// none buries who has ended, and reports whether nobody is left.
func none() bool {
	bury(0)
	_, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
	return errors.Is(err, unix.ECHILD) && errors.Is(unix.Kill(-1, 0), unix.ESRCH)
}
