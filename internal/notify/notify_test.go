package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// tally is a webhook that counts events by id.
type tally struct {
	*hookServer
	mu   sync.Mutex
	told map[int64]int
}

func newTally(t *testing.T) *tally {
	c := &tally{told: map[int64]int{}}
	c.hookServer = serveHook(t, false, nil)
	c.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var m Message
		if err != nil || json.Unmarshal(body, &m) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, e := range m.Events {
			c.told[e.ID]++
		}
	})
	return c
}

func (c *tally) ids() map[int64]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	copied := map[int64]int{}
	for id, n := range c.told {
		copied[id] = n
	}
	return copied
}

func (c *tally) await(t *testing.T, id int64) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		told := c.ids()
		return told[id] > 0, fmt.Sprintf("waiting for %d, told of %v", id, told)
	})
}

// hurried is a webhook receiver that does not wait.
func hurried(name, url string) upkeep.Receiver {
	at := upkeep.Duration(0)
	return upkeep.Receiver{Name: name, Type: upkeep.ReceiverWebhook, URL: url, GroupWait: &at, MinInterval: upkeep.Duration(time.Second)}
}

func startNotifier(t *testing.T, store *fakeStore) (n *Notifier, stop func()) {
	t.Helper()
	n = New(Options{Store: store, Host: "monitor"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return n, stop
}

// TestDeadReceiverHoldsUpNobody has one receiver that refuses, one that hangs and
// one that works.
func TestDeadReceiverHoldsUpNobody(t *testing.T) {
	good := newTally(t)
	hanging := serveHook(t, false, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	store := newStore(hurried("dead", "http://127.0.0.1:1/"), hurried("hanging", hanging.URL), hurried("good", good.URL))
	n, stop := startNotifier(t, store)
	for range 3 {
		id := store.happen(down("192.0.2.1"))
		n.Wake()
		good.await(t, id)
	}
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		s := n.Stats()
		return s["dead"].Failed > 0 && s["good"].Sent > 0 && s["hanging"].Sent == 0, fmt.Sprintf("%+v", s)
	})
	stop() // does not wait for the one that hangs
}

func TestReceiversComeAndGo(t *testing.T) {
	a, b := newTally(t), newTally(t)
	store := newStore()
	n, stop := startNotifier(t, store)
	defer stop()
	store.happen(down("192.0.2.1")) // nobody is there to be told
	store.declare(hurried("one", a.URL))
	id := store.happen(down("192.0.2.2"))
	a.await(t, id)
	if told := a.ids(); len(told) != 1 {
		t.Errorf("told of %v", told)
	}
	store.declare(hurried("one", b.URL)) // it moves
	id = store.happen(down("192.0.2.3"))
	b.await(t, id)
	if told := b.ids(); len(told) != 1 {
		t.Errorf("told of %v after it was changed", told)
	}
	store.undeclare(upkeep.KindReceiver, "one")
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		store.mu.Lock()
		defer store.mu.Unlock()
		return len(n.Stats()) == 0 && len(store.cursors) == 0, fmt.Sprint(n.Stats(), store.cursors)
	})
	id = store.happen(down("192.0.2.4"))
	n.Wake()
	store.declare(hurried("two", a.URL))
	last := store.happen(down("192.0.2.5"))
	a.await(t, last)
	if b.ids()[id] != 0 || a.ids()[id] != 0 {
		t.Error("a receiver that is gone was told")
	}
}

func TestNotifierOutlastsTheDatabase(t *testing.T) {
	a := newTally(t)
	store := newStore(hurried("one", a.URL))
	store.set(func(s *fakeStore) { s.broken = true })
	_, stop := startNotifier(t, store)
	defer stop()
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		store.mu.Lock()
		defer store.mu.Unlock()
		return store.reads >= 2, "not read again"
	})
	id := store.happen(down("192.0.2.1"))
	store.set(func(s *fakeStore) { s.broken = false })
	a.await(t, id)
}

// TestKilledAgainAndAgain restarts the notifier at random moments while events
// happen, and counts.
func TestKilledAgainAndAgain(t *testing.T) {
	a := newTally(t)
	store := newStore(hurried("one", a.URL))
	var last int64
	for i := range 40 {
		_, stop := startNotifier(t, store)
		for range 5 {
			last = store.happen(down("192.0.2.1"))
		}
		timer := time.NewTimer(time.Duration(i) * 3 * time.Millisecond)
		<-timer.C
		stop()
	}
	_, stop := startNotifier(t, store)
	a.await(t, last)
	stop()
	told := a.ids()
	for id := int64(2); id <= last; id++ {
		if told[id] == 0 {
			t.Errorf("event %d was never told", id)
		}
	}
}

func TestTestMessage(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	good := execReceiver("good")
	good.Command = []string{"sh", "-c", `cat >"$0"`, out}
	bad := execReceiver("bad")
	bad.Command = []string{"false"}
	store := newStore(good, bad)
	n := New(Options{Store: store, Host: "monitor"})
	if err := n.Test(t.Context(), "good"); err != nil {
		t.Error(err)
	}
	var m Message
	text, err := os.ReadFile(out)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || !m.Test || m.Host != "monitor" {
		t.Errorf("%v: %s", err, text)
	}
	if err := n.Test(t.Context(), "bad"); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("got %v", err)
	}
	if err := n.Test(t.Context(), "nobody"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if len(store.cursors) != 0 {
		t.Errorf("cursors were moved: %v", store.cursors)
	}
}
