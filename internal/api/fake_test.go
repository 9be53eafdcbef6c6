package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/store"
	"upkeep/internal/watch"
)

// fake is control in memory, for what is HTTP's own. That the real parts fit is
// tested where they are wired together, in cmd/upkeep.
type fake struct {
	mu      sync.Mutex
	pools   []upkeep.PoolStatus
	zones   []upkeep.ZoneStatus
	applied []upkeep.Object
	deleted []store.Ref
	forced  []upkeep.Override
	who     []string
	events  []upkeep.Event
	readers []chan upkeep.Event
	fail    error
	panics  bool
}

func (f *fake) ApplyIf(_ context.Context, who string, still map[store.Ref]int64, objects []upkeep.Object, dry bool) (watch.Applied, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return watch.Applied{}, f.fail
	}
	for ref, expected := range still {
		if err := store.Still(ref, f.generation(ref, expected), expected); err != nil {
			return watch.Applied{}, err
		}
	}
	var result watch.Applied
	for _, o := range objects {
		result.Changes = append(result.Changes, watch.AppliedChange{Action: wire.Created, Generation: 1, New: o})
	}
	if !dry {
		f.applied = append(f.applied, objects...)
		f.who = append(f.who, who)
	}
	return result, nil
}

// fakeGeneration is that of everything in a fake, as far as changes ask.
const fakeGeneration = 1

// generation is that of a thing; whether there is such a thing matters to who expects
// that alone.
func (f *fake) generation(ref store.Ref, expected int64) int64 {
	if expected == store.Exists && !slices.ContainsFunc(f.applied, func(o upkeep.Object) bool { return store.RefOf(o) == ref }) {
		return 0
	}
	return fakeGeneration
}

func (f *fake) DeleteIf(_ context.Context, who string, still map[store.Ref]int64, refs ...store.Ref) error {
	for ref, expected := range still {
		is := f.generation(ref, expected)
		if is == 0 {
			return fmt.Errorf("%s: %w", ref, upkeep.ErrNotFound)
		}
		if err := store.Still(ref, is, expected); err != nil {
			return err
		}
	}
	f.who = append(f.who, who)
	f.deleted = append(f.deleted, refs...)
	return f.fail
}

func (f *fake) Objects(_ context.Context, kind, name string) ([]upkeep.Declared, error) {
	var found []upkeep.Declared
	for i, o := range f.applied {
		if o.ObjectKind() == kind && (name == "" || o.ObjectName() == name) {
			found = append(found, upkeep.Declared{Generation: int64(i + 1), Object: o})
		}
	}
	if name != "" && len(found) == 0 {
		return nil, fmt.Errorf("%s %s: %w", kind, name, upkeep.ErrNotFound)
	}
	return found, nil
}

func (f *fake) Pools(context.Context) ([]upkeep.PoolStatus, error) {
	if f.panics {
		panic("a fault")
	}
	return f.pools, f.fail
}

func (f *fake) Pool(_ context.Context, name string) (upkeep.PoolStatus, error) {
	for _, p := range f.pools {
		if p.Name == name {
			return p, nil
		}
	}
	return upkeep.PoolStatus{}, fmt.Errorf("pool %s: %w", name, upkeep.ErrNotFound)
}

func (f *fake) Zones(context.Context) ([]upkeep.ZoneStatus, error) { return f.zones, f.fail }

func (f *fake) Budget(_ context.Context, pool string) (upkeep.Budget, error) {
	return upkeep.Budget{Pool: pool}, f.fail
}

func (f *fake) Latency(_ context.Context, pool string, members []netip.Addr) ([]upkeep.Latency, error) {
	all := make([]upkeep.Latency, len(members))
	for i, address := range members {
		all[i] = upkeep.Latency{Address: address, Min: 1, Median: 2, Max: 3, Slot: 1, Slots: []upkeep.LatencySlot{{At: time.Unix(1, 0).UTC(), Min: 1, Median: 2, Max: 3}}}
	}
	return all, f.fail
}

func (f *fake) Force(_ context.Context, who string, o upkeep.Override, _ bool) ([]string, error) {
	o.Who = who
	f.forced = append(f.forced, o)
	return []string{o.Pool + "/" + o.Member}, f.fail
}

func (f *fake) Release(_ context.Context, who, pool, member string) ([]string, error) {
	f.forced = nil
	return []string{pool + "/" + member}, f.fail
}

func (f *fake) Drained(context.Context, string, string) (bool, string, error) {
	return false, "the old TTL, 12s more", f.fail
}

func (f *fake) Events(_ context.Context, filter store.EventFilter) ([]upkeep.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []upkeep.Event
	for _, e := range f.events {
		if e.ID > filter.After && Matches(e, filter) {
			found = append(found, e)
		}
	}
	if over := max(0, len(found)-filter.Limit); filter.Latest {
		return found[over:], nil
	}
	return found[:min(len(found), filter.Limit)], nil
}

func (f *fake) Subscribe() (<-chan upkeep.Event, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan upkeep.Event, 8)
	f.readers = append(f.readers, c)
	return c, func() {}
}

// happen stores an event and hands it to the readers.
func (f *fake) happen(e upkeep.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
	for _, c := range f.readers {
		c <- e
	}
}

// cutOff closes the readers' channels, as happens to one that is too slow.
func (f *fake) cutOff() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.readers {
		close(c)
	}
	f.readers = nil
}

const testToken = "a-token-of-some-length"

// newTestAPI makes an API over f; options may be changed before.
func newTestAPI(t *testing.T, f *fake, change ...func(*Options)) *API {
	t.Helper()
	hosting := &fakeHosting{}
	o := Options{Declarer: f, Observer: f, Forcer: f, Recorder: f, Notifier: f, Users: &fakeUsers{}, Answers: &fakeAnswers{}, Audit: &fakeAudit{}, Jobs: hosting, Sites: hosting, Servers: hosting, Log: slog.New(slog.DiscardHandler), Version: "test", Token: testToken}
	for _, c := range change {
		c(&o)
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// answer sends a request to a handler, with a header per pair.
func answer(h http.Handler, r *http.Request, header ...string) *httptest.ResponseRecorder {
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if r.Host == "example.com" { // httptest's own; no browser would call upkeep that
		r.Host = "127.0.0.1:8053"
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func webPool() upkeep.PoolStatus {
	return upkeep.PoolStatus{Name: "web", Published: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Members: []upkeep.MemberStatus{{Address: netip.MustParseAddr("192.0.2.1"), Verdict: upkeep.Up, Admin: upkeep.AdminAuto, Published: true}},
		Zones:   []upkeep.ZoneStatus{{Name: "example.test", Serial: 7, Servers: []upkeep.ServerStatus{{Address: "127.0.0.1:53", Serial: 7, InSync: true}}}}}
}

var errSome = errors.New("the disk is on fire")

func (f *fake) Unfreeze(_ context.Context, who string) error {
	f.who = append(f.who, who)
	return f.fail
}

func (f *fake) Test(_ context.Context, name string) error {
	f.who = append(f.who, "test of "+name)
	return f.fail
}

func (f *fake) Renumber(_ context.Context, who, zone string) (uint32, bool, string, error) {
	f.who = append(f.who, who)
	return 7, true, "", f.fail
}

// fakePages is one page, everywhere.
type fakePages struct{ http.Handler }

func (p fakePages) Routes() map[string]http.Handler { return map[string]http.Handler{"GET /": p} }

func (p fakePages) Refused(w http.ResponseWriter, _ *http.Request, problem *wire.Problem) {
	writeProblem(w, problem)
}
