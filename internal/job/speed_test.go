package job_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
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

// An agent that was away finds more jobs than it is given at a time: it has never
// more than that, and all are done.
func TestMoreThanAtATime(t *testing.T) {
	const jobs, most = 2500, 1024
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		made := make([]store.NewJob, jobs)
		for i := range made {
			made[i] = mkdir(i)
		}
		if _, err := c.store.Enqueue(context.Background(), made...); err != nil {
			t.Fatal(err)
		}
		var had atomic.Int64
		full, finish := make(chan struct{}), make(chan struct{})
		connect(t, c, "web1", func(j link.Job) link.Outcome {
			if had.Add(1) == most {
				close(full)
			}
			<-finish
			return link.Outcome{ID: j.ID, State: upkeep.JobDone}
		})
		letGo := sync.OnceFunc(func() { close(finish) })
		t.Cleanup(letGo)
		select {
		case <-full:
		case <-time.After(time.Minute):
			t.Fatalf("it was given %d", had.Load())
		}
		c.until(t, web(store.JobFilter{States: []upkeep.JobState{upkeep.JobRunning}}), counts{upkeep.JobRunning: most})
		if n := had.Load(); n != most {
			t.Errorf("it has %d at a time", n)
		}
		letGo()
		testkit.Eventually(t, time.Minute, func() (bool, string) {
			open := c.states(t, web(store.JobFilter{States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}}))
			return len(open) == 0, fmt.Sprint(open)
		})
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
