package nameserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"upkeep/internal/testkit/netlab"
)

// controlKey is the key of the control channel. It protects nothing: the network
// is the test's own.
var controlKey = Key{Name: "rndc-key", Secret: "dXBrZWVwIHRlc3QgY29udHJvbCBrZXkgMDEyMzQ1Njc="}

func configureBIND(host *netlab.Host, dir string, zones []Zone) ([]string, error) {
	c := &strings.Builder{}
	fmt.Fprintf(c, `options {
	directory "%s"; pid-file "named.pid"; session-keyfile "session.key"; managed-keys-directory "%[1]s";
	listen-on port 53 { any; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no; allow-transfer { any; };
};
%scontrols { inet * port 953 allow { any; } keys { "%s"; }; };
`, dir, controlKey.Text(), controlKey.Name)
	for _, zone := range zones {
		if zone.Key != nil {
			c.WriteString(zone.Key.Text())
		}
		fmt.Fprintf(c, "zone \"%s\" {\n\tfile \"db.%[1]s\";\n", zone.Name)
		if zone.Primary == nil {
			fmt.Fprintf(c, "\ttype primary; notify explicit; also-notify { %s};\n", addresses(zone.Notify, "; "))
			if zone.Key != nil {
				fmt.Fprintf(c, "\tallow-update { key \"%s\"; };\n", zone.Key.Name)
			}
		} else {
			signed := ""
			if zone.Key != nil {
				signed = fmt.Sprintf(" key \"%s\"", zone.Key.Name)
			}
			fmt.Fprintf(c, "\ttype secondary; notify no; primaries { %s%s; };\n", zone.Primary.Addr, signed)
		}
		c.WriteString("};\n")
	}
	control := fmt.Sprintf("%soptions { default-server %s; default-port 953; default-key \"%s\"; };\n",
		controlKey.Text(), host.Addr, controlKey.Name)
	if err := write(dir, "rndc.conf", control); err != nil {
		return nil, err
	}
	return []string{"named", "-g", "-n", "1", "-U", "1", "-c", filepath.Join(dir, "named.conf")}, write(dir, "named.conf", c.String())
}

func addresses(hosts []*netlab.Host, end string) string {
	b := &strings.Builder{}
	for _, h := range hosts {
		b.WriteString(h.Addr.String() + end)
	}
	return b.String()
}

func configureNSD(host *netlab.Host, dir string, zones []Zone) ([]string, error) {
	c := &strings.Builder{}
	fmt.Fprintf(c, `server:
	ip-address: %s
	port: 53
	server-count: 1
	username: ""
	database: ""
	zonesdir: "%s"
	zonelistfile: "%[2]s/zone.list"
	xfrdfile: "%[2]s/xfrd.state"
	xfrdir: "%[2]s"
	pidfile: "%[2]s/nsd.pid"
remote-control:
	control-enable: no
`, host.Addr, dir)
	for _, zone := range zones {
		key := "NOKEY"
		if zone.Key != nil {
			key = zone.Key.Name
			fmt.Fprintf(c, "key:\n\tname: \"%s\"\n\talgorithm: hmac-sha256\n\tsecret: \"%s\"\n", zone.Key.Name, zone.Key.Secret)
		}
		fmt.Fprintf(c, "zone:\n\tname: \"%s\"\n\tzonefile: \"db.%[1]s\"\n", zone.Name)
		if zone.Primary != nil {
			fmt.Fprintf(c, "\tallow-notify: %s %s\n\trequest-xfr: %[1]s %[2]s\n", zone.Primary.Addr, key)
		}
	}
	return []string{"nsd", "-d", "-c", filepath.Join(dir, "nsd.conf")}, write(dir, "nsd.conf", c.String())
}

func configureKnot(host *netlab.Host, dir string, zones []Zone) ([]string, error) {
	keys, remotes, acls, served := &strings.Builder{}, &strings.Builder{}, &strings.Builder{}, &strings.Builder{}
	for i, zone := range zones {
		fmt.Fprintf(served, "  - domain: %s\n    file: \"%s/db.%[1]s\"\n", zone.Name, dir)
		if zone.Primary == nil {
			continue
		}
		key := ""
		if zone.Key != nil {
			key = fmt.Sprintf("    key: %s\n", zone.Key.Name)
			fmt.Fprintf(keys, "  - id: %s\n    algorithm: hmac-sha256\n    secret: %s\n", zone.Key.Name, zone.Key.Secret)
		}
		fmt.Fprintf(remotes, "  - id: primary%d\n    address: %s@53\n%s", i, zone.Primary.Addr, key)
		fmt.Fprintf(acls, "  - id: notify%d\n    address: %s\n    action: notify\n%s", i, zone.Primary.Addr, key)
		fmt.Fprintf(served, "    master: primary%d\n    acl: notify%[1]d\n", i)
	}
	c := &strings.Builder{}
	// The databases reserve gigabytes of address space by default, for each server.
	fmt.Fprintf(c, `server:
    rundir: "%s"
    listen: %s@53
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
`, dir, host.Addr)
	for _, section := range []struct {
		name string
		text *strings.Builder
	}{{"key", keys}, {"remote", remotes}, {"acl", acls}, {"zone", served}} {
		if section.text.Len() > 0 {
			fmt.Fprintf(c, "%s:\n%s", section.name, section.text)
		}
	}
	return []string{"knotd", "-c", filepath.Join(dir, "knot.conf")}, write(dir, "knot.conf", c.String())
}

func write(dir, name, text string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
}
