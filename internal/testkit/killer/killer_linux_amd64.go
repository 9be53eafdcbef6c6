// Package killer ends a program and all that it started at a chosen one of its
// writes: what it leaves is what a crash at that moment would.
package killer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Call is one system call that changes something that stays.
type Call struct {
	Name string
	// Target is what the descriptor that it works on stands for, and Inode its number.
	Target string
	Inode  uint64
	// Names are the paths that a call is given which changes names.
	Names []string
}

// changing are the calls that count, with whether their first argument is the
// descriptor of a file that they change.
var changing = map[uint64]struct {
	name string
	file bool
}{
	unix.SYS_WRITE: {"write", true}, unix.SYS_PWRITE64: {"pwrite64", true}, unix.SYS_WRITEV: {"writev", true}, unix.SYS_PWRITEV: {"pwritev", true}, unix.SYS_PWRITEV2: {"pwritev2", true},
	unix.SYS_FTRUNCATE: {"ftruncate", true}, unix.SYS_FALLOCATE: {"fallocate", true}, unix.SYS_FSYNC: {"fsync", true}, unix.SYS_FDATASYNC: {"fdatasync", true},
	unix.SYS_SYNCFS: {"syncfs", true}, unix.SYS_FCHMOD: {"fchmod", true}, unix.SYS_FCHOWN: {"fchown", true}, unix.SYS_FSETXATTR: {"fsetxattr", true},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", false}, unix.SYS_IOCTL: {"ioctl", true},
	unix.SYS_RENAME: {"rename", false}, unix.SYS_RENAMEAT: {"renameat", false}, unix.SYS_RENAMEAT2: {"renameat2", false},
	unix.SYS_LINK: {"link", false}, unix.SYS_LINKAT: {"linkat", false}, unix.SYS_UNLINK: {"unlink", false}, unix.SYS_UNLINKAT: {"unlinkat", false},
	unix.SYS_TRUNCATE: {"truncate", false}, unix.SYS_FSMOUNT: {"fsmount", false},
}

// Run starts a program and kills it, with all that it started, when the call number
// at is about to be made; 0 lets it run to its end. Calls are those that were seen.
// Killed says whether it came to that; otherwise it ended by itself, with err.
func Run(cmd *exec.Cmd, at int) (calls []Call, killed bool, err error) {
	// Ptrace requests must come from the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return nil, false, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	t := tracer{root: cmd.Process.Pid, at: at, inside: map[int]bool{}, known: map[int]bool{}}
	status, err := t.run()
	if err != nil {
		return t.calls, t.killed, err
	}
	if !t.killed && status.ExitStatus() != 0 {
		err = fmt.Errorf("%s ended with status %d", cmd.Path, status.ExitStatus())
	}
	return t.calls, t.killed, err
}

// naming are the calls that change names, with the registers that point to paths.
var naming = map[string]func(r *unix.PtraceRegs) []uint64{
	"rename":    func(r *unix.PtraceRegs) []uint64 { return []uint64{r.Rdi, r.Rsi} },
	"renameat":  func(r *unix.PtraceRegs) []uint64 { return []uint64{r.Rsi, r.R10} },
	"renameat2": func(r *unix.PtraceRegs) []uint64 { return []uint64{r.Rsi, r.R10} },
	"link":      func(r *unix.PtraceRegs) []uint64 { return []uint64{r.Rdi, r.Rsi} },
	"linkat":    func(r *unix.PtraceRegs) []uint64 { return []uint64{r.Rsi, r.R10} },
	"unlink":    func(r *unix.PtraceRegs) []uint64 { return []uint64{r.Rdi} },
	"unlinkat":  func(r *unix.PtraceRegs) []uint64 { return []uint64{r.Rsi} },
}

// pathAt reads a path out of a process that is stopped.
func pathAt(pid int, address uint64) string {
	text := make([]byte, unix.PathMax)
	n, err := unix.PtracePeekData(pid, uintptr(address), text)
	if err != nil && n <= 0 {
		return ""
	}
	path, _, _ := bytes.Cut(text[:n], []byte{0})
	return string(path)
}

type tracer struct {
	root   int
	at     int
	calls  []Call
	killed bool
	inside map[int]bool // a thread is between entry and return of a call
	known  map[int]bool // its options are set
}

const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

// run goes from stop to stop until no process is left, and returns how the first
// ended.
func (t *tracer) run() (syscall.WaitStatus, error) {
	var end syscall.WaitStatus
	for {
		var status syscall.WaitStatus
		// __WNOTHREAD: the children of this thread alone, for others have children too.
		pid, err := syscall.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD):
			return end, nil
		case err != nil:
			return end, fmt.Errorf("waiting for a traced process: %w", err)
		case status.Exited() || status.Signaled():
			if pid == t.root {
				end = status
			}
			delete(t.inside, pid)
		case status.Stopped():
			t.stopped(pid, status)
		}
	}
}

func (t *tracer) stopped(pid int, status syscall.WaitStatus) {
	if !t.known[pid] {
		t.known[pid] = true
		unix.PtraceSetOptions(pid, options) // of children they are set already
	}
	deliver := 0
	switch signal := status.StopSignal(); {
	case signal == syscall.SIGTRAP|0x80:
		if t.inside[pid] = !t.inside[pid]; t.inside[pid] {
			t.enter(pid)
		}
	case signal == syscall.SIGTRAP, signal == syscall.SIGSTOP: // an event, or the first stop of a child
	default:
		deliver = int(signal)
	}
	if !t.killed {
		unix.PtraceSyscall(pid, deliver) // fails where it is gone, which is told next
	}
}

func (t *tracer) enter(pid int) {
	var registers unix.PtraceRegs
	if unix.PtraceGetRegs(pid, &registers) != nil {
		return
	}
	call, counts := changing[registers.Orig_rax]
	if !counts {
		return
	}
	c := Call{Name: call.name}
	fd := registers.Rdi
	if call.name == "copy_file_range" {
		fd = registers.Rdx
	}
	if call.file || call.name == "copy_file_range" {
		path := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
		c.Target, _ = os.Readlink(path)
		if !strings.HasPrefix(c.Target, "/") || slices.Contains([]string{"/dev/null", "/dev/tty"}, c.Target) {
			return // a pipe, an event
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			c.Inode = st.Ino
		}
	}
	if paths, names := naming[call.name]; names {
		for _, address := range paths(&registers) {
			c.Names = append(c.Names, pathAt(pid, address))
		}
	}
	t.calls = append(t.calls, c)
	if len(t.calls) == t.at {
		t.killed = true
		for pid := range t.known {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}
