package failover

import (
	"net/netip"
	"testing"
	"time"

	"upkeep"
)

func TestThinPath(t *testing.T) {
	pool := upkeep.Pool{Check: upkeep.Check{Type: "tcp"}, Members: []upkeep.Member{
		{Address: netip.MustParseAddr("192.0.2.1")}, {Address: netip.MustParseAddr("192.0.2.2")}}}.WithDefaults()
	d := NewDetector(NewParams(pool.Check))
	now := time.Unix(1e9, 0)
	d.Observe(Sample{At: now, OK: true})
	if d.Verdict() != upkeep.Up {
		t.Fatalf("verdict %v after a good sample", d.Verdict())
	}
	for i := range 6 {
		d.Observe(Sample{At: now.Add(time.Duration(i) * time.Second), Reason: "refused"})
	}
	if d.Verdict() != upkeep.Down {
		t.Fatalf("verdict %v after failures", d.Verdict())
	}
	got := Decide(PoolInput{Pool: pool, Members: []MemberInput{{Verdict: upkeep.Up}, {Verdict: upkeep.Down}}, Now: now})
	if len(got.Published) != 1 || !got.Changed {
		t.Fatalf("published %v", got.Published)
	}
}
