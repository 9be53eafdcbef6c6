package zone

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestNextSerial(t *testing.T) {
	now := time.Unix(1795465266, 0)
	tests := []struct {
		name   string
		served uint32
		known  bool
		now    time.Time
		want   uint32
	}{
		{"never served", 0, false, now, 1795465266},
		{"an older time", 1795465200, true, now, 1795465266},
		{"same second", 1795465266, true, now, 1795465267},
		{"clock stepped back", 1795469000, true, now, 1795469001},
		{"YYYYMMDDnn is ahead of the clock", 2026112301, true, now, 2026112302},
		{"small serial", 7, true, now, 1795465266},
		{"wrapped: the time is ahead", 4000000000, true, now, 1795465266},
		{"just out of reach of the time", 1795465266 + 1<<31, true, now, 1795465266 + 1<<31 + 1},
		{"zero is skipped", 1<<32 - 1, true, time.Unix(1<<32-1, 0), 1},
		{"zero time", 0, false, time.Unix(0, 0), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := NextSerial(tt.served, tt.known, tt.now); got != tt.want {
				t.Errorf("NextSerial(%d, %v, %d) = %d, want %d", tt.served, tt.known, tt.now.Unix(), got, tt.want)
			}
		})
	}
}

func TestNextSerialAlwaysRises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		served := rapid.Uint32().Draw(t, "served")
		now := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "now"), 0)
		next := NextSerial(served, true, now)
		if !SerialLess(served, next) || SerialLess(next, served) || next == 0 {
			t.Fatalf("NextSerial(%d, true, %d) = %d does not rise", served, now.Unix(), next)
		}
	})
}
