package upkeep

import (
	"net/netip"
	"testing"
)

func TestCheckAllSharedIncludes(t *testing.T) {
	zone := func(name string, change func(z *Zone)) Zone {
		z := Zone{Name: name, Publishers: []Publisher{{Type: PublishBind, IncludeDir: "/var/bind/pool"}}}
		if change != nil {
			change(&z)
		}
		return z
	}
	pool := func(name string, zones ...string) Pool {
		return Pool{Name: name, Zones: zones, Records: []string{"@", "*"}, Members: []Member{{Address: netip.MustParseAddr("192.0.2.1")}},
			Check: Check{Type: CheckPing}}
	}
	for name, c := range map[string]struct {
		objects []Object
		want    string // the rule broken, "" for none
	}{
		"same pools": {objects: []Object{zone("a.test", nil), zone("b.test", nil), pool("web", "a.test", "b.test")}},
		"no pools":   {objects: []Object{zone("a.test", nil), zone("b.test", nil)}},
		"another pool": {
			objects: []Object{zone("a.test", nil), zone("b.test", nil), pool("web", "a.test"), pool("mail", "b.test")},
			want:    "is shared with zone a.test, so the same pools must name both zones: here mail, there web",
		},
		"one has no pool": {
			objects: []Object{zone("a.test", nil), zone("b.test", nil), pool("web", "a.test")},
			want:    "is shared with zone a.test, so the same pools must name both zones: here none, there web",
		},
		"another ttl": {
			objects: []Object{zone("a.test", nil), zone("b.test", func(z *Zone) { z.TTL = Duration(Day) })},
			want:    "is shared with zone a.test, so both must have the same ttl and soa",
		},
		"one mailbox for both": {
			objects: []Object{
				zone("a.test", func(z *Zone) { z.SOA.RName = "hostmaster.a.test" }), zone("b.test", func(z *Zone) { z.SOA.RName = "hostmaster.a.test" }),
			},
		},
		"each its own mailbox": {
			objects: []Object{
				zone("a.test", func(z *Zone) { z.SOA.RName = "dns.a.test" }), zone("b.test", func(z *Zone) { z.SOA.RName = "dns.b.test" }),
			},
		},
		"different mailboxes": {
			objects: []Object{zone("a.test", nil), zone("b.test", func(z *Zone) { z.SOA.RName = "dns.example.org" })},
			want:    "is shared with zone a.test, so both must have the same ttl and soa",
		},
		"seen from both sides of a chroot": {
			objects: []Object{
				zone("a.test", func(z *Zone) {
					z.Publishers[0].Chroot, z.Publishers[0].IncludeDir = "/chroot/dns", "/chroot/dns/var/bind/"
				}),
				zone("b.test", func(z *Zone) {
					z.Publishers[0].Chroot, z.Publishers[0].IncludeDir = "/chroot/dns", "/var/bind"
				}),
				pool("web", "b.test"),
			},
			want: "is shared with zone a.test, so the same pools must name both zones: here web, there none",
		},
		"twice in one zone": {
			objects: []Object{zone("a.test", func(z *Zone) { z.Publishers = append(z.Publishers, z.Publishers[0]) })},
			want:    "is used by two publishers of this zone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := CheckAll(c.objects)
			if c.want == "" {
				if len(found) > 0 {
					t.Errorf("refused: %v", found)
				}
				return
			}
			if len(found) != 1 || found[0].Rule != c.want {
				t.Errorf("found %v, want one: %s", found, c.want)
			}
		})
	}
}
