package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// A site is declared and answers on another machine; one that cannot be served says
// why; a thousand are declared at once. Meanwhile a neighbour is asked all the time
// and never fails.
func TestManySites(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 1)
	m, ctx := h.machines[0], context.Background()
	h.must(h.apply(ctx, upkeep.Account{Name: "acme"}, siteOn("neighbour.test", m.Name)))
	h.settled(time.Minute)
	h.live("neighbour.test")
	stop := h.visitAllTheTime(m, siteOn("neighbour.test"))

	var took []time.Duration
	for i := range 7 {
		begin, site := time.Now(), siteOn(fmt.Sprintf("one%d.test", i), m.Name)
		h.must(h.apply(ctx, site))
		testkit.Eventually(t, 30*time.Second, func() (bool, string) {
			got, err := h.ask(m, "GET", site.Name, "/", false)
			return err == nil && got.status != 421, fmt.Sprint(got, err)
		})
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	t.Logf("declared to answering on another machine: median %s, slowest %s", took[len(took)/2], took[len(took)-1])

	broken := siteOn("broken.test", m.Name)
	broken.PHP = &upkeep.PHP{}
	h.must(h.apply(ctx, broken))
	h.settled(time.Minute)
	if said := h.says("site", "show", "broken.test"); !strings.Contains(said, "broken.test is failed") || !strings.Contains(said, "names no folder for php-fpm") {
		t.Errorf("what cannot be served does not say why:\n%s", said)
	}
	h.live("neighbour.test", "one0.test")

	const n = 1000
	var objects []upkeep.Object
	for i := range n {
		objects = append(objects, siteOn(fmt.Sprintf("many%d.test", i), m.Name))
	}
	reloads := func() int { return strings.Count(m.read("var/log/apache2/error.log"), "Doing graceful restart") }
	before, begin := reloads(), time.Now()
	h.must(h.apply(ctx, objects...))
	declared := time.Since(begin)
	h.settled(5 * time.Minute)
	t.Logf("%d sites: declared after %s, all live after %s, with %d reloads", n, declared, time.Since(begin), reloads()-before)
	if done := reloads() - before; done < 1 || done > 2 {
		t.Errorf("%d reloads", done)
	}
	asked, failures := stop()
	t.Logf("the neighbour was asked %d times", asked)
	for _, failure := range failures {
		t.Error(failure)
	}
	sites, err := h.api().Sites(ctx, "acme")
	h.must(err)
	live := 0
	for _, s := range sites {
		if s.State == upkeep.SiteLive {
			live++
		}
	}
	if live != n+8 {
		t.Errorf("%d sites are live", live)
	}
	for i := 0; i < n; i += 50 {
		h.live(fmt.Sprintf("many%d.test", i))
	}
	if output, exit := h.upkeep("verify"); exit != 1 || !strings.Contains(output, "0 files not as declared, 0 of no site, 1 failure") {
		t.Errorf("verify, with one site that cannot be served: exit %d\n%s", exit, output)
	}
}

// visitAllTheTime asks for a site until it is stopped, and tells how often and what
// went wrong.
func (h *hosting) visitAllTheTime(m *machine, site upkeep.Site) (stop func() (int, []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	asked := 0
	var failures []string
	done.Go(func() {
		for ctx.Err() == nil {
			got, err := h.ask(m, "GET", site.Name, "/", false)
			asked++
			if (err != nil || got.status != 200 || got.body != page(site)) && len(failures) < 10 {
				failures = append(failures, fmt.Sprintf("at %s %s answered %+v, %v", time.Now().Format("15:04:05.000"), site.Name, got, err))
			}
			<-time.After(2 * time.Millisecond)
		}
	})
	return func() (int, []string) { cancel(); done.Wait(); return asked, failures }
}
