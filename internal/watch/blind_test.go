package watch

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/beat"
	"upkeep/internal/probe"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// warnings are what was told of a pool, oldest first.
func (r *rig) warnings(object string) (texts []string) {
	r.t.Helper()
	events, err := r.Events(r.t.Context(), store.EventFilter{Kind: upkeep.EventWarning, Object: object})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		texts = append(texts, e.What+" ("+e.Why+")")
	}
	return texts
}

// TestBlindMonitorSaysSo: a monitor that is not allowed to ask any more says so
// once for all members of a pool, and that it can again.
func TestBlindMonitorSaysSo(t *testing.T) {
	r := newRig(t)
	r.declare(testZone(), testPool("192.0.2.1", "192.0.2.2"))
	both := func(n int, result probe.Result) {
		for _, m := range []string{"192.0.2.1", "192.0.2.2"} {
			r.prober.find(m, n, result)
		}
	}
	both(5, good)
	r.published("192.0.2.1 192.0.2.2")
	void := probe.Result{Void: true, Reason: "ping is not permitted"}
	told := func(n int, words string) {
		t.Helper()
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			both(1, void)
			got := r.warnings("pool/web")
			return len(got) == n && strings.Contains(got[n-1], words), fmt.Sprintf("%q", got)
		})
	}
	told(1, "192.0.2.1: ping is not permitted")
	status, err := r.Pool(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if said := strings.Join(status.Warnings, " "); !status.Members[1].Unchecked || !strings.Contains(said, "cannot be checked") || len(status.Published) != 2 {
		t.Errorf("shown as %+v", status)
	}
	both(1, good)
	void = good
	told(2, "can be checked again")
	void = probe.Result{Void: true, Reason: "the monitor stood still"}
	both(2, void)
	void = good
	told(2, "can be checked again") // a moment is no news
	void = probe.Result{Void: true, Reason: "ping is not permitted"}

	// After a restart nothing at all is learned: that is told at once.
	r.stop()
	r.start()
	told(3, "ping is not permitted")
}

// TestHeartbeatPortTaken: nobody can beat where another program listens, and that
// is not kept to the log.
func TestHeartbeatPortTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	engine, err := probe.New(probe.Options{HeartbeatListen: taken.LocalAddr().String(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	file := filepath.Join(t.TempDir(), "keys")
	id, err := beat.ParseID("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := beat.WriteKeys(file, beat.Credential{ID: id}); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	pool := testPool("192.0.2.1")
	pool.Check = upkeep.Check{Type: upkeep.CheckHeartbeat, KeyFile: file, Interval: upkeep.Duration(100 * time.Millisecond)}
	r.declare(testZone(), pool)
	engine.Set(r.prober.specs)
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		got := r.warnings("pool/web")
		return len(got) == 1 && strings.Contains(got[0], "in use"), fmt.Sprintf("%q", got)
	})
	engine.Set(nil)
}
