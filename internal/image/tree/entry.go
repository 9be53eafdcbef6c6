package tree

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/allocation"
)

// cannotError is that a file system has no way to hold an entry.
type cannotError struct{ err error }

func (e *cannotError) Error() string { return "its file system cannot hold this: " + e.err.Error() }
func (e *cannotError) Unwrap() error { return e.err }

// make makes an entry by a system call. What is in its way gives way where the
// target may have entries; a folder stays, for a folder.
func (c *copier) make(dir int, name string, call func() error, isFolder bool) error {
	err := retry(call)
	if errors.Is(err, unix.EEXIST) && isFolder && (c.Merge || c.own && name == lostFound) {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
	}
	if errors.Is(err, unix.EEXIST) && c.Merge {
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return fmt.Errorf("replacing what the target has there: %w", err)
		}
		err = retry(call)
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENAMETOOLONG),
		errors.Is(err, unix.EEXIST), errors.Is(err, unix.EMLINK), errors.Is(err, unix.EILSEQ):
		// Names that differ in case alone are the same to some.
		return &cannotError{err}
	case errors.Is(err, unix.ENOSPC):
		return full(err)
	case err != nil:
		return fmt.Errorf("making its copy: %w", err)
	}
	return nil
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func full(err error) error {
	return fmt.Errorf("the target is full: %w", err)
}

// link copies a symbolic link.
func (c *copier) link(f *folder, i *item, dir int, made func()) error {
	text, err := readLink(f.fd, i.name)
	if err != nil {
		return err
	}
	if err := c.make(dir, i.name, func() error { return unix.Symlinkat(text, dir, i.name) }, false); err != nil {
		return err
	}
	made()
	return c.finishByName(f, i, dir)
}

func readLink(dir int, name string) (string, error) {
	var text [unix.PathMax]byte
	n, err := unix.Readlinkat(dir, name, text[:])
	if err != nil {
		return "", fmt.Errorf("reading the link: %w", err)
	}
	return string(text[:n]), nil
}

// special copies a device, a fifo or a socket.
func (c *copier) special(f *folder, i *item, dir int, made func()) error {
	err := c.make(dir, i.name, func() error { return unix.Mknodat(dir, i.name, uint32(i.mode), int(i.rdev)) }, false)
	if err != nil {
		return err
	}
	made()
	return c.finishByName(f, i, dir)
}

// finishByName gives attributes to what is not opened.
func (c *copier) finishByName(f *folder, i *item, dir int) error {
	xattrs, err := readXattrs(-1, f.fd, i.name)
	if err != nil {
		return fmt.Errorf("reading its attributes: %w", err)
	}
	if err := c.finish(f, i.name, i, subject{fd: -1, dir: dir, name: i.name}, xattrs, inode{}, i.links < 2); err != nil {
		return err
	}
	c.entries.Add(1)
	return unchanged(f, i)
}

// unchanged looks at an entry once more when it was copied.
func unchanged(f *folder, i *item) error {
	var st unix.Statx_t
	if err := retry(func() error {
		return unix.Statx(f.fd, i.name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, &st)
	}); err != nil {
		return err
	}
	if now := itemOf(&st); now.differs(i) {
		return errChanged
	}
	return nil
}

// file copies a regular file.
func (c *copier) file(f *folder, i *item, dir int, made func()) (err error) {
	src, err := openBelow(f.fd, i.name, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst := -1
	err = c.make(dir, i.name, func() (err error) {
		dst, err = unix.Openat(dir, i.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	}, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(dst)) }()
	made()
	ext, err := readInode(src)
	if err != nil {
		return fmt.Errorf("reading its flags: %w", err)
	}
	if err := c.early(f, i.name, dst, ext); err != nil {
		return err
	}
	if err := c.content(f, i, dst, src, ext); err != nil {
		return err
	}
	xattrs, err := readXattrs(src, 0, "")
	if err != nil {
		return fmt.Errorf("reading its attributes: %w", err)
	}
	if err := c.finish(f, i.name, i, subject{fd: dst}, xattrs, ext, i.links < 2); err != nil {
		return err
	}
	c.entries.Add(1)
	return unchanged(f, i)
}

// buffers are what content goes through. Two file systems cannot pass it on by
// themselves (copy_file_range(2)).
var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// content copies what is in a file, and leaves the rest as it is in the source: a
// hole, or allocated and not written.
func (c *copier) content(f *folder, i *item, dst, src int, ext inode) error {
	l, err := readLayout(src, i, c.speculative && ext.xflags&xflagPrealloc == 0)
	if err != nil {
		return fmt.Errorf("asking where its data lies: %w", err)
	}
	end := int64(0)
	if len(l.prealloc) > 0 {
		// btrfs goes through all from the file's end to what is allocated, each time.
		if err := resize(dst, i.size); err != nil {
			return err
		}
		end = i.size
	}
	for _, r := range l.prealloc {
		err := retry(func() error { return unix.Fallocate(dst, unix.FALLOC_FL_KEEP_SIZE, r.From, r.To-r.From) })
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			c.lose(f, i.name, "preallocation", "the target cannot allocate without writing")
			break
		}
		if errors.Is(err, unix.ENOSPC) {
			return full(err)
		}
		if err != nil {
			return fmt.Errorf("allocating what is allocated in the source: %w", err)
		}
	}
	for _, r := range l.data {
		if err := c.copyRange(dst, src, r); err != nil {
			return err
		}
		end = max(end, r.To)
	}
	if end < i.size {
		return resize(dst, i.size)
	}
	return nil
}

func resize(fd int, size int64) error {
	if err := retry(func() error { return unix.Ftruncate(fd, size) }); err != nil {
		return fmt.Errorf("giving it its size: %w", err)
	}
	return nil
}

// writeOut is how much of a file is written before the kernel is asked to bring it to
// the disk; see [allocation.StartWriting].
const writeOut = 2 << 20

func (c *copier) copyRange(dst, src int, r Range) error {
	buffer := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buffer)
	begun := r.From
	for r.From < r.To {
		n, err := pread(src, buffer[:min(int64(len(buffer)), r.To-r.From)], r.From)
		if errors.Is(err, io.EOF) {
			return errChanged // it was cut
		}
		if err != nil {
			return fmt.Errorf("reading it: %w", err)
		}
		for at := 0; at < n; {
			written, err := unix.Pwrite(dst, buffer[at:n], r.From+int64(at))
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.ENOSPC):
				return full(err)
			case err != nil:
				return fmt.Errorf("writing its copy: %w", err)
			}
			at += max(written, 0)
		}
		r.From += int64(n)
		if r.From-begun >= writeOut {
			allocation.StartWriting(dst, begun, r.From-begun)
			begun = r.From
		}
		done := c.bytes.Add(int64(n))
		if c.Progress != nil {
			c.Progress(done, c.Total)
		}
	}
	return nil
}

func pread(fd int, buffer []byte, at int64) (int, error) {
	for {
		n, err := unix.Pread(fd, buffer, at)
		switch {
		case errors.Is(err, unix.EINTR):
		case err == nil && n == 0:
			return 0, io.EOF
		default:
			return n, err
		}
	}
}
