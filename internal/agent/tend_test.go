package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/task"
)

// sync has the sites of a job verified, or regenerated, and returns what was told.
func (l *lab) sync(sites []task.SiteApply, verify bool) (told task.SyncResult) {
	l.t.Helper()
	l.must(json.Unmarshal(l.wantDone(task.SiteSync{Sites: sites, Verify: verify}, 0).Result, &told))
	return told
}

// Modes and owners of what upkeep made for an account are told by a verification and
// put right by a regeneration, each alone. What an account could have put there is
// never given to it.
func TestRightsOfFolders(t *testing.T) {
	l := newWebLab(t)
	sites := []task.SiteApply{apply("a.test", "acme", 20001, 1), apply("b.test", "beta", 20002, 1)}
	sub := apply("blog.a.test", "acme", 20001, 1)
	sub.Site.SubOf = "a.test"
	sites = append(sites, sub)
	for _, site := range sites {
		l.wantDone(site, 1)
	}
	sites = []task.SiteApply{sub, sites[0], sites[1]} // as they are sorted where the one below has an early name
	if told := l.sync(sites, true); told.Differ > 0 || len(told.Failed) > 0 || told.Served != 3 {
		t.Fatalf("told %+v", told)
	}
	log := strings.TrimPrefix(l.webOptions.Layout.LogFolder("a.test"), l.dir+"/")
	for _, one := range []struct {
		path string
		do   func(path string) error
		told string
		like string // afterwards
	}{
		{"home/acme", func(p string) error { return os.Chmod(p, 0o777) }, "-mode 0777, owner 0, group 0\n+mode 0751", "drwxr-x--x 0:0"},
		{"home/acme", func(p string) error { return os.Chown(p, 20001, 20001) }, "-mode 0751, owner 20001, group 20001\n+mode 0751, owner 0, group 0", "drwxr-x--x 0:0"},
		{"home/acme/a.test", func(p string) error { return os.Chmod(p, 0o757) }, "-mode 0757", "drwxr-xr-x 20001:33"},
		{"home/acme/a.test", func(p string) error { return os.Chown(p, 65534, 65534) }, "-mode 0755, owner 65534", "drwxr-xr-x 20001:33"},
		{"home/acme/a.test/log", os.Remove, "-nothing\n+a link to ", ""},
		{"home/acme/a.test/log", func(p string) error { return os.Rename(p, p+".old") }, "-nothing\n+a link to ", ""},
		{log, func(p string) error { return os.Chmod(p, 0o777) }, "-mode 0777, owner 0, group 20001\n+mode 2750", "dgrwxr-x--- 0:20001"},
	} {
		l.must(one.do(l.path(one.path)))
		before := l.like(one.path)
		told := l.sync(sites, true)
		if got := told.Drift[l.path(one.path)]; told.Differ != 1 || !strings.Contains(got, one.told) || len(told.Failed) > 0 {
			t.Errorf("%s, %s: a verification told %q of %+v", one.path, before, got, told)
		}
		if now := l.like(one.path); now != before {
			t.Errorf("a verification made %s of %s", now, before)
		}
		if told := l.sync(sites, false); told.Differ != 1 || !strings.Contains(told.Drift[l.path(one.path)], one.told) || told.Served != 3 {
			t.Errorf("%s, %s: a regeneration told %+v", one.path, before, told)
		}
		if now := l.like(one.path); one.like != "" && now != one.like || one.like == "" && !strings.HasPrefix(now, "L") {
			t.Errorf("%s is %s", one.path, now)
		}
		if told := l.sync(sites, true); told.Differ > 0 || len(told.Failed) > 0 {
			t.Errorf("%s afterwards: %+v", one.path, told)
		}
	}
	// These are told of and left: of another account's, and in the account's own tree,
	// where it could have renamed a folder of root's to this.
	for path, owner := range map[string]int{"home/acme/a.test": 20002, "home/acme/a.test/htdocs": 0, "home/acme/a.test/htdocs/blog": 65534} {
		was := l.like(path)
		l.must(os.Chown(l.path(path), owner, -1))
		for _, verify := range []bool{true, false} {
			told := l.sync(sites, verify)
			if len(told.Failed) == 0 || !strings.Contains(told.Failed[0].Rule, fmt.Sprintf("%s belongs to user %d", l.path(path), owner)) || !strings.Contains(told.Failed[0].Rule, ": chown 20001:") || told.Differ > 0 {
				t.Errorf("%s: told %+v", path, told)
			}
		}
		if now := l.like(path); !strings.Contains(now, fmt.Sprintf(" %d:", owner)) {
			t.Errorf("%s is %s", path, now)
		}
		l.must(os.Chown(l.path(path), 20001, -1))
		if now := l.like(path); now != was {
			t.Errorf("%s is %s after this, and was %s", path, now, was)
		}
	}
	// What an account puts in place of the link is its own business.
	l.must(os.Remove(l.path("home/acme/a.test/log")))
	l.must(os.Mkdir(l.path("home/acme/a.test/log"), 0o755))
	if told := l.sync(sites, true); told.Differ > 0 || len(told.Failed) > 0 {
		t.Errorf("told %+v", told)
	}
}

// What is no file in the include folder is named by the job that fails for it, and by
// a verification, which goes on.
func TestOddThingInIncludeFolder(t *testing.T) {
	l := newWebLab(t)
	site := apply("a.test", "acme", 20001, 1)
	l.wantDone(site, 1)
	fifo := l.o.Web.Layout.Include + "/61-fifo.conf"
	l.must(unix.Mkfifo(fifo, 0o600))
	told := l.sync([]task.SiteApply{site}, true)
	if told.Served != 1 || len(told.Failed) != 1 || told.Failed[0].Object != "server/web1" || !strings.Contains(told.Failed[0].Rule, fifo+" is a FIFO") {
		t.Errorf("told %+v", told)
	}
	l.wantFailed(apply("b.test", "acme", 20001, 1), 1, fifo+" is a FIFO")
	l.must(os.Remove(fifo))
	if outcome := l.do(apply("b.test", "acme", 20001, 1), 1); outcome.State != upkeep.JobDone {
		t.Errorf("afterwards: %+v", outcome)
	}
}
