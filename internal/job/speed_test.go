package job_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/store"
)

// A thousand jobs that are there at a time are all done, again and again. What
// that costs is logged, and judged by nobody here: it depends on the machine.
func TestThousandJobs(t *testing.T) {
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
		for range 3 {
			begin, cpu := time.Now(), processCPU(t)
			var queued time.Duration
			done(t, c, func() {
				if _, err := c.store.Enqueue(ctx, jobs...); err != nil {
					t.Fatal(err)
				}
				queued = time.Since(begin)
			}, 1000)
			cost := processCPU(t) - cpu
			t.Logf("1000 jobs: queued in %s, done after %s, with %s of CPU", queued, time.Since(begin), cost)
		}
	})
}

// processCPU is the CPU time that this process has used.
func processCPU(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// done runs f and waits until n jobs were told to be done.
func done(t *testing.T, c *control, f func(), n int) {
	t.Helper()
	jobs, stop := c.Watch()
	defer stop()
	f()
	late := time.After(time.Minute)
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
