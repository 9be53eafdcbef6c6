// Package vfat reads the files of a FAT12, FAT16 or FAT32 file system out of anything
// that can be read at offsets. Nothing is mounted and no program is run, and whatever is
// read is taken for hostile.
package vfat

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/lookup"
)

// ErrDamaged is wrapped by errors about file systems that cannot be as they say.
var ErrDamaged = errors.New("the file system is damaged")

// FS is a file system that is read. It implements [fs.ReadDirFS], [fs.StatFS] and
// [fs.ReadLinkFS]; there are no links in it. As everywhere, names are the same in upper
// and in lower case.
type FS struct {
	lookup.Files[*node]
	r io.ReaderAt
	fsinfo.FAT
}

// Open looks at the boot sector of the file system in the size bytes of r.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	layout, err := fsinfo.ReadFAT(r, size)
	if err != nil {
		return nil, err
	}
	f := &FS{r: r, FAT: layout}
	f.Files = lookup.FilesBelow(func() (*node, error) { return f.root(), nil })
	return f, nil
}

func (f *FS) read(b []byte, at int64) error {
	if n, err := f.r.ReadAt(b, at); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it ends before byte %d", ErrDamaged, at+int64(len(b)))
		}
		return fmt.Errorf("reading at %d: %w", at, err)
	}
	return nil
}

// at is where a cluster lies.
func (f *FS) at(cluster uint32) (int64, error) {
	if cluster < 2 || int64(cluster) >= f.Clusters+2 {
		return 0, fmt.Errorf("%w: cluster %d is not in it", ErrDamaged, cluster)
	}
	return f.Data + int64(cluster-2)*f.Cluster, nil
}

// table reads entries of the allocation table, a piece of it at a time.
type table struct {
	fs    *FS
	piece []byte
	from  int64 // where the piece lies in the table
}

const pieceSize = 16 << 10

// next is the cluster that follows another; end is true for the last.
func (t *table) next(cluster uint32) (next uint32, end bool, err error) {
	at, width := int64(cluster)*int64(t.fs.Bits)/8, int64(4)
	if t.fs.Bits < 32 {
		width = 2
	}
	if t.piece == nil || at < t.from || at+width > t.from+int64(len(t.piece)) {
		t.from = at
		t.piece = make([]byte, max(width, min(pieceSize, t.fs.TableSize-at)))
		if err := t.fs.read(t.piece, t.fs.Table+at); err != nil {
			return 0, false, err
		}
	}
	b := t.piece[at-t.from:]
	switch t.fs.Bits {
	case 12:
		next = uint32(binary.LittleEndian.Uint16(b)) >> (cluster % 2 * 4) & 0xfff
		return next, next >= 0xff8, nil
	case 16:
		next = uint32(binary.LittleEndian.Uint16(b))
		return next, next >= 0xfff8, nil
	}
	next = binary.LittleEndian.Uint32(b) & 0x0fffffff
	return next, next >= 0x0ffffff8, nil
}

// span is clusters that lie behind each other: from is where in the file, at where in
// the file system.
type span struct{ from, at, length int64 }

// spans are where the content of a file lies that begins at a cluster, up to a size;
// of a folder all up to the largest that one may be. Each step of the chain is paid for
// with a cluster of the content, so that none goes in circles for long.
func (f *FS) spans(first uint32, size int64, folder bool) ([]span, error) {
	var found []span
	t := table{fs: f}
	cluster := first
	for left := size; left > 0; {
		at, err := f.at(cluster)
		if err != nil {
			return nil, err
		}
		length := min(left, f.Cluster)
		if last := len(found) - 1; last >= 0 && found[last].at+found[last].length == at {
			found[last].length += length
		} else {
			found = append(found, span{size - left, at, length})
		}
		if left -= length; left == 0 {
			break
		}
		next, end, err := t.next(cluster)
		if err != nil {
			return nil, err
		}
		if end && folder {
			return found, nil
		}
		if end {
			return nil, fmt.Errorf("%w: a file has %d bytes less than it says", ErrDamaged, left)
		}
		cluster = next
	}
	return found, nil
}

// content is what lies in spans.
type content struct {
	fs    *FS
	spans []span
}

// ReadAt implements [io.ReaderAt].
func (c *content) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("reading at the negative offset %d", offset)
	}
	// Where a file lies in many pieces, going through all of them for each read would
	// take as long as somebody wants.
	first, _ := slices.BinarySearchFunc(c.spans, offset, func(s span, offset int64) int { return cmp.Compare(s.from+s.length, offset+1) })
	done := 0
	for _, s := range c.spans[first:] {
		within := offset + int64(done) - s.from
		want := b[done:]
		want = want[:min(int64(len(want)), s.length-within)]
		if err := c.fs.read(want, s.at+within); err != nil {
			return done, err
		}
		if done += len(want); done == len(b) {
			return done, nil
		}
	}
	return done, io.EOF
}

// NextData implements [lookup.Content]: the format knows no holes.
func (c *content) NextData(offset int64) (from, to int64, err error) {
	if n := len(c.spans); n > 0 {
		to = c.spans[n-1].from + c.spans[n-1].length
	}
	return min(max(offset, 0), to), to, nil
}
