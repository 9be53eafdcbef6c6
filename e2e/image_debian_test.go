package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"upkeep/internal/testkit"
)

// TestImageOfDebian copies a tree that debootstrap made into an image, enters it, packs
// it, unpacks it elsewhere, grows it there, and boots it in a virtual machine with
// Debian's kernel. The tree and the kernel come from the mirror that apt has here.
func TestImageOfDebian(t *testing.T) {
	t.Parallel()
	testkit.NeedRoot(t)
	testkit.Need(t, "debootstrap", "apt-get", "dpkg-deb", "tar", "qemu-system-x86_64", "mke2fs", "resize2fs")
	var wrong error
	if runtime.GOARCH != "amd64" {
		wrong = errors.New("it is " + runtime.GOARCH)
	}
	testkit.NeedThat(t, "a processor of the kind amd64", wrong)
	d := debian{t: t, dir: t.TempDir()}
	d.bootstrap()

	tree, first, packed, second := d.path("tree"), d.path("first.img"), d.path("debian.zst"), d.path("second.img")
	d.upkeep("", "copy", tree, first, "--size", "1G", "--fs", "ext4", "--verify")
	version, err := os.ReadFile(filepath.Join(tree, "etc/debian_version"))
	d.must(err)
	if said := d.upkeep("", "chroot", first, "--", "/bin/sh", "-c", "dpkg --version && cat /etc/debian_version"); !strings.Contains(said, "package management program") || !strings.HasSuffix(said, string(version)) {
		t.Errorf("inside it says %q", said)
	}
	d.upkeep(firstProcess, "chroot", first, "--", "/bin/sh", "-c", "cat >/sbin/first && chmod 755 /sbin/first")
	d.upkeep("", "pack", first, packed)
	d.upkeep("", "unpack", packed, second)
	d.upkeep("", "grow", second, "--to", "2G")
	d.boot(second, d.kernel(), strings.TrimSpace(string(version)))
	if said := d.upkeep("", "check", second); !strings.Contains(said, "is in order") {
		t.Errorf("after it ran: %s", said)
	}
	if said := d.upkeep("", "cat", second, "/was-here"); said != "booted\n" {
		t.Errorf("what was written while it ran is %q", said)
	}
}

// firstProcess is what the kernel starts. It tells on the console what it runs on.
const firstProcess = `#!/bin/sh
mount -t proc proc /proc
echo "Debian $(cat /etc/debian_version) with $(df --output=size -B1M / | tail -1)M"
echo booted >/was-here
mount -o remount,ro /
echo o >/proc/sysrq-trigger
sleep 60
`

// debian is a tree of Debian and what is made of it.
type debian struct {
	t             *testing.T
	dir           string
	mirror, suite string
}

func (d *debian) path(name string) string { return filepath.Join(d.dir, name) }

func (d *debian) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// upkeep runs a verb of images that must succeed, and returns what it prints.
func (d *debian) upkeep(input string, verb ...string) string {
	d.t.Helper()
	cmd := exec.Command(upkeepProgram(d.t), append([]string{"image"}, verb...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("upkeep image %s: %v\n%s%s", strings.Join(verb, " "), err, out, said.String())
	}
	return string(out)
}

// bootstrap makes the tree: what Debian calls required, unpacked and not set up, which
// takes half the time and is enough to run and to boot.
func (d *debian) bootstrap() {
	d.t.Helper()
	d.findMirror()
	out, err := testkit.Try(d.t, "debootstrap", "--variant=minbase", "--foreign", "--arch=amd64", d.suite, d.path("tree"), d.mirror)
	if err != nil {
		err = fmt.Errorf("debootstrap: %w: %s", err, out[max(0, len(out)-1000):])
	}
	testkit.NeedThat(d.t, "a mirror of Debian", err)
	// In a container it makes a link of this, to the container's own.
	proc := d.path("tree/proc")
	if info, err := os.Lstat(proc); err == nil && !info.IsDir() {
		d.must(errors.Join(os.Remove(proc), os.Mkdir(proc, 0o555)))
	}
}

// findMirror asks apt for the first of its sources that debootstrap has a script for.
func (d *debian) findMirror() {
	d.t.Helper()
	listed := testkit.Run(d.t, "apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
	for line := range strings.Lines(listed) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[1] != "main" {
			continue
		}
		if _, err := os.Stat("/usr/share/debootstrap/scripts/" + fields[0]); err == nil {
			d.suite, d.mirror = fields[0], strings.TrimSuffix(fields[2], "/")
			return
		}
	}
	testkit.NeedThat(d.t, "a mirror of Debian among the sources of apt", errors.New("there is none"))
}

// kernel is Debian's kernel for virtual machines, which needs no modules to boot from
// a disk with NVMe. Its package is found as debootstrap found the others.
func (d *debian) kernel() string {
	d.t.Helper()
	lists, err := filepath.Glob(d.path("tree/var/lib/apt/lists/*_Packages"))
	if err != nil || len(lists) == 0 {
		d.t.Fatalf("debootstrap left no list of packages: %v", err)
	}
	text, err := os.ReadFile(lists[0])
	d.must(err)
	name, _, _ := strings.Cut(field(string(text), "linux-image-cloud-amd64", "Depends"), " ")
	file, sum := field(string(text), name, "Filename"), field(string(text), name, "SHA256")
	if file == "" || sum == "" {
		d.t.Fatalf("the mirror has no package %q", name)
	}
	deb := d.path("kernel.deb")
	testkit.NeedThat(d.t, "a mirror of Debian", d.fetch(d.mirror+"/"+file, deb, sum))
	d.must(os.Mkdir(d.path("kernel"), 0o755))
	testkit.Run(d.t, "sh", "-c", "dpkg-deb --fsys-tarfile "+deb+" | tar -C "+d.path("kernel")+" --wildcards -xf - './boot/vmlinuz-*'")
	found, err := filepath.Glob(d.path("kernel/boot/vmlinuz-*"))
	if err != nil || len(found) != 1 {
		d.t.Fatalf("the package of the kernel holds %q: %v", found, err)
	}
	return found[0]
}

// field is a field of a package in a list of packages.
func field(list, name, key string) string {
	_, after, _ := strings.Cut(list, "\nPackage: "+name+"\n")
	about, _, _ := strings.Cut(after, "\n\n")
	for line := range strings.Lines(about) {
		if value, is := strings.CutPrefix(line, key+": "); is {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (d *debian) fetch(url, path, sum string) error {
	client := http.Client{Timeout: 5 * time.Minute}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, hash), answer.Body)
	if err = errors.Join(err, file.Close()); err == nil && fmt.Sprintf("%x", hash.Sum(nil)) != sum {
		err = fmt.Errorf("%s: %s, and what came has another SHA-256", url, answer.Status)
	}
	return err
}

// boot runs an image in a virtual machine, without help of the processor, until its
// first process switches that off.
func (d *debian) boot(image, kernel, version string) {
	d.t.Helper()
	ctx, stop := context.WithTimeout(d.t.Context(), 5*time.Minute)
	defer stop()
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "max", "-m", "256", "-display", "none", "-nodefaults", "-serial", "stdio", "-no-reboot",
		"-kernel", kernel, "-append", "root=/dev/nvme0n1 rw console=ttyS0 init=/sbin/first panic=-1 quiet",
		"-drive", "file="+image+",if=none,id=disk,format=raw", "-device", "nvme,drive=disk,serial=1")
	console, err := qemu.CombinedOutput()
	out := string(console)
	var size int
	_, after, found := strings.Cut(out, "Debian "+version+" with ")
	if _, scanned := fmt.Sscanf(after, "%dM", &size); err != nil || !found || scanned != nil || size < 1900 || size > 2048 {
		d.t.Errorf("it says: %q; %v", out[max(0, len(out)-2000):], errors.Join(err, scanned))
	}
}
