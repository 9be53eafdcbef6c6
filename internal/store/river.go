package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

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
	nudges nudges
}

// River prepares the database for River, bringing its tables up to date.
func (s *Store) River(ctx context.Context, log *slog.Logger) (*River, error) {
	r := &River{nudges: make(nudges, 1)}
	switch s.dialect.(type) {
	case sqliteDialect:
		r.driver = riverSQLite{riversqlite.New(s.write.DB), r.nudges}
	case postgresDialect:
		r.driver = riverPostgres{riverdatabasesql.New(s.write.DB), r.nudges}
	}
	migrator, err := rivermigrate.New(r.driver, &rivermigrate.Config{Logger: log})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
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

// Nudge has [CallQueue] looked into, after the transaction that put something
// there was committed.
func (r *River) Nudge() { r.nudges.nudge() }

// CallQueue is the one queue that is used of River.
const CallQueue = "calls"

// insertTopic and insertPayload are what River's producers listen to (package
// notifier and producer.go of River v0.51).
const (
	insertTopic   = "river_insert"
	insertPayload = `{"queue": "` + CallQueue + `"}`
)

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

// riverSQLite and riverPostgres are River's drivers, woken from inside the
// process: one process alone works on a database, see [Store.Hold], so it can be
// told directly. River's own ways were turned down. On SQLite, a table is polled
// each 50 ms: 20 queries a second for nothing, and 50 ms late. On PostgreSQL, a
// second notification of a queue within the FetchCooldown is not sent, and one
// that is sent while the connection that listens is made anew is lost; either
// waits for the next poll.
type riverSQLite struct {
	*riversqlite.Driver
	nudges nudges
}

// GetListener returns the way in for nudges.
func (d riverSQLite) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener {
	return d.nudges
}

// SupportsListener reports that there is a listener.
func (riverSQLite) SupportsListener() bool { return true }

// SupportsListenNotify reports that the database itself tells nobody.
func (riverSQLite) SupportsListenNotify() bool { return false }

// GetExecutor returns River's way to its tables.
func (d riverSQLite) GetExecutor() riverdriver.Executor {
	return sqliteExecutor{executor{d.Driver.GetExecutor(), d.nudges}}
}

type riverPostgres struct {
	*riverdatabasesql.Driver
	nudges nudges
}

// GetListener returns the way in for nudges.
func (d riverPostgres) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener {
	return d.nudges
}

// SupportsListener reports that there is a listener.
func (riverPostgres) SupportsListener() bool { return true }

// SupportsListenNotify reports that the database itself tells nobody.
func (riverPostgres) SupportsListenNotify() bool { return false }

// GetExecutor returns River's way to its tables.
func (d riverPostgres) GetExecutor() riverdriver.Executor {
	return executor{d.Driver.GetExecutor(), d.nudges}
}

// executor is River's way to its tables.
type executor struct {
	riverdriver.Executor
	nudges nudges
}

// retryFetch is how soon a queue is looked into again when that failed.
const retryFetch = time.Second

// JobGetAvailable is how River looks into a queue. When that fails, it would wait
// for the next poll.
func (e executor) JobGetAvailable(ctx context.Context, p *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	result, err := e.Executor.JobGetAvailable(ctx, p)
	if err != nil {
		time.AfterFunc(retryFetch, e.nudges.nudge)
	}
	return result, err
}

// sqliteExecutor deletes calls that were answered, all in one statement. River
// completes rows one at a time on SQLite, 0.4 ms each, which was more than half
// of what a job cost, and deletes them later; nobody looks at them.
type sqliteExecutor struct{ executor }

// JobSetStateIfRunningMany is how River says what became of calls.
func (e sqliteExecutor) JobSetStateIfRunningMany(ctx context.Context, p *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
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

// nudges is a listener inside the process, with an element while there is
// something to look for.
type nudges chan struct{}

func (n nudges) nudge() {
	select {
	case n <- struct{}{}:
	default:
	}
}

// WaitForNotification waits for a nudge.
func (n nudges) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n:
		return &riverdriver.Notification{Topic: insertTopic, Payload: insertPayload}, nil
	}
}

func (n nudges) Close(context.Context) error { return nil }

// Connect has nothing to connect to, and the rest of a listener's methods nothing
// to do.
func (n nudges) Connect(context.Context) error { return nil }

// Listen is for topics that nobody else speaks on.
func (n nudges) Listen(context.Context, string) error { return nil }

// Ping finds the listener alive.
func (n nudges) Ping(context.Context) error { return nil }

// Schema is the default one.
func (n nudges) Schema() string { return "" }

// SetAfterConnectExec is for River's own tests.
func (n nudges) SetAfterConnectExec(string) {}

// Unlisten is the end of Listen.
func (n nudges) Unlisten(context.Context, string) error { return nil }
