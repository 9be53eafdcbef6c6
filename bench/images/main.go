// Command images measures work on images beside the article's commands and the
// programs that people use for it, in one run:
//
//	go run ./bench/images              # as root: medians of 5; what takes more than 15 s, once
//	go run ./bench/images -host xfs    # the same where files can share blocks
//	go run ./bench/images -rounds 1 -size 512M -data 100M -junk 100M
//
// What a program leaves in the page cache is written to the disk within its time, so
// that those who wait for the disk are not compared with those who do not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := bench{size: 2 << 30, data: 450 << 20, junk: 1200 << 20}
	sizes := map[string]*upkeep.Size{"size": &b.size, "data": &b.data, "junk": &b.junk}
	for name, size := range sizes {
		flag.Func(name, fmt.Sprintf("`size` of the image, of the files in it, or of what was deleted from the dirty one (default %s)", *size),
			func(text string) error { return size.UnmarshalText([]byte(text)) })
	}
	flag.IntVar(&b.rounds, "rounds", 5, "how often each is measured")
	flag.StringVar(&b.tree, "tree", "/usr", "where files are taken from")
	flag.StringVar(&b.only, "only", "", "groups to measure, such as pack,unpack")
	folder := flag.String("folder", os.TempDir(), "where to work; its file system matters")
	flag.StringVar(&b.host, "host", "", "work on a new file system of this type (xfs, btrfs), in a file in the folder")
	flag.Parse()
	if err := b.run(ctx, *folder); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	size, data, junk upkeep.Size
	rounds           int
	tree, only, host string

	work   string // folder
	upkeep string
}

func (b *bench) run(ctx context.Context, folder string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the article's commands mount images: this needs root")
	}
	if b.work, err = os.MkdirTemp(folder, "upkeep-images-"); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(b.work)
	if b.host != "" {
		mounted, err := b.mountHost(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unix.Unmount(mounted, 0)) }()
		b.work = mounted
	}
	b.upkeep = filepath.Join(b.work, "upkeep")
	if err := b.sh(ctx, "go build -o "+b.upkeep+" ./cmd/upkeep"); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	fmt.Printf("| what | with | median | least to most | result |\n|---|---|---|---|---|\n")
	for _, g := range b.groups() {
		if b.only != "" && !slices.Contains(strings.Split(b.only, ","), strings.Fields(g.name)[0]) {
			continue
		}
		if err := b.measure(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// mountHost makes a file system to work on, and is where it is mounted.
func (b *bench) mountHost(ctx context.Context) (string, error) {
	mounted := filepath.Join(b.work, "host")
	line := fmt.Sprintf("truncate -s %d host.fs; mkfs.%s -q host.fs; mkdir host; mount -o loop host.fs host", 12*int64(b.size), b.host)
	return mounted, b.sh(ctx, line)
}

// sh runs a line of the shell in the work folder, or, when it builds, where we are.
func (b *bench) sh(ctx context.Context, line string) error {
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", line)
	if !strings.HasPrefix(line, "go ") {
		cmd.Dir = b.work
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C", "U="+b.upkeep, fmt.Sprintf("SIZE=%d", int64(b.size)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", line, err, out)
	}
	return nil
}

// prepare makes the tree, a clean image of it and one with deleted files.
func (b *bench) prepare(ctx context.Context) error {
	lines := []string{
		fmt.Sprintf(`mkdir tree mnt; (cd %s; find bin lib share -xdev -type f -size -4M -printf '%%s %%p\n' | LC_ALL=C sort -k2 |
			awk 'NR%%2==0 {s += $1; if (s > %d) exit; sub(/^[0-9]+ /, ""); print}') >list; tar -C %s -cf - -T list | tar -C tree -xf -`, b.tree, int64(b.data), b.tree),
		`truncate -s $SIZE clean.img; mke2fs -q -F -t ext4 -d tree clean.img`,
		fmt.Sprintf(`cp --sparse=always clean.img dirty.img; mount -o loop dirty.img mnt; head -c %d /dev/urandom >mnt/junk1; head -c %d /dev/urandom | base64 >mnt/junk2; sync -f mnt; rm mnt/junk*; umount mnt`, int64(b.junk)/2, int64(b.junk)*3/8),
		`truncate -s $SIZE full.img; fallocate -l $SIZE full.img; mke2fs -q -F -t ext4 -E nodiscard -d tree full.img; fallocate -l $SIZE full.img`,
		`zstd -1 -T0 -q clean.img -o clean.zst; $U image pack clean.img clean.upk; bmaptool -q create -o clean.bmap clean.img`,
	}
	for _, line := range lines {
		if err := b.sh(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// contender is one way of doing what a group is about. It makes the file out.
type contender struct{ name, line string }

type group struct {
	name   string
	before string // in each round and for each contender, not measured
	by     []contender
}

func (b *bench) groups() []group {
	packing := func(image string) []contender {
		return []contender{
			{"zstd -1 -T0", "zstd -1 -T0 -q " + image + " -o out"},
			{"zstd -1", "zstd -1 -q " + image + " -o out"},
			{"gzip -1", "gzip -1 -c " + image + " >out"},
			{"e2image -ra, zstd -1 -T0", "e2image -ra " + image + " tmp >/dev/null 2>&1; zstd -1 -T0 -q tmp -o out"},
			{"partclone, zstd -1 -T0", "partclone.ext4 -c -q -L /dev/null -s " + image + " -o - 2>/dev/null | zstd -1 -T0 -q -o out"},
			{"qemu-img convert -c (qcow2, zstd)", "qemu-img convert -c -O qcow2 -o compression_type=zstd " + image + " out"},
			{"**upkeep image pack**", "$U image pack " + image + " out"},
		}
	}
	return append(creating(), []group{
		{"clone", "", cloning("dirty.img")},
		{"clone full", "", cloning("full.img")},
		{"copy a tree into a new image", "", []contender{
			{"mke2fs -d", "truncate -s $SIZE out; mke2fs -q -F -t ext4 -d tree out"},
			{"mke2fs, mount, cp -ax (the article's)", "truncate -s $SIZE out; mke2fs -q -F -t ext4 out; mount -o loop out mnt; cp -ax tree/. mnt/; umount mnt"},
			{"**upkeep image copy**", "$U image copy tree out --size $SIZE --fs ext4"},
		}},
		{"grow ext4 by 2G, sparse", "cp --sparse=always clean.img out", []contender{
			{"dd, e2fsck, resize2fs (the article's)", "dd if=/dev/zero of=out bs=1M count=2048 oflag=append conv=notrunc status=none; " + growExt},
			{"truncate, e2fsck, resize2fs", "truncate -s +2G out; " + growExt},
			{"**upkeep image grow**", "$U image grow out --by 2G"},
		}},
		{"grow ext4 by 2G, full", "cp --sparse=never --reflink=never full.img out", []contender{
			{"fallocate, e2fsck, resize2fs", "fallocate -l $((SIZE + (2 << 30))) out; " + growExt},
			{"**upkeep image grow**", "$U image grow out --by 2G"},
		}},
		{"shrink ext4", "cp --sparse=always clean.img out", []contender{
			{"e2fsck, resize2fs -M (in place)", "e2fsck -fp out >/dev/null || [ $? -le 1 ]; resize2fs -M out >/dev/null 2>&1"},
			{"cp, e2fsck, resize2fs -M (on a copy)", "cp --sparse=always out tmp; e2fsck -fp tmp >/dev/null || [ $? -le 1 ]; resize2fs -M tmp >/dev/null 2>&1; mv tmp out"},
			{"cp, e2fsck, resize2fs -M until it stays (on a copy)", "cp --sparse=always out tmp; e2fsck -fp tmp >/dev/null || [ $? -le 1 ]; was=0; while now=$(stat -c %s tmp); [ $now != $was ]; do was=$now; resize2fs -M tmp >/dev/null 2>&1; done; mv tmp out"},
			{"**upkeep image shrink --min**", "$U image shrink out --min"},
		}},
		{"pack clean", "", packing("clean.img")},
		{"pack dirty", "", packing("dirty.img")},
		{"unpack", "", []contender{
			{"zstd -d", "zstd -d -q clean.zst -o out"}, {"bmaptool copy (.zst)", "bmaptool -q copy --bmap clean.bmap clean.zst out"},
			{"**upkeep image unpack**", "$U image unpack clean.upk out"}, {"upkeep image unpack of a plain .zst", "$U image unpack clean.zst out"},
		}},
	}...)
}

// growExt is how people have ext4 fill a file that became larger.
const growExt = "e2fsck -fp out >/dev/null || [ $? -le 1 ]; resize2fs out >/dev/null 2>&1"

// creating are new images of all kinds.
func creating() []group {
	groups := []group{
		{"create sparse", "", []contender{{"truncate", "truncate -s $SIZE out"}, {"qemu-img create", "qemu-img create -q -f raw out $SIZE"}, {"**upkeep image create**", "$U image create out --size $SIZE"}}},
		{"create full", "", []contender{
			{"dd (the article's)", "dd if=/dev/zero of=out bs=1M count=$((SIZE >> 20)) status=none"},
			{"fallocate", "fallocate -l $SIZE out"},
			{"qemu-img create, falloc", "qemu-img create -q -f raw -o preallocation=falloc out $SIZE"},
			{"**upkeep image create --full**", "$U image create out --size $SIZE --full"},
		}},
	}
	for _, fs := range []string{"ext4", "xfs", "btrfs", "reiserfs", "vfat"} {
		makes := map[string]string{"ext4": "mke2fs -q -F -t ext4 out", "reiserfs": "mkreiserfs -q -f -f out"}[fs]
		if makes == "" {
			makes = "mkfs." + fs + " out"
		}
		groups = append(groups, group{"create " + fs, "", []contender{
			{"truncate, " + strings.Fields(makes)[0], "truncate -s $SIZE out; " + makes + " >/dev/null 2>&1 </dev/null"},
			{"**upkeep image create --fs " + fs + "**", "$U image create out --size $SIZE --fs " + fs},
		}})
	}
	return groups
}

// cloning are copies of a whole image.
func cloning(image string) []contender {
	all := []contender{
		{"cp --sparse=always", "cp --sparse=always IMAGE out"}, {"cp", "cp IMAGE out"}, {"dd conv=sparse", "dd if=IMAGE of=out bs=1M conv=sparse status=none"},
		{"qemu-img convert", "qemu-img convert -O raw IMAGE out"}, {"e2image -ra", "e2image -ra IMAGE out >/dev/null 2>&1"},
		{"partclone, to an image again", "partclone.ext4 -c -q -L /dev/null -s IMAGE -o - 2>/dev/null | partclone.restore -q -L /dev/null -C -W -s - -o out 2>/dev/null"},
		{"bmaptool copy", "bmaptool -q create -o tmp IMAGE; bmaptool -q copy --bmap tmp IMAGE out"},
		{"**upkeep image clone**", "$U image clone IMAGE out"},
	}
	for i := range all {
		all[i].line = strings.ReplaceAll(all[i].line, "IMAGE", image)
	}
	return all
}

// slow is measured once.
const slow = 15 * time.Second

// measure runs a group's contenders in turn, so that what else the machine does
// meets all of them.
func (b *bench) measure(ctx context.Context, g group) error {
	took := make(map[string][]time.Duration)
	result := make(map[string]string)
	for range b.rounds {
		for _, c := range g.by {
			if all := took[c.name]; result[c.name] == "failed" || len(all) > 0 && all[0] > slow {
				continue
			}
			if err := b.sh(ctx, "rm -f out tmp; sync; "+g.before); err != nil {
				return err
			}
			begun := time.Now()
			err := errors.Join(b.sh(ctx, c.line), flush(filepath.Join(b.work, "out")))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				result[c.name] = "failed"
				continue
			}
			took[c.name] = append(took[c.name], time.Since(begun))
			if result[c.name], err = described(filepath.Join(b.work, "out")); err != nil {
				return err
			}
		}
	}
	for _, c := range g.by {
		all := took[c.name]
		if len(all) == 0 {
			fmt.Printf("| %s | %s | - | - | %s |\n", g.name, c.name, result[c.name])
			continue
		}
		slices.Sort(all)
		fmt.Printf("| %s | %s | %s | %s to %s | %s |\n", g.name, c.name, seconds(all[len(all)/2]), seconds(all[0]), seconds(all[len(all)-1]), result[c.name])
	}
	return nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// flush writes a file to the disk.
func flush(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening what was made: %w", err)
	}
	defer file.Close()
	return file.Sync()
}

// described is the size of a file and what it takes.
func described(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("looking at what was made: %w", err)
	}
	text := fmt.Sprintf("%d MB", st.Size/1e6)
	if allocated := st.Blocks * 512; allocated < st.Size-1<<20 {
		text += fmt.Sprintf(", takes %d MB", allocated/1e6)
	}
	return text, nil
}
