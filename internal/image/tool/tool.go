// Package tool runs the programs that know file systems: mke2fs, e2fsck,
// resize2fs and their like. They get the image as an open descriptor, so that no
// name that changes meanwhile can lead them to another file.
package tool

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"upkeep"
)

// Image stands in [Command.Args] for the image, Output for a second file.
const (
	Image  = "/proc/self/fd/3"
	Output = "/proc/self/fd/4"
)

// progressFD is the descriptor of [Command.Progress].
const progressFD = "-4"

// searchPath is where programs are looked for: the system's folders and no others,
// since they may run as root.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// packages has the Debian package of each program that is run.
var packages = map[string]string{
	"mke2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "resize2fs": "e2fsprogs", "tune2fs": "e2fsprogs", "debugfs": "e2fsprogs", "dumpe2fs": "e2fsprogs",
	"mkfs.xfs": "xfsprogs", "xfs_repair": "xfsprogs", "xfs_growfs": "xfsprogs", "xfs_admin": "xfsprogs", "xfs_db": "xfsprogs",
	"mkfs.btrfs": "btrfs-progs", "btrfs": "btrfs-progs", "btrfstune": "btrfs-progs",
	"mkreiserfs": "reiserfsprogs", "reiserfsck": "reiserfsprogs", "resize_reiserfs": "reiserfsprogs", "reiserfstune": "reiserfsprogs",
	"mkfs.vfat": "dosfstools", "fsck.vfat": "dosfstools", "fatlabel": "dosfstools",
	"mkswap": "util-linux", "swaplabel": "util-linux", "prlimit": "util-linux",
	"qemu-img": "qemu-utils", "xz": "xz-utils", "gzip": "gzip",
}

// Find is the path of a program. That it is missing is an error that names the
// package to install.
func Find(name string) (string, error) {
	for _, folder := range filepath.SplitList(searchPath) {
		path := filepath.Join(folder, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	err := fmt.Errorf("%s is not installed", name)
	if debian := packages[name]; debian != "" {
		return "", &upkeep.HintError{Err: err, Hint: "apt-get install " + debian}
	}
	return "", err
}

// Command is one run of a program on an image.
type Command struct {
	Name string
	// Args may hold [Image] where the program wants the image's name.
	Args []string
	File *os.File // the image
	// Into is a second file, which [Output] stands for; without Progress only.
	Into *os.File
	// InputFrom is what a program reads that [Command.Pipe] runs.
	InputFrom io.Reader
	// Input is what the program reads: /dev/null when empty, so that one that asks
	// gets no answer rather than waiting for it.
	Input string
	// Env is added to the few variables that each program gets.
	Env []string
	// MaxFile is how large the program may make a file, in bytes: one that writes beyond
	// is killed before it does, with [ErrFull]. 0 is no bound. Devices have none.
	MaxFile int64
	// NoSync keeps the program from writing the image to the disk, which we do when it is
	// done, and with sync(2) all that others have written.
	NoSync bool
	// Progress is told how far e2fsck has come, in thousandths of its pass, once it has
	// run for a while: telling it takes it a third of its time. It adds "-C -4" to
	// the arguments, which has it begin when it gets SIGUSR1.
	Progress func(pass, thousandths int64)
	// quiet is how long it runs before it is asked for that; 0 is a second.
	quiet time.Duration
}

// Result is how a program ended.
type Result struct {
	Code   int    // its exit status
	Output string // what it printed, both streams as they came; of much the first and the last lines
}

// maxOutput bounds what is kept of a program's output, in bytes.
const maxOutput = 64 << 10

// Run runs the program to its end. Its exit status is in the result and no error:
// what it means differs by program. An error is that it could not run, was killed,
// or that the context ended, which kills it.
func (c Command) Run(ctx context.Context) (Result, error) {
	path, err := Find(c.Name)
	if err != nil {
		return Result{}, err
	}
	args := c.Args
	out := ends{max: maxOutput}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(environment(), c.Env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &out, &out
	if c.Input != "" {
		cmd.Stdin = strings.NewReader(c.Input)
	}
	cmd.ExtraFiles = []*os.File{c.File}
	if c.Into != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, c.Into)
	}
	// A group of its own: Ctrl-C reaches us alone, and we end it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var told chan struct{}
	if c.Progress != nil {
		args = append([]string{"-C", progressFD}, args...)
		read, write, err := os.Pipe()
		if err != nil {
			return Result{}, fmt.Errorf("making a pipe for the progress of %s: %w", c.Name, err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, write)
		told = make(chan struct{})
		go func() {
			defer close(told)
			readProgress(read, c.Progress)
			read.Close()
		}()
		defer func() { <-told }()
		defer write.Close()
	}
	cmd.Args = append([]string{c.Name}, args...)
	if c.MaxFile > 0 {
		// A bound of our own would be one of all that goes on in this process, and one
		// that the program gets when it runs already can come too late.
		if cmd.Path, err = Find("prlimit"); err != nil {
			return Result{}, err
		}
		cmd.Args = append([]string{"prlimit", fmt.Sprint("--fsize=", c.MaxFile), "--core=0"}, cmd.Args...)
	}
	var ask time.Duration
	if c.Progress != nil {
		ask = cmp.Or(c.quiet, time.Second)
	}
	err = c.start(ctx, cmd, ask)
	result := Result{Code: cmd.ProcessState.ExitCode(), Output: plain(out.String())} // -1 where it did not start
	var exit *exec.ExitError
	switch {
	case err == nil:
		return result, nil
	case ctx.Err() != nil:
		return result, fmt.Errorf("%s was stopped: %w", c.Name, context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		return result, nil
	case exit != nil && killedBy(exit) == syscall.SIGXFSZ:
		return result, fmt.Errorf("%s: %w of %d bytes", c.Name, ErrFull, c.MaxFile)
	}
	return result, fmt.Errorf("running %s: %w", c.Name, err)
}

func environment() []string {
	return []string{"PATH=" + searchPath, "LC_ALL=C", "HOME=/nonexistent", "TZ=UTC"}
}

// OK runs the program and takes any exit status but 0 for a failure.
func (c Command) OK(ctx context.Context) error {
	result, err := c.Run(ctx)
	if err != nil {
		return err
	}
	if result.Code != 0 {
		return Failed(c.Name, result)
	}
	return nil
}

// FailedError is that a program ended with a status that means failure.
type FailedError struct {
	Name string
	Result
}

func (e *FailedError) Error() string {
	if ranOut := e.Unwrap(); ranOut != nil {
		return fmt.Sprintf("%s: %v", e.Name, ranOut) // and whatever followed from that
	}
	if e.Output == "" {
		return fmt.Sprintf("%s ended with status %d and said nothing", e.Name, e.Code)
	}
	return fmt.Sprintf("%s ended with status %d: %s", e.Name, e.Code, e.Output)
}

// Unwrap is that the host had no more room, where the program said so.
func (e *FailedError) Unwrap() error {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if strings.Contains(strings.ToLower(e.Output), errno.Error()) {
			return errno
		}
	}
	return nil
}

// Failed is the [FailedError] of a program.
func Failed(name string, result Result) error { return &FailedError{name, result} }

// ErrFull is that a program wanted to write more than [Command.MaxFile].
var ErrFull = errors.New("it wanted to write beyond its bound")

func killedBy(e *exec.ExitError) syscall.Signal {
	status, ok := e.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0
	}
	return status.Signal()
}

// run runs a command to its end, and asks it for its progress after a while, unless
// that is 0.
func run(cmd *exec.Cmd, ask time.Duration) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	if ask > 0 {
		timer := time.AfterFunc(ask, func() {
			if catches(cmd.Process.Pid, syscall.SIGUSR1) {
				_ = cmd.Process.Signal(syscall.SIGUSR1) // it has ended, or could not be told how far it is
			}
		})
		defer timer.Stop()
	}
	return cmd.Wait()
}

// catches reports whether a process has a handler for a signal, which it has not from
// its start: without one the signal would end it.
func catches(pid int, signal syscall.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(status), "\nSigCgt:\t")
	line, _, _ := strings.Cut(after, "\n")
	caught, err := strconv.ParseUint(line, 16, 64)
	return err == nil && caught&(1<<(signal-1)) != 0
}

// readProgress reads the lines of e2fsck -C: "pass current max device".
func readProgress(r io.Reader, told func(pass, thousandths int64)) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var pass, current, total int64
		if n, _ := fmt.Sscan(lines.Text(), &pass, &current, &total); n == 3 && total > 0 && current >= 0 && current <= total {
			told(pass, current*1000/total)
		}
	}
}

// ends keeps the first and the last of what is written to it: a check says first what
// all the rest comes of, and a program that gives up says why at its end.
type ends struct {
	first, last bytes.Buffer
	max         int
	cut         bool
}

func (e *ends) Write(p []byte) (int, error) {
	head := p[:min(len(p), max(0, e.max/2-e.first.Len()))]
	e.first.Write(head)
	e.last.Write(p[len(head):])
	if over := e.last.Len() - e.max/2; over > 0 {
		e.last.Next(over)
		e.cut = true
	}
	return len(p), nil
}

// String has whole lines only: what is left of one that was cut means something else.
func (e *ends) String() string {
	first, last := e.first.String(), e.last.String()
	if !e.cut {
		return first + last
	}
	_, last, _ = strings.Cut(last, "\n")
	return first[:strings.LastIndexByte(first, '\n')+1] + last
}

// plain makes a program's output fit for a message: one line, no control
// characters, no banner of its version.
func plain(text string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.ToValidUTF8(text, "?"), "\n") {
		if at := strings.LastIndexAny(line, "\r\b"); at >= 0 {
			line = line[at+1:]
		}
		line = strings.TrimSpace(strings.ReplaceAll(line, Image, "the image"))
		if line == "" || banner(line) {
			continue
		}
		lines = append(lines, upkeep.Printable(line))
	}
	return strings.Join(lines, "; ")
}

func banner(line string) bool {
	for _, name := range []string{"mke2fs 1.", "e2fsck 1.", "resize2fs 1.", "tune2fs 1.", "resize_reiserfs 3.", "reiserfsck 3.", "mkfs.fat 4.", "fsck.fat 4."} {
		if strings.HasPrefix(line, name) {
			return true
		}
	}
	return false
}
