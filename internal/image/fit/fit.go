// Package fit finds the smallest file system that holds a given tree, and says why
// it is that small. What the tree takes is counted in one walk; what the file
// system takes of itself is not modelled but read from one that is made for trial,
// in memory, by the program that will make the real one.
package fit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
)

// A Fit is a file system for a tree.
type Fit struct {
	Size    upkeep.Size        `json:"size"`
	Options filesystem.Options `json:"-"`
	// Inodes is how many the file system has, and Needs how many of them the tree
	// takes; 0 where they are made as they are needed.
	Inodes int64 `json:"inodes,omitempty"`
	Needs  int64 `json:"needs,omitempty"`
	// Why are sentences, for people.
	Why []string `json:"why"`
}

// minJournaled is the number of blocks below which mke2fs makes no journal.
const minJournaled = 2048

// maxTrials bounds how many file systems are made for trial.
const maxTrials = 24

var errNone = errors.New("no size was found that holds the tree; choose one")

// step is what sizes are rounded to.
const step = 64 << 10

// Find finds the smallest file system of a type. What the options say stands; what
// they leave open (blocks, inodes, the share kept for root) is chosen. Spare is how
// many percent more bytes and inodes there are to be than the tree takes.
func Find(ctx context.Context, u *Usage, name string, o filesystem.Options, spare float64) (Fit, error) {
	typ, err := filesystem.Find(name)
	if err != nil {
		return Fit{}, err
	}
	if spare < 0 || spare > 1000 || math.IsNaN(spare) {
		return Fit{}, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "spare", Value: fmt.Sprint(spare), Rule: "must be from 0 to 1000 percent"}}}
	}
	if err := u.holdable(name); err != nil {
		return Fit{}, err
	}
	search := search{ctx: ctx, typ: typ, options: o, usage: u, spare: spare}
	switch name {
	case filesystem.Ext2, filesystem.Ext3, filesystem.Ext4:
		return search.ext()
	case filesystem.XFS, filesystem.Btrfs, filesystem.VFAT:
		return search.fit()
	}
	return Fit{}, fmt.Errorf("%w: how much of %s a tree takes cannot be foreseen here; choose a size", upkeep.ErrRefused, name)
}

// search is one search for a size.
type search struct {
	ctx     context.Context
	typ     filesystem.Type
	options filesystem.Options
	usage   *Usage
	spare   float64
}

// ext tries blocks of 4K and, where much is to be saved by them, of 1K.
func (s *search) ext() (Fit, error) {
	if s.options.Reserved == nil {
		s.options.Reserved = new(float64) // a tree that fits needs no share for root
	}
	if _, counted := s.usage.ext[extKind{s.options.BlockSize, false}]; s.options.BlockSize != 0 && !counted {
		return Fit{}, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "block-size", Value: fmt.Sprint(s.options.BlockSize), Rule: "must be 1024, 2048 or 4096 for a size to be found"}}}
	}
	if s.options.BlockSize != 0 || s.options.Profile == "small" {
		if s.options.BlockSize == 0 {
			s.options.BlockSize = 1024
		}
		return s.fit()
	}
	s.options.BlockSize = 4096
	large, err := s.fit()
	if err != nil {
		return Fit{}, err
	}
	small := *s
	small.options.BlockSize = 1024
	// Blocks of 1K are slow for large files; a tree of small ones halves with them.
	if need(&small) > int64(large.Size)*4/5 {
		return large, nil
	}
	fit, err := small.fit()
	if err != nil || fit.Size > large.Size*4/5 {
		return large, nil //nolint:nilerr // there is one that works
	}
	fit.Why = append(fit.Why, fmt.Sprintf("blocks of 1K, since with blocks of 4K it would take %s", large.Size.About()))
	return fit, nil
}

// need is what the tree takes, with what is to be spare.
func need(s *search) int64 {
	return grown(s.usage.bytes(s.typ.Name, s.options), s.spare)
}

func grown(n int64, percent float64) int64 {
	return n + int64(math.Ceil(float64(n)*percent/100))
}

// fit makes file systems for trial until one has enough room: what it takes of
// itself grows slowly with its size, so that a few do.
func (s *search) fit() (Fit, error) {
	if s.typ.Name == filesystem.VFAT {
		return s.vfat()
	}
	o, inodes := s.options, s.usage.Inodes+extReserved
	chosen := isExt(s.typ.Name) && o.Inodes == 0 && o.Profile == ""
	if chosen {
		o.Inodes = grown(inodes, s.spare)
	}
	if o.Inodes != 0 && o.Inodes < inodes {
		return Fit{}, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "inodes", Value: fmt.Sprint(o.Inodes), Rule: fmt.Sprintf("must be %d at least: the tree has %s, and the file system keeps %d", inodes, upkeep.Plural(s.usage.Inodes, "file or folder", "files and folders"), extReserved)}}}
	}
	var failed error
	var floor int64 // none could be made in it
	want := need(s)
	size := max(int64(s.typ.Min), roundUp(want))
	for range maxTrials {
		t, err := s.try(size, o)
		if err != nil && isExt(s.typ.Name) && s.ctx.Err() == nil {
			// It is too small even for what is made in an empty one: mostly for the tables of
			// inodes, and no inode is larger than a block.
			if failed == nil {
				failed, floor = err, size
				size += roundUp(max(o.Inodes*o.BlockSize, size/20))
			} else {
				size += roundUp(size / 20)
			}
			continue
		}
		if err != nil {
			return Fit{}, err
		}
		if floor != 0 {
			least := max(floor+step, roundUp(want+t.info.InodeBytes)) // now that they are known
			if floor = 0; least < size {
				size = least
				continue
			}
		}
		// What it takes of itself does not get less as it grows: the least size is at
		// least what is missing larger, and the first that is enough is the least.
		missing := want - t.usable
		switch {
		case !isExt(s.typ.Name):
		case s.typ.Name != filesystem.Ext2 && t.info.JournalBytes == 0:
			missing = max(missing, minJournaled*o.BlockSize-size, step)
		case t.inodes >= inodes:
		case chosen:
			// Each group has a number of them that can be divided by eight, which mke2fs
			// makes of what is asked for by leaving some out.
			o.Inodes += inodes - t.inodes
			continue
		default:
			missing = max(missing, (inodes-t.inodes)*size/max(t.inodes, 1))
		}
		if missing <= 0 {
			return s.explain(size, o, t, want), nil
		}
		size += roundUp(missing)
	}
	return Fit{}, errors.Join(errNone, failed)
}

func roundUp(n int64) int64 { return (n + step - 1) / step * step }

func isExt(name string) bool {
	return name == filesystem.Ext2 || name == filesystem.Ext3 || name == filesystem.Ext4
}

// trial is what an empty file system of some size offers.
type trial struct {
	usable int64
	inodes int64 // with those that it keeps for itself
	info   fsinfo.Info
}

// try makes a file system in memory and reads what is free.
func (s *search) try(size int64, o filesystem.Options) (trial, error) {
	fd, err := unix.MemfdCreate("trial", unix.MFD_CLOEXEC)
	if err != nil {
		return trial{}, fmt.Errorf("making a file in memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), "a trial of "+s.typ.Name)
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return trial{}, fmt.Errorf("making a file of %s in memory: %w", upkeep.Size(size).About(), err)
	}
	if err := s.typ.Make(s.ctx, file, size, o); err != nil {
		return trial{}, fmt.Errorf("for trial: %w", err)
	}
	info, err := fsinfo.Read(file, size)
	if err != nil {
		return trial{}, fmt.Errorf("reading a file system made for trial: %w", err)
	}
	t := trial{usable: info.Free, inodes: info.Inodes, info: info}
	if isExt(s.typ.Name) {
		if s.options.Reserved != nil && *s.options.Reserved > 0 {
			t.usable -= info.Reserved
		}
	} else {
		t.inodes = 0 // they are made of free blocks
	}
	t.usable -= withheld(s.typ.Name, size, info)
	return t, nil
}

// explain says what the size is made of.
func (s *search) explain(size int64, o filesystem.Options, t trial, want int64) Fit {
	f := Fit{Size: upkeep.Size(size), Options: o}
	u := s.usage
	about := func(n int64) string { return upkeep.Size(n).About() }
	f.Why = append(f.Why, fmt.Sprintf("%s, %s and %s take %s of files and %s of folders, maps and attributes",
		upkeep.Plural(u.Files, "file", "files"), upkeep.Plural(u.Folders, "folder", "folders"), upkeep.Plural(u.Others, "other entry", "other entries"), about(u.data(s.typ.Name, s.options)), about(max(u.bytes(s.typ.Name, s.options)-u.data(s.typ.Name, s.options), 0))))
	own := size - t.usable
	what := fmt.Sprintf("%s takes %s for itself", s.typ.Name, about(own))
	if t.info.JournalBytes > 0 {
		what += fmt.Sprintf(", of which %s are its journal", about(t.info.JournalBytes))
	}
	if t.info.InodeBytes > 0 {
		what += fmt.Sprintf(" and %s tables of inodes", about(t.info.InodeBytes))
	}
	f.Why = append(f.Why, what)
	if isExt(s.typ.Name) {
		f.Inodes, f.Needs = t.inodes, u.Inodes
		f.Why = append(f.Why, fmt.Sprintf("%d inodes, of which the tree takes %d and the file system %d", t.inodes, u.Inodes, extReserved))
	}
	if s.spare > 0 {
		f.Why = append(f.Why, fmt.Sprintf("%g%% spare of what the tree takes, in bytes and in inodes", s.spare))
	}
	if size <= int64(s.typ.Min) {
		f.Why = append(f.Why, fmt.Sprintf("%s is the least that %s can be", s.typ.Min, s.typ.Name))
	} else if left := t.usable - want; left > step {
		f.Why = append(f.Why, fmt.Sprintf("%s stay free beyond that", about(left)))
	}
	return f
}
