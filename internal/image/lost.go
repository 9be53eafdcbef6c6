package image

import (
	"errors"
	"io"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/partition"
)

// readFS finds out what file system is in an image or a piece of one. Where none is, nor
// anything else that is known here, copies of a superblock are looked for, the primary
// one of which was lost: they come with a [fsinfo.LostError].
func readFS(r io.ReaderAt, size int64) (fsinfo.Info, error) {
	info, err := fsinfo.Read(r, size)
	if err != nil || info.Type != fsinfo.None {
		return info, err
	}
	nothing, err := holdsNothing(r, size)
	if err != nil || !nothing {
		return info, err
	}
	return fsinfo.ReadLost(r, size)
}

// holdsNothing reports that there are no partitions, also of which only the second copy
// of a GPT is left, and no image that is packed.
func holdsNothing(r io.ReaderAt, size int64) (bool, error) {
	if _, err := partition.Read(r, size); !errors.Is(err, partition.ErrNone) {
		return false, nil //nolint:nilerr // what is wrong with it is told where it is read
	}
	if format, err := pack.FormatOf(r, size); err != nil || format != pack.Raw {
		return false, nil //nolint:nilerr // as above
	}
	left, err := partition.CopyLeft(r, size)
	return !left, err
}
