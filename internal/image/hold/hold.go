package hold

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// Options says what for a file is held.
type Options struct {
	// Write holds it for changes: nobody else may have it at all. Otherwise others may
	// read it too, but none may change it.
	Write bool
	// Self are processes that count as this one, with all that descends from them.
	Self []int
	// Network takes a file on a network file system, where what other machines do
	// with it cannot be seen.
	Network bool
}

// BusyError says who has a file.
type BusyError struct {
	File    string
	Holders []Holder
}

func (e *BusyError) Error() string {
	const most = 3
	var who []string
	for _, h := range e.Holders[:min(most, len(e.Holders))] {
		who = append(who, h.String())
	}
	text := fmt.Sprintf("%v: %s is in use: %s", upkeep.ErrRefused, e.File, strings.Join(who, "; "))
	if more := len(e.Holders) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

func (e *BusyError) Unwrap() error { return upkeep.ErrRefused }

// busy is the error for holders, with what to do about the first. A loop device is let go
// of after what has it: before that, it stays.
func busy(f *os.File, holders []Holder) error {
	hint := "let it end, or stop it, then try again"
	first := holders[max(0, slices.IndexFunc(holders, func(h Holder) bool { return h.What != OnLoop }))]
	switch {
	case first.What == OnMount && first.PID == 0:
		hint = "unmount it first: upkeep image umount " + first.Mount
	case first.What == OnMount:
		hint = fmt.Sprintf("unmount it first, in the mount namespace of pid %d: nsenter -t %d -m umount %s", first.PID, first.PID, first.Mount)
	case first.What == OnLoop:
		hint = "detach it first: losetup -d /dev/" + first.Device
	case first.What == OnSwap && first.Device != "":
		hint = "swapoff /dev/" + first.Device + " first"
	case first.What == OnSwap:
		hint = "swapoff it first"
	case first == lockOfNobody:
		hint = "try again in a moment: a program that was killed keeps its locks until it is gone; or look for it as root, outside of containers: upkeep image holders " + f.Name()
	case first.Machine != "":
		hint = "shut the machine " + first.Machine + " down first"
	}
	return Busy(f.Name(), holders, hint)
}

// Busy is the error for somebody who has a file, or a mounted folder, with what to do
// about it.
func Busy(name string, holders []Holder, hint string) error {
	return &upkeep.HintError{Err: &BusyError{File: name, Holders: holders}, Hint: hint}
}

// A Lock holds a file. It keeps QEMU, libvirt and other upkeeps from it for as long
// as the file or a duplicate of its descriptor is open; programs that lock nothing
// are found by [Lock.Again].
type Lock struct {
	file    *os.File
	options Options

	mu    sync.Mutex
	loops map[string]bool
}

// Take holds a file, or fails with a [BusyError] when somebody has it. The locks
// are on f, and go when it and all duplicates of its descriptor are closed.
func Take(f *os.File, o Options) (*Lock, error) {
	if err := refuseNetwork(f, o.Network); err != nil {
		return nil, err
	}
	l := &Lock{file: f, options: o, loops: map[string]bool{}}
	if err := l.lock(); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	if err := l.Again(); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l, nil
}

// A program that looks at every file, such as an indexer, is gone in a moment.
const tries, pause = 5, 20 * time.Millisecond

// A program that was killed has nothing open that could be listed, and its locks until
// the disk has let go of the files without a name that it had.
const untilGone = 2 * time.Second

// lockOfNobody is a lock whose holder is not to be seen.
var lockOfNobody = Holder{What: IsLocked, Writes: true}

// lock takes the locks that keep others away. It waits for none but those of whom
// nobody is to be seen.
func (l *Lock) lock() error {
	for begun := time.Now(); ; <-time.After(pause) {
		free, err := l.tryLock()
		if err != nil || free {
			return err
		}
		search, err := l.look()
		if err != nil {
			return err
		}
		found, _, err := search.once()
		switch {
		case err != nil:
			return err
		case len(found.Holders) > 0:
			return busy(l.file, found.Holders)
		case time.Since(begun) > untilGone:
			return busy(l.file, []Holder{lockOfNobody})
		}
	}
}

// tryLock reports whether the locks could be had.
func (l *Lock) tryLock() (bool, error) {
	how, bytes := unix.LOCK_SH, readerBytes
	if l.options.Write {
		how, bytes = unix.LOCK_EX, writerBytes
	}
	// First the one of which two that try at a time never both fail.
	if err := unix.Flock(int(l.file.Fd()), how|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	} else if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return false, fmt.Errorf("locking %s: %w", l.file.Name(), err)
	}
	for _, b := range bytes {
		lock := unix.Flock_t{Type: unix.F_RDLCK, Start: b, Len: 1}
		err := unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, &lock)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("locking %s: %w", l.file.Name(), err)
		}
	}
	return true, nil
}

// Ours says that a loop device, named like "loop3", was attached by who holds the
// lock: it and what stands on it are no other's.
func (l *Lock) Ours(device string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loops[device] = true
}

// NoLonger ends [Lock.Ours].
func (l *Lock) NoLonger(device string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.loops, device)
}

func (l *Lock) look() (*look, error) {
	search, err := newLook(l.file)
	if err != nil {
		return nil, err
	}
	search.ours = newFamily(l.options.Self)
	l.mu.Lock()
	defer l.mu.Unlock()
	search.loops = map[string]bool{}
	for name := range l.loops {
		search.loops[name] = true
	}
	return search, nil
}

// Again looks whether the file is still ours alone, or all others only read it
// where it was taken for reading; and whether its name still leads to it. It is
// called before each step of a change. What this process and its children have
// open is theirs to have.
func (l *Lock) Again() error {
	search, err := l.look()
	if err != nil {
		return err
	}
	if err := l.sameFile(&search.st); err != nil {
		return err
	}
	for try := 1; ; try++ {
		holders, stable, err := l.once(search)
		if err != nil || stable && len(holders) == 0 {
			return err
		}
		passing := !slices.ContainsFunc(holders, func(h Holder) bool { return h.What != IsOpen && h != lockOfNobody })
		switch {
		case !passing, len(holders) > 0 && try >= tries:
			return busy(l.file, holders)
		case try >= 5*tries: // one after the other may come and go
			return busy(l.file, []Holder{{What: IsOpen, Writes: true}})
		}
		<-time.After(pause)
	}
}

// once makes one search for holders that matter. It is stable when nobody can have
// come while it went on.
func (l *Lock) once(search *look) (holders []Holder, stable bool, err error) {
	// Whoever there is to find has it open, the kernel's own parts too. Only where
	// somebody has, or the file system cannot tell, is the search worth its time.
	only := alone(l.file, l.options.Write)
	if only == yes {
		return nil, true, nil
	}
	devices, err := search.onDevices()
	if err != nil {
		return nil, false, err
	}
	processes, _, err := search.inProcesses()
	if err != nil {
		return nil, false, err
	}
	for _, h := range append(devices, processes.holders...) {
		if h.Writes || l.options.Write {
			holders = append(holders, h)
		}
	}
	if len(holders) == 0 && !processes.locks && keptFrom(l.file, l.options.Write) {
		holders = append(holders, lockOfNobody)
	}
	if len(holders) > 0 {
		return holders, true, nil
	}
	if only == no {
		// A second descriptor of ours, or a loop device of ours, counts as another's.
		return nil, processes.ours > 0 || len(search.loops) > 0, nil
	}
	again, _, err := search.inProcesses() // what a file system without leases leaves to do
	return nil, len(again.holders) == len(processes.holders), err
}

// sameFile makes sure that the file is still what its name leads to.
func (l *Lock) sameFile(st *unix.Stat_t) error {
	var now unix.Stat_t
	err := unix.Stat(l.file.Name(), &now)
	switch {
	case st.Nlink == 0:
		return fmt.Errorf("%w: %s was deleted meanwhile", upkeep.ErrConflict, l.file.Name())
	case err != nil:
		return fmt.Errorf("%w: %s is not what it was: %w", upkeep.ErrConflict, l.file.Name(), err)
	case now.Dev != st.Dev || now.Ino != st.Ino:
		return fmt.Errorf("%w: %s was replaced by another file meanwhile", upkeep.ErrConflict, l.file.Name())
	}
	return nil
}

// Release lets others have the file, also where children still have it open.
func (l *Lock) Release() error {
	all := unix.Flock_t{Type: unix.F_UNLCK, Start: 0, Len: lastByte + 1}
	err := errors.Join(unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, &all), unix.Flock(int(l.file.Fd()), unix.LOCK_UN))
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("unlocking %s: %w", l.file.Name(), err)
	}
	return nil
}
