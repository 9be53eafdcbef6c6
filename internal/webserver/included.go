package webserver

import (
	"context"
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

// included are the files of the include folder that the server reads, by name.
// Whoever edits one of them, or puts one there, does so untested: Apache ends at
// a reload that it cannot read, and all sites with it.
type included map[string]stamp

// look takes stamps of what the server would read now. A folder that went, be it
// at a purge after which sites come again, is made anew.
func (a *Applier) look() (included, error) {
	now, err := a.lookInto()
	if errors.Is(err, os.ErrNotExist) {
		for _, dir := range a.folders() {
			if err := ownFolder(dir, 0o755); err != nil {
				return nil, err
			}
		}
		now, err = a.lookInto()
	}
	if err != nil {
		return nil, fmt.Errorf("reading the include folder: %w", err)
	}
	return now, nil
}

// lookInto takes the stamps. A link of root's, as people keep them in such folders,
// stands for the file that it leads to, unless it has a name of upkeep's.
func (a *Applier) lookInto() (included, error) {
	now, err := stampsIn(a.o.Layout.Include)
	for name, s := range now {
		if s.mode&unix.S_IFMT != unix.S_IFLNK || vhost.OwnFile(name) {
			continue
		}
		if file, is := followed(s.path); is {
			now[name] = file
		}
	}
	return now, err
}

// stampsIn takes the stamps of what is read in a folder, by name from its
// descriptor: twice for each change, each of thousands of paths would be walked.
func stampsIn(folder string) (included, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }() // nothing was written
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	now := make(included, len(names))
	for _, name := range names {
		if isRead(name) {
			now[name] = stampAt(int(dir.Fd()), name, folder+"/"+name, unix.AT_SYMLINK_NOFOLLOW)
		}
	}
	return now, nil
}

// odd refuses what is no regular file in the include folder. A server's own test
// waits at a FIFO for somebody who writes to it, and so would the server; behind most
// links is what others may change after the test. So neither is started.
func (i included) odd() error {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(i)) {
		if s := i[name]; s.inode != 0 && s.mode&unix.S_IFMT != unix.S_IFREG {
			all = append(all, fmt.Sprintf("%s is %s", s.path, kindOf(s.mode)))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return upkeep.WithHint(fmt.Errorf("the web server would read what is no regular file: %s", strings.Join(all, ", ")),
		"move it away, or, for a link, have it and the file, and all folders and links on the way, belong to root and be writable by root alone; until then no change reaches the web server")
}

// placed notes what upkeep itself put into the include folder, or took out.
func (a *Applier) placed(place string) {
	if filepath.Dir(place) != a.o.Layout.Include || a.included == nil {
		return
	}
	if s := stampOf(place); s.inode != 0 {
		a.included[base(place)] = s
	} else {
		delete(a.included, base(place))
	}
}

// beside lists the files of others in the include folder, by full path. One of
// upkeep's that somebody has edited is none of them.
func (a *Applier) beside(now included) []string {
	known := a.manifest.paths()
	var others []string
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if path := filepath.Join(a.o.Layout.Include, name); !known[vhost.FolderSites+"/"+name] && !made(path) {
			others = append(others, path)
		}
	}
	return others
}

// lookAgain is the last thing before a reload. What was edited while the test
// went on is tested now, and taken out of the server's way where it is upkeep's.
func (r *round) lookAgain(ctx context.Context) error {
	now, err := r.look()
	if err != nil || maps.Equal(now, r.included) {
		return err
	}
	r.o.Logger.Warn("somebody changed the include folder while it was being tested; it is tested again")
	return r.quarantine(ctx)
}

// notOurs says that a file of somebody else's is in the way. It is left where it
// is: it may be all that there is of it.
func (a *Applier) notOurs(name string, e *TestError) error {
	return upkeep.WithHint(fmt.Errorf("%s, which is not upkeep's, does not pass the web server's test: %s", filepath.Join(a.o.Layout.Include, name), e.Message),
		"fix it or move it away; until then no change reaches the web server, which would end at a reload")
}

// exists reports whether there is something at a path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
