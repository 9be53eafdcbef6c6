package job_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"upkeep/internal/job"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// sends has two jobs sent to an agent, one after the other: the first may be among
// those that a new link asks for.
func sends(t *testing.T, c *control) {
	t.Helper()
	a := connect(t, c, "web1", nil)
	for i := range 2 {
		if _, err := c.store.Enqueue(t.Context(), mkdir(i)); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			sent := a.sent()
			return len(sent) == i+1, fmt.Sprint(sent)
		})
	}
}

// A job is sent as soon as its transaction is committed, without River.
func TestSentWithoutRiver(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		s, err := store.Open(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		d, err := job.New(t.Context(), job.Config{Store: s, Key: testKey(), Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		})
		c := &control{d, s} // not started
		c.put(t, server("web1"))
		sends(t, c)
	})
}

// deaf is told of no transaction's end, as when a connection breaks while it commits.
type deaf struct{ *job.Dispatcher }

func (d deaf) Committed(store.JobNews) { d.Nudge() }

// A job is sent by River's call where nobody heard that its transaction was committed.
func TestSentByRiver(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		c.store.Wake(deaf{c.Dispatcher})
		sends(t, c)
	})
}
