package xfs

import (
	"io/fs"

	"upkeep/internal/image/lookup"
)

// Stat implements [lookup.Node], as what follows does.
func (n *inode) Stat() lookup.Stat {
	return lookup.Stat{Size: n.size, Mode: lookup.Mode(n.mode), ModTime: n.time(40), Owner: n.owner()}
}

func (n *inode) Content() (lookup.Content, error) { return n, n.readable() }

func (n *inode) Lookup(name string) (*inode, error) {
	for entry, err := range n.names() {
		if err != nil {
			return nil, err
		}
		if entry.name == name {
			return n.fs.inode(entry.inode)
		}
	}
	return nil, fs.ErrNotExist
}

func (n *inode) Entries() (all []lookup.Entry[*inode], err error) {
	for e, err := range n.names() {
		if err != nil {
			return nil, err
		}
		all = append(all, lookup.Entry[*inode]{Name: e.name, Node: func() (*inode, error) { return n.fs.inode(e.inode) }})
	}
	return all, nil
}
