package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/image/filesystem"
)

func newImageCopy(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var m makingFlags
	var copying image.Copying
	var full, sparse bool
	c := &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy what an image or a folder holds into another, with every attribute",
		Long: `Copy all files of an image or a folder into a new image, an image that exists, or a
folder, from any type of file system to any that the kernel mounts: owners by number,
modes, hard links, devices, holes and blocks allocated ahead, extended attributes,
access lists, capabilities, flags, times to the nanosecond, and the root folder's own.
Nothing of another file system is entered. What the target cannot hold is listed.

A new image gets the type of its source's (ext4 for a folder), and is as large as
the files need, and --spare more, where --size does not say. It has no name until it
is whole; an image that exists is changed on a copy that takes its place; a folder
is filled in place; one that is missing is an error where its name ends in a slash, and
becomes an image where it does not. As root images are mounted, where nobody else can see them.
ReiserFS is read without the kernel, which knows it no more.

Without root, or with --untrusted, nothing is mounted: images of all types that "image ls"
reads are read into an empty folder, and a folder becomes a new ext image. What is not
kept then is said before it begins.

With --verify source and copy are both read again, the copy after it was mounted
anew, and compared by all attributes and SHA-256.`,
		Example: "  upkeep image copy old.img new.img --fs xfs --size 20G --verify\n  upkeep image copy /srv/debian web1.img --spare 50\n  upkeep image copy web1.img /mnt/web1/",
		Args:    exactly("SRC", "DST"),
		RunE: func(c *cobra.Command, args []string) error {
			if full && sparse {
				return &usageError{err: fmt.Errorf("--full and --sparse exclude each other")}
			}
			if full {
				copying.Kind = upkeep.ImageFull
			}
			if sparse {
				copying.Kind = upkeep.ImageSparse
			}
			copying.Options = m.read(c)
			work, err := image.Copy(args[0], args[1], copying)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string { return copiedText(args[0], args[1], copying, work.Result) })
		},
	}
	f := c.Flags()
	f.Var(sizeFlag{&copying.Size}, "size", "`size` of the image that is made (default: the least that holds the files, and --spare)")
	f.StringVar(&copying.FS, "fs", "", "`type` of the file system that is made: "+strings.Join(filesystem.Names(), ", "))
	must(c.RegisterFlagCompletionFunc("fs", cobra.FixedCompletions(filesystem.Names(), cobra.ShellCompDirectiveNoFileComp)))
	f.Float64Var(&copying.Spare, "spare", 10, "`percent` more bytes and inodes than the files take")
	f.BoolVar(&sparse, "sparse", false, "the image that is made takes room as it is written to (the default)")
	f.BoolVar(&full, "full", false, "the image that is made takes all its room now")
	f.BoolVar(&copying.Verify, "verify", false, "compare the copy with its source, every attribute and all content")
	f.BoolVar(&copying.Merge, "merge", false, "the target may hold files; those that the source has too are replaced")
	f.BoolVar(&copying.LeaveOut, "leave-out", false, "leave out what the target cannot hold, such as links on vfat, and list it")
	f.BoolVar(&copying.Untrusted, "untrusted", false, "do not have the kernel mount the image")
	partitionFlag(c, &copying.Partition, "copy the partition with this `number` of SRC")
	f.IntVar(&copying.Into, "to-partition", 0, "copy into the partition with this `number` of DST, an image that exists")
	m.add(c)
	v.flags(c)
	return c
}

func copiedText(src, dst string, c image.Copying, result any) string {
	copied, _ := result.(image.Copied)
	bytes := copied.Bytes.About()
	if copied.Bytes == 0 {
		bytes = "0 bytes" // which has no unit
	}
	held := upkeep.Plural(copied.Entries, "entry", "entries") + ", " + bytes
	if copied.Entries <= 1 { // the root
		held = "an empty folder"
	}
	text := fmt.Sprintf("copied %s to %s: %s", place(src, c.Partition), place(dst, c.Into), held)
	switch {
	case c.Into != 0:
		text += fmt.Sprintf(", in the %s that it has", copied.Size.About())
	case copied.Size != 0:
		text += fmt.Sprintf(", in an image of %s", copied.Size.About())
	}
	if len(copied.Lost) > 0 {
		text += fmt.Sprintf("; %s could not be carried", upkeep.Plural(len(copied.Lost), "attribute", "attributes"))
	}
	if copied.Verified {
		text += "; compared with its source, and the same"
		if len(copied.Lost) > 0 {
			text += " but for that"
		}
	}
	return text
}

// forFlags are the flags of the oracle.
type forFlags struct {
	folder string
	spare  float64
}

func (o *forFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&o.folder, "for", "", "choose size, blocks and inodes so that it holds what is in this `folder`")
	c.Flags().Float64Var(&o.spare, "spare", 10, "with --for: `percent` more bytes and inodes than the files take")
}

// create chooses for an image that is made.
func (o *forFlags) create(ctx context.Context, v *imageVerb, creation *image.Creation) error {
	why, err := creation.For(ctx, o.folder, o.spare)
	if err != nil {
		return err
	}
	return v.because(fmt.Sprintf("chosen: %s", creation.Size.About()), why)
}

// remake chooses for a file system in an image that exists.
func (o *forFlags) remake(ctx context.Context, v *imageVerb, file string, remaking *image.Remaking) error {
	size, err := image.SizeOf(file, remaking.Partition)
	if err != nil {
		return err
	}
	why, err := remaking.For(ctx, o.folder, size, o.spare)
	if err != nil {
		return err
	}
	return v.because("chosen: blocks and inodes", why)
}

// because tells people why something was chosen, beside what the command prints.
func (v *imageVerb) because(what string, why []string) error {
	lines := []string{what + ", since"}
	for _, reason := range why {
		lines = append(lines, "  "+upkeep.Printable(reason))
	}
	_, err := fmt.Fprintln(v.err, strings.Join(lines, "\n"))
	return err
}
