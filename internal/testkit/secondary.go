package testkit

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// SecondaryConfig describes a name server that gets one zone from a primary.
type SecondaryConfig struct {
	Kind    string // "named", "nsd" or "knotd"
	Zone    string // without a final dot
	Primary netip.AddrPort
	// Key signs transfers and notifies with hmac-sha256, if it has a name; the
	// secret is in base64.
	KeyName, KeySecret string
	// Options stand inside the options statement of named.
	Options string
}

// Secondary is a running name server that follows a primary.
type Secondary struct {
	// Addr is where it answers and expects NOTIFY, at 127.0.0.1; its transfers come
	// from there too.
	Addr netip.AddrPort

	argv    []string
	process *Process
}

// StartSecondary starts a name server in the foreground. It is killed when the
// test ends; its log is shown if the test failed. It may not answer yet when
// StartSecondary returns.
func StartSecondary(t testing.TB, c SecondaryConfig) *Secondary {
	t.Helper()
	Need(t, c.Kind)
	s := &Secondary{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(FreePort(t)))}
	dir := t.TempDir()
	text, argv := map[string]func(SecondaryConfig, *Secondary, string) (string, []string){
		"named": secondaryNamed, "nsd": secondaryNSD, "knotd": secondaryKnot,
	}[c.Kind](c, s, dir)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.argv = argv
	s.process = Start(t, argv...)
	return s
}

// Log is what the server has logged since it was last started.
func (s *Secondary) Log() string { return s.process.Log() }

// Process is the server's process, for tests that freeze or kill it.
func (s *Secondary) Process() *Process { return s.process }

// Start starts the server again on the same files after it was killed.
func (s *Secondary) Start(t testing.TB) { s.process = Start(t, s.argv...) }

func secondaryNamed(c SecondaryConfig, s *Secondary, dir string) (string, []string) {
	key, use := "", ""
	if c.KeyName != "" {
		key = fmt.Sprintf("key \"%s\" { algorithm hmac-sha256; secret \"%s\"; };\n", c.KeyName, c.KeySecret)
		use = fmt.Sprintf(" key \"%s\"", c.KeyName)
	}
	ip, port := s.Addr.Addr(), s.Addr.Port()
	return key + fmt.Sprintf(`options {
	directory "%s"; pid-file none; session-keyfile none; lock-file none;
	listen-on port %d { %s; }; listen-on-v6 { none; };
	transfer-source %[3]s; notify-source %[3]s; query-source address %[3]s;
	recursion no; dnssec-validation no; empty-zones-enable no; notify no; %s
};
controls { };
zone "%s" { type secondary; file "zone"; primaries { %s port %d%s; }; };
`, dir, port, ip, c.Options, c.Zone, c.Primary.Addr(), c.Primary.Port(), use), []string{"named", "-g", "-4", "-n", "1", "-c", filepath.Join(dir, "config")}
}

func secondaryNSD(c SecondaryConfig, s *Secondary, dir string) (string, []string) {
	key, use := "", "NOKEY"
	if c.KeyName != "" {
		key = fmt.Sprintf("key:\n\tname: \"%s\"\n\talgorithm: hmac-sha256\n\tsecret: \"%s\"\n", c.KeyName, c.KeySecret)
		use = c.KeyName
	}
	return fmt.Sprintf(`server:
	ip-address: %s
	port: %d
	server-count: 1
	username: ""
	database: ""
	zonesdir: "%s"
	zonelistfile: "%[3]s/zone.list"
	xfrdfile: "%[3]s/xfrd.state"
	xfrdir: "%[3]s"
	pidfile: "%[3]s/nsd.pid"
	verbosity: 3
remote-control:
	control-enable: no
%[4]szone:
	name: "%[5]s"
	zonefile: "%[3]s/zone"
	allow-notify: %[6]s %[8]s
	request-xfr: %[6]s@%[7]d %[8]s
	outgoing-interface: %[1]s
`, s.Addr.Addr(), s.Addr.Port(), dir, key, c.Zone, c.Primary.Addr(), c.Primary.Port(), use),
		[]string{"nsd", "-d", "-c", filepath.Join(dir, "config")}
}

func secondaryKnot(c SecondaryConfig, s *Secondary, dir string) (string, []string) {
	key, use := "", ""
	if c.KeyName != "" {
		key = fmt.Sprintf("key:\n  - id: %s\n    algorithm: hmac-sha256\n    secret: %s\n", c.KeyName, c.KeySecret)
		use = "    key: " + c.KeyName + "\n"
	}
	// The databases reserve gigabytes of address space by default.
	return fmt.Sprintf(`server:
    rundir: "%s"
    listen: %s@%d
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "%[1]s"
    journal-db-max-size: 64M
    kasp-db-max-size: 16M
    timer-db-max-size: 16M
%[4]sremote:
  - id: primary
    address: %[5]s@%[6]d
    via: %[2]s
%[7]sacl:
  - id: notify
    address: %[5]s
    action: notify
%[7]szone:
  - domain: %[8]s
    file: "%[1]s/zone"
    master: primary
    acl: notify
`, dir, s.Addr.Addr(), s.Addr.Port(), key, c.Primary.Addr(), c.Primary.Port(), use, c.Zone),
		[]string{"knotd", "-c", filepath.Join(dir, "config")}
}
