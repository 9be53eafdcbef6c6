package tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/thread"
	"upkeep/internal/testkit"
)

// image is a file with the name of something else: programs must not need it.
func image(t *testing.T, size int64) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "-a\nname"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestProgramsGetTheDescriptor(t *testing.T) {
	testkit.Need(t, "mke2fs", "e2fsck")
	file := image(t, 64<<20)
	ctx := context.Background()
	if err := os.Remove(file.Name()); err != nil { // nothing leads to it by name
		t.Fatal(err)
	}
	if err := (Command{Name: "mke2fs", Args: []string{"-q", "-F", "-t", "ext4", Image}, File: file}).OK(ctx); err != nil {
		t.Fatal(err)
	}
	check := Command{Name: "e2fsck", Args: []string{"-f", "-n", Image}, File: file}
	if result, err := check.Run(ctx); err != nil || result.Code != 0 {
		t.Errorf("checking: %+v, %v", result, err)
	}
}

func TestFailureSaysWhatTheProgramSaid(t *testing.T) {
	testkit.Need(t, "e2fsck")
	file := image(t, 1<<20)
	err := Command{Name: "e2fsck", Args: []string{"-f", "-n", Image}, File: file}.OK(context.Background())
	if err == nil || !strings.Contains(err.Error(), "status 8") || !strings.Contains(err.Error(), "Bad magic number") {
		t.Errorf("checking zeros: %v", err)
	}
	if strings.ContainsAny(err.Error(), "\n\r\x1b") || strings.Contains(err.Error(), Image) || strings.Contains(err.Error(), "e2fsck 1.") {
		t.Errorf("the message is not for people: %q", err)
	}
}

// TestAsksNobody has a program ask, which gets no answer.
func TestAsksNobody(t *testing.T) {
	testkit.Need(t, "mkreiserfs")
	err := Command{Name: "mkreiserfs", Args: []string{Image}, File: image(t, 64<<20)}.OK(context.Background())
	if err == nil {
		t.Error("a question was answered by nobody")
	}
}

func TestMissingProgramNamesItsPackage(t *testing.T) {
	var hint *upkeep.HintError
	for name, debian := range packages {
		if _, err := Find(name); err != nil && (!errors.As(err, &hint) || !strings.Contains(hint.Hint, debian)) {
			t.Errorf("%s is missing, and the error is %v", name, err)
		}
	}
	if _, err := Find("no-such-program"); err == nil {
		t.Error("a program that does not exist was found")
	}
	if packages["mke2fs"] != "e2fsprogs" {
		t.Errorf("mke2fs is of %q", packages["mke2fs"])
	}
}

func TestStops(t *testing.T) {
	testkit.Need(t, "mke2fs", "debugfs")
	file := image(t, 64<<20)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("given up"))
	if err := (Command{Name: "mke2fs", Args: []string{"-F", Image}, File: file}).OK(ctx); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("a run after the end: %v", err)
	}
}

// Of much output the beginning is kept too, and no part of a line.
func TestKeepsBothEnds(t *testing.T) {
	kept := ends{max: 50}
	for i := range 100 {
		fmt.Fprintf(&kept, "finding %d\n", i)
	}
	if got, want := kept.String(), "finding 0\nfinding 1\nfinding 98\nfinding 99\n"; got != want {
		t.Errorf("kept %q, want %q", got, want)
	}
	whole := ends{max: 40}
	for _, part := range []string{"twelve bytes", " and thirteen", " more"} {
		fmt.Fprint(&whole, part)
	}
	if got, want := whole.String(), "twelve bytes and thirteen more"; got != want {
		t.Errorf("kept %q, want %q", got, want)

	}
}

// TestWithout has a system call that does nothing any more, here and in what is started.
func TestWithout(t *testing.T) {
	if os.Getppid() == 0 {
		t.Fatal("this process has no parent, which is asked for here")
	}
	done := make(chan uintptr)
	thread.Own(func() {
		if err := without(unix.SYS_GETPPID); err != nil {
			t.Error(err)
		}
		parent, _, _ := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		done <- parent
	})
	if parent := <-done; parent != 0 {
		t.Errorf("its parent is %d all the same", parent)
	}
	if os.Getppid() == 0 {
		t.Error("other threads are without, too")
	}
	filters := func(noSync bool) (n int) { // what this process has itself counts in both
		show := Command{Name: "sh", Args: []string{"-c", "sync && sed -n s/^Seccomp_filters://p /proc/self/status"}, File: image(t, 4096), NoSync: noSync}
		result, err := show.Run(context.Background())
		if err == nil {
			_, err = fmt.Sscan(result.Output, &n)
		}
		if err != nil {
			t.Fatal(result, err)
		}
		return n
	}
	if with, without := filters(false), filters(true); without <= with {
		t.Errorf("what may not sync has %d filters, and other programs have %d", without, with)
	}
}

// TestMaxFile has a program write to a file more than it may.
func TestMaxFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, confined := range []bool{false, true} {
		ctx := context.Background()
		if confined {
			ctx = Confined(ctx)
		}
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		write := Command{Name: "dd", Args: []string{"if=/dev/zero", "of=" + Image, "bs=4096", "count=1000"}, File: file, MaxFile: 1 << 20}
		if result, err := write.Run(ctx); !errors.Is(err, ErrFull) {
			t.Errorf("confined %t: %v %+v", confined, err, result)
		}
		if info, err := file.Stat(); err != nil || info.Size() > 1<<20 {
			t.Errorf("confined %t: the file is %v, %v", confined, info, err)
		}
		write.MaxFile = 8 << 20
		if err := write.OK(ctx); err != nil {
			t.Errorf("confined %t, below the bound: %v", confined, err)
		}
	}
}

// TestProgressIsAskedFor has e2fsck say how far it has come once it has run for a while,
// and not end when it is asked before it can.
func TestProgressIsAskedFor(t *testing.T) {
	testkit.Need(t, "mke2fs", "e2fsck")
	file := image(t, 1<<30)
	ctx := context.Background()
	if err := (Command{Name: "mke2fs", Args: []string{"-qF", "-t", "ext2", "-N", "500000", "-E", "assume_storage_prezeroed=1", Image}, File: file}).OK(ctx); err != nil {
		t.Fatal(err)
	}
	told := map[time.Duration]int{}
	last := int64(0)
	for _, quiet := range []time.Duration{time.Hour, time.Nanosecond, 20 * time.Millisecond} {
		for range 5 {
			check := Command{Name: "e2fsck", Args: []string{"-fn", Image}, File: file, quiet: quiet, Progress: func(pass, thousandths int64) {
				if now := pass*10000 + thousandths; told[quiet] > 0 && now < last {
					t.Errorf("after %d it is %d far", last, now)
				} else {
					last = now
				}
				told[quiet]++
			}}
			last = 0
			if err := check.OK(ctx); err != nil {
				t.Errorf("asked after %s: %v", quiet, err)
			}
		}
	}
	if told[time.Hour] != 0 || told[20*time.Millisecond] == 0 {
		t.Errorf("it told how far it had come %v times", told)
	}
}
