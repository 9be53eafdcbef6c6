package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"upkeep"
	"upkeep/internal/image/btrfs"
	"upkeep/internal/image/btrfstree"
	"upkeep/internal/image/extfs"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/lookup"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/partition"
	"upkeep/internal/image/reiserfs"
	"upkeep/internal/image/vfat"
	"upkeep/internal/image/xfs"
)

// Files are the files in an image, which is read and not mounted: root is not
// needed, and the kernel sees nothing of it.
type Files struct {
	lookup.Tree
	// Stale says that changes wait in a journal: files are as they were before them.
	Stale bool

	closers []func() error
}

// OpenFiles opens an image, or a packed one, here or on a web server, of which only
// what is needed is read. Partition is the number of the one that is meant; 0 is an
// image without any.
func OpenFiles(ctx context.Context, src string, partition int) (*Files, error) {
	f := &Files{}
	r, size, err := f.open(ctx, src)
	if err == nil {
		r, size, err = partOf(r, size, src, partition)
	}
	if err == nil {
		err = f.mount(r, size, src)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close lets go of the image.
func (f *Files) Close() error {
	var all []error
	for _, closes := range f.closers {
		all = append(all, closes())
	}
	f.closers = nil
	return errors.Join(all...)
}

func (f *Files) open(ctx context.Context, src string) (io.ReaderAt, int64, error) {
	if pack.IsURL(src) {
		r, err := pack.OpenRemote(ctx, src)
		if err != nil {
			return nil, 0, err
		}
		f.closers = append(f.closers, r.Close)
		packed, err := pack.Open(r, r.Size())
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", src, err)
		}
		return packed, packed.Size(), nil
	}
	real, err := realPath(src)
	if err != nil {
		return nil, 0, err
	}
	file, err := hold.OpenReal(real, false)
	if err != nil {
		return nil, 0, err
	}
	f.closers = append(f.closers, file.Close)
	info, err := file.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("looking at %s: %w", src, err)
	}
	format, err := pack.FormatOf(file, info.Size())
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", src, err)
	}
	switch format {
	case pack.Raw:
		return file, info.Size(), nil
	case pack.Packed:
		packed, err := pack.Open(file, info.Size())
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", src, err)
		}
		return packed, packed.Size(), nil
	}
	return nil, 0, &upkeep.HintError{
		Err:  fmt.Errorf("%w: %s is %s, which cannot be read in the middle", upkeep.ErrRefused, src, format.File()),
		Hint: "upkeep image pack " + src + " OUT.zst makes one of it that can",
	}
}

// partOf is the partition with a number, or with 0 all of an image.
func partOf(r io.ReaderAt, size int64, src string, number int) (io.ReaderAt, int64, error) {
	if number == 0 {
		return r, size, nil
	}
	table, err := partition.Read(r, size)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: reading the partitions of %s: %w", upkeep.ErrRefused, src, err)
	}
	p, err := table.Partition(number)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %s: %w", upkeep.ErrRefused, src, err)
	}
	return io.NewSectionReader(r, p.Offset, p.Length), p.Length, nil
}

// mount finds the file system.
func (f *Files) mount(r io.ReaderAt, size int64, src string) error {
	info, err := readFS(r, size)
	if err != nil {
		return fmt.Errorf("reading %s: %w", src, err)
	}
	switch info.Type {
	case fsinfo.None:
		if table, err := partition.Read(r, size); err == nil && len(table.Partitions) > 0 {
			return whichPart(src, table)
		}
		return fmt.Errorf("%w: %s holds no file system that is known here", upkeep.ErrRefused, src)
	case fsinfo.Swap:
		return fmt.Errorf("%w: %s holds swap space, in which there are no files", upkeep.ErrRefused, src)
	}
	f.Tree, f.Stale, err = filesOf(r, size, info)
	if unsupported := btrfstree.Unsupported(""); errors.As(err, &unsupported) {
		return notRead(unsupported, info.Type, src)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", src, err)
	}
	return nil
}

// filesOf are the files of a file system that is read without the kernel. Stale says that
// changes wait in a journal that its reader does not see.
func filesOf(r io.ReaderAt, size int64, info fsinfo.Info) (files lookup.Tree, stale bool, err error) {
	switch info.Type {
	case fsinfo.Ext2, fsinfo.Ext3, fsinfo.Ext4:
		e, err := extfs.Open(r, size)
		if err != nil {
			return nil, false, err
		}
		return e, e.Stale(), nil
	case fsinfo.ReiserFS:
		f, err := reiserfs.Open(r, size)
		if err != nil {
			return nil, false, err
		}
		return f.Files(), false, nil
	case fsinfo.VFAT:
		f, err := vfat.Open(r, size)
		if err != nil {
			return nil, false, err
		}
		return f, false, nil
	case fsinfo.Btrfs:
		b, err := btrfs.Open(r, size)
		if err != nil {
			return nil, false, err
		}
		return b, b.Stale(), nil
	case fsinfo.XFS:
		x, err := xfs.Open(r, size)
		if err != nil {
			return nil, false, err
		}
		return x, info.State == fsinfo.Journal, nil
	}
	return nil, false, fmt.Errorf("files of %s are not read without mounting it: %w", info.Type, fsinfo.ErrUnsupported)
}

// notRead refuses to look into an image, and says what does.
func notRead(why error, kind, src string) error {
	hint := "as root: upkeep image mount " + src + " DIR --ro"
	if program := readers[kind]; program != "" {
		hint += "; without root, of an image that is nothing else: " + program
	}
	return upkeep.WithHint(fmt.Errorf("%w: %w", upkeep.ErrRefused, why), hint)
}

// readers are programs that read types which are not read here.
var readers = map[string]string{
	fsinfo.Btrfs: "btrfs restore IMAGE DIR (btrfs-progs)",
}

// Listed is a file in an image.
type Listed struct {
	Path    string `json:"path"`
	Mode    string `json:"mode"` // as ls shows it
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Size    int64  `json:"size"`
	Changed string `json:"changed"` // RFC 3339
	Link    string `json:"link,omitempty"`
	// PathBytes and LinkBytes are the same as they are, where they are no UTF-8: JSON has
	// U+FFFD for what is none.
	PathBytes []byte `json:"path_base64,omitempty"`
	LinkBytes []byte `json:"link_base64,omitempty"`
}

// List lists a folder of the image, or is told of one file.
func (f *Files) List(name string) ([]Listed, error) {
	name = inside(name)
	info, err := f.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if to, failed := fs.Stat(f, name); failed == nil && to.IsDir() {
			info = to
		}
	}
	if err != nil {
		return nil, notThere(err)
	}
	if !info.IsDir() {
		one, err := newListed(name, info, func() (string, error) { return f.ReadLink(name) })
		return []Listed{one}, err
	}
	entries, err := fs.ReadDir(f, name)
	if err != nil {
		return nil, notThere(err)
	}
	all := []Listed{} // a list in JSON, also when it is empty
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("looking at %s: %w", e.Name(), err)
		}
		one, err := newListed(path.Join(name, e.Name()), info, e.(lookup.DirEntry).ReadLink)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// newListed is a file as it is shown; link reads it, where it is one.
func newListed(name string, info fs.FileInfo, link func() (string, error)) (Listed, error) {
	one := Listed{Path: "/" + strings.TrimPrefix(name, "."), Mode: info.Mode().String(), Size: info.Size(), Changed: info.ModTime().UTC().Format("2006-01-02T15:04:05Z")}
	owner := info.Sys().(*lookup.Owner)
	one.UID, one.GID = owner.UID, owner.GID
	one.PathBytes = noUTF8(one.Path)
	if info.Mode()&fs.ModeSymlink == 0 {
		return one, nil
	}
	var err error
	if one.Link, err = link(); err != nil {
		return one, fmt.Errorf("reading the link %s: %w", name, err)
	}
	one.LinkBytes = noUTF8(one.Link)
	return one, nil
}

// noUTF8 are the bytes of what is no UTF-8, and else nil.
func noUTF8(text string) []byte {
	if utf8.ValidString(text) {
		return nil
	}
	return []byte(text)
}

// Cat writes the content of a file.
func (f *Files) Cat(ctx context.Context, name string, out io.Writer) error {
	info, err := fs.Stat(f, inside(name))
	if err != nil {
		return notThere(err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is no file (%s)", upkeep.ErrRefused, name, info.Mode())
	}
	file, err := f.Open(inside(name))
	if err != nil {
		return notThere(err)
	}
	defer file.Close()
	b := make([]byte, 1<<20)
	for ctx.Err() == nil {
		n, err := file.Read(b)
		if _, failed := out.Write(b[:n]); failed != nil {
			return fmt.Errorf("writing %s: %w", name, failed)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
	}
	return context.Cause(ctx)
}

// inside is a path as [fs.FS] has it: what climbs over the root stays there.
func inside(name string) string {
	if name = strings.TrimPrefix(path.Clean("/"+name), "/"); name == "" {
		return "."
	}
	return name
}

func notThere(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no /%s in the image", upkeep.ErrNotFound, at.Path)
	}
	return err
}
