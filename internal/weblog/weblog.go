// Package weblog splits the log lines of many sites, which a web server writes to
// one pipe, into a file for each: a server with files of its own for each site
// runs out of descriptors at some thousands.
//
// Lines begin with the name of their site and a blank, which Apache's %v makes.
// The folder of a site must be there: lines of others, such as those of virtual
// hosts that are not upkeep's, are dropped.
package weblog

import (
	"bufio"
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Run splits what a web server writes to in, until it closes that. It is all that
// the command does that Apache starts. A web server that reloads ends its loggers
// by SIGTERM while its old children still write to them, so that signal is
// ignored: the end of the pipe is the end. SIGHUP has the files opened anew.
func Run(o Options, in io.Reader) error {
	s, err := New(o)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGTERM)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		for range hangup {
			s.Reopen()
		}
	}()
	return errors.Join(s.Copy(in), s.Close())
}

// Options say where lines go.
type Options struct {
	// Dir has a folder for each site, File is the name of the log in it.
	Dir, File string
	// MaxOpen is how many files are open at a time; 256 when zero.
	MaxOpen int
	// MaxSize is the size at which a file is rotated to FILE.1, the one before it to
	// FILE.2, up to Keep of them (5 when zero); 0 leaves that to others, who move
	// files and then have [Splitter.Reopen] called.
	MaxSize int64
	Keep    int
	Logger  *slog.Logger
}

// Splitter writes lines to the files of their sites.
type Splitter struct {
	o     Options
	dir   int
	files map[string]*file
	// recent has the files, the one longest not written to last.
	recent *list.List
	// absent has when a name was found without a folder, or its file could not be
	// opened, so that this is not tried with each line.
	absent  map[string]time.Time
	pending []*file
	waiting int // bytes that are pending
	now     func() time.Time

	reopen        atomic.Bool
	lines         atomic.Int64
	dropped, open atomic.Int64
}

type file struct {
	site string
	fd   int
	size int64
	// looked is when it was last made sure that the file still has its name.
	looked  time.Time
	pending []byte
	element *list.Element
}

const (
	// maxLine is the longest line; Apache's own bounds on what is in one make less.
	maxLine = 128 << 10
	// maxWaiting is how many bytes are kept back while more can be read at once.
	maxWaiting = 1 << 20
	maxAbsent  = 4096
	// absentFor is how long a name is not tried again: a disk that was full, or a
	// limit that was reached, is over some time, and nobody says when.
	absentFor = 10 * time.Second
)

// New opens the folder of logs.
func New(o Options) (*Splitter, error) {
	if o.MaxOpen == 0 {
		o.MaxOpen = 256
	}
	if o.Keep == 0 {
		o.Keep = 5
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := unix.Open(o.Dir, unix.O_DIRECTORY|unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the folder of logs %s: %w", o.Dir, err)
	}
	return &Splitter{o: o, dir: dir, files: map[string]*file{}, recent: list.New(), absent: map[string]time.Time{}, now: time.Now}, nil
}

// Stats are counts since the start.
type Stats struct {
	Lines, Dropped int64 // that were taken for a file, and that had none
	Open           int64 // files
}

// Stats returns the counters.
func (s *Splitter) Stats() Stats {
	return Stats{s.lines.Load(), s.dropped.Load(), s.open.Load()}
}

// Reopen has every file opened by its name again before the next line goes into
// it. It may be called from any goroutine.
func (s *Splitter) Reopen() { s.reopen.Store(true) }

// Copy splits lines until the pipe ends, which is when the web server and its
// last child of before have closed it. What cannot be written is told of once
// for each file and dropped: a full disk must not stop the server.
func (s *Splitter) Copy(r io.Reader) error {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			s.take(append(bytes.Clone(line), '\n'))
			if err = skipLine(in); err == nil {
				continue
			}
		} else if len(line) > 0 {
			s.take(line)
		}
		if err != nil {
			s.flush()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("reading log lines: %w", err)
		}
		if in.Buffered() == 0 || s.waiting > maxWaiting {
			s.flush()
		}
	}
}

func skipLine(in *bufio.Reader) error {
	for {
		_, err := in.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// take keeps a line for the file of its site.
func (s *Splitter) take(line []byte) {
	if s.reopen.Swap(false) {
		s.closeAll()
	}
	name, rest, found := bytes.Cut(line, []byte(" "))
	f := s.files[string(name)]
	if f == nil && found {
		f = s.openFile(string(name))
	}
	if f == nil {
		s.dropped.Add(1)
		return
	}
	if len(f.pending) == 0 {
		s.pending = append(s.pending, f)
	}
	f.pending = append(f.pending, rest...)
	if !bytes.HasSuffix(rest, []byte("\n")) { // the last line before the pipe's end
		f.pending = append(f.pending, '\n')
	}
	s.waiting += len(rest)
	s.lines.Add(1)
	s.recent.MoveToFront(f.element)
}

// flush writes what is pending.
func (s *Splitter) flush() {
	for _, f := range s.pending {
		s.write(f)
	}
	s.pending, s.waiting = s.pending[:0], 0
}

func (s *Splitter) write(f *file) {
	text := f.pending
	f.pending = f.pending[:0]
	if cap(text) > maxLine {
		f.pending = nil // one noisy moment keeps no memory
	}
	if f.fd < 0 {
		return
	}
	s.follow(f)
	for len(text) > 0 {
		n, err := unix.Write(f.fd, text)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			s.o.Logger.Error("a log line is lost", "site", f.site, "err", err)
			return
		}
		text, f.size = text[n:], f.size+int64(n)
	}
	if s.o.MaxSize > 0 && f.size >= s.o.MaxSize {
		s.rotate(f)
	}
}

// lookEvery is how often it is made sure that an open file still has its name.
const lookEvery = time.Second

// follow opens a file anew that somebody moved away or removed, such as a
// logrotate that tells nobody: what is written to it would be compressed and gone.
// Where that is not possible it goes on as it is.
func (s *Splitter) follow(f *file) {
	now := s.now()
	if now.Sub(f.looked) < lookEvery {
		return
	}
	f.looked = now
	if still, err := s.named(f); still || err != nil {
		return
	}
	fd, size, err := s.openAt(f.site)
	if err != nil {
		return
	}
	if err := unix.Close(f.fd); err != nil {
		s.o.Logger.Error("closing a log", "site", f.site, "err", err)
	}
	f.fd, f.size = fd, size
}

// named reports whether the open file of a site is the one that has its name.
func (s *Splitter) named(f *file) (bool, error) {
	dir, err := s.folder(f.site)
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(dir) }() // only looked through
	var ours, named unix.Stat_t
	if err := unix.Fstat(f.fd, &ours); err != nil {
		return false, err
	}
	err = unix.Fstatat(dir, s.o.File, &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil && named.Ino == ours.Ino && named.Dev == ours.Dev, err
}

// openFile opens the file of a site; nil when it has no folder.
func (s *Splitter) openFile(site string) *file {
	if found, known := s.absent[site]; known && s.now().Sub(found) < absentFor {
		return nil
	}
	fd, size, err := s.openAt(site)
	if err != nil {
		if len(s.absent) >= maxAbsent {
			clear(s.absent)
		}
		s.absent[site] = s.now()
		if !errors.Is(err, unix.ENOENT) {
			s.o.Logger.Error("the log of a site cannot be written", "site", site, "err", err)
		}
		return nil
	}
	delete(s.absent, site)
	if s.recent.Len() >= s.o.MaxOpen {
		s.closeFile(s.recent.Back().Value.(*file))
	}
	f := &file{site: site, fd: fd, size: size, looked: s.now()}
	f.element = s.recent.PushFront(f)
	s.files[site] = f
	s.open.Store(int64(s.recent.Len()))
	return f
}

// openAt opens a plain file in a folder of ours, through no link.
func (s *Splitter) openAt(site string) (fd int, size int64, err error) {
	if !upkeep.ValidHost(site) {
		return -1, 0, unix.ENOENT
	}
	dir, err := s.folder(site)
	if err != nil {
		return -1, 0, err
	}
	defer func() { _ = unix.Close(dir) }() // only looked through
	// Without O_NONBLOCK, opening a pipe waits for its reader.
	fd, err = unix.Openat(dir, s.o.File, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return -1, 0, err
	}
	var stat unix.Stat_t
	if err = unix.Fstat(fd, &stat); err == nil && (stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Nlink != 1) {
		err = errors.New("it is not a plain file of one name")
	}
	if err != nil {
		return -1, 0, errors.Join(err, unix.Close(fd))
	}
	return fd, stat.Size, nil
}

// folder opens a site's folder, if it is one and only its owner, whom we run as,
// writes to it.
func (s *Splitter) folder(site string) (int, error) {
	fd, err := unix.Openat2(s.dir, site, &unix.OpenHow{
		Flags: unix.O_DIRECTORY | unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, err
	}
	var stat unix.Stat_t
	if err = unix.Fstat(fd, &stat); err == nil && (int(stat.Uid) != os.Geteuid() || stat.Mode&0o022 != 0) {
		err = errors.New("its folder can be written to by others")
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// closeFile writes what is pending for a file and closes it.
func (s *Splitter) closeFile(f *file) {
	if len(f.pending) > 0 {
		s.write(f) // it stays in the list of pending ones, with nothing to write
	}
	if f.fd >= 0 {
		if err := unix.Close(f.fd); err != nil {
			s.o.Logger.Error("closing a log", "site", f.site, "err", err)
		}
		f.fd = -1
	}
	if f.element != nil {
		s.recent.Remove(f.element)
		f.element = nil
		delete(s.files, f.site)
	}
	s.open.Store(int64(s.recent.Len()))
}

func (s *Splitter) closeAll() {
	for _, f := range s.files {
		s.closeFile(f)
	}
	clear(s.absent)
}

// Close writes and closes everything.
func (s *Splitter) Close() error {
	s.closeAll()
	return unix.Close(s.dir)
}

// rotate renames a file that is full. Another process may split lines into the same files,
// while a web server passes from one configuration to the next: whoever comes
// second finds the name on another file and leaves it there.
func (s *Splitter) rotate(f *file) {
	if err := s.shift(f); err != nil {
		s.o.Logger.Error("rotating a log", "site", f.site, "err", err)
		f.size = 0 // not again with every line
		return
	}
	s.closeFile(f)
}

func (s *Splitter) shift(f *file) error {
	if still, err := s.named(f); !still {
		return err // without one somebody was faster
	}
	dir, err := s.folder(f.site)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }() // only looked through
	for n := s.o.Keep; n > 0; n-- {
		from := s.o.File
		if n > 1 {
			from += "." + strconv.Itoa(n-1)
		}
		if err := unix.Renameat(dir, from, dir, s.o.File+"."+strconv.Itoa(n)); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
