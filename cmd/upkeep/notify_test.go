package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/notify"
	"upkeep/internal/probe"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
	"upkeep/internal/watch"
)

// A notification leaves when something was recorded, and not at the next poll,
// which here would never come.
func TestNotificationsLeaveAtOnce(t *testing.T) {
	got := make(chan notify.Message, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m notify.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		got <- m
	}))
	t.Cleanup(hook.Close)
	log := slog.New(slog.DiscardHandler)
	kept, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "upkeep.db"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := probe.New(probe.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	w, err := watch.New(t.Context(), watch.Config{Store: kept, Prober: engine, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	n := notify.New(notify.Options{Store: told{kept}, Logger: log, Poll: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	for _, part := range []func() error{
		func() error { return w.Run(ctx) },
		func() error { return n.Run(ctx) },
		func() error { return wake(ctx, w, n) },
	} {
		parts.Go(func() {
			if err := part(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		parts.Wait()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
		if err := kept.Close(); err != nil {
			t.Error(err)
		}
	})
	none := upkeep.Duration(0)
	receiver := upkeep.Receiver{Name: "hook", Type: upkeep.ReceiverWebhook, URL: hook.URL, GroupWait: &none}
	if _, err := w.Apply(t.Context(), "test", []upkeep.Object{receiver}, false); err != nil {
		t.Fatal(err)
	}
	// Again and again, since nothing says when the notifier has begun to listen.
	testkit.Eventually(t, patience, func() (bool, string) {
		w.Notice("zone/example.test", "something to mend", "")
		select {
		case m := <-got:
			return m.Events[0].What == "something to mend", m.Title
		case <-time.After(100 * time.Millisecond):
			return false, "nobody was told"
		}
	})
}
