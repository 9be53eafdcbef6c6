package article

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/go-sql-driver/mysql"
)

// ReadMySQL reads the two tables of the article from a running MySQL or MariaDB,
// at "USER:PASSWORD@tcp(HOST:3306)/DATABASE". It only reads, in one transaction.
func ReadMySQL(ctx context.Context, dsn string) (Tables, error) {
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return Tables{}, fmt.Errorf("the address of the database cannot be read: write USER:PASSWORD@tcp(HOST:3306)/DATABASE")
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return Tables{}, fmt.Errorf("connecting to %s: %w", config.Addr, err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return Tables{}, fmt.Errorf("connecting to %s: %w", config.Addr, err)
	}
	defer func() { _ = tx.Rollback() }()
	var tables Tables
	for name, rows := range map[string]*[]row{tableHosts: &tables.hosts, tableJobs: &tables.jobs} {
		if *rows, err = readTable(ctx, tx, name); err != nil {
			return Tables{}, fmt.Errorf("reading table %s at %s: %w", name, config.Addr, err)
		}
	}
	return tables, nil
}

func readTable(ctx context.Context, tx *sql.Tx, name string) ([]row, error) {
	found, err := tx.QueryContext(ctx, "SELECT * FROM `"+name+"` ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer found.Close()
	columns, err := found.Columns()
	if err != nil {
		return nil, err
	}
	var rows []row
	for found.Next() {
		values := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			return nil, err
		}
		r := row{}
		for i, column := range columns {
			if values[i].Valid {
				r[column] = values[i].String
			}
		}
		rows = append(rows, r)
	}
	return rows, found.Err()
}
