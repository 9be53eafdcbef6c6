package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

// one is an attribute that a copy can have or not: how it is made in the source,
// and how it is seen in a copy, by other means than those of the copier.
type one struct {
	name string
	make func(t testing.TB, root *os.File)
	seen func(root *os.File) error
}

func write(t testing.TB, root *os.File, name, text string) string {
	t.Helper()
	must(t, os.WriteFile(at(root, name), []byte(text), 0o644))
	return at(root, name)
}

func expect(what string, got, want any) error {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		return fmt.Errorf("%s is %s, want %s", what, g, w)
	}
	return nil
}

func lstat(root *os.File, name string) (st unix.Stat_t, err error) {
	err = unix.Lstat(at(root, name), &st)
	return st, err
}

// run starts a program of e2fsprogs, acl or libcap below a folder.
func run(t testing.TB, root *os.File, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = at(root, "")
	cmd.ExtraFiles = nil
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func output(root *os.File, name string, args ...string) string {
	cmd := exec.Command(name, args...)
	cmd.Dir = at(root, "")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return err.Error() + string(out)
	}
	return string(out)
}

func setTime(t testing.TB, path string, sec, nsec int64) {
	t.Helper()
	ts := []unix.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
}

func timeIs(root *os.File, name string, sec, nsec int64) error {
	st, err := lstat(root, name)
	return errors.Join(err, expect("time", [2]int64{st.Mtim.Sec, st.Mtim.Nsec}, [2]int64{sec, nsec}))
}

func xattrIs(root *os.File, path, name, want string) error {
	value := make([]byte, 100<<10)
	n, err := unix.Lgetxattr(at(root, path), name, value)
	return errors.Join(err, expect(name, fmt.Sprintf("%.40q", value[:max(n, 0)]), fmt.Sprintf("%.40q", want)))
}

// picture says how a file lies: a letter for each 64K, of data, unwritten blocks
// and holes.
func picture(root *os.File, name string) string {
	f, err := os.Open(at(root, name))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	_ = unix.Fsync(int(f.Fd()))
	var l layout
	if err := l.extents(int(f.Fd()), true); err != nil {
		return err.Error()
	}
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for at := int64(0); at < info.Size() || slices.ContainsFunc(l.prealloc, func(r Range) bool { return r.To > at }); at += 64 << 10 {
		switch {
		case slices.ContainsFunc(l.data, func(r Range) bool { return r.From <= at && at < r.To }):
			b.WriteByte('D')
		case slices.ContainsFunc(l.prealloc, func(r Range) bool { return r.From <= at && at < r.To }):
			b.WriteByte('u')
		default:
			b.WriteByte('.')
		}
	}
	return b.String()
}

// attributes are those by which copies are compared, and some more.
var attributes = []one{
	{"content", func(t testing.TB, r *os.File) {
		must(t, os.WriteFile(at(r, "content"), bytes.Repeat([]byte("0123456"), 100_000), 0o644))
	}, func(r *os.File) error {
		got, err := os.ReadFile(at(r, "content"))
		return errors.Join(err, expect("content", bytes.Equal(got, bytes.Repeat([]byte("0123456"), 100_000)), true))
	}},
	{"holes", func(t testing.TB, r *os.File) {
		f, err := os.Create(at(r, "holes"))
		must(t, err, f.Truncate(1<<20))
		for _, at := range []int64{128 << 10, 512 << 10} {
			_, err := f.WriteAt(make([]byte, 64<<10), at) // zeros that were written are data
			must(t, err)
		}
		must(t, f.Sync(), f.Close())
	}, func(r *os.File) error { return expect("layout", picture(r, "holes"), "..D.....D.......") }},
	{"preallocation", func(t testing.TB, r *os.File) {
		f, err := os.Create(at(r, "full"))
		must(t, err, unix.Fallocate(int(f.Fd()), 0, 0, 512<<10))
		_, err = f.WriteAt(bytes.Repeat([]byte("x"), 64<<10), 128<<10)
		must(t, err, f.Sync(), f.Close())
	}, func(r *os.File) error { return expect("layout", picture(r, "full"), "uuDuuuuu") }},
	{"preallocation behind the end", func(t testing.TB, r *os.File) {
		f, err := os.Create(at(r, "ahead"))
		must(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte("x"), 64<<10), 0)
		must(t, err, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 256<<10), f.Sync(), f.Close())
	}, func(r *os.File) error {
		st, err := lstat(r, "ahead")
		return errors.Join(err, expect("size", st.Size, 64<<10), expect("layout", picture(r, "ahead"), "Duuu"))
	}},
	{"owner", func(t testing.TB, r *os.File) {
		must(t, os.Chown(write(t, r, "owner", "x"), 70000, 80000))
	}, func(r *os.File) error {
		st, err := lstat(r, "owner")
		return errors.Join(err, expect("owner", [2]uint32{st.Uid, st.Gid}, [2]uint32{70000, 80000}))
	}},
	{"mode", func(t testing.TB, r *os.File) {
		must(t, os.Chmod(write(t, r, "mode", "x"), 0o052))
	}, func(r *os.File) error {
		st, err := lstat(r, "mode")
		return errors.Join(err, expect("mode", st.Mode&0o7777, 0o052))
	}},
	{"set-id and sticky bits", func(t testing.TB, r *os.File) {
		path := write(t, r, "setid", "x")
		must(t, os.Chown(path, 1000, 1001), unix.Chmod(path, 0o7755))
	}, func(r *os.File) error {
		st, err := lstat(r, "setid")
		return errors.Join(err, expect("mode", st.Mode&0o7777, 0o7755))
	}},
	{"hard links", func(t testing.TB, r *os.File) {
		must(t, os.Mkdir(at(r, "links"), 0o755))
		path := write(t, r, "links/a", "x")
		must(t, os.Link(path, at(r, "links/b")), os.Link(path, at(r, "hard")))
	}, func(r *os.File) error {
		a, err := lstat(r, "links/a")
		b, err2 := lstat(r, "hard")
		return errors.Join(err, err2, expect("inode", a.Ino, b.Ino), expect("links", a.Nlink, 3))
	}},
	{"symbolic link", func(t testing.TB, r *os.File) {
		must(t, os.Symlink("no\nwhere/"+strings.Repeat("x", 200), at(r, "symlink")))
		must(t, os.Lchown(at(r, "symlink"), 12, 13))
		setTime(t, at(r, "symlink"), 1e9, 7)
	}, func(r *os.File) error {
		text, err := os.Readlink(at(r, "symlink"))
		st, err2 := lstat(r, "symlink")
		return errors.Join(err, err2, expect("target", text, "no\nwhere/"+strings.Repeat("x", 200)),
			expect("owner", st.Uid, 12), timeIs(r, "symlink", 1e9, 7))
	}},
	{"links of hard links", func(t testing.TB, r *os.File) {
		must(t, os.Symlink("x", at(r, "sym1")), os.Link(at(r, "sym1"), at(r, "sym2")))
	}, func(r *os.File) error {
		a, err := lstat(r, "sym1")
		b, err2 := lstat(r, "sym2")
		return errors.Join(err, err2, expect("inode", a.Ino, b.Ino))
	}},
	special("fifo", unix.S_IFIFO, 0), special("socket", unix.S_IFSOCK, 0),
	special("character device", unix.S_IFCHR, int(unix.Mkdev(1, 3))), special("block device", unix.S_IFBLK, int(unix.Mkdev(259, 70000))),
	{"user attribute", func(t testing.TB, r *os.File) {
		must(t, unix.Setxattr(write(t, r, "user", "x"), "user.a=b c", []byte("1\x00\xff"), 0))
	}, func(r *os.File) error { return xattrIs(r, "user", "user.a=b c", "1\x00\xff") }},
	{"trusted attribute", func(t testing.TB, r *os.File) {
		must(t, unix.Setxattr(write(t, r, "trusted", "x"), "trusted.x", []byte(strings.Repeat("long ", 500)), 0))
	}, func(r *os.File) error { return xattrIs(r, "trusted", "trusted.x", strings.Repeat("long ", 500)) }},
	{"attribute of a device", func(t testing.TB, r *os.File) {
		must(t, unix.Mknod(at(r, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.Lsetxattr(at(r, "null"), "trusted.x", []byte("1"), 0))
	}, func(r *os.File) error { return xattrIs(r, "null", "trusted.x", "1") }},
	{"capability", func(t testing.TB, r *os.File) {
		path := write(t, r, "ping", "x")
		must(t, os.Chown(path, 5, 5))
		run(t, r, "setcap", "cap_net_raw+ep", "ping")
	}, func(r *os.File) error {
		return expect("capability", strings.TrimSpace(output(r, "getcap", "ping")), "ping cap_net_raw=ep")
	}},
	{"access list", func(t testing.TB, r *os.File) {
		write(t, r, "acl", "x")
		run(t, r, "setfacl", "-m", "u:70001:rw,g:5:---,m::rw", "acl")
	}, func(r *os.File) error {
		return expect("list", strings.Fields(output(r, "getfacl", "-nc", "acl")), strings.Fields("user::rw- user:70001:rw- group::r-- group:5:--- mask::rw- other::r--"))
	}},
	{"default access list", func(t testing.TB, r *os.File) {
		must(t, os.MkdirAll(at(r, "dacl/sub/sub"), 0o755))
		write(t, r, "dacl/file", "x")
		write(t, r, "dacl/sub/file", "x")
		run(t, r, "setfacl", "-d", "-m", "u:70001:rwx", "dacl")
	}, func(r *os.File) error {
		return errors.Join(expect("list", strings.Contains(output(r, "getfacl", "-nc", "dacl"), "default:user:70001:rwx"), true),
			expect("what is below", output(r, "getfacl", "-ncs", "dacl/file", "dacl/sub", "dacl/sub/file", "dacl/sub/sub"), ""))
	}},
	{"inode flags", func(t testing.TB, r *os.File) {
		write(t, r, "immutable", "x")
		write(t, r, "append", "x")
		must(t, os.Link(at(r, "append"), at(r, "append2")))
		must(t, os.Mkdir(at(r, "fixed"), 0o755))
		write(t, r, "fixed/file", "x")
		run(t, r, "chattr", "+i", "immutable", "fixed")
		run(t, r, "chattr", "+adA", "append")
	}, func(r *os.File) error {
		return errors.Join(flagsAre(r, "immutable", "i"), flagsAre(r, "append2", "adA"), flagsAre(r, "fixed", "i"), flagsAre(r, "fixed/file", ""))
	}},
	{"nanoseconds", func(t testing.TB, r *os.File) {
		setTime(t, write(t, r, "nano", "x"), 1_700_000_000, 123_456_789)
	}, func(r *os.File) error { return timeIs(r, "nano", 1_700_000_000, 123_456_789) }},
	{"dates before 1970", func(t testing.TB, r *os.File) {
		setTime(t, write(t, r, "old", "x"), -1_000_000_000, 999_999_999)
	}, func(r *os.File) error { return timeIs(r, "old", -1_000_000_000, 999_999_999) }},
	{"dates after 2038", func(t testing.TB, r *os.File) {
		setTime(t, write(t, r, "new", "x"), 5_000_000_000, 1)
	}, func(r *os.File) error { return timeIs(r, "new", 5_000_000_000, 1) }},
	{"time of a folder", func(t testing.TB, r *os.File) {
		must(t, os.MkdirAll(at(r, "dir/below"), 0o755))
		write(t, r, "dir/below/file", "x")
		setTime(t, at(r, "dir/below"), 1e9, 1)
		setTime(t, at(r, "dir"), 1e9, 2)
	}, func(r *os.File) error { return errors.Join(timeIs(r, "dir", 1e9, 2), timeIs(r, "dir/below", 1e9, 1)) }},
	{"dot files at the top", func(t testing.TB, r *os.File) {
		write(t, r, ".hidden", "x")
		write(t, r, "..odd", "x")
	}, func(r *os.File) error {
		_, err := lstat(r, ".hidden")
		_, err2 := lstat(r, "..odd")
		return errors.Join(err, err2)
	}},
	{"odd names", func(t testing.TB, r *os.File) {
		write(t, r, "a\nb \\", "x")
		write(t, r, "\xff\xfe", "x")
		write(t, r, strings.Repeat("n", 255), "x")
	}, func(r *os.File) error {
		var all error
		for _, name := range []string{"a\nb \\", "\xff\xfe", strings.Repeat("n", 255)} {
			_, err := lstat(r, name)
			all = errors.Join(all, err)
		}
		return all
	}},
	// The last one: what comes after it would change the time.
	{"the root folder's own", func(t testing.TB, r *os.File) {
		must(t, os.Chown(at(r, ""), 77, 78), unix.Chmod(at(r, ""), 0o1751), unix.Setxattr(at(r, ""), "user.root", []byte("r"), 0))
		setTime(t, at(r, ""), 1_234_567_890, 987)
	}, func(r *os.File) error {
		var st unix.Stat_t
		err := unix.Fstat(int(r.Fd()), &st)
		return errors.Join(err, expect("owner", [2]uint32{st.Uid, st.Gid}, [2]uint32{77, 78}), expect("mode", st.Mode&0o7777, 0o1751),
			expect("time", st.Mtim, unix.Timespec{Sec: 1_234_567_890, Nsec: 987}), xattrIs(r, "", "user.root", "r"))
	}},
}

func special(name string, kind uint32, device int) one {
	file := strings.ReplaceAll(name, " ", "-")
	return one{name, func(t testing.TB, r *os.File) {
		must(t, unix.Mknod(at(r, file), kind|0o600, device), os.Chown(at(r, file), 9, 10), unix.Chmod(at(r, file), 0o4751))
		setTime(t, at(r, file), 1e9, 5)
	}, func(r *os.File) error {
		st, err := lstat(r, file)
		return errors.Join(err, expect("type and mode", st.Mode, kind|0o4751), expect("device", st.Rdev, device),
			expect("owner", [2]uint32{st.Uid, st.Gid}, [2]uint32{9, 10}), timeIs(r, file, 1e9, 5))
	}}
}

func flagsAre(root *os.File, name, want string) error {
	f, err := os.Open(at(root, name))
	if err != nil {
		return err
	}
	defer f.Close()
	i, err := readInode(int(f.Fd()))
	return errors.Join(err, expect("flags of "+name, letters(i.flags&kept), want))
}

// TestAttributes copies a tree with all attributes from one file system to
// another, and back to a third.
func TestAttributes(t *testing.T) {
	testkit.Need(t, "setfacl", "getfacl", "setcap", "getcap", "chattr")
	source := ext4(t, 64<<20, "-b", "4096")
	for _, a := range attributes {
		a.make(t, source)
	}
	must(t, unix.Syncfs(int(source.Fd())))
	for _, a := range attributes {
		if err := a.seen(source); err != nil {
			t.Fatalf("the source has not got %s: %v", a.name, err)
		}
	}
	targets := []struct {
		name  string
		root  *os.File
		lost  string   // what is listed
		lacks []string // what it cannot have of the attributes above
	}{
		{"ext4", ext4(t, 64<<20, "-b", "4096"), "", nil},
		{"ext4 of small blocks", ext4(t, 64<<20, "-b", "1024"), "xattr trusted.x", []string{"trusted attribute"}},
		{"xfs", disk(t, 512<<20, "xfs", "mkfs.xfs", "-q"), "", nil},
		{"btrfs", disk(t, 256<<20, "btrfs", "mkfs.btrfs", "-q"), "", nil},
		{"ext4 of small inodes", ext4(t, 64<<20, "-I", "128", "-b", "4096"), "time", []string{
			"symbolic link", "fifo", "socket", "character device", "block device", "nanoseconds", "dates before 1970",
			"dates after 2038", "time of a folder", "the root folder's own",
		}},
		{"ext2", disk(t, 64<<20, "ext2", "mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096"), "preallocation", []string{"preallocation", "preallocation behind the end"}},
	}
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			report, err := Copy(context.Background(), target.root, source, Options{})
			if err != nil {
				t.Fatal(err)
			}
			must(t, unix.Syncfs(int(target.root.Fd())))
			var lost []string
			for _, l := range report.Lost {
				if !slices.Contains(lost, l.What) {
					lost = append(lost, l.What)
				}
			}
			slices.Sort(lost)
			if got := strings.Join(lost, ", "); got != target.lost {
				t.Errorf("listed as lost are %q, want %q; %+v", got, target.lost, report.Lost)
			}
			for _, a := range attributes {
				if err := a.seen(target.root); (err != nil) != slices.Contains(target.lacks, a.name) {
					t.Errorf("%s: %v", a.name, err)
				}
			}
			found, manifest := differences(t, source, target.root)
			if (len(found) > 0) != (target.lost != "") {
				t.Errorf("lost are %q and different is %v", target.lost, found)
			}
			for _, d := range Unlisted(found, report.Lost, manifest) {
				t.Errorf("differs, and is not listed as lost: %v", d)
			}
		})
	}
}

func differences(t testing.TB, a, b *os.File) ([]Difference, *Manifest) {
	t.Helper()
	source, err := ReadTree(context.Background(), a, 0, nil)
	must(t, err)
	made, err := ReadTree(context.Background(), b, 0, nil)
	must(t, err)
	return Compare(source, made), source
}
