package webserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// Many sites that are asked for at a time share a reload or two, and nobody who
// visits another site notices.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	w.mustApply(w.input("other.test", 1))
	ctx, cancel := context.WithCancel(t.Context())
	var asked, lost atomic.Int64
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		visitor := newAsker(w.options.Address)
		for ctx.Err() == nil {
			// 404 is an answer of that site; only a connection can be lost.
			if err := visitor.answers(ctx, vhost.Probe{Host: "other.test", Path: "/nowhere"}, true); err != nil && !strings.Contains(err.Error(), "status 404") && ctx.Err() == nil {
				t.Error(err)
				lost.Add(1)
			}
			asked.Add(1)
		}
	}()
	before := w.Stats()
	var inputs []vhost.Input
	for i := range 200 {
		inputs = append(inputs, w.input(fmt.Sprintf("s%d.test", i), 1))
	}
	for site, r := range w.applyAll(inputs) {
		if r.State != upkeep.JobDone {
			t.Errorf("%s: %v", site, r.Err)
		}
	}
	cancel()
	<-stopped
	if n := w.Stats().Reloads - before.Reloads; n > 2 {
		t.Errorf("%d reloads for 200 sites", n)
	}
	if asked.Load() == 0 || lost.Load() > 0 {
		t.Errorf("%d of %d requests were lost", lost.Load(), asked.Load())
	}
	w.answers("s77.test")
}

// Requests that come one by one, without saying how many, are not a reload each.
func TestStreamOfRequests(t *testing.T) {
	w := newWorld(t)
	var inputs []vhost.Input
	for i := range 60 {
		inputs = append(inputs, w.input(fmt.Sprintf("s%d.test", i), 1))
	}
	results := make(chan Result, len(inputs))
	for _, in := range inputs {
		go func() { results <- w.Apply(t.Context(), Request{Input: in}) }()
	}
	for range inputs {
		if r := <-results; r.State != upkeep.JobDone {
			t.Error(r.Err)
		}
	}
	if n := w.Stats().Reloads; n > 4 {
		t.Errorf("%d reloads for 60 sites", n)
	}
}

func TestPace(t *testing.T) {
	now := time.Unix(1000, 0)
	single := &request{}
	for _, one := range []struct {
		name string
		pace func() *pace
		want time.Duration
	}{
		{"the first after a long time", func() *pace {
			p := &pace{}
			p.arrived(now, single)
			return p
		}, quiet},
		{"soon after a reload", func() *pace {
			p := &pace{}
			p.reload(now.Add(-50*time.Millisecond), time.Second)
			p.arrived(now, single)
			return p
		}, quiet},
		{"several at a time", func() *pace {
			p := &pace{}
			for range stream {
				p.arrived(now, single)
			}
			return p
		}, streamQuiet},
		{"a part of a batch", func() *pace {
			p := &pace{}
			p.arrived(now, &request{Request: Request{Batch: 1, BatchSize: 2}})
			return p
		}, batchPatience},
		{"a part of a batch of which more comes all the time", func() *pace {
			p := &pace{}
			p.arrived(now.Add(-20*time.Second), &request{Request: Request{Batch: 1, BatchSize: 3}})
			p.arrived(now, &request{Request: Request{Batch: 1, BatchSize: 3}})
			return p
		}, batchPatience},
		{"a part of a batch of which more comes without end", func() *pace {
			p := &pace{}
			p.arrived(now.Add(-wholePatience), &request{Request: Request{Batch: 1, BatchSize: 3}})
			p.arrived(now, &request{Request: Request{Batch: 1, BatchSize: 3}})
			return p
		}, 0},
		{"a whole batch", func() *pace {
			p := &pace{}
			p.arrived(now, &request{Request: Request{Batch: 1, BatchSize: 2}})
			p.arrived(now, &request{Request: Request{Batch: 1, BatchSize: 2}})
			return p
		}, quiet},
		{"one alone after a batch of which something never came", func() *pace {
			p := &pace{}
			p.arrived(now.Add(-time.Minute), &request{Request: Request{Batch: 1, BatchSize: 3}})
			p.emptied()
			p.arrived(now, single)
			return p
		}, quiet},
		{"after many stalls", func() *pace {
			p := &pace{}
			for range 11 {
				p.reload(now, time.Second)
			}
			p.arrived(now, single)
			p.sifted(now, 0)
			return p
		}, 10 * time.Second},
		{"after a handful of long stalls", func() *pace {
			p := &pace{}
			for range handful {
				p.reload(now, 4*time.Second)
			}
			p.arrived(now, single)
			p.sifted(now, 0)
			return p
		}, quiet},
		{"after one more of them", func() *pace {
			p := &pace{}
			for range handful + 1 {
				p.reload(now, 4*time.Second)
			}
			p.arrived(now, single)
			p.sifted(now, 0)
			return p
		}, 40 * time.Second},
		{"after many stalls, to see whether it needs a reload", func() *pace {
			p := &pace{}
			p.reload(now, time.Hour)
			p.arrived(now, single)
			return p
		}, quiet},
		{"some time after many stalls", func() *pace {
			p := &pace{}
			for range 11 {
				p.reload(now.Add(-7*time.Second), time.Second)
			}
			p.arrived(now, single)
			p.sifted(now, 0)
			return p
		}, 3 * time.Second},
		{"never longer than two minutes", func() *pace {
			p := &pace{}
			p.reload(now, time.Hour)
			p.arrived(now, single)
			p.sifted(now, 0)
			return p
		}, maxGap},
		{"something new beside what waits for the budget", func() *pace {
			p := &pace{}
			p.reload(now, time.Hour)
			p.arrived(now, single)
			p.sifted(now, 0)
			p.arrived(now, single)
			return p
		}, quiet},
		{"something new beside so much that to look at it took a second", func() *pace {
			p := &pace{}
			p.reload(now, time.Hour)
			p.arrived(now, single)
			p.sifted(now, time.Second)
			p.arrived(now, single)
			return p
		}, share * time.Second},
		{"while a batch is not complete", func() *pace {
			p := &pace{}
			p.arrived(now, &request{Request: Request{Batch: 1, BatchSize: 2}})
			return p
		}, batchPatience},
		{"when a batch is complete", func() *pace {
			p := &pace{}
			for range 2 {
				p.arrived(now, &request{Request: Request{Batch: 1, BatchSize: 2}})
			}
			return p
		}, quiet},
		{"a stream is not waited for without end", func() *pace {
			p := &pace{}
			p.arrived(now.Add(-patience), single)
			p.arrived(now, single)
			return p
		}, 0},
	} {
		if got := one.pace().wait(now); got != one.want {
			t.Errorf("%s: waits %s, want %s", one.name, got, one.want)
		}
	}
}

// Whatever the moment at which upkeep is killed: the server starts and answers,
// no file is half, and asking again brings everything to what was asked for.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	if err := w.Applier.Close(); err != nil {
		t.Fatal(err)
	}
	inputs := w.inputs(0, 30)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 12 {
		child := testkit.Command{Argv: []string{self, applyArgument, w.dir, w.options.Address, fmt.Sprint(round)}}.Start(t)
		testkit.Eventually(t, 60*time.Second, func() (bool, string) { return strings.Contains(child.Log(), "ready") || !child.Running(), child.Log() })
		<-time.After(time.Duration(rand.IntN(400)) * time.Millisecond)
		child.Kill()
		for _, in := range inputs {
			text, err := os.ReadFile(w.options.Layout.Place("sites/50-" + in.Site.Name + ".conf"))
			if err != nil {
				continue // not yet, or removed
			}
			if _, err := vhost.Unseal(text); err != nil {
				t.Errorf("round %d: %s: %v", round, in.Site.Name, err)
			}
		}
		files, err := filepath.Glob(w.options.Layout.Include + "/*.conf")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.apache.Test(t.Context(), files); err != nil {
			t.Fatalf("round %d: the server would not start: %v", round, err)
		}
	}
	w.open()
	for i := range inputs {
		inputs[i].Generation = 1000
	}
	w.sync(inputs)
	for _, in := range inputs {
		w.answers(in.Site.Name)
	}
	err = filepath.Walk(w.dir, func(path string, _ os.FileInfo, err error) error {
		if err == nil && strings.HasSuffix(path, tempMark) {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if report := w.Sync(t.Context(), inputs, true); len(report.Drift) > 0 {
		t.Errorf("drift: %v", report.Drift)
	}
}

// The private Apache ends with upkeep, also where that is killed.
func TestPrivateEndsWithItsParent(t *testing.T) {
	testkit.Need(t, "apache2")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	child := testkit.Command{Argv: []string{self, privateArgument, dir, address}}.Start(t)
	testkit.Eventually(t, 30*time.Second, func() (bool, string) { return listens(address), child.Log() })
	child.Kill()
	testkit.Eventually(t, 30*time.Second, func() (bool, string) { return !listens(address), "it still listens" })
}

const privateArgument = "private-apache"

const applyArgument = "apply-without-end"

// applyWithoutEnd is the child that is killed: it changes sites, and takes some
// away, as fast as it can.
func applyWithoutEnd(dir, address string, round int) error {
	layout := PrivateLayout(dir, address)
	server := &Apache{Program: FindApache(), Config: dir + "/apache.conf", Include: layout.Include, PIDFile: dir + "/run/apache.pid", Scratch: dir + "/scratch"}
	a, err := Open(context.Background(), Options{Server: server, Layout: layout, State: dir + "/state", Address: address})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for generation := int64(10*round + 1); ; generation++ {
		var inputs []vhost.Input
		for i := range 30 {
			if (i+int(generation))%7 == 0 {
				continue
			}
			in := vhost.Input{Site: upkeep.Site{Name: fmt.Sprintf("s%05d.test", i), Account: testAccount}, Generation: generation, UID: 20001, Layout: layout}
			in.Site.ErrorPages = map[string]string{"404": fmt.Sprint("generation ", generation)}
			inputs = append(inputs, in)
		}
		if report := a.Sync(context.Background(), inputs, false); report.Err != nil {
			return report.Err
		}
	}
}

// Where each site cannot have log files of its own, because the server may not
// open that many, one process splits the lines of ten thousand.
func TestTenThousandSites(t *testing.T) {
	w := newWorld(t)
	if err := w.Applier.Close(); err != nil {
		t.Fatal(err)
	}
	w.options.Layout.Pipe = splitCommand(w)
	w.options.Patience = 2 * time.Minute
	w.open()
	process, err := w.apache.Process()
	if err != nil {
		t.Fatal(err)
	}
	const sites = 10000
	if fits(sites, 0, process) {
		t.Logf("%d descriptors would do for %d sites", process.MaxFiles, sites)
	}
	// One folder of pages for all: making ten thousand is not what this is about.
	first := w.input("main.test", 1)
	first.Site.Root = "all"
	w.write(filepath.Join(first.DocumentRoot(), "index.html"), "page of all\n", 0o644)
	inputs := []vhost.Input{first}
	for i := range sites - 1 {
		inputs = append(inputs, vhost.Input{Site: upkeep.Site{Name: fmt.Sprintf("s%d.main.test", i), Account: testAccount, SubOf: "main.test", Root: "all", WWW: new(bool)},
			Generation: 1, UID: 20001, Layout: w.options.Layout})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	if report := w.Sync(ctx, inputs, false); report.Err != nil {
		t.Fatal(report.Err)
	}
	if s := w.Stats(); !s.Piped || s.Sites != sites {
		t.Fatalf("%+v", s)
	}
	for i := 0; i < sites-1; i += 99 {
		site := fmt.Sprintf("s%d.main.test", i)
		w.expect("GET", site, "/", 200, "page of all")
		w.expect("GET", site, "/nowhere", 404, "")
	}
	w.expect("GET", "unknown.test", "/", 421, "")
	for i := 0; i < sites-1; i += 99 {
		w.logged(fmt.Sprintf("s%d.main.test", i), "access.log", `"GET /nowhere HTTP/1.1" 404`)
	}
	if process, err = w.apache.Process(); err != nil || process.Files > 100 {
		t.Errorf("the server has %d files open (%v)", process.Files, err)
	}
	// Errors, too, go to their site: a page that cannot be read.
	secret := filepath.Join(first.DocumentRoot(), "unreadable")
	if err := os.Symlink("/etc/shadow-nowhere", secret); err != nil {
		t.Fatal(err)
	}
	w.expect("GET", "s5.main.test", "/unreadable", 403, "")
	w.logged("s5.main.test", "error.log", "/unreadable")
}
