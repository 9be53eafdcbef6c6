package job_test

import (
	"database/sql"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"upkeep/internal/link"
	"upkeep/internal/testkit"
)

// Control stops though its database takes the write that puts jobs back and never
// answers.
func TestStopsThoughTheDatabaseHangs(t *testing.T) {
	dsn := testkit.Postgres(t)
	c := start(t, dsn)
	got, over := make(chan bool, 1), make(chan bool)
	held := connect(t, c, "web1", func(link.Job) link.Outcome {
		got <- true
		<-over
		return link.Outcome{}
	})
	if _, err := c.store.Enqueue(t.Context(), mkdir(1)); err != nil {
		t.Fatal(err)
	}
	<-got
	defer close(over)
	other, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	held.conn.Close()
	ended := make(chan error, 1)
	go func() { ended <- c.Close() }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("control waits for the database without end")
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}
