package tree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"upkeep"
)

// A Manifest says what a tree holds: every attribute that a copy has to have. It
// does not depend on the file system that the tree is in, but for how holes lie.
type Manifest struct {
	// Block is the size of the blocks, to which holes are rounded.
	Block   int64
	Entries []Entry // sorted by path; the root is "."
}

// An Entry describes one name.
type Entry struct {
	Path     string
	Type     byte // f d l p s c b
	Mode     uint16
	UID, GID uint32
	Sec      int64 // of the last change, since 1970
	Nsec     uint32
	Size     int64   // of a file
	Device   uint64  // of a device
	Target   string  // of a link
	Flags    uint32  // as chattr sets them
	Project  uint32  // that its blocks are counted for
	Link     string  // of several names of one file: the first of them
	Holes    []Range // in which a file has no data
	Prealloc []Range // of those: that are allocated all the same; behind the end, too
	Sum      string  // of a file; see sumOf
	Xattrs   [][2]string
}

// maxPath bounds the paths of a manifest; a tree that is deeper can be copied and
// not be described.
const maxPath = 1 << 20

// ReadTree describes the tree below a folder, which must not change meanwhile.
// Progress counts bytes of files.
func ReadTree(ctx context.Context, root *os.File, total int64, progress func(done, total int64)) (*Manifest, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &fs); err != nil {
		return nil, fmt.Errorf("looking at the file system of %s: %w", root.Name(), err)
	}
	d := &describer{
		speculative: fs.Type == unix.XFS_SUPER_MAGIC, total: total, progress: progress,
		links: map[inodeKey]string{}, names: map[inodeKey]int{}, keys: map[string]inodeKey{},
	}
	if err := walk(ctx, int(root.Fd()), d); err != nil {
		return nil, fmt.Errorf("describing %s: %w", root.Name(), err)
	}
	slices.SortFunc(d.entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	for i := range d.entries {
		// A link out of the tree counts for the kernel and not here.
		if key, several := d.keys[d.entries[i].Path]; several && d.names[key] > 1 {
			d.entries[i].Link = d.links[key]
		}
	}
	return &Manifest{Block: max(fs.Bsize, 512), Entries: d.entries}, nil
}

// describer is the visitor that makes a manifest.
type describer struct {
	speculative bool
	total       int64
	progress    func(done, total int64)
	done        atomic.Int64

	mu      sync.Mutex
	entries []Entry
	links   map[inodeKey]string // the first name of a file
	names   map[inodeKey]int
	keys    map[string]inodeKey
}

func (d *describer) enter(*folder) error { return nil }
func (d *describer) release(*folder)     {}

func (d *describer) leave(f *folder) error {
	e, err := describe(f, "", &f.item)
	if err != nil {
		return err
	}
	ext, err := readInode(f.fd)
	if err != nil {
		return fmt.Errorf("reading its flags: %w", err)
	}
	e.Flags, e.Project = ext.flags&kept, ext.project
	return d.add(e, f.fd, -1, &f.item)
}

func (d *describer) visit(f *folder, i *item) error {
	if i.kind() == unix.S_IFDIR && !i.foreign {
		return nil // described when it is left
	}
	e, err := describe(f, i.name, i)
	if err != nil {
		return err
	}
	switch {
	case i.foreign:
		return nil // a copy does not have it, and says so
	case i.kind() == unix.S_IFREG:
		return d.file(f, i, e)
	case i.kind() == unix.S_IFLNK:
		if e.Target, err = readLink(f.fd, i.name); err != nil {
			return err
		}
	case i.kind() == unix.S_IFCHR, i.kind() == unix.S_IFBLK:
		e.Device = i.rdev
	}
	e.Xattrs, err = xattrsOf(-1, f.fd, i.name)
	if err != nil {
		return err
	}
	return d.add(e, -1, f.fd, i)
}

func (d *describer) file(f *folder, i *item, e Entry) error {
	fd, err := openBelow(f.fd, i.name, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ext, err := readInode(fd)
	if err != nil {
		return fmt.Errorf("reading its flags: %w", err)
	}
	e.Size, e.Flags, e.Project = i.size, ext.flags&kept, ext.project
	l, err := readLayout(fd, i, d.speculative && ext.xflags&xflagPrealloc == 0)
	if err != nil {
		return fmt.Errorf("asking where its data lies: %w", err)
	}
	e.Holes = l.holes(i.size)
	e.Prealloc = without(l.prealloc, l.data)
	if e.Sum, err = d.sumOf(fd, i.size, &l); err != nil {
		return err
	}
	if err := d.add(e, fd, -1, i); err != nil {
		return err
	}
	return unchanged(f, i)
}

// describe has what there is to say of any entry.
func describe(f *folder, name string, i *item) (Entry, error) {
	path := f.path()
	if name != "" {
		path = f.join(name)
	}
	if path == "" {
		path = "."
	}
	if len(path) > maxPath {
		return Entry{}, fmt.Errorf("%w: its path is longer than the %d bytes that a manifest takes", upkeep.ErrRefused, maxPath)
	}
	return Entry{
		Path: path, Type: typeOf(i.kind()), Mode: i.mode & 0o7777, UID: i.uid, GID: i.gid,
		Sec: i.mtime.Sec, Nsec: i.mtime.Nsec,
	}, nil
}

func typeOf(kind uint16) byte {
	switch kind {
	case unix.S_IFDIR:
		return 'd'
	case unix.S_IFLNK:
		return 'l'
	case unix.S_IFIFO:
		return 'p'
	case unix.S_IFSOCK:
		return 's'
	case unix.S_IFCHR:
		return 'c'
	case unix.S_IFBLK:
		return 'b'
	}
	return 'f'
}

func xattrsOf(fd, dir int, name string) ([][2]string, error) {
	xattrs, err := readXattrs(fd, dir, name)
	if err != nil {
		return nil, fmt.Errorf("reading its attributes: %w", err)
	}
	var list [][2]string
	for _, x := range xattrs {
		list = append(list, [2]string{x.name, string(x.value)})
	}
	return list, nil
}

// add keeps an entry. A file or folder that is open has its attributes read here.
func (d *describer) add(e Entry, fd, dir int, i *item) (err error) {
	if fd >= 0 {
		if e.Xattrs, err = xattrsOf(fd, dir, ""); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, e)
	if i.links > 1 && e.Type != 'd' {
		key := inodeKey{i.dev, i.ino}
		d.keys[e.Path] = key
		d.names[key]++
		if first, known := d.links[key]; !known || e.Path < first {
			d.links[key] = e.Path
		}
	}
	return nil
}

// piece is how much of a large file is summed at a time: the sum of a hole is
// known without reading it.
const piece = 64 << 20

// sumOf is the SHA-256 of a file, as sha256sum prints it. Of a file of more than
// one piece it is the SHA-256 of the pieces' sums, with a "p" ahead of it.
func (d *describer) sumOf(fd int, size int64, l *layout) (string, error) {
	if size <= piece {
		sum, err := d.sumPiece(fd, 0, size)
		return hex.EncodeToString(sum), err
	}
	all := sha256.New()
	var zeros []byte
	data := l.data
	for at := int64(0); at < size; at += piece {
		end := min(at+piece, size)
		for len(data) > 0 && data[0].To <= at {
			data = data[1:]
		}
		if (len(data) == 0 || data[0].From >= end) && end-at == piece {
			if zeros == nil {
				zeros = sumZeros(piece)
			}
			all.Write(zeros)
			continue
		}
		sum, err := d.sumPiece(fd, at, end)
		if err != nil {
			return "", err
		}
		all.Write(sum)
	}
	return "p" + hex.EncodeToString(all.Sum(nil)), nil
}

func sumZeros(n int64) []byte {
	sum := sha256.New()
	zeros := make([]byte, 1<<20)
	for ; n > 0; n -= int64(len(zeros)) {
		sum.Write(zeros[:min(n, int64(len(zeros)))])
	}
	return sum.Sum(nil)
}

func (d *describer) sumPiece(fd int, from, to int64) ([]byte, error) {
	buffer := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buffer)
	sum := sha256.New()
	for from < to {
		n, err := pread(fd, buffer[:min(int64(len(buffer)), to-from)], from)
		if errors.Is(err, io.EOF) {
			return nil, errChanged
		}
		if err != nil {
			return nil, fmt.Errorf("reading it: %w", err)
		}
		sum.Write(buffer[:n])
		from += int64(n)
		if done := d.done.Add(int64(n)); d.progress != nil {
			d.progress(done, d.total)
		}
	}
	return sum.Sum(nil), nil
}

// without takes some ranges out of others. Both are sorted, and none overlap
// within a list.
func without(ranges, taken []Range) []Range {
	var out []Range
	for _, r := range ranges {
		for len(taken) > 0 && taken[0].To <= r.From {
			taken = taken[1:]
		}
		for _, t := range taken {
			if t.From >= r.To {
				break
			}
			if t.From > r.From {
				out = append(out, Range{r.From, t.From})
			}
			r.From = min(t.To, r.To)
		}
		if r.From < r.To {
			out = append(out, r)
		}
	}
	return out
}
