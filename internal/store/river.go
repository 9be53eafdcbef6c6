package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	"github.com/uptrace/bun"
)

// River is what the queue engine (riverqueue.com) needs of the database: a driver
// on the connections that changes are made with, so that its rows are written in
// their transactions, and a way to be woken.
type River struct {
	driver riverdriver.Driver[*sql.Tx]
	nudges *nudges       // for SQLite
	listen *pgxpool.Pool // for PostgreSQL
}

// River prepares the database for River, bringing its tables up to date.
func (s *Store) River(ctx context.Context, log *slog.Logger) (*River, error) {
	r := &River{}
	switch d := s.dialect.(type) {
	case sqliteDialect:
		r.nudges = newNudges()
		r.driver = plainSQLite{riversqlite.New(s.write.DB), r.nudges}
	case postgresDialect:
		config, err := pgxpool.ParseConfig(d.dsn)
		if err != nil {
			return nil, fmt.Errorf("reading the address of the database: %w", err)
		}
		// River takes the one connection out of the pool and keeps it.
		config.MaxConns, config.MinConns = 1, 0
		config.ConnConfig.RuntimeParams["application_name"] = "upkeep listens"
		if r.listen, err = pgxpool.NewWithConfig(ctx, config); err != nil {
			return nil, s.explain("connecting to listen for jobs", err)
		}
		r.driver = riverdatabasesql.NewWithPgxListener(s.write.DB, r.listen)
	}
	migrator, err := rivermigrate.New(r.driver, &rivermigrate.Config{Logger: log})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		r.Close()
		return nil, s.explain("bringing the tables of River up to date", err)
	}
	return r, nil
}

// RiverClient is River on either database.
type RiverClient = river.Client[*sql.Tx]

// Client makes a client of River.
func (r *River) Client(config *river.Config) (*RiverClient, error) {
	return river.NewClient(r.driver, config)
}

// Close gives connections back that were for River alone. River must have been
// stopped.
func (r *River) Close() {
	if r.listen != nil {
		r.listen.Close()
	}
}

// Notify wakes the workers of queues when the transaction commits. River itself
// does so only once in each FetchCooldown of a queue: what is inserted by a second
// transaction within that time would wait for the next poll. On SQLite it does
// nothing, see [River.Nudge].
func (r *River) Notify(ctx context.Context, tx Tx, queues []string) error {
	if r.nudges != nil {
		return nil
	}
	payloads := make([]string, len(queues))
	for i, queue := range queues {
		payloads[i] = insertPayload(queue)
	}
	return r.driver.UnwrapExecutor(tx.SQL()).NotifyMany(ctx, &riverdriver.NotifyManyParams{Payload: payloads, Topic: insertTopic})
}

// Nudge wakes the workers of queues after a transaction was committed, where the
// database does not do that itself.
func (r *River) Nudge(queues []string) {
	if r.nudges != nil {
		r.nudges.add(queues)
	}
}

// insertTopic and insertPayload are what River's producers listen to (package
// notifier and producer.go of River v0.51).
const insertTopic = "river_insert"

func insertPayload(queue string) string { return fmt.Sprintf("{\"queue\": %q}", queue) }

// clearRiver forgets what River was doing and who led: its rows say nothing that
// the jobs do not say, and are written anew from them. Left alone, River would
// take up what a killed process had begun only after the lease of that process
// has lapsed, some 20 s later.
func clearRiver(ctx context.Context, tx bun.Tx) error {
	for _, statement := range []string{"DELETE FROM river_leader", "DELETE FROM river_job"} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// plainSQLite is River's SQLite driver without two things that cost more than
// jobs themselves. Its notifications are rows of a table that is polled each
// 50 ms: 20 queries a second for nothing, and 50 ms late; one process alone works
// on the file, so it can be told directly. And it completes rows one at a time,
// at 0.4 ms each.
type plainSQLite struct {
	*riversqlite.Driver
	nudges *nudges
}

// GetListener returns the way in for nudges.
func (d plainSQLite) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener {
	return d.nudges
}

// SupportsListener reports that there is a listener.
func (plainSQLite) SupportsListener() bool { return true }

// SupportsListenNotify reports that the database itself tells nobody.
func (plainSQLite) SupportsListenNotify() bool { return false }

// GetExecutor returns River's way to its tables.
func (d plainSQLite) GetExecutor() riverdriver.Executor {
	return plainExecutor{d.Driver.GetExecutor()}
}

// plainExecutor deletes calls that were answered, all in one statement, where
// River would mark each of them and delete it later: nobody looks at them.
type plainExecutor struct{ riverdriver.Executor }

// JobSetStateIfRunningMany is how River says what became of calls.
func (e plainExecutor) JobSetStateIfRunningMany(ctx context.Context, p *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	other := slices.ContainsFunc(p.State, func(s rivertype.JobState) bool { return s != rivertype.JobStateCompleted })
	if other {
		return e.Executor.JobSetStateIfRunningMany(ctx, p)
	}
	ids, err := json.Marshal(p.ID)
	if err != nil {
		return nil, err
	}
	// River takes rows that it is not told of for deleted ones, which they are.
	return nil, e.Exec(ctx, "DELETE FROM river_job WHERE id IN (SELECT value FROM json_each(?)) AND state = 'running'", string(ids))
}

// nudges is a listener inside the process, which holds each queue at most once.
type nudges struct {
	mu     sync.Mutex
	queues []string
	some   chan struct{} // has an element while there are queues
}

func newNudges() *nudges { return &nudges{some: make(chan struct{}, 1)} }

func (n *nudges) add(queues []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, queue := range queues {
		if !slices.Contains(n.queues, queue) {
			n.queues = append(n.queues, queue)
		}
	}
	n.signal()
}

func (n *nudges) signal() {
	if len(n.queues) == 0 {
		return
	}
	select {
	case n.some <- struct{}{}:
	default:
	}
}

func (n *nudges) take() (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queues) == 0 {
		return "", false
	}
	queue := n.queues[0]
	n.queues = n.queues[1:]
	n.signal()
	return queue, true
}

// WaitForNotification waits for a nudge.
func (n *nudges) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-n.some:
		}
		if queue, is := n.take(); is {
			return &riverdriver.Notification{Topic: insertTopic, Payload: insertPayload(queue)}, nil
		}
	}
}

func (n *nudges) Close(context.Context) error { return nil }

// Connect has nothing to connect to, and the rest of a listener's methods nothing
// to do.
func (n *nudges) Connect(context.Context) error { return nil }

// Listen is for topics that nobody else speaks on.
func (n *nudges) Listen(context.Context, string) error { return nil }

// Ping finds the listener alive.
func (n *nudges) Ping(context.Context) error { return nil }

// Schema is the default one.
func (n *nudges) Schema() string { return "" }

// SetAfterConnectExec is for River's own tests.
func (n *nudges) SetAfterConnectExec(string) {}

// Unlisten is the end of Listen.
func (n *nudges) Unlisten(context.Context, string) error { return nil }
