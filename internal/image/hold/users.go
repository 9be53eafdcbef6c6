package hold

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Users finds who uses what is mounted at a folder: processes that have a file of it
// open, are in it or run from it, and what is mounted inside it.
func Users(folder string) ([]Holder, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, folder, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", folder, err)
	}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	found := mountedInside(st.Mnt_id)
	for _, pid := range pids {
		if h, is := usesMount(pid, st.Mnt_id); is && pid != os.Getpid() {
			found = append(found, h.named(pid))
		}
	}
	return found, nil
}

// usesMount reports whether a process uses a mount, by all the ways in which /proc
// tells the path of something that it has.
func usesMount(pid int, mount uint64) (Holder, bool) {
	links := []string{procPath(pid, "cwd"), procPath(pid, "root"), procPath(pid, "exe")}
	var files []string
	for _, folder := range []string{"fd", "map_files"} {
		entries, err := os.ReadDir(procPath(pid, folder))
		if err != nil {
			continue // gone, or another user's
		}
		for _, entry := range entries {
			files = append(files, filepath.Join(procPath(pid, folder), entry.Name()))
		}
	}
	on := func(link string) bool {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
		return err == nil && st.Mnt_id == mount
	}
	for _, file := range files {
		if on(file) {
			h, _ := use(strings.Replace(file, "/fd/", "/fdinfo/", 1))
			return Holder{What: IsOpen, Writes: h.Writes}, true
		}
	}
	return Holder{What: IsInside}, slices.ContainsFunc(links, on)
}

// mountedInside are the mounts that stand on another, of our namespace.
func mountedInside(parent uint64) []Holder {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil
	}
	found := map[string]Holder{}
	for line := range strings.SplitSeq(string(text), "\n") {
		m, ok := parseMount(line)
		if ok && m.parent == strconv.FormatUint(parent, 10) && m.id != m.parent {
			found[m.folder] = Holder{What: OnMount, Mount: m.folder, Device: strings.TrimPrefix(m.source, "/dev/")}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Holder) int { return strings.Compare(a.Mount, b.Mount) })
}
