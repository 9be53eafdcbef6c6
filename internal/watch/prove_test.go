package watch

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
	"upkeep/internal/zone"
)

// How long a server took is one figure, wherever it is told.
func TestLagIsOneFigure(t *testing.T) {
	journal, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "zones.db"))
	if err != nil {
		t.Fatal(err)
	}
	dns, err := zone.NewServer(zone.ServerOptions{Listen: []string{"127.0.0.1:0"}, Journal: journal, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(dns.Close(), journal.Close()); err != nil {
			t.Error(err)
		}
	})
	r := newRigWith(t, func(_ *Watch, z upkeep.Zone, p upkeep.Publisher) (zone.Publisher, error) {
		return dns.Publisher(t.Context(), z, p)
	})
	z := testZone()
	z.Servers = []string{dns.Addr().String()}
	r.declare(z, testPool("192.0.2.1", "192.0.2.2"))
	proof := ""
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		events, err := r.Events(t.Context(), store.EventFilter{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Kind == upkeep.EventProof && strings.HasPrefix(e.What, "every server answers serial ") {
				proof = e.What
			}
		}
		return proof != "", fmt.Sprint(events)
	})
	zones, err := r.Zones(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range zones {
		if lag := time.Duration(status.Servers[0].Lag).Round(time.Millisecond).String(); !strings.HasSuffix(proof, fmt.Sprintf("serial %d, %s after it was published", status.Servers[0].Serial, lag)) {
			t.Errorf("the zone's status has %s, and the event: %s", lag, proof)
		}
	}
}
