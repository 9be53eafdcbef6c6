package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

func TestUserEnsure(t *testing.T) {
	l := newLab(t, labPolicy)
	for range 2 {
		l.wantDone(ensured("acme", 20001), 1)
	}
	if got, want := l.passwd("acme"), "acme:x:20001:20001:upkeep account:"+l.path("home/acme")+":/usr/sbin/nologin"; got != want {
		t.Errorf("the user is %q, want %q", got, want)
	}
	shadow, err := os.ReadFile(l.path("etc/shadow"))
	if err != nil || !strings.Contains(string(shadow), "\nacme:!:") {
		t.Errorf("the user is not locked: %q, %v", shadow, err)
	}
	// It comes back when somebody took it away by hand.
	_, err = run(context.Background(), "/usr/sbin/userdel", "--prefix", l.dir, "acme")
	l.must(err)
	l.start()
	l.wantDone(ensured("acme", 20001), 1)
	if l.passwd("acme") == "" {
		t.Error("the user did not come back")
	}
}

func TestUserEnsureRefuses(t *testing.T) {
	l := newLab(t, labPolicy)
	l.wantDone(ensured("acme", 20001), 1)
	before := l.snapshot()
	l.wantFailed(ensured("acme", 20002), 2, "has the number 20001 on this server, and the job says 20002")
	l.wantFailed(ensured("beta", 20001), 1, "is that of the account acme")
	l.wantFailed(ensured("beta", 20500), 1, "is that of the user alice of this server: refused; give the user alice another number there, or declare an account of another name with a number that is free here, such as uid: 20601")
	l.wantFailed(ensured("beta", 20600), 1, "is that of the group clients of this server: refused; give the group clients another number there")
	l.wantFailed(ensured("alice", 20500), 1, "a user of that name on this server that upkeep did not make")
	l.wantFailed(ensured("alice", 20501), 1, "on this server that upkeep did not make")
	l.wantFailed(ensured("clients", 20601), 1, "a group of that name on this server that upkeep did not make")
	l.wantFailed(ensured("beta", 21000), 1, "user id 21000 is not one of 20000 to 20999, which the policy of this server has for accounts: refused; widen uids in the agent's policy, or declare an account of another name with a number that is free here, such as uid: 20601")
	for _, name := range []string{"root", "www-data", "0", "-x", "a b", "a:b", "a\nb", "Acme", "", strings.Repeat("a", 40), "sudo", "ä"} {
		l.wantFailed(ensured(name, 20003), 1, "must be the name of an account")
	}
	for _, uid := range []int{0, -1, 1, 1000, 65534, 4294967296} {
		l.wantFailed(ensured("beta", uid), 1, "must be 20000 to 59999")
	}
	if after := l.snapshot(); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
}

func TestUserRemove(t *testing.T) {
	l := newLab(t, labPolicy)
	l.wantFailed(removed("alice", 20500), 1, "upkeep did not make a user of that name")
	l.wantFailed(removed("root", 20500), 1, "must be the name of an account")
	l.wantDone(files("example.test", "acme", 20001, 1), 1)
	l.wantFailed(removed("acme", 20002), 2, "upkeep did not make a user of that name and number")
	for range 2 {
		l.wantDone(removed("acme", 20001), 2)
	}
	if line := l.passwd("acme"); line != "" {
		t.Errorf("it is still there: %s", line)
	}
	if got := l.like("home/acme/example.test"); got != "drwxr-x--- 20001:33" {
		t.Errorf("the files are %s", got)
	}
	// Files with its number are still there: nobody else gets it.
	l.start()
	l.wantFailed(ensured("beta", 20001), 1, "is that of the account acme; files of it may still be here")
	l.wantDone(ensured("acme", 20001), 3)
	// Somebody made a user of that name after upkeep's was removed.
	l.wantDone(removed("acme", 20001), 4)
	_, err := run(context.Background(), "/usr/sbin/useradd", "--prefix", l.dir, "--uid", "20001", "--no-create-home", "--user-group", "--comment", accountMark, "acme")
	l.must(err)
	l.wantFailed(ensured("acme", 20001), 5, "that upkeep did not make")
	l.wantFailed(removed("acme", 20001), 6, "somebody else has made or changed it")
}

func TestMkdir(t *testing.T) {
	l := newLab(t, labPolicy)
	l.wantDone(ensured("acme", 20001), 1)
	made := task.Mkdir{Root: "data", Path: "acme", Owner: "acme", Group: "acme", Mode: "0750"}
	for i, want := range []string{"true", "false"} {
		if outcome := l.wantDone(made, int64(i+1)); !strings.Contains(string(outcome.Result), `"made":`+want) {
			t.Errorf("got %s", outcome.Result)
		}
	}
	l.wantDone(task.Mkdir{Root: "data", Path: "acme/inner", Owner: "acme", Group: "acme", Mode: "0755"}, 1)
	l.wantDone(task.Mkdir{Root: "data", Path: "shared", Owner: "root", Group: task.WebGroup, Mode: "0751"}, 1)
	l.wantDone(task.Mkdir{Root: "data", Path: "shared/acme", Owner: "acme", Group: task.WebGroup, Mode: "0770"}, 1)
	for name, want := range map[string]string{
		"data/acme": "drwxr-x--- 20001:20001", "data/acme/inner": "drwxr-xr-x 20001:20001", "data/shared": "drwxr-x--x 0:33", "data/shared/acme": "drwxrwx--- 20001:33",
	} {
		if got := l.like(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	before := l.snapshot()
	l.must(os.Symlink(l.path("outside"), l.path("data/link")))
	for path, words := range map[string]string{
		"none/x": "no such file", "link/x": "is a symbolic link", "link": "is a symbolic link", "acme/inner/..": "relative path", "../outside": "relative path",
		"/etc": "relative path", ".hidden": "relative path", "a b": "relative path", "a\nb": "relative path", "": "relative path", "-rf": "relative path",
	} {
		l.wantFailed(task.Mkdir{Root: "data", Path: path, Owner: "acme", Group: "acme", Mode: "0755"}, 1, words)
	}
	for _, one := range []struct {
		task.Mkdir
		words string
	}{
		{task.Mkdir{Root: "etc", Path: "x", Owner: "root", Group: "root", Mode: "0755"}, `no root named "etc"`},
		{task.Mkdir{Root: "data", Path: "x", Owner: "alice", Group: "alice", Mode: "0755"}, `no account "alice" on this server that upkeep made`},
		{task.Mkdir{Root: "data", Path: "x", Owner: "www-data", Group: "root", Mode: "0755"}, "must be an account or root"},
		{task.Mkdir{Root: "home", Path: "beta/example.test", Owner: "acme", Group: "acme", Mode: "0755"}, "in the home of another"},
		{task.Mkdir{Root: "data", Path: "x", Owner: "acme", Group: "sudo", Mode: "0755"}, "must be that of the owner"},
		{task.Mkdir{Root: "data", Path: "x", Owner: "acme", Group: "acme", Mode: "4755"}, "must be octal"},
		{task.Mkdir{Root: "data", Path: "x", Owner: "acme", Group: "acme", Mode: "0777"}, "must be octal"},
		{task.Mkdir{Root: "data", Path: "x", Owner: "root", Group: "web", Mode: "0775"}, "must not let a group write"},
		{task.Mkdir{Root: "data", Path: "shared", Owner: "acme", Group: "acme", Mode: "0755"}, "belongs to user 0, not to user 20001"},
		{task.Mkdir{Root: "data", Path: "acme", Owner: "root", Group: "root", Mode: "0755"}, "belongs to user 20001, not to user 0"},
		{task.Mkdir{Root: "data", Path: "acme/roots", Owner: "root", Group: "root", Mode: "0755"}, "can belong to nobody else"},
		{task.Mkdir{Root: "home", Path: "acme", Owner: "acme", Group: "acme", Mode: "0755"}, "would be a home"},
	} {
		l.wantFailed(one.Mkdir, 9, one.words)
	}
	l.must(os.Remove(l.path("data/link")))
	if after := l.snapshot(); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
}

func TestSiteFiles(t *testing.T) {
	l := newLab(t, labPolicy)
	site := files("example.test", "acme", 20001, 1)
	site.Site.CGI, site.Site.Root = true, "public/www"
	for range 2 {
		l.wantDone(site, 1)
	}
	sub := files("blog.example.test", "acme", 20001, 1)
	sub.Site.SubOf = "example.test"
	l.wantDone(sub, 1)
	for name, want := range map[string]string{
		"home/acme":                                 "drwxr-x--x 0:0",
		"home/acme/example.test":                    "drwxr-x--- 20001:33",
		"home/acme/example.test/htdocs":             "drwxr-xr-x 20001:20001",
		"home/acme/example.test/htdocs/public/www":  "drwxr-xr-x 20001:20001",
		"home/acme/example.test/cgi-bin":            "drwxr-xr-x 20001:20001",
		"home/acme/example.test/htdocs/blog":        "drwxr-xr-x 20001:20001",
		"home/acme/blog.example.test":               "none",
		"home/acme/example.test/htdocs/public/logs": "none",
	} {
		if got := l.like(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	// The customer's own choices and plants are left as they are.
	l.must(os.Chmod(l.path("home/acme/example.test"), 0o700))
	l.must(os.RemoveAll(l.path("home/acme/example.test/cgi-bin")))
	l.must(os.Symlink(l.path("outside/inner"), l.path("home/acme/example.test/cgi-bin")))
	before := l.snapshot()
	site.Generation = 2
	l.wantFailed(site, 2, "is a symbolic link, which is never followed")
	// Somebody else's name and number for it.
	l.wantDone(ensured("beta", 20002), 1)
	l.wantFailed(files("example.test", "beta", 20001, 3), 3, "the job says 20001; its files carry the first")
	l.wantFailed(files("example.test", "gamma", 20001, 3), 3, "is that of the account acme")
	stolen := files("other.example.test", "beta", 20002, 1)
	stolen.Site.SubOf = "example.test"
	l.wantDone(stolen, 1) // in a folder of that name of its own
	if got := l.like("home/beta/example.test/htdocs/other"); got != "drwxr-xr-x 20002:20002" {
		t.Errorf("the pages of a sub-site of nothing: %s", got)
	}
	if after := l.snapshot(); withoutEtc(after) != withoutEtc(before) {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
}

// withoutEtc takes the users, and the home of beta, out of a snapshot.
func withoutEtc(snapshot string) string {
	var kept []string
	for line := range strings.Lines(snapshot) {
		if !strings.HasPrefix(line, "etc") && !strings.HasPrefix(line, "home/beta") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestOnlyControlsJobsForThisServer holds that a job is done only when control
// signed it, for this server, and it has not expired.
func TestOnlyControlsJobsForThisServer(t *testing.T) {
	l := newLab(t, labPolicy)
	before := l.snapshot()
	_, stranger, err := ed25519.GenerateKey(nil)
	l.must(err)
	payload := []byte(`{"account":"acme","uid":20001}`)
	base := link.Job{ID: 1, Server: "web1", Kind: upkeep.JobUserEnsure, Object: "account/acme", Generation: 1, Expires: l.now.Add(time.Hour), Payload: payload}
	for name, one := range map[string]struct {
		key    ed25519.PrivateKey
		change func(*link.Job)
		spoil  func(*link.Signed)
		words  string
	}{
		"another key":     {key: stranger, words: "not signed by the control"},
		"another server":  {change: func(j *link.Job) { j.Server = "web2" }, words: "is for the server web2, and this is web1"},
		"expired":         {change: func(j *link.Job) { j.Expires = l.now.Add(-time.Second) }, words: "expired at"},
		"for ever":        {change: func(j *link.Job) { j.Expires = l.now.Add(1000 * time.Hour) }, words: "no job may have more than"},
		"changed":         {spoil: func(s *link.Signed) { s.Body[len(s.Body)-3] ^= 1 }, words: "not signed by the control"},
		"no signature":    {spoil: func(s *link.Signed) { s.Signature = nil }, words: "signature has 0 bytes"},
		"empty":           {spoil: func(s *link.Signed) { *s = link.Signed{} }, words: "the job is empty"},
		"another object":  {change: func(j *link.Job) { j.Object = "account/beta" }, words: `says that it is about "account/beta", and its payload is about "account/acme"`},
		"another kind":    {change: func(j *link.Job) { j.Kind = upkeep.JobMkdir }, words: "is not a field of mkdir"},
		"unknown kind":    {change: func(j *link.Job) { j.Kind = "shell" }, words: "does not allow shell jobs"},
		"a newer payload": {change: func(j *link.Job) { j.Payload = []byte(`{"account":"acme","uid":20001,"new":1}`) }, words: "upgrade upkeep on this server"},
		"a newer job": {spoil: func(s *link.Signed) {
			s.Body = bytes.Replace(s.Body, []byte("{"), []byte(`{"new":1,`), 1)
			s.Signature = ed25519.Sign(l.key, append([]byte("upkeep job v1\x00"), s.Body...))
		}, words: "upgrade upkeep on this server"},
	} {
		job, key := base, l.key
		if one.change != nil {
			one.change(&job)
		}
		if one.key != nil {
			key = one.key
		}
		signed, err := link.Sign(key, job)
		l.must(err)
		if one.spoil != nil {
			one.spoil(&signed)
		}
		outcome := l.root.Do(t.Context(), signed, nil)
		if outcome.State != upkeep.JobFailed || !strings.Contains(outcome.Error, one.words) {
			t.Errorf("%s: %s, %q, want %q", name, outcome.State, outcome.Error, one.words)
		}
	}
	if after := l.snapshot(); after != before {
		t.Errorf("something changed:\n%s\nwas\n%s", after, before)
	}
}

// TestGenerations holds that what is older than what was done does nothing, also
// after a restart, whatever the order in which jobs come.
func TestGenerations(t *testing.T) {
	l := newLab(t, labPolicy)
	tenant := task.Tenant{Account: "acme", UID: 20001}
	ensure := func(generation int64) link.Signed {
		return l.sign(upkeep.JobUserEnsure, "account/acme", generation, task.UserEnsure{Tenant: tenant})
	}
	remove := func(generation int64) link.Signed {
		return l.sign(upkeep.JobUserRemove, "account/acme", generation, task.UserRemove{Tenant: tenant})
	}
	old, lateRemoval := ensure(1), remove(2)
	want := func(signed link.Signed, state upkeep.JobState, there bool) {
		t.Helper()
		if outcome := l.root.Do(t.Context(), signed, nil); outcome.State != state {
			t.Errorf("%s, %q, want %s", outcome.State, outcome.Error, state)
		}
		if is := l.passwd("acme") != ""; is != there {
			t.Errorf("the user is there: %v", is)
		}
	}
	want(old, upkeep.JobDone, true)
	third := ensure(3)
	want(third, upkeep.JobDone, true)
	want(lateRemoval, upkeep.JobSuperseded, true)
	fourth := remove(4)
	want(fourth, upkeep.JobDone, false)
	// Within one generation the later job wins, as when a site leaves a server
	// and comes back with its account.
	back := ensure(4)
	for range 2 {
		want(old, upkeep.JobSuperseded, false)
		want(third, upkeep.JobSuperseded, false)
		want(fourth, upkeep.JobDone, false)
		l.start()
	}
	want(back, upkeep.JobDone, true)
	want(fourth, upkeep.JobSuperseded, true)
	want(back, upkeep.JobDone, true)
}

// TestFilesStayAndTheSiteGoes holds that a server which holds the files of a site, and
// answers for it no more, does what comes for either in whatever order: neither is
// newer than the other.
func TestFilesStayAndTheSiteGoes(t *testing.T) {
	a := applied{done: map[string]map[string]done{}}
	of := func(id, generation int64, payload task.Payload) job {
		text, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		return job{Job: link.Job{ID: id, Kind: payload.Kind(), Object: payload.Object(), Generation: generation, Payload: text}, payload: payload}
	}
	site := upkeep.Site{Name: "a.test", Account: "acme", Servers: []string{"web2"}, Files: "web1"}
	files := func(id, generation int64) job {
		return of(id, generation, task.SiteFiles{Site: site, Generation: generation})
	}
	served := func(id, generation int64) job {
		return of(id, generation, task.SiteApply{Site: site, Generation: generation})
	}
	remove := func(id, generation int64, keep bool) job {
		return of(id, generation, task.SiteRemove{Name: "a.test", Account: "acme", Generation: generation, KeepFiles: keep})
	}
	for _, step := range []struct {
		job  job
		want verdict
	}{
		{files(1, 7), fresh}, {served(2, 7), fresh}, {files(4, 8), fresh},
		{remove(3, 8, true), fresh},       // made before, and done later
		{files(4, 8), already},            // which the removal has not undone
		{served(2, 7), superseded},        // it was taken away since
		{files(5, 9), fresh},              // of the next change
		{remove(6, 8, true), already},     // again
		{remove(7, 8, false), superseded}, // with its files, which are newer
		{remove(8, 10, false), fresh},
		{files(5, 9), superseded},
	} {
		verdict, last := a.judge(step.job)
		if verdict != step.want {
			t.Errorf("job %d (%s@%d): %d, want %d, after %+v", step.job.ID, step.job.Kind, step.job.Generation, verdict, step.want, last)
		}
		if verdict == fresh {
			a.remember(doneOf(step.job))
		}
	}
}

// TestTornLog holds that a line which a power cut cut off costs nothing, and that
// a damaged log stops the agent instead of making it forget.
func TestTornLog(t *testing.T) {
	l := newLab(t, labPolicy)
	l.wantDone(ensured("acme", 20001), 5)
	path := l.path("state/" + appliedFile)
	text, err := os.ReadFile(path)
	l.must(err)
	l.must(os.WriteFile(path, append(text, `{"object":"account/acme","ki`...), 0o600))
	l.start()
	if outcome := l.do(ensured("acme", 20001), 4); outcome.State != upkeep.JobSuperseded {
		t.Errorf("got %+v", outcome)
	}
	l.must(os.WriteFile(path, append([]byte("{\n"), text...), 0o600))
	if _, err := New(l.o); err == nil || !strings.Contains(err.Error(), "has a malformed line") {
		t.Errorf("got %v", err)
	}
	l.must(os.WriteFile(path, text, 0o666))
	l.must(os.Chmod(path, 0o666))
	if _, err := New(l.o); err == nil || !strings.Contains(err.Error(), "may be written to by others") {
		t.Errorf("got %v", err)
	}
}

// TestFullLog holds that a disk that is full for a while spoils nothing: what could not
// be written is done anew, and the log can be read.
func TestFullLog(t *testing.T) {
	dir := t.TempDir()
	testkit.NeedThat(t, "to mount", unix.Mount("none", dir, "tmpfs", 0, "size=8k,mode=0700"))
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state, err := openState(dir)
	must(err)
	defer state.Close()
	a, err := openApplied(state)
	must(err)
	numbered := func(n int64) job {
		return job{Job: link.Job{ID: n, Kind: upkeep.JobMkdir, Object: fmt.Sprint("dir/", n), Generation: n, Payload: []byte(strings.Repeat("x", 100))}}
	}
	last := int64(1)
	for ; last < 1000; last++ {
		if err = a.record(doneOf(numbered(last))); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("after %d records: %v", last, err)
	}
	if verdict, _ := a.judge(numbered(last)); verdict != fresh {
		t.Error("what could not be written is taken for done")
	}
	must(unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=1m,mode=0700"))
	must(a.record(doneOf(numbered(last + 1))))
	must(a.close())
	a, err = openApplied(state)
	must(err)
	defer a.close()
	for n, want := range map[int64]verdict{1: already, last - 1: already, last: fresh, last + 1: already} {
		if verdict, _ := a.judge(numbered(n)); verdict != want {
			t.Errorf("the verdict on job %d is %d, want %d", n, verdict, want)
		}
	}
}

// TestDeleteBudget holds that no more is removed in an hour than the policy says,
// whoever asks and however often the agent is started.
func TestDeleteBudget(t *testing.T) {
	l := newLab(t, labPolicy)
	for i := range 5 {
		l.wantDone(ensured(fmt.Sprint("user", i), 20010+i), 1)
	}
	for i := range 3 {
		l.wantDone(removed(fmt.Sprint("user", i), 20010+i), 2)
	}
	l.wantFailed(removed("user3", 20013), 2, "removing account user3: the policy of this server allows 3 removals an hour, and 3 were made")
	// The same thing once more costs nothing: a removal that fails is tried again.
	l.wantDone(ensured("user0", 20010), 3)
	l.wantDone(removed("user0", 20010), 4)
	l.start()
	l.wantFailed(removed("user3", 20013), 2, "try again after "+l.now.Add(time.Hour).UTC().Format("15:04:05"))
	if l.passwd("user3") == "" {
		t.Error("it was removed all the same")
	}
	// A clock that is put back gives nothing back.
	was := l.now
	l.now = was.Add(-100 * time.Hour)
	l.wantFailed(removed("user3", 20013), 2, "removals an hour")
	l.now = was.Add(time.Hour)
	l.wantDone(removed("user3", 20013), 2)
	// What is gone already costs nothing.
	for i := range 4 {
		l.wantDone(removed(fmt.Sprint("user", i), 20010+i), 5)
	}
}

func TestFacts(t *testing.T) {
	l := newLab(t, labPolicy)
	outcome := l.wantDone(task.ServerFacts{}, 0)
	for _, words := range []string{`"kernel":"`, `"version":"1.0"`, `"uid":0`, `"user.ensure"`, `"home":"` + l.dir + `/home"`, `"uid_min":20000,"uid_max":20999,"delete_budget":3`} {
		if !strings.Contains(string(outcome.Result), words) {
			t.Errorf("no %s in %s", words, outcome.Result)
		}
	}
}

// TestPoisonedJob holds that a panic fails its own job alone.
func TestPoisonedJob(t *testing.T) {
	l := newLab(t, labPolicy)
	_, err := l.root.guarded(t.Context(), handler{do: func(context.Context, *Root, job) (any, error) { panic("boo") }}, job{})
	if err == nil || strings.Contains(err.Error(), "boo") {
		t.Errorf("got %v", err)
	}
	l.wantDone(ensured("acme", 20001), 1)
}

// TestTurns holds that jobs of one object wait for each other and for nobody
// else, and that one can be taken back while it waits.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns turns
		first, err := turns.take(t.Context(), []claim{{name: "a"}})
		if err != nil {
			t.Fatal(err)
		}
		other, err := turns.take(t.Context(), []claim{{name: "b"}})
		if err != nil {
			t.Fatal(err)
		}
		other()
		got := make(chan func())
		go func() {
			second, err := turns.take(t.Context(), []claim{{name: "a"}})
			if err != nil {
				t.Error(err)
			}
			got <- second
		}()
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := turns.take(ctx, []claim{{name: "a"}})
			failed <- err
		}()
		synctest.Wait()
		select {
		case <-got:
			t.Error("two at a time")
		default:
		}
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		first()
		(<-got)()
		shared := []claim{{name: "a", shared: true}}
		one, err := turns.take(t.Context(), shared)
		if err != nil {
			t.Fatal(err)
		}
		two, err := turns.take(t.Context(), shared)
		if err != nil {
			t.Fatal(err)
		}
		one()
		go func() {
			alone, err := turns.take(t.Context(), []claim{{name: "a"}})
			if err != nil {
				t.Error(err)
			}
			got <- alone
		}()
		synctest.Wait()
		select {
		case <-got:
			t.Error("what is shared was taken away")
		default:
		}
		two()
		(<-got)()
		if len(turns.held) > 0 {
			t.Errorf("%d turns are kept", len(turns.held))
		}
	})
}
