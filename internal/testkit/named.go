package testkit

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// NamedConfig describes a BIND name server to start. In every text "{dir}"
// stands for the server's folder as named sees it and "{addr}" and "{port}" for
// where it listens.
type NamedConfig struct {
	// Files are written below the folder before the start, by relative path.
	Files map[string]string
	// Options stand inside the options statement, after those that every server
	// of this package has; Config after all other statements (zones, keys).
	Options, Config string
	// User to run as (named -u); the folder and what is in it are given to that
	// user. Empty means the caller's own.
	User string
	// Chroot makes the folder the server's root (named -t): "{dir}" is then "".
	Chroot bool
}

// Named is a running BIND name server.
type Named struct {
	// Dir is the server's folder as the test sees it.
	Dir string
	// Addr is where it answers, a port of 127.0.0.1: named listens on addresses
	// that an interface has, and of 127.0.0.0/8 that is the one.
	Addr string
	// RNDC is the command that controls it, program first.
	RNDC []string

	config  NamedConfig
	process *Process
}

// StartNamed starts a BIND name server in the foreground and waits until it
// runs. It is killed when the test ends; its log is shown if the test failed.
func StartNamed(t testing.TB, c NamedConfig) *Named {
	t.Helper()
	Need(t, "named", "rndc")
	// Unlike t.TempDir, a folder that another user may enter.
	dir, err := os.MkdirTemp("", "upkeep-named-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the folder of named: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n := &Named{Dir: dir, config: c}
	const ip = "127.0.0.1"
	port, control := FreePort(t), FreePort(t)
	n.Addr = fmt.Sprintf("%s:%d", ip, port)
	n.RNDC = []string{"rndc", "-c", filepath.Join(dir, "rndc.conf")}

	const key = `key "rndc" { algorithm hmac-sha256; secret "dXBrZWVwLXRlc3Qta2V5LXVwa2VlcC10ZXN0LWtleQ=="; };` + "\n"
	n.Write(t, "rndc.conf", key+fmt.Sprintf(
		"options { default-key \"rndc\"; default-server %s; default-port %d; };\n", ip, control))
	n.Write(t, "named.conf", key+fmt.Sprintf(`options {
	directory "{dir}/";
	pid-file "{dir}/named.pid"; session-keyfile "{dir}/session.key"; lock-file none;
	listen-on port %d { %s; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no; notify explicit;
	%s
};
controls { inet %s port %d allow { 127.0.0.0/8; } keys { "rndc"; }; };
%s
`, port, ip, c.Options, ip, control, c.Config))
	for name, text := range c.Files {
		n.Write(t, name, text)
	}
	if c.User != "" {
		if out, err := exec.Command("chown", "-R", c.User+":", dir).CombinedOutput(); err != nil {
			t.Fatalf("giving the folder of named to %s: %v\n%s", c.User, err, out)
		}
	}
	n.start(t)
	return n
}

func (n *Named) start(t testing.TB) {
	t.Helper()
	argv := []string{"named", "-g", "-4", "-n", "1", "-c", n.inside() + "/named.conf"}
	if n.config.User != "" {
		argv = append(argv, "-u", n.config.User)
	}
	if n.config.Chroot {
		argv = append(argv, "-t", n.Dir)
	}
	n.process = Start(t, argv...)
	Eventually(t, 20*time.Second, func() (bool, string) {
		log := n.process.Log()
		if !n.process.Running() {
			t.Fatalf("named ended:\n%s", log)
		}
		return strings.Contains(log, " running\n"), log
	})
	// named runs on when its port is taken, and answers nothing.
	if log := n.process.Log(); !strings.Contains(log, "listening on IPv4 interface") {
		t.Fatalf("named does not listen on %s:\n%s", n.Addr, log)
	}
}

// inside is the folder as named sees it.
func (n *Named) inside() string {
	if n.config.Chroot {
		return ""
	}
	return n.Dir
}

// Path is the path of a file of the server as the test sees it.
func (n *Named) Path(name string) string { return filepath.Join(n.Dir, name) }

// Write writes a file below the server's folder, placeholders replaced.
func (n *Named) Write(t testing.TB, name, text string) {
	t.Helper()
	addr := netip.MustParseAddrPort(n.Addr)
	text = strings.NewReplacer("{dir}", n.inside(), "{addr}", addr.Addr().String(), "{port}", fmt.Sprint(addr.Port())).Replace(text)
	path := n.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Log is what the server has logged since it was last started.
func (n *Named) Log() string { return n.process.Log() }

// Process is the server's process, for tests that freeze or kill it.
func (n *Named) Process() *Process { return n.process }

// Restart stops the server in good order and starts it again on the same files.
func (n *Named) Restart(t testing.TB) {
	t.Helper()
	n.process.Stop(10 * time.Second)
	n.start(t)
}

// Control runs rndc and returns its output; a failure fails the test.
func (n *Named) Control(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	path, err := Find(n.RNDC[0])
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, path, slices.Concat(n.RNDC[1:], args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("rndc %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
