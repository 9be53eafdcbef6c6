package watch

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// What happens while the database is away is written when it is back: in order,
// the newest state of each key, and with a word on what there was no room for.
func TestLedgerWritesLate(t *testing.T) {
	t.Parallel()
	server := testkit.NewPostgres(t)
	kept, err := store.Open(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kept.Close() }()
	told := make(chan []upkeep.Event, 10)
	l := newLedger(kept, slog.New(slog.DiscardHandler), time.Now, func(e []upkeep.Event) { told <- e })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx) })
	n := 0
	record := func(times int) {
		for range times {
			n++
			l.record(t.Context(), []upkeep.Event{{At: time.Now(), Kind: upkeep.EventVerdict, What: fmt.Sprint(n)}})
		}
	}
	record(2)
	server.Stop(t)
	l.save(t.Context(), map[string][]byte{"a": []byte("1"), "b": []byte("1")})
	record(maxLate + 1)
	l.save(t.Context(), map[string][]byte{"a": []byte("2")})
	if value, err := l.load(t.Context(), "a"); err != nil || string(value) != "2" {
		t.Errorf("while the database is away, a state is loaded as %q, %v", value, err)
	}
	if events, since := l.waiting(); events > maxLate || events < maxLate*8/10 || since.IsZero() {
		t.Errorf("%d events wait since %s", events, since)
	}
	server.Start(t)
	back := <-told
	if events, since := l.waiting(); events != 0 || !since.IsZero() {
		t.Errorf("%d events wait since %s, after it was told that the database is back", events, since)
	}
	record(1) // directly again
	cancel()
	running.Wait()

	states, err := kept.LoadStates(t.Context(), "")
	if err != nil || string(states["a"]) != "2" || string(states["b"]) != "1" {
		t.Errorf("states %s, %v", states, err)
	}
	events, err := kept.Events(t.Context(), store.EventFilter{Kind: upkeep.EventVerdict})
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, e := range events {
		number := 0
		if _, err := fmt.Sscan(e.What, &number); err != nil || number <= last {
			t.Fatalf("event %s after %d", e.What, last)
		}
		last = number
	}
	lost := n - len(events)
	if last != n || lost < 1 || lost > maxLate/5 {
		t.Errorf("the last event is %d of %d, and %d are missing", last, n, lost)
	}
	if len(back) != 1 || back[0].ID == 0 || !strings.Contains(back[0].What, fmt.Sprintf("the oldest %d events", lost)) {
		t.Errorf("told: %+v; %d were lost", back, lost)
	}
}

// Closing writes what waits, as far as the database takes it.
func TestLedgerIsFlushedAtTheEnd(t *testing.T) {
	r := newRig(t)
	r.ledger.keep(context.DeadlineExceeded, nil, []upkeep.Event{{At: time.Now(), Kind: upkeep.EventSystem, What: "kept"}})
	r.stop()
	r.start()
	events, err := r.Events(t.Context(), store.EventFilter{Kind: upkeep.EventSystem})
	if err != nil || len(events) != 1 {
		t.Errorf("after a restart: %v, %v", events, err)
	}
}
