package job

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/riverqueue/river"

	"upkeep"
	"upkeep/internal/store"
)

// call is a row of River's: somebody is to look at a job.
type call struct {
	Job int64 `json:"job"`
}

func (call) Kind() string { return "call" }

// caller has River's calls answered.
type caller struct {
	river.WorkerDefaults[call]
	answer func(ctx context.Context, queue string, id int64) error
}

func (c *caller) Work(ctx context.Context, job *river.Job[call]) error {
	return c.answer(ctx, job.Queue, job.Args.Job)
}

// Timeout is none: how long a job may take is for its kind to say, and a call
// that is answered late is no call that was not heard.
func (c *caller) Timeout(*river.Job[call]) time.Duration { return -1 }

// Settings of River, by measurement.
const (
	// fetchCooldown is how soon after one look into a queue there is another. It
	// is what a job waits at the most, and what many jobs are collected in.
	fetchCooldown = 5 * time.Millisecond
	// fetchPoll is how often a queue is looked into without a nudge, which do not
	// get lost; it is there for River's own sake.
	fetchPoll = 30 * time.Second
	// keepCalls is how long calls that were answered are kept.
	keepCalls = time.Minute
	// ownQueue exists because River wants one to start with.
	ownQueue = "control"
)

// newRiver makes a client of River that has calls answered by answer.
func newRiver(r *store.River, log *slog.Logger, answer func(ctx context.Context, queue string, id int64) error) (*store.RiverClient, error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &caller{answer: answer}); err != nil {
		return nil, fmt.Errorf("setting River up: %w", err)
	}
	client, err := r.Client(&river.Config{
		Logger: log, Workers: workers, Queues: map[string]river.QueueConfig{ownQueue: {MaxWorkers: 1}},
		FetchCooldown: fetchCooldown, FetchPollInterval: fetchPoll,
		CompletedJobRetentionPeriod: keepCalls, CancelledJobRetentionPeriod: keepCalls, DiscardedJobRetentionPeriod: keepCalls,
	})
	if err != nil {
		return nil, fmt.Errorf("setting River up: %w", err)
	}
	return client, nil
}

// calls are the rows for jobs that can be started, and the queues that they are
// in.
func calls(ready []upkeep.Job) (rows []river.InsertManyParams, queues []string) {
	seen := map[string]string{}
	for _, job := range ready {
		queue, known := seen[job.Server]
		if !known {
			queue = queueName(job.Server)
			seen[job.Server] = queue
			queues = append(queues, queue)
		}
		rows = append(rows, river.InsertManyParams{Args: call{job.ID}, InsertOpts: &river.InsertOpts{Queue: queue}})
	}
	return rows, queues
}

// plainQueue is what River takes for the name of a queue, of at most 64 letters.
var plainQueue = regexp.MustCompile(`^[a-z0-9]+(-?[a-z0-9]+)*$`)

// queueName is the queue of a server: its own name where River takes that, a
// digest of it otherwise. An underscore is in no server's name.
func queueName(server string) string {
	if plainQueue.MatchString(server) && len(server) < 60 {
		return "to_" + server
	}
	sum := sha256.Sum256([]byte(server))
	return "to_digest_" + hex.EncodeToString(sum[:16])
}

// quiet hands on what River says when something is wrong. The rest is told by the
// jobs themselves.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }
