package watch

import (
	"fmt"
	"testing"
	"time"

	"upkeep/internal/testkit"
)

// TestNewDeadPoolHoldsUpNoOther declares a pool whose members never answer beside
// one that lives: a member that dies in the latter leaves at once, also after a
// restart, before which the dead ones had lived.
func TestNewDeadPoolHoldsUpNoOther(t *testing.T) {
	r := newRig(t)
	pool := testPool("192.0.2.1", "192.0.2.2", "192.0.2.3")
	pool.Policy.MassFailure = 0
	r.declare(testZone(), pool)
	live := func(n int, what string) {
		for i := range n {
			r.prober.find(fmt.Sprintf("192.0.2.%d", i+1), 5, good)
		}
		r.published(what)
	}
	live(3, "192.0.2.1 192.0.2.2 192.0.2.3")

	dead := testPool()
	dead.Name, dead.Records, dead.Policy = "dead", []string{"dead"}, pool.Policy
	for i := range 20 {
		dead.Members = append(dead.Members, members(fmt.Sprintf("198.51.100.%d", i+1))...)
	}
	r.declare(dead)
	die := func() {
		for _, m := range dead.Members {
			r.prober.find(m.Address.String(), 5, refused)
		}
	}
	die()
	r.prober.find("192.0.2.3", 3, refused)
	unfrozen := func(want int) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			status, err := r.Pool(t.Context(), "web")
			if err != nil {
				return false, err.Error()
			}
			return status.Frozen == "" && len(status.Published) == want, fmt.Sprintf("%v, frozen for %q", status.Published, status.Frozen)
		})
	}
	unfrozen(2)

	// They come to life, and die for good; the freeze of that is released.
	for _, m := range dead.Members {
		r.prober.find(m.Address.String(), 5, good)
	}
	r.prober.find("192.0.2.3", 5, good)
	unfrozen(3)
	die()
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		status, err := r.Pool(t.Context(), "web")
		return err == nil && status.Frozen != "", "most hosts died at once, and nothing is frozen"
	})
	if err := r.Unfreeze(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.start()
	die()
	for i := range 3 {
		r.prober.find(fmt.Sprintf("192.0.2.%d", i+1), 5, good)
	}
	r.prober.find("192.0.2.2", 3, refused)
	unfrozen(2)
}
