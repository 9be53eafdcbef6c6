package job

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"

	"upkeep"
	"upkeep/internal/store"
)

// call is a row of River's: the session of a server is to look at a job.
type call struct {
	Job    int64  `json:"job"`
	Server string `json:"server"`
}

func (call) Kind() string { return "call" }

// caller hands on River's calls.
type caller struct {
	river.WorkerDefaults[call]
	call func(server string, id int64)
}

func (c *caller) Work(_ context.Context, job *river.Job[call]) error {
	c.call(job.Args.Server, job.Args.Job)
	return nil
}

// Settings of River, by measurement.
const (
	// fetchCooldown is how soon after one look into the queue there is another. It
	// is what a job waits at the most, and what many jobs are collected in.
	fetchCooldown = 5 * time.Millisecond
	// fetchPoll is how often the queue is looked into without a nudge, which do not
	// get lost; it is there for River's own sake.
	fetchPoll = 30 * time.Second
	// keepCalls is how long calls that were handed on are kept.
	keepCalls = time.Minute
	// atATime is how many calls are taken from the queue at a time.
	atATime = 1024
)

// newRiver makes a client of River that hands calls on.
func newRiver(r *store.River, log *slog.Logger, handOn func(server string, id int64)) (*store.RiverClient, error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &caller{call: handOn}); err != nil {
		return nil, fmt.Errorf("setting River up: %w", err)
	}
	client, err := r.Client(&river.Config{
		Logger: log, Workers: workers, Queues: map[string]river.QueueConfig{store.CallQueue: {MaxWorkers: atATime}},
		FetchCooldown: fetchCooldown, FetchPollInterval: fetchPoll,
		CompletedJobRetentionPeriod: keepCalls, CancelledJobRetentionPeriod: keepCalls, DiscardedJobRetentionPeriod: keepCalls,
	})
	if err != nil {
		return nil, fmt.Errorf("setting River up: %w", err)
	}
	return client, nil
}

// calls are the rows for jobs that can be started.
func calls(ready []upkeep.Job) []river.InsertManyParams {
	rows := make([]river.InsertManyParams, len(ready))
	for i, job := range ready {
		rows[i] = river.InsertManyParams{Args: call{job.ID, job.Server}, InsertOpts: &river.InsertOpts{Queue: store.CallQueue}}
	}
	return rows
}

// quiet hands on what River says when something is wrong. The rest is told by the
// jobs themselves.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }
