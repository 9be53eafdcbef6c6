package watch

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/probe"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
	"upkeep/internal/zone"
)

// resolver answers 127.0.0.1 until it is broken.
type resolver struct {
	mu     sync.Mutex
	broken bool
}

func (r *resolver) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

// TestBrokenResolverRemovesNobody restarts a monitor, with a real engine, while
// its name servers fail: a member whose target is a name is asked where it was
// found last, and one that was never found is left alone.
func TestBrokenResolverRemovesNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	db, names, published := "sqlite:"+filepath.Join(t.TempDir(), "upkeep.db"), &resolver{}, &publisher{}
	pool := testPool("192.0.2.1", "192.0.2.2")
	pool.Check.Port = listener.Addr().(*net.TCPAddr).Port
	pool.Check.Interval = upkeep.Duration(50 * time.Millisecond)
	pool.Check.Timeout = upkeep.Duration(40 * time.Millisecond)
	pool.Members[0].CheckAddress, pool.Members[1].CheckAddress = "www.other.test", "127.0.0.1"

	live := func(use func(*Watch)) {
		t.Helper()
		kept, err := store.Open(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		engine, err := probe.New(probe.Options{Resolver: names})
		if err != nil {
			t.Fatal(err)
		}
		defer engine.Close()
		w, err := New(t.Context(), Config{
			Store: kept, Prober: engine, Log: slog.New(slog.DiscardHandler),
			Publisher: func(*Watch, upkeep.Zone, upkeep.Publisher) (zone.Publisher, error) { return published, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		use(w)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	verdicts := func(w *Watch, want string) {
		t.Helper()
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status, err := w.Pool(t.Context(), "web")
			if err != nil {
				return false, err.Error()
			}
			got := status.Members[0].Verdict.String() + " " + status.Members[1].Verdict.String()
			return got == want, "verdicts are " + got + ", not " + want + ": " + status.Members[0].Reason
		})
	}
	live(func(w *Watch) {
		if _, err := w.Apply(t.Context(), "test", []upkeep.Object{testZone(), pool}, false); err != nil {
			t.Fatal(err)
		}
		verdicts(w, "up up")
	})
	names.mu.Lock()
	names.broken = true
	names.mu.Unlock()
	live(func(w *Watch) {
		before := time.Now()
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status, err := w.Pool(t.Context(), "web")
			return err == nil && status.Members[0].LastOK.After(before), "the member that has a name was not asked yet"
		})
		verdicts(w, "up up")

		pool.Members[0].CheckAddress = "new.other.test"
		if _, err := w.Apply(t.Context(), "test", []upkeep.Object{pool}, false); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status, err := w.Pool(t.Context(), "web")
			return err == nil && status.Members[0].Warning != "", "nothing is said of the name that cannot be looked up"
		})
		verdicts(w, "unknown up")
		if got := published.addresses(); got != "192.0.2.1 192.0.2.2" {
			t.Errorf("published: %s", got)
		}
	})
}
