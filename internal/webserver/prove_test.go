package webserver

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// A site that something else takes the requests of fails; it is not told of the others
// that they wait, and the next change does not pay for it.
func TestSiteThatNeverAnswers(t *testing.T) {
	onBoth(t, func(t *testing.T, server func(testing.TB) *world) {
		w := server(t)
		if err := w.Applier.Close(); err != nil {
			t.Fatal(err)
		}
		w.options.Patience = 3 * time.Second
		w.open()
		// Whoever has this name, the server has it already, with no file that tells of it.
		w.options.Server = shadowed{w.options.Server}
		w.reopen()
		began := time.Now()
		took, results := map[string]time.Duration{}, map[string]chan Result{}
		for _, name := range []string{"bad.test", "a.test", "b.test", "c.test"} {
			result, in := make(chan Result, 1), w.input(name, 1)
			results[name] = result
			go func() { result <- w.Apply(t.Context(), Request{Input: in, Batch: 1, BatchSize: 4}) }()
		}
		for _, name := range []string{"a.test", "b.test", "c.test", "bad.test"} {
			r := <-results[name]
			took[name] = time.Since(began)
			if want := name != "bad.test"; (r.State == upkeep.JobDone) != want {
				t.Errorf("%s: %+v", name, r)
			}
		}
		for name, d := range took {
			if (d < w.options.Patience) != (name != "bad.test") {
				t.Errorf("%s was told after %s", name, d)
			}
		}
		if stall := w.Stats().Stall; stall >= w.options.Patience {
			t.Errorf("the wait for the site counts as the server's: %s", stall)
		}
		// Alone nothing else shows what the server takes.
		if r := w.apply(w.input("bad.test", 2)); r.State != upkeep.JobFailed {
			t.Errorf("alone: %+v", r)
		}
		if stall := w.Stats().Stall; stall >= w.options.Patience {
			t.Errorf("alone, the wait for the site counts as the server's: %s", stall)
		}
		w.reopen() // what was told is what was written down
		before := w.Stats()
		w.mustApply(w.input("a.test", 1))
		if after := w.Stats(); after.Reloads != before.Reloads {
			t.Error("a site that was told to be done is not known to be")
		}
	})
}

// shadowed is a server on which a probe of bad.test asks for a path that nothing
// answers, as when another configuration takes its requests.
type shadowed struct{ Server }

func (s shadowed) Renderer() vhost.Renderer { return shadow{s.Server.Renderer()} }

type shadow struct{ vhost.Renderer }

func (s shadow) Probes(files []vhost.File) []vhost.Probe {
	probes := s.Renderer.Probes(files)
	for i := range probes {
		if probes[i].Host == "bad.test" {
			probes[i].Path = "/nowhere"
		}
	}
	return probes
}

// A pool whose processes are all busy is not a dead one: its site can be changed, its
// visitors' requests are not ended for what is not about PHP, and no other site waits.
func TestBusyPool(t *testing.T) {
	onBoth(t, func(t *testing.T, server func(testing.TB) *world) {
		w, start := phpWorld(t, server)
		start()
		w.options.Patience = 10 * time.Second
		w.open()
		in := w.input("busy.test", 1)
		in.Site.PHP = &upkeep.PHP{Children: 1}
		going, ended := filepath.Join(in.SiteFolder(), "going"), filepath.Join(in.SiteFolder(), "ended")
		w.write(filepath.Join(in.DocumentRoot(), "slow.php"), fmt.Sprintf(`<?php file_put_contents(%q, "x"); while (!file_exists(%q)) { usleep(10000); clearstatcache(); } echo "slow";`, going, ended), 0o644)
		w.mustApply(in)
		if err := os.Chmod(in.SiteFolder(), 0o777); err != nil { // for a program that has no folder of its own
			t.Fatal(err)
		}
		const visitors = 8
		answers := make(chan string, visitors)
		for range visitors {
			go func() {
				answers <- slowly(w)
			}()
		}
		testkit.Eventually(t, 20*time.Second, func() (bool, string) { return exists(going), "the script does not run" })

		in.Generation, in.Site.Index = 2, []string{"start.html", "index.html"}
		began := time.Now()
		w.mustApply(in)
		if took := time.Since(began); took > busyPatience {
			t.Errorf("a change that is not about PHP took %s", took)
		}
		if len(answers) > 0 {
			t.Fatalf("a visitor's request was ended: %q", <-answers)
		}
		// A pool that is changed is taken anew, which ends what runs; what waits runs then.
		in.Generation, in.Site.PHP = 3, &upkeep.PHP{Children: 1, Memory: 64}
		began = time.Now()
		var php time.Duration
		done := make(chan Result, 1)
		go func() {
			r := w.Apply(t.Context(), Request{Input: in, Batch: 1, BatchSize: 2})
			php = time.Since(began)
			done <- r
		}()
		plain := w.Apply(t.Context(), Request{Input: w.input("plain.test", 1), Batch: 1, BatchSize: 2})
		took := time.Since(began)
		if r := <-done; r.State != upkeep.JobDone || plain.State != upkeep.JobDone {
			t.Errorf("with a busy pool: %+v, and beside it: %+v", r, plain)
		}
		if php < busyPatience {
			t.Errorf("the pool was not busy: it answered after %s", php)
		}
		if took >= busyPatience {
			t.Errorf("the site beside it waited for %s", took)
		}
		// It is told of for as long as it lasts.
		if got := w.BusyPHP(); !slices.Equal(got, []string{"busy.test"}) {
			t.Errorf("busy are %q", got)
		}
		w.askBusyNow()
		if got := w.BusyPHP(); !slices.Equal(got, []string{"busy.test"}) {
			t.Errorf("busy are %q", got)
		}
		w.busy.asking.Wait()
		if got := w.BusyPHP(); !slices.Equal(got, []string{"busy.test"}) {
			t.Errorf("when it was asked again, busy are %q", got)
		}
		w.write(ended, "x", 0o644)
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			w.askBusyNow()
			got := w.BusyPHP()
			return len(got) == 0, fmt.Sprint(got, " are busy still")
		})
		testkit.Eventually(t, 20*time.Second, func() (bool, string) { return len(answers) == visitors, fmt.Sprint(len(answers), " were answered") })
	})
}

// askBusyNow has busy pools asked with the next look.
func (w *world) askBusyNow() {
	w.busy.mu.Lock()
	defer w.busy.mu.Unlock()
	for site := range w.busy.sites {
		w.busy.sites[site] = time.Time{}
	}
}

// slowly asks for the slow page, and tells what came: nothing where the request was
// ended.
func slowly(w *world) string {
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+w.options.Address+"/slow.php", nil)
	if err != nil {
		return err.Error()
	}
	req.Host = "busy.test"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
