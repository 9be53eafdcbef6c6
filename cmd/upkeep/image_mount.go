package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/mount"
)

// mountFlags are those of the verbs that have the kernel mount an image.
func mountFlags(c *cobra.Command, o *image.MountOptions) {
	c.Flags().BoolVar(&o.Untrusted, "untrusted", false, "refuse: an image that may be hostile is never given to the host's kernel")
	c.Flags().IntVar(&o.Partition, "partition", 0, "the `number` of a partition; 0 for an image without any")
	c.Flags().BoolVar(&o.Network, "network", false, "take an image on a network file system, where other machines may have it in use unseen")
}

func newImageHolders(a *app) *cobra.Command {
	v := imageVerb{app: a}
	c := &cobra.Command{
		Use:   "holders FILE",
		Short: "Show who has an image: mounts, loop devices, machines, processes",
		Long: `Show who has an image, by the file itself and not by its name: loop devices and
where they are mounted, in all mount namespaces; swap; device mapper; locks of QEMU
and libvirt; leases; processes that have it open or mapped into memory.

Verbs that change an image refuse it while anybody is on this list, and those that
read it while anybody is who writes. Without root, the processes of others cannot be
looked into; how many is told.`,
		Example: "  upkeep image holders web1.img\n  upkeep image holders web1.img -o json",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if v.plan {
				return v.looking("holders", args[0], "look for loop devices, mounts, swap, mapped devices, locks, leases and open descriptors of the file, and of nothing else in it")
			}
			found, err := hold.HoldersOf(args[0])
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(found)
			}
			for _, h := range found.Holders {
				fmt.Fprintln(a.out, h)
			}
			if len(found.Holders) == 0 {
				fmt.Fprintln(a.out, "nobody has it")
			}
			if found.Unseen > 0 {
				fmt.Fprintf(a.out, "%s of others could not be looked into; root can\n", upkeep.Plural(found.Unseen, "process", "processes"))
			}
			return nil
		},
	}
	v.planFlag(c)
	return c
}

func newImageMount(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var o image.MountOptions
	c := &cobra.Command{
		Use:   "mount FILE DIR",
		Short: "Mount an image at a folder",
		Long: `Mount an image at a folder, where it stays until upkeep image umount, or umount(8).
Its type is read from its superblock and told to the kernel, never tried out; devices
and set-user-id programs in it have no effect. While it is mounted, QEMU and other
upkeeps are refused.

With --ro nothing is written, not even what waits in a journal. A packed image is
unpacked for that to a file that has no name and goes when it is unmounted. A sparse
image whose host has less room than the image can come to want is mounted with a
warning that has the numbers.`,
		Example: "  upkeep image mount web1.img /mnt\n  upkeep image mount web1.img /mnt --ro",
		Args:    exactly("FILE", "DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			if v.plan {
				plan, err := image.PlanMount(args[0], args[1], o)
				if err != nil {
					return err
				}
				return v.showPlan(plan)
			}
			m, err := image.Mount(args[0], args[1], o)
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(m)
			}
			for _, warning := range m.Warnings {
				fmt.Fprintln(a.err, "warning:", upkeep.Printable(warning))
			}
			how := ""
			if m.ReadOnly {
				how = ", to be read only"
			}
			fmt.Fprintln(a.out, upkeep.Printable(fmt.Sprintf("%s is mounted at %s (%s, %s%s)", m.File, m.Folder, m.Type, m.Device, how)))
			return nil
		},
	}
	c.Flags().BoolVar(&o.ReadOnly, "ro", false, "change nothing, not even to replay a journal")
	mountFlags(c, &o)
	v.planFlag(c)
	return c
}

func newImageUmount(a *app) *cobra.Command {
	v := imageVerb{app: a}
	c := &cobra.Command{
		Use:     "umount DIR|FILE",
		Aliases: []string{"unmount"},
		Short:   "Unmount an image, and wait until all of it is on the disk",
		Long: `Unmount an image, named by its file or by the folder that it is mounted at. It
returns when the loop device is gone and all that was written is on the disk: the
image can be copied or started then. An image that is in use stays mounted, and
the error names who uses it.`,
		Example: "  upkeep image umount /mnt\n  upkeep image umount web1.img",
		Args:    exactly("DIR|FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			folders, file, err := mountedFolders(args[0])
			if err != nil {
				return err
			}
			if v.plan {
				plan, err := unmountPlan(args[0], folders, file)
				if err != nil {
					return err
				}
				return v.showPlan(plan)
			}
			var all []mount.Unmounted
			for _, folder := range folders {
				u, err := mount.Unmount(c.Context(), folder)
				if err != nil {
					return err
				}
				u.Image = cmp.Or(file, u.Image)
				all = append(all, u)
			}
			if a.output != "table" {
				return a.show(all)
			}
			for _, u := range all {
				fmt.Fprintln(a.out, upkeep.Printable(unmountedText(u)))
				if u.Kept {
					fmt.Fprintf(a.out, "%s stays, as whoever attached it wanted: losetup -d /dev/%s\n", u.Device, u.Device)
				}
			}
			return nil
		},
	}
	v.planFlag(c)
	return c
}

// nameless is that what is mounted has no name: a packed image was unpacked for it.
func nameless(u mount.Unmounted) bool { return strings.HasSuffix(u.Image, " (deleted)") }

func unmountedText(u mount.Unmounted) string {
	if nameless(u) {
		return fmt.Sprintf("nothing is mounted at %s any more; the image had no name", u.Folder)
	}
	return fmt.Sprintf("%s is not mounted at %s any more, and on the disk", u.Image, u.Folder)
}

func unmountPlan(name string, folders []string, file string) (image.Plan, error) {
	plan := image.Plan{Verb: "umount", File: name}
	for _, folder := range folders {
		u, err := mount.Lookup(folder)
		if err != nil {
			return plan, err
		}
		u.Image = cmp.Or(file, u.Image)
		called := u.Image
		plan.Undo = "upkeep image mount " + u.Image + " " + u.Folder
		if nameless(u) {
			called = "an image without a name"
			plan.Undo = "mount it again by the file that it was unpacked from"
		}
		then := "until " + u.Device + " is gone and all that was written is on the disk"
		if u.Kept {
			then = "until all that was written is on the disk; " + u.Device + " stays, as whoever attached it wanted"
		}
		plan.Steps = append(plan.Steps,
			image.PlanStep{What: fmt.Sprintf("unmount %s from %s, unless somebody uses it", called, u.Folder)},
			image.PlanStep{What: "wait " + then})
	}
	return plan, nil
}

// mountedFolders is where to unmount: the folder that is named, or those that an
// image is mounted at, which is file then. The device of a packed one tells the file
// that it was unpacked to.
func mountedFolders(name string) (folders []string, file string, err error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return []string{name}, "", nil
	}
	found, err := hold.HoldersOf(name)
	if err != nil {
		return nil, "", err
	}
	if file, err = filepath.Abs(name); err != nil {
		return nil, "", err
	}
	var elsewhere error
	for _, h := range found.Holders {
		switch {
		case h.What == hold.OnMount && h.PID == 0:
			folders = append(folders, h.Mount)
		case h.What == hold.OnMount:
			elsewhere = fmt.Errorf("%w: %s is %s, in another mount namespace than ours", upkeep.ErrRefused, name, h)
		}
	}
	switch {
	case len(folders) > 0:
		slices.Reverse(folders) // what is mounted inside another goes first
		return folders, file, nil
	case elsewhere != nil:
		return nil, "", elsewhere
	}
	return nil, "", fmt.Errorf("%w: %s is not mounted", upkeep.ErrNotFound, file)
}
