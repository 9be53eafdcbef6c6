package webserver

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"time"
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

// holds reports whether a file holds a text, and what it holds otherwise; nil
// when it is not there. A file that was read before, and has not been touched
// since, is not read again, but for a verification: that reads everything.
func (r *round) holds(place string, text []byte, sum string) (is bool, onDisk []byte, err error) {
	now := r.stamp(place)
	if !r.verifies() && r.wasFound(place, now, sum) {
		return true, nil, nil
	}
	onDisk, err = os.ReadFile(place)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	if !bytes.Equal(onDisk, text) {
		return false, onDisk, nil
	}
	r.remember(place, now, sum)
	return true, nil, nil
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

// holdsSum reports whether a file holds a text of a sum.
func (r *round) holdsSum(place, sum string) bool {
	now := r.stamp(place)
	if now.inode == 0 || r.wasFound(place, now, sum) {
		return now.inode != 0
	}
	text, err := os.ReadFile(place)
	if err != nil || sumOf(text) != sum {
		return false
	}
	r.remember(place, now, sum)
	return true
}

// stamp is that of a file in this round. Those of the include folder were taken
// when the round began.
func (r *round) stamp(place string) stamp {
	if filepath.Dir(place) == r.layout.Include {
		return r.included[base(place)]
	}
	return stampOf(place)
}

// verifies reports whether the round only compares.
func (r *round) verifies() bool { return r.whole != nil && r.whole.verify }
