package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"upkeep"
)

// An Item is an entry as far as it matters for the room that it takes.
type Item struct {
	// Folder and Number tell entries of the same folder, and names of the same file.
	Folder, Number ID
	Name           string
	Type           byte // as in an [Entry]
	Again          bool // a further name of a file that was told of
	Size           int64
	Data, Prealloc []Range // of a file; they may overlap
	Target         int     // how long the text of a link is
	Xattrs         [][2]string
}

// ID tells files apart.
type ID struct{ Device, Inode uint64 }

// Measure tells of each entry of a tree, from one goroutine at a time, the root
// without a name and last of all that are in it.
func Measure(ctx context.Context, root *os.File, told func(Item)) error {
	m := &measurer{told: told, speculative: isXFS(int(root.Fd())), seen: map[ID]bool{}}
	if err := walk(ctx, int(root.Fd()), m); err != nil {
		err = fmt.Errorf("measuring %s: %w", root.Name(), err)
		if errors.Is(err, fs.ErrPermission) {
			return upkeep.WithHint(err, "run it as who may read all of it, or as root")
		}
		return err
	}
	return nil
}

type measurer struct {
	speculative bool
	mu          sync.Mutex
	told        func(Item)
	seen        map[ID]bool
}

func (m *measurer) enter(*folder) error { return nil }
func (m *measurer) release(*folder)     {}

func (m *measurer) leave(f *folder) (err error) {
	i := Item{Number: ID{f.item.dev, f.item.ino}, Name: f.item.name, Type: 'd'}
	if f.parent != nil {
		i.Folder = ID{f.parent.item.dev, f.parent.item.ino}
	}
	if i.Xattrs, err = xattrsOf(f.fd, 0, ""); err != nil {
		return err
	}
	m.tell(i, false)
	return nil
}

func (m *measurer) visit(f *folder, i *item) (err error) {
	if i.kind() == unix.S_IFDIR || i.foreign {
		return nil
	}
	found := Item{
		Folder: ID{f.item.dev, f.item.ino}, Number: ID{i.dev, i.ino}, Name: i.name, Type: typeOf(i.kind()), Size: i.size,
	}
	switch i.kind() {
	case unix.S_IFREG:
		err = m.file(f, i, &found)
	case unix.S_IFLNK:
		found.Target = int(i.size)
		fallthrough
	default:
		found.Xattrs, err = xattrsOf(-1, f.fd, i.name)
	}
	if err != nil {
		return err
	}
	m.tell(found, i.links > 1)
	return nil
}

func (m *measurer) file(f *folder, i *item, found *Item) error {
	fd, err := openBelow(f.fd, i.name, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	speculative := m.speculative
	if speculative {
		ext, err := readInode(fd)
		if err != nil {
			return fmt.Errorf("reading its flags: %w", err)
		}
		speculative = ext.xflags&xflagPrealloc == 0
	}
	l, err := readLayout(fd, i, speculative)
	if err != nil {
		return fmt.Errorf("asking where its data lies: %w", err)
	}
	found.Data, found.Prealloc = l.data, l.prealloc
	found.Xattrs, err = xattrsOf(fd, 0, "")
	return err
}

func (m *measurer) tell(i Item, linked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if linked {
		i.Again = m.seen[i.Number]
		m.seen[i.Number] = true
	}
	m.told(i)
}
