package btrfs

import (
	"io"

	"upkeep/internal/image/lookup"
)

const maxLink = 64 << 10 // bytes of a symbolic link: a node

// Stat implements [lookup.Node], as what follows does.
func (n *inode) Stat() lookup.Stat {
	return lookup.Stat{Size: n.size, Mode: n.mode(), ModTime: n.time(136), Owner: n.owner()}
}

func (n *inode) Content() (lookup.Content, error) { return &content{n: n}, nil }

func (n *inode) Link() (string, error) {
	if n.size > maxLink {
		return "", damaged("a symbolic link has %d bytes", n.size)
	}
	b := make([]byte, n.size)
	if _, err := io.ReadFull(io.NewSectionReader(&content{n: n}, 0, n.size), b); err != nil {
		return "", err
	}
	return string(b), nil
}
