package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"upkeep"
)

type sqliteDialect struct{ path string }

// Pragmas belong in the address: a pool opens connections when it likes, and one
// set on a single connection would silently miss the others. busy_timeout comes
// first, because setting the journal mode may already have to wait.
//
// synchronous is FULL, which in WAL mode is one fsync at each commit: with
// NORMAL the last commits are lost at a power cut, and upkeep has told people
// that they were made.
const sqlitePragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
	"&_pragma=journal_size_limit(67108864)"

func openSQLite(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	d := sqliteDialect{path}
	if err := d.create(); err != nil {
		return nil, d.explain(fmt.Errorf("creating the database %s: %w", path, err))
	}
	file := "file:" + (&url.URL{Path: path}).EscapedPath() + "?"
	// immediate: a transaction that begins by reading and then writes would
	// otherwise fail, not wait, when another writer was faster.
	write, err := sql.Open("sqlite", file+sqlitePragmas+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", path, err)
	}
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", file+"mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database %s: %w", path, err), write.Close())
	}
	read.SetMaxOpenConns(max(4, runtime.NumCPU()))
	read.SetConnMaxIdleTime(time.Minute)
	s := &Store{
		write: bun.NewDB(write, sqlitedialect.New()), read: bun.NewDB(read, sqlitedialect.New()), dialect: d, now: time.Now,
	}
	if err := d.check(ctx, write); err != nil {
		return nil, errors.Join(d.explain(fmt.Errorf("opening the database %s: %w", path, err)), s.Close())
	}
	return s, nil
}

// create makes an empty file that only its owner can read; SQLite gives its
// side files the same mode. A file that exists is left to SQLite: opening and
// closing it here would drop the locks that this process holds on it (POSIX
// locks belong to the process, not to the descriptor).
func (d sqliteDialect) create() error {
	file, err := os.OpenFile(d.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return file.Close()
}

// check reads the whole file once, so that damage is found at the start and not
// in the middle of a failover.
func (d sqliteDialect) check(ctx context.Context, db *sql.DB) error {
	var result string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&result); err != nil {
		return err
	}
	if result != "ok" {
		return &damagedError{strings.TrimPrefix(result, "*** in database main ***\n")}
	}
	return nil
}

// damagedError is what SQLite found wrong in its file.
type damagedError struct{ finding string }

func (e *damagedError) Error() string { return "the file is damaged: " + e.finding }

// hold locks a file beside the database. The database itself would not do: to
// close another descriptor of it would drop SQLite's own locks. A data folder is
// held as a whole already; this is for a database that lies elsewhere.
func (d sqliteDialect) hold() (*os.File, error) {
	file, err := os.OpenFile(d.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return file, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = upkeep.WithHint(fmt.Errorf("another upkeep works on %s: %w", d.path, upkeep.ErrConflict),
			"stop that one first; find it with: fuser -v "+d.path)
	}
	return nil, errors.Join(err, file.Close())
}

// lockWriters has nothing to do: transactions begin immediate.
func (sqliteDialect) lockWriters(context.Context, bun.Tx) error { return nil }

func (sqliteDialect) columnTypes() map[string]string {
	return map[string]string{
		"KEY":    "TEXT",                              // compared byte by byte
		"SERIAL": "INTEGER PRIMARY KEY AUTOINCREMENT", // never gives a number twice
		"BYTES":  "BLOB",
	}
}

func (d sqliteDialect) explain(err error) error {
	hint := ""
	var coded *sqlite.Error
	var damaged *damagedError
	switch {
	case errors.As(err, &damaged):
		hint = d.damagedHint()
	case errors.As(err, &coded):
		hint = d.codeHint(coded.Code())
	case errors.Is(err, syscall.ENOSPC):
		hint = d.fullHint()
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = d.readOnlyHint()
	case errors.Is(err, fs.ErrNotExist):
		hint = "create the folder " + filepath.Dir(d.path)
	}
	if hint == "" {
		return err
	}
	return upkeep.WithHint(err, hint)
}

func (d sqliteDialect) codeHint(code int) string {
	switch code & 0xff { // the rest tells variants of one failure apart
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return d.damagedHint()
	case sqlite3.SQLITE_FULL:
		return d.fullHint()
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return d.readOnlyHint()
	case sqlite3.SQLITE_IOERR:
		return "reading or writing " + d.path + " failed: look for a full or failing disk (dmesg)"
	case sqlite3.SQLITE_BUSY:
		return "another program keeps " + d.path + " locked; find it with: fuser -v " + d.path
	}
	return ""
}

func (d sqliteDialect) damagedHint() string {
	return fmt.Sprintf("move %s (with its -wal and -shm files) aside; restore a copy, or start empty and apply your YAML documents again", d.path)
}

func (d sqliteDialect) fullHint() string {
	return "free space in " + filepath.Dir(d.path) + "; nothing of this change was kept"
}

func (d sqliteDialect) readOnlyHint() string {
	return fmt.Sprintf("user id %d must be able to write the folder %s and the files in it", os.Geteuid(), filepath.Dir(d.path))
}
