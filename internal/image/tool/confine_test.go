package tool

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

// TestConfinedThreadsEnd holds that no thread of this process stays confined: it would keep
// the image, though that was removed, for as long as the process lives.
func TestConfinedThreadsEnd(t *testing.T) {
	file := image(t, 1<<20)
	for range 40 {
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				if r, err := (Command{Name: "true", File: file}).Run(Confined(context.Background())); err != nil || r.Code != 0 {
					t.Errorf("%+v, %v", r, err)
				}
			})
		}
		all.Wait()
	}
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		tasks, err := filepath.Glob("/proc/self/task/*/status")
		if err != nil {
			return false, err.Error()
		}
		for _, task := range tasks {
			if text, err := os.ReadFile(task); err == nil && strings.Contains(string(text), "NoNewPrivs:\t1") {
				return false, fmt.Sprintf("%s is confined, of process %d", task, os.Getpid())
			}
		}
		return true, ""
	})
}

// TestConfined has programs try what a file system that means harm could have them do:
// they reach their image and what they need to run, and nothing else.
func TestConfined(t *testing.T) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < 3 {
		testkit.NeedThat(t, "Landlock", errno)
	}
	testkit.Need(t, "mke2fs", "e2fsck")
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("not yours"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := image(t, 16<<20)
	run := func(name string, args ...string) Result {
		t.Helper()
		result, err := Command{Name: name, Args: args, File: file}.Run(Confined(context.Background()))
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	if r := run("mke2fs", "-q", "-F", "-t", "ext4", Image); r.Code != 0 {
		t.Errorf("making ext4: %+v", r)
	}
	if r := run("e2fsck", "-f", "-y", Image); r.Code != 0 {
		t.Errorf("checking it: %+v", r)
	}
	for _, args := range [][]string{
		{"cat", other}, {"cat", "/etc/shadow"}, {"ls", "/root"}, {"touch", filepath.Join(dir, "new")}, {"rm", "-f", other}, {"truncate", "--size", "0", other},
		{"dd", "if=/dev/zero", "of=" + other, "count=1"}, {"mkdir", filepath.Join(dir, "folder")}, {"ln", "-s", "/", filepath.Join(dir, "link")},
	} {
		if r := run(args[0], args[1:]...); r.Code == 0 || !strings.Contains(strings.ToLower(r.Output), "permission denied") {
			t.Errorf("%q: %+v", args, r)
		}
	}
	if text, err := os.ReadFile(other); err != nil || string(text) != "not yours" {
		t.Errorf("the other file holds %q, %v", text, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("there are %v, %v", entries, err)
	}
	header, caps := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
	if r := run("grep", "^CapEff:", "/proc/self/status"); caps[0].Effective&(1<<unix.CAP_SETPCAP) != 0 && !strings.HasSuffix(r.Output, "0000000000000002") {
		t.Errorf("it has %+v, and may have CAP_DAC_OVERRIDE alone", r)
	}
	if r := run("grep", "^NoNewPrivs:", "/proc/self/status"); !strings.HasSuffix(r.Output, "1") {
		t.Errorf("it has %+v", r)
	}
	// Others, from this process, are as they were.
	if r, err := (Command{Name: "cat", Args: []string{other}, File: file}).Run(context.Background()); err != nil || r.Code != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
