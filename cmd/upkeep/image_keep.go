package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"upkeep/internal/image"
)

func newImageTrim(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var partition int
	c := &cobra.Command{
		Use:   "trim FILE",
		Short: "Return to the host the blocks that a sparse image no longer uses",
		Long: `Give the host back the blocks of a sparse image that hold deleted files. What is used
is read from the file system's own maps: nothing is mounted, and root is not needed.
A full image is refused, since it keeps its blocks on purpose.`,
		Example: "  upkeep image trim web1.img",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			work, err := image.Trim(args[0], partition)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string {
				trimmed, _ := work.Result.(image.Trimmed)
				return fmt.Sprintf("%s takes %s, and took %s", args[0], trimmed.After.About(), trimmed.Before.About())
			})
		},
	}
	partitionFlag(c, &partition, "trim the partition with this `number`")
	v.flags(c)
	return c
}

func newImageClone(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var cloning image.Cloning
	c := &cobra.Command{
		Use:   "clone SRC DST",
		Short: "Copy an image whole; the copy is sparse or full as it is",
		Long: `Copy an image whole. Where files can share blocks (xfs, btrfs) that takes no time and
no room; elsewhere the blocks that hold data are copied. Holes stay holes, and a full
image stays full.

Two file systems with one UUID must not be mounted at the same time on one host
(btrfs loses data by it): --new-ids gives the copy's one of its own. Of an image with
partitions it renews the identifiers of the disk, of each partition and of the file
systems in them; what names the old ones, such as an fstab, is told and left.`,
		Example: "  upkeep image clone web1.img web2.img --new-ids",
		Args:    exactly("SRC", "DST"),
		RunE: func(c *cobra.Command, args []string) error {
			work, err := image.Clone(args[0], args[1], cloning)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string { return fmt.Sprintf("cloned %s to %s", place(args[0], cloning.Partition), args[1]) })
		},
	}
	c.Flags().BoolVar(&cloning.NewIDs, "new-ids", false, "give the copy's file systems new UUIDs, and its partitions other identifiers")
	partitionFlag(c, &cloning.Partition, "copy the partition with this `number`, as an image of its own")
	v.flags(c)
	return c
}

func newImageRecover(a *app) *cobra.Command {
	v := imageVerb{app: a}
	c := &cobra.Command{
		Use:   "recover FILE",
		Short: "Finish or undo what a killed command began on an image",
		Long: `End or undo what a command that was killed, or a power cut, left of its work on an
image. It looks at how far that had come, and leaves the image whole and nothing
beside it. On an image that was left in order it does nothing.`,
		Example: "  upkeep image recover web1.img",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			work, err := image.Recover(args[0])
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string {
				r, _ := work.Result.(image.Recovery)
				if r.Found == "" {
					return args[0] + " needs no recovery"
				}
				return fmt.Sprintf("%s: %s; %s", args[0], r.Found, r.Did)
			})
		},
	}
	v.flags(c)
	return c
}
