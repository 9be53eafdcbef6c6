package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/partition"
)

// Catalog lists images. What it found in a file is remembered for as long as the file
// does not change, so that listing thousands again takes a look at each and no
// reading.
type Catalog struct {
	mu    sync.Mutex
	known map[fileState]seen
}

// CatalogRoot is a folder below which images are looked for.
type CatalogRoot struct {
	Name   string
	Folder *os.File
	// Mounts enters file systems that are mounted below it.
	Mounts bool
}

// fileState is another one once a file was changed.
type fileState struct {
	device, inode    uint64
	size             int64
	written, changed unix.Timespec
}

func stateOf(st *unix.Stat_t) fileState {
	return fileState{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
}

// seen is what was found in a file. Not all files are images.
type seen struct {
	upkeep.ImageFile
	image bool
}

// Formats of images in a catalog that callers tell apart.
const (
	FormatRaw    = string(pack.Raw)
	FormatPacked = string(pack.Packed)
	FormatQCOW2  = string(pack.QCOW2)
)

// Bounds of a listing. What lies beyond is told, and not looked at.
const (
	maxListed    = 5000
	maxEntries   = 200_000 // files and folders that are looked at
	maxListDepth = 16
	maxProblems  = 50
	// maxScans is for how many images all processes of the machine are looked through;
	// that is done only where the kernel says that somebody has one.
	maxScans = 100
)

// listing is one run of [Catalog.List].
type listing struct {
	*Catalog
	upkeep.ImageList
	next    map[fileState]seen
	entries int
	scans   int
}

// List looks for images below folders. Nothing is followed, and nothing is opened but
// files. What cannot be looked into is among the problems of the list.
func (c *Catalog) List(ctx context.Context, roots []CatalogRoot) (upkeep.ImageList, error) {
	l := &listing{Catalog: c, next: map[fileState]seen{}}
	l.At, l.Images = time.Now().UTC(), []upkeep.ImageFile{}
	for _, root := range roots {
		if err := l.walk(ctx, root, ".", 0); err != nil {
			return upkeep.ImageList{}, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = l.next
	return l.ImageList, nil
}

func (l *listing) problem(format string, args ...any) {
	if len(l.Problems) < maxProblems {
		l.Problems = append(l.Problems, upkeep.Printable(fmt.Sprintf(format, args...)))
	}
}

// walk looks through a folder, and those in it.
func (l *listing) walk(ctx context.Context, root CatalogRoot, below string, depth int) error {
	shown := path.Join(root.Name, below)
	folder, err := openBelow(root, below)
	if err != nil {
		l.problem("%s: %v", shown, err)
		return nil
	}
	defer folder.Close()
	entries, err := folder.ReadDir(-1)
	if err != nil {
		l.problem("%s: %v", shown, err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, entry := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if l.entries++; l.entries > maxEntries {
			l.problem("%s: only %d entries are looked at", shown, maxEntries)
			return nil
		}
		name := entry.Name()
		at := path.Join(below, name)
		switch {
		case strings.HasPrefix(name, ".") || name == "lost+found":
		case entry.IsDir() && depth+1 >= maxListDepth:
			l.problem("%s: is too deep to be looked into", path.Join(root.Name, at))
		case entry.IsDir():
			if err := l.walk(ctx, root, at, depth+1); err != nil {
				return err
			}
		case entry.Type().IsRegular():
			l.file(folder, root.Name, at, name)
		}
	}
	return nil
}

// openBelow opens a folder below a root, through nothing that could lead out of it.
func openBelow(root CatalogRoot, below string) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	if !root.Mounts {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	for {
		fd, err := unix.Openat2(int(root.Folder.Fd()), below, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), below), nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR): // something was renamed meanwhile
		case errors.Is(err, unix.EXDEV):
			return nil, fmt.Errorf("is on another file system")
		default:
			return nil, err
		}
	}
}

// file adds a file to the list if it is an image.
func (l *listing) file(folder *os.File, root, at, name string) {
	var st unix.Stat_t
	if unix.Fstatat(int(folder.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return // gone meanwhile, or being made
	}
	l.mu.Lock()
	found, known := l.known[stateOf(&st)]
	l.mu.Unlock()
	if !known || found.Damage != "" {
		found = inspect(folder, name)
	}
	l.next[stateOf(&st)] = found
	if !found.image {
		return
	}
	if len(l.Images) >= maxListed {
		l.More++
		return
	}
	one := found.ImageFile
	one.Root, one.Path = root, at
	onHost(&one, &st)
	one.Holders = l.holders(folder, name)
	if one.Unfinished = unfinishedText(In(folder, name)); one.Unfinished != "" {
		one.Unfinished = strings.ReplaceAll(one.Unfinished, In(folder, name), at)
	}
	l.Images = append(l.Images, one)
}

// holders are who has an image, in words.
func (l *listing) holders(folder *os.File, name string) (all []string) {
	file, err := hold.OpenReal(In(folder, name), false)
	if err != nil {
		return busyText(err)
	}
	defer file.Close()
	if alone, known := hold.Alone(file); known && alone {
		return nil
	}
	if l.scans++; l.scans > maxScans {
		if l.scans == maxScans+1 {
			l.problem("who has an image was looked for %d times, and is not told of others", maxScans)
		}
		return nil
	}
	found, err := hold.Holders(file)
	if err != nil {
		return nil
	}
	for _, h := range found.Holders {
		all = append(all, h.String())
	}
	return all
}

// busyText are the holders that an error names.
func busyText(err error) (all []string) {
	var busy *hold.BusyError
	if errors.As(err, &busy) {
		for _, h := range busy.Holders {
			all = append(all, h.String())
		}
	}
	return all
}

// Describe looks at one file in an open folder, without who has it.
func Describe(folder *os.File, name string) (upkeep.ImageFile, error) {
	file, err := hold.OpenReal(In(folder, name), false)
	if err != nil {
		return upkeep.ImageFile{}, err
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return upkeep.ImageFile{}, fmt.Errorf("looking at %s: %w", name, err)
	}
	found := glance(file, name, st.Size)
	onHost(&found.ImageFile, &st)
	return found.ImageFile, nil
}

// onHost adds what a file is on its host.
func onHost(i *upkeep.ImageFile, st *unix.Stat_t) {
	i.Size, i.Allocated = st.Size, st.Blocks*512
	i.Changed = time.Unix(st.Mtim.Unix()).UTC()
	// Roughly: whether each block is there is asked for by verbs, which takes writing
	// what is in memory first.
	i.Kind = upkeep.ImageSparse
	if i.Allocated >= i.Size {
		i.Kind = upkeep.ImageFull
	}
}

// inspect opens a file and looks at what it holds.
func inspect(folder *os.File, name string) seen {
	file, err := hold.OpenReal(In(folder, name), false)
	if err != nil {
		return seen{upkeep.ImageFile{Format: string(pack.Raw), Damage: "it cannot be opened now"}, named(name)}
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return seen{}
	}
	return glance(file, name, stat.Size())
}

// named reports whether a file has the name of an image, for those in which there is
// nothing yet.
func named(name string) bool {
	return slices.Contains([]string{".img", ".raw", ".qcow2"}, path.Ext(name))
}

// glance tells images by what they hold, and files that hold nothing by their names.
func glance(file *os.File, name string, size int64) seen {
	format, err := pack.FormatOf(file, size)
	found := seen{upkeep.ImageFile{Format: string(format)}, named(name)}
	switch {
	case err != nil:
		found.Damage = err.Error()
	case format == pack.Packed:
		found.image = true
		found.packed(file, size)
	case format == pack.Raw:
		found.raw(file, size)
	case format == pack.QCOW2:
		found.image = true
	default:
		// Anything may be packed with gzip.
		found.image = named(strings.TrimSuffix(name, path.Ext(name)))
	}
	return found
}

func (s *seen) packed(file *os.File, size int64) {
	p, err := pack.Open(file, size)
	if err != nil {
		s.Damage = err.Error()
		return
	}
	facts := p.Manifest.Facts
	s.Holds, s.Type, s.Label, s.UUID, s.State = p.Size(), facts.Type, facts.Label, facts.UUID, facts.State
}

func (s *seen) raw(file *os.File, size int64) {
	table, err := partition.Read(file, size)
	switch {
	case err == nil:
		s.image, s.Partitions = true, len(table.Partitions)
		return
	case errors.Is(err, partition.ErrDamaged):
		s.image, s.Damage = true, err.Error()
		return
	}
	info, err := readFS(file, size)
	s.image = s.image || info.Type != fsinfo.None
	s.Type, s.Label, s.UUID, s.State, s.Used, s.Free = info.Type, info.Label, info.UUID, info.State, info.Used, info.Free
	switch {
	case err != nil:
		s.Damage = err.Error()
	case info.Size > size:
		s.Damage = fmt.Sprintf("%s of its file system are missing: it was cut off", upkeep.Size(info.Size-size).About())
	}
}
