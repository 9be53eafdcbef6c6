package agent

import (
	"context"
	"fmt"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/task"
)

// imagePack packs an image into a new file.
func imagePack(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImagePack)
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, source: &t.Source,
		fits: func(source upkeep.ImageFile) error {
			if source.Format != image.FormatRaw {
				return fmt.Errorf("it is a %s file, and jobs pack raw images only: %w", source.Format, upkeep.ErrRefused)
			}
			return nil
		},
		ready: func(target, source string) (*image.Work, error) {
			return image.Pack(source, target, image.PackOptions{All: t.All, Partition: t.Partition})
		},
	})
}

// imageUnpack unpacks what upkeep packed into a new image. Other packed files do not
// say how large they become.
func imageUnpack(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageUnpack)
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, source: &t.Source,
		fits: func(source upkeep.ImageFile) error {
			if source.Format != image.FormatPacked {
				return upkeep.WithHint(fmt.Errorf("it is a %s file, and jobs unpack only what upkeep packed, of which the size is known before: %w", source.Format, upkeep.ErrRefused),
					"upkeep image pack makes such a file of it")
			}
			return r.policy.Images.AllowsSize(upkeep.Size(source.Holds))
		},
		ready: func(target, source string) (*image.Work, error) {
			return image.Unpack(ctx, source, target, image.Unpacking{Kind: t.As, Partition: t.Partition})
		},
	})
}
