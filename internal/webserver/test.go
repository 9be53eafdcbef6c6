package webserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/vhost"
)

// A test reads what is staged and, when nothing is known of the rest, all files
// that are in place. What the server's own configuration was made of when all
// files last passed is remembered, and what the include folder had in it; as long
// as both are the same, the files that did not change need not be read again.

// fingerprint tells whether files were changed.
type fingerprint struct {
	files []stamp
}

type stamp struct {
	path    string
	inode   uint64
	size    int64
	changed int64 // of the content, in nanoseconds
	moved   int64 // any change
	// mode has the type and the permissions, as stat(2) does.
	mode, uid, gid uint32
	// names is the sum of what a folder has in it, in place of its times.
	names [sha256.Size]byte
}

// stampOf is the stamp of what has a path itself: a link's own.
func stampOf(path string) stamp {
	return stampAt(unix.AT_FDCWD, path, path, unix.AT_SYMLINK_NOFOLLOW)
}

// stampAt is the stamp of a name in an open folder; where the path ends is for the
// caller to know.
func stampAt(folder int, name, path string, flags int) stamp {
	s := stamp{path: path}
	var stat unix.Stat_t
	if err := unix.Fstatat(folder, name, &stat, flags); err == nil {
		s.inode, s.size, s.changed, s.moved = stat.Ino, stat.Size, stat.Mtim.Nano(), stat.Ctim.Nano()
		s.mode, s.uid, s.gid = stat.Mode, stat.Uid, stat.Gid
	}
	return s
}

func fingerprintOf(paths []string) fingerprint {
	var f fingerprint
	for _, path := range paths {
		s := stampAt(unix.AT_FDCWD, path, path, 0) // the operator's may be links
		if s.mode&unix.S_IFMT == unix.S_IFDIR {
			s = s.ofNames()
		}
		f.files = append(f.files, s)
	}
	return f
}

// ofNames is the stamp of a folder by the names in it, which is all that a pattern
// sees. By its time it would be another after each reload where the server has its
// pid file beside its configuration: that is written anew under a name of its own
// and renamed.
func (s stamp) ofNames() stamp {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return s
	}
	sum := sha256.New()
	for _, entry := range entries {
		fmt.Fprintf(sum, "%s\x00", entry.Name())
	}
	s.size, s.changed, s.moved = 0, 0, 0
	sum.Sum(s.names[:0])
	return s
}

func (f fingerprint) equal(o fingerprint) bool {
	return len(f.files) > 0 && slices.Equal(f.files, o.files)
}

// paths are the files that a fingerprint is of, and the folders they are in:
// those may be included by pattern.
func withFolders(files []string) []string {
	all := slices.Clone(files)
	for _, file := range files {
		all = append(all, filepath.Dir(file))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// survey finds out what the server's own configuration is, unless that and the
// include folder are as they were when all files passed their test.
func (r *round) survey(ctx context.Context) error {
	now, err := r.look()
	if err != nil {
		return err
	}
	if err := now.odd(); err != nil {
		if r.verifies() { // which runs nothing over it, and has more to tell
			r.tested, r.included, r.blocked = fingerprint{}, now, err
			return nil
		}
		return err
	}
	if len(r.tested.files) > 0 && fingerprintOf(r.testedPaths()).equal(r.tested) && maps.Equal(now, r.included) {
		return nil
	}
	return r.surveyAnew(ctx, now)
}

func (a *Applier) testedPaths() []string {
	var paths []string
	for _, s := range a.tested.files {
		paths = append(paths, s.path)
	}
	return paths
}

// surveyAnew takes the stamps before anything reads the files: a change in between
// makes the next round test again.
func (a *Applier) surveyAnew(ctx context.Context, now included) error {
	a.tested, a.included = fingerprint{}, now
	beside := a.beside(now)
	names, files, err := a.o.Server.Foreign(ctx, beside)
	if err != nil && len(beside) > 0 {
		// If it is for those, the test says which, and the names are of no account:
		// nothing is reloaded as long as they are there.
		names, files, err = a.o.Server.Foreign(ctx, nil)
	}
	if err != nil {
		var hint *upkeep.HintError
		if errors.As(err, &hint) {
			return fmt.Errorf("nothing was changed: %w", err)
		}
		return upkeep.WithHint(err, "nothing was changed; fix the web server's own configuration first")
	}
	_, first := a.o.Server.(interface{ firstWins() })
	a.foreign = newForeign(names, first)
	a.count(func(s *Stats) { s.Foreign = names })
	files = slices.DeleteFunc(files, func(file string) bool { return filepath.Dir(file) == a.o.Layout.Include })
	a.survived = fingerprintOf(withFolders(files))
	return nil
}

// test has the server's program read what is staged. Sites that it objects to
// fail, by themselves.
func (r *round) test(ctx context.Context) error {
	if len(r.tested.files) > 0 {
		return r.testStaged(ctx, nil)
	}
	others, err := r.inPlace()
	if err != nil {
		return err
	}
	if err := r.testStaged(ctx, others); err != nil {
		return err
	}
	r.tested = r.survived
	return nil
}

// testStaged tests the staged files beside the others.
func (r *round) testStaged(ctx context.Context, others []string) error {
	var staged []*change
	for _, c := range r.live() {
		if slices.ContainsFunc(c.writes, func(w write) bool { return isSite(w.file.Path) }) {
			staged = append(staged, c)
		}
	}
	try := func(set []*change) error { return r.try(ctx, set, others) }
	err := try(staged)
	var refused *TestError
	if err == nil || !errors.As(err, &refused) {
		return err
	}
	if err = try(nil); err != nil && others != nil {
		// What was there before does not pass any more.
		if err = r.quarantine(ctx); err == nil {
			if others, err = r.inPlace(); err == nil {
				err = try(nil)
			}
		}
	}
	if err != nil {
		return upkeep.WithHint(fmt.Errorf("the web server's configuration does not pass its test, whatever is changed: %w", err),
			"nothing was changed; fix that first")
	}
	return culprits(staged, try, func(c *change, e *TestError) {
		err := fmt.Errorf("the web server does not accept it: %s", e.Message)
		if strings.Contains(e.Message, "server_names_hash") {
			c.fail(upkeep.WithHint(err, longNames))
			c.field = c.longestName()
			return
		}
		c.fail(err)
		for _, w := range c.writes {
			if base(w.file.Path) == e.File {
				c.field = r.o.Server.Renderer().Field(w.file.Text, e.Line)
			}
		}
	})
}

// longNames says what nginx needs for names that are longer than it expects.
const longNames = "take a shorter name, or have the operator of the server raise server_names_hash_bucket_size in the http block of nginx.conf (128 is enough for names of about 100 characters)"

// longestName is the field of the site's longest name.
func (c *change) longestName() string {
	longest := slices.MaxFunc(append(slices.Clone(c.names), c.site), func(a, b string) int { return len(a) - len(b) })
	if longest == c.site || longest == "www."+c.site || longest == "*."+c.site {
		return "name"
	}
	return "aliases"
}

// namedAtOnce is how many culprits are believed to be those that the program
// names; each costs a test of all.
const namedAtOnce = 5

// culprits finds the smallest set without which the others pass, and reports each
// with what was said of it. The program names the first file that it stumbles
// over, which is right nearly always; halving finds the others.
func culprits[T interface{ holds(file string) bool }](all []T, try func([]T) error, report func(T, *TestError)) error {
	rest := slices.Clone(all)
	for range namedAtOnce {
		err := try(rest)
		var refused *TestError
		if err == nil {
			return nil
		}
		if !errors.As(err, &refused) {
			return err
		}
		at := slices.IndexFunc(rest, func(c T) bool { return refused.File != "" && c.holds(refused.File) })
		if at < 0 {
			break
		}
		report(rest[at], refused)
		rest = slices.Delete(rest, at, at+1)
	}
	good, err := halve(rest, try, report)
	if err != nil {
		return err
	}
	// Each may be fine alone and two not beside each other.
	err = try(good)
	var refused *TestError
	if errors.As(err, &refused) {
		for _, c := range good {
			report(c, refused)
		}
		return nil
	}
	return err
}

func halve[T any](set []T, try func([]T) error, report func(T, *TestError)) (good []T, err error) {
	if len(set) == 0 {
		return nil, nil
	}
	err = try(set)
	var refused *TestError
	switch {
	case err == nil:
		return set, nil
	case !errors.As(err, &refused):
		return nil, err
	case len(set) == 1:
		report(set[0], refused)
		return nil, nil
	}
	left, err := halve(set[:len(set)/2], try, report)
	if err != nil {
		return nil, err
	}
	right, err := halve(set[len(set)/2:], try, report)
	return append(left, right...), err
}

func (c *change) holds(file string) bool {
	return slices.ContainsFunc(c.files, func(f vhost.File) bool { return base(f.Path) == file })
}

// inPlace lists the files that the server reads and that no change of this round
// replaces or removes.
func (r *round) inPlace() ([]string, error) {
	concerned := map[string]bool{}
	for _, c := range append(r.live(), r.common) {
		for _, f := range c.files {
			concerned[base(f.Path)] = true
		}
		for _, path := range c.removes {
			concerned[base(path)] = true
		}
	}
	names, err := readable(r.layout.Include)
	if err != nil {
		return nil, err
	}
	if r.whole != nil {
		for _, stray := range r.whole.strays {
			concerned[base(stray)] = true
		}
	}
	others := []string{} // not nil, which means that they are left out
	for _, name := range names {
		if !concerned[name] {
			others = append(others, filepath.Join(r.layout.Include, name))
		}
	}
	return others, nil
}

// readable lists what "*.conf" matches: not what begins with a dot.
func readable(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, entry := range entries {
		if isRead(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

func isRead(name string) bool { return strings.HasSuffix(name, ".conf") && name[0] != '.' }

// try tests the shared files, the staged ones of a set, and others.
func (r *round) try(ctx context.Context, set []*change, others []string) error {
	paths := map[string]string{}
	for _, path := range others {
		paths[base(path)] = path
	}
	for _, c := range append(slices.Clone(set), r.common) {
		for _, f := range c.files {
			if isSite(f.Path) {
				paths[base(f.Path)] = r.layout.Place(f.Path)
			}
		}
		for _, w := range c.writes {
			if isSite(w.file.Path) {
				paths[base(w.file.Path)] = w.temp
			}
		}
	}
	if others != nil {
		r.addOld(set, paths)
	}
	r.count(func(s *Stats) {
		s.Tests++
		if others != nil {
			s.FullTests++
		}
	})
	return r.testFiles(ctx, paths)
}

// addOld adds, for changes that are not in the set, what they would leave as it is.
func (r *round) addOld(set []*change, paths map[string]string) {
	for _, c := range r.changes {
		if slices.Contains(set, c) {
			continue
		}
		for _, w := range c.writes {
			// It may have been taken aside in between.
			if isSite(w.file.Path) && w.before != nil && exists(w.place) {
				paths[base(w.file.Path)] = w.place
			}
		}
		for _, path := range c.removes {
			if place := r.layout.Place(path); isSite(path) && c.input != nil && exists(place) {
				paths[base(path)] = place
			}
		}
	}
}

// testFiles has the server's program test files by the names that they will have:
// the order is that of those.
func (a *Applier) testFiles(ctx context.Context, paths map[string]string) error {
	files := make([]string, 0, len(paths))
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		files = append(files, paths[name])
	}
	return a.o.Server.Test(ctx, files)
}
