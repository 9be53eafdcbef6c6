package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/image/pack"
)

func newImagePack(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var o image.PackOptions
	c := &cobra.Command{
		Use:   "pack FILE OUT.zst",
		Short: "Pack an image into a file that zstd -d restores",
		Long: `Pack an image into a new file. Plain "zstd -d" restores it; "upkeep image unpack"
does so faster, proves each piece by its SHA-256, and makes the image sparse or full as
it was. The image is only read, and must not be changed meanwhile.

Blocks that its file system does not use, where deleted files still lie, are packed as
zeros. Where it cannot be told what is used (changes wait in a journal, the file system
was cut off or is not known) everything is packed, and a note says so. So it is done
with each partition of an image that has some.

FILE may also be a file of gzip, xz, zstd or qcow2 that holds an image.`,
		Example: "  upkeep image pack web1.img web1.zst\n  upkeep image pack old.qcow2 old.zst --plan",
		Args:    exactly("FILE", "OUT.zst"),
		RunE: func(c *cobra.Command, args []string) error {
			if name := otherFormat(args[1]); name != "" {
				return &usageError{err: fmt.Errorf("%s would be a zstd file with the name of %s", args[1], name), hint: "upkeep image pack " + args[0] + " " + args[1] + ".zst"}
			}
			work, err := image.Pack(args[0], args[1], o)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string {
				r, _ := work.Result.(image.Packing)
				text := fmt.Sprintf("packed %s, %s with %s of data, into %s of %s", place(args[0], o.Partition), r.Size.About(), r.Data.About(), args[1], r.Packed.About())
				if r.Dropped > 0 {
					text += fmt.Sprintf("; %s in free blocks were left out", r.Dropped.About())
				}
				return text
			})
		},
	}
	c.Flags().BoolVar(&o.All, "all", false, "pack free blocks too, with what lies in them")
	partitionFlag(c, &o.Partition, "pack the partition with this `number`, as an image of its own")
	v.flags(c)
	return c
}

// otherFormat is what a name says that the file is, where that is not what pack makes.
func otherFormat(path string) string {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".gz":
		return pack.Gzip.File()
	case ".xz":
		return pack.XZ.File()
	case ".qcow2":
		return pack.QCOW2.File()
	case ".bz2":
		return "a bzip2 file"
	case ".zip":
		return "a zip file"
	}
	return ""
}

func newImageUnpack(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var sparse, full bool
	var part rangeFlag
	var partition int
	c := &cobra.Command{
		Use:   "unpack IN OUT",
		Short: "Unpack an image from a file, or from a web server",
		Long: `Unpack an image into a new file, sparse or full as it was packed. Each piece is held
against its SHA-256 before it is written, and the file appears when it is whole.

IN may be an http:// or https:// address. What is cut off is asked for again; a command
that was killed goes on where it was when it is given again. --range takes a part of the
image, of which only what is needed is read.

IN may also be a file of gzip, xz, zstd or qcow2.`,
		Example: "  upkeep image unpack web1.zst web1.img\n  upkeep image unpack https://images.example.com/web1.zst web1.img\n" +
			"  upkeep image unpack web1.zst boot.img --range 1M:512M",
		Args: exactly("IN", "OUT"),
		RunE: func(c *cobra.Command, args []string) error {
			o := image.Unpacking{Part: part.part, Partition: partition}
			switch {
			case sparse && full:
				return &usageError{err: fmt.Errorf("--full and --sparse exclude each other")}
			case sparse:
				o.Kind = upkeep.ImageSparse
			case full:
				o.Kind = upkeep.ImageFull
			}
			work, err := image.Unpack(c.Context(), args[0], args[1], o)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string {
				r, _ := work.Result.(image.Unpacked)
				text := fmt.Sprintf("unpacked %s to %s: %s, %s, %s of data", place(args[0], partition), args[1], r.Size.About(), r.Kind, r.Data.About())
				if r.Resumed > 0 {
					text += fmt.Sprintf("; %s were there already", r.Resumed.About())
				}
				return text
			})
		},
	}
	c.Flags().BoolVar(&sparse, "sparse", false, "make it sparse, whatever it was")
	c.Flags().BoolVar(&full, "full", false, "allocate all of it, whatever it was")
	c.Flags().Var(&part, "range", "take `OFFSET:LENGTH` of the image, such as 1M:512M")
	partitionFlag(c, &partition, "take the partition with this `number`, as an image of its own")
	c.MarkFlagsMutuallyExclusive("range", "partition")
	v.flags(c)
	return c
}

// rangeFlag is a flag with a part of an image.
type rangeFlag struct{ part *pack.Range }

func (f *rangeFlag) String() string { return "" }
func (f *rangeFlag) Type() string   { return "range" }

func (f *rangeFlag) Set(text string) error {
	offset, length, found := strings.Cut(text, ":")
	if !found {
		return fmt.Errorf("want OFFSET:LENGTH, such as 1M:512M")
	}
	from, err := upkeep.ParseSize(offset)
	if err != nil {
		return err
	}
	n, err := upkeep.ParseSize(length)
	if err != nil {
		return err
	}
	f.part = &pack.Range{Offset: int64(from), Length: int64(n)}
	return nil
}
