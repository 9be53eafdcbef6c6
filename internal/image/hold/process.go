package hold

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// family tells which processes are ours: this one, those that it was told of, and
// what descends from them.
type family struct{ heads []int }

func newFamily(others []int) family { return family{append([]int{os.Getpid()}, others...)} }

func (f family) has(pid int) bool {
	for range 100 { // deeper than any of our children, and it ends whatever /proc says
		if slices.Contains(f.heads, pid) {
			return true
		}
		if pid = parent(pid); pid <= 1 {
			return false
		}
	}
	return false
}

func parent(pid int) int {
	text, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return 0
	}
	// "PID (COMMAND) STATE PARENT": the command may hold anything, even ")".
	_, rest, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
	fields := strings.Fields(string(rest))
	if len(fields) < 2 {
		return 0
	}
	id, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return id
}

func procPath(pid int, rest string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + rest
}

// inProcess is what was found in processes.
type inProcess struct {
	holders []Holder
	ours    int  // uses of ours, in this process and its children, beside the file
	locks   bool // a lock has its holder in the list, or is another one of ours
}

// inProcesses looks for open descriptors, memory and locks in all processes.
func (l *look) inProcesses() (found inProcess, unseen int, err error) {
	pids, err := processes()
	if err != nil {
		return found, 0, err
	}
	locks := l.listedLocks()
	for _, pid := range pids {
		uses, err := l.usesOf(pid)
		if errors.Is(err, fs.ErrPermission) && !kernelThread(pid) {
			unseen++
		}
		if err == nil {
			delete(locks, pid)
		}
		if len(uses) == 0 {
			continue
		}
		h := strongest(uses)
		found.locks = found.locks || h.What == IsLocked
		if l.ours.has(pid) {
			found.ours += len(uses)
			continue
		}
		found.holders = append(found.holders, h.named(pid))
	}
	for pid, h := range locks { // of processes that could not be looked into
		// A lock outlives the process that took it where a child has the descriptor.
		if _, err := os.Stat(procPath(pid, "")); err == nil && !l.ours.has(pid) {
			found.locks = true
			found.holders = append(found.holders, h.named(pid))
		}
	}
	return found, unseen, nil
}

func processes() ([]int, error) {
	folder, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, errors.New("listing processes: /proc is not mounted")
	}
	return pids, nil
}

// kernelThread reports whether a process has no program, as those of the kernel
// and those that have ended.
func kernelThread(pid int) bool {
	line, err := os.ReadFile(procPath(pid, "cmdline"))
	return err == nil && len(line) == 0
}

// usesOf has one holder for each descriptor and each mapping of the file in a
// process. The error is only of interest where it is a lack of permission.
func (l *look) usesOf(pid int) ([]Holder, error) {
	var uses []Holder
	folder := procPath(pid, "fd")
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	numbers, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, number := range numbers {
		if pid == os.Getpid() && number == strconv.Itoa(int(l.file.Fd())) {
			continue
		}
		link := filepath.Join(folder, number)
		// Sockets and pipes are told by their names, without a look at each.
		if target, err := os.Readlink(link); err != nil || !strings.HasPrefix(target, "/") {
			continue
		}
		var st unix.Statx_t
		// Without asking a server of files, which may not answer.
		err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st)
		if err != nil || !l.is(unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino) {
			continue
		}
		if h, is := use(procPath(pid, "fdinfo/"+number)); is {
			uses = append(uses, h)
		}
	}
	return append(uses, l.mappings(pid)...), nil
}

// use reads what a process may do with one of its descriptors.
func use(fdinfo string) (Holder, bool) {
	text, err := os.ReadFile(fdinfo)
	if err != nil {
		return Holder{}, false // closed meanwhile
	}
	h := Holder{What: IsOpen}
	for line := range strings.SplitSeq(string(text), "\n") {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "flags":
			flags, err := strconv.ParseUint(strings.TrimSpace(value), 8, 64)
			if err == nil && flags&unix.O_PATH != 0 {
				return h, false // a name, that nothing can be read by
			}
			h.Writes = err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY
		case "lock":
			if kind, writes, _ := parseLock(value); kind != "" {
				h.What, h.Writes = kind, h.Writes || writes
			}
		}
	}
	return h, true
}

// mappings are the parts of a process's memory that are the file. Those of files
// that are only read are no holders of a writer's kind.
func (l *look) mappings(pid int) []Holder {
	file, err := os.Open(procPath(pid, "maps"))
	if err != nil {
		return nil
	}
	defer file.Close()
	ino := []byte(" " + strconv.FormatUint(l.st.Ino, 10) + " ")
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// "START-END rw-s OFFSET MAJOR:MINOR INODE PATH"
		if !bytes.Contains(lines.Bytes(), ino) {
			continue
		}
		fields := strings.Fields(lines.Text())
		if len(fields) >= 6 && l.is(parseDevice(fields[3], 16), l.st.Ino) && fields[4] == strconv.FormatUint(l.st.Ino, 10) {
			shared := strings.HasSuffix(fields[1], "s")
			return []Holder{{What: IsMapped, Writes: shared && strings.Contains(fields[1], "w")}}
		}
	}
	return nil
}

// parseDevice reads "MAJOR:MINOR".
func parseDevice(text string, base int) uint64 {
	major, minor, _ := strings.Cut(text, ":")
	high, err1 := strconv.ParseUint(major, base, 32)
	low, err2 := strconv.ParseUint(minor, base, 32)
	if errors.Join(err1, err2) != nil {
		return 0
	}
	return unix.Mkdev(uint32(high), uint32(low))
}

// strongest is the one of a process's uses to name.
func strongest(uses []Holder) Holder {
	order := []string{IsLocked, IsLeased, IsOpen, IsMapped}
	h := slices.MinFunc(uses, func(a, b Holder) int { return slices.Index(order, a.What) - slices.Index(order, b.What) })
	h.Writes = slices.ContainsFunc(uses, func(h Holder) bool { return h.Writes })
	return h
}

// named adds who a process is.
func (h Holder) named(pid int) Holder {
	h.PID = pid
	if name, err := os.ReadFile(procPath(pid, "comm")); err == nil {
		h.Command = strings.TrimSuffix(string(name), "\n")
	}
	if !strings.HasPrefix(h.Command, "qemu") {
		return h
	}
	line, err := os.ReadFile(procPath(pid, "cmdline"))
	if err != nil {
		return h
	}
	args := strings.Split(string(line), "\x00")
	if at := slices.Index(args, "-name"); at >= 0 && at+1 < len(args) {
		name, _, _ := strings.Cut(args[at+1], ",")
		h.Machine = strings.TrimPrefix(name, "guest=")
	}
	return h
}
