package agent

import (
	"context"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/task"
)

// imageCreate makes an image that is not there.
func imageCreate(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageCreate)
	creation := image.Creation{Size: t.Size, Kind: kindOf(t.Full), FS: t.Type, Options: optionsOf(t.FileSystem)}
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, size: t.Size,
		ready: func(target, _ string) (*image.Work, error) { return image.Create(target, creation) },
	})
}

// imageMkFS makes a new file system in an image.
func imageMkFS(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.ImageMkFS)
	return r.workOn(ctx, j, imageVerb{
		target: t.ImageAt, overwrites: t.Force,
		ready: func(target, _ string) (*image.Work, error) {
			return image.MkFS(target, image.Remaking{Type: t.Type, Options: optionsOf(t.FileSystem), Force: t.Force, Partition: t.Partition})
		},
	})
}

func kindOf(full bool) upkeep.ImageKind {
	if full {
		return upkeep.ImageFull
	}
	return upkeep.ImageSparse
}

func optionsOf(f task.FileSystem) image.Options {
	return image.Options{Profile: f.Profile, Inodes: f.Inodes, BlockSize: f.BlockSize, Label: f.Label, UUID: f.UUID, Reserved: f.Reserved}
}
