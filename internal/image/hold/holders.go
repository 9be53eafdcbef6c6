package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// What a holder does with an image.
const (
	OnLoop   = "loop"   // a loop device stands on it
	OnMount  = "mount"  // and is mounted
	OnSwap   = "swap"   // it is swapped to, by itself or by a device on it
	OnMapper = "mapper" // device mapper, or an array, stands on its loop device
	IsOpen   = "open"
	IsMapped = "mapped" // into a process's memory; the descriptor may be closed
	IsLocked = "lock"   // as QEMU, libvirt and upkeep lock images
	IsLeased = "lease"  // a file server's promise to its clients
	IsInside = "inside" // the working folder, the root or the program of a process; see [Users]
)

// Holder is one that has an image.
type Holder struct {
	What string `json:"what"`
	// Device is the block device that stands on the image: "loop3".
	Device string `json:"device,omitempty"`
	// Mount is the folder that it is mounted at, as PID sees it.
	Mount string `json:"mount,omitempty"`
	// PID and Command are the process; 0 where there is none, as with a loop device,
	// or none that can be seen. Of a mount it is one that lives in its namespace.
	PID     int    `json:"pid,omitempty"`
	Command string `json:"command,omitempty"`
	// Machine is the name of the virtual machine that a QEMU process runs.
	Machine string `json:"machine,omitempty"`
	// Writes says that it can change the image.
	Writes bool `json:"writes"`
}

// String is the holder in a few words: "mounted at /mnt by pid 4711 sh (loop3)".
func (h Holder) String() string {
	switch h.What {
	case OnLoop:
		return "attached to " + h.Device
	case OnMount:
		if h.PID == 0 {
			return fmt.Sprintf("mounted at %s (%s)", upkeep.Printable(h.Mount), h.Device)
		}
		return fmt.Sprintf("mounted at %s by %s (%s)", upkeep.Printable(h.Mount), h.process(), h.Device)
	case OnSwap:
		if h.Device == "" {
			return "used as swap space"
		}
		return fmt.Sprintf("used as swap space (%s)", h.Device)
	case OnMapper:
		return "used by " + upkeep.Printable(h.Device)
	case IsMapped:
		return "mapped into memory by " + h.process()
	case IsLocked:
		return "locked by " + h.process()
	case IsLeased:
		return "leased to " + h.process()
	case IsInside:
		return "the working folder of " + h.process()
	}
	if h.Writes {
		return "open for writing by " + h.process()
	}
	return "open by " + h.process()
}

func (h Holder) process() string {
	switch {
	case h.PID == 0:
		return "a program that cannot be seen from here"
	case h.Machine != "":
		return fmt.Sprintf("pid %d %s, machine %s", h.PID, upkeep.Printable(h.Command), upkeep.Printable(h.Machine))
	}
	return strings.TrimSpace(fmt.Sprintf("pid %d %s", h.PID, upkeep.Printable(h.Command)))
}

// Found is who has an image.
type Found struct {
	Holders []Holder `json:"holders"`
	// Unseen counts the processes that could not be looked into: without root, those
	// of other users.
	Unseen int `json:"unseen"`
}

// Holders finds everybody who has the file: loop devices and what stands on them,
// in all mount namespaces; swap; locks; leases; open descriptors and memory of
// other processes. This process and its children are left out.
func Holders(f *os.File) (Found, error) {
	l, err := newLook(f)
	if err != nil {
		return Found{}, err
	}
	return l.all()
}

// HoldersOf is [Holders] of the file that a name leads to. It disturbs nobody: not
// even a lease is broken.
func HoldersOf(path string) (Found, error) {
	f, err := Open(path, false)
	var busy *BusyError
	if errors.As(err, &busy) || errors.Is(err, fs.ErrPermission) {
		var fd int
		if fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
			return Found{}, OpenError(path, err)
		}
		f = os.NewFile(uintptr(fd), path)
	}
	if err != nil {
		return Found{}, err
	}
	defer f.Close()
	return Holders(f)
}

// look is one search for the holders of a file.
type look struct {
	file *os.File
	st   unix.Stat_t
	// superDev is the device that the kernel prints in lists of locks and maps. With
	// btrfs it is not the one that stat gives.
	superDev uint64
	ours     family
	loops    map[string]bool // names of loop devices that are ours
}

func newLook(f *os.File) (*look, error) {
	l := &look{file: f, ours: newFamily(nil)}
	if err := unix.Fstat(int(f.Fd()), &l.st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", f.Name(), err)
	}
	l.superDev = superDevice(f, l.st.Dev)
	return l, nil
}

// is reports whether a device and an inode are the file's.
func (l *look) is(dev, ino uint64) bool {
	return ino == l.st.Ino && (dev == l.st.Dev || dev == l.superDev)
}

// all makes the whole search, again where a lock is found and nobody who has it.
func (l *look) all() (Found, error) {
	for try := 1; ; try++ {
		found, locked, err := l.once()
		if err != nil || locked == nil {
			return found, err
		}
		if try >= tries {
			found.Holders = append(found.Holders, *locked)
			return found, nil
		}
		<-time.After(pause)
	}
}

// once makes one search. Locked is the holder of a lock, where that is nobody that was
// found.
func (l *look) once() (found Found, locked *Holder, err error) {
	devices, err := l.onDevices()
	if err != nil {
		return Found{}, nil, err
	}
	found.Holders = append([]Holder{}, devices...) // a list in JSON, also when it is empty
	processes, unseen, err := l.inProcesses()
	if err != nil {
		return Found{}, nil, err
	}
	found.Unseen = unseen
	found.Holders = append(found.Holders, processes.holders...)
	// A loop device keeps the locks of who attached it.
	if h, is := l.lockedUnseen(processes); is && len(found.Holders) == 0 {
		locked = &h
	}
	return found, locked, nil
}
