package agent

import (
	"context"
	"errors"
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
				return upkeep.WithHint(fmt.Errorf("it is a %s file, and jobs pack raw images only: %w", source.Format, upkeep.ErrRefused), "image.unpack makes an image of it, which can be packed")
			}
			return nil
		},
		ready: func(target, source string) (*image.Work, error) {
			return image.Pack(source, target, image.PackOptions{All: t.All, Partition: t.Partition})
		},
	})
}

// imageUnpack unpacks what upkeep, gzip, xz or zstd packed into a new image.
func imageUnpack(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageUnpack)
	result, err := r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, source: &t.Source,
		fits: func(source upkeep.ImageFile) error { return r.unpacks(source, t.Partition) },
		ready: func(target, source string) (*image.Work, error) {
			return image.Unpack(ctx, source, target, image.Unpacking{Kind: t.As, Partition: t.Partition, MaxSize: r.policy.Images.MaxSize})
		},
	})
	var large *image.TooLargeError
	if errors.As(err, &large) {
		err = upkeep.WithHint(err, "max_size of images in the policy of this server is the largest that any may be")
	}
	return result, err
}

// unpacks refuses what is not unpacked by jobs. Of what upkeep packed the size is known
// before; a stream of others is cut off at the size that the policy allows.
func (r *Root) unpacks(source upkeep.ImageFile, partition int) error {
	switch source.Format {
	case image.FormatPacked:
		return r.policy.Images.AllowsSize(upkeep.Size(source.Holds))
	case image.FormatRaw:
		return upkeep.WithHint(fmt.Errorf("it is not packed: %w", upkeep.ErrRefused), "image.clone copies an image")
	case image.FormatQCOW2:
		// Its header can have the program that reads it open other files of this machine.
		return upkeep.WithHint(fmt.Errorf("it is a %s file, which jobs do not unpack: %w", source.Format, upkeep.ErrRefused), "on the server, as root: upkeep image unpack")
	}
	if partition != 0 {
		return upkeep.WithHint(fmt.Errorf("a partition can only be taken out of what upkeep packed, and it is a %s file: %w", source.Format, upkeep.ErrRefused),
			"unpack all of it, and have image.clone take the partition")
	}
	return nil
}
