package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"upkeep"
)

type postgresDialect struct{}

func openPostgres(ctx context.Context, dsn string) (*Store, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("reading the address of the database: %w", err) // pgx hides the password
	}
	// Values are put into statements by bun, whose quoting rests on this setting.
	config.RuntimeParams["standard_conforming_strings"] = "on"
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "upkeep"
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	// No two statements are the same text, so preparing them is a round trip for
	// nothing; and PgBouncer passes simple ones through.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	pool := stdlib.OpenDB(*config)
	pool.SetMaxOpenConns(8)
	pool.SetMaxIdleConns(8)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	db := bun.NewDB(pool, pgdialect.New())
	s := &Store{write: db, read: db, dialect: postgresDialect{}, now: time.Now}
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(s.explain("opening the database", err), s.Close())
	}
	return s, nil
}

// writersLock is the key of the lock that writers hold; any fixed number would do.
const writersLock = 0x75706b656570 // "upkeep"

// lockWriters makes PostgreSQL behave as SQLite does: one writer at a time. A
// lock on a table would collide with autovacuum.
func (postgresDialect) lockWriters(ctx context.Context, tx bun.Tx) error {
	_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(?)", writersLock)
	return err
}

func (postgresDialect) columnTypes() map[string]string {
	return map[string]string{
		"KEY":    `TEXT COLLATE "C"`, // compared byte by byte, as SQLite does
		"SERIAL": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
		"BYTES":  "BYTEA",
	}
}

// keepTypes has nothing to do: PostgreSQL does.
func (postgresDialect) keepTypes(context.Context, *bun.DB) error { return nil }

func (postgresDialect) explain(err error) error {
	hint := ""
	var coded *pgconn.PgError
	var refused *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.As(err, &coded):
		hint = postgresHint(coded.Code)
	case errors.As(err, &refused), errors.As(err, &network):
		hint = "check that PostgreSQL runs and takes connections at the address given with --db"
	}
	if hint == "" {
		return err
	}
	return upkeep.WithHint(err, hint)
}

// postgresHint is advice by SQLSTATE (PostgreSQL manual, appendix A).
func postgresHint(code string) string {
	switch code {
	case "28000", "28P01": // invalid_authorization_specification, invalid_password
		return "check the user and the password in the address given with --db, and pg_hba.conf"
	case "3D000": // invalid_catalog_name
		return "create the database first: createdb NAME"
	case "42501": // insufficient_privilege
		return "upkeep needs to create tables: GRANT CREATE ON SCHEMA public, or make its user the owner of the database"
	case "25006": // read_only_sql_transaction
		return "this PostgreSQL server is read-only, probably a standby: give the address of the primary"
	case "53100": // disk_full
		return "free disk space on the PostgreSQL server; nothing of this change was kept"
	case "53300": // too_many_connections
		return "raise max_connections of the PostgreSQL server; upkeep uses up to 8"
	}
	return ""
}
