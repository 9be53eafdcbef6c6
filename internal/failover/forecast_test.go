package failover

import (
	"testing"
	"time"

	"upkeep"
)

// The forecast must be what then happens.
func TestTimeToDownIsWhatHappens(t *testing.T) {
	for name, c := range map[string]upkeep.Check{
		"adaptive":  {Type: upkeep.CheckTCP, Port: 80},
		"fast":      {Type: upkeep.CheckPing, Interval: upkeep.Duration(100 * time.Millisecond)},
		"no burst":  {Type: upkeep.CheckTCP, Port: 80, Burst: new(bool)},
		"counters":  {Type: upkeep.CheckTCP, Port: 80, Fall: 3, Burst: new(bool)},
		"min span":  {Type: upkeep.CheckTCP, Port: 80, MinSpan: upkeep.Duration(3 * time.Second)},
		"heartbeat": {Type: upkeep.CheckHeartbeat, KeyFile: "k", Interval: upkeep.Duration(100 * time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			c := c.WithDefaults()
			interval := time.Duration(c.Interval)
			d := NewDetector(NewParams(c))
			now := time.Unix(1e9, 0)
			step := Step{}
			for range 500 {
				now = now.Add(interval)
				step = d.Observe(Sample{At: now, OK: true, RTT: 2 * time.Millisecond})
			}
			want := d.TimeToDown(now)
			died, slot, at := now, now, now
			for step.Verdict != upkeep.Down && at.Sub(died) < time.Hour {
				for !slot.After(at) {
					slot = slot.Add(interval)
				}
				start := slot
				if soon := at.Add(step.Again); step.Again > 0 && soon.Before(slot) {
					start = soon
				}
				at = start.Add(step.Timeout)
				step = d.Observe(Sample{At: at, RTT: step.Timeout, Reason: "silent"})
			}
			if got := at.Sub(died); want == 0 || got != want {
				t.Errorf("called down after %s, forecast %s", got, want)
			}
		})
	}
}
