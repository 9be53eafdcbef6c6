package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// hosted is an upkeep in a process of its own, on a PostgreSQL of the test's own,
// that answers for a pool of listeners.
type hosted struct {
	*testing.T
	postgres *testkit.PostgresServer
	process  *testkit.Process
	data     string
	dns      string
	members  []string // addresses
	open     map[string]net.Listener
	serial   uint32 // the latest that was answered
}

func newHosted(t *testing.T) *hosted {
	net127, port, err := freeNetwork()
	if err != nil {
		t.Fatal(err)
	}
	// The path of the control socket is limited to 107 bytes.
	data, err := os.MkdirTemp("", "upkeep-db-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) }) // the process is killed before
	h := &hosted{T: t, postgres: testkit.NewPostgres(t), data: data, dns: net127 + ".53:" + port, open: map[string]net.Listener{}}
	t.Cleanup(func() {
		for _, l := range h.open {
			_ = l.Close()
		}
	})
	document := "kind: zone\nname: example.test\npublishers: [{type: transfer}]\n---\nkind: pool\nname: web\nzones: [example.test]\nrecords: [www]\n" +
		"check: {type: tcp, port: " + port + ", interval: 100ms, timeout: 90ms}\npolicy: {mass_failure: 1, probation: 1s, add_window: 0s}\nmembers:\n"
	for i := range 3 {
		address := fmt.Sprintf("%s.%d", net127, i+1)
		h.members = append(h.members, address)
		document += "  - " + address + "\n"
		h.up(address)
	}
	h.start()
	if _, err := client.OverSocket(h.data).Apply(t.Context(), []wire.Source{{File: "test.yaml", Text: document}}, false); err != nil {
		t.Fatal(err)
	}
	h.answers(h.members...)
	// A member that was never seen up is not counted as one that dies.
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		pool, err := client.OverSocket(h.data).Pool(t.Context(), "web")
		up := 0
		for _, m := range pool.Members {
			if m.Verdict == upkeep.Up {
				up++
			}
		}
		return up == len(h.members), fmt.Sprint(up, " are up; ", err)
	})
	return h
}

// start starts upkeep and waits until it can be talked to. It may be refused for
// a moment: the server may still hold the lock for the process that was killed.
func (h *hosted) start() {
	h.Helper()
	testkit.Eventually(h, time.Minute, func() (bool, string) {
		if h.process == nil || !h.process.Running() {
			h.process = startUpkeep(h.T, nil, "serve", "--data", h.data, "--db", h.postgres.DSN(), "--dns", h.dns, "--http", "")
		}
		_, err := client.OverSocket(h.data).Pools(h.Context())
		return err == nil, fmt.Sprint(err) + h.process.Log()
	})
}

func (h *hosted) up(address string) {
	h.Helper()
	_, port, err := net.SplitHostPort(h.dns)
	if err != nil {
		h.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, port))
	if err != nil {
		h.Fatal(err)
	}
	h.open[address] = listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
}

func (h *hosted) down(address string) {
	h.Helper()
	if err := h.open[address].Close(); err != nil {
		h.Fatal(err)
	}
	delete(h.open, address)
}

// answers waits until upkeep answers with these addresses, and holds that its
// serial never goes backwards meanwhile. It returns how long that took.
func (h *hosted) answers(want ...string) time.Duration {
	h.Helper()
	began := time.Now()
	testkit.Eventually(h, time.Minute, func() (bool, string) {
		if serial, known := h.soa(); known {
			if serial-h.serial > 1<<31 && h.serial != 0 {
				h.Fatalf("serial %d is answered after %d", serial, h.serial)
			}
			h.serial = serial
		}
		got, err := lookup(h.dns, "www.example.test")
		return err == nil && slices.Equal(got, want), fmt.Sprintf("answered %v, %v; want %v", got, err, want)
	})
	return time.Since(began)
}

// soa asks for the serial; it is not known while the zone is not answered.
func (h *hosted) soa() (serial uint32, known bool) {
	query := new(dns.Msg).SetQuestion("example.test.", dns.TypeSOA)
	answer, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(query, h.dns)
	if err != nil || len(answer.Answer) != 1 {
		return 0, false
	}
	return answer.Answer[0].(*dns.SOA).Serial, true
}

// spares are the zones that are kept beside the database.
func (h *hosted) spares() []string {
	found, err := filepath.Glob(filepath.Join(h.data, "zones", "*"))
	if err != nil {
		h.Fatal(err)
	}
	return found
}

// stored looks into the database as upkeep left it.
func (h *hosted) stored() (state string, events []upkeep.Event) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), time.Minute)
	defer cancel()
	s, err := store.Open(ctx, h.postgres.DSN())
	if err != nil {
		h.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	states, err := s.LoadStates(ctx, "pool/")
	if err != nil {
		h.Fatal(err)
	}
	if events, err = s.Events(ctx, store.EventFilter{}); err != nil {
		h.Fatal(err)
	}
	return string(states["pool/web"]), events
}

// caughtUp waits until everything that happened is in the database.
func (h *hosted) caughtUp(gone ...string) {
	h.Helper()
	testkit.Eventually(h, time.Minute, func() (bool, string) {
		state, events := h.stored()
		missing := ""
		for _, member := range gone {
			if !slices.ContainsFunc(events, func(e upkeep.Event) bool {
				return e.Kind == upkeep.EventVerdict && e.Object == "pool/web/"+member && e.What == "down"
			}) {
				missing += " the verdict on " + member
			}
			if !strings.Contains(state, `"gone":`) || !strings.Contains(state, `"`+member+`":{"at"`) {
				missing += " the departure of " + member
			}
		}
		if !slices.ContainsFunc(events, func(e upkeep.Event) bool { return strings.HasPrefix(e.What, "takes writes again") }) {
			missing += " that it was away"
		}
		if !slices.IsSortedFunc(events, func(a, b upkeep.Event) int { return a.At.Compare(b.At) }) {
			h.Logf("events are not in the order of their times: %v", events)
		}
		return missing == "" && len(h.spares()) == 0, fmt.Sprintf("missing:%s; beside the database: %v; state: %s", missing, h.spares(), state)
	})
}

// A PostgreSQL that hangs holds up neither decisions nor answers, and a kill in
// the middle of it does not let the serial go backwards.
func TestDatabaseThatHangs(t *testing.T) {
	t.Parallel()
	h := newHosted(t)
	h.postgres.Freeze(t)
	h.down(h.members[0])
	first := h.answers(h.members[1:]...)
	h.down(h.members[1])
	second := h.answers(h.members[2])
	t.Logf("answered without the first member after %s, without the second after %s", first, second)
	if len(h.spares()) == 0 {
		t.Error("nothing is kept beside the database that hangs")
	}
	h.process.Kill()
	h.postgres.Thaw(t)
	before := h.serial
	h.start()
	h.answers(h.members[2])
	if h.serial-before > 1<<31 {
		t.Errorf("serial %d after %d", h.serial, before)
	}

	// Once more, this time without a kill: all is caught up.
	h.up(h.members[0])
	h.up(h.members[1])
	h.answers(h.members...)
	h.postgres.Freeze(t)
	h.down(h.members[1])
	h.down(h.members[2])
	h.answers(h.members[0])
	h.postgres.Thaw(t)
	h.caughtUp(h.members[1], h.members[2])
	if !h.process.Running() {
		t.Errorf("upkeep has ended: %s", h.process.Log())
	}
}

// A PostgreSQL that is gone altogether, and comes back.
func TestDatabaseThatGoesAway(t *testing.T) {
	t.Parallel()
	h := newHosted(t)
	h.postgres.Stop(t)
	h.down(h.members[0])
	h.answers(h.members[1:]...)
	h.down(h.members[1])
	h.answers(h.members[2])
	h.postgres.Start(t)
	h.caughtUp(h.members[:2]...)
	h.up(h.members[0])
	h.up(h.members[1])
	h.answers(h.members...)
	if !h.process.Running() {
		t.Errorf("upkeep has ended: %s", h.process.Log())
	}
}
