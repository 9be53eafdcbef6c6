// Package filesystem has, for each type of file system that images may hold, how it
// is made, checked, grown and shrunk by the programs that are trusted with it. What
// changes an image is given a second file to work on; it need not be careful.
package filesystem

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"upkeep"
	"upkeep/internal/image/allocation"
	"upkeep/internal/lazy"
)

// Names of types.
const (
	Ext2     = "ext2"
	Ext3     = "ext3"
	Ext4     = "ext4"
	XFS      = "xfs"
	Btrfs    = "btrfs"
	ReiserFS = "reiserfs"
	VFAT     = "vfat"
	Swap     = "swap"
)

// Progress is told how far a step has come, in thousandths.
type Progress func(done, total int64)

// Type is a type of file system.
type Type struct {
	Name string
	// Min is the smallest that can be made.
	Min upkeep.Size
	// MinShrink is the smallest that it can be shrunk to, whatever it holds.
	MinShrink upkeep.Size
	// Programs are what is run for it.
	Programs []string

	// Options are what can be asked of a new one; see [Options.validate].
	options []string
	make    func(ctx context.Context, file *os.File, size int64, o Options) error
	// makeOf makes one that holds what is in a folder. Nil where no program can.
	makeOf func(ctx context.Context, file *os.File, size int64, o Options, folder *os.File) error
	// check looks and changes nothing.
	check func(ctx context.Context, file *os.File, progress Progress) (Verdict, error)
	// repair repairs what it can, in place. Nil where no program can be trusted to.
	repair func(ctx context.Context, file *os.File, progress Progress) (Verdict, error)
	// prepare does what grow and shrink want to be done before, and says what was repaired.
	// Nil where they want nothing.
	prepare func(ctx context.Context, file *os.File, progress Progress) (mended string, err error)
	// grow fills the file. Nil where only the kernel can, mounted.
	grow func(ctx context.Context, file *os.File) error
	// growMounted fills the device that is mounted, which the kernel does in steps of
	// which each is whole. Nil where it cannot.
	growMounted func(dir *os.File, size int64) error
	// shrink makes the file system at most as large as asked, or as small as it can be
	// with size 0. Nil where no program can.
	shrink func(ctx context.Context, file *os.File, size int64) error
	// shrinkMounted is shrink for types of which only the kernel can, mounted.
	shrinkMounted func(dir *os.File, size int64) error
	// undoable is the type with programs that keep in a file what they write over. Nil
	// where none do.
	undoable func(undo, on *os.File, most int64) Type
	// unchecked is the type that grows and shrinks without a check before. Nil where none
	// is made.
	unchecked func() Type
	// fromCopy is the type with programs that read a copy of the superblock. Nil where
	// none do.
	fromCopy func(superCopy) Type
	// CheckWrites is that the program that checks writes what is there already: it
	// wants a file that it may write to.
	CheckWrites bool
	// NoShrink says why there is no way to shrink it, and the way round.
	NoShrink string
	NoGrow   string
	// NoMin says why it must be said how small it is to be.
	NoMin string
	// NoRepair says what to do instead where it cannot be repaired.
	NoRepair string
}

// types is the registry, in the order in which help shows them.
var types = []Type{ext(Ext2), ext(Ext3), ext(Ext4), xfs, btrfs, reiserfs, vfat, swap}

// Names lists the types.
func Names() []string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.Name
	}
	return names
}

// Find is the type with a name.
func Find(name string) (Type, error) {
	at := slices.IndexFunc(types, func(t Type) bool { return t.Name == name })
	if at < 0 {
		return Type{}, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "type", Value: name, Rule: "must be one of " + strings.Join(Names(), ", ")}}}
	}
	return types[at], nil
}

// Options are what is asked of a new file system. Zero values leave the choice to
// the program.
type Options struct {
	// Profile is a set of choices by name; see [Profiles].
	Profile string
	// Inodes is how many files it can hold.
	Inodes int64
	// BlockSize is in bytes.
	BlockSize int64
	Label     string
	UUID      string
	// Reserved is the share that only root can fill, in percent.
	Reserved *float64
}

// Profiles of new file systems, with what each is for.
var profiles = map[string]string{
	"small":    "many small files: blocks of 1K, an inode for each 4K",
	"news":     "very many files: an inode for each 4K",
	"large":    "few large files: an inode for each 1M",
	"xen-2010": "guests of that time: no feature that a kernel 2.6.18 does not know",
}

// Profiles lists the profiles by name.
func Profiles() []string { return slices.Sorted(maps.Keys(profiles)) }

// Validate checks options against what the type can do.
func (t Type) Validate(size int64, o Options) error {
	var fields []upkeep.FieldError
	add := func(field, value, rule string) {
		fields = append(fields, upkeep.FieldError{Field: field, Value: value, Rule: rule})
	}
	able := func(option string) bool { return slices.Contains(t.options, option) }
	if size < int64(t.Min) {
		add("size", upkeep.Size(size).String(), fmt.Sprintf("must be at least %s for %s", t.Min, t.Name))
	}
	if o.Profile != "" {
		if _, known := profiles[o.Profile]; !known {
			add("profile", o.Profile, "must be one of "+strings.Join(Profiles(), ", "))
		} else if !able("profile " + o.Profile) {
			add("profile", o.Profile, "has no meaning for "+t.Name)
		}
	}
	if o.Inodes != 0 && !able("inodes") {
		add("inodes", fmt.Sprint(o.Inodes), t.Name+" has no fixed number of inodes")
	} else if o.Inodes < 0 || o.Inodes > 1<<32-1 {
		add("inodes", fmt.Sprint(o.Inodes), "must be from 1 to 4294967295")
	}
	if o.BlockSize != 0 && !able("block-size") {
		add("block-size", fmt.Sprint(o.BlockSize), "cannot be chosen for "+t.Name)
	} else if o.BlockSize != 0 && (o.BlockSize < 512 || o.BlockSize > 65536 || o.BlockSize&(o.BlockSize-1) != 0) {
		add("block-size", fmt.Sprint(o.BlockSize), "must be a power of 2 from 512 to 65536")
	}
	if o.Reserved != nil && !able("reserved") {
		add("reserved", fmt.Sprint(*o.Reserved), t.Name+" reserves nothing for root")
	} else if o.Reserved != nil && !(*o.Reserved >= 0 && *o.Reserved <= 50) {
		add("reserved", fmt.Sprint(*o.Reserved), "must be from 0 to 50 percent")
	}
	if rule := t.labelRule(o.Label); rule != "" {
		add("label", o.Label, rule)
	}
	if rule := t.uuidRule(o.UUID); rule != "" {
		add("uuid", o.UUID, rule)
	}
	if len(fields) > 0 {
		return &upkeep.InvalidError{Fields: fields}
	}
	return nil
}

// maxLabel is the longest label, in bytes, by the types' own definitions.
var maxLabel = map[string]int{Ext2: 16, Ext3: 16, Ext4: 16, XFS: 12, Btrfs: 255, ReiserFS: 15, VFAT: 11, Swap: 15}

func (t Type) labelRule(label string) string {
	switch {
	case len(label) > maxLabel[t.Name]:
		return fmt.Sprintf("must be at most %d bytes for %s", maxLabel[t.Name], t.Name)
	case strings.ContainsFunc(label, func(r rune) bool { return r < 0x20 || r == 0x7f || r == utf8.RuneError }):
		return "must be text without control characters"
	case strings.HasPrefix(label, "-"):
		return "must not begin with a dash"
	case t.Name == VFAT && strings.ContainsAny(label, `*?.,;:/\|+=<>[]"`):
		return "must not hold any of *?.,;:/\\|+=<>[]\" for vfat"
	case t.Name == XFS && strings.Contains(label, " "):
		return "must not hold a space for xfs"
	case t.Name == Btrfs && strings.Contains(label, "/"):
		return "must not hold a slash for btrfs"
	}
	return ""
}

var (
	uuidForm   = lazy.Regexp(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	volumeForm = lazy.Regexp(`^[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}$`)
)

func (t Type) uuidRule(id string) string {
	switch {
	case id == "":
	case t.Name == VFAT && !volumeForm().MatchString(id):
		return "must be a volume ID such as 1A2B-3C4D for vfat"
	case t.Name != VFAT && !uuidForm().MatchString(id):
		return "must be a UUID such as 6b1f0c9e-2d1a-4c55-9f7e-0a1b2c3d4e5f"
	}
	return ""
}

// Make makes a new file system that fills a file of a size. The file must hold
// nothing but zeros.
func (t Type) Make(ctx context.Context, file *os.File, size int64, o Options) error {
	if err := t.Validate(size, o); err != nil {
		return err
	}
	if err := t.make(ctx, file, size, o); err != nil {
		return fmt.Errorf("making %s: %w", t.Name, ranOut(file, err))
	}
	return nil
}

// ranOut adds to the failure of a program that the host has no more room for its file,
// which not all programs say.
func ranOut(file *os.File, err error) error {
	if err == nil {
		return nil
	}
	if host := allocation.Exhausted(file); host != nil && !errors.Is(err, host) {
		return fmt.Errorf("%w: %w", err, host)
	}
	return err
}

// Undoable reports whether [Type.KeepingUndo] can be asked for.
func (t Type) Undoable() bool { return t.undoable != nil }

// KeepingUndo is the type with programs that keep in a file, which is empty, what they
// write over before they do: package e2undo puts it back. With on they work on a device in
// place of the file: resize2fs cuts a file off itself, and that cannot be put back.
// When they want to keep more than so many bytes, they are killed before they write.
func (t Type) KeepingUndo(undo, on *os.File, most int64) Type { return t.undoable(undo, on, most) }

// FromCopy is the type with programs that check and repair by a copy of the superblock,
// in a block of blocks of a size, as long as the primary one is lost.
func (t Type) FromCopy(block, blockSize int64) Type {
	if t.fromCopy == nil {
		return t
	}
	return t.fromCopy(superCopy{block, blockSize})
}

// MakesOf reports whether [Type.MakeOf] can be asked for.
func (t Type) MakesOf() bool { return t.makeOf != nil }

// MakeOf is Make with what is in a folder. No kernel takes part; what of it is kept
// differs by program.
func (t Type) MakeOf(ctx context.Context, file *os.File, size int64, o Options, folder *os.File) error {
	if err := t.Validate(size, o); err != nil {
		return err
	}
	if err := t.makeOf(ctx, file, size, o, folder); err != nil {
		return fmt.Errorf("making %s of a folder: %w", t.Name, ranOut(file, err))
	}
	return nil
}

// Check looks whether all is in order, and changes nothing.
func (t Type) Check(ctx context.Context, file *os.File, progress Progress) (Verdict, error) {
	return t.check(ctx, file, progress)
}

// Repairs reports whether [Type.Repair] can be asked for.
func (t Type) Repairs() bool { return t.repair != nil }

// Repair repairs what can be repaired, in place.
func (t Type) Repair(ctx context.Context, file *os.File, progress Progress) (Verdict, error) {
	verdict, err := t.repair(ctx, file, progress)
	if verdict.Hint == repairHint { // which was just tried
		verdict.Hint = RescueHint
	}
	return verdict, err
}

// Proven is that a check finds nothing to repair; done is what was done before.
func (t Type) Proven(ctx context.Context, file *os.File, done string, progress Progress) error {
	verdict, err := t.check(ctx, file, progress)
	if err != nil {
		return fmt.Errorf("checking after it was %s: %w", done, err)
	}
	if !verdict.Clean {
		return fmt.Errorf("after it was %s a check finds: %s", done, verdict.Brief())
	}
	return nil
}

// GrowsOffline reports whether [Type.Grow] can be asked for.
func (t Type) GrowsOffline() bool { return t.grow != nil }

// GrowsMounted reports whether [Type.GrowMounted] can be asked for.
func (t Type) GrowsMounted() bool { return t.growMounted != nil }

// ShrinksOffline reports whether [Type.Shrink] can be asked for.
func (t Type) ShrinksOffline() bool { return t.shrink != nil }

// ShrinksMounted reports whether [Type.ShrinkMounted] can be asked for.
func (t Type) ShrinksMounted() bool { return t.shrinkMounted != nil }

// Prepare comes before [Type.Grow] and [Type.Shrink]: it carries out what waits in the
// journal and repairs what needs no decision, and says what. What needs one is an error.
func (t Type) Prepare(ctx context.Context, file *os.File, progress Progress) (mended string, err error) {
	if t.prepare == nil {
		return "", nil
	}
	mended, err = t.prepare(ctx, file, progress)
	return mended, ranOut(file, err)
}

// Grow makes it fill its file.
func (t Type) Grow(ctx context.Context, file *os.File) error {
	return ranOut(file, t.grow(ctx, file))
}

// Unchecked is the type that grows and shrinks without a check before, where there is
// such: for a copy that a check proves afterwards, and that is thrown away when it does
// not.
func (t Type) Unchecked() (Type, bool) {
	if t.unchecked == nil {
		return t, false
	}
	return t.unchecked(), true
}

// GrowMounted makes it fill a device of a size, in bytes; dir is open in it.
func (t Type) GrowMounted(dir *os.File, size int64) error { return t.growMounted(dir, size) }

// Shrink makes it at most as large as size, or as small as it can be with 0.
func (t Type) Shrink(ctx context.Context, file *os.File, size int64) error {
	return t.shrink(ctx, file, size)
}

// ShrinkMounted is Shrink for a mounted one; dir is open in it.
func (t Type) ShrinkMounted(dir *os.File, size int64) error { return t.shrinkMounted(dir, size) }

// errNotEnough is how programs' many words for "it does not fit" are told apart
// from other failures.
var errNotEnough = errors.New("it cannot be made so small")
