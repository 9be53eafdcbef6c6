package webserver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// broken is a renderer with a fault of its own: what it makes for sites whose
// names begin with bad is not accepted by Apache.
type broken struct{ vhost.Apache }

func (b broken) Site(in vhost.Input) ([]vhost.File, error) {
	files, err := b.Apache.Site(in)
	if err == nil && (strings.HasPrefix(in.Site.Name, "bad") || in.Site.Index != nil) {
		files[0].Text = bytes.Replace(files[0].Text, []byte("DocumentRoot"), []byte("NoSuchThing \"\x1b[31m/etc/shadow\""), 1)
	}
	return files, err
}

type brokenServer struct{ *PrivateApache }

func (brokenServer) Renderer() vhost.Renderer { return broken{} }

// applyAll asks for all at a time.
func (w *world) applyAll(inputs []vhost.Input) map[string]Result {
	w.t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	results := map[string]Result{}
	for _, in := range inputs {
		group.Go(func() {
			r := w.Apply(w.t.Context(), Request{Input: in, Batch: 1, BatchSize: len(inputs)})
			mu.Lock()
			defer mu.Unlock()
			results[in.Site.Name] = r
		})
	}
	group.Wait()
	return results
}

func (w *world) reopen() {
	w.t.Helper()
	if err := w.Applier.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// A file that the server does not accept fails its own site, which keeps its last
// good version; all others go live, with one reload.
func TestBadFile(t *testing.T) {
	w := newWorld(t)
	w.options.Server = brokenServer{w.apache}
	w.reopen()
	w.mustApply(w.input("changed.test", 1))
	var inputs []vhost.Input
	for i := range 20 {
		inputs = append(inputs, w.input(fmt.Sprintf("good%d.test", i), 1))
	}
	inputs = append(inputs, w.input("bad1.test", 1), w.input("bad2.test", 1))
	worse := w.input("changed.test", 2)
	worse.Site.Index = []string{"x"}
	inputs = append(inputs, worse)
	before := w.Stats()
	for site, r := range w.applyAll(inputs) {
		bad := !strings.HasPrefix(site, "good")
		if bad != (r.State == upkeep.JobFailed) {
			t.Errorf("%s: %s, %v", site, r.State, r.Err)
		}
		if bad && (r.Err == nil || !strings.Contains(r.Err.Error(), "NoSuchThing") || strings.ContainsAny(r.Err.Error(), "\x1b\n") || strings.Contains(r.Err.Error(), w.dir)) {
			t.Errorf("%s fails with %q", site, r.Err)
		}
	}
	after := w.Stats()
	if n := after.Reloads - before.Reloads; n != 1 {
		t.Errorf("%d reloads, want one", n)
	}
	w.answers("good7.test")
	w.answers("changed.test")
	for _, site := range []string{"bad1.test", "bad2.test"} {
		if status, _, _ := w.get(site, "/"); status != 421 {
			t.Errorf("%s answers %d", site, status)
		}
	}
	// At boot, when nobody can bisect, the server starts.
	if err := w.apache.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.apache.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.answers("good7.test")
}

// Many bad ones are found by halving.
func TestCulprits(t *testing.T) {
	for _, bad := range [][]int{nil, {0}, {99}, {3, 50, 51, 98}, {1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		var all []confFile
		for i := range 100 {
			all = append(all, confFile(fmt.Sprint(i)))
		}
		tests := 0
		try := func(set []confFile) error {
			tests++
			for _, f := range set {
				if slices.Contains(bad, atoi(string(f))) {
					return &TestError{File: []string{"", string(f)}[len(bad)%2]}
				}
			}
			return nil
		}
		var found []int
		if err := culprits(all, try, func(f confFile, _ *TestError) { found = append(found, atoi(string(f))) }); err != nil {
			t.Fatal(err)
		}
		slices.Sort(found)
		if !slices.Equal(found, bad) {
			t.Errorf("found %v, want %v", found, bad)
		}
		if tests > 3+16*len(bad) {
			t.Errorf("%d tests for %d bad ones", tests, len(bad))
		}
	}
}

func atoi(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

// What was broken behind our back is found when the applier starts, before the
// server has to.
func TestQuarantine(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("kept.test", 1))
	in := w.input("edited.test", 1)
	w.mustApply(in)
	w.mustApply(w.input("new.test", 1))
	w.breakFile("edited.test")
	w.breakFile("new.test")
	if err := os.Truncate(filepath.Join(w.options.State, "good"), w.good.size-1); err != nil { // as after a crash
		t.Fatal(err)
	}
	if err := w.apache.Test(t.Context(), []string{filepath.Join(w.options.Layout.Include, "50-new.test.conf")}); err == nil {
		t.Fatal("the server accepts what this test has broken")
	}
	w.reopen()
	if err := w.apache.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.apache.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.answers("kept.test")
	w.answers("edited.test")
	if status, _, _ := w.get("new.test", "/"); status != 421 {
		t.Errorf("what has no good version answers %d", status)
	}
	w.reopen()
	if astray := w.Astray(); len(astray) != 1 || astray["new.test"] != (Astray{Why: setAside}) {
		t.Errorf("astray are %v", astray)
	}
	w.mustApply(w.input("new.test", 1))
	w.answers("new.test")
	if astray := w.Astray(); len(astray) > 0 {
		t.Errorf("after it was applied again, astray are %v", astray)
	}
	w.mustApply(in)
	// What is put back to an earlier generation is said to be at that.
	newer := w.input("new.test", 2)
	newer.Site.Aliases = []string{"also-new.test"}
	w.mustApply(newer)
	w.breakFile("new.test")
	if err := os.Truncate(filepath.Join(w.options.State, "good"), w.good.size-1); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if astray := w.Astray(); len(astray) != 1 || astray["new.test"] != (Astray{setAside, 1}) {
		t.Errorf("astray are %v", astray)
	}
	w.mustApply(newer)
	if astray := w.Astray(); len(astray) > 0 {
		t.Errorf("after it was applied again, astray are %v", astray)
	}
}

// What Apache's own test does not see, and what then ends or hangs it at a
// reload.
func TestLogTargets(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("other.test", 1))
	outside := filepath.Join(w.dir, "outside")
	for name, attack := range map[string]func(dir, log string) error{
		"folder":        func(_, log string) error { return os.Mkdir(log, 0o755) },
		"dangling link": func(_, log string) error { return os.Symlink(outside, log) },
		"pipe":          func(_, log string) error { return syscall.Mkfifo(log, 0o600) },
		"hard link": func(_, log string) error {
			if err := os.WriteFile(outside+"2", nil, 0o600); err != nil {
				return err
			}
			return os.Link(outside+"2", log)
		},
		"open folder": func(dir, _ string) error { return os.Chmod(dir, 0o777) },
		"linked folder": func(dir, _ string) error {
			if err := os.Rename(dir, dir+".away"); err != nil {
				return err
			}
			return os.Symlink(dir+".away", dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := w.input("example.test", 1)
			dir := w.options.Layout.LogFolder("example.test")
			if err := os.MkdirAll(dir, 0o750); err != nil {
				t.Fatal(err)
			}
			if err := attack(dir, filepath.Join(dir, "error.log")); err != nil {
				t.Fatal(err)
			}
			before := w.Stats()
			if r := w.apply(in); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "logs") {
				t.Errorf("%s: %v", r.State, r.Err)
			}
			if after := w.Stats(); after.Reloads != before.Reloads {
				t.Error("the server was reloaded")
			}
			w.answers("other.test")
			for _, path := range []string{dir, dir + ".away"} {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("a file outside was made")
	}
}

func TestNamesAreClaimed(t *testing.T) {
	w := newWorld(t)
	// Configuration of somebody else's.
	text, err := os.ReadFile(w.apache.Config)
	if err != nil {
		t.Fatal(err)
	}
	w.write(w.apache.Config, string(text)+"<VirtualHost "+w.options.Address+">\nServerName hand.test\nServerAlias Made.test *.wild.test\n</VirtualHost>\n", 0o600)
	w.mustApply(w.input("first.test", 1))
	for name, want := range map[string]string{"hand.test": "not upkeep's", "made.test": "not upkeep's", "x.wild.test": "not upkeep's, as *.wild.test", "x.y.wild.test": "as *.wild.test"} {
		before := w.Stats()
		if r := w.apply(w.input(name, 1)); r.State != upkeep.JobFailed || r.Field != "name" || !strings.Contains(r.Err.Error(), want) {
			t.Errorf("%s: %+v", name, r)
		}
		if after := w.Stats(); after.Reloads != before.Reloads {
			t.Errorf("%s: the server was reloaded", name)
		}
	}
	above, off := w.input("wild.test", 1), false
	above.Site.WWW = &off
	w.mustApply(above)
	w.answers("wild.test")
	if got := w.Stats().Foreign; !slices.Equal(got, []string{"*.wild.test", "hand.test", "made.test"}) {
		t.Errorf("foreign names are %q", got)
	}
	// Two of ours.
	a, b := w.input("a.test", 1), w.input("b.test", 1)
	a.Site.Aliases = []string{"both.test"}
	b.Site.Aliases = []string{"both.test"}
	w.mustApply(a)
	if r := w.apply(b); r.State != upkeep.JobFailed || r.Field != "aliases" || !strings.Contains(r.Err.Error(), "a.test") {
		t.Errorf("a name of another site: %+v", r)
	}
	// It goes from one to the other in one change.
	a.Generation, a.Site.Aliases, b.Generation = 2, nil, 2
	for site, r := range w.applyAll([]vhost.Input{b, a}) {
		if r.State != upkeep.JobDone {
			t.Errorf("%s: %v", site, r.Err)
		}
	}
	if status, body, _ := w.get("both.test", "/"); status != 200 || body != "page of b.test\n" {
		t.Errorf("both.test answers %d %q", status, body)
	}
}

// Exact names come before wildcards, and narrow wildcards before wide ones,
// whoever was there first.
func TestOrderOfNames(t *testing.T) {
	w := newWorld(t)
	wide, narrow, exact := w.input("a.test", 1), w.input("x.a.test", 1), w.input("y.x.a.test", 1)
	wide.Site.Wildcard, narrow.Site.Wildcard = true, true
	third := w.input("zzz.test", 1)
	third.Site.Aliases = []string{"deep.x.a.test"}
	for _, in := range []vhost.Input{wide, narrow, exact, third} {
		w.mustApply(in)
	}
	for host, want := range map[string]string{
		"a.test": "a.test", "any.a.test": "a.test", "x.a.test": "x.a.test", "any.x.a.test": "x.a.test", "y.x.a.test": "y.x.a.test", "deep.x.a.test": "zzz.test",
	} {
		if _, body, _ := w.get(host, "/"); body != "page of "+want+"\n" {
			t.Errorf("%s is answered with %q, want %s", host, body, want)
		}
	}
}

func TestSync(t *testing.T) {
	w := newWorld(t)
	inputs := []vhost.Input{w.input("a.test", 3), w.input("b.test", 1), w.input("c.test", 1)}
	inputs[0].Site.Wildcard = true
	inputs[0].Site.ErrorPages = map[string]string{"404": "nothing"}
	w.sync(inputs)
	files := snapshot(t, w.dir)

	// Nothing changed: nothing is done.
	before := w.Stats()
	if r := w.sync(inputs); len(r.Drift) > 0 {
		t.Errorf("drift without a change: %v", r.Drift)
	}
	if after := w.Stats(); after.Writes != before.Writes || after.Reloads != before.Reloads || after.Tests != before.Tests {
		t.Errorf("%+v after %+v", after, before)
	}

	// Drift is found, shown, and mended.
	include := w.options.Layout.Include
	w.write(filepath.Join(include, "50-b.test.conf"), "# by hand\n", 0o600)
	if err := os.Remove(filepath.Join(include, "50-c.test.conf")); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(include, "50-stray.test.conf")
	if err := os.Rename(filepath.Join(include, "90-997-a.test.conf"), stray); err != nil {
		t.Fatal(err)
	}
	w.write(filepath.Join(include, "10-by-hand.conf"), "# of the operator\n", 0o600)
	report := w.Sync(t.Context(), inputs, true)
	var drift []string
	for _, d := range report.Drift {
		drift = append(drift, fmt.Sprintf("%s %t %t", filepath.Base(d.Path), d.Have != nil, d.Want != nil))
	}
	slices.Sort(drift)
	want := []string{"50-b.test.conf true true", "50-c.test.conf false true", "50-stray.test.conf false false", "90-997-a.test.conf false true"}
	if !slices.Equal(drift, want) {
		t.Errorf("drift is %q, want %q", drift, want)
	}
	if text, _ := os.ReadFile(filepath.Join(include, "50-b.test.conf")); string(text) != "# by hand\n" {
		t.Error("a verification has changed a file")
	}
	w.sync(inputs)
	if err := os.Remove(filepath.Join(include, "10-by-hand.conf")); err != nil {
		t.Fatal(err)
	}
	same(t, files, snapshot(t, w.dir))

	// All is made again, byte for byte.
	for _, dir := range []string{include, w.options.Layout.Pages} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.sync(inputs)
	same(t, files, snapshot(t, w.dir))
	w.answers("a.test")

	// A site that is not declared any more goes.
	w.sync(inputs[:1])
	if status, _, _ := w.get("b.test", "/"); status != 421 {
		t.Errorf("a site that is gone answers %d", status)
	}
	// The manifest is lost: what is live already needs no reload.
	if err := os.Remove(manifestFile(w.options.State)); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	w.sync(inputs[:1])
	if s := w.Stats(); s.Reloads != 0 || s.Writes != 0 {
		t.Errorf("after the manifest was lost: %+v", s)
	}
}

// snapshot reads the generated files.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, folder := range []string{"sites", "pages", "auth"} {
		err := filepath.Walk(filepath.Join(dir, folder), func(path string, info os.FileInfo, err error) error {
			if err != nil || !info.Mode().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			files[path] = info.Mode().String() + string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func same(t *testing.T, a, b map[string]string) {
	t.Helper()
	for path, text := range a {
		if b[path] != text {
			t.Errorf("%s differs:\n%s\nfrom\n%s", path, b[path], text)
		}
	}
	for path := range b {
		if _, there := a[path]; !there {
			t.Errorf("%s is new", path)
		}
	}
}

func TestGenerations(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("a.test", 5))
	if r := w.apply(w.input("a.test", 4)); r.State != upkeep.JobSuperseded || r.Generation != 5 {
		t.Errorf("an older generation: %+v", r)
	}
	if r := w.Remove(t.Context(), "a.test", "", 4); r.State != upkeep.JobSuperseded {
		t.Errorf("an older removal: %+v", r)
	}
	w.answers("a.test")
	if r := w.Remove(t.Context(), "never.test", "", 1); r.State != upkeep.JobDone {
		t.Errorf("removing what is not there: %+v", r)
	}
}

func TestServerDown(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("a.test", 1))
	// A server that something else starts.
	w.options.Server, w.options.Patience = w.apache.Apache, 200*time.Millisecond
	w.reopen()
	if err := w.apache.Close(); err != nil {
		t.Fatal(err)
	}
	// The number of a server that has ended is another program's now.
	sleeper := testkit.Start(t, "sleep", "300")
	w.write(w.apache.PIDFile, fmt.Sprint(sleeper.PID()), 0o644)
	r := w.apply(w.input("b.test", 1))
	if r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "not running") {
		t.Errorf("%s: %v", r.State, r.Err)
	}
	if !sleeper.Running() {
		t.Error("another program was signalled")
	}
	if astray := w.Astray(); len(astray) > 0 {
		t.Errorf("to be tried again while the server is away: %v", astray)
	}
	all := []vhost.Input{w.input("a.test", 1), w.input("b.test", 1)}
	report := w.Sync(t.Context(), all, true)
	if !errors.Is(report.Down, errNotRunning) || report.Sites["a.test"].State != upkeep.JobDone || report.Sites["b.test"].State != upkeep.JobFailed || len(report.Drift) > 0 {
		t.Errorf("verified while the server is away: %+v", report)
	}
	w.options.Patience = 20 * time.Second
	w.reopen()
	if err := w.apache.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if astray := w.Astray(); len(astray) != 1 || astray["b.test"] != (Astray{Why: waits}) {
		t.Errorf("to be tried again when the server is back: %v", astray)
	}
	before := w.Stats().Reloads
	w.mustApply(w.input("b.test", 1))
	w.answers("b.test")
	if astray := w.Astray(); len(astray) > 0 {
		t.Errorf("to be tried again after that: %v", astray)
	}
	if report := w.Sync(t.Context(), all, true); report.Down != nil || report.Sites["b.test"].State != upkeep.JobDone {
		t.Errorf("verified when it is back: %+v", report)
	}
	// The files were in place when it started: it is asked, and not reloaded.
	if after := w.Stats().Reloads; after != before {
		t.Errorf("%d reloads", after-before)
	}
}

// A server that is being started again is waited for, whoever does that.
func TestServerReturns(t *testing.T) {
	w := newWorld(t)
	w.options.Server = w.apache.Apache
	w.reopen()
	if err := w.apache.Close(); err != nil {
		t.Fatal(err)
	}
	result := make(chan Result, 1)
	go func() { result <- w.apply(w.input("a.test", 1)) }()
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		_, err := os.Stat(w.options.Layout.Place(vhost.Files("a.test")[0]))
		return err == nil, fmt.Sprint(err)
	})
	if err := w.apache.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := <-result; r.State != upkeep.JobDone {
		t.Errorf("%s: %v", r.State, r.Err)
	}
	w.answers("a.test")
}

// The server of upkeep's own is started where it has ended.
func TestPrivateServerIsStarted(t *testing.T) {
	w := newWorld(t)
	if err := w.apache.Close(); err != nil {
		t.Fatal(err)
	}
	w.mustApply(w.input("a.test", 1))
	w.answers("a.test")
}

// What a job left that failed once its files were in place is known: a removal
// takes it away, and it is never called proven.
func TestFailedAfterTheMove(t *testing.T) {
	w := newWorld(t)
	// Long enough for an Apache that is reloaded right after its start: now and then it
	// accepts nothing for a second, which is how long a new child sleeps until the one
	// before it has left its slots.
	w.options.Server, w.options.Patience = w.apache.Apache, 3*time.Second
	w.reopen()
	w.mustApply(w.input("a.test", 1))
	if err := w.apache.Close(); err != nil {
		t.Fatal(err)
	}
	in := w.input("b.test", 2)
	in.Site.Wildcard, in.Site.ErrorPages = true, map[string]string{"404": "Not here."}
	for range 2 {
		if r := w.apply(in); r.State != upkeep.JobFailed {
			t.Fatalf("without a server: %+v", r)
		}
	}
	if err := w.apache.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.expect("GET", "x.b.test", "/nowhere", 404, "Not here.")
	if r := w.Remove(t.Context(), "b.test", "", 3); r.State != upkeep.JobDone {
		t.Fatal(r.Err)
	}
	w.expect("GET", "x.b.test", "/", 421, "")
	w.expect("GET", "b.test", "/", 421, "")
	w.answers("a.test")
}

// A kill comes between the move of files into place and what is remembered of it.
// The site is removed, or changed, before anything else is done about it.
func TestKilledBeforeItWasRemembered(t *testing.T) {
	w := newWorld(t)
	in := w.input("a.test", 1)
	in.Site.Wildcard = true
	in.Site.Protect = []upkeep.Protection{{Path: "/x", Users: map[string]string{"u": "$2y$05$Ud.N4/E1iXzGrcVFq9r0gux1iOuiN/Dm8UT7rCD3/x0B0DGOh0cfq"}}}
	forget := func() {
		t.Helper()
		w.mustApply(in)
		if err := w.Applier.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(manifestFile(w.options.State)); err != nil {
			t.Fatal(err)
		}
		w.open()
	}
	forget()
	w.mustApply(w.input("a.test", 2)) // which has neither wildcard nor password
	w.answers("a.test")
	w.expect("GET", "x.a.test", "/", 421, "")
	in.Generation = 3
	forget()
	if r := w.Remove(t.Context(), "a.test", "", 4); r.State != upkeep.JobDone {
		t.Fatal(r.Err)
	}
	w.expect("GET", "a.test", "/", 421, "")
	w.expect("GET", "x.a.test", "/", 421, "")
	if report := w.Sync(t.Context(), nil, true); report.Err != nil || len(report.Drift) > 0 {
		t.Errorf("left behind: %+v", report)
	}
}

// Where log files do not fit, sites are refused, or one process takes the logs.
func TestDescriptors(t *testing.T) {
	w := newWorld(t)
	w.sync(append(w.inputs(0, 20), w.input("a.test", 1)))
	process, err := w.apache.Process()
	if err != nil {
		t.Fatal(err)
	}
	most := uint64(process.Files+2)*4/3 - 1 // a quarter is kept for other things
	limit := unix.Rlimit{Cur: most, Max: most}
	if err := unix.Prlimit(process.PID, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	r := w.apply(w.input("b.test", 1))
	if r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "files") {
		t.Errorf("%s: %v", r.State, r.Err)
	}
	w.answers("a.test")
	w.options.Layout.Pipe = splitCommand(w)
	w.reopen()
	w.mustApply(w.input("b.test", 1))
	if !w.Stats().Piped {
		t.Fatal("logs are not piped")
	}
	w.answers("a.test")
	w.expect("GET", "b.test", "/nowhere", 404, "")
	for _, site := range []string{"a.test", "b.test"} {
		w.logged(site, "access.log", "\"GET /")
	}
}

// logged waits for a text in a log.
func (w *world) logged(site, file, text string) {
	w.t.Helper()
	testkit.Eventually(w.t, 20*time.Second, func() (bool, string) {
		log, err := os.ReadFile(filepath.Join(w.options.Layout.LogFolder(site), file))
		return err == nil && strings.Contains(string(log), text), fmt.Sprintf("%s of %s: %s", file, site, log)
	})
}

// The private server ends soon whatever it is at: it is known without its pid
// file, and asked again where it forgets that it was asked.
func TestPrivateServerEnds(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		switch i % 3 {
		case 0: // as in the middle of a start
			if err := os.Remove(w.apache.PIDFile); err != nil {
				t.Fatal(err)
			}
		case 1: // in the middle of a reload
			if err := untilRunning(t.Context(), time.Minute, func() error { return w.apache.Reload(t.Context()) }); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Duration(i) * time.Millisecond)
		}
		ended := make(chan error, 1)
		go func() { ended <- w.apache.Close() }()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("it does not end")
		}
		// What was killed takes a moment to be gone.
		testkit.Eventually(t, 10*time.Second, func() (bool, string) { return !listens(w.apache.Address), "it still listens" })
		if err := w.apache.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
