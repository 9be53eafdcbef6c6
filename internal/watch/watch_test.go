package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/probe"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
	"upkeep/internal/zone"
)

// prober stands in for the engine: tests say what probes find.
type prober struct {
	mu     sync.Mutex
	specs  map[probe.Key]probe.Spec
	kicked []probe.Key
}

func (p *prober) Set(specs map[probe.Key]probe.Spec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.specs = specs
}

func (p *prober) Preflight(c upkeep.Check) error { return nil }

func (p *prober) Kick(keys ...probe.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kicked = append(p.kicked, keys...)
}

// find reports what a probe of target found, n times in a row, a millisecond apart.
func (p *prober) find(target string, n int, r probe.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, spec := range p.specs {
		if spec.Target != target {
			continue
		}
		for range n {
			r.At = time.Now()
			spec.Observe(r)
		}
	}
}

// publisher keeps what was published.
type publisher struct {
	mu     sync.Mutex
	serial uint32
	last   zone.Content
	fail   error
	tries  int
}

func (p *publisher) Publish(_ context.Context, c zone.Content) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	if p.fail != nil {
		return 0, p.fail
	}
	p.serial++
	p.last = c
	return p.serial, nil
}

func (p *publisher) Close() error { return nil }

func (p *publisher) calls() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tries
}

func (p *publisher) addresses() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, set := range p.last.Sets {
		for _, a := range set.Addresses {
			all = append(all, a.String())
		}
	}
	return strings.Join(all, " ")
}

// rig is a watch on a real store with probes and publishing in the test's hand.
type rig struct {
	*Watch
	t         *testing.T
	prober    *prober
	publisher *publisher
	real      PublisherFunc // makes publishers in place of the one above; nil for that one
	db        string
	stop      func()
}

func newRig(t *testing.T) *rig { return newRigWith(t, nil) }

func newRigWith(t *testing.T, publishers PublisherFunc) *rig {
	r := &rig{real: publishers, t: t, prober: &prober{}, publisher: &publisher{}, db: "sqlite:" + filepath.Join(t.TempDir(), "upkeep.db")}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) start() {
	r.t.Helper()
	kept, err := store.Open(r.t.Context(), r.db)
	if err != nil {
		r.t.Fatal(err)
	}
	publishers := r.real
	if publishers == nil {
		publishers = func(*Watch, upkeep.Zone, upkeep.Publisher) (zone.Publisher, error) { return r.publisher, nil }
	}
	r.Watch, err = New(r.t.Context(), Config{
		Store: kept, Prober: r.prober, Log: slog.New(slog.DiscardHandler), Publisher: publishers,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		if err := kept.Close(); err != nil {
			r.t.Errorf("closing the store: %v", err)
		}
	})
}

func (r *rig) declare(objects ...upkeep.Object) {
	r.t.Helper()
	if _, err := r.Apply(r.t.Context(), "test", objects, false); err != nil {
		r.t.Fatal(err)
	}
}

// published waits until DNS is made to answer with the addresses.
func (r *rig) published(want string) {
	r.t.Helper()
	testkit.Eventually(r.t, 10*time.Second, func() (bool, string) {
		got := r.publisher.addresses()
		return got == want, "published: " + got + ", want: " + want
	})
}

func members(addresses ...string) []upkeep.Member {
	var all []upkeep.Member
	for _, a := range addresses {
		all = append(all, upkeep.Member{Address: netip.MustParseAddr(a)})
	}
	return all
}

func testZone() upkeep.Zone {
	return upkeep.Zone{Name: "example.test", Publishers: []upkeep.Publisher{{Type: upkeep.PublishTransfer}}}
}

func testPool(addresses ...string) upkeep.Pool {
	window := upkeep.Duration(0)
	return upkeep.Pool{
		Name: "web", Zones: []string{"example.test"}, Records: []string{"www"}, Members: members(addresses...),
		Check:  upkeep.Check{Type: upkeep.CheckTCP, Port: 80, Fall: 3, Rise: 2},
		Policy: upkeep.Policy{AddWindow: &window, Probation: upkeep.Duration(time.Millisecond), MassFailure: 1},
	}
}

var (
	good    = probe.Result{OK: true, RTT: time.Millisecond}
	refused = probe.Result{Refused: true, Reason: "connection refused"}
)

func TestDeadMemberLeavesAndReturns(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	r.published("192.0.2.1 192.0.2.2") // nothing known yet: nobody is left out
	for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
		r.prober.find(m, 5, good)
	}
	r.prober.find("192.0.2.2", 3, refused)
	r.published("192.0.2.1")
	status, err := r.Pool(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if m := status.Members[1]; m.Verdict != upkeep.Down || m.Published || !strings.Contains(m.Reason, "connection refused") {
		t.Errorf("the dead member is shown as %+v", m)
	}
	r.prober.find("192.0.2.2", 5, good)
	r.published("192.0.2.1 192.0.2.2")
}

func TestRestartKeepsWhatWasPublished(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
		r.prober.find(m, 5, good)
	}
	r.prober.find("192.0.2.2", 3, refused)
	r.published("192.0.2.1")
	r.stop()
	r.publisher.last = zone.Content{}
	r.start()
	r.published("192.0.2.1") // the last set stands until a round of checks is in
}

// TestAskedBeforeTheFirstRound asks a monitor that has just started: it tells of
// what is published, and takes nobody for drained.
func TestAskedBeforeTheFirstRound(t *testing.T) {
	r := newRig(t)
	pool := testPool("192.0.2.1", "192.0.2.2")
	pool.TTL = upkeep.Duration(42 * time.Second)
	r.declare(testZone(), pool)
	for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
		r.prober.find(m, 5, good)
	}
	r.published("192.0.2.1 192.0.2.2")
	r.stop()
	kept, err := store.Open(t.Context(), r.db)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(t.Context(), Config{
		Store: kept, Prober: r.prober, Log: slog.New(slog.DiscardHandler),
		Publisher: func(*Watch, upkeep.Zone, upkeep.Publisher) (zone.Publisher, error) { return r.publisher, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	status, err := w.Pool(t.Context(), "web")
	if err != nil || len(status.Published) != 2 || status.TTL != pool.TTL || !status.Members[0].Published {
		t.Errorf("got %+v, %v", status, err)
	}
	if done, waiting, err := w.Drained(t.Context(), "web", "192.0.2.1"); err != nil || done {
		t.Errorf("drained: %t, %s, %v", done, waiting, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := errors.Join(w.Run(ctx), kept.Close()); err != nil {
		t.Error(err)
	}
}

func TestAdminStateIsALayer(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
		r.prober.find(m, 5, good)
	}
	members, err := r.Force(t.Context(), "test", upkeep.Override{Pool: "web", Member: "*.2", State: upkeep.AdminDown}, false)
	if err != nil || !slices.Equal(members, []string{"web/192.0.2.2"}) {
		t.Fatalf("Force: %v, %v", members, err)
	}
	r.published("192.0.2.1")
	status, err := r.Pool(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if m := status.Members[1]; m.Admin != upkeep.AdminDown || m.Verdict != upkeep.Up {
		t.Errorf("admin %s, verdict %s; want down over a real verdict of up", m.Admin, m.Verdict)
	}
	if _, err := r.Release(t.Context(), "test", "web", "*.2"); err != nil {
		t.Fatal(err)
	}
	r.published("192.0.2.1 192.0.2.2")
	if _, err := r.Force(t.Context(), "test", upkeep.Override{Pool: "web", Member: "198.51.100.*", State: upkeep.AdminDown}, false); err == nil {
		t.Error("a pattern without a member was accepted")
	}
}

// The last member that is up is taken out on a person's word only: the pool would
// fail open to those that are down.
func TestLastMemberThatIsUp(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2", "192.0.2.3"))
	drain := func(member string, all bool) error {
		_, err := r.Force(t.Context(), "test", upkeep.Override{Pool: "web", Member: member, State: upkeep.AdminDrain}, all)
		return err
	}
	r.prober.find("192.0.2.1", 5, good)
	r.published("192.0.2.1 192.0.2.2 192.0.2.3") // of the others nothing is known
	if err := drain("192.0.2.1", false); err != nil {
		t.Errorf("with others of which nothing is known: %v", err)
	}
	if _, err := r.Release(t.Context(), "test", "web", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"192.0.2.2", "192.0.2.3"} {
		r.prober.find(m, 20, refused)
	}
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		status, err := r.Pool(t.Context(), "web")
		return err == nil && status.Members[0].Verdict == upkeep.Up && status.Members[1].Verdict == upkeep.Down && status.Members[2].Verdict == upkeep.Down,
			fmt.Sprintf("%+v, %v", status.Members, err)
	})
	if err := drain("192.0.2.1", false); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "every other member of pool web is down") {
		t.Errorf("with others that are down: %v", err)
	}
	if err := drain("192.0.2.2", false); err != nil {
		t.Errorf("one that is down: %v", err)
	}
	if err := drain("192.0.2.1", true); err != nil {
		t.Errorf("where it is meant: %v", err)
	}
}

func TestDrainWaitsForTheOldTTL(t *testing.T) {
	r := newRig(t)
	pool := testPool("192.0.2.1", "192.0.2.2")
	pool.TTL = upkeep.Duration(time.Second)
	r.declare(testZone(), pool)
	for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
		r.prober.find(m, 5, good)
	}
	r.published("192.0.2.1 192.0.2.2")
	if _, err := r.Force(t.Context(), "test", upkeep.Override{Pool: "web", Member: "192.0.2.1", State: upkeep.AdminDrain}, false); err != nil {
		t.Fatal(err)
	}
	began, said := time.Now(), map[string]bool{}
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		done, waiting, err := r.Drained(t.Context(), "web", "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		said[strings.SplitN(waiting, " ", 2)[0]] = true
		return done, waiting
	})
	if time.Since(began) < time.Second || !said["caches"] {
		t.Errorf("drained after %s, having said %v; the TTL is 1s", time.Since(began), said)
	}
}

func TestSuspicionAsksOthersAtOnce(t *testing.T) {
	r := newRig(t)
	pool := testPool("192.0.2.1", "192.0.2.2")
	pool.Policy.Anchors = []netip.Addr{netip.MustParseAddr("192.0.2.254")}
	r.declare(testZone(), pool)
	for _, m := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.254"} {
		r.prober.find(m, 50, good)
	}
	r.prober.find("192.0.2.2", 1, probe.Result{Reason: "no answer"})
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		r.prober.mu.Lock()
		defer r.prober.mu.Unlock()
		return slices.Contains(r.prober.kicked, probe.KeyOf("192.0.2.254", anchorCheck())), "the anchor was not asked"
	})
}

func TestApplyIsAllOrNothing(t *testing.T) {
	r := newRig(t)
	pool := testPool("192.0.2.1")
	pool.Zones = []string{"nowhere.test"}
	if _, err := r.Apply(t.Context(), "test", []upkeep.Object{testZone(), pool}, false); err == nil {
		t.Fatal("a pool in a zone that is not declared was accepted")
	}
	if objects, err := r.Objects(t.Context(), "", ""); err != nil || len(objects) != 0 {
		t.Fatalf("after a refused apply: %v, %v; want nothing", objects, err)
	}
	r.declare(testZone(), testPool("192.0.2.1"))
	again, err := r.Apply(t.Context(), "test", []upkeep.Object{testZone(), testPool("192.0.2.1")}, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range again.Changes {
		if c.Action != store.Unchanged || c.Generation != 1 {
			t.Errorf("applied twice: %+v", c)
		}
	}
	if err := r.Delete(t.Context(), "test", store.Ref{Kind: upkeep.KindZone, Name: "example.test"}); err == nil {
		t.Error("a zone that a pool uses was deleted")
	}
}

func TestDeleteIsAllOrNothing(t *testing.T) {
	r := newRig(t)
	other := testPool("192.0.2.2")
	other.Name, other.Records = "other", []string{"other"}
	r.declare(testZone(), testPool("192.0.2.1"), other)
	r.published("192.0.2.2 192.0.2.1")
	zone, web := store.Ref{Kind: upkeep.KindZone, Name: "example.test"}, store.Ref{Kind: upkeep.KindPool, Name: "web"}
	absent := store.Ref{Kind: upkeep.KindPool, Name: "absent"}
	var invalid *upkeep.InvalidError
	if err := r.Delete(t.Context(), "test", zone, web); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), "pool other still uses example.test") {
		t.Errorf("a zone that a pool uses: %v", err)
	}
	if err := r.Delete(t.Context(), "test", web, absent); !errors.Is(err, upkeep.ErrNotFound) || !strings.Contains(err.Error(), "pool absent") {
		t.Errorf("one that is not declared: %v", err)
	}
	if err := r.Delete(t.Context(), "test", web, web); !errors.As(err, &invalid) {
		t.Errorf("one given twice: %v", err)
	}
	if objects, err := r.Objects(t.Context(), "", ""); err != nil || len(objects) != 3 {
		t.Fatalf("after refused deletions: %v, %v; want all three", objects, err)
	}
	if err := r.Delete(t.Context(), "test", zone, web, store.RefOf(other)); err != nil {
		t.Fatal(err)
	}
	if objects, err := r.Objects(t.Context(), "", ""); err != nil || len(objects) != 0 {
		t.Errorf("after a deletion of all: %v, %v; want nothing", objects, err)
	}
}

func TestFailingPublisherIsReportedOnceAndRetried(t *testing.T) {
	r := newRig(t)
	r.publisher.fail = upkeep.WithHint(errors.New("disk full"), "make room")
	r.declare(testZone(), testPool("192.0.2.1"))
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		zones, err := r.Zones(t.Context())
		if err != nil || len(zones) != 1 {
			return false, "no zone"
		}
		p := zones[0].Publishers[0]
		return p.Error == "disk full" && p.Hint == "make room", p.Error
	})
	r.publisher.mu.Lock()
	r.publisher.fail = nil
	r.publisher.mu.Unlock()
	r.published("192.0.2.1")
	events, err := r.Events(t.Context(), store.EventFilter{Kind: upkeep.EventPublish})
	if err != nil {
		t.Fatal(err)
	}
	failures := 0
	for _, e := range events {
		if strings.Contains(e.What, "did not succeed") && strings.Contains(e.Why, "disk full") {
			failures++
		}
	}
	if failures != 1 {
		t.Errorf("the same failure was reported %d times: %+v", failures, events)
	}
}

// Content that is offered while older content is being proven must be proven
// in its turn: the proof of the older one says nothing of it.
func TestProofBelongsToItsContent(t *testing.T) {
	z := &zoneRun{
		w: &Watch{cfg: Config{Now: time.Now}, zones: map[string]*zoneRun{}}, fresh: make(chan struct{}),
		spec: testZone(), alarmed: map[string]bool{},
	}
	older := zone.Content{Zone: testZone()}
	z.offer(older)
	fresh := z.fresh
	z.offer(zone.Content{Zone: testZone(), Sets: []zone.AddressSet{{Owner: "www"}}})
	z.prove(t.Context(), older, fresh, true, time.Second)
	if !z.proven.IsZero() {
		t.Error("newer content counts as proven by the proof of older content")
	}
}

// A lag belongs to the content that is published now: none stands beside a
// server that is not in step, and each change has one of its own.
func TestLagIsOfTheLatestContent(t *testing.T) {
	z := &zoneRun{
		w: &Watch{cfg: Config{Now: time.Now}}, fresh: make(chan struct{}), spec: testZone(),
		alarmed: map[string]bool{}, seen: make([]time.Time, 1), lost: make([]time.Time, 1),
	}
	z.status.Servers = []upkeep.ServerStatus{{Address: "192.0.2.53:53"}}
	see := func(inSync bool, lag, want time.Duration) {
		t.Helper()
		z.noteServer(t.Context(), 0, upkeep.ServerStatus{InSync: inSync}, lag)
		if got := time.Duration(z.status.Servers[0].Lag); got != want {
			t.Errorf("a lag of %s; want %s", got, want)
		}
	}
	z.asOf = time.Unix(1, 0)
	see(false, time.Millisecond, 0)
	see(true, 5*time.Millisecond, 5*time.Millisecond)
	see(true, time.Minute, 5*time.Millisecond) // it is asked again from time to time
	z.asOf = time.Unix(2, 0)
	see(true, 2*time.Millisecond, 2*time.Millisecond)
	z.asOf = time.Unix(3, 0)
	see(false, time.Second, 0)
	see(true, 2*time.Second, 2*time.Second)
}

// A name server that does not answer is reported in time, also by rounds of proof
// that each end sooner than that.
func TestAlarmSpansRounds(t *testing.T) {
	r := newRig(t)
	now := time.Unix(1000, 0)
	z := &zoneRun{
		w: &Watch{cfg: Config{Now: func() time.Time { return now }, Meter: r.cfg.Meter}, ledger: r.ledger, log: r.log, events: r.events}, fresh: make(chan struct{}), spec: testZone(),
		alarmed: map[string]bool{}, seen: make([]time.Time, 1), lost: make([]time.Time, 1),
	}
	z.status.Servers = []upkeep.ServerStatus{{Address: "192.0.2.53:53"}}
	alarms := func() (n int) {
		t.Helper()
		events, err := r.Events(t.Context(), store.EventFilter{Kind: upkeep.EventProof})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if strings.Contains(e.What, "does not answer") {
				n++
			}
		}
		return n
	}
	for round := range 5 { // of four seconds each
		for range 4 {
			z.noteServer(t.Context(), 0, upkeep.ServerStatus{Error: "no answer"}, time.Second)
			now = now.Add(time.Second)
		}
		want := 0
		if round >= 2 {
			want = 1
		}
		if got := alarms(); got != want {
			t.Fatalf("%d alarms after round %d; want %d", got, round, want)
		}
	}
	z.noteServer(t.Context(), 0, upkeep.ServerStatus{InSync: true}, 0)
	z.noteServer(t.Context(), 0, upkeep.ServerStatus{Error: "no answer"}, time.Second)
	if got := alarms(); got != 1 {
		t.Errorf("%d alarms after it was back for a moment", got)
	}
}

// TestDrainWaitsForTheTTLThatWasServed lowers the TTL before a drain: what caches
// hold goes by the one that the address was answered with, also after a restart.
func TestDrainWaitsForTheTTLThatWasServed(t *testing.T) {
	r := newRig(t)
	pool := testPool("192.0.2.1", "192.0.2.2")
	pool.TTL = upkeep.Duration(time.Hour)
	r.declare(testZone(), pool)
	for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
		r.prober.find(m, 5, good)
	}
	r.published("192.0.2.1 192.0.2.2")
	ttl := func(want time.Duration) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			r.publisher.mu.Lock()
			defer r.publisher.mu.Unlock()
			got := r.publisher.last.Sets[0].TTL
			return got == want, "the TTL is " + got.String()
		})
	}
	ttl(time.Hour)
	pool.TTL = upkeep.Duration(time.Second)
	r.declare(pool)
	ttl(time.Second)
	if _, err := r.Force(t.Context(), "test", upkeep.Override{Pool: "web", Member: "192.0.2.1", State: upkeep.AdminDrain}, false); err != nil {
		t.Fatal(err)
	}
	r.published("192.0.2.2")
	held := func() {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			done, waiting, err := r.Drained(t.Context(), "web", "192.0.2.1")
			if err != nil || done {
				t.Fatalf("drained while caches hold the address for an hour: %v", err)
			}
			return strings.Contains(waiting, "by the earlier TTL of 1h"), waiting
		})
	}
	held()
	r.stop()
	r.start()
	held()
}

// TestNothingPublishedIsNotProven has a zone that nobody answers for and whose
// publisher fails: there is no proof, and nobody is drained by it.
func TestNothingPublishedIsNotProven(t *testing.T) {
	r := newRig(t)
	r.publisher.fail = errors.New("upkeep answers no DNS here")
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
		r.prober.find(m, 5, good)
	}
	if _, err := r.Force(t.Context(), "test", upkeep.Override{Pool: "web", Member: "192.0.2.1", State: upkeep.AdminDown}, false); err != nil {
		t.Fatal(err)
	}
	proofs := func() (n int) {
		events, err := r.Events(t.Context(), store.EventFilter{Kind: upkeep.EventProof})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			t.Log(e.What)
		}
		return len(events)
	}
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		zones, err := r.Zones(t.Context())
		return err == nil && zones[0].Publishers[0].Error != "", "the publisher did not fail yet"
	})
	// The failure is noted before the round of proof, so a second one has proved.
	first := r.publisher.calls()
	testkit.Eventually(t, 10*time.Second, func() (bool, string) { return r.publisher.calls() > first, "not tried again yet" })
	if done, _, err := r.Drained(t.Context(), "web", "192.0.2.1"); err != nil || done || proofs() > 0 {
		t.Errorf("drained %v and %d proofs although nothing was published (%v)", done, proofs(), err)
	}
	r.publisher.mu.Lock()
	r.publisher.fail = nil
	r.publisher.mu.Unlock()
	r.published("192.0.2.2")
	testkit.Eventually(t, 10*time.Second, func() (bool, string) { return proofs() == 1, "no word of the publish" })
}

// TestSecondariesAreProven: where no servers are listed, those that upkeep sends
// the zone to must answer it as well.
func TestSecondariesAreProven(t *testing.T) {
	w := &Watch{cfg: Config{DNS: "192.0.2.53:53"}}
	z := testZone()
	z.Publishers[0].Secondaries = []string{"192.0.2.54:53", "192.0.2.53:53"}
	if got := w.servers(z); !slices.Equal(got, []string{"192.0.2.53:53", "192.0.2.54:53"}) {
		t.Errorf("asked for the proof: %v", got)
	}
	z.Servers = []string{"192.0.2.55:53"}
	if got := w.servers(z); !slices.Equal(got, z.Servers) {
		t.Errorf("asked for the proof: %v, where one server is listed", got)
	}
}

// That a pool fails open is told even where it changes no answer, as when no
// member ever answered.
func TestFailingOpenIsTold(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	r.published("192.0.2.1 192.0.2.2")
	told := func(what, why string) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			events, err := r.cfg.Store.Events(t.Context(), store.EventFilter{Kind: upkeep.EventDecision, Limit: 100, Latest: true})
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(events, func(e upkeep.Event) bool {
				return e.Object == "pool/web" && strings.Contains(e.What, what) && strings.Contains(e.Why, why)
			}), fmt.Sprintf("no event %q of %+v", what, events)
		})
	}
	r.prober.find("192.0.2.1", 3, refused)
	r.prober.find("192.0.2.2", 3, refused)
	told("failing open: answering with 2 of 2: 192.0.2.1, 192.0.2.2", "0 of 2 members are up: failing open to all members (fail_open: all)")
	r.prober.find("192.0.2.1", 5, good)
	told("no longer failing open", "1 of 2 members are up")
}
