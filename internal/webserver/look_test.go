package webserver

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"upkeep"
	"upkeep/internal/vhost"
)

// TestLooks has comparisons asked for in the same moment as each other and as a
// change: each is answered for itself, and the change is made.
func TestLooks(t *testing.T) {
	w := newWorld(t)
	there := []vhost.Input{w.input("a.test", 1), w.input("b.test", 1)}
	w.sync(there)
	changed := w.input("a.test", 2)
	changed.Site.Aliases = []string{"also-a.test"}
	looks := map[string]func() Report{
		"50-a.test.conf": func() Report { return w.Preview(t.Context(), []vhost.Input{changed}) },
		"50-c.test.conf": func() Report { return w.Preview(t.Context(), []vhost.Input{w.input("c.test", 1)}) },
		"":               func() Report { return w.Preview(t.Context(), there[1:]) },
	}
	var parts sync.WaitGroup
	for want, look := range looks {
		parts.Go(func() {
			report := look()
			var drift []string
			for _, d := range report.Drift {
				drift = append(drift, filepath.Base(d.Path))
			}
			if report.Err != nil || want == "" && drift != nil || want != "" && !slices.Equal(drift, []string{want}) {
				t.Errorf("a look at %q: %v, %v", want, drift, report.Err)
			}
		})
	}
	made := w.input("d.test", 1)
	parts.Go(func() {
		if r := w.apply(made); r.State != upkeep.JobDone {
			t.Errorf("a change beside looks: %s: %v", r.State, r.Err)
		}
	})
	parts.Wait()
	w.answers("a.test")
	w.answers("b.test")
	w.answers("d.test")
	if status, _, _ := w.get("c.test", "/"); status != 421 {
		t.Errorf("a site that was only looked at answers %d, want 421", status)
	}
}
