package webserver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/testkit"
)

// breakFile edits a site's file in its place, so that the server does not accept
// it.
func (w *world) breakFile(site string) {
	w.t.Helper()
	w.appendTo(w.confFile(site), "NoSuchThing\n")
}

func (w *world) confFile(site string) string {
	return filepath.Join(w.options.Layout.Include, "50-"+site+".conf")
}

func (w *world) appendTo(path, text string) {
	w.t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// serverIsTheSame runs f and demands that the server lived through it.
func (w *world) serverIsTheSame(f func()) {
	w.t.Helper()
	before, err := w.apache.Process()
	if err != nil {
		w.t.Fatal(err)
	}
	f()
	if after, err := w.apache.Process(); err != nil || after.PID != before.PID {
		w.t.Fatalf("the server was process %d and is %d, %v", before.PID, after.PID, err)
	}
}

// A file that somebody edits while upkeep runs is tested before the server reads
// it at the reload for another site, and put back where it does not pass. Apache
// would end.
func TestEditedBehindOurBack(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("edited.test", 1))
	w.mustApply(w.input("other.test", 1))
	good, err := os.ReadFile(w.confFile("edited.test"))
	if err != nil {
		t.Fatal(err)
	}
	w.breakFile("edited.test")
	w.serverIsTheSame(func() { w.mustApply(w.input("third.test", 1)) })
	for _, site := range []string{"edited.test", "other.test", "third.test"} {
		w.answers(site)
	}
	if now, err := os.ReadFile(w.confFile("edited.test")); err != nil || !bytes.Equal(now, good) {
		t.Errorf("the edited file is now, %v:\n%s", err, now)
	}
	aside, err := os.ReadFile(filepath.Join(w.options.State, "quarantine", "50-edited.test.conf"))
	if err != nil || !bytes.HasSuffix(aside, []byte("NoSuchThing\n")) {
		t.Errorf("what was edited is not kept: %v, %s", err, aside)
	}
	before := w.Stats()
	w.mustApply(w.input("fourth.test", 1))
	if after := w.Stats(); after.FullTests > before.FullTests+1 {
		t.Errorf("%d full tests for a change after that", after.FullTests-before.FullTests)
	}
	before = w.Stats()
	w.mustApply(w.input("fifth.test", 1))
	if after := w.Stats(); after.FullTests != before.FullTests {
		t.Error("the next change tested files that nobody has changed")
	}
}

// A file of somebody else's in the include folder is tested as well, and not
// touched: nothing is reloaded while it does not pass. Its names are others'.
func TestFileOfOthersInTheFolder(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("first.test", 1))
	others := filepath.Join(w.options.Layout.Include, "by-hand.conf")
	w.appendTo(others, "NoSuchThing\n")
	w.serverIsTheSame(func() {
		r := w.apply(w.input("second.test", 1))
		if r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), others+", which is not upkeep's") {
			t.Errorf("%s, %v", r.State, r.Err)
		}
	})
	w.answers("first.test")
	if text, err := os.ReadFile(others); err != nil || string(text) != "NoSuchThing\n" {
		t.Errorf("it is now %q, %v", text, err)
	}
	w.write(others, "<VirtualHost "+w.options.Address+">\nServerName hand.test\nServerAlias also.hand.test\n</VirtualHost>\n", 0o600)
	w.serverIsTheSame(func() { w.mustApply(w.input("second.test", 2)) })
	for _, name := range []string{"hand.test", "also.hand.test"} {
		if r := w.apply(w.input(name, 1)); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "not upkeep's") {
			t.Errorf("%s, which a file made by hand answers: %s, %v", name, r.State, r.Err)
		}
	}
	if err := os.Remove(others); err != nil {
		t.Fatal(err)
	}
	w.mustApply(w.input("hand.test", 2))
	w.answers("second.test")
	w.answers("hand.test")
}

// nginx is no different, but that it goes on with what it has.
func TestFileOfOthersBesideNginx(t *testing.T) {
	w := newNginxWorld(t)
	w.mustApply(w.input("first.test", 1))
	others := filepath.Join(w.options.Layout.Include, "by-hand.conf")
	w.appendTo(others, "no_such_thing;\n")
	if r := w.apply(w.input("second.test", 1)); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), others+", which is not upkeep's") {
		t.Errorf("%s, %v", r.State, r.Err)
	}
	if exists(w.confFile("second.test")) {
		t.Error("the file of a change that failed stays")
	}
	w.write(others, "server { listen "+w.options.Address+"; server_name inside.test *.inside.test; return 418; }\n", 0o600)
	w.mustApply(w.input("second.test", 2))
	if r := w.apply(w.input("inside.test", 1)); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "not upkeep's") {
		t.Errorf("a name that a file made by hand answers: %s, %v", r.State, r.Err)
	}
	w.expect("GET", "inside.test", "/", 418, "")
	w.mustApply(w.input("x.inside.test", 1)) // which nginx prefers to a pattern, wherever that is
	for _, site := range []string{"first.test", "second.test", "x.inside.test"} {
		w.answers(site)
	}
}

// lateEditor edits a file between the test and the reload.
type lateEditor struct {
	*PrivateApache
	edit func()
}

func (l *lateEditor) Test(ctx context.Context, files []string) error {
	err := l.PrivateApache.Test(ctx, files)
	if l.edit != nil {
		edit := l.edit
		l.edit = nil
		edit()
	}
	return err
}

// What is edited after the test was not tested, and does not reach the server.
func TestEditedAfterTheTest(t *testing.T) {
	w := newWorld(t)
	late := &lateEditor{PrivateApache: w.apache}
	w.options.Server = late
	w.reopen()
	w.mustApply(w.input("edited.test", 1))
	late.edit = func() { w.breakFile("edited.test") }
	w.serverIsTheSame(func() { w.mustApply(w.input("new.test", 1)) })
	w.answers("edited.test")
	w.answers("new.test")
	late.edit = func() { w.appendTo(filepath.Join(w.options.Layout.Include, "by-hand.conf"), "NoSuchThing\n") }
	w.serverIsTheSame(func() {
		if r := w.apply(w.input("third.test", 1)); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "by-hand.conf") {
			t.Errorf("%s, %v", r.State, r.Err)
		}
	})
	if exists(w.confFile("third.test")) {
		t.Error("the file of a change that failed stays")
	}
}

// Who gets a name after another account does not get the logs that were written
// under it: they are root's from then on, also where the server's log process
// still has them open.
func TestLogsOfAnotherAccount(t *testing.T) {
	testkit.NeedRoot(t)
	for _, piped := range []bool{false, true} {
		t.Run(fmt.Sprintf("piped=%v", piped), func(t *testing.T) {
			w := newWorld(t)
			if piped {
				w.options.Layout.Pipe, w.options.PipeAbove = splitCommand(w), -1
				w.reopen()
			}
			first := w.input("example.test", 1)
			w.mustApply(first)
			w.answers("example.test")
			dir := w.options.Layout.LogFolder("example.test")
			w.logged("example.test", "access.log", "GET / HTTP/1.1")
			if r := w.Remove(t.Context(), "example.test", testAccount, 2); r.State != upkeep.JobDone {
				t.Fatal(r.Err)
			}
			again := w.input("example.test", 3)
			w.mustApply(again)
			if aside, _ := filepath.Glob(dir + "~*"); len(aside) != 0 {
				t.Fatalf("the account's own logs were put aside: %v", aside)
			}
			if r := w.Remove(t.Context(), "example.test", testAccount, 4); r.State != upkeep.JobDone {
				t.Fatal(r.Err)
			}
			second := w.input("example.test", 5)
			second.Site.Account, second.UID = "other", 20002
			w.write(filepath.Join(second.DocumentRoot(), "index.html"), "another page\n", 0o644)
			w.mustApply(second)
			w.get("example.test", "/second")
			w.logged("example.test", "access.log", "GET /second")
			aside, err := filepath.Glob(dir + "~*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("put aside: %v, %v", aside, err)
			}
			w.logged(filepath.Base(aside[0]), "access.log", "GET / HTTP/1.1")
			info, err := os.Stat(aside[0])
			if err != nil || info.Mode().Perm() != 0o700 || info.Sys().(*unixStat).Gid != 0 {
				t.Errorf("the folder put aside is %v of group %d, %v", info.Mode(), info.Sys().(*unixStat).Gid, err)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "access.log")); err != nil || strings.Contains(string(text), "GET / HTTP/1.1") {
				t.Errorf("the new owner's log has what was logged before, %v:\n%s", err, text)
			}
			if info, err = os.Stat(dir); err != nil || info.Sys().(*unixStat).Gid != 20002 {
				t.Errorf("the new owner's folder is of group %d, %v", info.Sys().(*unixStat).Gid, err)
			}
		})
	}
}

// TestPidFileBesideTheConfiguration holds that a file which the server writes anew at
// each reload, in the folder of its configuration, does not have all files tested
// with each change, and that a name that is new there does.
func TestPidFileBesideTheConfiguration(t *testing.T) {
	w := newWorld(t)
	write := func(name string) {
		t.Helper()
		if err := replaceFile(filepath.Join(w.dir, name), []byte("4711\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("apache.pid")
	w.mustApply(w.input("a.test", 1))
	before := w.Stats().FullTests
	for i, name := range []string{"b.test", "c.test"} {
		write("apache.pid")
		w.mustApply(w.input(name, 1))
		if now := w.Stats().FullTests; now != before {
			t.Errorf("change %d had all files tested", i)
		}
	}
	write("more.conf")
	w.mustApply(w.input("d.test", 1))
	if now := w.Stats().FullTests; now != before+1 {
		t.Errorf("%d full tests after a name was added, want 1", now-before)
	}
}
