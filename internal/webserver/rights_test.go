package webserver

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// What is byte for byte as declared and is writable by others, or theirs, is told by
// a verification and put right by a regeneration, also where no site is rendered.
func TestRights(t *testing.T) {
	testkit.NeedRoot(t)
	w := newWorld(t)
	in := w.input("example.test", 1)
	in.Site.Protect = []upkeep.Protection{{Path: "/x", Users: map[string]string{"u": "$2y$05$Ud.N4/E1iXzGrcVFq9r0gux1iOuiN/Dm8UT7rCD3/x0B0DGOh0cfq"}}}
	in.Site.ErrorPages = map[string]string{"404": "nothing here"}
	inputs := []vhost.Input{in, w.input("other.test", 1)}
	regenerate := func() Report {
		t.Helper()
		wanted := wantedOf(inputs)
		for i := range wanted {
			wanted[i].Key, wanted[i].UID = "key of "+wanted[i].Name, 20001
		}
		report := w.Bring(t.Context(), wanted)
		if report.Err != nil {
			t.Fatal(report.Err)
		}
		return report
	}
	regenerate()
	if report := regenerate(); len(report.Drift) > 0 {
		t.Fatalf("right after the first, %+v", report.Drift)
	}
	auth, err := filepath.Glob(filepath.Join(w.options.Layout.Auth, "*", "*"))
	if err != nil || len(auth) != 1 {
		t.Fatal(auth, err)
	}
	text, err := filepath.Glob(filepath.Join(w.options.Layout.Pages, "*", "*"))
	if err != nil || len(text) != 1 {
		t.Fatal(text, err)
	}
	log := w.options.Layout.LogFolder("other.test")
	web := w.options.Layout.Group
	for _, one := range []struct {
		path           string
		mode           uint32
		owner, group   int
		like, declared string
	}{
		{w.confFile("other.test"), 0o666, 0, 0, "mode 0666, owner 0", "mode 0600, owner 0"},
		{w.confFile("example.test"), 0o600, 20001, 0, "mode 0600, owner 20001", "mode 0600, owner 0"},
		{auth[0], 0o666, 0, web, "mode 0666", "mode 0640"},
		{auth[0], 0o640, 0, 20001, "group 20001", "mode 0640"},
		{text[0], 0o644, 20001, 0, "owner 20001", "mode 0644, owner 0"},
		{filepath.Dir(text[0]), 0o777, 0, 0, "mode 0777", "mode 0755"},
		{w.options.Layout.Pages, 0o755, 20001, 0, "owner 20001", "owner 0"},
		{w.options.Layout.Include, 0o777, 0, 0, "mode 0777", "mode 0755"},
		{log, 0o777, 0, 20001, "mode 0777", "mode 2750"},
		{log, 0o2750, 20001, 20001, "owner 20001", "owner 0"},
		{log, 0o2750, 0, 0, "group 0", "group 20001"},
	} {
		if err := os.Chown(one.path, one.owner, one.group); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(one.path, one.mode); err != nil {
			t.Fatal(err)
		}
		spoilt := stampOf(one.path)
		told := func(report Report) {
			t.Helper()
			if report.Err != nil || len(report.Drift) != 1 || report.Drift[0].Path != one.path || len(report.Amiss) > 0 ||
				!strings.Contains(report.Drift[0].HaveRights, one.like) || !strings.Contains(report.Drift[0].WantRights, one.declared) {
				t.Errorf("%s with %04o, %d:%d: told %+v, %v, %v", one.path, one.mode, one.owner, one.group, report.Drift, report.Amiss, report.Err)
			}
		}
		told(w.Sync(t.Context(), inputs, true))
		if now := stampOf(one.path); now != spoilt {
			t.Errorf("a verification made %+v of %+v", now, spoilt)
		}
		told(regenerate())
		if report := w.Sync(t.Context(), inputs, true); len(report.Drift) > 0 || report.Err != nil {
			t.Errorf("%s afterwards: %+v, %v", one.path, report.Drift, report.Err)
		}
	}
	// What was open for others while they could write to it is not the file any more.
	if err := os.Chmod(w.confFile("other.test"), 0o666); err != nil {
		t.Fatal(err)
	}
	open, err := os.OpenFile(w.confFile("other.test"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	regenerate()
	if _, err := open.WriteString("NoSuchThing"); err != nil {
		t.Fatal(err)
	}
	if report := w.Sync(t.Context(), inputs, true); len(report.Drift) > 0 {
		t.Errorf("who had it open wrote into it: %+v", report.Drift)
	}
	// Logs that may be another account's are told of and left.
	if err := os.Chown(log, 0, 20002); err != nil {
		t.Fatal(err)
	}
	for _, report := range []Report{w.Sync(t.Context(), inputs, true), regenerate()} {
		if err := report.Amiss["other.test"]; err == nil || !strings.Contains(err.Error(), "of group 20002") {
			t.Errorf("told %v", err)
		}
	}
	if s := stampOf(log); s.gid != 20002 {
		t.Errorf("it was given to %d", s.gid)
	}
}

// What is no file in the include folder stops neither upkeep nor the web server's own
// test: it is named, and everything goes on when it is gone.
func TestOddThingsInTheFolder(t *testing.T) {
	w := newWorld(t)
	inputs := []vhost.Input{w.input("first.test", 1)}
	w.mustApply(inputs[0])
	odd := filepath.Join(w.options.Layout.Include, "61-odd.conf")
	for kind, put := range map[string]func() error{
		"a FIFO":   func() error { return unix.Mkfifo(odd, 0o600) },
		"a folder": func() error { return os.Mkdir(odd, 0o755) },
		"a link":   func() error { return os.Symlink(w.confFile("first.test"), odd) }, // below /tmp
		"a device": func() error { return unix.Mknod(odd, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
		"a socket": func() error {
			l, err := net.Listen("unix", odd)
			if err == nil {
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		},
	} {
		if err := put(); err != nil {
			t.Fatal(kind, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		want := odd + " is " + kind
		tests := w.Stats().Tests
		if r := w.Apply(ctx, Request{Input: w.input("second.test", 2)}); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), want) {
			t.Errorf("%s: a change ended %s, %v", kind, r.State, r.Err)
		}
		if report := w.Sync(ctx, inputs, false); report.Err == nil || !strings.Contains(report.Err.Error(), want) {
			t.Errorf("%s: a regeneration says %v", kind, report.Err)
		}
		report := w.Sync(ctx, inputs, true)
		if report.Blocked == nil || !strings.Contains(report.Blocked.Error(), want) || report.Err != nil || len(report.Drift) > 0 || len(report.Sites) != 1 {
			t.Errorf("%s: a verification says %+v", kind, report)
		}
		if after := w.Stats().Tests; after != tests {
			t.Errorf("%s: the web server's test was started", kind)
		}
		// An agent that is started meanwhile does so, and says the same.
		if err := w.Applier.Close(); err != nil {
			t.Fatal(err)
		}
		w.open()
		if r := w.Remove(ctx, "first.test", testAccount, inputs[0].Generation+1); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), want) {
			t.Errorf("%s: after a start, a removal ended %s, %v", kind, r.State, r.Err)
		}
		if w.Stats().Tests != 0 {
			t.Errorf("%s: after a start, the web server's test was started", kind)
		}
		cancel()
		if err := os.Remove(odd); err != nil {
			t.Fatal(err)
		}
		inputs[0].Generation++
		w.mustApply(inputs[0])
		w.answers("first.test")
	}
}

// A file of upkeep's own that is none any more is made anew, where the web server
// reads it only when it is asked.
func TestOddFileOfOurs(t *testing.T) {
	w := newWorld(t)
	in := w.input("first.test", 1)
	in.Site.ErrorPages = map[string]string{"404": "nothing here"}
	w.mustApply(in)
	text, err := filepath.Glob(filepath.Join(w.options.Layout.Pages, "*", "*"))
	if err != nil || len(text) != 1 {
		t.Fatal(text, err)
	}
	for _, put := range []func() error{
		func() error { return unix.Mkfifo(text[0], 0o644) },
		func() error { return os.Symlink("/etc/passwd", text[0]) },
	} {
		if err := os.Remove(text[0]); err != nil {
			t.Fatal(err)
		}
		if err := put(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		for _, verify := range []bool{true, false} {
			report := w.Sync(ctx, []vhost.Input{in}, verify)
			if report.Err != nil || !slices.ContainsFunc(report.Drift, func(d Drift) bool { return d.Path == text[0] && strings.HasPrefix(d.HaveRights, "a ") }) {
				t.Errorf("told %+v, %v", report.Drift, report.Err)
			}
		}
		cancel()
		w.expect("GET", "first.test", "/nowhere", 404, "nothing here")
	}
}

// Of a site that failed, nothing is said to have been put right.
func TestFailedIsNotPutRight(t *testing.T) {
	w := newWorld(t)
	inputs := []vhost.Input{w.input("fails.test", 1), w.input("mended.test", 1)}
	if report := w.Sync(t.Context(), inputs, false); report.Err != nil {
		t.Fatal(report.Err)
	}
	for _, in := range inputs {
		w.appendTo(w.confFile(in.Site.Name), "# by hand\n")
	}
	if err := os.RemoveAll(inputs[0].DocumentRoot()); err != nil {
		t.Fatal(err)
	}
	if report := w.Sync(t.Context(), inputs, true); len(report.Drift) != 2 {
		t.Errorf("a verification tells %+v", report.Drift)
	}
	report := w.Sync(t.Context(), inputs, false)
	if report.Sites["fails.test"].State != upkeep.JobFailed || report.Sites["mended.test"].State != upkeep.JobDone ||
		len(report.Drift) != 1 || report.Drift[0].Site != "mended.test" {
		t.Errorf("told %+v and %+v", report.Drift, report.Sites)
	}
}
