package filesystem

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/tool"
	"upkeep/internal/lazy"
)

var xfs = Type{
	Name: XFS, Min: 300 << 20, Programs: []string{"mkfs.xfs", "xfs_repair"},
	options: []string{"profile xen-2010", "block-size"},
	make: func(ctx context.Context, file *os.File, size int64, o Options) error {
		args := []string{"-q", "-f", "-K"} // -K: discarding would take blocks from a full image
		if o.Profile == "xen-2010" {
			args = append(args, "-m", "crc=0", "-n", "ftype=0")
		}
		if o.BlockSize != 0 {
			args = append(args, "-b", "size="+strconv.FormatInt(o.BlockSize, 10))
		}
		if o.Label != "" {
			args = append(args, "-L", o.Label)
		}
		if o.UUID != "" {
			args = append(args, "-m", "uuid="+o.UUID)
		}
		return tool.Command{Name: "mkfs.xfs", Args: append(args, "-d", "size="+strconv.FormatInt(size&^4095, 10), tool.Image), File: file}.OK(ctx)
	},
	check:       checkXFS,
	repair:      repairXFS,
	growMounted: growXFS,
	NoShrink:    "xfs cannot be made smaller; copy its files into a smaller image: upkeep image copy OLD NEW --fs xfs --size SIZE",
}

// Exit statuses of xfs_repair; see xfs_repair(8).
const (
	xfsCorrupt  = 1
	xfsDirtyLog = 2
)

// xfsAlert is what xfs_repair says of a log which it leaves out of its check.
var xfsAlert = lazy.Regexp(`ALERT: The filesystem has valuable metadata changes in a log.*?replay the log\.`)

const xfsWaits = "changes wait in its log, which mounting it carries out, and --repair too; what else is found may come of that"

func checkXFS(ctx context.Context, file *os.File, _ Progress) (Verdict, error) {
	result, err := tool.Command{Name: "xfs_repair", Args: []string{"-f", "-n", tool.Image}, File: file}.Run(ctx)
	switch {
	case err != nil:
		return Verdict{}, err
	case result.Code == 0:
		return Verdict{Clean: true}, nil
	case result.Code == xfsDirtyLog:
		return Verdict{Found: xfsWaits, Hint: repairHint}, nil
	case result.Code == xfsCorrupt:
		return Verdict{Found: xfsAlert().ReplaceAllString(result.Output, xfsWaits), Hint: repairHint}, nil
	}
	return Verdict{}, tool.Failed("xfs_repair", result)
}

// repairXFS never clears a log (-L): that throws changes away which mounting would
// carry out.
func repairXFS(ctx context.Context, file *os.File, progress Progress) (Verdict, error) {
	before, err := checkXFS(ctx, file, progress)
	if err != nil || before.Clean {
		return before, err
	}
	result, err := tool.Command{Name: "xfs_repair", Args: []string{"-f", tool.Image}, File: file}.Run(ctx)
	switch {
	case err != nil:
		return Verdict{}, err
	case result.Code == xfsDirtyLog:
		return Verdict{Found: "its log holds changes that were not carried out", Hint: "mount the image once, which carries them out, and check again"}, nil
	case result.Code != 0:
		return Verdict{}, tool.Failed("xfs_repair", result)
	}
	after, err := checkXFS(ctx, file, progress)
	after.Mended, after.Found = true, before.Found
	return after, err
}

// The request of XFS_IOC_FSGROWFSDATA, _IOW('X', 110, struct xfs_growfs_data), and
// the part of struct xfs_fsop_geom_v1 that is needed; see libxfs/xfs_fs.h.
type (
	xfsGrow struct {
		blocks uint64
		maxPct uint32
		_      uint32
	}
	xfsGeometry struct {
		blockSize, _, _, _, _, _, _, maxPct uint32
		blocks                              uint64
		_                                   [72]byte
	}
)

const (
	xfsIocGrow     = 0x4010586e
	xfsIocGeometry = 0x80705864 // XFS_IOC_FSGEOMETRY_V1
)

func growXFS(dir *os.File, size int64) error {
	var now xfsGeometry
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), xfsIocGeometry, uintptr(unsafe.Pointer(&now))); errno != 0 {
		return fmt.Errorf("asking the mounted xfs for its geometry: %w", errno)
	}
	if now.blockSize == 0 {
		return fmt.Errorf("%w: the mounted xfs says that its blocks have no size", upkeep.ErrRefused)
	}
	want := xfsGrow{blocks: uint64(size) / uint64(now.blockSize), maxPct: now.maxPct}
	if want.blocks <= now.blocks {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), xfsIocGrow, uintptr(unsafe.Pointer(&want))); errno != 0 {
		return fmt.Errorf("growing xfs while mounted: %w", errno)
	}
	return nil
}
