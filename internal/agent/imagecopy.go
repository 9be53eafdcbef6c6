package agent

import (
	"context"
	"fmt"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/task"
)

// imageCopy copies the files in an image into another.
func imageCopy(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageCopy)
	if !r.trusts() {
		return nil, upkeep.WithHint(fmt.Errorf("copying what is inside has this server's kernel mount the image, and its policy trusts none: %w", upkeep.ErrRefused),
			"image.clone and image.pack mount nothing; trust: true for images in the agent's policy lets it be mounted")
	}
	copying := image.Copying{
		Size: t.Size, FS: t.Type, Options: optionsOf(t.FileSystem), Spare: spare,
		Verify: t.Verify, Merge: t.Merge, LeaveOut: t.LeaveOut, Partition: t.Partition, Into: t.Into,
	}
	if t.Full {
		copying.Kind = upkeep.ImageFull
	}
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, source: &t.Source, size: t.Size, overwrites: t.Merge,
		fits: func(source upkeep.ImageFile) error {
			// What files take depends on the file system that they are copied to.
			if t.Size == 0 {
				return r.policy.Images.AllowsSize(upkeep.Size(2*source.Size + 64<<20))
			}
			return nil
		},
		ready: func(target, source string) (*image.Work, error) { return image.Copy(source, target, copying) },
	})
}

// spare is how many percent more room an image gets than its files take.
const spare = 10

// imageClone copies an image whole.
func imageClone(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageClone)
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, source: &t.Source,
		fits: func(source upkeep.ImageFile) error { return r.policy.Images.AllowsSize(upkeep.Size(source.Size)) },
		ready: func(target, source string) (*image.Work, error) {
			return image.Clone(source, target, image.Cloning{NewIDs: t.NewIDs, Partition: t.Partition})
		},
	})
}
