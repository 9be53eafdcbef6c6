package zone

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
)

// A full disk leaves the files of before whole.
func TestBindDiskFull(t *testing.T) {
	testkit.NeedRoot(t)
	lab := newBindLab(t, bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) {
		dir := n.Path("inc")
		files, err := readPair(dir)
		if err != nil {
			t.Fatal(err)
		}
		testkit.NeedThat(t, "mounting a tmpfs", syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=755"))
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		for _, f := range []include{files.ips, files.soa} {
			if err := os.WriteFile(f.path, f.text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}})
	serial := lab.publish(t, "192.0.2.1")
	before := lab.whole(t)
	filler := lab.Path("inc/filler")
	if err := os.WriteFile(filler, make([]byte, 64<<10), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	lab.refused(t, lab.content("192.0.2.2"), "no space left on device", "make room", "still whole")
	after := lab.whole(t)
	if !bytes.Equal(before.ips.text, after.ips.text) || !bytes.Equal(before.soa.text, after.soa.text) {
		t.Error("the files have changed")
	}
	lab.proven(t, serial, "192.0.2.1")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	lab.publish(t, "192.0.2.2")
	if left, _ := filepath.Glob(lab.Path("inc/.*upkeep*")); len(left) > 0 {
		t.Errorf("temporary files were left: %q", left)
	}
}

// Every state that a kill can leave on disk is repaired by the next publish of
// the same content, and again publishing is then a no-op.
func TestBindRepairsKilledPublish(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	last := lab.publish(t, "192.0.2.1")
	put := func(f include, text []byte) {
		staged, err := stage(f, text, time.Now())
		if err == nil {
			err = staged.commit()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []struct {
		name string
		do   func(disk pair, ips, soa []byte)
	}{
		{"temporary files left", func(disk pair, ips, soa []byte) {
			for _, f := range []include{disk.ips, disk.soa} {
				if _, err := stage(f, ips[:len(ips)/2], time.Now()); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"addresses new, serial old", func(disk pair, ips, soa []byte) { put(disk.ips, ips) }},
		{"addresses new, serial old, and loaded", func(disk pair, ips, soa []byte) {
			put(disk.ips, ips)
			lab.Control(t, "reload", "example.test")
		}},
		{"addresses new, serial old, and named restarted", func(disk pair, ips, soa []byte) {
			put(disk.ips, ips)
			lab.Restart(t)
		}},
		{"both new, not loaded", func(disk pair, ips, soa []byte) {
			put(disk.ips, ips)
			put(disk.soa, soa)
		}},
		{"both new and loaded", func(disk pair, ips, soa []byte) {
			put(disk.ips, ips)
			put(disk.soa, soa)
			lab.Control(t, "reload", "example.test")
		}},
		{"previous generation half kept", func(disk pair, ips, soa []byte) {
			if err := relink(disk.ips.path, disk.ips.path+previousSuffix); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := fmt.Sprintf("192.0.2.%d", i+2)
			content, err := lab.content(want).Normal()
			if err != nil {
				t.Fatal(err)
			}
			disk := lab.whole(t)
			ips := renderIPs(content)
			_, names, _ := disk.soa.soa()
			c.do(disk, ips, renderSOA(content.Zone, names, last+1, ips))
			// A new process knows nothing of the one that was killed.
			if err := lab.pub.Close(); err != nil {
				t.Fatal(err)
			}
			lab.pub = lab.publisher(t, lab.zone)
			serial := lab.publish(t, want)
			if !SerialLess(last, serial) {
				t.Errorf("serial %d after %d", serial, last)
			}
			lab.whole(t)
			if again := lab.publish(t, want); again != serial {
				t.Errorf("publishing again gave serial %d after %d", again, serial)
			}
			if left, _ := filepath.Glob(lab.Path("inc/.*upkeep*")); len(left) > 0 {
				t.Errorf("temporary files were left: %q", left)
			}
			last = serial
		})
	}
}

// killEnv makes the test binary the victim of TestBindKilled.
const killEnv = "UPKEEP_TEST_BIND_VICTIM"

// TestBindKilled kills a process that publishes all the time, at random
// instants. The files are then always whole, the serial never falls, and the
// next publish succeeds.
func TestBindKilled(t *testing.T) {
	if victim := os.Getenv(killEnv); victim != "" {
		bindVictim(t, victim)
		return
	}
	lab := newBindLab(t, bindSetup{})
	last := lab.publish(t, "192.0.2.1")
	for round := range 25 {
		ctx, cancel := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestBindKilled$", "-test.count=1")
		cmd.Env = append(os.Environ(), killEnv+"="+strings.Join([]string{lab.Dir, lab.Addr}, " "))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// Its first line says that it has begun to publish.
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatalf("the victim did not start: %v", err)
		}
		<-time.After(time.Duration(rand.IntN(120)) * time.Millisecond)
		cancel() // kill -9
		_ = cmd.Wait()

		disk, err := readPair(lab.Path("inc"))
		if err != nil {
			t.Fatal(err)
		}
		if !disk.ips.intact() || !disk.soa.intact() {
			t.Fatalf("round %d: an include file is not whole:\n%s\n%s", round, disk.soa.text, disk.ips.text)
		}
		served := lab.served(t)
		if SerialLess(served, last) {
			t.Fatalf("round %d: serial %d is served after %d", round, served, last)
		}
		last = lab.publish(t, fmt.Sprintf("192.0.2.%d", 100+round))
		if !SerialLess(served, last) {
			t.Fatalf("round %d: serial %d after %d", round, last, served)
		}
		lab.whole(t)
	}
}

// victimPublisher is the lab's publisher in another process.
func victimPublisher(t *testing.T, victim string) (upkeep.Zone, *BindPublisher) {
	dir, addr, _ := strings.Cut(victim, " ")
	z := upkeep.Zone{Name: "example.test", Publishers: []upkeep.Publisher{{
		Type: upkeep.PublishBind, ZoneFile: dir + "/db.example.test", IncludeDir: dir + "/inc",
		RNDC: []string{"rndc", "-c", dir + "/rndc.conf"}, Server: addr,
	}}}.WithDefaults()
	pub, err := NewBind(BindOptions{}).Publisher(z, z.Publishers[0])
	if err != nil {
		t.Fatal(err)
	}
	return z, pub
}

func bindVictim(t *testing.T, victim string) {
	z, pub := victimPublisher(t, victim)
	for i := 0; ; i++ {
		fmt.Println("publishing", i)
		c := Content{Zone: z, Sets: poolSets(fmt.Sprintf("203.0.113.%d", i%250+1), "203.0.113.251")}
		if _, err := pub.Publish(t.Context(), c); err != nil {
			t.Log(err) // rndc killed with us in the middle of its work
		}
	}
}

// An edit by somebody else is reported and kept before it is written over.
func TestBindForeignEdit(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	serial := lab.publish(t, "192.0.2.1")
	// The files of the first publish were somebody else's too.
	if len(lab.said) != 1 || !strings.Contains(lab.said[0], "somebody else has changed the include files") {
		t.Errorf("notices of the first publish: %q", lab.said)
	}
	lab.said = nil
	path := lab.Path("inc/ips.include")
	edited := lab.read(t, "inc/ips.include") + "@ 60 IN A 203.0.113.66\n"
	if err := os.WriteFile(path, []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	lab.Control(t, "reload", "example.test")
	if next := lab.publish(t, "192.0.2.1"); !SerialLess(serial, next) {
		t.Errorf("serial %d after %d", next, serial)
	}
	if len(lab.said) != 1 || !strings.Contains(lab.said[0], "somebody else has changed") {
		t.Fatalf("notices: %q", lab.said)
	}
	copies, _ := filepath.Glob(path + ".found-*")
	kept := false
	for _, name := range copies {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		kept = kept || string(text) == edited
	}
	if !kept {
		t.Errorf("the edited file was not kept; copies: %q", copies)
	}
}

// While named is down the files are made ready for its start.
func TestBindNamedDown(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	first := lab.publish(t, "192.0.2.1")
	lab.Process().Kill()
	lab.refused(t, lab.content("192.0.2.2"), "named does not answer rndc", "is named running")
	lab.refused(t, lab.content("192.0.2.3"), "named does not answer rndc")
	lab.whole(t)
	lab.Restart(t)
	served := lab.served(t)
	if !SerialLess(first, served) {
		t.Errorf("serial %d after %d", served, first)
	}
	lab.proven(t, served, "192.0.2.3")
	if again := lab.publish(t, "192.0.2.3"); again != served {
		t.Errorf("publishing what is served gave serial %d after %d", again, served)
	}
}

// A named that hangs must not be rolled back, nor hang the publisher.
func TestBindNamedHangs(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	lab.publish(t, "192.0.2.1")
	lab.Process().Signal(t, syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := lab.pub.Publish(ctx, lab.content("192.0.2.2")); err == nil {
		t.Error("publishing succeeded while named stood still")
	}
	lab.Process().Signal(t, syscall.SIGCONT)
	lab.publish(t, "192.0.2.2")
}

func TestBindRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		setup bindSetup
		want  []string
	}{
		"another server": {
			setup: bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) {
				z.Publishers[0].Server = testkit.StartNamed(t, testkit.NamedConfig{}).Addr
			}},
			want: []string{"REFUSED", "set server of the publisher"},
		},
		"wrong rndc key": {
			setup: bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) {
				conf, err := os.ReadFile(n.Path("rndc.conf"))
				if err != nil {
					t.Fatal(err)
				}
				n.Write(t, "wrong.conf", strings.Replace(string(conf), `secret "dXB`, `secret "AAA`, 1))
				z.Publishers[0].RNDC = []string{"rndc", "-c", n.Path("wrong.conf")}
			}},
			want: []string{"the key of rndc is not that of named"},
		},
		"no rndc": {
			setup: bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].RNDC = []string{"no-such-rndc"} }},
			want:  []string{"install rndc"},
		},
		"unknown zone": {
			setup: bindSetup{named: testkit.NamedConfig{Config: "#"}},
			want:  []string{"named has no such zone"},
		},
		"secondary": {
			setup: bindSetup{named: testkit.NamedConfig{
				Config: `zone "example.test" { type secondary; file "{dir}/db.example.test"; masterfile-format text; primaries { 127.0.0.1 port 1; }; };`,
				Files:  map[string]string{"db.example.test": "$TTL 60\n@ IN SOA ns1 hostmaster 7 300 60 86400 60\n@ IN NS ns1\nns1 IN A 192.0.2.53\n"},
			}},
			want: []string{"named is secondary"},
		},
		"two views": {
			setup: bindSetup{named: testkit.NamedConfig{
				Config: `view "one" { match-clients { 127.0.0.1; }; ` + primaryZone + ` }; view "two" { ` + primaryZone + ` };`,
			}},
			want: []string{"set view on the publisher"},
		},
		"no includes": {
			setup: bindSetup{named: testkit.NamedConfig{
				Files: map[string]string{"db.example.test": "$TTL 60\n@ IN SOA ns1 hostmaster 7 300 60 86400 60\n@ IN NS ns1\nns1 IN A 192.0.2.53\n"},
			}},
			want: []string{"has no line $INCLUDE", "inc/soa.include", "upkeep zone adopt"},
		},
		"included from elsewhere": {
			setup: bindSetup{named: testkit.NamedConfig{Files: map[string]string{
				"db.example.test":   strings.ReplaceAll(includedZone, "/inc/", "/other/"),
				"other/soa.include": "$TTL 60\n@ IN SOA ns1 hostmaster 7 300 60 86400 60\n",
				"other/ips.include": "@ IN A 192.0.2.1\n",
			}}},
			want: []string{"has no line $INCLUDE"},
		},
		"no such zone file": {
			setup: bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].ZoneFile = n.Path("nothing") }},
			want:  []string{"reading zone file", "no such file"},
		},
		"no such include directory": {
			setup: bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].IncludeDir = n.Path("nothing") }},
			want:  []string{"opening include_dir", "make the directory"},
		},
		"alias at the owner": {
			setup: bindSetup{named: testkit.NamedConfig{Files: map[string]string{"db.example.test": includedZone + "* IN CNAME mail\n"}}},
			want:  []string{"CNAME and other data", "nothing was written"},
		},
		"own checker refuses": {
			setup: bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].Checkzone = []string{"false"} }},
			want:  []string{"checking the zone"},
		},
		"own checker missing": {
			setup: bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].Checkzone = []string{"no-such-checker"} }},
			want:  []string{"checkzone of the publisher must name a program"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := newBindLab(t, c.setup)
			before := lab.read(t, "inc/ips.include")
			lab.refused(t, lab.content("192.0.2.2"), c.want...)
			if after := lab.read(t, "inc/ips.include"); after != before {
				t.Error("the include file was written all the same")
			}
		})
	}
}

// In one of several views the zone is reloaded where view says.
func TestBindView(t *testing.T) {
	lab := newBindLab(t, bindSetup{
		named: testkit.NamedConfig{
			Files:  map[string]string{"db.other": "$TTL 60\n@ IN SOA ns1 hostmaster 7 300 60 86400 60\n@ IN NS ns1\nns1 IN A 192.0.2.53\n"},
			Config: `view "in" { match-clients { 127.0.0.1; }; ` + primaryZone + ` }; view "out" { zone "example.test" { type primary; file "{dir}/db.other"; }; };`,
		},
		edit: func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].View = "in" },
	})
	lab.publish(t, "192.0.2.1")
	lab.publish(t, "192.0.2.2")
}

// Without zone_file the zone is checked all the same: rndc tells the file.
func TestBindZoneFileFromNamed(t *testing.T) {
	lab := newBindLab(t, bindSetup{
		named: testkit.NamedConfig{Files: map[string]string{"db.example.test": includedZone + "* IN CNAME mail\n"}},
		edit:  func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].ZoneFile = "" },
	})
	lab.refused(t, lab.content("192.0.2.2"), "CNAME and other data")
}

// An address that the zone file has of its own is answered beside the pool's.
func TestBindAddressBesideThePool(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{Files: map[string]string{"db.example.test": includedZone + "@ IN A 192.0.2.99\n"}}})
	serial, err := lab.pub.Publish(t.Context(), lab.content("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(lab.said, func(s string) bool { return strings.Contains(s, "example.test A 192.0.2.99") }) {
		t.Errorf("notices: %q", lab.said)
	}
	status := Prove(t.Context(), lab.Addr, "example.test", serial, poolSets("192.0.2.1"))
	if status.InSync || !strings.Contains(status.Error, "still has 192.0.2.99") {
		t.Errorf("the proof is %+v", status)
	}
}

// fail_open: none empties the pool: the names cease to exist.
func TestBindEmptySet(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	lab.publish(t, "192.0.2.1")
	lab.publish(t)
	lab.whole(t)
	lab.publish(t, "192.0.2.2")
}

// What decides who may read a file is kept; a link stays a link.
func TestBindKeepsAttributes(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	path := lab.Path("inc/ips.include")
	target := lab.Path("real.include")
	if err := os.Rename(path, target); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	acl := accessList()
	testkit.NeedThat(t, "a file system with access lists", unix.Setxattr(target, "system.posix_acl_access", acl, 0))
	if err := os.Chmod(target, 0o664); err != nil {
		t.Fatal(err)
	}
	lab.publish(t, "192.0.2.1")
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	info, err := os.Stat(target)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o664 {
		t.Errorf("mode %#o, want 0664", info.Mode().Perm())
	}
	got := make([]byte, 256)
	n, err := unix.Getxattr(target, "system.posix_acl_access", got)
	if err != nil || n != len(acl) {
		t.Errorf("the access list is gone: %d bytes, %v", n, err)
	}
}

// accessList is user::rw-, user:65534:r--, group::r--, mask::rw-, other::r-- in
// the kernel's form (include/uapi/linux/posix_acl_xattr.h).
func accessList() []byte {
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, ^uint32(0)}, {2, 4, 65534}, {4, 4, ^uint32(0)}, {0x10, 6, ^uint32(0)}, {0x20, 4, ^uint32(0)}} {
		acl = binary.LittleEndian.AppendUint16(acl, e.tag)
		acl = binary.LittleEndian.AppendUint16(acl, e.perm)
		acl = binary.LittleEndian.AppendUint32(acl, e.id)
	}
	return acl
}

// Another process at work in the directory is waited for.
func TestBindLockedDirectory(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	unlock, err := lockDir(lab.Path("inc"), nil)
	if err != nil {
		t.Fatal(err)
	}
	// What comes before the lock takes as long as the machine is busy.
	for patience := time.Second; ; patience *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err = lab.pub.Publish(ctx, lab.content("192.0.2.1"))
		cancel()
		if patience > 20*time.Second || err == nil || strings.Contains(err.Error(), "another process") {
			break
		}
	}
	demandError(t, err, "another process is writing there")
	unlock()
	lab.publish(t, "192.0.2.1")
}

// When the served SOA cannot be asked, rndc tells the serial, and a listed server
// that answers is named with the line to write.
func TestBindServerDropsQuestions(t *testing.T) {
	deaf, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	lab := newBindLab(t, bindSetup{
		bind: BindOptions{Settle: 500 * time.Millisecond},
		edit: func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].Server = deaf.LocalAddr().String() },
	})
	lab.refused(t, lab.content("192.0.2.1"), "named has loaded serial", "does not answer it", "is server of the publisher", "write server: \""+lab.Addr+"\"")
	lab.proven(t, lab.served(t), "192.0.2.1")
}
