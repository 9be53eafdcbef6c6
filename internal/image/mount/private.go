package mount

import (
	"fmt"

	"golang.org/x/sys/unix"

	"upkeep/internal/image/thread"
)

// Private calls work with the image mounted at a folder that is seen by work and by
// the programs that it starts from its own goroutine, and by nobody else: they are in
// a mount namespace of their own. It is for programs that want a mounted folder by
// name; whoever can do with a descriptor has [Mounted.Dir].
//
// Work runs on a thread that ends with it. It must not leave work to other
// goroutines that is to see the folder, and ends the programs that it starts.
func (m *Mounted) Private(folder string, work func() error) error {
	ended := make(chan error, 1)
	thread.Own(func() { ended <- m.private(folder, work) })
	return <-ended
}

func (m *Mounted) private(folder string, work func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	// Not MS_SLAVE: mounts that others make meanwhile would be pinned here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making a mount namespace private: %w", err)
	}
	// A second mount of the same file system: the first is in no folder and stays so.
	second, err := mountDevice(m.device, m.mount.Name(), m.options)
	if err != nil {
		return err
	}
	defer second.Close()
	if err := moveTo(second, folder); err != nil {
		return err
	}
	workErr := work()
	if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil && workErr == nil {
		return fmt.Errorf("unmounting %s: %w", folder, err)
	}
	return workErr
}
