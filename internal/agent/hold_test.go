package agent

import (
	"context"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

// A site that waits for its server's turn to reload gives up at once when it is
// told to, and that is no failure.
func TestWaitingSiteGivesWay(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	waits := make(chan struct{})
	j := job{Job: link.Job{ID: 7}, tell: func(link.Progress) { close(waits) }}
	go func() {
		<-waits
		cancel(errCancelled)
	}()
	err := held(ctx, j, time.Hour)
	if outcome := ended(ctx, j.ID, err); outcome.State != upkeep.JobCancelled || outcome.ID != 7 {
		t.Errorf("it ended as %+v", outcome)
	}
	if err := held(t.Context(), j, 0); err != nil {
		t.Errorf("one that is not to wait: %v", err)
	}
}

// A job that waits for the disk, which hung jobs have for themselves, can be cancelled.
func TestCancelledBeforeTheDisk(t *testing.T) {
	l := newLab(t, labPolicy)
	for range mostAtDisk {
		leave, err := l.root.atDisk(t.Context())
		l.must(err)
		defer leave()
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	folder := task.Mkdir{Root: "data", Path: "shared", Owner: "root", Group: task.WebGroup, Mode: "0751"}
	ended := make(chan link.Outcome, 1)
	order := l.sign(folder.Kind(), folder.Object(), 1, folder)
	go func() { ended <- l.root.Do(ctx, order, nil) }()
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		turns := &l.root.turns
		turns.mu.Lock()
		defer turns.mu.Unlock()
		return len(turns.held) > 0, "the job has not begun"
	})
	cancel(errCancelled)
	select {
	case outcome := <-ended:
		if outcome.State != upkeep.JobCancelled {
			t.Errorf("it ended as %+v", outcome)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits all the same")
	}
}
