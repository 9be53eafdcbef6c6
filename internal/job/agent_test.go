package job_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/job"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// onBoth runs a test on each database.
func onBoth(t *testing.T, run func(t *testing.T, dsn string)) {
	t.Run("SQLite", func(t *testing.T) { run(t, "sqlite:"+filepath.Join(t.TempDir(), "upkeep.db")) })
	t.Run("Postgres", func(t *testing.T) { run(t, testkit.Postgres(t)) })
}

type edPublic = ed25519.PublicKey

// testKey signs in all tests, and in the processes that they start.
func testKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

// control is a store with a dispatcher, and servers and an account that are
// declared.
type control struct {
	*job.Dispatcher
	store *store.Store
}

// open opens what is there; it is closed at the end of the test.
func open(t testing.TB, dsn string) *control {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	d, err := job.New(ctx, job.Config{Store: s, Key: testKey(), Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c := &control{d, s}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return c
}

type testLog struct{ testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.Logf("%s", p)
	return len(p), nil
}

// start is open with web1, web2 and files1 declared, and the account acme.
func start(t testing.TB, dsn string) *control {
	t.Helper()
	c := open(t, dsn)
	c.put(t, server("web1"), server("web2"), server("files1"), upkeep.Account{Name: "acme", UID: 20001})
	return c
}

func server(name string) upkeep.Server {
	return upkeep.Server{Name: name, Roles: []string{upkeep.RoleWeb, upkeep.RoleFiles}}
}

func site(name string, servers ...string) upkeep.Site {
	return upkeep.Site{Name: name, Account: "acme", Servers: servers}
}

func (c *control) put(t testing.TB, objects ...upkeep.Object) {
	t.Helper()
	if _, err := c.store.Apply(context.Background(), "uid 0", store.Change{Put: objects}); err != nil {
		t.Fatal(err)
	}
}

// agent is an agent that keeps what it was sent, and does it by its do.
type agent struct {
	server string
	conn   link.Conn
	do     func(link.Job) link.Outcome

	mu        sync.Mutex
	jobs      []link.Job
	cancelled []int64
	over      chan error // of the control's side
}

// connect links an agent to control. With no do, everything is done at once.
func connect(t testing.TB, c *control, server string, do func(link.Job) link.Outcome) *agent {
	t.Helper()
	if do == nil {
		do = func(j link.Job) link.Outcome { return link.Outcome{ID: j.ID, State: upkeep.JobDone} }
	}
	ours, theirs := link.Pipe()
	a := &agent{server: server, conn: theirs, do: do, over: make(chan error, 1)}
	var both sync.WaitGroup
	both.Go(func() {
		a.over <- c.Serve(context.Background(), server, link.Hello{Version: "test", Protocol: link.Protocol}, ours)
	})
	both.Go(func() { a.run(t) })
	t.Cleanup(func() {
		_ = theirs.Close()
		both.Wait()
	})
	return a
}

// run does each job as it comes, without waiting for the one before.
func (a *agent) run(t testing.TB) {
	ctx := context.Background()
	var busy sync.WaitGroup
	defer busy.Wait()
	for {
		message, err := a.conn.Receive(ctx)
		if err != nil {
			return
		}
		if message.Cancel != nil {
			a.mu.Lock()
			a.cancelled = append(a.cancelled, message.Cancel.ID)
			a.mu.Unlock()
		}
		if message.Job == nil {
			continue
		}
		j, err := link.Open(testKey().Public().(edPublic), a.server, time.Now(), *message.Job)
		if err != nil {
			t.Error(err)
			continue
		}
		a.mu.Lock()
		a.jobs = append(a.jobs, j)
		a.mu.Unlock()
		busy.Go(func() {
			if outcome := a.do(j); outcome.ID != 0 {
				_ = a.conn.Send(ctx, link.Message{Outcome: &outcome}) // the link may be gone
			}
		})
	}
}

// sent are the jobs that came, as "kind object generation".
func (a *agent) sent() (texts []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range a.jobs {
		texts = append(texts, fmt.Sprintf("%s %s %d", j.Kind, j.Object, j.Generation))
	}
	return texts
}

func mkdir(i int) store.NewJob {
	payload := fmt.Sprintf(`{"root":"home","path":"acme/d%d","owner":"acme","group":"acme","mode":"0750"}`, i)
	return store.NewJob{
		Job:     upkeep.Job{Account: "acme", Server: "web1", Kind: upkeep.JobMkdir, Object: fmt.Sprintf("dir/home/acme/d%d", i), Who: "uid 0"},
		Payload: json.RawMessage(payload),
	}
}

// states counts jobs by state.
func (c *control) states(t testing.TB, f store.JobFilter) map[upkeep.JobState]int {
	t.Helper()
	jobs, err := c.List(context.Background(), f)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[upkeep.JobState]int{}
	for _, j := range jobs {
		counts[j.State]++
	}
	return counts
}

// until waits until the jobs of a filter are in these numbers of states.
func (c *control) until(t testing.TB, f store.JobFilter, want map[upkeep.JobState]int) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		got := c.states(t, f)
		return fmt.Sprint(got) == fmt.Sprint(want), fmt.Sprintf("%v, want %v", got, want)
	})
}
