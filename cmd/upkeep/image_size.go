package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/image/partition"
)

func newImageGrow(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var growth image.Growth
	c := &cobra.Command{
		Use:   "grow FILE [--to SIZE | --by SIZE]",
		Short: "Make an image larger, and its file system with it",
		Long: `Make an image larger and have its file system fill it: ext2, ext3, ext4, xfs,
reiserfs, btrfs. A full image stays full. Without --to and --by the file system is
grown to fill the file as it is. What holds no file system grows with --file-only, and
what is packed does not.

--file-only grows no file system and no partition. The second copy of a GPT, whose place
is the end of the disk, is moved there (as by sgdisk -e), so that the room behind the
partitions can be used. Without --to and --by it is moved in a file that grew before.

--partition N grows one partition of an image. The last one is made to reach to the
new end, the copy of a GPT is moved there, and its file system fills it. One that has
another behind it grows within the image: --to is how large it is to be, and without
--to and --by it reaches to the next.

Where files can share blocks (xfs, btrfs), and for types that no kernel need know,
a second file is grown that takes the image's place when a check finds it in order.
Elsewhere root has the kernel grow ext3, ext4, xfs and btrfs in place, mounted where
nobody else can see it: that is quick, and the kernel keeps a journal of it. A
person who does not trust the image says --untrusted: it is not mounted then.`,
		Example: "  upkeep image grow web1.img --to 16G\n  upkeep image grow web1.img --by 2G --plan\n  upkeep image grow disk.img --partition 2 --by 2G",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			for _, name := range []string{"to", "by"} {
				if c.Flags().Changed(name) && map[string]upkeep.Size{"to": growth.To, "by": growth.By}[name] == 0 {
					return &usageError{err: fmt.Errorf("--%s must be more than 0", name)}
				}
			}
			if growth.FileOnly && growth.Partition != 0 {
				return &usageError{err: fmt.Errorf("--file-only and --partition exclude each other")}
			}
			resized := newResized(args[0], growth.Partition)
			work, err := image.Grow(args[0], growth)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string { return resized.grown(growth.FileOnly) })
		},
	}
	f := c.Flags()
	f.Var(sizeFlag{&growth.To}, "to", "the `size` that it is to have")
	f.Var(sizeFlag{&growth.By}, "by", "how `much` larger it is to be")
	f.BoolVar(&growth.FileOnly, "file-only", false, "grow no file system and no partition; the second copy of a GPT is moved to the end")
	f.BoolVar(&growth.Untrusted, "untrusted", false, "do not let the kernel mount it")
	partitionFlag(c, &growth.Partition, "grow the partition with this `number`")
	v.flags(c)
	return c
}

func newImageShrink(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var shrinking image.Shrinking
	c := &cobra.Command{
		Use:   "shrink FILE (--to SIZE | --min)",
		Short: "Make an image smaller, after its file system",
		Long: `Make the file system of an image smaller, and then the image: ext2, ext3, ext4,
btrfs (as root), reiserfs. It is done to a second file that takes the image's place
when a check finds it in order: where files can share blocks that needs next to no
room, elsewhere as much as the image takes now.

--partition N shrinks one partition of an image. Behind the last one the image ends
then, and --to is the size of the image; of one that has another behind it, --to is how
large it is to be, and the image keeps its size.

--min is as small as resize2fs or the kernel makes it, which can leave much free, most
of all where it was made for many more inodes than it has files: upkeep image copy to a
new image takes only what the files need. xfs cannot be made smaller in any other way.`,
		Example: "  upkeep image shrink web1.img --min\n  upkeep image shrink web1.img --to 4G --plan",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if shrinking.Min == c.Flags().Changed("to") {
				return &usageError{err: fmt.Errorf("want --to SIZE or --min, and not both")}
			}
			resized := newResized(args[0], shrinking.Partition)
			work, err := image.Shrink(args[0], shrinking)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, resized.shrunk)
		},
	}
	f := c.Flags()
	f.Var(sizeFlag{&shrinking.To}, "to", "the `size` that it is to have")
	f.BoolVar(&shrinking.Min, "min", false, "as small as its file system can be")
	f.BoolVar(&shrinking.Untrusted, "untrusted", false, "do not let the kernel mount it")
	partitionFlag(c, &shrinking.Partition, "shrink the partition with this `number`")
	v.flags(c)
	return c
}

// sameSizes reports whether neither an image nor what is in it has another size.
func sameSizes(before, after image.Description) bool {
	if before.Size != after.Size || (before.FS == nil) != (after.FS == nil) || before.FS != nil && before.FS.Size != after.FS.Size {
		return false
	}
	if before.Table == nil || after.Table == nil {
		return before.Table == after.Table
	}
	at := func(d image.Description) (all [][3]int64) {
		for _, p := range d.Table.Partitions {
			all = append(all, [3]int64{int64(p.Number), p.Offset, p.Length})
		}
		return all
	}
	return slices.Equal(at(before), at(after))
}

// resized tells how large an image is, beside how large it was.
type resized struct {
	file          string
	partition     int
	before, after image.Description
	err           error
}

func newResized(file string, partition int) *resized {
	r := &resized{file: file, partition: partition}
	r.before, r.err = image.Outline(file, partition)
	return r
}

// same looks at the image again, and reports whether all sizes are as they were.
func (r *resized) same() bool {
	var err error
	r.after, err = image.Outline(r.file, r.partition)
	r.err = errors.Join(r.err, err)
	return r.err == nil && sameSizes(r.before, r.after)
}

func (r *resized) nothing(to string) string {
	return fmt.Sprintf("there was nothing to %s: %s stays as it is, %s (%s)", to, r.file, r.after.Size.About(), inBytes(r.after.Size))
}

func (r *resized) shrunk() string {
	if r.same() {
		return r.nothing("shrink")
	}
	return r.sizes("shrank")
}

func (r *resized) grown(fileOnly bool) string {
	same := r.same()
	text := r.sizes("grew")
	switch {
	case same && fileOnly:
		return fmt.Sprintf("moved the second copy of the GPT of %s to its end; its partitions are as they were", r.file)
	case same:
		return r.nothing("grow")
	case !fileOnly || r.after.Table == nil:
	case r.after.Table.Kind == partition.GPT && len(r.after.Table.Problems) == 0:
		text += "; the second copy of its GPT is at its end, and its partitions are as they were"
	default:
		text += "; its partitions are as they were"
	}
	return text
}

// inBytes is a size to the last byte.
func inBytes(size upkeep.Size) string { return upkeep.Plural(int64(size), "byte", "bytes") }

// sizes says how large it is after it was changed.
func (r *resized) sizes(did string) string {
	d := r.after
	if r.err != nil {
		return fmt.Sprintf("%s %s", did, r.file)
	}
	text := fmt.Sprintf("%s %s to %s (%s), %s", did, r.file, d.Size.About(), inBytes(d.Size), d.Kind)
	if d.Table != nil {
		for _, p := range d.Table.Partitions {
			if p.Number == r.partition {
				text = fmt.Sprintf("%s %s to %s (%s); the image has %s (%s), %s",
					did, place(r.file, r.partition), upkeep.Size(p.Length).About(), inBytes(upkeep.Size(p.Length)), d.Size.About(), inBytes(d.Size), d.Kind)
			}
		}
	}
	if d.FS != nil {
		text += fmt.Sprintf("; its %s has %s free", d.FS.Type, upkeep.Size(d.FS.Free).About())
	}
	return text
}
