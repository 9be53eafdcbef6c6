package webserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
)

// tending is what was found of folders: they are root's, and no customer's.
type tending struct {
	drift []Drift
	amiss map[string]error
}

func (t *tending) cannot(site string, err error) {
	if t.amiss == nil {
		t.amiss = map[string]error{}
	}
	t.amiss[site] = errors.Join(t.amiss[site], err)
}

// tend looks whether the folders that upkeep has made are as it makes them, and has
// them so, but in a verification. A missing one is made when it is needed.
func (r *round) tend() {
	if r.whole.partial {
		return
	}
	for _, dir := range r.folders() {
		r.tendFolder("", dir)
	}
	logs, err := unix.Open(r.layout.Logs, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		r.whole.cannot("", fmt.Errorf("opening %s: %w", r.layout.Logs, err))
		return
	}
	defer func() { _ = unix.Close(logs) }() // nothing was written
	for _, c := range r.live() {
		var paths []string
		for _, f := range c.files {
			paths = append(paths, f.Path)
		}
		r.tendOwn(c.site, paths)
		if c.input != nil {
			r.tendLogs(logs, c.site, c.input.UID)
		}
	}
	for _, w := range r.unchanged {
		r.tendOwn(w.Name, r.manifest.Sites[w.Name].paths())
		r.tendLogs(logs, w.Name, w.UID)
	}
}

// tendOwn tends the folders that a site has to itself.
func (r *round) tendOwn(site string, paths []string) {
	seen := ""
	for _, path := range paths {
		if strings.Count(path, "/") < 2 {
			continue
		}
		if dir := filepath.Dir(r.layout.Place(path)); dir != seen {
			r.tendFolder(site, dir)
			seen = dir
		}
	}
}

// tendFolder takes care that a folder is upkeep's and that nobody else writes to it.
// Who may read in it may have been chosen.
func (r *round) tendFolder(site, dir string) {
	s := stampOf(dir)
	mode := s.mode & 0o7777
	switch {
	case s.inode == 0, s.mode&unix.S_IFMT == unix.S_IFDIR && int(s.uid) == os.Geteuid() && mode&0o022 == 0:
	case s.mode&unix.S_IFMT != unix.S_IFDIR:
		r.whole.cannot(site, fmt.Errorf("%s is %s, not a folder", dir, kindOf(s.mode)))
	default:
		r.giveBack(site, dir, s, mode&^0o022, -1)
	}
}

// logMode is the mode of a site's log folder.
const logMode = 0o2750

// tendLogs takes care of a site's log folder. One of another group may be that of the
// account that had the name before, whose visitors are not handed on with it.
func (r *round) tendLogs(logs int, site string, uid int) {
	s := stampAt(logs, site, "", unix.AT_SYMLINK_NOFOLLOW)
	group := -1
	if os.Geteuid() == 0 && uid > 0 {
		group = uid
	}
	if s.inode == 0 || s.mode == unix.S_IFDIR|logMode && int(s.uid) == os.Geteuid() && (group < 0 || int(s.gid) == group) {
		return
	}
	dir := r.layout.LogFolder(site)
	if s.mode&unix.S_IFMT != unix.S_IFDIR {
		r.whole.cannot(site, fmt.Errorf("its log folder %s is %s", dir, kindOf(s.mode)))
		return
	}
	if group >= 0 && s.gid != 0 && int(s.gid) != group {
		r.whole.cannot(site, upkeep.WithHint(fmt.Errorf("its log folder %s is of group %d and not of %d, and may have another account's logs in it", dir, s.gid, group),
			fmt.Sprintf("if they are this site's: chgrp -R %d %s; if not, move it away, and a change of the site makes a new one", group, dir)))
		group = -1
	}
	if s.mode&0o7777 != logMode || int(s.uid) != os.Geteuid() || group >= 0 && int(s.gid) != group {
		r.giveBack(site, dir, s, logMode, group)
	}
}

// giveBack notes that a folder is not as upkeep made it and, but in a verification,
// has it so: by its descriptor, and itself alone.
func (r *round) giveBack(site, dir string, s stamp, mode uint32, group int) {
	have := -1
	if group >= 0 {
		have = int(s.gid)
	}
	d := Drift{Site: site, Path: dir, HaveRights: rightsText(s.mode&0o7777, s.uid, have), WantRights: rightsText(mode, uint32(os.Geteuid()), group)}
	if !r.whole.verify {
		if err := setRights(dir, mode, group); err != nil {
			r.whole.cannot(site, fmt.Errorf("putting %s right, which has %s and not %s: %w", dir, d.HaveRights, d.WantRights, err))
			return
		}
	}
	r.whole.drift = append(r.whole.drift, d)
}

func setRights(dir string, mode uint32, group int) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// The owner first: it could change the mode again, and giving away clears bits.
	return errors.Join(unix.Fchown(fd, os.Geteuid(), group), unix.Fchmod(fd, mode), unix.Close(fd))
}
