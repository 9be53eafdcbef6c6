// Package extract writes the files of a file system that is read, and not mounted,
// into a folder: with all that the process may give them, and a list of the rest.
package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/lookup"
)

// Options say how it is done.
type Options struct {
	// Harmless makes no devices, and nothing that runs as another user: an image that
	// is not trusted could hold a key to the host's disks.
	Harmless bool
	// Total is how many bytes there are about, and passed on to Progress.
	Total    int64
	Progress func(done, total int64)
}

// A Loss is something that a copy has not got.
type Loss struct{ Path, What, Why string }

// Report says what was copied.
type Report struct {
	Entries int64
	Bytes   int64 // of files, without blocks of zeros
	Lost    []Loss
}

// Tree copies all into an empty folder. As root it gives files to their owners and makes
// devices; else all belongs to who runs it. It does not wait for the disk, and nobody
// else may write to the folder meanwhile. After an error a part is there.
func Tree(ctx context.Context, dst *os.File, src lookup.DirEntry, o Options) (Report, error) {
	fd, err := unix.Openat(int(dst.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Report{}, fmt.Errorf("opening %s: %w", dst.Name(), err)
	}
	root := os.NewFile(uintptr(fd), dst.Name())
	defer root.Close()
	if err := NeedEmpty(root); err != nil {
		return Report{}, err
	}
	x := &extraction{Options: o, ctx: ctx, root: fd, uid: os.Geteuid(), gid: os.Getegid(), buffer: make([]byte, 256<<10), first: map[inode]string{}, entered: map[inode]bool{}}
	info, err := src.Info()
	if err != nil {
		return Report{}, err
	}
	if !info.IsDir() {
		return Report{}, fmt.Errorf("%w: its root is not a folder", upkeep.ErrRefused)
	}
	err = x.folder(fd, ".", src, info, 0)
	return x.report, err
}

// NeedEmpty refuses a folder that is open, and was not read, with something in it.
func NeedEmpty(dir *os.File) error {
	if names, err := dir.Readdirnames(1); err == nil && len(names) > 0 {
		return fmt.Errorf("%w: %s is not empty; it has %q, for one", upkeep.ErrRefused, dir.Name(), names[0])
	}
	return nil
}

// Measure is how many bytes the data of all files has below a folder, in blocks of 4096.
func Measure(ctx context.Context, src lookup.DirEntry) (int64, error) {
	m := &measure{ctx: ctx, seen: map[inode]bool{}}
	err := m.entry(".", src, 0)
	return m.bytes, err
}

type measure struct {
	ctx   context.Context
	bytes int64
	seen  map[inode]bool
}

func (m *measure) entry(name string, e lookup.DirEntry, depth int) error {
	info, err := e.Info()
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if known := inodeOf(info); ownerOf(info).Links > 1 || info.IsDir() {
		if m.seen[known] {
			return nil // another name of a file; what a folder in two places is, the copy says
		}
		m.seen[known] = true
	}
	switch {
	case m.ctx.Err() != nil:
		return context.Cause(m.ctx)
	case info.Mode().IsRegular():
		if err := m.file(e, info.Size()); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	case info.IsDir() && depth <= maxDepth:
		entries, err := e.ReadDir()
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		for _, below := range entries {
			if err := m.entry(path.Join(name, below.Name()), below, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *measure) file(e lookup.DirEntry, size int64) error {
	in, err := e.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	const block = int64(len(zeros))
	return eachData(in.(lookup.Content), size, func(from, to int64) error {
		m.bytes += (to+block-1)/block*block - from/block*block
		return context.Cause(m.ctx)
	})
}

// maxDepth is more folders within each other than a path can name.
const maxDepth = 2048

type extraction struct {
	Options
	ctx      context.Context
	root     int
	uid, gid int
	report   Report
	buffer   []byte
	first    map[inode]string // of inodes with several names, the one that was made
	entered  map[inode]bool   // folders
}

// inode is by which a file is known, whatever its name.
type inode struct{ subvolume, number uint64 }

func ownerOf(info fs.FileInfo) *lookup.Owner { return info.Sys().(*lookup.Owner) }

func inodeOf(info fs.FileInfo) inode {
	owner := ownerOf(info)
	return inode{owner.Subvolume, owner.Inode}
}

func (x *extraction) lose(name, what, why string) {
	x.report.Lost = append(x.report.Lost, Loss{name, what, why})
}

// folder fills a folder that is open and gives it its attributes, its time last.
func (x *extraction) folder(fd int, name string, src lookup.DirEntry, info fs.FileInfo, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: folders lie in each other more than %d deep", upkeep.ErrRefused, maxDepth)
	}
	inode := inodeOf(info)
	if x.entered[inode] {
		return fmt.Errorf("%w: the file system is damaged: the folder %q is in two places", upkeep.ErrRefused, name)
	}
	x.entered[inode] = true
	x.report.Entries++
	entries, err := src.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		info, err := e.Info()
		if err == nil {
			err = x.entry(fd, path.Join(name, e.Name()), e, info, depth)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", path.Join(name, e.Name()), err)
		}
	}
	return x.finish(fd, "", name, info)
}

func (x *extraction) entry(dir int, name string, src lookup.DirEntry, info fs.FileInfo, depth int) error {
	base := src.Name()
	if info.IsDir() {
		if err := unix.Mkdirat(dir, base, 0o700); err != nil {
			return fmt.Errorf("making the folder: %w", err)
		}
		fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening the folder: %w", err)
		}
		defer unix.Close(fd)
		return x.folder(fd, name, src, info, depth+1)
	}
	inode, links := inodeOf(info), ownerOf(info).Links
	if first, made := x.first[inode]; made && links > 1 {
		x.report.Entries++
		if err := unix.Linkat(x.root, first, dir, base, 0); err != nil {
			return fmt.Errorf("linking it to %q: %w", first, err)
		}
		return nil
	}
	made, err := x.make(dir, name, src, info)
	if err != nil || !made {
		return err
	}
	x.report.Entries++
	if links > 1 {
		x.first[inode] = name
	}
	return nil
}

// make makes what is no folder, if it can be made here.
func (x *extraction) make(dir int, name string, src lookup.DirEntry, info fs.FileInfo) (bool, error) {
	base := src.Name()
	switch info.Mode().Type() {
	case 0:
		return true, x.file(dir, name, src, info)
	case fs.ModeSymlink:
		text, err := src.ReadLink()
		if err == nil {
			err = unix.Symlinkat(text, dir, base)
		}
		if err != nil {
			return false, fmt.Errorf("making the link: %w", err)
		}
	case fs.ModeNamedPipe, fs.ModeSocket, fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		if x.Harmless && info.Mode()&fs.ModeDevice != 0 {
			x.lose(name, "entry", "devices of an image that is not trusted are not made")
			return false, nil
		}
		err := unix.Mknodat(dir, base, typeBits(info.Mode())|0o600, int(ownerOf(info).Device))
		if errors.Is(err, unix.EPERM) {
			x.lose(name, "entry", "making devices takes root")
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("making it: %w", err)
		}
	default:
		x.lose(name, "entry", "it is of a type that is not known")
		return false, nil
	}
	return true, x.finish(dir, base, name, info)
}

func typeBits(m fs.FileMode) uint32 {
	switch m.Type() {
	case fs.ModeNamedPipe:
		return unix.S_IFIFO
	case fs.ModeSocket:
		return unix.S_IFSOCK
	case fs.ModeDevice:
		return unix.S_IFBLK
	}
	return unix.S_IFCHR
}

// file copies a file; blocks of zeros become holes.
func (x *extraction) file(dir int, name string, src lookup.DirEntry, info fs.FileInfo) (err error) {
	in, err := src.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	fd, err := unix.Openat(dir, src.Name(), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("making the file: %w", err)
	}
	out := os.NewFile(uintptr(fd), src.Name())
	defer func() { err = errors.Join(err, out.Close()) }()
	content := in.(lookup.Content)
	err = eachData(content, info.Size(), func(from, to int64) error { return x.piece(out, content, from, to) })
	if err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return fmt.Errorf("giving it its size: %w", err)
	}
	return x.finish(fd, "", name, info)
}

// eachData calls with each piece of data of a file.
func eachData(content lookup.Content, size int64, do func(from, to int64) error) error {
	for at := int64(0); at < size; {
		from, to, err := content.NextData(at)
		if err != nil {
			return fmt.Errorf("asking where its data lies: %w", err)
		}
		if from < to {
			err = do(from, to)
		}
		if err != nil {
			return err
		}
		at = max(to, at+1) // it ends, whatever is said
	}
	return nil
}

// piece copies a piece of a file.
func (x *extraction) piece(out *os.File, content io.ReaderAt, from, to int64) error {
	for from < to {
		if x.ctx.Err() != nil {
			return context.Cause(x.ctx)
		}
		// In step with the blocks, of which those of zeros are left out.
		b := x.buffer[:min(int64(len(x.buffer))-from%int64(len(zeros)), to-from)]
		n, err := content.ReadAt(b, from)
		if failed := x.write(out, b[:n], from); failed != nil {
			return failed
		}
		if n < len(b) {
			return fmt.Errorf("reading it: %w", err)
		}
		from += int64(n)
	}
	return nil
}

var zeros [4096]byte

func (x *extraction) write(out *os.File, b []byte, at int64) error {
	for block := range slices.Chunk(b, len(zeros)) {
		if string(block) != string(zeros[:len(block)]) {
			if _, err := out.WriteAt(block, at); err != nil {
				return fmt.Errorf("writing it: %w", err)
			}
			x.report.Bytes += int64(len(block))
		}
		at += int64(len(block))
	}
	if x.Progress != nil {
		x.Progress(x.report.Bytes, max(x.Total, x.report.Bytes))
	}
	return nil
}

// finish gives owner, mode and times, in this order: a change of the owner takes away
// what the mode grants. With an empty base dir is the file itself.
func (x *extraction) finish(dir int, base, name string, info fs.FileInfo) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if base == "" {
		flags = unix.AT_EMPTY_PATH
	}
	a, mode := ownerOf(info), permissions(info.Mode())
	if x.Harmless && mode&^0o1777 != 0 && !info.IsDir() {
		x.lose(name, "mode", "what is not trusted gets no set-id bits")
		mode &= 0o1777
	}
	if !a.Unowned && (int(a.UID) != x.uid || int(a.GID) != x.gid) {
		err := unix.Fchownat(dir, base, int(a.UID), int(a.GID), flags)
		if errors.Is(err, unix.EPERM) {
			x.lose(name, "owner", fmt.Sprintf("giving it to user %d and group %d takes root", a.UID, a.GID))
			if mode&^0o1777 != 0 { // or it would run as who copied it
				x.lose(name, "mode", "it would set another user or group than it did")
				mode &= 0o1777
			}
		} else if err != nil {
			return fmt.Errorf("giving it to user %d and group %d: %w", a.UID, a.GID, err)
		}
	}
	if err := chmod(dir, base, mode, info.Mode()); err != nil {
		return fmt.Errorf("giving it mode %o: %w", mode, err)
	}
	access := a.Access
	if access.IsZero() {
		access = info.ModTime()
	}
	times := []unix.Timespec{timespec(access), timespec(info.ModTime())}
	if err := unix.UtimesNanoAt(dir, base, times, flags); err != nil {
		return fmt.Errorf("giving it its times: %w", err)
	}
	return nil
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func chmod(dir int, base string, mode uint32, of fs.FileMode) error {
	switch {
	case of&fs.ModeSymlink != 0:
		return nil // has none
	case base == "":
		return unix.Fchmod(dir, mode)
	}
	return unix.Fchmodat(dir, base, mode, 0)
}

func permissions(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetuid: unix.S_ISUID, fs.ModeSetgid: unix.S_ISGID, fs.ModeSticky: unix.S_ISVTX} {
		if m&flag != 0 {
			mode |= bit
		}
	}
	return mode
}
