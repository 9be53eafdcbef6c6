package tree

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"upkeep"
)

// An item is an entry of a folder, as it was found.
type item struct {
	name    string
	mode    uint16 // with the type
	uid     uint32
	gid     uint32
	links   uint32
	dev     uint64
	ino     uint64
	size    int64
	blocks  int64 // of 512 bytes
	rdev    uint64
	mtime   unix.StatxTimestamp
	atime   unix.StatxTimestamp
	ctime   unix.StatxTimestamp
	mount   uint64
	foreign bool // of another file system, which is not entered
}

func (i *item) kind() uint16 { return i.mode & unix.S_IFMT }

// A folder is a directory of the tree that is read.
type folder struct {
	parent *folder // nil for the root
	item   item
	fd     int
	own    any // what the visitor keeps for it

	// The descriptor is needed by batches of names and by folders below that were
	// not opened yet. A folder further down needs none of those above it, so that a
	// tree may be deeper than there are descriptors.
	needed  atomic.Int32
	batches atomic.Int32 // that are not done
}

// path is the way from the root of the tree, "" for the root itself.
func (f *folder) path() string {
	var parts []string
	for ; f.parent != nil; f = f.parent {
		parts = append(parts, f.item.name)
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(parts[i])
	}
	return b.String()
}

// join is the path of an entry.
func (f *folder) join(name string) string {
	if f.parent == nil {
		return name
	}
	return f.path() + "/" + name
}

// A visitor is told of a tree. Calls for different folders, and for the entries of
// one, come from several goroutines at a time.
type visitor interface {
	// enter begins a folder; its parent is still open.
	enter(f *folder) error
	// visit is told of each entry of a folder, folders among them.
	visit(f *folder, i *item) error
	// leave is called when all entries of a folder were visited; the folders among
	// them may not have been entered yet.
	leave(f *folder) error
	// release is called once for each folder that was entered, when nothing below
	// needs it any more, also after an error.
	release(f *folder)
}

// batch is how many names are worked on in one go.
const batch = 64

// task is a folder to be entered, or names in one that is open.
type task struct {
	folder *folder
	names  []string
}

// walker is one walk over a tree: a stack of tasks, which makes it go deep first
// and hold few folders open, and goroutines that take from it.
type walker struct {
	v     visitor
	ctx   context.Context
	mount uint64 // that the root is on; 0 where the kernel does not say
	dev   uint64

	mu      sync.Mutex
	more    sync.Cond
	stack   []task
	pending int // tasks that are on the stack or being worked on
	err     error
}

// walk visits the tree below root, with as many goroutines as there are cores.
func walk(ctx context.Context, root int, v visitor) error {
	w := &walker{v: v, ctx: ctx}
	w.more.L = &w.mu
	top := &folder{fd: -1}
	i, err := w.look(root, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("looking at the folder: %w", err)
	}
	if i.kind() != unix.S_IFDIR {
		return fmt.Errorf("%w: it is no folder", upkeep.ErrRefused)
	}
	top.item, w.mount, w.dev = i, i.mount, i.dev
	if top.fd, err = openBelow(root, ".", unix.O_DIRECTORY); err != nil {
		return fmt.Errorf("opening the folder: %w", err)
	}
	w.push(task{folder: top})
	var workers sync.WaitGroup
	for range min(max(runtime.GOMAXPROCS(0), 2), 8) {
		workers.Go(w.work)
	}
	workers.Wait()
	return w.err
}

func (w *walker) push(tasks ...task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stack = append(w.stack, tasks...)
	w.pending += len(tasks)
	w.more.Broadcast()
}

// work takes tasks until none is left. After an error the rest is only let go of.
func (w *walker) work() {
	for {
		w.mu.Lock()
		for len(w.stack) == 0 && w.pending > 0 {
			w.more.Wait()
		}
		if w.pending == 0 {
			w.mu.Unlock()
			return
		}
		last := len(w.stack) - 1
		t := w.stack[last]
		w.stack[last] = task{}
		w.stack = w.stack[:last]
		failed := w.err != nil
		w.mu.Unlock()

		if !failed {
			if err := w.ctx.Err(); err != nil {
				w.fail(context.Cause(w.ctx))
				failed = true
			}
		}
		if t.names == nil {
			w.folder(t.folder, failed)
		} else {
			w.names(t.folder, t.names, failed)
		}

		w.mu.Lock()
		w.pending--
		if w.pending == 0 {
			w.more.Broadcast()
		}
		w.mu.Unlock()
	}
}

func (w *walker) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// folder enters one.
func (w *walker) folder(f *folder, failed bool) {
	var names []string
	var err error
	entered := false
	if !failed {
		names, entered, err = w.enter(f)
	}
	if f.parent != nil {
		w.release(f.parent)
	}
	if err != nil {
		w.fail(fmt.Errorf("folder %s: %w", Escape(f.path()), err))
	}
	if !entered {
		if f.fd >= 0 {
			unix.Close(f.fd)
		}
		return
	}
	f.needed.Store(1) // by this function
	defer w.release(f)
	if err != nil {
		return
	}
	if len(names) == 0 {
		w.leave(f)
		return
	}
	var tasks []task
	for len(names) > 0 {
		n := min(batch, len(names))
		tasks = append(tasks, task{folder: f, names: names[:n:n]})
		names = names[n:]
	}
	f.batches.Store(int32(len(tasks)))
	f.needed.Add(int32(len(tasks)))
	w.push(tasks...)
}

func (w *walker) enter(f *folder) (names []string, entered bool, err error) {
	if f.parent != nil {
		f.fd = -1
		if f.fd, err = openBelow(f.parent.fd, f.item.name, unix.O_DIRECTORY); err != nil {
			return nil, false, changedIfGone(err)
		}
		now, err := w.look(f.fd, "", unix.AT_EMPTY_PATH)
		if err != nil {
			return nil, false, err
		}
		if now.ino != f.item.ino || now.dev != f.item.dev {
			return nil, false, errChanged
		}
	}
	if err := w.v.enter(f); err != nil {
		return nil, false, err
	}
	names, err = readNames(f.fd)
	return names, true, err
}

// names visits some entries of a folder.
func (w *walker) names(f *folder, names []string, failed bool) {
	defer w.release(f)
	for _, name := range names {
		if failed {
			return
		}
		i, err := w.look(f.fd, name, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			i.name = name
			err = w.v.visit(f, &i)
		}
		if err != nil {
			w.fail(fmt.Errorf("%s: %w", Escape(f.join(name)), changedIfGone(err)))
			return
		}
		if i.kind() == unix.S_IFDIR && !i.foreign {
			f.needed.Add(1)
			w.push(task{folder: &folder{parent: f, item: i, fd: -1}})
		}
	}
	if f.batches.Add(-1) == 0 {
		w.leave(f)
	}
}

// leave ends a folder, which must still be as it was found.
func (w *walker) leave(f *folder) {
	err := w.v.leave(f)
	if err == nil {
		var now item
		if now, err = w.look(f.fd, "", unix.AT_EMPTY_PATH); err == nil && now.differs(&f.item) {
			err = errChanged
		}
	}
	if err != nil {
		w.fail(fmt.Errorf("folder %s: %w", Escape(f.path()), err))
	}
}

func (w *walker) release(f *folder) { f.let(w.v) }

// let ends one need of a folder.
func (f *folder) let(v visitor) {
	if f.needed.Add(-1) == 0 {
		v.release(f)
		unix.Close(f.fd)
	}
}

// keep makes sure that a folder stays open until it is let go of; false when it
// was closed already.
func (f *folder) keep() bool {
	for {
		n := f.needed.Load()
		if n == 0 {
			return false
		}
		if f.needed.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

var errChanged = fmt.Errorf("%w while it was read; nothing that writes to the tree may run meanwhile", upkeep.ErrChanged)

// changedIfGone makes a plain error of one that says that a name is not there, or
// is something else now: it was there a moment ago.
func changedIfGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w (%w)", errChanged, err)
	}
	return err
}

// differs reports that something was changed since: content, attributes or links.
func (i *item) differs(was *item) bool {
	return i.ino != was.ino || i.dev != was.dev || i.mode != was.mode || i.size != was.size ||
		i.mtime != was.mtime || i.ctime != was.ctime || i.links != was.links
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID

// look reads what there is to know of a name without opening it.
func (w *walker) look(dir int, name string, flags int) (item, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(dir, name, flags|unix.AT_NO_AUTOMOUNT, statMask, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return item{}, err
		}
		break
	}
	i := itemOf(&st)
	if w.dev != 0 || w.mount != 0 {
		// Subvolumes of btrfs have device numbers of their own, on the same mount.
		i.foreign = i.mount != w.mount || i.mount == 0 && i.dev != w.dev
	}
	return i, nil
}

func itemOf(st *unix.Statx_t) item {
	i := item{
		mode: st.Mode, uid: st.Uid, gid: st.Gid, links: st.Nlink, ino: st.Ino,
		dev:  unix.Mkdev(st.Dev_major, st.Dev_minor),
		rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		size: int64(st.Size), blocks: int64(st.Blocks),
		mtime: st.Mtime, atime: st.Atime, ctime: st.Ctime,
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		i.mount = st.Mnt_id
	}
	return i
}

// openBelow opens one name to read. It follows nothing and crosses nothing, and
// leaves the time of the last access as it was where it may.
func openBelow(dir int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_NOATIME | flags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(dir, name, &how)
		switch {
		case errors.Is(err, unix.EPERM) && how.Flags&unix.O_NOATIME != 0:
			how.Flags &^= unix.O_NOATIME // not our file
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN) && tries < 100:
		case errors.Is(err, unix.EMFILE):
			return -1, upkeep.WithHint(fmt.Errorf("opening %s: %w", Escape(name), err), "more files may be open after ulimit -n; the tree is deep and wide")
		default:
			return fd, err
		}
	}
}

// readNames reads a folder, in the order of the inodes, in which they lie on the
// disk.
func readNames(fd int) ([]string, error) {
	type entry struct {
		ino  uint64
		name string
	}
	var entries []entry
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading its names: %w", err)
		}
		if n == 0 {
			break
		}
		const nameAt = int(unsafe.Offsetof(unix.Dirent{}.Name))
		for rest := buffer[:n]; len(rest) > nameAt; {
			length := int(binary.NativeEndian.Uint16(rest[16:]))
			if length <= nameAt || length > len(rest) {
				return nil, fmt.Errorf("reading its names: an entry of %d bytes", length)
			}
			name := rest[nameAt:length]
			name = name[:max(bytes.IndexByte(name, 0), 0)]
			if s := string(name); s != "." && s != ".." && s != "" {
				if strings.ContainsRune(s, '/') {
					return nil, fmt.Errorf("%w: the name %s in it cannot be; check the file system", upkeep.ErrRefused, Escape(s))
				}
				entries = append(entries, entry{binary.NativeEndian.Uint64(rest), s})
			}
			rest = rest[length:]
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.ino, b.ino) })
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.name
	}
	return names, nil
}
