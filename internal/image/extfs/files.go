package extfs

import (
	"encoding/binary"
	"fmt"
	"io/fs"

	"upkeep/internal/image/lookup"
)

const (
	maxDir  = 1 << 30  // bytes of one folder
	maxLink = 64 << 10 // bytes of a symbolic link: a block
)

// Stat implements [lookup.Node], as what follows does.
func (n *inode) Stat() lookup.Stat {
	return lookup.Stat{Size: n.size, Mode: lookup.Mode(uint32(n.mode)), ModTime: n.time(16, 136), Owner: n.owner()}
}

func (n *inode) Content() (lookup.Content, error) { return n, nil }

func (n *inode) Link() (string, error) {
	if n.size > maxLink {
		return "", fmt.Errorf("%w: a symbolic link has %d bytes", ErrDamaged, n.size)
	}
	if n.size < 60 && n.flags&(flagExtents|flagInline|flagEncrypted) == 0 {
		return string(n.raw[40 : 40+n.size]), nil
	}
	b := make([]byte, n.size)
	if err := readFull(n, b, 0); err != nil {
		return "", err
	}
	return string(b), nil
}

func (n *inode) Lookup(name string) (*inode, error) {
	var found int64
	err := n.each(func(entry string, number int64) bool {
		if entry == name {
			found = number
		}
		return found == 0
	})
	if err != nil {
		return nil, err
	}
	if found == 0 {
		return nil, fs.ErrNotExist
	}
	return n.fs.inode(found)
}

func (n *inode) Entries() (all []lookup.Entry[*inode], err error) {
	err = n.each(func(name string, number int64) bool {
		all = append(all, lookup.Entry[*inode]{Name: name, Node: func() (*inode, error) { return n.fs.inode(number) }})
		return true
	})
	return all, err
}

// each calls for the entries of a folder until it is told to stop. Indexes are
// passed over: to who reads from start to end they look like free room.
func (n *inode) each(do func(name string, number int64) bool) error {
	switch {
	case n.mode&0xf000 != 0x4000:
		return lookup.ErrNoFolder
	case n.size > maxDir:
		return fmt.Errorf("%w: a folder has %d bytes, and %d are read at most", ErrUnsupported, n.size, maxDir)
	case n.flags&flagEncrypted != 0:
		return fmt.Errorf("%w: it is encrypted", ErrUnsupported)
	case n.inline != nil:
		_, err := eachIn(n.inline[min(4, len(n.inline)):min(60, len(n.inline))], do)
		if err == nil && len(n.inline) > 60 {
			_, err = eachIn(n.inline[60:], do)
		}
		return err
	}
	b := make([]byte, n.fs.blockSize)
	read := map[int64]bool{} // a small image could have more names than there is memory
	for at := int64(0); at < n.size; at += n.fs.blockSize {
		block, _, err := n.locate(at / n.fs.blockSize)
		switch {
		case err != nil:
			return err
		case block == 0:
			return fmt.Errorf("%w: a folder has a hole", ErrDamaged)
		case read[block]:
			return fmt.Errorf("%w: a folder has block %d twice", ErrDamaged, block)
		}
		read[block] = true
		if err := readFull(n, b[:min(n.fs.blockSize, n.size-at)], at); err != nil {
			return err
		}
		if on, err := eachIn(b, do); err != nil || !on {
			return err
		}
	}
	return nil
}

func eachIn(b []byte, do func(name string, number int64) bool) (on bool, err error) {
	for len(b) >= 8 {
		number, length, name := int64(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint16(b[4:])), int(b[6])
		if length == 0 || length == 0xffff { // as blocks of 64 KiB write it
			length = 64 << 10
		}
		if length < 8 || length > len(b) || name+8 > length && number != 0 {
			return false, fmt.Errorf("%w: an entry of a folder has %d bytes", ErrDamaged, length)
		}
		if number != 0 && name > 0 && !do(string(b[8:8+name]), number) {
			return false, nil
		}
		b = b[length:]
	}
	return true, nil
}
