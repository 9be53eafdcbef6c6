package vfat

import (
	"errors"
	"io/fs"

	"upkeep/internal/image/lookup"
)

// Stat implements [lookup.Node], as what follows does.
func (n *node) Stat() lookup.Stat {
	// A folder begins where no other does.
	return lookup.Stat{Size: n.size, Mode: n.mode(), ModTime: n.changed, Owner: lookup.Owner{Unowned: true, Inode: uint64(n.cluster), Links: 1}}
}

func (n *node) Content() (lookup.Content, error) { return n.content() }
func (n *node) Link() (string, error)            { return "", errors.ErrUnsupported }

func (n *node) Lookup(name string) (*node, error) {
	if !n.isFolder() {
		return nil, lookup.ErrNoFolder
	}
	entries, err := n.entries()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if folded(e.name) == folded(name) {
			return e, nil
		}
	}
	return nil, fs.ErrNotExist
}

func (n *node) Entries() (all []lookup.Entry[*node], err error) {
	if !n.isFolder() {
		return nil, lookup.ErrNoFolder
	}
	entries, err := n.entries()
	for _, e := range entries {
		all = append(all, lookup.Entry[*node]{Name: e.name, Node: func() (*node, error) { return e, nil }})
	}
	return all, err
}
