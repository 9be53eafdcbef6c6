package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/uptrace/bun"
)

// keepTypes has SQLite refuse values that are not of their column's type, as
// PostgreSQL does. SQLite would keep a word in a column of numbers, and every
// query that reads it would fail from then on: one row that somebody else's
// program wrote would stop the work of all.
//
// Triggers do it, and not STRICT tables or CHECK, because tables that are there
// already can be given them. They are made after the migrations, for whatever
// tables these have made. The tables of the queue are River's own.
func (sqliteDialect) keepTypes(ctx context.Context, db *bun.DB) error {
	have := map[string]string{}
	var triggers []struct{ Name, SQL string }
	if err := db.NewRaw("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").Scan(ctx, &triggers); err != nil {
		return err
	}
	for _, t := range triggers {
		have[t.Name] = t.SQL
	}
	want, err := typeTriggers(ctx, db)
	if err != nil {
		return err
	}
	for name, text := range want {
		if have[name] == text {
			continue
		}
		if err := db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			_, err1 := tx.ExecContext(ctx, "DROP TRIGGER IF EXISTS "+name)
			_, err2 := tx.ExecContext(ctx, text)
			return errors.Join(err1, err2)
		}); err != nil {
			return fmt.Errorf("keeping the types of columns: %w", err)
		}
	}
	return nil
}

// typeTriggers are the texts of all triggers by their names.
func typeTriggers(ctx context.Context, db *bun.DB) (map[string]string, error) {
	var columns []struct{ Table, Column, Type string }
	err := db.NewRaw(`SELECT m.name AS "table", c.name AS "column", c.type AS "type" FROM sqlite_master AS m, pragma_table_info(m.name) AS c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\' AND m.name NOT LIKE 'river\_%' ESCAPE '\' AND m.name NOT LIKE 'goose\_%' ESCAPE '\'
		AND NOT (c.pk = 1 AND c.type = 'INTEGER') ORDER BY m.name, c.cid`).Scan(ctx, &columns)
	if err != nil {
		return nil, fmt.Errorf("reading the types of columns: %w", err)
	}
	wrong := map[string][]string{}
	for _, c := range columns {
		kind := "text"
		switch c.Type {
		case "BIGINT", "INTEGER", "BOOLEAN":
			kind = "integer"
		case "BLOB":
			kind = "blob"
		}
		wrong[c.Table] = append(wrong[c.Table], fmt.Sprintf("typeof(NEW.%q) <> '%s'", c.Column, kind))
	}
	triggers := map[string]string{}
	for table, conditions := range wrong {
		for _, event := range []string{"INSERT", "UPDATE"} {
			name := table + "_types_" + strings.ToLower(event)
			// AFTER: the types that the columns themselves give to values come first.
			triggers[name] = fmt.Sprintf("CREATE TRIGGER %s AFTER %s ON %s WHEN %s BEGIN SELECT RAISE(ABORT, 'a value in %s is not of the type of its column'); END",
				name, event, table, strings.Join(conditions, " OR "), table)
		}
	}
	return triggers, nil
}
