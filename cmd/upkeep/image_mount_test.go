package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"upkeep/internal/testkit"
)

// The sessions in testdata/mounts have the kernel mount images.
func TestMountSessions(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mke2fs", "busybox", "losetup", "unshare", "mount", "umount", "sfdisk")
	testscript.Run(t, sessions("testdata/mounts"))
}
