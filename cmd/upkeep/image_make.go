package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/image/filesystem"
)

// makingFlags are the flags that say what a new file system is like.
type makingFlags struct {
	options  filesystem.Options
	reserved float64
	block    upkeep.Size
}

func (m *makingFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&m.options.Profile, "profile", "", "a `set` of choices by name: "+strings.Join(filesystem.Profiles(), ", "))
	f.Int64Var(&m.options.Inodes, "inodes", 0, "how `many` files it can hold (ext)")
	f.Var(sizeFlag{&m.block}, "block-size", "`bytes` of a block")
	f.StringVar(&m.options.Label, "label", "", "its `name`")
	f.StringVar(&m.options.UUID, "uuid", "", "its `UUID`; for vfat its volume ID (default: a random one)")
	f.Float64Var(&m.reserved, "reserved", 0, "`percent` that only root can fill (ext; default 5)")
	must(c.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions(filesystem.Profiles(), cobra.ShellCompDirectiveNoFileComp)))
}

func (m *makingFlags) read(c *cobra.Command) filesystem.Options {
	m.options.BlockSize = int64(m.block)
	if c.Flags().Changed("reserved") {
		m.options.Reserved = &m.reserved
	}
	return m.options
}

// given reports whether any of the flags was.
func (m *makingFlags) given(c *cobra.Command) bool {
	return slices.ContainsFunc([]string{"profile", "inodes", "block-size", "label", "uuid", "reserved"}, c.Flags().Changed)
}

func newImageCreate(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var m makingFlags
	var creation image.Creation
	var oracle forFlags
	var full, sparse bool
	c := &cobra.Command{
		Use:   "create FILE --size SIZE",
		Short: "Make a new image, with a file system in it if --fs says which",
		Long: `Make a new image. A sparse one (the default) takes room on its host as it is written
to; a full one has all its blocks from the start, so that no write to it can fail
for want of room. Both are made at once, whatever their size.

With --for FOLDER the size, the blocks and the inodes are chosen so that the image
just holds what is in a folder, and --spare percent more; why is said.

The file has no name until it is whole: a kill leaves nothing. It is readable and
writable by its owner alone. A file that exists is never overwritten.`,
		Example: "  upkeep image create web1.img --size 8G --fs ext4\n  upkeep image create old.img --size 2G --full --fs ext3 --profile xen-2010",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if full && sparse {
				return &usageError{err: fmt.Errorf("--full and --sparse exclude each other")}
			}
			if sparse && creation.WriteZeros {
				return &usageError{err: fmt.Errorf("--write-zeros and --sparse exclude each other")}
			}
			if creation.FS == "" && oracle.folder == "" && m.given(c) {
				return &usageError{err: fmt.Errorf("what a file system is like has no use without --fs")}
			}
			if c.Flags().Changed("size") && oracle.folder != "" {
				return &usageError{err: fmt.Errorf("--size and --for exclude each other: --for chooses the size")}
			}
			if !c.Flags().Changed("size") && oracle.folder == "" {
				return &usageError{err: fmt.Errorf("missing: --size"), hint: "upkeep image create web1.img --size 8G; or --for FOLDER, which chooses it"}
			}
			if full {
				creation.Kind = upkeep.ImageFull
			}
			creation.Options = m.read(c)
			if oracle.folder != "" {
				if err := oracle.create(c.Context(), &v, &creation); err != nil {
					return err
				}
			}
			work, err := image.Create(args[0], creation)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string { return madeText(args[0], creation) })
		},
	}
	f := c.Flags()
	f.Var(sizeFlag{&creation.Size}, "size", "its `size`")
	f.BoolVar(&sparse, "sparse", false, "take room as it is written to (the default)")
	f.BoolVar(&full, "full", false, "take all its room now")
	f.BoolVar(&creation.WriteZeros, "write-zeros", false, "with --full: write every block once, rather than allocate them")
	f.StringVar(&creation.FS, "fs", "", "make a file system of this `type` in it: "+strings.Join(filesystem.Names(), ", "))
	must(c.RegisterFlagCompletionFunc("fs", cobra.FixedCompletions(filesystem.Names(), cobra.ShellCompDirectiveNoFileComp)))
	m.add(c)
	oracle.add(c)
	v.flags(c)
	return c
}

func madeText(file string, c image.Creation) string {
	kind := "sparse"
	if c.Kind == upkeep.ImageFull || c.WriteZeros {
		kind = "full"
	}
	text := fmt.Sprintf("made %s: %s, %s", file, c.Size, kind)
	if c.FS != "" {
		text += ", " + c.FS
	}
	return text
}

func newImageMkFS(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var m makingFlags
	var remaking image.Remaking
	var oracle forFlags
	c := &cobra.Command{
		Use:   "mkfs FILE TYPE",
		Short: "Make a new file system in an image that exists",
		Long: `Make a new file system in an image; its size and kind stay. It is made in a second
file that then takes the image's place, so that a kill leaves the old one. An image
that holds files, partitions or data that is not known is refused without --force.

Types are ` + strings.Join(filesystem.Names(), ", ") + `.
Profiles are small (blocks of 1K, an inode for each 4K), news (an inode for each
4K), large (an inode for each 1M), and xen-2010 (nothing that a guest of that time
does not know; ext2, ext3 and xfs).`,
		Example:           "  upkeep image mkfs web1.img ext3 --profile small --label root",
		Args:              exactly("FILE", "TYPE"),
		ValidArgsFunction: completeImageType,
		RunE: func(c *cobra.Command, args []string) error {
			remaking.Type, remaking.Options = args[1], m.read(c)
			if oracle.folder != "" {
				if err := oracle.remake(c.Context(), &v, args[0], &remaking); err != nil {
					return err
				}
			}
			work, err := image.MkFS(args[0], remaking)
			if err != nil {
				return err
			}
			return v.run(c.Context(), work, func() string { return fmt.Sprintf("made %s in %s", args[1], place(args[0], remaking.Partition)) })
		},
	}
	c.Flags().BoolVar(&remaking.Force, "force", false, "what the image holds may go")
	partitionFlag(c, &remaking.Partition, "make it in the partition with this `number`")
	m.add(c)
	oracle.add(c)
	v.flags(c)
	return c
}

func completeImageType(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return filesystem.Names(), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// must is for what can only fail by a mistake in this program.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
