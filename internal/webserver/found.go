package webserver

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"time"

	"upkeep/internal/vhost"
)

// found is what a file was read to hold, and its stamp from before that.
type found struct {
	stamp stamp
	sum   string
}

// settled is how old the last change of a file must be for its stamp to tell it
// from a later change: the kernel's clock for files stands still for some
// milliseconds at a time, and two changes within them look the same.
const settled = time.Second

// holds reports whether a file is as it is to be written, and fills in what is there
// otherwise. A file that was read before, and has not been touched since, is not read
// again, but for a verification: that reads everything.
func (r *round) holds(w *write, sum string) (bool, error) {
	now := r.stamp(w.file.Path)
	if !r.verifies() && r.wasFound(w.place, now, sum) {
		return true, nil
	}
	w.rights = r.wrong(w.file.Path, now)
	onDisk, err := readPlain(w.place)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNotPlain) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.before = onDisk
	if w.rights != "" || !bytes.Equal(onDisk, w.file.Text) {
		return false, nil
	}
	r.remember(w.place, now, sum)
	return true, nil
}

// wasFound reports whether a file of a stamp was read before, and of what sum.
func (r *round) wasFound(place string, now stamp, sum string) bool {
	before, known := r.found[place]
	return known && before.stamp == now && before.sum == sum
}

func (r *round) remember(place string, now stamp, sum string) {
	if now.inode != 0 && now.moved < r.began.Add(-settled).UnixNano() {
		r.found[place] = found{now, sum}
	}
}

// holdsSum reports whether a file holds a text of a sum, and is as upkeep makes it.
func (r *round) holdsSum(path, sum string) bool {
	now := r.stamp(path)
	place := now.path
	if now.inode == 0 || r.wasFound(place, now, sum) {
		return now.inode != 0
	}
	if r.wrong(path, now) != "" {
		return false
	}
	text, err := readPlain(place)
	if err != nil || sumOf(text) != sum {
		return false
	}
	r.remember(place, now, sum)
	return true
}

// stamp is that of a file in this round. Those of the include folder were taken
// when the round began.
func (r *round) stamp(path string) stamp {
	if name, is := strings.CutPrefix(path, vhost.FolderSites+"/"); is {
		return r.included[name]
	}
	return stampOf(r.layout.Place(path))
}

// verifies reports whether the round only compares.
func (r *round) verifies() bool { return r.whole != nil && r.whole.verify }
