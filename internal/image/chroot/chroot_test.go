package chroot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/mount"
	"upkeep/internal/testkit"
)

// TestMain is also the two programs outside and inside: upkeep image chroot, and
// the first process that it starts.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "init":
		os.Exit(Init(os.Args[2:]))
	case os.Getenv("UPKEEP_TEST_CHROOT") != "":
		status, err := chrootInto(os.Getenv("UPKEEP_TEST_CHROOT"), os.Args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			if start := (*NotStartedError)(nil); errors.As(err, &start) {
				os.Exit(start.Status)
			}
			os.Exit(99)
		}
		os.Exit(status)
	}
	os.Exit(m.Run())
}

func chrootInto(path string, args []string) (status int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	m, err := mount.Open(f, mount.Options{Type: fsinfo.Ext4, Setuid: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	c := Command{Root: m.Mount(), Args: args, Init: []string{"init"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	return c.Run(context.Background())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// system makes an image with a small system in it.
func system(t *testing.T, change func(root string)) string {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "busybox", "mke2fs")
	busybox, err := testkit.Find("busybox")
	must(t, err)
	folder := t.TempDir()
	root := filepath.Join(folder, "root")
	for _, name := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/sbin", "var/lib/dpkg"} {
		must(t, os.MkdirAll(filepath.Join(root, name), 0o755))
	}
	text, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin/busybox"), text, 0o755))
	for _, name := range []string{"sh", "cat", "ls", "ps", "rm", "tty", "stty", "sleep", "nslookup", "mount", "touch", "kill", "id", "hostname", "sync", "mknod", "test", "true", "find", "head", "echo"} {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", name)))
	}
	must(t, os.WriteFile(filepath.Join(root, "etc/is-the-image"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(root, "etc/resolv.conf"), []byte("# the image's own\n"), 0o644))
	if change != nil {
		change(root)
	}
	path := filepath.Join(folder, "web.img")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, 32<<20))
	mke2fs, err := testkit.Find("mke2fs")
	must(t, err)
	out, err := exec.Command(mke2fs, "-q", "-F", "-t", "ext4", "-d", root, path).CombinedOutput()
	if err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	return path
}

// in is the command that runs one in the image.
func in(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "UPKEEP_TEST_CHROOT="+path)
	return cmd
}

// sh runs a script in the image and returns what it prints.
func sh(t *testing.T, path, script string) string {
	t.Helper()
	out, err := in(path, "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// inside reads the image when nothing runs there.
func inside(t *testing.T, path string, look func(root string)) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	m, err := mount.Open(f, mount.Options{Type: fsinfo.Ext4, ReadOnly: true})
	must(t, err)
	defer func() { must(t, m.Close()) }()
	look(fmt.Sprintf("/proc/self/fd/%d", m.Dir.Fd()))
}

// nothingLeft asserts that no loop device, mount or process of the image is left,
// and that the image's tree is as it was but for what is named.
func nothingLeft(t *testing.T, path string) {
	t.Helper()
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		left, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
		for _, file := range left {
			if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == path {
				return false, file
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && !strings.Contains(string(mounts), path), "mounted"
	})
	inside(t, path, func(root string) {
		if text, err := os.ReadFile(filepath.Join(root, "etc/resolv.conf")); err != nil || string(text) != "# the image's own\n" {
			t.Errorf("resolv.conf is %q, %v", text, err)
		}
		for _, folder := range []string{"usr/sbin", "dev", "proc", "run", "sys"} {
			if names, err := os.ReadDir(filepath.Join(root, folder)); err != nil || len(names) > 0 {
				t.Errorf("in %s is %v, %v", folder, names, err)
			}
		}
	})
	if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v: %s", err, out)
	}
}

func TestTheStatusIsPassedOn(t *testing.T) {
	path := system(t, nil)
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143} {
		cmd := in(path, "sh", "-c", script)
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%q ends with %d, want %d", script, got, want)
		}
	}
	nothingLeft(t, path)
}

func TestStreams(t *testing.T) {
	path := system(t, nil)
	cmd := in(path, "sh", "-c", "cat; echo to stderr >&2")
	cmd.Stdin = strings.NewReader("typed\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || string(out) != "typed\n" || stderr.String() != "to stderr\n" {
		t.Errorf("out %q, err %q, %v", out, stderr.String(), err)
	}
}

func TestWhatTheCommandSees(t *testing.T) {
	path := system(t, nil)
	sees := map[string]string{
		"ls /dev": "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero",
		"ls /sys": "",
		"ps -o pid= | head -n 1 | { read n; echo $n; }":                                           "1",
		"test $(ls -d /proc/[0-9]* | { n=0; while read x; do n=$((n+1)); done; echo $n; }) -lt 6": "",
		"echo ok > /dev/null; head -c 3 /dev/zero | { read x; }; echo fine":                       "fine",
		"cat /usr/sbin/policy-rc.d":                                                               "#!/bin/sh\nexit 101",
		"/usr/sbin/policy-rc.d; echo $?":                                                          "101",
		"{ read n < /proc/sys/vm/swappiness; echo $n > /proc/sys/vm/swappiness; } 2>&1":           "sh: can't create /proc/sys/vm/swappiness: Read-only file system",
		"echo $PATH $HOME $USER":                                                                  searchPath + " /root root",
		"test ! -e " + path + " && ls /":                                                          "bin\ndev\netc\nlost+found\nproc\nroot\nrun\nsys\ntmp\nusr\nvar",
		"find / -xdev -name go.mod | head -n 1":                                                   "",
		"hostname other; hostname":                                                                "other",
	}
	var scripts, wants []string
	for script, want := range sees {
		scripts, wants = append(scripts, script), append(wants, want)
	}
	const mark = "-- the next --"
	all := append([]string{"sh", "-c", `for s; do sh -c "$s" 2>&1; echo "` + mark + `"; done`, "sh"}, scripts...)
	out, err := in(path, all...).CombinedOutput()
	must(t, err)
	for i, got := range strings.Split(string(out), mark)[:len(scripts)] {
		if got = strings.TrimSpace(got); got != wants[i] {
			t.Errorf("%q prints %q, want %q", scripts[i], got, wants[i])
		}
	}
	if name, err := os.Hostname(); err != nil || name == "other" {
		t.Errorf("the host's name is %q, %v", name, err)
	}
	nothingLeft(t, path)
}

// Clocks, modules, memory and restarts are the host's. That they are out of reach is
// read and not tried, since a trial that succeeds does what it is to prevent. Which
// thread starts the command is chance, hence many.
func TestWhatTheCommandMayNot(t *testing.T) {
	path := system(t, nil)
	for range 3 {
		line := sh(t, path, "while read name value; do test $name = CapEff: && echo $value; done < /proc/self/status; :")
		set, err := strconv.ParseUint(line, 16, 64)
		must(t, err)
		for _, capability := range []int{unix.CAP_SYS_MODULE, unix.CAP_SYS_RAWIO, unix.CAP_SYS_TIME, unix.CAP_SYS_BOOT} {
			if set&(1<<capability) != 0 {
				t.Fatalf("it has capability %d: %s", capability, line)
			}
		}
		if set&(1<<unix.CAP_CHOWN) == 0 {
			t.Fatalf("it is no root: %s", line)
		}
	}
}

// What was seen of others: rm -rf of a chroot's /dev emptied the host's.
func TestNothingOfTheHostCanBeRemoved(t *testing.T) {
	path := system(t, nil)
	before, err := os.ReadDir("/dev")
	must(t, err)
	pids, err := os.ReadDir("/proc")
	must(t, err)
	out, err := in(path, "sh", "-c", "test -e /etc/is-the-image || exit 1; rm -rf /dev /proc /sys /run /tmp/* /etc/* 2>/dev/null; rm -rf /* 2>/dev/null; echo gone").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "gone") {
		t.Fatalf("%v, %s", err, out)
	}
	after, err := os.ReadDir("/dev")
	must(t, err)
	missing := slices.DeleteFunc(before, func(e os.DirEntry) bool {
		return slices.ContainsFunc(after, func(o os.DirEntry) bool { return o.Name() == e.Name() }) || strings.HasPrefix(e.Name(), "loop")
	})
	if len(missing) > 0 {
		t.Errorf("gone from /dev: %v", missing)
	}
	if now, err := os.ReadDir("/proc"); err != nil || len(now) < len(pids)/2 {
		t.Errorf("/proc had %d entries and has %d, %v", len(pids), len(now), err)
	}
	for _, file := range []string{"/etc/passwd", "/bin/sh", os.Args[0]} {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the host lost a file: %v", err)
		}
	}
}

func TestOtherProcessesEndWithTheCommand(t *testing.T) {
	path := system(t, nil)
	out := sh(t, path, `(trap "" TERM HUP; sleep 3600) & (sleep 3600 & ) ; echo started`)
	if out != "started" { // and it does not wait for an hour
		t.Errorf("it prints %q", out)
	}
	nothingLeft(t, path)
}

func TestSignalsArePassedOn(t *testing.T) {
	path := system(t, nil)
	for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1} {
		cmd := in(path, "sh", "-c", `trap 'echo got it; exit 42' TERM INT HUP USR1; echo ready; while :; do sleep 0.01; done`)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = io.ReadFull(out, make([]byte, len("ready\n")))
		must(t, err)
		must(t, cmd.Process.Signal(s))
		text, err := io.ReadAll(out)
		must(t, err)
		cmd.Wait()
		if cmd.ProcessState.ExitCode() != 42 || string(text) != "got it\n" {
			t.Errorf("%v: status %d, %q", s, cmd.ProcessState.ExitCode(), text)
		}
	}
	nothingLeft(t, path)
}

func TestAKillLeavesNothing(t *testing.T) {
	path := system(t, nil)
	cmd := in(path, "sh", "-c", `echo kept > /root/file; sync; echo ready; sleep 3600`)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	must(t, err)
	must(t, cmd.Process.Kill())
	cmd.Wait()
	nothingLeft(t, path)
	inside(t, path, func(root string) {
		if text, err := os.ReadFile(filepath.Join(root, "root/file")); err != nil || string(text) != "kept\n" {
			t.Errorf("what was written is %q, %v", text, err)
		}
	})
}

// The first process inside is killed as well: an empty file may stay, which means
// nothing, and goes with the next command.
func TestAKillOfAllHealsWithTheNext(t *testing.T) {
	path := system(t, nil)
	cmd := in(path, "sh", "-c", `echo ready; sleep 3600`)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	must(t, err)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	must(t, err)
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
	for _, file := range all {
		more, _ := os.ReadFile(file)
		children = append(children, more...)
	}
	fields := strings.Fields(string(children))
	if len(fields) == 0 {
		t.Fatal("it has no child")
	}
	init, err := strconv.Atoi(fields[0])
	must(t, err)
	must(t, cmd.Process.Signal(unix.SIGSTOP))
	must(t, unix.Kill(init, unix.SIGKILL))
	must(t, cmd.Process.Kill())
	cmd.Wait()
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		out, err := in(path, "true").CombinedOutput()
		return err == nil, string(out)
	})
	nothingLeft(t, path)
}

func TestNamesAreLookedUpAsTheHostDoes(t *testing.T) {
	links := map[string]func(root string){
		"a file": nil,
		"a link into /run": func(root string) {
			must(t, os.Remove(filepath.Join(root, "etc/resolv.conf")))
			must(t, os.Symlink("../run/systemd/resolve/stub-resolv.conf", filepath.Join(root, "etc/resolv.conf")))
		},
		"nothing": func(root string) { must(t, os.Remove(filepath.Join(root, "etc/resolv.conf"))) },
	}
	want, err := os.ReadFile("/etc/resolv.conf")
	testkit.NeedThat(t, "a resolv.conf", err)
	for name, change := range links {
		t.Run(name, func(t *testing.T) {
			path := system(t, change)
			if got := sh(t, path, "cat /etc/resolv.conf"); got != strings.TrimSpace(string(want)) {
				t.Errorf("it has %q, and the host %q", got, want)
			}
			inside(t, path, func(root string) {
				info, err := os.Lstat(filepath.Join(root, "etc/resolv.conf"))
				if name == "nothing" != errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
					t.Errorf("afterwards there is %v, %v", info, err)
				}
			})
		})
	}
}

func TestWhatCannotStart(t *testing.T) {
	path := system(t, func(root string) {
		must(t, os.WriteFile(filepath.Join(root, "bin/other"), append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 200)...), 0o755))
		must(t, os.WriteFile(filepath.Join(root, "bin/text"), nil, 0o644))
	})
	for _, c := range []struct {
		command, want string
		status        int
	}{
		{"none", "there is no program none in the image", 127},
		{"/bin/none", "no such file", 127},
		{"other", "exec format error", 126},
		{"text", "starting /bin/text in the image: permission denied", 126},
		{"/etc/resolv.conf", "permission denied", 126},
	} {
		cmd := in(path, c.command)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != c.status || !strings.Contains(string(out), path+": ") || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: status %d, %s", c.command, cmd.ProcessState.ExitCode(), out)
		}
	}
	nothingLeft(t, path)
	empty := system(t, func(root string) { must(t, os.Remove(filepath.Join(root, "dev"))) })
	cmd := in(empty, "true")
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 99 || !strings.Contains(string(out), empty+": the image has no folder /dev") {
		t.Errorf("without /dev: %s", out)
	}
	elsewhere := system(t, func(root string) {
		must(t, os.Remove(filepath.Join(root, "dev")))
		must(t, os.Symlink("/etc", filepath.Join(root, "dev")))
	})
	if out, err := in(elsewhere, "true").CombinedOutput(); err == nil {
		t.Errorf("with a link for /dev: %s", out)
	}
}

func TestATerminal(t *testing.T) {
	path := system(t, nil)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}))
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer terminal.Close()
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	must(t, err)

	cmd := in(path) // a shell
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	shown := make(chan string)
	go func() {
		text := make([]byte, 4096)
		for {
			n, err := master.Read(text)
			if err != nil {
				close(shown)
				return
			}
			shown <- string(text[:n])
		}
	}()
	var all string
	see := func(want string) {
		t.Helper()
		end := time.After(time.Minute)
		for !strings.Contains(all, want) {
			select {
			case text := <-shown:
				all += text
			case <-end:
				t.Fatalf("it shows %q, want %q", all, want)
			}
		}
	}
	see("# ")
	fmt.Fprint(master, "tty; stty size; echo a$((1+1))b\r")
	see("/dev/pts/0")
	see("33 77")
	see("a2b")
	must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 44, Col: 88}))
	for n := 0; !strings.Contains(all, "44 88"); n++ {
		fmt.Fprintf(master, "stty size; echo n%dn$((1+1))\r", n)
		see(fmt.Sprintf("n%dn2", n))
	}
	fmt.Fprint(master, "echo s$((1+1))p; sleep 3600\r")
	see("s2p")
	// The shell may throw away what is typed while it comes back to its prompt.
	for end := time.Now().Add(time.Minute); !strings.Contains(all, "c7d"); {
		if time.Now().After(end) {
			t.Fatalf("it shows %q after Ctrl-C", all)
		}
		fmt.Fprint(master, "\x03echo c$((3+4))d\r")
		for pause, waiting := time.After(time.Second), true; waiting && !strings.Contains(all, "c7d"); {
			select {
			case text := <-shown:
				all += text
			case <-pause:
				waiting = false
			}
		}
	}
	fmt.Fprint(master, "exit 5\r")
	ended := make(chan error)
	go func() { ended <- cmd.Wait() }()
	for waiting := true; waiting; {
		select {
		case <-shown:
		case <-ended:
			waiting = false
		}
	}
	if cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("status %d, shown %q", cmd.ProcessState.ExitCode(), all)
	}
	after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	must(t, err)
	if *after != *before {
		t.Errorf("the terminal is left as %+v, was %+v", after, before)
	}
	nothingLeft(t, path)
}
