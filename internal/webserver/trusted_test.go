package webserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// rootsFolder is a folder that nobody but root can change the way to, which those
// below /tmp are not.
func rootsFolder(t *testing.T) string {
	t.Helper()
	testkit.NeedRoot(t)
	dir, err := os.MkdirTemp("/var/lib", "upkeep-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A link that root has made to a file of root's, as Debian's sites-enabled has them, is
// read, on both servers: by their tests, for names, and anew when the file was edited.
func TestLinkInTheFolder(t *testing.T) {
	onBoth(t, func(t *testing.T, server func(testing.TB) *world) {
		dir := rootsFolder(t)
		w := server(t)
		_, apache := w.options.Server.(interface{ firstWins() })
		host := func(name string) string {
			if apache {
				return "<VirtualHost " + w.options.Address + ">\nServerName " + name + "\n</VirtualHost>\n"
			}
			return "server { listen " + w.options.Address + "; server_name " + name + "; return 418; }\n"
		}
		available, link := filepath.Join(dir, "available", "hand.conf"), filepath.Join(w.options.Layout.Include, "61-hand.conf")
		w.write(available, host("linked.test"), 0o644)
		if err := os.Symlink("available", filepath.Join(dir, "current")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(dir, "current", "..", "current", "hand.conf"), link); err != nil {
			t.Fatal(err)
		}
		w.mustApply(w.input("first.test", 1))
		taken := func(name string) {
			t.Helper()
			if r := w.apply(w.input(name, 1)); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), "not upkeep's") {
				t.Errorf("%s, which the linked file answers: %s, %v", name, r.State, r.Err)
			}
		}
		taken("linked.test")
		w.write(available, host("edited.test"), 0o644)
		w.mustApply(w.input("linked.test", 2))
		taken("edited.test")
		w.write(available, "NoSuchThing here;\n", 0o644)
		if r := w.apply(w.input("second.test", 1)); r.State != upkeep.JobFailed || !strings.Contains(r.Err.Error(), link+", which is not upkeep's, does not pass") {
			t.Errorf("with a linked file that does not pass: %s, %v", r.State, r.Err)
		}
		w.write(available, host("edited.test"), 0o644)
		if report := w.sync([]vhost.Input{w.input("first.test", 1), w.input("linked.test", 2)}); len(report.Drift) > 0 {
			t.Errorf("a regeneration tells of %d things", len(report.Drift))
		}
		if target, err := os.Readlink(link); err != nil || !strings.HasSuffix(target, "/current/hand.conf") {
			t.Errorf("the link leads to %q, %v", target, err)
		}
		w.mustApply(w.input("second.test", 2))

		// Others could decide what these lead to.
		refused := func(why string, undo func() error) {
			t.Helper()
			if r := w.apply(w.input("third.test", 1)); r.State != upkeep.JobFailed || !strings.Contains(withHint(r.Err).Error(), link+" is a link; move it away, or") {
				t.Errorf("%s: %s, %v", why, r.State, r.Err)
			}
			if err := undo(); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{available, filepath.Dir(available), dir} {
			mode := os.FileMode(0o755)
			if err := os.Chmod(path, 0o775); err != nil {
				t.Fatal(err)
			}
			refused(path+" that its group writes to", func() error { return os.Chmod(path, mode) })
			if err := os.Chown(path, 33, 0); err != nil {
				t.Fatal(err)
			}
			refused(path+" that is another's", func() error { return os.Chown(path, 0, 0) })
		}
		if err := os.Lchown(filepath.Join(dir, "current"), 33, 33); err != nil {
			t.Fatal(err)
		}
		refused("a link on the way that is another's", func() error { return os.Lchown(filepath.Join(dir, "current"), 0, 0) })
		w.mustApply(w.input("third.test", 2))
	})
}

// What is no file is not read behind a link either, wherever that leads.
func TestLinkLeadsToNoFile(t *testing.T) {
	dir := rootsFolder(t)
	link, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	for what, put := range map[string]func() error{
		"nothing": func() error { return nil }, "a FIFO": func() error { return unix.Mkfifo(target, 0o600) }, "a folder": func() error { return os.Mkdir(target, 0o755) },
		"itself": func() error { return os.Symlink("link", target) }, "a device": func() error { return os.Symlink("/dev/null", target) },
		"a file as a folder": func() error { return os.Symlink("/etc/passwd/x", target) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if s, is := followed(link); is {
			t.Errorf("%s: %+v", what, s)
		}
		if err := os.RemoveAll(target); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, is := followed(link); !is || s.path != link || s.inode != stampOf(target).inode {
		t.Errorf("a file: %+v, %v", s, is)
	}
}
