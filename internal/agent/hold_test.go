package agent

import (
	"context"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
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
