package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// Of a member that has never answered there is no round trip to tell.
func TestBudgetOfAMemberThatNeverAnswered(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1"))
	r.published("192.0.2.1")
	r.prober.find("192.0.2.1", 3, refused)
	detect := func() upkeep.BudgetPart {
		budget, err := r.Budget(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		return budget.Parts[0]
	}
	if why := detect().Why; !strings.Contains(why, "it has never answered") || strings.Contains(why, "round trip") {
		t.Errorf("before any answer: %s", why)
	}
	r.prober.find("192.0.2.1", 5, good)
	if why := detect().Why; !strings.Contains(why, "round trip 1ms") {
		t.Errorf("after some: %s", why)
	}
}

func TestBudgetSaysWhatWasMeasured(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	r.published("192.0.2.1 192.0.2.2")
	for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
		r.prober.find(m, 5, good)
	}
	parts := func() map[string]upkeep.BudgetPart {
		budget, err := r.Budget(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		byName := map[string]upkeep.BudgetPart{}
		for _, part := range budget.Parts {
			byName[part.Name] = part
		}
		return byName
	}
	if detect := parts()["detect"]; detect.Worst == 0 || detect.Measured != 0 {
		t.Errorf("before any removal: %+v", detect)
	}
	r.prober.find("192.0.2.2", 3, refused)
	r.published("192.0.2.1")
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		p := parts()
		return p["detect"].Measured > 0 && p["publish"].Measured > 0, fmt.Sprintf("%+v", p)
	})
	// With every member down the question is still how long the next one would take.
	r.prober.find("192.0.2.1", 3, refused)
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		status, err := r.Pool(t.Context(), "web")
		return err == nil && status.Members[0].Verdict == upkeep.Down, "not down yet"
	})
	if detect := parts()["detect"]; detect.Worst < upkeep.Duration(time.Second) {
		t.Errorf("with nobody up: %+v", detect)
	}
}
