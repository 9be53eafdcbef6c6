package job

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"upkeep/internal/store"
)

// TestRecordEndsThoughTheDatabaseHangs: control can be stopped while its database
// takes a write and never answers.
func TestRecordEndsThoughTheDatabaseHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecord(nil, slog.New(slog.DiscardHandler))
		r.keep = func(ctx context.Context, _ []store.JobEnd) error {
			<-ctx.Done()
			return ctx.Err()
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.run(ctx)
		}()
		r.end(store.JobEnd{ID: 1}, func() { t.Error("it is taken for written") })
		synctest.Wait()
		stop()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("it waits for the database without end")
		}
	})
}
