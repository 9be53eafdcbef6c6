package notify

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"upkeep"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore keeps everything in memory.
type fakeStore struct {
	mu      sync.Mutex
	objects []upkeep.Declared
	events  []upkeep.Event
	cursors map[string]int64
	broken  bool // every call fails
	frozen  bool // writes fail
	reads   int
}

func newStore(receivers ...upkeep.Receiver) *fakeStore {
	s := &fakeStore{cursors: map[string]int64{}}
	for _, r := range receivers {
		s.declare(r)
	}
	return s
}

func (s *fakeStore) declare(o upkeep.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := "created"
	s.objects = slices.DeleteFunc(s.objects, func(d upkeep.Declared) bool {
		if d.Object.ObjectKind() == o.ObjectKind() && d.Object.ObjectName() == o.ObjectName() {
			what = "changed events"
			return true
		}
		return false
	})
	s.objects = append(s.objects, upkeep.Declared{Object: o})
	s.add(upkeep.Event{Kind: upkeep.EventDeclared, Object: o.ObjectKind() + "/" + o.ObjectName(), What: what})
}

func (s *fakeStore) undeclare(kind, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects = slices.DeleteFunc(s.objects, func(d upkeep.Declared) bool {
		return d.Object.ObjectKind() == kind && d.Object.ObjectName() == name
	})
	s.add(upkeep.Event{Kind: upkeep.EventDeclared, Object: kind + "/" + name, What: "deleted"})
}

// add needs the lock.
func (s *fakeStore) add(e upkeep.Event) int64 {
	e.ID = int64(len(s.events) + 1)
	if e.At.IsZero() {
		e.At = time.Now()
	}
	s.events = append(s.events, e)
	return e.ID
}

func (s *fakeStore) happen(events ...upkeep.Event) (last int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		last = s.add(e)
	}
	return last
}

var errBroken = errors.New("the database is gone")

func (s *fakeStore) Objects(context.Context, ...string) ([]upkeep.Declared, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return nil, errBroken
	}
	return slices.Clone(s.objects), nil
}

func (s *fakeStore) Events(_ context.Context, q Query) ([]upkeep.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.broken {
		return nil, errBroken
	}
	var found []upkeep.Event
	for _, e := range s.events {
		if e.ID > q.After && (q.Kind == "" || e.Kind == q.Kind) &&
			(q.Object == "" || e.Object == q.Object || strings.HasPrefix(e.Object, q.Object+"/")) {
			found = append(found, e)
		}
	}
	if q.Limit > 0 && len(found) > q.Limit {
		if q.Latest {
			return found[len(found)-q.Limit:], nil
		}
		return found[:q.Limit], nil
	}
	return found, nil
}

func (s *fakeStore) Cursor(_ context.Context, name string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return 0, errBroken
	}
	return s.cursors[name], nil
}

func (s *fakeStore) SetCursor(_ context.Context, name string, event int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken || s.frozen {
		return errBroken
	}
	s.cursors[name] = event
	return nil
}

func (s *fakeStore) DeleteCursor(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errBroken
	}
	delete(s.cursors, name)
	return nil
}

func (s *fakeStore) cursor(name string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursors[name]
}

func (s *fakeStore) set(f func(*fakeStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// recorder is a sender that keeps what it is sent.
type recorder struct {
	mu       sync.Mutex
	messages []Message
	at       []time.Time
	err      error         // of every attempt while set
	takes    time.Duration // how long an attempt takes
	attempts []time.Time
}

func (r *recorder) send(ctx context.Context, m Message) error {
	r.mu.Lock()
	r.attempts = append(r.attempts, time.Now())
	takes := r.takes
	r.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.messages = append(r.messages, m)
	r.at = append(r.at, time.Now())
	return nil
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *recorder) got() []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

func (r *recorder) times() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.at)
}

func (r *recorder) tries() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.attempts)
}

// ids are those of all events that were told, in order.
func (r *recorder) ids() (ids []int64) {
	for _, m := range r.got() {
		for _, e := range m.Events {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func down(address string) upkeep.Event {
	return upkeep.Event{Kind: upkeep.EventVerdict, Who: "upkeep", Object: "pool/web/" + address, What: "down", Why: "connection refused"}
}

func execReceiver(name string) upkeep.Receiver {
	return upkeep.Receiver{Name: name, Type: upkeep.ReceiverExec, Command: []string{"true"}}
}
