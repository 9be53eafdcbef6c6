package hold

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// QEMU locks single bytes of a raw image, for reading, whatever it does with it:
// byte permBase+n says that the locker has permission n, byte sharedBase+n that it
// does not share it (QEMU, block/file-posix.c). libvirt locks byte 0.
const (
	permBase   = 100
	sharedBase = 200
	lastByte   = 299

	permRead, permWrite, permResize = 0, 1, 3
)

// The locks of one that writes, and of one that reads and shares with readers.
var (
	writerBytes = []int64{permBase + permRead, permBase + permWrite, permBase + permResize, sharedBase + permRead, sharedBase + permWrite, sharedBase + permResize}
	readerBytes = []int64{permBase + permRead, sharedBase + permWrite, sharedBase + permResize}
	// keepReaders are the bytes whose lock, of whatever kind, tells readers to stay
	// away.
	keepReaders = []int64{permBase + permWrite, permBase + permResize, sharedBase + permRead}
)

// parseLock reads a line of /proc/locks, or of a descriptor's list of locks:
// "1: OFDLCK ADVISORY  READ  -1 08:01:1234 101 101".
func parseLock(line string) (what string, writes bool, pid int) {
	fields := strings.Fields(line)
	if len(fields) > 1 && fields[1] == "->" {
		return "", false, 0 // one that waits
	}
	if len(fields) < 8 {
		return "", false, 0
	}
	pid, err := strconv.Atoi(fields[4])
	if err != nil {
		return "", false, 0
	}
	switch fields[1] {
	case "LEASE", "DELEG":
		return IsLeased, fields[3] == "WRITE", pid
	case "FLOCK":
		return IsLocked, fields[3] == "WRITE", pid
	case "POSIX", "OFDLCK":
		return IsLocked, fields[3] == "WRITE" || covers(fields[6], fields[7], keepReaders), pid
	}
	return "", false, 0
}

func covers(from, to string, bytes []int64) bool {
	low, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return false
	}
	high, err := strconv.ParseInt(to, 10, 64) // "EOF"
	for _, b := range bytes {
		if low <= b && (err != nil || b <= high) {
			return true
		}
	}
	return false
}

// listedLocks are the locks on the file in the kernel's list, by process. A lock
// of an open file has no process there (pid -1); descriptors have it.
func (l *look) listedLocks() map[int]Holder {
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil
	}
	found := map[int]Holder{}
	for line := range strings.SplitSeq(string(text), "\n") {
		what, writes, pid := parseLock(line)
		if what == "" || pid <= 0 {
			continue
		}
		place := strings.Fields(line)[5] // MAJOR:MINOR:INODE
		at := strings.LastIndexByte(place, ':')
		ino, err := strconv.ParseUint(place[max(at, 0)+1:], 10, 64)
		if at < 0 || err != nil || !l.is(parseDevice(place[:at], 16), ino) {
			continue
		}
		found[pid] = Holder{What: what, Writes: writes || found[pid].Writes}
	}
	return found
}

// conflict reports whether somebody else has a lock on the bytes that a lock of
// the kind would meet: F_WRLCK meets all, F_RDLCK those for writing.
func conflict(f *os.File, kind int16, from, to int64) bool {
	lock := unix.Flock_t{Type: kind, Start: from, Len: to - from + 1}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

// keptFrom reports whether the locks of others keep us away.
func keptFrom(f *os.File, write bool) bool {
	if write {
		return conflict(f, unix.F_WRLCK, 0, lastByte)
	}
	for _, b := range keepReaders {
		if conflict(f, unix.F_WRLCK, b, b) {
			return true
		}
	}
	return conflict(f, unix.F_RDLCK, 0, lastByte)
}

// lockedUnseen finds a lock whose owner is not among those that were found.
func (l *look) lockedUnseen(found inProcess) (Holder, bool) {
	if found.locks || !conflict(l.file, unix.F_WRLCK, 0, lastByte) {
		return Holder{}, false
	}
	return Holder{What: IsLocked, Writes: keptFrom(l.file, false)}, true
}
