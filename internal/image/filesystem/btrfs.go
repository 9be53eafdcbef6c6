package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/tool"
)

var btrfs = Type{
	MinShrink: 256 << 20, // by btrfs_ioctl_resize of Linux
	Name:      Btrfs, Min: 109 << 20, Programs: []string{"mkfs.btrfs", "btrfs"},
	options: []string{"block-size"},
	make: func(ctx context.Context, file *os.File, size int64, o Options) error {
		args := []string{"-q", "-f", "-K", "-b", strconv.FormatInt(size&^4095, 10)}
		if o.BlockSize != 0 {
			args = append(args, "-s", strconv.FormatInt(o.BlockSize, 10))
		}
		if o.Label != "" {
			args = append(args, "-L", o.Label)
		}
		if o.UUID != "" {
			args = append(args, "-U", o.UUID)
		}
		return tool.Command{Name: "mkfs.btrfs", Args: append(args, tool.Image), File: file}.OK(ctx)
	},
	// No repair: btrfs(8) itself warns of its own.
	check: func(ctx context.Context, file *os.File, _ Progress) (Verdict, error) {
		result, err := tool.Command{Name: "btrfs", Args: []string{"check", "--readonly", tool.Image}, File: file}.Run(ctx)
		switch {
		case err != nil:
			return Verdict{}, err
		case result.Code == 0:
			return Verdict{Clean: true}, nil
		case result.Code == 1:
			return Verdict{Found: result.Output, Hint: "mount it with --ro and copy its files out: upkeep image copy OLD NEW"}, nil
		}
		return Verdict{}, tool.Failed("btrfs check", result)
	},
	growMounted:   func(dir *os.File, _ int64) error { return resizeBtrfs(dir, "max") },
	shrinkMounted: shrinkBtrfs,
}

// btrfsVolume is struct btrfs_ioctl_vol_args of Linux.
type btrfsVolume struct {
	_    int64
	name [4088]byte
}

// btrfsIocResize is BTRFS_IOC_RESIZE, _IOW(0x94, 3, struct btrfs_ioctl_vol_args).
const btrfsIocResize = 0x50009403

func resizeBtrfs(dir *os.File, size string) error {
	var request btrfsVolume
	copy(request.name[:], size)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), btrfsIocResize, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("changing the size of btrfs while mounted: %w", errno)
	}
	return nil
}

// shrinkBtrfs with size 0 goes down in steps, each half of the last, while the
// kernel finds room.
func shrinkBtrfs(dir *os.File, size int64) error {
	if size > 0 {
		err := resizeBtrfs(dir, strconv.FormatInt(size&^4095, 10))
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("%w (%w)", errNotEnough, err)
		}
		return err
	}
	for step := int64(1 << 40); step >= 16<<20; {
		err := resizeBtrfs(dir, "-"+strconv.FormatInt(step, 10))
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EFBIG):
			step /= 2
		default:
			return err
		}
	}
	return nil
}
