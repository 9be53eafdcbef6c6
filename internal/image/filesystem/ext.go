package filesystem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/tool"
)

// ext is ext2, ext3 or ext4, by e2fsprogs.
func ext(name string) Type { return extWith(name, extPrograms{}) }

// extPrograms runs e2fsprogs. With undo they keep there what they write over, before
// they do; with on they work on that, which stands for the file, and keep at most so
// many bytes: where the room ends while they keep something, they can go on to write
// over what they have not kept, and so are killed before. As long as the primary
// superblock is lost they read the copy.
type extPrograms struct {
	undo, on *os.File
	most     int64
	copy     superCopy
	// unchecked is that resize2fs goes without the check that it wants before.
	unchecked bool
}

// superCopy is a copy of the superblock: its block, and the size of blocks, which is 0
// where there is none to be read.
type superCopy struct{ block, blockSize int64 }

func extWith(name string, e extPrograms) Type {
	t := Type{
		Name: name, Min: 1 << 20, Programs: []string{"mke2fs", "e2fsck", "resize2fs"},
		options: []string{"profile small", "profile news", "profile large", "inodes", "block-size", "reserved"},
		make: func(ctx context.Context, file *os.File, size int64, o Options) error {
			return makeExt(ctx, name, file, size, o, nil)
		},
		makeOf: func(ctx context.Context, file *os.File, size int64, o Options, folder *os.File) error {
			return makeExt(ctx, name, file, size, o, folder)
		},
		check:  e.check,
		repair: e.repair,
		grow:   func(ctx context.Context, file *os.File) error { return e.resize2fs(ctx, file) },
		shrink: e.shrink,
		undoable: func(undo, on *os.File, most int64) Type {
			return extWith(name, extPrograms{undo: undo, on: on, most: most})
		},
		unchecked: func() Type { return extWith(name, extPrograms{unchecked: true}) },
		fromCopy:  func(c superCopy) Type { return extWith(name, extPrograms{copy: c}) },
	}
	if !e.unchecked {
		t.prepare = e.preen
	}
	if name != Ext4 {
		t.options = append(t.options, "profile xen-2010")
	}
	if name != Ext2 { // which has no journal to make it safe
		t.growMounted = growExtMounted
	}
	return t
}

// extProfiles are arguments of mke2fs. They are written out rather than named with
// -T, which means what a file of the host says.
var extProfiles = map[string][]string{
	"small": {"-b", "1024", "-i", "4096"},
	"news":  {"-i", "4096"},
	"large": {"-i", "1048576"},
	// Inodes of 128 bytes: boot loaders of that time read no other.
	"xen-2010": {"-I", "128", "-O", "^64bit,^metadata_csum,^orphan_file,^huge_file,^flex_bg,^extra_isize,^dir_nlink"},
}

// makeExt makes one that is empty or holds what is in a folder.
func makeExt(ctx context.Context, name string, file *os.File, size int64, o Options, folder *os.File) error {
	// The file is new and zero all over: nothing need be zeroed in it, now or by the
	// kernel later, and discarding would take blocks from a full image.
	args := []string{"-q", "-F", "-t", name, "-E", "nodiscard,assume_storage_prezeroed=1,lazy_journal_init=1"}
	profile := extProfiles[o.Profile]
	if o.BlockSize != 0 {
		if at := slices.Index(profile, "-b"); at >= 0 {
			profile = slices.Delete(slices.Clone(profile), at, at+2)
		}
		args = append(args, "-b", strconv.FormatInt(o.BlockSize, 10))
	}
	args = append(args, profile...)
	if o.Inodes != 0 {
		args = append(args, "-N", strconv.FormatInt(o.Inodes, 10))
	}
	if o.Reserved != nil {
		args = append(args, "-m", strconv.FormatFloat(*o.Reserved, 'f', -1, 64))
	}
	if o.Label != "" {
		args = append(args, "-L", o.Label)
	}
	if o.UUID != "" {
		args = append(args, "-U", o.UUID)
	}
	if folder != nil {
		args = append(args, "-d", tool.Output)
	}
	args = append(args, tool.Image, strconv.FormatInt(size/1024, 10)+"k")
	return tool.Command{Name: "mke2fs", Args: args, File: file, Into: folder}.OK(ctx)
}

// AmendExt has debugfs carry out commands on an ext file system that was just made. It
// tells of none that failed: look at what came out.
func AmendExt(ctx context.Context, file *os.File, commands string) error {
	return tool.Command{Name: "debugfs", Args: []string{"-w", tool.Image}, File: file, Input: commands}.OK(ctx)
}

// Exit statuses of e2fsck are bits; see e2fsck(8).
const (
	extMended = 1
	extReboot = 2 // of no meaning for an image
	extLeft   = 4
	extFailed = 8 // it could not go on
)

func (e extPrograms) e2fsck(ctx context.Context, file *os.File, progress Progress, how ...string) (tool.Result, error) {
	if e.lost(file) {
		how = append(how, "-b", strconv.FormatInt(e.copy.block, 10), "-B", strconv.FormatInt(e.copy.blockSize, 10))
	}
	c := e.command("e2fsck", file, append(how, "-f", tool.Image)...)
	if progress != nil && c.Into == nil {
		const passes = 5
		c.Progress = func(pass, thousandths int64) { progress((pass-1)*1000/passes+thousandths/passes, 1000) }
	}
	result, err := c.Run(ctx)
	return result, e.written(err)
}

// lost reports whether the primary superblock is lost, and there is a copy to be read.
func (e extPrograms) lost(file *os.File) bool {
	var magic [2]byte
	if e.copy.blockSize == 0 {
		return false
	}
	_, err := file.ReadAt(magic[:], 1024+56)
	return err != nil || magic != [2]byte{0x53, 0xEF}
}

// found is what e2fsck found, and before it that the superblock is lost.
func (e extPrograms) found(lost bool, output string) string {
	if !lost {
		return output
	}
	return strings.TrimSuffix(fmt.Sprintf("its primary superblock is lost, and read from the copy at block %d; %s", e.copy.block, output), "; ")
}

// command is one of a program that may change the file.
func (e extPrograms) command(name string, file *os.File, args ...string) tool.Command {
	c := tool.Command{Name: name, Args: args, File: cmp.Or(e.on, file), Into: e.undo}
	if e.undo != nil {
		c.Args = append([]string{"-z", tool.Output}, args...)
		// With -z the block of the inode for further growth is read, to be kept, right
		// before it is made zero behind the back of the cache, and what is read then is
		// what it was: resize2fs of 1.47 fails on that or leaves it not valid. This has
		// zeros go through the cache.
		c.Env = []string{"UNIX_IO_NOZEROOUT=1"}
		if e.on != nil { // an image that is a file itself would be bound, too
			c.MaxFile = e.most
		}
	}
	return c
}

// written has what a program wrote to what stands for the file in the file itself.
func (e extPrograms) written(err error) error {
	switch {
	case errors.Is(err, tool.ErrFull):
		return upkeep.WithHint(fmt.Errorf("the host has not the room for what is kept of what is written over: %w", err), "make room beside the image, and run it again")
	case err != nil || e.on == nil:
		return err
	}
	return e.on.Sync()
}

func (e extPrograms) check(ctx context.Context, file *os.File, progress Progress) (Verdict, error) {
	lost := e.lost(file)
	result, err := extPrograms{copy: e.copy}.e2fsck(ctx, file, progress, "-n")
	result.Output = e.found(lost, result.Output)
	switch {
	case err != nil:
		return Verdict{}, err
	case result.Code == 0 && lost:
		return Verdict{Found: result.Output, Hint: repairHint}, nil
	case result.Code == 0:
		return Verdict{Clean: true, Found: result.Output}, nil
	case result.Code&^(extMended|extReboot|extLeft) == 0, result.Code&^(extMended|extReboot) == extLeft|extFailed:
		// With both of the last it could go no further without repairing what it found.
		return Verdict{Found: result.Output, Hint: repairHint}, nil
	}
	return Verdict{}, tool.Failed("e2fsck", result)
}

// repair answers yes to all: it works on a second file, of which nothing is kept
// when the last check does not find it clean.
func (e extPrograms) repair(ctx context.Context, file *os.File, progress Progress) (Verdict, error) {
	var found []string
	for range 3 { // what one run repairs can show more
		lost := e.lost(file)
		result, err := e.e2fsck(ctx, file, progress, "-y")
		result.Output = e.found(lost, result.Output)
		switch {
		case err != nil:
			return Verdict{}, err
		case result.Code == 0:
			return Verdict{Clean: true, Mended: len(found) > 0, Found: strings.Join(found, "; ")}, nil
		case result.Code&^(extMended|extReboot|extLeft) != 0:
			return Verdict{}, tool.Failed("e2fsck", result)
		}
		found = append(found, result.Output)
	}
	return Verdict{Found: strings.Join(found, "; ")}, nil
}

// preen does what the kernel or a boot would: it replays the journal and repairs
// what needs no decision. Resize2fs wants it.
func (e extPrograms) preen(ctx context.Context, file *os.File, progress Progress) (mended string, err error) {
	result, err := e.e2fsck(ctx, file, progress, "-p")
	switch {
	case err != nil:
		return "", err
	case result.Code == 0:
		return "", nil
	case result.Code&^(extMended|extReboot) != 0:
		return "", damaged(result)
	}
	return Verdict{Found: result.Output}.Brief(), nil
}

func (e extPrograms) resize2fs(ctx context.Context, file *os.File, size ...string) error {
	args := append([]string{tool.Image}, size...)
	if e.unchecked {
		args = append([]string{"-f"}, args...)
	}
	result, err := e.command("resize2fs", file, args...).Run(ctx)
	switch err = e.written(err); {
	case err != nil:
		return err
	case result.Code == 0:
		return nil
	case len(size) == 0: // it grows, and is not told to be too small
	case e.undo != nil && strings.Contains(result.Output, "No space left"):
		return fmt.Errorf("%w, or the host has not the room for what is kept of what is written over (%s)", errNotEnough, result.Output)
	case strings.Contains(result.Output, "Not enough space") || strings.Contains(result.Output, "smaller than minimum") || strings.Contains(result.Output, "No space left"):
		return fmt.Errorf("%w (%s)", errNotEnough, result.Output)
	}
	return tool.Failed("resize2fs", result)
}

// shrink asks for a size or, with 0, for the least. What resize2fs takes for the
// least is an estimate, so it is asked until it finds no less.
func (e extPrograms) shrink(ctx context.Context, file *os.File, size int64) error {
	if size > 0 {
		err := e.resize2fs(ctx, file, strconv.FormatInt(size/1024, 10)+"K")
		if errors.Is(err, errNotEnough) {
			return e.tooSmall(ctx, file, size, err)
		}
		return err
	}
	last := int64(0)
	for range 10 {
		if err := e.resize2fs(ctx, file, "-M"); err != nil {
			return err
		}
		now, err := extBlocks(file)
		if err != nil || now == last {
			return err
		}
		last = now
	}
	return nil
}

// tooSmall says what resize2fs makes it at least. It estimates that, and can want much
// more than is used.
func (e extPrograms) tooSmall(ctx context.Context, file *os.File, size int64, refused error) error {
	on := cmp.Or(e.on, file)
	result, err := tool.Command{Name: "resize2fs", Args: []string{"-P", tool.Image}, File: on}.Run(ctx)
	if err != nil {
		return refused
	}
	var shift [4]byte // of 1024, to the size of a block
	if _, err := on.ReadAt(shift[:], 1024+24); err != nil || shift[0] > 6 {
		return refused
	}
	_, text, _ := strings.Cut(result.Output, "minimum size of the filesystem: ")
	var blocks int64
	if _, err := fmt.Sscan(text, &blocks); err != nil || blocks<<(10+shift[0]) <= size {
		return refused
	}
	least := upkeep.Size(blocks << (10 + shift[0]))
	return upkeep.WithHint(fmt.Errorf("%w: resize2fs makes it no smaller than %s (%d bytes), which is its own limit, whatever is free", errNotEnough, least.About(), int64(least)),
		"--min makes it as small as resize2fs can")
}

// extBlocks is the number of blocks of the file system, from its superblock.
func extBlocks(file *os.File) (int64, error) {
	var super [8]byte
	if _, err := file.ReadAt(super[:], 1024); err != nil {
		return 0, fmt.Errorf("reading the superblock: %w", err)
	}
	return int64(super[4]) | int64(super[5])<<8 | int64(super[6])<<16 | int64(super[7])<<24, nil
}

// ext4IocResize is EXT4_IOC_RESIZE_FS of Linux, _IOW('f', 16, __u64).
const ext4IocResize = 0x40086610

func growExtMounted(dir *os.File, size int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("asking the mounted file system for its blocks: %w", err)
	}
	blocks := uint64(size / int64(st.Bsize))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ext4IocResize, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return fmt.Errorf("growing it while mounted: %w", errno)
	}
	return nil
}

// damaged is the error of work that wants a file system in order.
func damaged(result tool.Result) error {
	return &upkeep.HintError{Err: fmt.Errorf("%w: %s", errDamaged, Verdict{Found: result.Output}.Brief()), Hint: "upkeep image check --repair repairs what can be repaired, and says what"}
}

var errDamaged = errors.New("it is damaged and was left as it is")
