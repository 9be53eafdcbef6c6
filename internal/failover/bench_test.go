package failover

import (
	"net/netip"
	"testing"
	"time"

	"upkeep"
)

func BenchmarkObserve(b *testing.B) {
	d := NewDetector(NewParams(upkeep.Check{Type: upkeep.CheckPing}.WithDefaults()))
	at := epoch
	b.ReportAllocs()
	for range b.N {
		at = at.Add(time.Second)
		d.Observe(Sample{At: at, OK: true, RTT: time.Millisecond})
	}
}

func BenchmarkObserveLossy(b *testing.B) {
	d := NewDetector(NewParams(upkeep.Check{Type: upkeep.CheckPing}.WithDefaults()))
	at := epoch
	b.ReportAllocs()
	for i := range b.N {
		at = at.Add(time.Second)
		d.Observe(Sample{At: at, OK: i%5 != 0, RTT: time.Millisecond})
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, members := range []int{5, 10_000} {
		b.Run(map[bool]string{true: "few", false: "many"}[members < 100], func(b *testing.B) {
			in := PoolInput{Now: epoch, Pool: upkeep.Pool{Name: "web", Check: upkeep.Check{Type: upkeep.CheckPing}}.WithDefaults()}
			for i := range members {
				in.Pool.Members = append(in.Pool.Members, upkeep.Member{Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
				in.Members = append(in.Members, MemberInput{Verdict: upkeep.Up, Reason: "answers in 1ms"})
			}
			in.State = Decide(in).State
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				in.State = Decide(in).State
			}
		})
	}
}
