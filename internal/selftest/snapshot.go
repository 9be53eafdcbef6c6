package selftest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// view is everything outside the tenant's own at one time: files by path, and
// declared things.
type view struct{ files, rows map[string]string }

// look takes a view.
func (w *World) look(ctx context.Context) (view, error) {
	v := view{files: map[string]string{}}
	declared, err := w.Declared(ctx)
	if err != nil {
		return v, fmt.Errorf("reading what is declared: %w", err)
	}
	v.rows = w.others(declared)
	for _, dir := range append([]string{w.Outside, w.Layout.Home, w.Layout.Include, w.Layout.Pages, w.Layout.Auth, w.Layout.Logs}, w.Watched...) {
		if err := w.walk(dir, v.files); err != nil {
			return v, fmt.Errorf("looking at %s: %w", dir, err)
		}
	}
	return v, nil
}

func (w *World) walk(dir string, found map[string]string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while it was looked at, as temporary files do
		}
		if err != nil {
			return err
		}
		if path != dir && w.tenants(path) {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		text, err := describe(path, strings.HasPrefix(path, w.Layout.Logs))
		if err != nil || text == "" {
			return err
		}
		found[path] = text
		return nil
	})
}

// tenants reports whether a path is the tenant's own: in its home, or made by
// the agent for a site of its.
func (w *World) tenants(path string) bool {
	for _, dir := range []string{w.Layout.Include, w.Layout.Pages, w.Layout.Auth, w.Layout.Logs, w.Layout.Home} {
		if name, below := strings.CutPrefix(path, dir+string(filepath.Separator)); below {
			// "50-evil.test.conf", "90-998-evil.test.conf", "evil"
			name = strings.TrimLeft(name, "0123456789-")
			top, _, _ := strings.Cut(name, string(filepath.Separator))
			return w.is(top) || strings.HasPrefix(name, ".") || // temporary files begin with a dot
				slices.ContainsFunc(w.mine, func(mine string) bool { return strings.HasPrefix(name, mine) })
		}
	}
	return false
}

// describe is a file's type, mode, owner and content. Logs grow: of them only
// what they are counts.
func describe(path string, log bool) (string, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%s %d:%d", info.Mode(), st.Uid, st.Gid)
	switch {
	case info.Mode().IsRegular() && !log:
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %d links, %d bytes %x", text, st.Nlink, len(content), sha256.Sum256(content)), nil
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		return text + " -> " + target, nil
	}
	return text, nil
}

// compare tells what changed from one view to the next.
func (v view) compare(after view) []error {
	var broken []error
	for what, pair := range map[string][2]map[string]string{"file": {v.files, after.files}, "declared": {v.rows, after.rows}} {
		for _, name := range slices.Sorted(maps.Keys(union(pair[0], pair[1]))) {
			before, now := pair[0][name], pair[1][name]
			switch {
			case before == now:
			case before == "":
				broken = append(broken, fmt.Errorf("%s %s appeared: %.200s", what, name, now))
			case now == "":
				broken = append(broken, fmt.Errorf("%s %s went", what, name))
			default:
				broken = append(broken, fmt.Errorf("%s %s changed from %.200s to %.200s", what, name, before, now))
			}
			if len(broken) >= maxBroken {
				return broken
			}
		}
	}
	return broken
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func ownerOf(path string) (uid, gid int, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, 0, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), nil
}
