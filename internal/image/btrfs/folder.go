package btrfs

import (
	"errors"
	"io/fs"

	"upkeep/internal/image/btrfstree"
	"upkeep/internal/image/lookup"
)

var errNoEntry = errors.New("no such entry")

// dirent is an entry of a folder.
type dirent struct {
	name     string
	location btrfstree.Key // of an inode in the same tree, or of the root of another
}

// dirents are the entries in an item: several where hashes of names are the same.
func dirents(item btrfstree.Fields) (all []dirent, err error) {
	const fixed = 30
	for len(item) > 0 {
		if len(item) < fixed {
			return nil, damaged("an entry of a folder has %d bytes", len(item))
		}
		data, name := int(item.U16(25)), int(item.U16(27))
		if name == 0 || fixed+name+data > len(item) {
			return nil, damaged("an entry of a folder has a name of %d bytes", name)
		}
		all = append(all, dirent{string(item[fixed : fixed+name]), item.Key(0)})
		item = item[fixed+name+data:]
	}
	return all, nil
}

// lookup finds an entry in a folder by its name.
func (f *FS) lookup(root btrfstree.Root, folder uint64, name string) (btrfstree.Key, error) {
	item, err := f.item(root, btrfstree.Key{Object: folder, Kind: dirItem, Offset: hash(name)})
	if err != nil {
		return btrfstree.Key{}, err
	}
	entries, err := dirents(item)
	if err != nil {
		return btrfstree.Key{}, err
	}
	for _, e := range entries {
		if e.name == name {
			return e.location, nil
		}
	}
	return btrfstree.Key{}, errNoEntry
}

func (n *inode) Lookup(name string) (*inode, error) {
	if !n.mode().IsDir() {
		return nil, lookup.ErrNoFolder
	}
	location, err := n.fs.lookup(n.in.root, n.number, name)
	if errors.Is(err, errNoEntry) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return n.child(dirent{name, location})
}

// child is what an entry of a folder stands for.
func (n *inode) child(e dirent) (*inode, error) {
	switch e.location.Kind {
	case btrfstree.InodeItem:
		return n.fs.inode(n.in, e.location.Object)
	case btrfstree.RootItem:
		return n.subvolume(e.location.Object, e.name)
	}
	return nil, damaged("an entry of a folder is of kind %d", e.location.Kind)
}

// subvolume is the top of a subvolume that a folder has by a name. A snapshot has the
// entries of subvolumes too, which are not part of it: without a reference from the
// tree of roots such an entry is an empty folder, as it is for the kernel.
func (n *inode) subvolume(number uint64, name string) (*inode, error) {
	ref, err := n.fs.item(n.fs.t.RootTree(), btrfstree.Key{Object: n.in.number, Kind: rootRef, Offset: number})
	if err != nil {
		return nil, err
	}
	const fixed = 18
	if len(ref) < fixed || ref.U64(0) != n.number || string(ref[fixed:]) != name {
		return n.nothing(), nil
	}
	root, found, err := n.fs.t.Root(number)
	if err != nil {
		return nil, err
	}
	if !found {
		return n.nothing(), nil
	}
	return n.fs.inode(subvolume{number, root}, btrfstree.FirstFree)
}

func (n *inode) Entries() (all []lookup.Entry[*inode], err error) {
	if !n.mode().IsDir() {
		return nil, lookup.ErrNoFolder
	}
	first := btrfstree.Key{Object: n.number, Kind: dirIndex}
	err = n.fs.t.Walk(n.in.root, first, func(key btrfstree.Key, item btrfstree.Fields) (bool, error) {
		if key.Compare(first) < 0 {
			return true, nil
		}
		if key.Object != n.number || key.Kind != dirIndex {
			return false, nil
		}
		found, err := dirents(item)
		for _, e := range found {
			all = append(all, lookup.Entry[*inode]{Name: e.name, Node: func() (*inode, error) { return n.child(e) }})
		}
		return true, err
	})
	return all, err
}
