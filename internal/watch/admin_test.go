package watch

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// What several people force side by side all counts, in every pool that it means, and
// so does its end.
func TestForcedSideBySide(t *testing.T) {
	r := newRig(t)
	objects := []upkeep.Object{testZone()}
	const pools = 8
	for i := range pools {
		p := testPool("192.0.2.1", "192.0.2.2", "192.0.2.3")
		p.Name, p.Records = fmt.Sprint("web", i), []string{fmt.Sprint("www", i)}
		objects = append(objects, p)
	}
	r.declare(objects...)
	for _, m := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		r.prober.find(m, 5, good)
	}
	sideBySide := func(do func(pool string) error) {
		var all sync.WaitGroup
		for i := range pools {
			all.Go(func() {
				if err := do(fmt.Sprint("web", i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	everywhere := func(want ...string) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			all, err := r.Pools(t.Context())
			for _, p := range all {
				var published []string
				for _, a := range p.Published {
					published = append(published, a.String())
				}
				if !slices.Equal(published, want) {
					return false, fmt.Sprintf("%s publishes %v, want %v", p.Name, published, want)
				}
			}
			return err == nil && len(all) == pools, fmt.Sprint(len(all), err)
		})
	}
	everywhere("192.0.2.1", "192.0.2.2", "192.0.2.3")
	sideBySide(func(pool string) error {
		_, err := r.Force(t.Context(), "test", upkeep.Override{Pool: pool, Member: "192.0.2.2", State: upkeep.AdminDown}, false)
		return err
	})
	everywhere("192.0.2.1", "192.0.2.3")
	if _, err := r.Force(t.Context(), "test", upkeep.Override{Pool: "web*", Member: "*.3", State: upkeep.AdminDrain}, false); err != nil {
		t.Fatal(err)
	}
	everywhere("192.0.2.1")
	sideBySide(func(pool string) error {
		_, err := r.Release(t.Context(), "test", pool, "192.0.2.2")
		return err
	})
	everywhere("192.0.2.1", "192.0.2.2")
	if _, err := r.Release(t.Context(), "test", "web*", "*.3"); err != nil {
		t.Fatal(err)
	}
	everywhere("192.0.2.1", "192.0.2.2", "192.0.2.3")
}
