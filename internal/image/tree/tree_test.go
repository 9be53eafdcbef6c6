package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

// same copies and compares, and wants no difference.
func same(t *testing.T, dst, src *os.File) Report {
	t.Helper()
	report, err := Copy(context.Background(), dst, src, Options{})
	if err != nil {
		t.Fatal(err)
	}
	found, _ := differences(t, src, dst)
	for i, d := range found {
		if i < 10 {
			t.Errorf("differs: %v", d)
		}
	}
	for i, l := range report.Lost {
		if i < 10 {
			t.Errorf("lost: %v", l)
		}
	}
	return report
}

// TestBetweenTypes has what ext4 has not got: projects, and holes and allocated
// blocks as XFS and btrfs tell of them.
func TestBetweenTypes(t *testing.T) {
	testkit.Need(t, "chattr", "setfacl")
	xfs, btrfs := disk(t, 512<<20, "xfs", "mkfs.xfs", "-q"), disk(t, 256<<20, "btrfs", "mkfs.btrfs", "-q")
	for _, source := range []*os.File{xfs, btrfs} {
		t.Run(source.Name(), func(t *testing.T) {
			for _, a := range attributes {
				a.make(t, source)
			}
			must(t, unix.Syncfs(int(source.Fd())))
			target := ext4(t, 64<<20, "-b", "4096")
			same(t, target, source)
			for _, a := range attributes {
				if err := a.seen(target); err != nil {
					t.Errorf("%s: %v", a.name, err)
				}
			}
		})
	}
	write(t, xfs, "project", "x")
	must(t, os.Mkdir(at(xfs, "projects"), 0o755))
	run(t, xfs, "chattr", "-p", "4711", "project", "projects")
	run(t, xfs, "chattr", "+P", "projects")
	write(t, xfs, "projects/file", "x")
	same(t, disk(t, 512<<20, "xfs", "mkfs.xfs", "-q"), xfs)

	report, err := Copy(context.Background(), ext4(t, 64<<20, "-b", "4096"), xfs, Options{})
	must(t, err)
	var lost []string
	for _, l := range report.Lost {
		lost = append(lost, l.Path+" "+l.What)
	}
	if want := []string{"project project", "projects project", "projects/file project"}; !slices.Equal(lost, want) {
		t.Errorf("lost on a file system without projects: %q, want %q", lost, want)
	}
}

// TestManySmallFiles has a large folder and many small ones.
func TestManySmallFiles(t *testing.T) {
	files := 30_000
	if testing.Short() {
		files = 5_000
	}
	source := tmpfs(t)
	var text []byte
	for i := range files {
		name := fmt.Sprintf("large/%d", i)
		if i >= files/2 {
			name = fmt.Sprintf("small/%d/%d", i%1000, i)
		}
		if i%(files/100) == 0 || i >= files/2 {
			must(t, os.MkdirAll(filepath.Dir(at(source, name)), 0o755))
		}
		text = fmt.Appendf(text[:0], "file %d", i)
		must(t, os.WriteFile(at(source, name), text, 0o600))
	}
	var last atomic.Int64
	target := ext4(t, 2<<30, "-N", "300000")
	report, err := Copy(context.Background(), target, source, Options{Progress: func(done, _ int64) { last.Store(max(last.Load(), done)) }})
	must(t, err)
	if want := int64(files + 1003); report.Entries != want || len(report.Lost) != 0 {
		t.Errorf("%d entries, want %d; lost %v", report.Entries, want, report.Lost)
	}
	if found, _ := differences(t, source, target); len(found) > 0 {
		t.Errorf("%d differences, the first: %v", len(found), found[0])
	}
	if report.Bytes == 0 || last.Load() == 0 {
		t.Errorf("%d bytes, and progress told of %d", report.Bytes, last.Load())
	}
}

// TestDeep has a path that no system call takes at once, with hard links from its
// end to its beginning, and more folders than may be open.
func TestDeep(t *testing.T) {
	source, target := tmpfs(t), ext4(t, 64<<20, "-N", "10000")
	write(t, source, "first", "text")
	dir, err := unix.Dup(int(source.Fd()))
	must(t, err)
	const depth = 1200
	for range depth {
		must(t, unix.Mkdirat(dir, "deeper", 0o755))
		must(t, unix.Mkdirat(dir, "beside", 0o755))
		next, err := unix.Openat(dir, "deeper", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err, unix.Close(dir))
		dir = next
	}
	must(t, unix.Linkat(int(source.Fd()), "first", dir, "last", 0), unix.Symlinkat("x", dir, "link"), unix.Close(dir))
	if report := same(t, target, source); report.Entries != 2*depth+4 {
		t.Errorf("%d entries were copied", report.Entries)
	}
	a, err := lstat(target, "first")
	must(t, err)
	if a.Nlink != 2 {
		t.Errorf("the file has %d names, want 2", a.Nlink)
	}
}

func TestTargetMustBeEmpty(t *testing.T) {
	source, target := folderOf(t, filepath.Join(t.TempDir(), "a")), folderOf(t, filepath.Join(t.TempDir(), "b"))
	write(t, source, "file", "new")
	must(t, os.MkdirAll(at(source, "dir"), 0o755), os.MkdirAll(at(target, "dir"), 0o755))
	write(t, source, "dir/new", "new")
	write(t, target, "file", "old")
	write(t, target, "dir/old", "old")
	must(t, os.Symlink("/etc", at(target, "link")), os.MkdirAll(at(source, "link"), 0o755))
	if _, err := Copy(context.Background(), target, source, Options{}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("copying over what is there: %v", err)
	}
	if got, _ := os.ReadFile(at(target, "file")); string(got) != "old" {
		t.Errorf("the file has become %q", got)
	}
	if _, err := Copy(context.Background(), target, source, Options{Merge: true}); err != nil {
		t.Fatal(err)
	}
	found, _ := differences(t, source, target)
	if len(found) != 1 || found[0] != (Difference{"dir/old", "entry", "", "f"}) {
		t.Errorf("after merging: %v", found)
	}
}

// TestOtherFileSystems has a source with one mounted in it, a file over a file
// too.
func TestOtherFileSystems(t *testing.T) {
	testkit.NeedRoot(t)
	dir := t.TempDir()
	source := folderOf(t, filepath.Join(dir, "a"))
	must(t, os.MkdirAll(at(source, "mounted"), 0o755))
	write(t, source, "file", "x")
	write(t, source, "over", "x")
	done, end := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the namespace ends with the thread
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("none", filepath.Join(dir, "a/mounted"), "tmpfs", 0, "mode=755")
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "a/mounted/inside"), nil, 0o644)
		}
		if err == nil {
			err = unix.Mount(filepath.Join(dir, "a/file"), filepath.Join(dir, "a/over"), "", unix.MS_BIND, "")
		}
		var inside *os.File
		if err == nil {
			inside, err = os.Open(filepath.Join(dir, "a"))
		}
		if err == nil {
			source = inside
		}
		done <- err
		<-end
	}()
	testkit.NeedThat(t, "a mount namespace", <-done)
	defer close(end)
	target := folderOf(t, filepath.Join(dir, "b"))
	report, err := Copy(context.Background(), target, source, Options{})
	must(t, err)
	if len(report.Lost) != 2 || report.Lost[0].Path != "mounted" || report.Lost[1].Path != "over" {
		t.Errorf("lost: %v", report.Lost)
	}
	names, err := os.ReadDir(at(target, ""))
	must(t, err)
	inside, err := os.ReadDir(at(target, "mounted"))
	must(t, err)
	if len(names) != 2 || len(inside) != 0 {
		t.Errorf("the copy has %v, and in the folder %v", names, inside)
	}
}

// TestWhatCannotBeHeld copies more names of a file than ext4 lets one have.
func TestWhatCannotBeHeld(t *testing.T) {
	testkit.NeedRoot(t)
	const names = 65_005
	source := tmpfs(t)
	write(t, source, "file", "x")
	for i := range names {
		must(t, unix.Linkat(int(source.Fd()), "file", int(source.Fd()), fmt.Sprint(i), 0))
	}
	_, err := Copy(context.Background(), ext4(t, 64<<20), source, Options{})
	var hint *upkeep.HintError
	if !errors.Is(err, unix.EMLINK) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--leave-out") {
		t.Errorf("copying too many links: %v", err)
	}
	report, err := Copy(context.Background(), ext4(t, 64<<20), source, Options{LeaveOut: true})
	must(t, err)
	if len(report.Lost) != names+1-65_000 || report.Lost[0].What != "entry" {
		t.Errorf("%d are listed as lost", len(report.Lost))
	}
}

// TestFull fills the target, in bytes and in inodes.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	large, many := folderOf(t, filepath.Join(dir, "a")), folderOf(t, filepath.Join(dir, "b"))
	must(t, os.WriteFile(at(large, "file"), make([]byte, 8<<20), 0o644))
	for i := range 200 {
		write(t, many, fmt.Sprint(i), "")
	}
	for _, source := range []*os.File{large, many} {
		_, err := Copy(context.Background(), ext4(t, 4<<20, "-N", "64"), source, Options{})
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "the target is full") {
			t.Errorf("copying to a file system that is too small: %v", err)
		}
	}
}

// TestChangesUnderneath changes a tree while it is copied. A copy that says that
// it is one has to be one: of the tree as it was at the beginning, for the change
// goes on.
func TestChangesUnderneath(t *testing.T) {
	changes := map[string]func(root *os.File) error{
		"a file grows":        func(r *os.File) error { return os.WriteFile(at(r, "d/file"), make([]byte, 5000), 0o644) },
		"a file is rewritten": func(r *os.File) error { return os.WriteFile(at(r, "d/file"), []byte("TEXT"), 0o644) },
		"a file is cut":       func(r *os.File) error { return os.Truncate(at(r, "d/file"), 1) },
		"an owner changes":    func(r *os.File) error { return os.Chmod(at(r, "d/file"), 0o600) },
		"a file appears":      func(r *os.File) error { return os.WriteFile(at(r, "d/appeared"), nil, 0o644) },
		"a file vanishes":     func(r *os.File) error { return os.Remove(at(r, "d/file")) },
		"a folder vanishes":   func(r *os.File) error { return os.Remove(at(r, "d/sub")) },
		"a link takes a place": func(r *os.File) error {
			return errors.Join(os.Remove(at(r, "d/sub")), os.Symlink("/etc", at(r, "d/sub")))
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			source, target := folderOf(t, filepath.Join(t.TempDir(), "a")), folderOf(t, filepath.Join(t.TempDir(), "b"))
			must(t, os.MkdirAll(at(source, "d/sub"), 0o755))
			write(t, source, "d/file", "text")
			at := "file"
			if strings.Contains(name, "folder") || strings.Contains(name, "link") {
				at = "sub"
			}
			c := &changing{copier: newCopier(int(target.Fd()), Options{}), at: at, change: func() error { return change(source) }}
			must(t, c.prepare(int(source.Fd())))
			err := walk(context.Background(), int(source.Fd()), c)
			if !errors.Is(err, upkeep.ErrChanged) {
				t.Errorf("%v", err)
			}
		})
	}
}

// changing is a copier under whose hands an entry changes once it was looked at.
type changing struct {
	*copier
	at     string
	change func() error
}

func (c *changing) visit(f *folder, i *item) error {
	if i.name == c.at {
		if err := c.change(); err != nil {
			return err
		}
	}
	return c.copier.visit(f, i)
}

func TestStops(t *testing.T) {
	source, target := tmpfs(t), tmpfs(t)
	for i := range 1000 {
		must(t, os.MkdirAll(at(source, fmt.Sprint(i)), 0o755))
		write(t, source, fmt.Sprintf("%d/file", i), strings.Repeat("x", 5000))
	}
	before := descriptors(t)
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Copy(ctx, target, source, Options{Progress: func(done, _ int64) {
		if done > 1<<20 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a copy that was stopped: %v", err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func descriptors(t *testing.T) int {
	names, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(names)
}

// TestReadTree sees each attribute in the description of a tree, and that a tree that
// did not change is described alike.
func TestReadTree(t *testing.T) {
	source := ext4(t, 64<<20, "-b", "4096")
	for _, a := range attributes {
		a.make(t, source)
	}
	must(t, unix.Syncfs(int(source.Fd())))
	m, err := ReadTree(context.Background(), source, 0, nil)
	must(t, err)
	again, err := ReadTree(context.Background(), source, 0, nil)
	must(t, err)
	if !reflect.DeepEqual(m, again) {
		t.Errorf("a second look at the tree differs: %v", Compare(m, again))
	}
	entries := map[string]Entry{}
	for _, e := range m.Entries {
		entries[e.Path] = e
	}
	if r := entries["."]; r.Type != 'd' || r.Mode != 0o1751 || r.UID != 77 || r.GID != 78 || r.Sec != 1234567890 || r.Nsec != 987 ||
		!slices.Equal(r.Xattrs, [][2]string{{"user.root", "r"}}) {
		t.Errorf("the root folder is %+v", r)
	}
	if old := entries["old"]; old.Mode != 0o644 || old.Sec != -1000000000 || old.Nsec != 999999999 {
		t.Errorf("a file of before 1970 is %+v", old)
	}
	if holes := entries["holes"].Holes; rangesText(holes) != "0-131072,196608-524288,589824-1048576" {
		t.Errorf("the holes are %s", rangesText(holes))
	}
	if full := entries["full"].Prealloc; rangesText(full) != "0-131072,196608-524288" {
		t.Errorf("preallocated is %s", rangesText(full))
	}
	for _, path := range []string{"a\nb \\", "\xff\xfe"} {
		if entries[path].Type != 'f' {
			t.Errorf("%q is %+v", path, entries[path])
		}
	}
	for what, is := range map[string]func(Entry) bool{
		"the device 259:70000": func(e Entry) bool { return e.Device == unix.Mkdev(259, 70000) },
		"a file of flags adA":  func(e Entry) bool { return letters(e.Flags) == "adA" && e.Link == "append" },
	} {
		if !slices.ContainsFunc(m.Entries, is) {
			t.Errorf("%s is missing", what)
		}
	}
}

// TestCompareFinds changes one thing at a time in a copy.
func TestCompareFinds(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	tree := func() *Manifest {
		return &Manifest{Block: 4096, Entries: []Entry{
			{Path: ".", Type: 'd', Mode: 0o755, Sec: 1},
			{Path: "a", Type: 'f', Mode: 0o644, UID: 1, GID: 2, Sec: 1, Size: 9000, Link: "a", Holes: []Range{{4096, 8192}}, Prealloc: []Range{{4096, 8192}}, Sum: sum, Xattrs: [][2]string{{"user.x", "1"}}},
			{Path: "c", Type: 'c', Mode: 0o644, UID: 1, GID: 2, Sec: 1, Device: unix.Mkdev(1, 3)},
			{Path: "l", Type: 'l', Mode: 0o777, UID: 1, GID: 2, Sec: 1, Target: "x"},
		}}
	}
	for _, one := range []struct {
		want   string
		change func(root, a, c, l *Entry)
	}{
		{"", func(_, _, _, _ *Entry) {}},
		{". mode", func(root, _, _, _ *Entry) { root.Mode = 0o750 }},
		{"a owner", func(_, a, _, _ *Entry) { a.GID = 3 }},
		{"a size", func(_, a, _, _ *Entry) { a.Size = 9001 }},
		{"a links", func(_, a, _, _ *Entry) { a.Link = "" }},
		{"a flags", func(_, a, _, _ *Entry) { a.Flags = flagImmutable }},
		{"a project", func(_, a, _, _ *Entry) { a.Project = 7 }},
		{"a holes", func(_, a, _, _ *Entry) { a.Holes = nil }},
		{"a holes", func(_, a, _, _ *Entry) { a.Holes = []Range{{0, 8192}} }},
		{"", func(_, a, _, _ *Entry) { a.Holes = []Range{{4096, 8200}} }}, // to a block alike
		{"a preallocation", func(_, a, _, _ *Entry) { a.Prealloc = nil }},
		{"a content", func(_, a, _, _ *Entry) { a.Sum = "ac" + sum[2:] }},
		{"a xattr user.x", func(_, a, _, _ *Entry) { a.Xattrs[0][1] = "2" }},
		{"a xattr user.x", func(_, a, _, _ *Entry) { a.Xattrs = nil }},
		{"a xattr user.x, a xattr user.y", func(_, a, _, _ *Entry) { a.Xattrs[0][0] = "user.y" }},
		{"a time", func(_, a, _, _ *Entry) { a.Sec = 2 }},
		{"a time", func(_, a, _, _ *Entry) { a.Nsec = 1 }},
		{"c device", func(_, _, c, _ *Entry) { c.Device = unix.Mkdev(1, 4) }},
		{"c type", func(_, _, c, _ *Entry) { c.Type = 'b' }},
		{"c entry, d entry", func(_, _, c, _ *Entry) { c.Path = "d" }},
		{"l target", func(_, _, _, l *Entry) { l.Target = "y" }},
	} {
		changed := tree()
		e := changed.Entries
		one.change(&e[0], &e[1], &e[2], &e[3])
		var got []string
		for _, d := range Compare(tree(), changed) {
			got = append(got, d.Path+" "+d.What)
		}
		if strings.Join(got, ", ") != one.want {
			t.Errorf("found %q, want %q", got, one.want)
		}
	}
}

// TestUnlisted has a copy without some of the names of one file.
func TestUnlisted(t *testing.T) {
	tree := func(names ...string) *Manifest {
		m := &Manifest{Block: 4096}
		for _, name := range names {
			e := Entry{Path: name, Type: 'f'}
			if len(names) > 1 {
				e.Link = names[0]
			}
			m.Entries = append(m.Entries, e)
		}
		return m
	}
	lost := func(names ...string) (all []Loss) {
		for _, name := range names {
			all = append(all, Loss{Path: name, What: "entry", Why: "too many links"})
		}
		return all
	}
	source := tree("a", "b", "c")
	for _, one := range []struct {
		made *Manifest
		lost []Loss
		want string
	}{
		{tree("a", "b", "c"), nil, ""},
		{tree("b", "c"), lost("a"), ""},
		{tree("a", "b"), lost("c"), ""},
		{tree("c"), lost("a", "b"), ""},
		{tree("c"), lost("a"), "b entry, c links"}, // that one is lost explains no other
		{tree("b", "c"), nil, "a entry, b links, c links"},
		{tree("a", "b"), lost("a"), "c entry"},
	} {
		var got []string
		for _, d := range Unlisted(Compare(source, one.made), one.lost, source) {
			got = append(got, d.Path+" "+d.What)
		}
		if strings.Join(got, ", ") != one.want {
			t.Errorf("with %v lost: found %q, want %q", one.lost, got, one.want)
		}
	}
}

func TestRangesWithout(t *testing.T) {
	for _, one := range []struct {
		a, b []Range
		want string
	}{
		{[]Range{{0, 10}}, nil, "0-10"},
		{[]Range{{0, 10}}, []Range{{0, 10}}, ""},
		{[]Range{{0, 10}}, []Range{{2, 3}, {5, 7}}, "0-2,3-5,7-10"},
		{[]Range{{5, 10}, {20, 30}}, []Range{{0, 6}, {9, 25}}, "6-9,25-30"},
		{[]Range{{1, 2}}, []Range{{5, 6}}, "1-2"},
		{[]Range{{0, 3}, {4, 6}, {8, 12}}, []Range{{1, 5}, {9, 10}}, "0-1,5-6,8-9,10-12"},
	} {
		if got := rangesText(without(one.a, one.b)); got != one.want {
			t.Errorf("%v without %v is %s, want %s", one.a, one.b, got, one.want)
		}
	}
}
