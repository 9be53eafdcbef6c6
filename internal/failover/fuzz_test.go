package failover

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"upkeep"
)

// FuzzDetector plays a script against a detector that was restored from
// whatever a damaged database may hold.
func FuzzDetector(f *testing.F) {
	good, err := json.Marshal(NewDetector(NewParams(upkeep.Check{Type: upkeep.CheckPing}.WithDefaults())).Snapshot())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte{0, 1, 2, 3, 4, 5, 6, 7}, uint8(0))
	f.Add([]byte(`{"verdict":"down","rtt":1e30,"variation":-1,"rtt_known":255,"loss":{"p":-3,"again":1e38,"n":65535}}`), []byte{2, 2, 2, 2, 2, 2, 0, 0, 0}, uint8(1))
	f.Add([]byte(`{"verdict":"up","since":"9999-12-31T23:59:59Z","at":"0001-01-01T00:00:00Z","fails":65535,"oks":65535,"span":-5}`), []byte{3, 9, 18, 200, 255}, uint8(2))
	f.Fuzz(func(t *testing.T, state, script []byte, kind uint8) {
		checks := []upkeep.Check{
			{Type: upkeep.CheckPing}, {Type: upkeep.CheckTCP, Port: 80, Fall: 3}, {Type: upkeep.CheckHeartbeat, Interval: upkeep.Duration(50 * time.Millisecond)},
			{Type: upkeep.CheckHTTP, MinSpan: upkeep.Duration(3 * time.Second)}, {Type: upkeep.CheckExec, Interval: upkeep.Duration(time.Hour)},
		}
		c := checks[int(kind)%len(checks)].WithDefaults()
		var s State
		if json.Unmarshal(state, &s) != nil {
			s = State{}
		}
		now := epoch
		d := Restore(NewParams(c), s, now)
		for i, b := range script {
			now = now.Add(time.Duration(b>>3) * 77 * time.Millisecond)
			switch {
			case b == 255:
				now = now.Add(-time.Hour)
			case b == 254:
				now = now.Add(1000 * upkeep.Day)
			case b == 253:
				d.Goodbye(now, "leaving")
				continue
			}
			before := d.Verdict()
			step := d.Observe(Sample{
				At: now, OK: b&3 == 0, Refused: b&3 == 1, Slow: b&3 == 2, Late: b&7 == 4, Void: b == 250,
				RTT: time.Duration(int8(b)) * time.Millisecond, Reason: "scripted",
			})
			checkStep(t, c, before, step)
			reason, next := d.Explain(now)
			if reason == "" || next == "" {
				t.Fatalf("after %d samples: explained as %q, %q", i, reason, next)
			}
		}
		blob, err := json.Marshal(d.Snapshot())
		if err != nil {
			t.Fatalf("a snapshot cannot be written down: %v", err)
		}
		var again State
		if err := json.Unmarshal(blob, &again); err != nil {
			t.Fatalf("a snapshot cannot be read: %v", err)
		}
		if rtt, loss := d.Learned(); rtt < 0 || !(loss >= 0 && loss <= 1) {
			t.Fatalf("learned a round trip of %s and a loss of %v", rtt, loss)
		}
	})
}

// FuzzDecide decides on a pool whose state is whatever a damaged database may
// hold, through a life that is scripted.
func FuzzDecide(f *testing.F) {
	f.Add([]byte(`{}`), []byte{0, 1, 2, 60, 61, 62, 120}, uint8(0))
	f.Add([]byte(`{"published":["192.0.2.1","192.0.2.77"],"open4":true,"good":["192.0.2.2"],"added_at":"9999-01-01T00:00:00Z",
		"failed":{"192.0.2.1":{"penalty":"100y","up_since":"9999-01-01T00:00:00Z"},"192.0.2.2":{"down":true,"penalty":"-5s"}},
		"removed":{"192.0.2.3":"0001-01-01T00:00:00Z"}}`), []byte{5, 6, 7, 200, 201, 255, 9}, uint8(77))
	f.Fuzz(func(t *testing.T, state, script []byte, kind uint8) {
		policy := upkeep.Policy{
			FailOpen:        []string{upkeep.FailOpenAll, upkeep.FailOpenLast, upkeep.FailOpenFixed, upkeep.FailOpenNone}[kind&3],
			HealthyFraction: float64(kind>>2&3) / 3,
		}
		if policy.FailOpen == upkeep.FailOpenFixed {
			policy.Fixed = []netip.Addr{addr("9"), addr("v6:9")}
		}
		in := PoolInput{Now: epoch, Pool: upkeep.Pool{
			Name: "web", Check: upkeep.Check{Type: upkeep.CheckTCP, Port: 80}, Policy: policy,
			Members: []upkeep.Member{{Address: addr("1")}, {Address: addr("2")}, {Address: addr("3"), Backup: kind&16 != 0}, {Address: addr("v6:1")}},
		}.WithDefaults()}
		in.Members = make([]MemberInput, len(in.Pool.Members))
		if json.Unmarshal(state, &in.State) != nil {
			in.State = PoolState{}
		}
		for _, b := range script {
			m := &in.Members[b&3]
			switch b >> 4 {
			case 15:
				in.Now = in.Now.Add(-time.Duration(b&15) * time.Hour)
			case 14:
				in.Freeze, in.FreezeFrom = "", time.Time{}
			case 13:
				in.Freeze, in.FreezeFrom = "scripted", in.Now.Add(-time.Minute)
			case 12:
				m.Admin = upkeep.AdminStates[b>>2&3]
			default:
				m.Verdict, m.Since = upkeep.Verdict(b>>2&3%3), in.Now
				if m.Verdict > upkeep.Down {
					m.Verdict = upkeep.Down
				}
				in.Now = in.Now.Add(time.Duration(b>>4) * 3 * time.Second)
			}
			d := Decide(in)
			if err := checkDecision(in, d); err != nil {
				t.Fatalf("%v\n%s", err, summary(in, d))
			}
			in.State = d.State
		}
	})
}
