package job_test

import (
	"context"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

// A thousand jobs that cost nothing to do are done within a second, and one
// within a moment.
func TestSpeed(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		ctx := context.Background()
		c := start(t, dsn)
		connect(t, c, "web1", nil)
		for i := range 5 {
			begin := time.Now()
			done(t, c, func() {
				if _, err := c.store.Enqueue(ctx, mkdir(i)); err != nil {
					t.Fatal(err)
				}
			}, 1)
			t.Logf("one job: %s", time.Since(begin))
		}
		jobs := make([]store.NewJob, 1000)
		for i := range jobs {
			jobs[i] = mkdir(1000 + i)
		}
		for round := range 3 {
			begin := time.Now()
			var queued time.Duration
			done(t, c, func() {
				if _, err := c.store.Enqueue(ctx, jobs...); err != nil {
					t.Fatal(err)
				}
				queued = time.Since(begin)
			}, 1000)
			took := time.Since(begin)
			t.Logf("1000 jobs: queued in %s, done after %s", queued, took)
			if round == 2 && took > 5*time.Second {
				t.Errorf("1000 jobs took %s", took)
			}
		}
	})
}

// done runs f and waits until n jobs were told to be done.
func done(t *testing.T, c *control, f func(), n int) {
	t.Helper()
	jobs, stop := c.Watch()
	defer stop()
	f()
	late := time.After(20 * time.Second)
	for n > 0 {
		select {
		case job := <-jobs:
			if job.State == upkeep.JobDone {
				n--
			}
		case <-late:
			t.Fatalf("%d jobs are not done: %v", n, c.states(t, store.JobFilter{}))
		}
	}
}
