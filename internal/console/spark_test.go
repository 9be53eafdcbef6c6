package console

import (
	"html"
	"strings"
	"testing"
	"time"

	"upkeep"
)

// Round trips are drawn where they were, with a gap where nothing answered, and within
// the drawing whatever came in late.
func TestDrawSpark(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ms := func(n int) upkeep.Duration { return upkeep.Duration(time.Duration(n) * time.Millisecond) }
	slot := func(ago int, least, median, most int) upkeep.LatencySlot {
		return upkeep.LatencySlot{At: now.Add(-time.Duration(ago) * 2 * time.Minute), Min: ms(least), Median: ms(median), Max: ms(most)}
	}
	l := upkeep.Latency{Min: ms(1), Median: ms(2), Max: ms(900), Slot: upkeep.Duration(2 * time.Minute),
		Slots: []upkeep.LatencySlot{slot(40, 1, 2, 3), slot(3, 1, 2, 2), slot(2, 1, 3, 900), slot(0, 1, 1, 1)}}
	got := drawSpark(l, now.Add(time.Minute))
	if got == nil || got.Line != "M104,15h4V13h4M116,17h4" {
		t.Fatalf("the line is %+v", got)
	}
	if got.Band != "M104,15h4V18h-4zM108,1h4V18h-4zM116,17h4V18h-4z" {
		t.Errorf("the band is %s", got.Band)
	}
	if got.Label != "round trips in the last hour: at least 1.0 ms, median 2.0 ms, at most 900.0 ms" {
		t.Errorf("it is said as %q", got.Label)
	}
	for name, none := range map[string]upkeep.Latency{"nothing": {}, "no slots": {Slot: ms(1), Max: ms(1)}, "no length": {Slots: l.Slots, Max: ms(1)}} {
		if drawn := drawSpark(none, now); drawn != nil {
			t.Errorf("of %s this is drawn: %+v", name, drawn)
		}
	}
}

// A pool's page draws each member, and says the same in words.
func TestPoolShowsRoundTrips(t *testing.T) {
	body := html.UnescapeString(get(t, handler(t, typical()), "/pools/web").Body.String())
	if n := strings.Count(body, `role="img" aria-label="round trips in the last hour: at least 0.10 ms, median 0.40 ms, at most 90.0 ms"`); n != 4 {
		t.Errorf("%d members are drawn: %s", n, body)
	}
	if body := get(t, handler(t, typical()), "/").Body.String(); strings.Contains(body, `class="spark"`) {
		t.Error("they are drawn on the first page, which many have open")
	}
}
