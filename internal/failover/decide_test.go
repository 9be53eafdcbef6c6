package failover

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upkeep"
)

// scene is a pool in a test: its members are named by the last number of their
// address, its time moves by hand, and each decision's state goes through JSON
// on its way to the next.
type scene struct {
	t    *testing.T
	in   PoolInput
	last Decision
}

// newScene makes a pool with members written as "1 2 3 b4 v6:5 b6:6": backups
// with a b, IPv6 with a 6.
func newScene(t *testing.T, members string, policy upkeep.Policy) *scene {
	s := &scene{t: t}
	s.in.Now = epoch
	s.in.Pool = upkeep.Pool{
		Name: "web", DegradedTTL: upkeep.Duration(30 * time.Second),
		Check: upkeep.Check{Type: upkeep.CheckTCP, Port: 80}, Policy: policy,
	}
	s.members(members)
	s.in.Pool = s.in.Pool.WithDefaults()
	return s
}

func (s *scene) members(members string) *scene {
	known := map[netip.Addr]MemberInput{}
	for i, m := range s.in.Pool.Members {
		known[m.Address] = s.in.Members[i]
	}
	s.in.Pool.Members, s.in.Members = nil, nil
	for _, text := range strings.Fields(members) {
		m := upkeep.Member{Address: addr(strings.TrimPrefix(text, "b")), Backup: text[0] == 'b'}
		s.in.Pool.Members = append(s.in.Pool.Members, m)
		s.in.Members = append(s.in.Members, known[m.Address])
	}
	return s
}

func addr(name string) netip.Addr {
	if number, six := strings.CutPrefix(name, "v6:"); six {
		return netip.MustParseAddr("2001:db8::" + number)
	}
	return netip.MustParseAddr("192.0.2." + name)
}

func (s *scene) index(name string) int {
	i := slices.IndexFunc(s.in.Pool.Members, func(m upkeep.Member) bool { return m.Address == addr(name) })
	if i < 0 {
		s.t.Fatalf("no member %s", name)
	}
	return i
}

// verdict sets verdicts: set(upkeep.Up, "1", "2").
func (s *scene) set(v upkeep.Verdict, names ...string) *scene {
	for _, n := range names {
		m := &s.in.Members[s.index(n)]
		if m.Verdict != v {
			m.Verdict, m.Since, m.Reason = v, s.in.Now, "by the test"
		}
	}
	return s
}

func (s *scene) admin(state string, names ...string) *scene {
	for _, n := range names {
		s.in.Members[s.index(n)].Admin = state
	}
	return s
}

func (s *scene) pass(d time.Duration) *scene {
	s.in.Now = s.in.Now.Add(d)
	return s
}

// restart is a restart of upkeep: all that is left is what was written down.
func (s *scene) restart() *scene {
	blob, err := json.Marshal(s.in.State)
	if err != nil {
		s.t.Fatal(err)
	}
	s.in.State = PoolState{}
	if err := json.Unmarshal(blob, &s.in.State); err != nil {
		s.t.Fatal(err)
	}
	return s
}

// decide decides without demanding anything.
func (s *scene) decide() Decision {
	s.t.Helper()
	s.last = Decide(s.in)
	s.in.State = s.last.State
	return s.last
}

// want decides and demands the published set, written like members, and words
// in the reason.
func (s *scene) want(published string, words ...string) *scene {
	s.t.Helper()
	d := s.decide()
	var got, want []string
	for _, a := range d.Published {
		got = append(got, a.String())
	}
	for _, name := range strings.Fields(published) {
		want = append(want, addr(name).String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Fatalf("at %s (%s): published (-want +got):\n%s", s.in.Now.Sub(epoch), d.Reason, diff)
	}
	for _, w := range words {
		if !strings.Contains(d.Reason, w) {
			s.t.Fatalf("at %s: reason %q lacks %q", s.in.Now.Sub(epoch), d.Reason, w)
		}
	}
	return s
}

// says demands words in what is said of one member.
func (s *scene) says(name string, words ...string) *scene {
	s.t.Helper()
	m := s.last.Members[s.index(name)]
	for _, w := range words {
		if text := m.Reason + " | " + m.Next; !strings.Contains(text, w) {
			s.t.Fatalf("at %s: of %s is said %q, which lacks %q", s.in.Now.Sub(epoch), name, text, w)
		}
	}
	return s
}

func (s *scene) wakes(in time.Duration) *scene {
	s.t.Helper()
	if got := s.last.Wake.Sub(s.in.Now); got != in {
		s.t.Fatalf("at %s: wakes in %s, want %s", s.in.Now.Sub(epoch), got, in)
	}
	return s
}

func TestDecideTable(t *testing.T) {
	// Every combination of three verdicts and a policy, the round being in and
	// everything published before: u is up, d down, ? unknown.
	for _, test := range []struct {
		verdicts string
		fraction float64
		failOpen string
		want     string
	}{
		{"uuu", 0, "all", "1 2 3"},
		{"uud", 0, "all", "1 2"},
		{"udd", 0, "all", "1"},
		{"ddd", 0, "all", "1 2 3"},
		{"ddd", 0, "none", ""},
		{"ddd", 0, "fixed", "9"},
		{"ddd", 0, "last", "1 2 3"},
		{"u?d", 0, "all", "1 2"},
		{"??d", 0, "all", "1 2"},
		{"?dd", 0, "all", "1"},
		{"?dd", 0, "none", "1"},
		{"uud", 0.5, "all", "1 2"},
		{"udd", 0.5, "all", "1 2 3"}, // ceil(0.5*3) = 2
		{"udd", 0.5, "none", ""},
		{"udd", 0.5, "fixed", "9"},
		{"udd", 1.0 / 3, "all", "1"},
		{"uud", 1, "all", "1 2 3"},
		{"uuu", 1, "all", "1 2 3"},
		{"u?d", 0.5, "all", "1 2"},
	} {
		t.Run(fmt.Sprintf("%s %.2f %s", test.verdicts, test.fraction, test.failOpen), func(t *testing.T) {
			policy := upkeep.Policy{FailOpen: test.failOpen, HealthyFraction: test.fraction}
			if test.failOpen == upkeep.FailOpenFixed {
				policy.Fixed = []netip.Addr{addr("9")}
			}
			s := newScene(t, "1 2 3", policy).set(upkeep.Up, "1", "2", "3").want("1 2 3")
			for i, v := range test.verdicts {
				s.set(map[rune]upkeep.Verdict{'u': upkeep.Up, 'd': upkeep.Down, '?': upkeep.Unknown}[v], fmt.Sprint(i+1))
			}
			s.want(test.want)
		})
	}
}

func TestFractionIsNotRoundedUpByFloats(t *testing.T) {
	// 0.6*5 is 3.0000000000000004 in binary: three of five are enough.
	s := newScene(t, "1 2 3 4 5", upkeep.Policy{HealthyFraction: 0.6})
	s.set(upkeep.Up, "1", "2", "3", "4", "5").want("1 2 3 4 5")
	s.set(upkeep.Down, "4", "5").want("1 2 3")
	s.set(upkeep.Down, "3").want("1 2 3 4 5", "where the policy asks for 3")
}

func TestFirstStart(t *testing.T) {
	s := newScene(t, "1 2 3", upkeep.Policy{})
	// Nothing is known and nothing was ever published: an empty answer is the
	// worst one.
	s.want("1 2 3", "first round", "0 of 3 known").wakes(10 * time.Second)
	s.pass(time.Second).set(upkeep.Up, "1").set(upkeep.Down, "2").want("1 2 3", "2 of 3 known")
	s.pass(time.Second).set(upkeep.Down, "3").want("1")

	s = newScene(t, "1 2 b3", upkeep.Policy{}).want("1 2")
	s.set(upkeep.Up, "1", "2", "3").want("1 2")

	newScene(t, "b3", upkeep.Policy{}).want("3") // better a backup than nothing

	s = newScene(t, "1 2", upkeep.Policy{FailOpen: upkeep.FailOpenNone}).want("", "once they are known")
	s.set(upkeep.Up, "1").want("1")
	s.set(upkeep.Up, "2").want("1 2")
}

func TestFirstRoundEndsWithoutTheSilent(t *testing.T) {
	s := newScene(t, "1 2 3", upkeep.Policy{}).want("1 2 3")
	s.set(upkeep.Up, "1").set(upkeep.Down, "2").want("1 2 3")
	s.pass(10*time.Second).want("1 3").says("3", "unknown", "stays published")
}

func TestRestartKeepsThePublishedSet(t *testing.T) {
	s := newScene(t, "1 2 3", upkeep.Policy{}).set(upkeep.Up, "1", "2").set(upkeep.Down, "3").want("1 2")
	s.restart().set(upkeep.Unknown, "1", "2", "3").want("1 2", "first round", "the last published set stays")
	if s.last.Changed {
		t.Error("a restart changes what is published")
	}
	s.pass(time.Second).set(upkeep.Down, "1").want("1 2") // not before the round is in
	s.set(upkeep.Up, "2").set(upkeep.Down, "3").want("2")
	// A hand is obeyed even before.
	s.restart().set(upkeep.Unknown, "1", "2", "3").admin(upkeep.AdminUp, "3").admin(upkeep.AdminDrain, "2").want("3")
}

func TestFamiliesAreApart(t *testing.T) {
	s := newScene(t, "1 2 v6:1 v6:2", upkeep.Policy{}).set(upkeep.Up, "1", "2", "v6:1", "v6:2").want("1 2 v6:1 v6:2")
	s.set(upkeep.Down, "v6:1", "v6:2", "2").want("1 v6:1 v6:2", "IPv4: 1 of 2", "IPv6: 0 of 2 members are up: failing open")
	if !s.last.State.Open6 || s.last.State.Open4 || !s.last.Open {
		t.Errorf("open4 %t, open6 %t, open %t", s.last.State.Open4, s.last.State.Open6, s.last.Open)
	}
}

func TestBackups(t *testing.T) {
	s := newScene(t, "1 2 b3 b4", upkeep.Policy{}).set(upkeep.Up, "1", "2", "3", "4").want("1 2").says("3", "a backup, which waits")
	s.set(upkeep.Down, "1").want("2")
	s.set(upkeep.Down, "2").want("3 4", "backups are published")
	s.set(upkeep.Down, "3").want("4")
	s.set(upkeep.Up, "1").want("4", "on probation").says("1", "on probation for another 10s")
	s.pass(10 * time.Second).want("1")
	s.set(upkeep.Down, "1", "4").want("1 2 3 4", "failing open to all members")

	newScene(t, "b1 b2", upkeep.Policy{}).set(upkeep.Up, "1", "2").want("1 2", "only backups")
}

func TestAdmin(t *testing.T) {
	s := newScene(t, "1 2 3", upkeep.Policy{}).set(upkeep.Up, "1", "2").set(upkeep.Down, "3").want("1 2")
	s.admin(upkeep.AdminDown, "1").want("2").says("1", "taken down by hand", "up: by the test")
	s.admin(upkeep.AdminDrain, "1").want("2").says("1", "drained by hand", "up: by the test")
	s.admin(upkeep.AdminUp, "3").want("2 3", "1 of them by hand alone").says("3", "forced up by hand", "down: by the test")
	s.admin(upkeep.AdminAuto, "1", "3").want("1 2")
	// Never published, not even when all else is down.
	s.admin(upkeep.AdminDown, "1").set(upkeep.Down, "2").want("2 3", "0 of 2 members are up: failing open")
	s.admin(upkeep.AdminDrain, "2", "3").want("", "every member was taken out by hand: nothing is published")
	s.admin("nonsense", "2").want("2")

	s = newScene(t, "1 2", upkeep.Policy{FailOpen: upkeep.FailOpenFixed, Fixed: []netip.Addr{addr("1"), addr("9")}})
	s.set(upkeep.Up, "1", "2").want("1 2").admin(upkeep.AdminDown, "1", "2").want("9", "fixed set")
}

// TestDrainedMembersDoNotCount: taking half of a pool out by hand must not make
// the fraction rule publish the failed.
func TestDrainedMembersDoNotCount(t *testing.T) {
	s := newScene(t, "1 2 3 4", upkeep.Policy{HealthyFraction: 0.5}).set(upkeep.Up, "1", "2", "3", "4").want("1 2 3 4")
	s.admin(upkeep.AdminDrain, "1", "2").set(upkeep.Down, "3").want("4")
}

func TestFailOpenSets(t *testing.T) {
	// last: the set published while enough were up.
	s := newScene(t, "1 2 3", upkeep.Policy{FailOpen: upkeep.FailOpenLast}).set(upkeep.Up, "1", "2", "3").want("1 2 3")
	s.set(upkeep.Down, "1").want("2 3").restart().want("2 3")
	s.set(upkeep.Down, "2", "3").want("2 3", "last good set")
	s.admin(upkeep.AdminDown, "2").want("3")
	s.members("1")
	s.want("1") // none of the good ones is left
}

func TestFailOpenEndsWhenSteady(t *testing.T) {
	s := newScene(t, "1 2 3", upkeep.Policy{}).set(upkeep.Up, "1", "2", "3").want("1 2 3")
	s.set(upkeep.Down, "1", "2", "3").want("1 2 3", "failing open")
	// A lone member that comes and goes does not pull the others in and out.
	s.pass(time.Second).set(upkeep.Up, "1").want("1 2 3", "not all of them for 10s").wakes(10 * time.Second)
	s.pass(5*time.Second).set(upkeep.Down, "1").want("1 2 3")
	s.pass(5*time.Second).set(upkeep.Up, "1").want("1 2 3")
	s.pass(10*time.Second).want("1", "1 of 3 members are up")

	// With fail_open: none there is no set to stay with.
	s = newScene(t, "1 2", upkeep.Policy{FailOpen: upkeep.FailOpenNone}).set(upkeep.Up, "1", "2").want("1 2")
	s.set(upkeep.Down, "1", "2").want("").set(upkeep.Up, "1").want("1", "waived")
}

func TestProbationDoublesAndDecays(t *testing.T) {
	s := newScene(t, "1 2", upkeep.Policy{}).set(upkeep.Up, "1", "2").want("1 2")
	for _, probation := range []time.Duration{10 * time.Second, 19900 * time.Millisecond} {
		s.set(upkeep.Down, "2").want("1").pass(time.Second).set(upkeep.Up, "2").want("1")
		wait := s.last.Wake.Sub(s.in.Now)
		if wait < probation-time.Second || wait > probation+time.Second {
			t.Fatalf("probation of %s, want about %s", wait, probation)
		}
		s.pass(wait - time.Second).want("1").pass(time.Second).want("1 2")
	}
	for range 20 { // up to the most
		s.set(upkeep.Down, "2").want("1").pass(time.Second).set(upkeep.Up, "2").want("1").pass(s.last.Wake.Sub(s.in.Now)).want("1 2")
	}
	s.set(upkeep.Down, "2").want("1").pass(time.Second).set(upkeep.Up, "2").want("1")
	if wait := s.last.Wake.Sub(s.in.Now); wait > 10*time.Minute || wait < 9*time.Minute {
		t.Fatalf("probation of %s after many failures", wait)
	}
	// Six half-lives later all is forgotten but for a rest below the first.
	s.pass(70 * time.Minute).want("1 2")
	if len(s.last.State.Failed) != 0 {
		t.Errorf("still held against it: %v", s.last.State.Failed)
	}
}

func TestProbationSurvivesRestartAndClock(t *testing.T) {
	s := newScene(t, "1 2", upkeep.Policy{}).set(upkeep.Up, "1", "2").want("1 2").set(upkeep.Down, "2").want("1")
	s.pass(time.Second).set(upkeep.Up, "2").want("1").pass(4 * time.Second).restart().want("1").wakes(6 * time.Second)
	s.pass(-time.Hour) // the clock is set back: probation starts anew, no more
	s.want("1").wakes(10 * time.Second)
	s.pass(10 * time.Second).want("1 2")
}

func TestProbationIsWaivedForTheLast(t *testing.T) {
	s := newScene(t, "1 2", upkeep.Policy{}).set(upkeep.Up, "1", "2").want("1 2").set(upkeep.Down, "2").want("1")
	s.set(upkeep.Up, "2").want("1").pass(time.Second).set(upkeep.Down, "1").want("2", "waived")
}

func TestAddWindow(t *testing.T) {
	s := newScene(t, "1 2 3 4", upkeep.Policy{}).set(upkeep.Up, "1").set(upkeep.Down, "2", "3", "4").want("1")
	s.pass(time.Minute)
	s.set(upkeep.Up, "2").pass(time.Second).set(upkeep.Up, "3").pass(time.Second).set(upkeep.Up, "4").want("1")
	s.pass(8 * time.Second).want("1 2")
	s.pass(time.Second).want("1 2").says("3", "waits for the next add window").wakes(time.Second)
	s.pass(time.Second).want("1 2").wakes(3 * time.Second)
	s.pass(3 * time.Second).want("1 2 3 4") // as a group
}

func TestRemovalCarriesAdditions(t *testing.T) {
	s := newScene(t, "1 2 3 4", upkeep.Policy{}).set(upkeep.Up, "1", "4").set(upkeep.Down, "2", "3").want("1 4").pass(time.Minute)
	s.set(upkeep.Up, "2").pass(time.Second).set(upkeep.Up, "3").want("1 4").pass(9 * time.Second).want("1 2 4")
	s.pass(time.Second).want("1 2 4")                       // 3 waits for the window
	s.pass(time.Second).set(upkeep.Down, "4").want("1 2 3") // but something is published now anyway
}

func TestEditedPool(t *testing.T) {
	s := newScene(t, "1 2", upkeep.Policy{}).set(upkeep.Up, "1", "2").want("1 2").pass(time.Minute)
	s.members("2 3")
	s.want("2").says("3", "waits until it is known") // 1 leaves at once
	if !strings.Contains(s.last.Change, "192.0.2.1 (it is no member any more)") {
		t.Errorf("change %q", s.last.Change)
	}
	s.set(upkeep.Up, "3").want("2 3")
	s.members("4 5")
	s.want("4 5", "failing open") // nothing known is left
	s.set(upkeep.Up, "4").set(upkeep.Down, "5").want("4")
	s.members("4 b6")
	s.want("4")
}

// TestReplacedMembers: new members in the place of all that was published leave
// no gap, not even where the policy is to publish nothing rather than the dead.
func TestReplacedMembers(t *testing.T) {
	s := newScene(t, "1", upkeep.Policy{FailOpen: upkeep.FailOpenNone}).set(upkeep.Up, "1").want("1").pass(time.Minute)
	s.members("3 4")
	s.want("3 4").says("3", "replaces what was published")
	s.want("3 4").says("3", "stays published until it is known")
	s.set(upkeep.Down, "4").want("3")
	s.set(upkeep.Down, "3").want("", "fail_open: none")
	if s.last.Next != "1 member up would be published" {
		t.Errorf("next: %s", s.last.Next)
	}
	s.members("5")
	s.want("") // nothing was published that it could replace

	s = newScene(t, "1 2", upkeep.Policy{FailOpen: upkeep.FailOpenNone}).set(upkeep.Up, "1").set(upkeep.Down, "2").want("1")
	s.members("2 3")
	s.want("3").says("2", "down")
	s.members("3 4")
	s.want("3").says("4", "waits until it is known")

	s = newScene(t, "1", upkeep.Policy{FailOpen: upkeep.FailOpenNone}).set(upkeep.Up, "1").want("1")
	s.restart().set(upkeep.Unknown, "1").want("1")
	s.members("2")
	s.want("2", "first round") // before the round is in
}

func TestPolicyChangeTakesEffect(t *testing.T) {
	s := newScene(t, "1 2 3", upkeep.Policy{}).set(upkeep.Up, "1", "2", "3").want("1 2 3").set(upkeep.Down, "2", "3").want("1")
	s.in.Pool.Policy.HealthyFraction = 0.5
	s.want("1 2 3", "failing open")
	s.in.Pool.Policy.HealthyFraction = 0
	s.want("1")
}

func TestFreeze(t *testing.T) {
	s := newScene(t, "1 2 3 4", upkeep.Policy{}).set(upkeep.Up, "1", "2", "3").set(upkeep.Down, "4").want("1 2 3").pass(time.Minute)
	cause := s.in.Now
	s.pass(time.Second).set(upkeep.Down, "1").want("2 3") // the freeze comes too late for 1
	s.in.Freeze, s.in.FreezeFrom = "no anchor answers", cause
	s.set(upkeep.Down, "2", "3").want("1 2 3", "frozen", "no anchor answers").says("1", "published again because the pool is frozen")
	s.set(upkeep.Up, "4").want("1 2 3") // nothing is added either
	s.restart().want("1 2 3")
	// A hand is obeyed.
	s.admin(upkeep.AdminDown, "1").want("2 3").admin(upkeep.AdminUp, "4").want("2 3 4")
	s.admin(upkeep.AdminAuto, "4").want("2 3 4").admin(upkeep.AdminDown, "4").want("2 3")
	s.members("1 2 4").want("2")
	// And when that leaves nothing: those that are up, else the fail-open set.
	s.admin(upkeep.AdminDown, "2").admin(upkeep.AdminAuto, "4").want("4")
	s.set(upkeep.Down, "4").admin(upkeep.AdminAuto, "1").want("4")
	s.admin(upkeep.AdminDown, "4").want("1", "frozen")
	s.admin(upkeep.AdminDown, "1").want("", "by hand")
}

func TestFreezeHoldsNothingAgainstMembers(t *testing.T) {
	s := newScene(t, "1 2", upkeep.Policy{}).set(upkeep.Up, "1", "2").want("1 2")
	s.in.Freeze = "cut off"
	s.set(upkeep.Down, "1", "2").want("1 2").pass(time.Minute).set(upkeep.Up, "1", "2").want("1 2")
	s.in.Freeze = ""
	s.want("1 2")
	if len(s.last.State.Failed) > 0 {
		t.Errorf("held against members: %v", s.last.State.Failed)
	}
}

func TestFreezeTakesBackNoOldRemoval(t *testing.T) {
	s := newScene(t, "1 2 3", upkeep.Policy{}).set(upkeep.Up, "1", "2", "3").want("1 2 3").set(upkeep.Down, "1").want("2 3")
	s.pass(time.Minute)
	s.in.Freeze, s.in.FreezeFrom = "cut off", s.in.Now.Add(-time.Second)
	s.want("2 3")
}

func TestTTL(t *testing.T) {
	s := newScene(t, "1 2", upkeep.Policy{}).set(upkeep.Up, "1", "2").want("1 2")
	ttl := func(want time.Duration) {
		t.Helper()
		if got := time.Duration(s.last.TTL); got != want {
			t.Fatalf("TTL %s, want %s", got, want)
		}
	}
	ttl(time.Minute)
	s.set(upkeep.Down, "1").want("2")
	ttl(30 * time.Second)
	s.in.Freeze = "cut off"
	s.want("2")
	ttl(30 * time.Second)
	s.in.Freeze = ""
	s.set(upkeep.Up, "1").want("2")
	ttl(time.Minute)
	if !s.last.Changed || !strings.Contains(s.last.Change, "TTL changed from 30s to 1m") {
		t.Errorf("changed %t: %q", s.last.Changed, s.last.Change)
	}
	s.set(upkeep.Down, "1").admin(upkeep.AdminDrain, "1").want("2") // a hand is no degradation
	ttl(time.Minute)
}

func TestMaxAnswer(t *testing.T) {
	var names []string
	for i := range 150 {
		names = append(names, fmt.Sprint(i+1))
	}
	s := newScene(t, strings.Join(names, " "), upkeep.Policy{}).set(upkeep.Up, names...)
	before := s.decide().Published
	if len(before) != upkeep.MaxAnswer {
		t.Fatalf("%d addresses published", len(before))
	}
	left := slices.IndexFunc(s.last.Members, func(m MemberDecision) bool { return !m.Published })
	if !strings.Contains(s.last.Members[left].Reason, "100 addresses at one name is the most") {
		t.Errorf("left out because %q", s.last.Members[left].Reason)
	}
	s.pass(time.Minute)
	if s.decide(); s.last.Changed {
		t.Error("the choice is not stable")
	}
	// One leaves, one of those left out steps in at the same time.
	gone := before[0]
	for i, m := range s.in.Pool.Members {
		if m.Address == gone {
			s.in.Members[i].Verdict = upkeep.Down
		}
	}
	after := s.decide().Published
	if len(after) != upkeep.MaxAnswer || slices.Contains(after, gone) {
		t.Errorf("%d published, the dead one among them: %t", len(after), slices.Contains(after, gone))
	}
	for _, a := range before[1:] {
		if !slices.Contains(after, a) {
			t.Errorf("%s was dropped although it is up", a)
		}
	}
}

func TestDecideSurvivesOddInput(t *testing.T) {
	for name, in := range map[string]PoolInput{
		"zero":             {},
		"members missing":  {Pool: upkeep.Pool{Members: []upkeep.Member{{Address: addr("1")}, {Address: addr("1")}, {}}}.WithDefaults()},
		"members too many": {Members: make([]MemberInput, 3)},
	} {
		t.Run(name, func(t *testing.T) { Decide(in) })
	}
}

// Members that are up and not in DNS yet must not read as a contradiction.
func TestReasonNamesProbation(t *testing.T) {
	s := newScene(t, "1 2 3", upkeep.Policy{}).set(upkeep.Up, "1", "2", "3").want("1 2 3")
	if r := s.last.Reason; r != "3 of 3 members are up" {
		t.Errorf("reason %q", r)
	}
	s.set(upkeep.Down, "1", "2").want("3")
	s.set(upkeep.Up, "1").want("3", "2 of 3 members are up, 1 of them on probation for another 10s")
	s.pass(3*time.Second).set(upkeep.Up, "2").want("3", "3 of 3 members are up, 2 of them on probation, the first for another 7s")
	s.pass(7*time.Second).want("1 3", "3 of 3 members are up, 1 of them on probation for another 3s")
}
