package job

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"upkeep/internal/store"
)

const (
	// gather is how long outcomes are collected after the first one, at the least.
	// While many come it is as long as a commit takes, up to gatherMost: a busy disk
	// has fewer and larger ones.
	gather     = 2 * time.Millisecond
	gatherMost = 25 * time.Millisecond
	// stepEvery is how often progress is written down.
	stepEvery = 250 * time.Millisecond
	// again is how long is waited after the database failed.
	again = time.Second
	// lastWrite bounds the last write, when control stops: a database that hangs must
	// not keep it. What is not written is done again.
	lastWrite = 10 * time.Second
)

// record writes down how jobs ended and how far they have come, many in one
// transaction.
type record struct {
	keep func(context.Context, []store.JobEnd) error
	step func(context.Context, []store.JobStep) error
	log  *slog.Logger

	mu    sync.Mutex
	ends  []ended
	steps map[int64]store.JobStep
	some  chan struct{} // has an element when there is something to write
}

// ended is the end of a job and what to call when it was written down.
type ended struct {
	store.JobEnd
	then func()
}

func newRecord(s *store.Store, log *slog.Logger) *record {
	return &record{keep: s.FinishJobs, step: s.StepJobs, log: log, steps: map[int64]store.JobStep{}, some: make(chan struct{}, 1)}
}

// end has the end of a job written down soon, and then called.
func (r *record) end(e store.JobEnd, then func()) {
	r.mu.Lock()
	r.ends = append(r.ends, ended{e, then})
	delete(r.steps, e.ID)
	r.mu.Unlock()
	r.signal()
}

// progress has a step of a job written down; of several in a short time only the
// last one.
func (r *record) progress(s store.JobStep) {
	r.mu.Lock()
	r.steps[s.ID] = s
	r.mu.Unlock()
	r.signal()
}

func (r *record) signal() {
	select {
	case r.some <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (r *record) run(ctx context.Context) {
	var lastStep time.Time
	window := gather
	for {
		select {
		case <-ctx.Done():
			last, done := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			if n, err := r.writeEnds(last); err != nil {
				r.log.Warn("jobs will be sent again: writing down how they ended", "jobs", n, "err", err)
			}
			done()
			return
		case <-r.some:
		}
		wait(ctx, window)
		begin := time.Now()
		n, err := r.writeEnds(ctx)
		if err != nil {
			r.log.Error("writing down how jobs ended", "jobs", n, "err", err)
			wait(ctx, again)
			r.signal()
			continue
		}
		window = gather
		if n > 1 {
			window = min(max(time.Since(begin), gather), gatherMost)
		}
		if r.waitingSteps() && time.Since(lastStep) >= stepEvery {
			r.writeSteps(ctx)
			lastStep = time.Now()
		} else if r.waitingSteps() {
			time.AfterFunc(stepEvery, r.signal)
		}
	}
}

// writeEnds writes what there is, and returns how many that were.
func (r *record) writeEnds(ctx context.Context) (int, error) {
	r.mu.Lock()
	some := r.ends
	r.ends = nil
	r.mu.Unlock()
	if len(some) == 0 {
		return 0, nil
	}
	ends := make([]store.JobEnd, len(some))
	for i, e := range some {
		ends[i] = e.JobEnd
	}
	if err := r.keep(ctx, ends); err != nil {
		r.mu.Lock()
		r.ends = append(some, r.ends...)
		r.mu.Unlock()
		return len(some), err
	}
	for _, e := range some {
		e.then()
	}
	return len(some), nil
}

func (r *record) waitingSteps() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.steps) > 0
}

func (r *record) writeSteps(ctx context.Context) {
	r.mu.Lock()
	steps := r.steps
	r.steps = map[int64]store.JobStep{}
	r.mu.Unlock()
	if err := r.step(ctx, slices.Collect(maps.Values(steps))); err != nil {
		r.log.Warn("writing down the progress of jobs", "err", err) // the next step says more
	}
}

// wait waits for a time or the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
