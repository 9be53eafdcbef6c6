package image

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"upkeep"
	"upkeep/internal/image/hold"
	"upkeep/internal/lazy"
)

// In is the path of a file in an open folder. Verbs take it like any other, and work
// in that folder whatever becomes of its path meanwhile. A symbolic link that has the
// name is refused rather than followed. The folder must stay open until the work is
// closed.
func In(folder *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)
}

// inFolder is the form of such a path. A folder in /proc that is resolved would be a
// path again.
var inFolder = lazy.Regexp(`^/proc/self/fd/[0-9]+/[^/]+$`)

// realPath is a path with no symbolic link in it, or the one that [In] made.
func realPath(path string) (string, error) {
	if inFolder().MatchString(path) {
		_, err := stat(path)
		return path, err
	}
	if _, err := os.Stat(path); err != nil { // of links in a circle EvalSymlinks has words of its own alone
		return "", hold.OpenError(path, err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", hold.OpenError(path, err)
	}
	return real, nil
}

// vacant refuses to make a file where there is one, with a hint if there is any, or a folder.
func vacant(path, hint string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil // what else is wrong with it is said where the file is made
	case info.IsDir():
		return upkeep.WithHint(fmt.Errorf("%w: %s is a folder; nothing was changed", upkeep.ErrConflict, path),
			"say what the new file in it is to be called: "+filepath.Join(path, "NAME"))
	}
	err = fmt.Errorf("%w: %s exists; nothing was changed", upkeep.ErrConflict, path)
	if hint != "" {
		return upkeep.WithHint(err, hint)
	}
	return err
}

// stat looks at what a path leads to.
func stat(path string) (fs.FileInfo, error) {
	if !inFolder().MatchString(path) {
		return os.Stat(path)
	}
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%w: %s is a symbolic link, which is not followed here", upkeep.ErrRefused, path)
	}
	return info, err
}
