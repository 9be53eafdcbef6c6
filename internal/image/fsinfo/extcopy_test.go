package fsinfo_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"upkeep/internal/image/fsinfo"
	"upkeep/internal/testkit"
)

// write puts bytes into an image.
func write(t *testing.T, file *os.File, at int64, p []byte) {
	t.Helper()
	if _, err := file.WriteAt(p, at); err != nil {
		t.Fatal(err)
	}
}

// lostIn wants a copy to be found in a group, or with 0 none.
func lostIn(t *testing.T, file *os.File, group int64) *fsinfo.LostError {
	t.Helper()
	stat, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := fsinfo.Read(file, stat.Size()); err != nil || info.Type != fsinfo.None {
		t.Fatalf("its superblock is not lost: %+v, %v", info, err)
	}
	info, err := fsinfo.ReadLost(file, stat.Size())
	var lost *fsinfo.LostError
	if group == 0 {
		if err != nil || info.Type != fsinfo.None {
			t.Errorf("found is %+v, %v", info, err)
		}
		return nil
	}
	if !errors.As(err, &lost) || !errors.Is(err, fsinfo.ErrDamaged) || lost.Group != group || lost.Type != info.Type || info.Size != stat.Size() || info.UUID != someUUID || info.Label != "label" {
		t.Fatalf("found is %+v, %v; want the copy in group %d", info, err, group)
	}
	return lost
}

// TestLostExt finds the copies where dumpe2fs says that they are, the next when one is
// damaged, and none when all are.
func TestLostExt(t *testing.T) {
	for name, args := range map[string]string{
		"ext2, 1K": "-t ext2 -b 1024", "ext2, 2K": "-t ext2 -b 2048", "ext3": "-t ext3 -b 4096", "ext4": "-t ext4 -b 4096", "ext4, 1K": "-t ext4 -b 1024",
		"plain": "-t ext4 -b 4096 -O ^metadata_csum,^64bit", "meta_bg": "-t ext4 -O meta_bg,^resize_inode -b 1024", "sparse_super2": "-t ext4 -O sparse_super2 -b 2048",
	} {
		t.Run(name, func(t *testing.T) {
			path := newImage(t, 600*mib, append(strings.Fields("mke2fs -q -F -L label -U "+someUUID), strings.Fields(args)...)...)
			out := testkit.Run(t, "dumpe2fs", path)
			file, _ := open(t, path)
			write(t, file, 1024, make([]byte, 1024))
			lost := lostIn(t, file, 1)
			if !strings.Contains(out, fmt.Sprintf("Backup superblock at %d,", lost.Block)) || lost.BlockSize != number(t, out, "^Block size:") {
				t.Errorf("%v, and dumpe2fs says\n%s", lost, out)
			}
			write(t, file, 1024, bytes.Repeat([]byte("noise..."), 128))
			lostIn(t, file, 1) // and not only zeros may be there
			if name == "meta_bg" || name == "sparse_super2" {
				return // which have no more copies, or not of the first descriptors
			}
			write(t, file, lost.Block*lost.BlockSize+1020, []byte("wrong checksum")[:4])
			next := int64(3)
			if !strings.Contains(out, "metadata_csum") {
				write(t, file, lost.Block*lost.BlockSize+40, make([]byte, 4)) // no inodes
			}
			lostIn(t, file, next)
			write(t, file, 0, make([]byte, 2<<20))
			lostIn(t, file, next) // where the descriptors are lost, too
		})
	}
}

// What was made of an image after it was ext is not taken for ext, though copies outlive
// it: here of types that nobody in this package knows.
func TestLeftoversOfExt(t *testing.T) {
	for name, made := range map[string]func(file *os.File){
		"LUKS":        func(f *os.File) { write(t, f, 0, []byte("LUKS\xba\xbe\x00\x01")) },
		"LUKS, wiped": func(f *os.File) { write(t, f, 0, make([]byte, 2<<20)); write(t, f, 0, []byte("LUKS\xba\xbe\x00\x01")) },
		"md, at 4K": func(f *os.File) {
			write(t, f, 0, make([]byte, 1<<20))
			write(t, f, 4096, []byte{0xfc, 0x4e, 0x2b, 0xa9})
		},
		"something, at 1M": func(f *os.File) { write(t, f, 4096, bytes.Repeat([]byte("data"), 1<<18)) },
		"another number":   func(f *os.File) { write(t, f, 32768*4096+90, []byte{3, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			file, _ := open(t, newImage(t, 200*mib, strings.Fields("mke2fs -q -F -b 4096 -t ext4 -O ^metadata_csum -L label -U "+someUUID)...))
			write(t, file, 1024, make([]byte, 1024))
			lostIn(t, file, 1)
			if strings.HasPrefix(name, "LUKS") {
				write(t, file, 4096, bytes.Repeat([]byte("keys"), 1024))
			}
			made(file)
			lostIn(t, file, 0)
		})
	}
	file, _ := open(t, newImage(t, 100*mib, strings.Fields("mke2fs -q -F -b 4096 -t ext4")...))
	write(t, file, 1024, make([]byte, 1024))
	lostIn(t, file, 0) // too small to have a copy
	file, _ = open(t, newImage(t, 100*mib))
	lostIn(t, file, 0)
}

// placed is an image of zeros with some pieces.
type placed map[int64][]byte

func (p placed) ReadAt(out []byte, at int64) (int, error) {
	clear(out)
	for start, piece := range p {
		for i := range piece {
			if n := start + int64(i) - at; n >= 0 && n < int64(len(out)) {
				out[n] = piece[i]
			}
		}
	}
	return len(out), nil
}

func FuzzReadLost(f *testing.F) {
	for _, args := range []string{"-t ext4 -b 4096", "-t ext2 -b 1024", "-t ext4 -b 2048 -O bigalloc", "-t ext4 -b 1024 -O meta_bg,^resize_inode"} {
		file, _ := open(f, newImage(f, 200*mib, append(strings.Fields("mke2fs -q -F"), strings.Fields(args)...)...))
		super := make([]byte, 1024)
		if _, err := file.ReadAt(super, 1024); err != nil {
			f.Fatal(err)
		}
		block := int64(1024) << super[24]
		group := int64(binary.LittleEndian.Uint32(super[20:]))*block + 8*block*block
		both := make([]byte, 2*block)
		if _, err := file.ReadAt(both, group); err != nil && !errors.Is(err, io.EOF) {
			f.Fatal(err)
		}
		f.Add(both[:1024], both[block:], block, int64(200*mib))
	}
	f.Fuzz(func(t *testing.T, super, descriptors []byte, block, size int64) {
		if len(super) > 1024 || len(descriptors) > 4096 || block != 1024 && block != 2048 && block != 4096 {
			return
		}
		at := 8 * block * block
		if block == 1024 {
			at += block
		}
		r := placed{at: super, at + block: descriptors, max(2048, block): descriptors}
		info, err := fsinfo.ReadLost(r, size)
		var lost *fsinfo.LostError
		switch {
		case err == nil && info.Type == fsinfo.None:
		case !errors.As(err, &lost) || info.Size <= 0 || lost.Block < 1 || lost.Block*lost.BlockSize > size:
			t.Errorf("found is %+v, %v in %d bytes", info, err, size)
		}
	})
}
