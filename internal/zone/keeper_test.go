package zone

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/testkit"
)

// stuckJournal hangs while it is stuck, as a database does that was stopped.
type stuckJournal struct {
	MemoryJournal
	stuck atomic.Bool
}

func (j *stuckJournal) SaveZone(ctx context.Context, zone string, content, delta []byte, keep int) error {
	if j.stuck.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return j.MemoryJournal.SaveZone(ctx, zone, content, delta, keep)
}

func servedSerial(t *testing.T, s *Server) uint32 {
	t.Helper()
	got := ask(t, s, "udp", "example.test.", dns.TypeSOA)
	if len(got.Answer) != 1 {
		t.Fatalf("SOA is answered with %v", got)
	}
	return got.Answer[0].(*dns.SOA).Serial
}

// While the journal hangs a new content is answered soon, and a restart goes on
// from the serial that was answered last.
func TestJournalThatHangs(t *testing.T) {
	journal, spare := &stuckJournal{}, filepath.Join(t.TempDir(), "zones")
	s := startServer(t, ServerOptions{Journal: journal, Spare: spare})
	p := mustPublisher(t, s, upkeep.Publisher{})
	mustPublish(t, p, webContent("192.0.2.1", "192.0.2.2", "192.0.2.3"))
	journal.stuck.Store(true)
	began := time.Now()
	mustPublish(t, p, webContent("192.0.2.2", "192.0.2.3"))
	serial := mustPublish(t, p, webContent("192.0.2.3"))
	if took := time.Since(began); took > journalLimit/2 {
		t.Errorf("two publishes took %s", took)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// The journal knows nothing of it, and still hangs.
	again := startServer(t, ServerOptions{Journal: journal, Spare: spare})
	p = mustPublisher(t, again, upkeep.Publisher{})
	if got := servedSerial(t, again); got != serial {
		t.Errorf("after a restart serial %d is answered, before it was %d", got, serial)
	}
	if same := mustPublish(t, p, webContent("192.0.2.3")); same != serial {
		t.Errorf("the same content got serial %d after %d", same, serial)
	}
	if got := ask(t, again, "udp", "www.example.test.", dns.TypeA); len(got.Answer) != 1 {
		t.Errorf("after a restart the answer is %v", got.Answer)
	}
	journal.stuck.Store(false)
	if err := again.Close(); err != nil { // ends the attempt that hangs
		t.Fatal(err)
	}

	last := startServer(t, ServerOptions{Journal: journal, Spare: spare})
	p = mustPublisher(t, last, upkeep.Publisher{})
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		content, _, err := journal.LoadZone(t.Context(), "example.test")
		if err != nil {
			t.Fatal(err)
		}
		v, err := decodeVersion("example.test.", content)
		if err != nil {
			t.Fatal(err)
		}
		left, err := filepath.Glob(filepath.Join(spare, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return v.serial == serial && len(left) == 0, "not caught up; left: " + strings.Join(left, " ")
	})
	if next := mustPublish(t, p, webContent("192.0.2.4")); !SerialLess(serial, next) {
		t.Errorf("serial %d after %d", next, serial)
	}
}

// What lies beside the journal counts only where it is newer and whole.
func TestOldOrBrokenSpareIsPassedOver(t *testing.T) {
	for name, content := range map[string]func(older []byte) []byte{
		"older":  func(older []byte) []byte { return older },
		"broken": func([]byte) []byte { return []byte("upkeep zone 1\n\x07") },
		"empty":  func([]byte) []byte { return []byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			journal, spare := &MemoryJournal{}, t.TempDir()
			s := startServer(t, ServerOptions{Journal: journal, Spare: spare})
			p := mustPublisher(t, s, upkeep.Publisher{})
			mustPublish(t, p, webContent("192.0.2.1"))
			older, _, err := journal.LoadZone(t.Context(), "example.test")
			if err != nil {
				t.Fatal(err)
			}
			serial := mustPublish(t, p, webContent("192.0.2.2"))
			path := filepath.Join(spare, "example.test")
			if err := os.WriteFile(path, content(older), 0o600); err != nil {
				t.Fatal(err)
			}
			again := startServer(t, ServerOptions{Journal: journal, Spare: spare})
			p = mustPublisher(t, again, upkeep.Publisher{})
			if got := servedSerial(t, again); got != serial {
				t.Errorf("serial %d is answered, the journal has %d", got, serial)
			}
			mustPublish(t, p, webContent("192.0.2.3"))
			testkit.Eventually(t, time.Minute, func() (bool, string) {
				_, err := os.Stat(path)
				return os.IsNotExist(err), "the file is still there"
			})
		})
	}
}

// A database that was put back from a copy, or that was away when the last
// contents were answered, remembers an older serial than secondaries have. They
// would never take the zone from upkeep again.
func TestForgottenSerialIsPassed(t *testing.T) {
	now := &testClock{now: time.Unix(1795465266, 0)}
	journal := &MemoryJournal{}
	first := startServer(t, ServerOptions{Journal: journal, Now: now.Now})
	remembered := mustPublish(t, mustPublisher(t, first, upkeep.Publisher{}), webContent("192.0.2.1"))
	for name, tt := range map[string]struct {
		secondary time.Time // whose clock gives the serial that the secondary has
		passed    bool
	}{
		"in step":           {time.Unix(int64(remembered), 0), false},
		"ahead":             {time.Unix(int64(remembered)+1000, 0), true},
		"another numbering": {time.Unix(2026112601, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			clock := &testClock{now: tt.secondary}
			secondary := startServer(t, ServerOptions{Now: clock.Now})
			seen := mustPublish(t, mustPublisher(t, secondary, upkeep.Publisher{}), webContent("192.0.2.9"))

			later := &testClock{now: time.Unix(int64(remembered)+5000, 0)}
			s := startServer(t, ServerOptions{Journal: journal.clone(), Now: later.Now})
			p := mustPublisher(t, s, upkeep.Publisher{})
			content := webContent("192.0.2.1")
			content.Zone.Servers = []string{secondary.Addr().String()}
			serial := mustPublish(t, p, content)
			if passed := serial != remembered; passed != tt.passed || passed && !SerialLess(seen, serial) {
				t.Errorf("serial %d after %d, while the secondary has %d", serial, remembered, seen)
			}
			if again := mustPublish(t, p, content); again != serial {
				t.Errorf("the same content got serial %d after %d", again, serial)
			}
		})
	}
}

// clone is a copy from which a test may go on in several ways.
func (m *MemoryJournal) clone() *MemoryJournal {
	m.mu.Lock()
	defer m.mu.Unlock()
	zones := map[string]journaled{}
	for name, kept := range m.zones {
		zones[name] = kept
	}
	return &MemoryJournal{zones: zones}
}

// Whatever a database or a disk gives back, reading it does not end the process.
func FuzzJournal(f *testing.F) {
	next, err := newVersion("example.test.", 7, []dns.RR{
		&dns.SOA{Hdr: dns.RR_Header{Name: "example.test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "ns1.example.test.", Mbox: "a.example.test."},
	})
	if err != nil {
		f.Fatal(err)
	}
	content, err := encodeRecords(next.zone.Records())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add(append(content, content[len(formMark):]...))
	f.Add(formMark)
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := decodeVersion("example.test.", b); err == nil && v.zone.SOA().Serial != v.serial {
			t.Errorf("serial %d is answered as %d", v.serial, v.zone.SOA().Serial)
		}
		if d, err := decodeDelta(b); err == nil && len(d.records) < 2 {
			t.Errorf("a step of %d records", len(d.records))
		}
	})
}
