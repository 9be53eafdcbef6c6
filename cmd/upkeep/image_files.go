package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/image"
)

const filesLong = `
IMAGE is a raw image, one that upkeep packed, or the http:// address of a packed one, of
which only what is needed is read. It is neither mounted nor unpacked, and root is not
needed. File systems: ext2, ext3, ext4, xfs, btrfs, reiserfs, vfat.`

const filesPlan = "read those blocks of its file system, or chunks of a packed one, that are needed; nothing is mounted"

func newImageLs(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var partition int
	c := &cobra.Command{
		Use:     "ls IMAGE [PATH]",
		Short:   "List a folder of an image, also of a packed one",
		Long:    "List a folder of an image." + filesLong,
		Example: "  upkeep image ls web1.zst /etc\n  upkeep image ls web1.img / -o json",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if v.plan {
				return v.looking("ls", args[0], filesPlan)
			}
			files, err := a.files(c, args[0], partition)
			if err != nil {
				return err
			}
			defer files.Close()
			name := "/"
			if len(args) > 1 {
				name = args[1]
			}
			list, err := files.List(name)
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(list)
			}
			t := newTable("MODE", "UID", "GID", "SIZE", "CHANGED", "PATH")
			for _, f := range list {
				shown := f.Path
				if f.Link != "" {
					shown += " -> " + f.Link
				}
				t.add(f.Mode, fmt.Sprint(f.UID), fmt.Sprint(f.GID), fmt.Sprint(f.Size), f.Changed, shown)
			}
			return t.write(a.out)
		},
	}
	partitionFlag(c, &partition, "look into the partition with this `number`")
	v.planFlag(c)
	return c
}

func newImageCat(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var partition int
	c := &cobra.Command{
		Use:     "cat IMAGE PATH",
		Short:   "Print a file of an image, also of a packed one",
		Long:    "Print a file of an image." + filesLong,
		Example: "  upkeep image cat web1.zst /etc/fstab",
		Args:    exactly("IMAGE", "PATH"),
		RunE: func(c *cobra.Command, args []string) error {
			if v.plan {
				return v.looking("cat", args[0], filesPlan)
			}
			files, err := a.files(c, args[0], partition)
			if err != nil {
				return err
			}
			defer files.Close()
			return files.Cat(c.Context(), args[1], a.out)
		},
	}
	partitionFlag(c, &partition, "look into the partition with this `number`")
	v.planFlag(c)
	return c
}

func (a *app) files(c *cobra.Command, src string, partition int) (*image.Files, error) {
	files, err := image.OpenFiles(c.Context(), src, partition)
	if err == nil && files.Stale {
		fmt.Fprintln(a.err, "note:", upkeep.Printable(src), "has changes in its journal, which are not seen here")
	}
	return files, err
}
