package zone

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// staged is a new file, whole on disk, that has not taken its place yet.
type staged struct {
	temp string // "" once it has taken its place
	old  include
}

// stage writes the text to a temporary file beside the one that it will
// replace, with the owner, mode and access list of that one. A new file gets
// the owner of its directory and mode 0644, since named must be able to read it.
func stage(old include, text []byte, now time.Time) (_ *staged, err error) {
	dir, name := filepath.Split(old.path)
	file, err := os.CreateTemp(dir, tempPattern(name))
	if err != nil {
		return nil, writing(old.path, err)
	}
	s := &staged{temp: file.Name(), old: old}
	err = s.fill(file, text, now)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		s.drop()
		return nil, writing(old.path, err)
	}
	return s, nil
}

func (s *staged) fill(file *os.File, text []byte, now time.Time) error {
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := s.attributes(file); err != nil {
		return err
	}
	if err := s.date(now); err != nil {
		return err
	}
	return file.Sync()
}

// writing wraps an error of writing a file, with advice where the cause has a
// plain remedy.
func writing(path string, err error) error {
	whole := fmt.Errorf("writing %s: %w", path, err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return upkeep.WithHint(whole, "make room on the file system of "+filepath.Dir(path)+"; the files of before are still whole and in place")
	case errors.Is(err, syscall.EROFS):
		return upkeep.WithHint(whole, "the file system is mounted read-only; the files of before are still in place")
	case errors.Is(err, fs.ErrPermission):
		return upkeep.WithHint(whole, "upkeep must be able to write in "+filepath.Dir(path)+" and to give files to their owner: run it as root or as the owner of the directory")
	}
	return whole
}

func tempPattern(name string) string { return "." + name + ".upkeep-*" }

// attributes gives the file the owner and mode that it must have.
func (s *staged) attributes(file *os.File) error {
	like, mode := s.old.info, fs.FileMode(0o644)
	if s.old.found {
		mode = like.Mode().Perm()
	} else {
		info, err := os.Stat(filepath.Dir(s.old.path))
		if err != nil {
			return err
		}
		like = info
	}
	if owner, is := like.Sys().(*syscall.Stat_t); is {
		if err := keepOwner(file, int(owner.Uid), int(owner.Gid), mode); err != nil {
			return err
		}
	}
	if err := file.Chmod(mode); err != nil {
		return err
	}
	if !s.old.found {
		return nil
	}
	return keepLabels(s.old.path, file)
}

// keepOwner gives the file to the owner of the one that it replaces. Without
// the privilege to do so, a file that everybody may read is as good; any other
// would be one that named cannot read.
func keepOwner(file *os.File, uid, gid int, mode fs.FileMode) error {
	err := file.Chown(uid, gid)
	if errors.Is(err, fs.ErrPermission) {
		if groupErr := file.Chown(-1, gid); groupErr == nil && mode&0o040 != 0 || mode&0o004 != 0 {
			return nil
		}
	}
	return err
}

// fileLabels are the extended attributes that decide who may read a file: the
// POSIX access list and the SELinux label.
var fileLabels = [...]string{"system.posix_acl_access", "security.selinux"}

// keepLabels copies the labels of the file that is replaced. A file system or
// kernel that has no such thing is no error.
func keepLabels(from string, to *os.File) error {
	value := make([]byte, 64<<10)
	for _, label := range fileLabels {
		n, err := unix.Getxattr(from, label, value)
		if err != nil {
			continue // there is none to keep
		}
		if err := unix.Fsetxattr(int(to.Fd()), label, value[:n], 0); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("keeping %s: %w", label, err)
		}
	}
	return nil
}

// date sets the modification time, which must be later than that of the file
// replaced: named reloads a zone only if one of its files is newer than it was
// (zone_touched in lib/dns/zone.c), and a stepped clock or a restored backup
// would make it older.
func (s *staged) date(now time.Time) error {
	if s.old.found && !now.After(s.old.info.ModTime()) {
		now = s.old.info.ModTime().Add(time.Second)
	}
	return os.Chtimes(s.temp, now, now)
}

// commit puts the file in its place.
func (s *staged) commit() error {
	if err := os.Rename(s.temp, s.old.path); err != nil {
		return writing(s.old.path, err)
	}
	s.temp = ""
	return nil
}

// drop removes the temporary file of a change that did not come about.
func (s *staged) drop() {
	if s != nil && s.temp != "" {
		_ = os.Remove(s.temp) // swept at the next publish otherwise
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	defer d.Close()
	// EINVAL: a file system that cannot sync a directory.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}

// pair is the two include files of one directory as found on disk.
type pair struct{ soa, ips include }

func readPair(dir string) (p pair, err error) {
	if p.ips, err = readInclude(filepath.Join(dir, IPsInclude)); err != nil {
		return p, err
	}
	p.soa, err = readInclude(filepath.Join(dir, SOAInclude))
	return p, err
}

// whole reports whether both files are upkeep's and were written together.
func (p pair) whole() bool { return p.soa.goesWith(p.ips) }

// replace writes both files: the addresses first and the serial last, so that
// whoever finds the new serial finds the new addresses too. Both are whole on
// disk before the first takes its place, so a full disk changes neither.
func (p pair) replace(ips, soa []byte, now time.Time) error {
	newIPs, err := stage(p.ips, ips, now)
	if err != nil {
		return err
	}
	defer newIPs.drop()
	newSOA, err := stage(p.soa, soa, now)
	if err != nil {
		return err
	}
	defer newSOA.drop()
	if err := newIPs.commit(); err != nil {
		return err
	}
	if err := newSOA.commit(); err != nil {
		return err
	}
	for _, dir := range slices.Compact([]string{filepath.Dir(p.ips.path), filepath.Dir(p.soa.path)}) {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// previousSuffix marks the files of the last generation that named is known to
// have loaded, to which a failed publish goes back.
const previousSuffix = ".previous"

// keep makes hard links to both files under their previous names, so that they
// outlive the next write. Nothing is copied.
func (p pair) keep() error {
	for _, f := range []include{p.ips, p.soa} {
		if err := relink(f.path, f.path+previousSuffix); err != nil {
			return fmt.Errorf("keeping the previous %s: %w", f.path, err)
		}
	}
	return nil
}

// relink makes link another name of path, replacing what it was before. Where
// there can be no second name (another user's file under fs.protected_hardlinks,
// a file system without links) it makes a copy.
func relink(path, link string) error {
	temp := filepath.Join(filepath.Dir(link), "."+filepath.Base(link)+".upkeep-link")
	if err := removed(temp); err != nil {
		return err
	}
	if err := os.Link(path, temp); err != nil {
		return copyAside(path, link)
	}
	// A rename between two names of one file does nothing and leaves both.
	if err := os.Rename(temp, link); err != nil {
		return err
	}
	return removed(temp)
}

func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func copyAside(path, to string) error {
	from, err := readInclude(path)
	if err != nil {
		return err
	}
	old, err := readInclude(to)
	if err != nil {
		return err
	}
	copied, err := stage(include{path: to, info: old.info, found: old.found}, from.text, from.info.ModTime())
	if err != nil {
		return err
	}
	defer copied.drop()
	return copied.commit()
}

// previous reads the generation before, if a whole one was kept.
func (p pair) previous() (old pair, kept bool) {
	ips, err := readInclude(p.ips.path + previousSuffix)
	if err != nil {
		return pair{}, false
	}
	soa, err := readInclude(p.soa.path + previousSuffix)
	if err != nil {
		return pair{}, false
	}
	old = pair{soa: soa, ips: ips}
	return old, old.whole()
}

// foundKept is how many copies of files that somebody else wrote are kept.
const foundKept = 3

// saveForeign keeps a copy of each file that somebody else wrote or changed and
// returns the paths of the copies.
func (p pair) saveForeign(now time.Time) (copies []string, err error) {
	for _, f := range []include{p.ips, p.soa} {
		if !f.foreign() {
			continue
		}
		name := fmt.Sprintf("%s.found-%s", f.path, now.UTC().Format("20060102T150405.000"))
		if err := relink(f.path, name); err != nil {
			return copies, fmt.Errorf("keeping a copy of %s, which somebody else has changed: %w", f.path, err)
		}
		copies = append(copies, name)
		old, _ := filepath.Glob(f.path + ".found-*") // a fixed pattern below a given path
		slices.Sort(old)
		for _, path := range old[:max(0, len(old)-foundKept)] {
			_ = os.Remove(path) // one copy too many does no harm
		}
	}
	return copies, nil
}

// sweep removes temporary files that a killed process left. The caller holds
// the lock of the directory, so nobody is at work on them.
func (p pair) sweep() {
	for _, f := range []include{p.ips, p.soa} {
		dir, name := filepath.Split(f.path)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return
		}
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), "."+name+".upkeep-") {
				_ = os.Remove(filepath.Join(dir, entry.Name()))
			}
		}
	}
}

// touch makes both files newer than the given time and than they are.
func (p pair) touch(after time.Time) error {
	for _, f := range []include{p.ips, p.soa} {
		if f.found && f.info.ModTime().After(after) {
			after = f.info.ModTime()
		}
	}
	when := after.Add(time.Second)
	for _, f := range []include{p.ips, p.soa} {
		if err := os.Chtimes(f.path, when, when); err != nil {
			return fmt.Errorf("dating %s: %w", f.path, err)
		}
	}
	return nil
}

// lockDir waits for the lock that publishers of other processes take too. It is
// on the directory itself and leaves no file behind.
func lockDir(dir string, done <-chan struct{}) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, upkeep.WithHint(fmt.Errorf("opening include_dir: %w", err), "make the directory, owned by the user that named runs as")
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = d.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		select {
		case <-done:
			err = errors.New("another process is writing there")
		case <-time.After(5 * time.Millisecond):
			continue
		}
		break
	}
	_ = d.Close() // nothing was written
	return nil, fmt.Errorf("locking %s: %w", dir, err)
}

// sameText reports whether the files hold exactly these texts.
func (p pair) sameText(ips, soa []byte) bool {
	return p.ips.found && p.soa.found && bytes.Equal(p.ips.text, ips) && bytes.Equal(p.soa.text, soa)
}
