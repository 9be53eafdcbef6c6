package hold

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// TestQEMU is about both directions: what QEMU has is not taken, and what is taken
// QEMU refuses.
func TestQEMU(t *testing.T) {
	testkit.Need(t, "qemu-img", "qemu-io", "qemu-system-x86_64")
	system, err := testkit.Find("qemu-system-x86_64")
	must(t, err)
	tool := func(name string, args ...string) error {
		t.Helper()
		path, err := testkit.Find(name)
		must(t, err)
		out, err := exec.Command(path, args...).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "lock") {
			t.Errorf("%s %q fails for another reason than a lock: %s", name, args, out)
		}
		return err
	}
	path := image(t)
	drive := "file=" + path + ",format=raw,if=virtio"

	t.Run("a machine has it", func(t *testing.T) {
		testkit.Stranger(t, exec.Command("sh", "-c", `"$@" -pidfile "$0.pid" -daemonize && echo held && cat >/dev/null; kill "$(cat "$0.pid")"`, path,
			system, "-name", "guest=web1,debug-threads=on", "-machine", "pc,accel=tcg", "-m", "16", "-display", "none", "-nodefaults", "-S", "-drive", drive))
		refused(t, path, true, "locked by pid", "qemu-system-x86, machine web1")
		refused(t, path, false, "locked by pid", "qemu-system-x86, machine web1")
	})
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		found, err := Holders(open(t, path, false))
		return err == nil && len(found.Holders) == 0, fmt.Sprint(found, err)
	})
	t.Run("a writer has it", func(t *testing.T) {
		f, err := Open(path, true)
		must(t, err)
		defer f.Close()
		lock, err := Take(f, Options{Write: true})
		must(t, err)
		for _, args := range [][]string{
			{"qemu-img", "resize", "-f", "raw", path, "32M"}, {"qemu-img", "convert", "-f", "raw", "-O", "raw", path, path + ".copy"},
			{"qemu-io", "-f", "raw", "-c", "write 0 512", path}, {"qemu-io", "-r", "-f", "raw", "-c", "read 0 512", path},
			{"qemu-system-x86_64", "-machine", "pc,accel=tcg", "-display", "none", "-nodefaults", "-S", "-drive", drive},
		} {
			if tool(args[0], args[1:]...) == nil {
				t.Errorf("%q runs on an image that is being changed", args)
			}
		}
		must(t, lock.Again())
		must(t, lock.Release())
		must(t, tool("qemu-img", "convert", "-f", "raw", "-O", "raw", path, path+".copy"))
	})
	t.Run("a reader has it", func(t *testing.T) {
		f, err := Open(path, false)
		must(t, err)
		defer f.Close()
		_, err = Take(f, Options{})
		must(t, err)
		must(t, tool("qemu-img", "convert", "-f", "raw", "-O", "raw", path, path+".copy"))
		must(t, tool("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", path))
		if tool("qemu-io", "-f", "raw", "-c", "write 0 512", path) == nil || tool("qemu-img", "resize", "-f", "raw", path, "32M") == nil {
			t.Error("QEMU writes to an image that is being read")
		}
		_, err = Take(open(t, path, true), Options{Write: true})
		if !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("a writer beside the reader: %v", err)
		}
	})
}
