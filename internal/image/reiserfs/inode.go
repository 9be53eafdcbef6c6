package reiserfs

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ID names an object of the file system.
type ID struct{ Parent, Object uint32 }

// Root is the root folder.
var Root = ID{1, 2}

// Inode is what is known of an object.
type Inode struct {
	ID
	Mode  uint32 // with the type, as in stat(2)
	Links uint32
	UID   uint32
	GID   uint32
	Size  int64
	Rdev  uint32
	Atime time.Time
	Mtime time.Time
	Ctime time.Time
	// Flags are those of ioctl(2) FS_IOC_GETFLAGS.
	Flags uint32
}

// Types in Mode.
const (
	TypeMask   = 0o170000
	TypeFolder = 0o040000
	TypeFile   = 0o100000
	TypeLink   = 0o120000
	TypeChar   = 0o020000
	TypeBlock  = 0o060000
	TypeFIFO   = 0o010000
	TypeSocket = 0o140000
)

// Device is Rdev as mknod(2) takes it.
func (n Inode) Device() uint64 {
	return unix.Mkdev(n.Rdev>>8&0xfff, n.Rdev&0xff|n.Rdev>>12&0xfff00) // as new_decode_dev
}

// Type is the part of the mode that says what it is.
func (n Inode) Type() uint32 { return n.Mode & TypeMask }

// Stat reads an object's inode.
func (f *FS) Stat(id ID) (Inode, error) {
	n, found := Inode{ID: id}, false
	err := f.scan(key{parent: id.Parent, object: id.Object}, func(it item) (bool, error) {
		if it.key.parent != id.Parent || it.key.object != id.Object || it.key.kind != typeStat {
			return false, nil
		}
		found = true
		return false, n.parse(it)
	})
	if err == nil && !found {
		err = damaged("object %d %d is named and does not exist", id.Parent, id.Object)
	}
	return n, err
}

func (n *Inode) parse(it item) error {
	const oldSize, newSize = 32, 44
	p := it.body
	second := func(at int) time.Time { return time.Unix(int64(int32(le32(p, at))), 0) } // as the driver took it
	var rdev uint32
	switch {
	case it.old && len(p) == oldSize:
		n.Mode, n.Links, n.UID, n.GID = uint32(le16(p, 0)), uint32(le16(p, 2)), uint32(le16(p, 4)), uint32(le16(p, 6))
		n.Size, rdev = int64(le32(p, 8)), le32(p, 24)
		n.Atime, n.Mtime, n.Ctime = second(12), second(16), second(20)
	case len(p) == newSize:
		n.Mode, n.Flags, n.Links = uint32(le16(p, 0)), uint32(le16(p, 2)), le32(p, 4)
		n.UID, n.GID, rdev = le32(p, 16), le32(p, 20), le32(p, 40)
		if le64(p, 8) > 1<<60 {
			return damaged("object %d has %d bytes", n.Object, le64(p, 8))
		}
		n.Size = int64(le64(p, 8))
		n.Atime, n.Mtime, n.Ctime = second(24), second(28), second(32)
	default:
		return damaged("the inode of object %d has %d bytes", n.Object, len(p))
	}
	switch n.Type() {
	case TypeChar, TypeBlock:
		n.Rdev = rdev
	case TypeFolder, TypeFile, TypeLink, TypeFIFO, TypeSocket:
	default:
		return damaged("object %d has mode %o", n.Object, n.Mode)
	}
	return nil
}

// An Entry is a name in a folder.
type Entry struct {
	Name string
	ID
}

// Entries calls each with the names in a folder, but for "." and "..". The one of
// the folder for extended attributes is left out: they are asked for by [FS.Xattrs].
func (f *FS) Entries(folder ID, each func(Entry) error) error {
	var all []Entry // as each may read other things
	err := f.scan(key{folder.Parent, folder.Object, 1, typeStat}, func(it item) (bool, error) {
		if it.key.parent != folder.Parent || it.key.object != folder.Object {
			return false, nil
		}
		if it.key.kind != typeEntries {
			return false, damaged("folder %d holds something else than names", folder.Object)
		}
		return true, entries(it, func(e Entry) error {
			if folder != Root || e.Name != xattrFolder {
				all = append(all, e)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

// entries reads the names in an item. Their heads are at its beginning; the names
// lie from its end backwards.
func entries(it item, each func(Entry) error) error {
	const headSize, visible = 16, 1 << 2
	end := len(it.body)
	if it.count*headSize > end {
		return damaged("folder %d has %d names in %d bytes", it.key.object, it.count, end)
	}
	for i := range it.count {
		head := it.body[i*headSize:][:headSize]
		at := int(le16(head, 12))
		if at < it.count*headSize || at > end {
			return damaged("a name of folder %d lies at %d of %d", it.key.object, at, end)
		}
		text, _, _ := bytes.Cut(it.body[at:end], []byte{0})
		end = at
		name := string(text)
		switch {
		case name == "." || name == ".." || le16(head, 14)&visible == 0:
			continue
		case name == "" || len(name) > 255 || bytes.IndexByte(text, '/') >= 0:
			return damaged("folder %d has the name %q", it.key.object, name)
		}
		if err := each(Entry{name, ID{le32(head, 4), le32(head, 8)}}); err != nil {
			return err
		}
	}
	return nil
}

// Content calls each with the pieces of a file that are not holes, in order. What
// is passed is only good until each returns.
func (f *FS) Content(n Inode, each func(offset int64, data []byte) error) error {
	buffer := make([]byte, f.blockSize)
	return f.each(n, func(p piece) error {
		if p.direct != nil {
			return each(p.at, p.direct)
		}
		if err := f.into(buffer[:p.length], p.block, 0); err != nil {
			return err
		}
		return each(p.at, buffer[:p.length])
	})
}

// each calls with the pieces of a file that are not holes, in order.
func (f *FS) each(n Inode, each func(piece) error) error {
	next := int64(0)
	return f.scan(key{n.Parent, n.Object, 1, typeStat}, func(it item) (bool, error) {
		if it.key.parent != n.Parent || it.key.object != n.Object {
			return false, nil
		}
		at := int64(it.key.offset) - 1
		if at < next {
			return false, damaged("pieces of object %d lie over each other at %d", n.Object, at)
		}
		if at >= n.Size {
			return false, nil
		}
		switch it.key.kind {
		case typeDirect:
			p := it.body[:min(int64(len(it.body)), n.Size-at)]
			next = at + int64(len(p))
			return true, each(piece{at: at, direct: p, length: int64(len(p))})
		case typeIndirect:
			for p := it.body; len(p) >= 4 && at < n.Size; p = p[4:] {
				number := le32(p, 0)
				if number != 0 {
					if err := each(piece{at: at, block: number, length: min(f.blockSize, n.Size-at)}); err != nil {
						return false, err
					}
				}
				at += f.blockSize
			}
			next = at
			return true, nil
		}
		return false, damaged("object %d has content of type %d", n.Object, it.key.kind)
	})
}

// Link is the text of a symbolic link.
func (f *FS) Link(n Inode) (string, error) {
	const most = 4095
	if n.Size > most {
		return "", damaged("the link %d has %d bytes", n.Object, n.Size)
	}
	text := make([]byte, n.Size)
	err := f.Content(n, func(at int64, data []byte) error { copy(text[at:], data); return nil })
	text, _, _ = bytes.Cut(text, []byte{0})
	return string(text), err
}

const (
	xattrFolder = ".reiserfs_priv"
	xattrsIn    = "xattrs"
	xattrMagic  = 0x52465841
	maxXattr    = 64 << 10
)

// Xattrs are the extended attributes of an object. They are files in hidden
// folders, of which each is named for an object and its generation.
func (f *FS) Xattrs(n Inode) (map[string][]byte, error) {
	folder, found, err := f.find(Root, xattrFolder)
	if err == nil && found {
		folder, found, err = f.find(folder, xattrsIn)
	}
	if err != nil || !found {
		return nil, err
	}
	generation, err := f.generation(n.ID)
	if err != nil {
		return nil, err
	}
	if folder, found, err = f.find(folder, fmt.Sprintf("%X.%X", n.Object, generation)); err != nil || !found {
		return nil, err
	}
	all := map[string][]byte{}
	err = f.Entries(folder, func(e Entry) error {
		value, err := f.xattr(e)
		all[e.Name] = value
		return err
	})
	return all, err
}

// xattr reads a value, which stands behind a mark and a checksum.
func (f *FS) xattr(e Entry) ([]byte, error) {
	n, err := f.Stat(e.ID)
	if err != nil {
		return nil, err
	}
	if n.Size < 8 || n.Size > maxXattr+8 || n.Type() != TypeFile {
		return nil, damaged("the extended attribute %q has %d bytes", e.Name, n.Size)
	}
	value := make([]byte, n.Size)
	if err := f.Content(n, func(at int64, data []byte) error { copy(value[at:], data); return nil }); err != nil {
		return nil, err
	}
	if le32(value, 0) != xattrMagic {
		return nil, damaged("the extended attribute %q has not the mark of one", e.Name)
	}
	return value[8:], nil
}

// generation is what tells an object from others that had its number. That of a
// device's is not kept.
func (f *FS) generation(id ID) (generation uint32, err error) {
	err = f.scan(key{parent: id.Parent, object: id.Object}, func(it item) (bool, error) {
		switch {
		case it.key.parent != id.Parent || it.key.object != id.Object || it.key.kind != typeStat:
		case len(it.body) == 44:
			generation = le32(it.body, 40)
			if mode := uint32(le16(it.body, 0)) & TypeMask; mode == TypeChar || mode == TypeBlock {
				generation = id.Parent
			}
		default:
			generation = id.Parent
		}
		return false, nil
	})
	return generation, err
}

// find looks for a name in a folder.
func (f *FS) find(folder ID, name string) (ID, bool, error) {
	var id ID
	found := false
	err := f.scan(key{folder.Parent, folder.Object, 1, typeStat}, func(it item) (bool, error) {
		if it.key.parent != folder.Parent || it.key.object != folder.Object || it.key.kind != typeEntries {
			return false, nil
		}
		err := entries(it, func(e Entry) error {
			if e.Name == name {
				id, found = e.ID, true
			}
			return nil
		})
		return !found, err
	})
	return id, found, err
}
