package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
)

func newImageInfo(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var number int
	c := &cobra.Command{
		Use:   "info FILE [--partition N]",
		Short: "Show what an image is, holds and takes, and who uses it",
		Long: `Show what an image is: size, room that it takes, file system with what is used and
free, why it is as large as it is, and who uses it. It only reads, mounts nothing,
and works on images that are in use, damaged or cut off.`,
		Example: "  upkeep image info web1.img\n  upkeep image info disk.img --partition 2 -o json",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if v.plan {
				return v.looking("info", args[0], "read the partition table, superblocks and maps of what is used", "pack pieces of it in memory, to tell how large it would be", "look for who has it")
			}
			d, err := image.InfoOf(args[0], number)
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(d)
			}
			return a.printDescription(d)
		},
	}
	c.Flags().IntVar(&number, "partition", 0, "look into the partition with this `number`")
	v.planFlag(c)
	return c
}

// holds says in a line what file system is somewhere.
func holds(fs *fsinfo.Info, damage string, lost *fsinfo.LostError, repair string) string {
	switch {
	case lost != nil:
		return fmt.Sprintf("%s; %s puts it back", lost, repair)
	case damage != "":
		return "nothing that can be read: " + damage
	case fs == nil:
		return "no file system that is known here"
	}
	return fs.Type + ", " + fs.State
}

// repair is the command that repairs an image, or a partition of it; of one that is
// packed, once it was unpacked.
func repair(d image.Description, partition int) string {
	file, command := d.File, "upkeep image check --repair "
	if d.Inside != nil {
		file = "OUT.img"
		command = fmt.Sprintf("upkeep image unpack %s %s && %s", d.File, file, command)
	}
	if partition != 0 {
		command += fmt.Sprintf("--partition %d ", partition)
	}
	return command + file
}

// holdsPacked says in a line what image a file holds packed; empty where it is one.
func holdsPacked(d image.Description) string {
	const unpack = "; upkeep image unpack gets it out"
	none := "no file system that is known here"
	if d.Table != nil {
		none = upkeep.Plural(len(d.Table.Partitions), "partition", "partitions")
	}
	switch {
	case d.Inside != nil:
		return fmt.Sprintf("a packed image of %s, %s, %s", upkeep.Size(d.Inside.Size).About(), d.Inside.Kind, cmp.Or(d.Inside.Facts.Type, none)) + unpack
	case d.Format != "":
		return "an image in " + d.Format.File() + unpack
	}
	return ""
}

// tableRows are a line for each partition.
func tableRows(d image.Description, add func(name, format string, args ...any)) {
	t := d.Table
	add("partitions", "%s, %s", t.Kind, t.ID)
	for _, p := range t.Partitions {
		text := holds(p.FS, p.Damage, p.Lost, repair(d, p.Number))
		if p.FS != nil {
			text += fmt.Sprintf(", %s of %s used", upkeep.Size(p.FS.Used).About(), upkeep.Size(p.FS.Size).About())
		}
		if p.Container {
			text = "the logical partitions"
		}
		add(fmt.Sprintf("  %d", p.Number), "%s at %s: %s", upkeep.Size(p.Length).About(), upkeep.Size(p.Offset).About(), text)
	}
	for _, problem := range t.Problems {
		add("PROBLEM", "%s", problem)
	}
}

func (a *app) printDescription(d image.Description) error {
	rows := [][2]string{{"file", d.File}}
	add := func(name, format string, args ...any) {
		rows = append(rows, [2]string{name, fmt.Sprintf(format, args...)})
	}
	if d.Target != "" {
		add("leads to", "%s", d.Target)
	}
	add("size", "%s (%s)", d.Size.About(), inBytes(d.Size))
	add("takes", "%s (%s)", d.Allocated.About(), d.Kind)
	packed := holdsPacked(d)
	if packed != "" {
		add("holds", "%s", packed)
	}
	if d.Table != nil {
		tableRows(d, add)
	}
	if d.Partition != 0 || packed == "" && d.Table == nil {
		add("holds", "%s", holds(d.FS, d.Damage, d.Lost, repair(d, d.Partition)))
	}
	if fs := d.FS; fs != nil {
		if fs.Label != "" {
			add("label", "%s", fs.Label)
		}
		if fs.UUID != "" {
			add("uuid", "%s", fs.UUID)
		}
		add("used", "%s of %s; %s free", upkeep.Size(fs.Used).About(), upkeep.Size(fs.Size).About(), upkeep.Size(fs.Free).About())
		if fs.Inodes > 0 {
			add("inodes", "%d of %d free", fs.InodesFree, fs.Inodes)
		}
		add("blocks", "of %d bytes", fs.BlockSize)
	}
	if d.Cut > 0 {
		add("CUT OFF", "%s of the file system are missing from the file", d.Cut.About())
	}
	if p := d.Parts; p != nil {
		add("room", "%s for files, %s journal, %s inodes, %s allocated and not used; packed about %s",
			p.Files.About(), p.Journal.About(), p.Inodes.About(), p.Deleted.About(), p.Packed.About())
	}
	for i, h := range d.Holders {
		add(map[bool]string{true: "used by", false: ""}[i == 0], "%s", h)
	}
	if len(d.Holders) == 0 {
		add("used by", "nobody")
	}
	if d.Unseen > 0 {
		add("", "%s could not be asked; root can", upkeep.Plural(d.Unseen, "process", "processes"))
	}
	if d.Unfinished != "" {
		add("UNFINISHED", "%s", d.Unfinished)
	}
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "%-11s %s\n", row[0], upkeep.Printable(row[1]))
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

func newImageCheck(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var checking image.Checking
	c := &cobra.Command{
		Use:   "check FILE [--repair]",
		Short: "Check the file system of an image, and repair it in a second file",
		Long: `Check the file system of an image, which changes nothing. Status 1 says that there
is something to repair.

With --repair it is repaired in a second file that takes the image's place when a
check finds nothing more. An image that cannot be repaired stays as it is.`,
		Example: "  upkeep image check web1.img\n  upkeep image check web1.img --repair",
		Args:    exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			work, err := image.Check(args[0], checking)
			if err != nil {
				return err
			}
			if err := v.run(c.Context(), work, func() string { return verdictText(place(args[0], checking.Partition), work.Result) }); err != nil {
				return err
			}
			if verdict, is := work.Result.(filesystem.Verdict); is && !verdict.Clean {
				if v.output == "table" && verdict.Hint != "" {
					fmt.Fprintln(v.err, "hint: "+verdict.Hint)
				}
				return statusError(exitFailed)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&checking.Repair, "repair", false, "repair what can be repaired")
	c.Flags().BoolVar(&checking.Untrusted, "untrusted", false, "do not let the kernel mount it (xfs is mounted to replay its log)")
	partitionFlag(c, &checking.Partition, "check the partition with this `number`")
	v.flags(c)
	return c
}

func verdictText(what string, result any) string {
	verdict, _ := result.(filesystem.Verdict)
	switch {
	case verdict.Mended:
		return fmt.Sprintf("%s was repaired and is in order now; found: %s", what, verdict.Brief())
	case verdict.Clean:
		return what + " is in order"
	}
	return fmt.Sprintf("%s is NOT in order: %s", what, verdict.Brief())
}
