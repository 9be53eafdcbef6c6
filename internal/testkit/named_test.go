package testkit

import (
	"strings"
	"testing"
)

const staticZone = `$TTL 60
@ IN SOA ns1 hostmaster 1 300 60 86400 60
@ IN NS ns1
ns1 IN A 192.0.2.53
`

func TestNamed(t *testing.T) {
	n := StartNamed(t, NamedConfig{
		Files:  map[string]string{"db.example.test": staticZone},
		Config: `zone "example.test" { type primary; file "{dir}/db.example.test"; };`,
	})
	n.Restart(t)
	if status := n.Control(t, "zonestatus", "example.test"); !strings.Contains(status, "serial: 1\n") {
		t.Errorf("zonestatus says\n%s", status)
	}
}

func TestNamedChrooted(t *testing.T) {
	NeedRoot(t)
	n := StartNamed(t, NamedConfig{
		User: "bind", Chroot: true,
		Files:  map[string]string{"var/bind/db.example.test": staticZone},
		Config: `zone "example.test" { type primary; file "/var/bind/db.example.test"; };`,
	})
	if status := n.Control(t, "zonestatus", "example.test"); !strings.Contains(status, "serial: 1\n") {
		t.Errorf("zonestatus says\n%s", status)
	}
}
