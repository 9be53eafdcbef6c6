package main

import (
	"fmt"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"upkeep"
	"upkeep/internal/image/chroot"
	"upkeep/internal/testkit"
)

// The sessions in testdata/mounts have the kernel mount images.
func TestMountSessions(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mke2fs", "busybox", "losetup", "unshare", "mount", "umount", "sfdisk")
	testscript.Run(t, sessions("testdata/mounts"))
}

// A command that does not start in an image ends as one of chroot(1) does.
func TestStatusOfWhatDoesNotStartInside(t *testing.T) {
	for _, want := range []int{126, 127} {
		err := fmt.Errorf("running it: %w", &chroot.NotStartedError{Status: want, Err: upkeep.ErrNotFound})
		if got := exitStatus(err); got != want {
			t.Errorf("the status is %d, want %d", got, want)
		}
	}
}
