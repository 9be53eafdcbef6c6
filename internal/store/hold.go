package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"upkeep"
)

// controlLock is the key of the lock that the deciding process holds.
const controlLock int64 = writersLock + 1

// holdEvery is how often a holder makes sure that it still is one.
const holdEvery = 5 * time.Second

// Hold is the right to decide on what a database holds: two processes that
// publish from one database would undo each other's work.
type Hold struct {
	store  *Store
	cancel context.CancelFunc
	ended  sync.WaitGroup
	lost   chan struct{}
	conn   *sql.Conn // carries the lock; nil while the database is away, and for SQLite
	pid    int       // of the server's process at the other end of conn, and of the last one
	file   *os.File  // carries the lock for SQLite
}

// Hold takes the right to decide, or fails with [upkeep.ErrConflict] while
// another process has it. While the database is away the holder goes on, since
// DNS must; when it is back it takes the right again.
func (s *Store) Hold(ctx context.Context) (h *Hold, err error) {
	h = &Hold{store: s, lost: make(chan struct{})}
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.cancel = cancel
	if d, is := s.dialect.(sqliteDialect); is {
		cancel()
		if h.file, err = d.hold(); err != nil {
			return nil, s.explain("taking hold of the database", err)
		}
		return h, nil
	}
	taken, err := h.take(ctx)
	if err == nil && !taken {
		err = upkeep.WithHint(fmt.Errorf("another upkeep works on it: %w", upkeep.ErrConflict),
			"stop that one first; after a crash of its machine, its connection ends with the server's TCP keepalive")
	}
	if err != nil {
		cancel()
		return nil, s.explain("taking hold of the database", err)
	}
	h.ended.Go(func() { h.keep(watch) })
	return h, nil
}

// Lost is closed when another process has taken the right to decide.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Release gives the right back.
func (h *Hold) Release() error {
	h.cancel()
	h.ended.Wait()
	if h.file != nil {
		return h.file.Close()
	}
	if h.conn == nil {
		return nil
	}
	// Back in the pool the connection would go on holding the lock.
	_, err := h.conn.ExecContext(context.Background(), "SELECT pg_advisory_unlock($1::bigint)", controlLock)
	if closing := h.conn.Close(); err == nil {
		err = closing
	}
	return h.store.explain("letting go of the database", err)
}

// take tries to get the lock on a connection of its own.
func (h *Hold) take(ctx context.Context) (taken bool, err error) {
	conn, err := h.store.write.DB.Conn(ctx)
	if err != nil {
		return false, err
	}
	pid := 0
	const ask = "SELECT pg_try_advisory_lock($1::bigint), pg_backend_pid()"
	if err = conn.QueryRowContext(ctx, ask, controlLock).Scan(&taken, &pid); err == nil && taken {
		h.conn, h.pid = conn, pid
		return true, nil
	}
	if err == nil && h.pid != 0 {
		// A server that hung may not have noticed yet that our connection is gone,
		// and hold the lock for it: then nobody has taken over.
		var ours bool
		if err = conn.QueryRowContext(ctx, holderIs, h.pid, uint32(controlLock>>32), uint32(controlLock&0xffffffff)).Scan(&ours); err == nil && ours {
			err = errStale
		}
	}
	if closing := conn.Close(); err == nil {
		err = closing
	}
	return false, err
}

// holderIs asks whether a server process holds the lock; pg_locks shows a key of
// 64 bits in two halves (PostgreSQL manual, section 53.13).
const holderIs = `SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
	AND pid = $1::int AND classid = $2::bigint::oid AND objid = $3::bigint::oid)`

var errStale = errors.New("the server has not noticed yet that the last connection is gone")

// keep asks over the connection now and then, and takes the lock anew when the
// connection broke.
func (h *Hold) keep(ctx context.Context) {
	tick := time.NewTicker(holdEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asking, done := context.WithTimeout(ctx, holdEvery)
		if h.conn != nil && h.conn.PingContext(asking) != nil && ctx.Err() == nil {
			_ = h.conn.Close() // broken already
			h.conn = nil
		}
		if h.conn == nil {
			if taken, err := h.take(asking); err == nil && !taken {
				done()
				close(h.lost)
				return
			}
		}
		done()
	}
}
