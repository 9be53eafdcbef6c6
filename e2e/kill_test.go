package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
)

// kills is how often upkeep is killed; UPKEEP_E2E_KILLS asks for more.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("UPKEEP_E2E_KILLS")
	if text == "" {
		return 200
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("UPKEEP_E2E_KILLS=%s is not a number of kills", text)
	}
	return n
}

// upkeep is killed at random instants while members come and go and documents
// are applied. Each time the includes must be whole as they are found, what was
// declared must be the old or the new document, and no event may be lost.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	killAtRandom(t, kills(t))
}

// The same with PostgreSQL as the database.
func TestKilledAtRandomOnPostgres(t *testing.T) {
	t.Parallel()
	killAtRandom(t, (kills(t)+2)/3, "--db", testkit.Postgres(t))
}

func killAtRandom(t *testing.T, kills int, flags ...string) {
	s := newSite(t, 5)
	zone := s.bindPrimary(s.path("include"), 1)
	s.watch()
	s.serve(append(flags, "--http", "")...)
	document := func(ttl int) string {
		return zone + strings.Replace(s.pool("web", checkTCP, owners...), "check:", fmt.Sprintf("ttl: %ds\ncheck:", ttl), 1)
	}
	s.apply(document(60))
	s.expect(addrs(s.members)...)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	stopFlapping := s.flap(rand.New(rand.NewPCG(seed, 1)))
	defer stopFlapping()
	applied := map[upkeep.Duration]bool{upkeep.Duration(time.Minute): true} // what may be declared now
	var lastEvent int64
	for i := range kills {
		// From before it is up to well into a publish. Most lives are short, for that
		// is where most of what can go wrong is: several kills a second.
		longest := 300 * time.Millisecond
		if i%4 == 0 {
			longest = 1200 * time.Millisecond
		}
		uptime := time.Duration(random.Int64N(int64(longest)))
		ttl := 30 + random.IntN(60)
		applying := make(chan error, 1)
		go func() { applying <- s.applyWhile(document(ttl), uptime) }()
		<-time.After(uptime)
		s.upkeep.Kill()
		if taken := <-applying; taken == nil {
			applied = map[upkeep.Duration]bool{seconds(ttl): true}
		} else {
			applied[seconds(ttl)] = true // may have been taken all the same
		}
		s.includesWhole()
		s.start()
		if i%8 == 7 || i == kills-1 { // most of the kills meet it while it starts or publishes
			s.awaitUp()
			lastEvent = s.nothingLost(applied, lastEvent)
		}
		if t.Failed() {
			t.Fatalf("after kill %d", i+1)
		}
	}
	stopFlapping()
	s.awaitUp()
	s.expect(addrs(s.members)...)
	s.apply(document(60))
	s.expect(addrs(s.members)...)
	s.whole()
	// It still does its work.
	m := s.members[0]
	m.close()
	s.expect(addrs(s.members, m)...)
}

func seconds(n int) upkeep.Duration { return upkeep.Duration(time.Duration(n) * time.Second) }

// applyWhile applies a document over and over from the time that upkeep can be
// reached, until it is taken or the time is over.
func (s *site) applyWhile(document string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience+time.Second)
	defer cancel()
	for {
		_, err := client.OverSocket(s.data).Apply(ctx, []wire.Source{{File: "x.yaml", Text: document}}, false)
		if err == nil || ctx.Err() != nil || !s.upkeep.Running() {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
}

// flap has members fail and return at random until it is stopped, with all of
// them alive again then.
func (s *site) flap(random *rand.Rand) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			m := s.members[random.IntN(len(s.members))]
			if random.IntN(2) == 0 {
				m.close()
			} else {
				m.serve(s.t)
			}
			select {
			case <-time.After(time.Duration(random.Int64N(int64(500 * time.Millisecond)))):
			case <-ctx.Done():
			}
		}
		for _, m := range s.members {
			m.serve(s.t)
		}
	})
	return func() { cancel(); done.Wait() }
}

// nothingLost asserts that the pool is declared as one of the documents that may
// be, and that the newest event known is still there. It returns the newest now.
func (s *site) nothingLost(may map[upkeep.Duration]bool, lastEvent int64) int64 {
	s.t.Helper()
	ctx := context.Background()
	status, err := s.control().Pool(ctx, "web")
	if err != nil {
		s.t.Errorf("the pool is lost: %v", err)
		return lastEvent
	}
	if !may[status.TTL] || len(status.Members) != len(s.members) {
		s.t.Errorf("the pool is declared with TTL %s and %d members; TTL may be any of %v", status.TTL, len(status.Members), may)
	}
	if len(status.Published) == 0 {
		s.t.Errorf("nothing is published: %s", status.Reason)
	}
	events, err := s.control().Events(ctx, client.EventFilter{After: max(0, lastEvent-1), Limit: 1000})
	s.must(err)
	newest := lastEvent
	found := lastEvent == 0
	for _, e := range events {
		found = found || e.ID == lastEvent
		newest = max(newest, e.ID)
	}
	if !found {
		s.t.Errorf("event %d is lost", lastEvent)
	}
	return newest
}
