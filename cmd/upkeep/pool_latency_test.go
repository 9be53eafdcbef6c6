package main

import (
	"testing"
	"time"

	"upkeep"
)

// The line of bars has a place for each slot of the hour, whether anything was answered
// in it or not.
func TestBarsOfAnHour(t *testing.T) {
	const ms = upkeep.Duration(time.Millisecond)
	now := time.Date(2026, 11, 27, 12, 5, 0, 0, time.UTC)
	slot := func(ago time.Duration, median upkeep.Duration) upkeep.LatencySlot {
		return upkeep.LatencySlot{At: now.Truncate(10 * time.Minute).Add(-ago), Median: median}
	}
	for _, tt := range []struct {
		name  string
		slots []upkeep.LatencySlot
		want  string
	}{
		{"none", nil, "······"},
		{"the newest", []upkeep.LatencySlot{slot(0, ms)}, "·····█"},
		{"the oldest", []upkeep.LatencySlot{slot(50*time.Minute, ms)}, "█·····"},
		{"too old, and to come", []upkeep.LatencySlot{slot(time.Hour, ms), slot(-10*time.Minute, ms)}, "······"},
		{"growing, with a gap", []upkeep.LatencySlot{slot(30*time.Minute, 0), slot(20*time.Minute, 4*ms), slot(0, 8*ms)}, "··▁▄·█"},
	} {
		if got := bars(upkeep.Latency{Slot: upkeep.Duration(10 * time.Minute), Slots: tt.slots}, now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
