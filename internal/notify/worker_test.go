package notify

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upkeep"
)

// bench is one worker with a recorder in the place of its sender.
type bench struct {
	t       *testing.T
	store   *fakeStore
	sent    *recorder
	notices []string
	status  Status
	worker  *worker
	cancel  context.CancelFunc
	work    *sync.WaitGroup
	r       upkeep.Receiver
}

func newBench(t *testing.T, r upkeep.Receiver) *bench {
	b := &bench{t: t, store: newStore(r), sent: &recorder{}, r: r.WithDefaults()}
	return b
}

func (b *bench) start() {
	var mu sync.Mutex
	o := Options{
		Store: b.store, Status: b.status, Logger: New(Options{}).log, Host: "monitor",
		Notice: func(object, what, _ string) {
			mu.Lock()
			defer mu.Unlock()
			b.notices = append(b.notices, object+" "+what)
		},
	}
	b.worker = newWorker(b.r, newFilter(b.r, nil), o)
	b.worker.sender = b.sent
	ctx, cancel := context.WithCancel(b.t.Context())
	b.cancel, b.work = cancel, &sync.WaitGroup{}
	b.worker.start(ctx, b.work)
	synctest.Wait()
}

func (b *bench) stop() {
	b.cancel()
	b.work.Wait()
}

// happen writes events and lets the worker see them.
func (b *bench) happen(events ...upkeep.Event) int64 {
	last := b.store.happen(events...)
	b.worker.wake()
	synctest.Wait()
	return last
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d) // by the clock of the bubble, which takes no time
	synctest.Wait()
}

func TestWhatHappensCloseTogetherIsToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.start()
		defer b.stop()
		b.happen(down("192.0.2.1"))
		pass(4 * time.Second)
		b.happen(down("192.0.2.2"))
		if got := b.sent.got(); len(got) != 0 {
			t.Fatalf("told before group_wait was over: %+v", got)
		}
		pass(time.Second)
		got := b.sent.got()
		if len(got) != 1 || len(got[0].Events) != 2 || got[0].Title != "web/192.0.2.1: down (and 1 more)" {
			t.Fatalf("got %+v", got)
		}
		if want := (Stats{Sent: 1}); b.worker.snapshot() != want {
			t.Errorf("stats %+v", b.worker.snapshot())
		}
	})
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := execReceiver("ops")
		r.MinInterval = upkeep.Duration(10 * time.Second)
		b := newBench(t, r)
		b.start()
		defer b.stop()
		for range 600 { // one event each second for ten minutes
			b.happen(down("192.0.2.1"))
			pass(time.Second)
		}
		pass(time.Minute)
		at := b.sent.times()
		if len(at) < 59 || len(at) > 61 {
			t.Errorf("%d messages in ten minutes, at most one each 10s", len(at))
		}
		for i := 1; i < len(at); i++ {
			if gap := at[i].Sub(at[i-1]); gap < 10*time.Second {
				t.Errorf("messages %d and %d are %s apart", i-1, i, gap)
			}
		}
		if ids := b.sent.ids(); len(ids) != 600 || !slices.IsSorted(ids) {
			t.Errorf("%d of 600 events were told", len(ids))
		}
	})
}

// TestRateLimitAcrossRestarts kills the worker after each message.
func TestRateLimitAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		for range 10 {
			b.start()
			b.happen(down("192.0.2.1"))
			pass(10 * time.Second)
			b.stop()
		}
		if got := b.sent.got(); len(got) != 2 {
			t.Errorf("%d messages in 100s with one a minute allowed", len(got))
		}
	})
}

func TestCrowdIsSummarised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.start()
		defer b.stop()
		var crowd []upkeep.Event
		for i := range 5000 {
			crowd = append(crowd, down(fmt.Sprintf("10.0.%d.%d", i/256, i%256)))
		}
		last := b.happen(crowd...)
		pass(time.Minute)
		got := b.sent.got()
		if len(got) != 1 || len(got[0].Events) != MaxListed || got[0].Omitted != 5000-MaxListed {
			t.Fatalf("%d messages, the first with %d events and %d omitted", len(got), len(got[0].Events), got[0].Omitted)
		}
		if first := got[0].Events[0].ID; first != last-4999 || got[0].Events[MaxListed-1].ID != last {
			t.Errorf("listed are %d to %d of %d to %d", first, got[0].Events[MaxListed-1].ID, last-4999, last)
		}
		if !strings.Contains(got[0].Text(), "... 4800 more that are not listed ...") {
			t.Error("the text does not say how many are left out")
		}
		if b.store.cursor("receiver/ops") != last {
			t.Errorf("cursor %d, want %d", b.store.cursor("receiver/ops"), last)
		}
	})
}

// TestCrashLosesNothingAndRepeatsOneMessage stops the worker at every moment of a
// sequence, with the cursor as it then is in the database.
func TestCrashLosesNothingAndRepeatsOneMessage(t *testing.T) {
	for crash := range 40 {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, execReceiver("ops"))
			b.sent.takes = 3 * time.Second
			b.start()
			first := b.happen(down("192.0.2.1"))
			pass(time.Duration(crash) * 500 * time.Millisecond)
			b.stop()
			last := b.store.happen(down("192.0.2.2")) // while nothing runs
			b.start()
			pass(10 * time.Minute)
			b.stop()
			ids := b.sent.ids()
			if !slices.Contains(ids, first) || !slices.Contains(ids, last) {
				t.Errorf("stopped after %d half seconds: told of %v, want %d and %d", crash, ids, first, last)
			}
			if len(ids) > 3 {
				t.Errorf("stopped after %d half seconds: told of %v", crash, ids)
			}
		})
	}
}

// TestTakenButNotRecorded is the crash between the two: the server took the
// message, and the process died before the cursor moved.
func TestTakenButNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.start()
		b.happen(down("192.0.2.1"))
		b.store.set(func(s *fakeStore) { s.frozen = true })
		pass(time.Hour)
		if got := b.sent.got(); len(got) != 1 {
			t.Errorf("%d messages while the database takes no writes, want one", len(got))
		}
		b.stop()
		b.store.set(func(s *fakeStore) { s.frozen = false })
		b.start()
		pass(time.Hour)
		got := b.sent.got()
		if len(got) != 2 || got[0].ID != got[1].ID {
			t.Errorf("want the same message once more, got %+v", got)
		}
		b.stop()
		b.start()
		pass(time.Hour)
		if got := b.sent.got(); len(got) != 2 {
			t.Errorf("repeated again: %d messages", len(got))
		}
		b.stop()
	})
}

func TestCursorIsStoredOnceTheDatabaseIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.start()
		b.store.set(func(s *fakeStore) { s.frozen = true })
		last := b.happen(down("192.0.2.1"))
		pass(time.Minute)
		b.store.set(func(s *fakeStore) { s.frozen = false })
		pass(10 * time.Second)
		b.stop()
		if got := b.store.cursor("receiver/ops"); got != last {
			t.Errorf("cursor %d, want %d", got, last)
		}
	})
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.sent.err = errors.New("connection refused")
		b.start()
		defer b.stop()
		b.happen(down("192.0.2.1"))
		pass(2 * time.Hour)
		b.happen(down("192.0.2.2"))
		attempts := b.sent.tries()
		if len(attempts) < 15 || len(attempts) > 60 {
			t.Errorf("%d attempts in two hours", len(attempts))
		}
		for i := 1; i < len(attempts); i++ {
			gap := attempts[i].Sub(attempts[i-1])
			if gap < retryMin/2 || gap > 2*retryMax {
				t.Errorf("attempts %d and %d are %s apart", i-1, i, gap)
			}
			if i > 12 && gap < retryMax/2 {
				t.Errorf("attempt %d came after %s only", i, gap)
			}
		}
		if want := []string{"receiver/ops cannot be told what happens; trying again"}; !slices.Equal(b.notices, want) {
			t.Errorf("notices %q, want %q", b.notices, want)
		}
		if s := b.worker.snapshot(); s.Failed != uint64(len(attempts)) || s.Failing.IsZero() || s.Waiting != 2 {
			t.Errorf("stats %+v", s)
		}
		b.sent.fail(nil)
		pass(2 * retryMax)
		got := b.sent.got()
		if len(got) != 1 || len(got[0].Events) != 2 {
			t.Errorf("after the recovery: %+v", got)
		}
		if s := b.worker.snapshot(); !s.Failing.IsZero() || s.Waiting != 0 {
			t.Errorf("stats %+v", s)
		}
		if len(b.notices) != 2 || b.notices[1] != "receiver/ops can be told again" {
			t.Errorf("notices %q", b.notices)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.sent.err = &laterError{errors.New("too many"), 90 * time.Second}
		b.start()
		defer b.stop()
		b.happen(down("192.0.2.1"))
		pass(5 * time.Second)
		pass(89 * time.Second)
		if n := len(b.sent.tries()); n != 1 {
			t.Errorf("%d attempts before the time that was asked for", n)
		}
		pass(2 * time.Second)
		if n := len(b.sent.tries()); n != 2 {
			t.Errorf("%d attempts after it", n)
		}
	})
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := execReceiver("ops")
		r.MaxAge = upkeep.Duration(time.Hour)
		b := newBench(t, r)
		b.sent.err = errors.New("connection refused")
		b.start()
		defer b.stop()
		for range 3 {
			b.happen(down("192.0.2.1"))
		}
		pass(30 * time.Minute)
		last := b.happen(down("192.0.2.2"))
		pass(40 * time.Minute) // the first three are too old now
		b.sent.fail(nil)
		pass(2 * retryMax)
		got := b.sent.got()
		if len(got) != 1 || len(got[0].Events) != 1 || got[0].Events[0].ID != last || got[0].Expired != 3 {
			t.Fatalf("got %+v", got)
		}
		if !strings.Contains(got[0].Text(), "3 older events could not be told in time") {
			t.Errorf("the text does not say so:\n%s", got[0].Text())
		}
		b.sent.fail(errors.New("connection refused"))
		last = b.happen(down("192.0.2.3"))
		pass(2 * time.Hour)
		if s := b.worker.snapshot(); s.Expired != 1 || s.Waiting != 0 {
			t.Errorf("stats %+v", s)
		}
		if b.store.cursor("receiver/ops") != last {
			t.Errorf("cursor %d, want %d", b.store.cursor("receiver/ops"), last)
		}
		if !slices.Contains(b.notices, "receiver/ops 1 events were never told: they are older than 1h") {
			t.Errorf("notices %q", b.notices)
		}
	})
}

func TestSlowReceiverIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.sent.takes = time.Hour
		b.start()
		b.happen(down("192.0.2.1"))
		pass(5*time.Second + 30*time.Second)
		if s := b.worker.snapshot(); s.Failed != 1 {
			t.Errorf("stats %+v after the timeout", s)
		}
		pass(2 * time.Second) // in the midst of the next attempt
		b.stop()              // does not wait for it
	})
}

func TestBrokenDatabaseIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.store.broken = true
		b.start()
		defer b.stop()
		b.store.happen(down("192.0.2.1"))
		pass(10 * time.Minute)
		if reads := b.store.reads; reads > 200 {
			t.Errorf("%d reads in ten minutes", reads)
		}
		b.store.set(func(s *fakeStore) { s.broken = false })
		pass(time.Minute)
		if got := b.sent.got(); len(got) != 1 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestNewReceiverHearsNoHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.store = newStore()
		b.store.happen(down("192.0.2.1"))
		b.store.declare(execReceiver("ops"))
		b.store.happen(down("192.0.2.2")) // between the declaration and the start
		b.start()
		b.happen(down("192.0.2.3"))
		pass(time.Minute)
		b.stop()
		if ids := b.sent.ids(); !slices.Equal(ids, []int64{3, 4}) {
			t.Errorf("told of %v", ids)
		}
	})
}

func TestCursorOfAnEarlierReceiverOfThatName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.store = newStore(execReceiver("ops"))
		b.store.cursors["receiver/ops"] = 1
		b.store.happen(down("192.0.2.1"))
		b.store.undeclare(upkeep.KindReceiver, "ops")
		b.store.declare(execReceiver("ops"))
		b.start()
		pass(time.Hour)
		b.stop()
		if ids := b.sent.ids(); len(ids) != 0 {
			t.Errorf("told of %v, which happened before it was declared", ids)
		}
	})
}

func TestUnwantedEventsMoveTheCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, execReceiver("ops"))
		b.start()
		defer b.stop()
		var many []upkeep.Event
		for range 2 * saveEvery {
			many = append(many, upkeep.Event{Kind: upkeep.EventSystem})
		}
		last := b.happen(many...)
		if got := b.store.cursor("receiver/ops"); got != last {
			t.Errorf("cursor %d, want %d", got, last)
		}
	})
}

type fakeStatus struct {
	mu    sync.Mutex
	pools []upkeep.PoolStatus
	zones []upkeep.ZoneStatus
	err   error
}

func (s *fakeStatus) Pools(context.Context) ([]upkeep.PoolStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.pools), s.err
}

func (s *fakeStatus) Zones(context.Context) ([]upkeep.ZoneStatus, error) { return s.zones, nil }

func TestReminders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := execReceiver("ops")
		r.Repeat = upkeep.Duration(time.Hour)
		status := &fakeStatus{pools: []upkeep.PoolStatus{{
			Name: "web", Published: []netip.Addr{netip.MustParseAddr("192.0.2.2")},
			Members: []upkeep.MemberStatus{
				{Address: netip.MustParseAddr("192.0.2.1"), Verdict: upkeep.Down, Admin: upkeep.AdminAuto, Reason: "refused"},
				{Address: netip.MustParseAddr("192.0.2.2"), Verdict: upkeep.Up},
				{Address: netip.MustParseAddr("192.0.2.3"), Verdict: upkeep.Down, Admin: upkeep.AdminDown},
			},
		}}}
		b := newBench(t, r)
		b.status = status
		b.start()
		defer b.stop()
		b.happen(down("192.0.2.1"))
		pass(3*time.Hour + time.Minute)
		got := b.sent.got()
		if len(got) != 4 {
			t.Fatalf("%d messages, want one and three reminders", len(got))
		}
		for _, m := range got[1:] {
			if !m.Reminder || len(m.Problems) != 1 || !strings.HasPrefix(m.Title, "still: web/192.0.2.1 is down since") || m.Events == nil {
				t.Errorf("got %+v", m)
			}
		}
		status.mu.Lock()
		status.pools[0].Members = nil
		status.mu.Unlock()
		pass(24 * time.Hour)
		if got := b.sent.got(); len(got) != 4 {
			t.Errorf("reminded of nothing: %+v", got[4:])
		}
	})
}

func TestProblems(t *testing.T) {
	now := time.Unix(10000, 0)
	status := &fakeStatus{
		pools: []upkeep.PoolStatus{
			{Name: "web", Frozen: "cut\noff", Published: []netip.Addr{{}}},
			{Name: "mail", Reason: "none is left"},
			{Name: "other", Frozen: "x"},
		},
		zones: []upkeep.ZoneStatus{
			{Name: "a.test", PublishedAt: now.Add(-time.Hour), Serial: 7, Publishers: []upkeep.PublisherStatus{{Type: "bind", Error: "rndc"}, {Type: "update"}},
				Servers: []upkeep.ServerStatus{{Address: "192.0.2.53:53", Error: "timeout"}, {Address: "192.0.2.54:53", InSync: true}}},
			{Name: "b.test", PublishedAt: now.Add(-time.Second), Servers: []upkeep.ServerStatus{{Address: "x"}}}, // on its way
			{Name: "c.test", Publishers: []upkeep.PublisherStatus{{Error: "x"}}},
		},
	}
	r := execReceiver("ops")
	r.Pools = []string{"web", "ma*"}
	f := newFilter(r.WithDefaults(), []upkeep.Object{
		upkeep.Pool{Name: "web", Zones: []string{"a.test"}}, upkeep.Pool{Name: "mail", Zones: []string{"b.test", "a.test"}},
		upkeep.Pool{Name: "other", Zones: []string{"c.test"}},
	})
	got, err := problems(t.Context(), status, f, now)
	want := []string{
		"web is frozen: cut off",
		"mail publishes no address: none is left",
		"zone a.test is not published by bind: rndc",
		"zone a.test: name server 192.0.2.53:53 does not answer serial 7: timeout",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	status.err = errBroken
	if _, err := problems(t.Context(), status, f, now); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

func TestFilter(t *testing.T) {
	all := newFilter(execReceiver("ops").WithDefaults(), nil)
	r := execReceiver("ops")
	r.Pools, r.Events = []string{"web-*"}, []string{upkeep.EventVerdict, upkeep.EventPublish, upkeep.EventWarning}
	some := newFilter(r.WithDefaults(), []upkeep.Object{
		upkeep.Pool{Name: "web-eu", Zones: []string{"eu.test"}}, upkeep.Pool{Name: "mail", Zones: []string{"mail.test"}},
	})
	for _, tt := range []struct {
		kind, object string
		all, some    bool
	}{
		{upkeep.EventVerdict, "pool/web-eu/192.0.2.1", true, true},
		{upkeep.EventVerdict, "pool/web/192.0.2.1", true, false},
		{upkeep.EventDecision, "pool/web-eu", true, false},
		{upkeep.EventPublish, "zone/eu.test", true, true},
		{upkeep.EventPublish, "zone/mail.test", true, false},
		{upkeep.EventWarning, "receiver/other", true, false},
		{upkeep.EventWarning, "receiver/ops", false, false},
		{upkeep.EventSystem, "", false, false},
	} {
		e := upkeep.Event{Kind: tt.kind, Object: tt.object}
		if all.wants(e) != tt.all || some.wants(e) != tt.some {
			t.Errorf("%s %s: got %t and %t, want %t and %t", tt.kind, tt.object, all.wants(e), some.wants(e), tt.all, tt.some)
		}
	}
}
