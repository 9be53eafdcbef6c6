package agent

import (
	"context"
	"fmt"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/task"
)

// imageCheck looks whether an image's file system is in order, and repairs it where
// that is asked for. One that is not in order is a failure.
func imageCheck(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageCheck)
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, reads: !t.Repair,
		ready: func(target, _ string) (*image.Work, error) {
			return image.Check(target, image.Checking{Repair: t.Repair, Untrusted: !r.trusts(), Partition: t.Partition})
		},
		verdict: func(result any) error {
			verdict, is := result.(image.Verdict)
			if !is || verdict.Clean || t.Repair {
				return nil
			}
			return upkeep.WithHint(fmt.Errorf("its file system is not in order: %s", verdict.Brief()), `"repair": true repairs what can be repaired, on a second file that takes its place`)
		},
	})
}
