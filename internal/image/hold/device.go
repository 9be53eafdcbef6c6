package hold

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
)

// classBlock has a folder for each block device, partitions too.
const classBlock = "/sys/class/block/"

// device is a block device that stands on the file, directly or on another that
// does.
type device struct {
	name   string // below /sys/class/block
	number uint64
	what   string // OnLoop or OnMapper; empty for a partition
	writes bool
}

// onDevices finds the loop devices that stand on the file, what stands on them,
// and where they are mounted. Ours are left out with all that stands on them.
func (l *look) onDevices() ([]Holder, error) {
	devices, err := l.devices()
	if err != nil {
		return nil, err
	}
	var holders []Holder
	for _, d := range devices {
		if d.what != "" {
			holders = append(holders, Holder{What: d.what, Device: d.title(), Writes: d.writes})
		}
	}
	holders = append(holders, l.swaps(devices)...)
	if len(devices) == 0 {
		return holders, nil
	}
	mounts, err := mountsOf(devices)
	if err != nil {
		return nil, err
	}
	return append(mounts, holders...), nil // first what says most
}

// title is a name that people know a device by.
func (d device) title() string {
	if name, err := os.ReadFile(classBlock + d.name + "/dm/name"); err == nil {
		return d.name + " " + strings.TrimSpace(string(name))
	}
	return d.name
}

// devices are the loop devices on the file, their partitions, and all that stands
// on those.
func (l *look) devices() ([]device, error) {
	folders, err := filepath.Glob("/sys/block/loop*/loop") // there while one is attached
	if err != nil {
		return nil, fmt.Errorf("listing loop devices: %w", err)
	}
	type attached struct {
		device
		on uint64 // the block device that it stands on, if it does
	}
	var found []device
	var others []attached
	for _, folder := range folders {
		name := filepath.Base(filepath.Dir(folder))
		d := device{name: name, number: deviceNumber(name), what: OnLoop, writes: !readOnly(name)}
		on, is := l.backs(folder, d)
		if is && !l.loops[name] {
			found = append(found, d)
		} else if !is {
			others = append(others, attached{d, on})
		}
	}
	for i := 0; i < len(found); i++ { // found grows
		d := found[i]
		found = append(found, standingOn(classBlock, d, found)...)
		for _, other := range others {
			if other.on != 0 && other.on == d.number && !has(found, other.name) {
				found = append(found, other.device)
			}
		}
	}
	return found, nil
}

func has(devices []device, name string) bool {
	return slices.ContainsFunc(devices, func(d device) bool { return d.name == name })
}

// standingOn are the partitions of a device and what holds it, as device mapper
// does.
func standingOn(class string, d device, known []device) []device {
	var found []device
	add := func(name, what string) {
		if !has(known, name) && !has(found, name) {
			found = append(found, device{name: name, number: deviceNumber(name), what: what, writes: d.writes && !readOnly(name)})
		}
	}
	partitions, _ := filepath.Glob(filepath.Join(class, d.name, d.name+"p*")) // well-formed
	for _, partition := range partitions {
		add(filepath.Base(partition), "") // the loop device is in the list already
	}
	holders, _ := os.ReadDir(filepath.Join(class, d.name, "holders"))
	for _, holder := range holders {
		add(holder.Name(), OnMapper)
	}
	return found
}

func deviceNumber(name string) uint64 {
	text, err := os.ReadFile(classBlock + name + "/dev")
	if err != nil {
		return 0
	}
	return parseDevice(strings.TrimSpace(string(text)), 10)
}

func readOnly(name string) bool {
	text, err := os.ReadFile(classBlock + name + "/ro")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// backs reports whether the file is what a loop device stands on. Else it tells
// which block device is, if one is. The kernel says by device and inode to who may
// open the loop device, and else by the name that the file had when it was attached,
// in the namespace of who did that.
func (l *look) backs(folder string, d device) (on uint64, is bool) {
	if fd, err := openDevice(d); err == nil {
		info, err := unix.IoctlLoopGetStatus64(fd)
		unix.Close(fd)
		if errors.Is(err, unix.ENXIO) {
			return 0, false // detached meanwhile
		}
		if err == nil {
			return info.Rdevice, l.is(info.Device, info.Inode) || unix.ByteSliceToString(info.File_name[:]) == unpackedName(&l.st)
		}
	}
	text, err := os.ReadFile(filepath.Join(folder, "backing_file"))
	if err != nil {
		return 0, false
	}
	path := strings.TrimSuffix(string(text), "\n")
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err == nil && l.is(st.Dev, st.Ino) {
		return 0, true
	}
	own, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(l.file.Fd())))
	return 0, err == nil && own == path
}

// UnpackedName is the name that a loop device is given which has what was unpacked of a
// packed image, in a file without a name: by it the device counts as one on the packed
// image. It has no path in it, of which the kernel would keep the first 63 bytes, and
// which may come to lead elsewhere; a file that has got the inode meanwhile, or that was
// written to, is another.
func UnpackedName(packed *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(packed.Fd()), &st); err != nil {
		return "", fmt.Errorf("looking at %s: %w", packed.Name(), err)
	}
	return unpackedName(&st), nil
}

func unpackedName(st *unix.Stat_t) string {
	name := fmt.Sprintf("packed:%x:%x:%x:%x", st.Dev, st.Ino, st.Size, st.Mtim.Nano())
	return name[:min(len(name), len(unix.LoopInfo64{}.File_name)-1)]
}

// openDevice opens a block device by its name in /dev, if that is the one.
func openDevice(d device) (int, error) {
	fd, err := unix.Open("/dev/"+d.name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK || st.Rdev != d.number {
		unix.Close(fd)
		return -1, fs.ErrNotExist
	}
	return fd, nil
}

// swaps finds the file, and devices on it, among what is swapped to.
func (l *look) swaps(devices []device) []Holder {
	text, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return nil
	}
	var found []Holder
	for line := range strings.SplitSeq(string(text), "\n") {
		name, _, _ := strings.Cut(line, " ")
		path := unescape(strings.TrimSpace(strings.Split(name, "\t")[0]))
		if !strings.HasPrefix(path, "/") {
			continue
		}
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		if err == nil && l.is(st.Dev, st.Ino) {
			found = append(found, Holder{What: OnSwap, Writes: true})
			continue
		}
		for _, d := range devices {
			// By its number; by its name where it has another one here, or none.
			if err == nil && st.Rdev == d.number || err != nil && filepath.Base(path) == d.name {
				found = append(found, Holder{What: OnSwap, Device: d.name, Writes: true})
			}
		}
	}
	return found
}

// mountsOf finds where devices are mounted, in all mount namespaces that a process
// or a thread lives in.
func mountsOf(devices []device) ([]Holder, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("reading the mount namespace: %w", err)
	}
	here := mountsIn("/proc/thread-self", 0, devices)
	found := here
	seen := map[string]bool{own: true}
	for _, pid := range pids {
		tasks, err := os.ReadDir(procPath(pid, "task"))
		if err != nil {
			continue
		}
		for _, task := range tasks {
			folder := procPath(pid, "task/"+task.Name())
			ns, err := os.Readlink(folder + "/ns/mnt")
			if err != nil || seen[ns] {
				continue
			}
			seen[ns] = true
			for _, h := range mountsIn(folder, pid, devices) {
				// A new namespace begins with copies of all mounts.
				copied := func(m Holder) bool { return m.Mount == h.Mount && m.Device == h.Device }
				if !slices.ContainsFunc(here, copied) {
					found = append(found, h)
				}
			}
		}
	}
	return found, nil
}

// mountsIn finds the devices among the mounts that a process sees.
func mountsIn(folder string, pid int, devices []device) []Holder {
	text, err := os.ReadFile(folder + "/mountinfo")
	if err != nil {
		return nil
	}
	found := map[string]Holder{}
	for line := range strings.SplitSeq(string(text), "\n") {
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		for _, d := range devices {
			// btrfs has a device number of its own and tells the name alone.
			if m.number != d.number && m.source != "/dev/"+d.name {
				continue
			}
			h := Holder{What: OnMount, Device: d.name, Mount: m.folder, Writes: d.writes}
			if pid != 0 {
				h = h.named(pid)
			}
			found[m.folder] = h
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Holder) int { return strings.Compare(a.Mount, b.Mount) })
}

// mount is a line of mountinfo: "36 35 98:0 /root /mnt rw,noatime master:1 - ext3
// /dev/root rw".
type mount struct {
	id, parent     string
	number         uint64
	folder, source string
	filesystem     string
}

func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	first, second := strings.Fields(before), strings.Fields(after)
	if !ok || len(first) < 6 || len(second) < 2 {
		return mount{}, false
	}
	return mount{id: first[0], parent: first[1], number: parseDevice(first[2], 10), folder: unescape(first[4]), filesystem: second[0], source: unescape(second[1])}, true
}

// At is what is mounted at a folder.
type At struct {
	Source string // "/dev/loop3"
	Type   string
}

// MountedAt finds what is mounted at a folder, by its real path: the last, where
// mounts stand on each other.
func MountedAt(folder string) (At, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return At{}, fmt.Errorf("listing mounts: %w", err)
	}
	found := At{}
	for line := range strings.SplitSeq(string(text), "\n") {
		if m, ok := parseMount(line); ok && m.folder == folder {
			found = At{Source: m.source, Type: m.filesystem}
		}
	}
	if found.Type == "" {
		return At{}, fmt.Errorf("%w: nothing is mounted at %s", upkeep.ErrNotFound, folder)
	}
	return found, nil
}

// unescape turns the \040 of the kernel's lists into the space that it stands for.
func unescape(s string) string {
	for at := 0; at+4 <= len(s); at++ {
		if s[at] != '\\' {
			continue
		}
		if c, err := strconv.ParseUint(s[at+1:at+4], 8, 8); err == nil {
			s = s[:at] + string([]byte{byte(c)}) + s[at+4:]
		}
	}
	return s
}

// mountOf is the mount that an open file was reached by.
func mountOf(f *os.File) (mount, error) {
	fd := strconv.Itoa(int(f.Fd()))
	info, err := os.ReadFile("/proc/thread-self/fdinfo/" + fd)
	if err != nil {
		return mount{}, err
	}
	id := ""
	for line := range strings.SplitSeq(string(info), "\n") {
		if value, is := strings.CutPrefix(line, "mnt_id:"); is {
			id = strings.TrimSpace(value)
		}
	}
	list, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return mount{}, err
	}
	for line := range strings.SplitSeq(string(list), "\n") {
		if m, ok := parseMount(line); ok && m.id == id {
			return m, nil
		}
	}
	return mount{}, fs.ErrNotExist
}

// superDevice is the device of the file's file system as lists of the kernel have
// it, or the one given where that cannot be told.
func superDevice(f *os.File, dev uint64) uint64 {
	m, err := mountOf(f)
	if err != nil || m.number == 0 {
		return dev
	}
	return m.number
}
