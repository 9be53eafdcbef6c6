package failover

import (
	"testing"
	"time"
	"unsafe"

	"upkeep"
)

var epoch = time.Unix(1_700_000_000, 0)

func TestDetectorIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Detector{}); size > 256 {
		t.Errorf("a detector takes %d bytes; there may be 100,000 of them, so at most 256 are allowed", size)
	}
}

func TestObserveDoesNotAllocate(t *testing.T) {
	d := NewDetector(NewParams(upkeep.Check{Type: upkeep.CheckPing}.WithDefaults()))
	at, i := epoch, 0
	allocated := testing.AllocsPerRun(1000, func() {
		i++
		at = at.Add(time.Second)
		d.Observe(Sample{At: at, OK: i%5 != 0 && i%500 < 400, RTT: time.Millisecond, Refused: i%7 == 0, Reason: "no answer"})
	})
	if allocated != 0 {
		t.Errorf("Observe allocates %v times per sample", allocated)
	}
}
