package hold

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
)

type answer int

const (
	unknown answer = iota
	yes
	no
)

// alone asks the kernel whether the file is open nowhere but by f, or where it is
// not to be written, whether nobody can write it. It sees what no list has: other
// users' processes without root, files in flight between processes, the kernel's own
// use. A lease is granted in no other case, and given back at once.
func alone(f *os.File, write bool) answer {
	kind := unix.F_WRLCK
	if !write {
		kind = unix.F_RDLCK
		// One that writes itself cannot ask whether others do.
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
			return unknown
		}
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, kind)
	switch {
	case err == nil:
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
			return unknown
		}
		return yes
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EBUSY):
		return no
	}
	return unknown // not the owner, or the file system has no leases
}

// Alone reports whether nobody else has a file open that is open for reading here, as
// far as the kernel tells: known is false where it does not.
func Alone(f *os.File) (is, known bool) {
	answer := alone(f, true)
	return answer == yes, answer != unknown
}

// networks are file systems that other machines may write at the same time.
var networks = map[int64]string{
	0x6969: "NFS", 0xFF534D42: "CIFS", 0xFE534D42: "SMB", 0x517B: "SMB", 0x00C36400: "Ceph", 0x01021997: "9P",
	0x5346414F: "AFS", 0x6B414653: "AFS", 0x73757245: "Coda", 0x7461636F: "OCFS2", 0x01161970: "GFS2", 0x0BD00BD0: "Lustre",
}

const fuseMagic = 0x65735546

// localFuse are file systems of FUSE that lie on a disk of this machine; the others
// may lie anywhere.
var localFuse = []string{"fuseblk", "fuse.ntfs", "fuse.bindfs", "fuse.fuse-overlayfs", "fuse.ext4", "fuse.ext2", "fuse.zfs", "fuse.mergerfs"}

// refuseNetwork refuses a file that other machines may have, unless that is allowed.
func refuseNetwork(f *os.File, allowed bool) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("asking which file system %s lies on: %w", f.Name(), err)
	}
	name := networks[int64(uint32(st.Type))]
	if uint32(st.Type) == fuseMagic {
		name = foreignFuse(f)
	}
	if name == "" || allowed {
		return nil
	}
	return &upkeep.HintError{
		Err: fmt.Errorf("%w: %s lies on a network file system (%s): whether another machine has it in use cannot be seen from here",
			upkeep.ErrRefused, f.Name(), name),
		Hint: "work on it where its disk is; or, if no other machine has it, add --network",
	}
}

// foreignFuse is the type of the file's file system if it may be a network's.
func foreignFuse(f *os.File) string {
	m, err := mountOf(f)
	if err != nil {
		return "FUSE"
	}
	for _, local := range localFuse {
		if strings.HasPrefix(m.filesystem, local) {
			return ""
		}
	}
	return m.filesystem
}
