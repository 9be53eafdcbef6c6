package image

import (
	"fmt"
	"strings"

	"upkeep"
	"upkeep/internal/image/fsinfo"
)

// PlanMount is what [Mount] would do. It refuses what that would refuse.
func PlanMount(path, folder string, o MountOptions) (Plan, error) {
	plan := Plan{Verb: "mount", File: path}
	folder, err := mountFolder(folder)
	if err != nil {
		return plan, err
	}
	if err := plan.mounting(path, o); err != nil {
		return plan, err
	}
	plan.Undo = "upkeep image umount " + folder
	how := "devices and set-user-id programs in it have no effect"
	if o.ReadOnly {
		how += ", and nothing is written, not even what waits in a journal"
	}
	plan.step(0, "mount that at %s: %s", folder, how)
	return plan, nil
}

// PlanChroot is what [Chroot] would do with a command. It refuses what that would refuse.
func PlanChroot(path string, o MountOptions, command []string) (Plan, error) {
	plan := Plan{Verb: "chroot", File: path, Undo: "what the command changes in the image stays changed; nothing stays mounted or attached"}
	if err := plan.mounting(path, o); err != nil {
		return plan, err
	}
	run := "a shell"
	if len(command) > 0 {
		run = strings.Join(command, " ")
	}
	plan.step(0, "mount that where nobody else can see it, with /dev, /proc and /run of its own, and this machine's /etc/resolv.conf")
	plan.step(0, "run %s in there", run)
	plan.step(0, "end what it left running, and unmount")
	return plan, nil
}

// mounting adds how the image gets to the kernel.
func (p *Plan) mounting(path string, o MountOptions) error {
	if err := o.mayMount(path); err != nil {
		return err
	}
	packed, err := packedToMount(path, o)
	if err != nil {
		return err
	}
	if packed != nil {
		defer packed.file.Close()
		return p.unpacking(packed, o)
	}
	t, err := openTarget(path, opening{write: !o.ReadOnly, network: o.Network, partition: o.Partition})
	if err != nil {
		return err
	}
	defer t.file.Close()
	i := &mountable{target: t}
	if err := i.allowed(o); err != nil {
		return err
	}
	p.step(0, "lock %s against QEMU and other upkeeps for as long as it is mounted", t.path)
	p.step(0, "attach a loop device to its %s", t.info.Type)
	for _, warning := range i.warnings {
		p.step(0, "know that %s", warning)
	}
	return nil
}

func (p *Plan) unpacking(packed *packedImage, o MountOptions) error {
	r, size, err := partOf(packed, packed.Size(), packed.path, o.Partition)
	if err != nil {
		return err
	}
	info, err := fsinfo.Read(r, size)
	if err != nil {
		return fmt.Errorf("reading %s: %w", packed.path, err)
	}
	if info.Type == fsinfo.None {
		return upkeep.WithHint(fmt.Errorf("%w: %s holds no file system that is known here", upkeep.ErrRefused, packed.path), "--partition N names a partition")
	}
	p.step(packed.Manifest.DataSize(), "unpack %s beside %s, to a file that has no name and goes when it is unmounted", upkeep.Size(packed.Size()).About(), packed.path)
	p.Temporary = upkeep.Size(packed.Manifest.DataSize())
	p.step(0, "attach a loop device to its %s", info.Type)
	return nil
}
