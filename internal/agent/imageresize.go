package agent

import (
	"context"

	"upkeep/internal/image"
	"upkeep/internal/task"
)

// imageGrow makes an image larger, with its file system.
func imageGrow(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageGrow)
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, size: t.To,
		ready: func(target, _ string) (*image.Work, error) {
			return image.Grow(target, image.Growth{To: t.To, FileOnly: t.FileOnly, Partition: t.Partition, Untrusted: !r.trusts()})
		},
	})
}

// imageShrink makes an image smaller, after its file system.
func imageShrink(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageShrink)
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, size: t.To,
		ready: func(target, _ string) (*image.Work, error) {
			return image.Shrink(target, image.Shrinking{To: t.To, Min: t.Min, Partition: t.Partition, Untrusted: !r.trusts()})
		},
	})
}
