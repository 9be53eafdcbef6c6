package upkeep

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestDecodeObjectRoundTrip(t *testing.T) {
	no, window := false, Duration(0)
	pool := Pool{
		Name: "web", Zones: []string{"example.test"}, Records: []string{"@", "*"}, TTL: Duration(time.Minute),
		Members: []Member{
			{Address: netip.MustParseAddr("127.0.0.11")},
			{Address: netip.MustParseAddr("2001:db8::1"), CheckAddress: "host.example.org", CheckPort: 81, Backup: true},
		},
		Check: Check{Type: CheckHTTP, MaxFalse: Rate{Count: 2, Per: 30 * Day}, Burst: &no,
			Status: []StatusRange{{200, 200}, {300, 399}}, Header: map[string]string{"X-A": "b"}},
		Policy: Policy{HealthyFraction: 0.1, AddWindow: &window, Anchors: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
	}
	zone := Zone{
		Name: "example.test", Servers: []string{"127.0.0.1:53"}, SOA: SOA{Minimum: Duration(time.Second)},
		Publishers: []Publisher{{Type: PublishTransfer, AllowTransfer: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		Records:    []Record{{Name: "@", Type: "NS", Value: "ns1"}},
	}
	for _, object := range []Object{pool, zone} {
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeObject(object.ObjectKind(), text)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, object) {
			t.Errorf("%s\nread back as\n%+v\nwant\n%+v", text, got, object)
		}
	}
}

func TestDecodeObjectShortMember(t *testing.T) {
	got, err := DecodeObject(KindPool, []byte(`{"name":"web","members":["192.0.2.1",{"address":"192.0.2.2","backup":true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Member{{Address: netip.MustParseAddr("192.0.2.1")}, {Address: netip.MustParseAddr("192.0.2.2"), Backup: true}}
	if members := got.(Pool).Members; !reflect.DeepEqual(members, want) {
		t.Errorf("members %+v, want %+v", members, want)
	}
}

func TestDecodeObjectRefuses(t *testing.T) {
	for kind, text := range map[string]string{
		"house":        `{}`,
		KindPool:       `{"name":"web","colour":"red"}`,
		KindZone:       `{"name":"a"} {"name":"b"}`,
		KindPool + " ": `{}`,
	} {
		if got, err := DecodeObject(kind, []byte(text)); err == nil {
			t.Errorf("%s %s was read as %+v", kind, text, got)
		}
	}
	for _, member := range []string{`"nowhere"`, `{"address":"192.0.2.1","colour":"red"}`, `7`, `{`} {
		if got, err := DecodeObject(KindPool, []byte(`{"name":"web","members":[`+member+`]}`)); err == nil {
			t.Errorf("member %s was read as %+v", member, got)
		}
	}
}

func TestZeroObjectsAreTheKinds(t *testing.T) {
	if len(zeroObjects) != len(Kinds) {
		t.Errorf("%d kinds listed, %d with a type", len(Kinds), len(zeroObjects))
	}
	for _, kind := range Kinds {
		if zero, known := ZeroObject(kind); !known || zero.ObjectKind() != kind {
			t.Errorf("%s has the zero object %#v", kind, zero)
		}
	}
}
