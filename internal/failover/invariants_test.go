package failover

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"upkeep"
)

// checkDecision returns which promise the decision breaks, nil for none.
func checkDecision(in PoolInput, d Decision) error {
	for _, check := range []func(PoolInput, Decision) error{
		checkSet, checkNeverEmpty, checkHand, checkFreeze, checkHealth, checkReasons, checkRepeat,
	} {
		if err := check(in, d); err != nil {
			return err
		}
	}
	return nil
}

// checkSet: the published set is sorted, bounded, made of members and the fixed
// set, and the members' decisions agree with it.
func checkSet(in PoolInput, d Decision) error {
	allowed, families := map[netip.Addr]bool{}, map[bool]int{}
	if in.Pool.Policy.FailOpen == upkeep.FailOpenFixed {
		for _, a := range in.Pool.Policy.Fixed {
			allowed[a] = true
		}
	}
	for i, m := range in.Pool.Members {
		allowed[m.Address] = true
		if slices.Contains(d.Published, m.Address) != d.Members[i].Published {
			return fmt.Errorf("member %s: published is %t, the set says otherwise", m.Address, d.Members[i].Published)
		}
	}
	for i, a := range d.Published {
		if !allowed[a] {
			return fmt.Errorf("%s is published, which is neither a member nor in the fixed set", a)
		}
		if i > 0 && !d.Published[i-1].Less(a) {
			return fmt.Errorf("published set is not sorted: %v", d.Published)
		}
		if families[a.Is4()]++; families[a.Is4()] > upkeep.MaxAnswer {
			return fmt.Errorf("more than %d addresses of one family", upkeep.MaxAnswer)
		}
	}
	return nil
}

// checkNeverEmpty: never an empty answer under a fail-open policy, unless every
// member of the family was taken out by hand.
func checkNeverEmpty(in PoolInput, d Decision) error {
	if in.Pool.Policy.FailOpen == upkeep.FailOpenNone {
		return nil
	}
	for _, four := range []bool{true, false} {
		available := slices.ContainsFunc(in.Pool.Members, func(m upkeep.Member) bool {
			admin := in.Members[slices.Index(in.Pool.Members, m)].Admin
			return m.Address.Is4() == four && admin != upkeep.AdminDown && admin != upkeep.AdminDrain
		})
		if available && !slices.ContainsFunc(d.Published, func(a netip.Addr) bool { return a.Is4() == four }) {
			return fmt.Errorf("empty answer (IPv4: %t) with members available: %s", four, d.Reason)
		}
	}
	return nil
}

// checkHand: what a person says holds, always.
func checkHand(in PoolInput, d Decision) error {
	for i, m := range in.Pool.Members {
		switch in.Members[i].Admin {
		case upkeep.AdminDown, upkeep.AdminDrain:
			if d.Members[i].Published {
				return fmt.Errorf("%s is published although it is %s by hand", m.Address, in.Members[i].Admin)
			}
		case upkeep.AdminUp:
			if !d.Members[i].Published && len(in.Pool.Members) <= upkeep.MaxAnswer {
				return fmt.Errorf("%s is not published although it is up by hand", m.Address)
			}
		}
	}
	return nil
}

// checkFreeze: never a removal while frozen, but by hand.
func checkFreeze(in PoolInput, d Decision) error {
	if in.Freeze == "" {
		return nil
	}
	for i, m := range in.Pool.Members {
		byHand := in.Members[i].Admin == upkeep.AdminDown || in.Members[i].Admin == upkeep.AdminDrain
		if !byHand && !d.Members[i].Published && slices.Contains(in.State.Published, m.Address) {
			return fmt.Errorf("%s was removed while frozen (%s)", m.Address, in.Freeze)
		}
	}
	return nil
}

// checkHealth: a member that is down is published only where a reason for that
// exists: a hand, a freeze, the first round, or failing open.
func checkHealth(in PoolInput, d Decision) error {
	if in.Freeze != "" || !d.State.Round {
		return nil
	}
	for i, m := range in.Pool.Members {
		open := d.State.Open4
		if m.Address.Is6() {
			open = d.State.Open6
		}
		if d.Members[i].Published && in.Members[i].Verdict == upkeep.Down && in.Members[i].Admin != upkeep.AdminUp && !open {
			return fmt.Errorf("%s is down and published: %s", m.Address, d.Reason)
		}
	}
	return nil
}

// checkReasons: no change without a recorded reason, and a reason for everything.
func checkReasons(in PoolInput, d Decision) error {
	differs := !slices.Equal(in.State.Published, d.Published) || in.State.TTL != d.TTL
	if differs != d.Changed || d.Changed != (d.Change != "") {
		return fmt.Errorf("differs %t, changed %t, change %q", differs, d.Changed, d.Change)
	}
	if d.Changed && (!d.State.ChangedAt.Equal(in.Now) || d.State.Change != d.Change) {
		return fmt.Errorf("the change is not remembered: %s %q", d.State.ChangedAt, d.State.Change)
	}
	if d.Reason == "" && len(in.Pool.Members) > 0 {
		return fmt.Errorf("no reason for the pool")
	}
	for i, m := range d.Members {
		if m.Reason == "" {
			return fmt.Errorf("no reason for member %s", in.Pool.Members[i].Address)
		}
	}
	if !d.Wake.IsZero() && !d.Wake.After(in.Now) {
		return fmt.Errorf("wakes at %s, which is %s ago", d.Wake, in.Now.Sub(d.Wake))
	}
	return nil
}

// checkRepeat: the same question asked again changes nothing, and asking does
// not change the input.
func checkRepeat(in PoolInput, d Decision) error {
	before, _ := json.Marshal(in.State)
	in.State = d.State
	again := Decide(in)
	if again.Changed {
		return fmt.Errorf("decided again, it changes: %s", again.Change)
	}
	if diff := cmp.Diff(d.Published, again.Published, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		return fmt.Errorf("decided again, the set differs:\n%s", diff)
	}
	after, _ := json.Marshal(in.State)
	if first, _ := json.Marshal(d.State); string(first) != string(after) {
		return fmt.Errorf("deciding changed its input from %s to %s (before: %s)", first, after, before)
	}
	return nil
}

// TestDecideInvariants decides on random pools through random lives.
func TestDecideInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := PoolInput{Pool: drawPool(t), Now: epoch}
		in.Members = make([]MemberInput, len(in.Pool.Members))
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			disturb(t, &in)
			d := Decide(in)
			if err := checkDecision(in, d); err != nil {
				t.Fatalf("%v\n%s", err, summary(in, d))
			}
			in.State = d.State
		}
	})
}

func summary(in PoolInput, d Decision) string {
	in.Pool.Check = upkeep.Check{}
	text, _ := json.MarshalIndent(in, "", " ")
	return fmt.Sprintf("%s\npublished %v; %s", text, d.Published, d.Reason)
}

func drawMember(t *rapid.T) upkeep.Member {
	return upkeep.Member{
		Address: rapid.SampledFrom([]netip.Addr{addr("1"), addr("2"), addr("3"), addr("4"), addr("v6:1"), addr("v6:2"), addr("v6:3")}).Draw(t, "address"),
		Backup:  rapid.IntRange(0, 3).Draw(t, "backup") == 0,
	}
}

func drawPool(t *rapid.T) upkeep.Pool {
	window := upkeep.Duration(rapid.SampledFrom([]time.Duration{0, 5 * time.Second, time.Minute}).Draw(t, "window"))
	p := upkeep.Pool{
		Name:        "web",
		Check:       upkeep.Check{Type: upkeep.CheckTCP, Port: 80},
		DegradedTTL: upkeep.Duration(rapid.SampledFrom([]time.Duration{0, 30 * time.Second}).Draw(t, "degraded")),
		Members:     rapid.SliceOfNDistinct(rapid.Custom(drawMember), 1, 6, func(m upkeep.Member) netip.Addr { return m.Address }).Draw(t, "members"),
		Policy: upkeep.Policy{
			FailOpen:        rapid.SampledFrom([]string{upkeep.FailOpenAll, upkeep.FailOpenLast, upkeep.FailOpenFixed, upkeep.FailOpenNone}).Draw(t, "fail open"),
			HealthyFraction: rapid.SampledFrom([]float64{0, 0.3, 0.5, 0.6, 1}).Draw(t, "fraction"),
			AddWindow:       &window,
			Probation:       upkeep.Duration(rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "probation")),
		},
	}
	if p.Policy.FailOpen == upkeep.FailOpenFixed {
		p.Policy.Fixed = rapid.SampledFrom([][]netip.Addr{{addr("9")}, {addr("1"), addr("v6:9")}, {addr("v6:1")}}).Draw(t, "fixed")
	}
	return p.WithDefaults()
}

// disturb lets one or more things happen.
func disturb(t *rapid.T, in *PoolInput) {
	one := rapid.IntRange(0, len(in.Members)-1).Draw(t, "who")
	switch rapid.IntRange(0, 9).Draw(t, "what") {
	case 0, 1, 2, 3:
		for range rapid.IntRange(1, 3).Draw(t, "turns") {
			i := rapid.IntRange(0, len(in.Members)-1).Draw(t, "turns")
			in.Members[i].Verdict = upkeep.Verdict(rapid.IntRange(0, 2).Draw(t, "verdict"))
			in.Members[i].Since = in.Now
		}
	case 4:
		in.Members[one].Admin = rapid.SampledFrom(append([]string{""}, upkeep.AdminStates...)).Draw(t, "admin")
	case 5:
		in.Freeze, in.FreezeFrom = "", time.Time{}
		if rapid.Bool().Draw(t, "freeze") {
			in.Freeze, in.FreezeFrom = "by the test", in.Now.Add(-rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "freeze from"))
		}
	case 6: // restart
		blob, err := json.Marshal(in.State)
		if err != nil {
			t.Fatal(err)
		}
		in.State = PoolState{}
		if err := json.Unmarshal(blob, &in.State); err != nil {
			t.Fatal(err)
		}
		for i := range in.Members {
			if rapid.Bool().Draw(t, "stale") {
				in.Members[i].Verdict = upkeep.Unknown
			}
		}
	case 7: // the clock is set back, or forth
		in.Now = in.Now.Add(rapid.SampledFrom([]time.Duration{-time.Hour, -time.Second, time.Hour}).Draw(t, "step"))
	case 8: // edit
		pool := drawPool(t)
		members := make([]MemberInput, len(pool.Members))
		for i, m := range pool.Members {
			if j := slices.IndexFunc(in.Pool.Members, func(o upkeep.Member) bool { return o.Address == m.Address }); j >= 0 {
				members[i] = in.Members[j]
			}
		}
		in.Pool, in.Members = pool, members
	}
	in.Now = in.Now.Add(rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, time.Second, 10 * time.Second, 20 * time.Minute}).Draw(t, "pass"))
}
