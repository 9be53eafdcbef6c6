package image

import (
	"context"
	"fmt"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fit"
	"upkeep/internal/image/hold"
)

// For chooses the size of a new image, its blocks and inodes, so that it just holds
// what is in a folder and spare percent more, and says why.
func (c *Creation) For(ctx context.Context, folder string, spare float64) (why []string, err error) {
	if c.FS == "" {
		c.FS = filesystem.Ext4
	}
	found, err := fitFor(ctx, folder, c.FS, c.Options, spare)
	if err != nil {
		return nil, err
	}
	c.Size, c.Options = found.Size, found.Options
	return found.Why, nil
}

// For chooses blocks and inodes of a new file system so that it holds what is in a
// folder and spare percent more. An image that is too small for that is refused.
func (m *Remaking) For(ctx context.Context, folder string, size upkeep.Size, spare float64) (why []string, err error) {
	found, err := fitFor(ctx, folder, m.Type, m.Options, spare)
	if err != nil {
		return nil, err
	}
	if found.Size > size {
		return nil, upkeep.WithHint(fmt.Errorf("%w: %s with what is in %s takes %s, and the image has %s", upkeep.ErrRefused, m.Type, folder, found.Size.About(), size.About()),
			fmt.Sprintf("upkeep image grow FILE --file-only --to %s", found.Size))
	}
	asked := m.Options.Inodes
	m.Options = found.Options
	if asked == 0 {
		// As many as mke2fs makes of its own accord stay free for what comes later.
		const ratio = 16384
		m.Options.Inodes = max(found.Options.Inodes, int64(size)/ratio*min(found.Options.Inodes, 1))
	}
	return found.Why, nil
}

func fitFor(ctx context.Context, folder, typ string, o filesystem.Options, spare float64) (fit.Fit, error) {
	dir, err := openSource(folder)
	if err != nil {
		return fit.Fit{}, err
	}
	defer dir.Close()
	usage, err := fit.Measure(ctx, dir)
	if err != nil {
		return fit.Fit{}, err
	}
	return fit.Find(ctx, usage, typ, o, spare)
}

// SizeOf is the size of an image, or of a partition of it.
func SizeOf(path string, number int) (upkeep.Size, error) {
	file, err := hold.Open(path, false)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("looking at %s: %w", path, err)
	}
	t := &target{path: path, file: file, size: info.Size()}
	err = t.find(number)
	return upkeep.Size(t.part.Length), err
}
