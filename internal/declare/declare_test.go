package declare

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"upkeep"
)

const example = `kind: zone
name: example.test
publishers:
  - {type: transfer, secondaries: ["127.0.0.1:5302"], tsig: keyfile}     # all but type optional
  - {type: bind, zone_file: db.example.test, include_dir: dir, rndc: ["rndc", "-c", "rndc.conf"]}
  - {type: update, server: "127.0.0.1:53", key: keyfile}
servers: ["127.0.0.1:5301", "127.0.0.1:5302"]      # asked after each publish
records: [{name: ns1, type: A, value: 192.0.2.53}, {name: "@", type: NS, value: ns1}]   # what transfer serves beside the pools
---
kind: pool
name: web
zones: [example.test]
records: ["@", "*", "www"]
ttl: 60s
members:
  - 127.0.0.11
  - {address: 127.0.0.12, check_address: 127.0.0.12, backup: false}
check: {type: tcp, port: 8081, interval: 1s, timeout: 500ms}          # adaptive; or fall: 3, ok_reset: 3, rise: 5
policy: {fail_open: all, healthy_fraction: 0.5, anchors: ["127.0.0.1"]}
`

var comparable = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestReadExample(t *testing.T) {
	want := []upkeep.Object{
		upkeep.Zone{
			Name: "example.test",
			Publishers: []upkeep.Publisher{
				{Type: "transfer", Secondaries: []string{"127.0.0.1:5302"}, TSIG: "keyfile"},
				{Type: "bind", ZoneFile: "db.example.test", IncludeDir: "dir", RNDC: []string{"rndc", "-c", "rndc.conf"}},
				{Type: "update", Server: "127.0.0.1:53", Key: "keyfile"},
			},
			Servers: []string{"127.0.0.1:5301", "127.0.0.1:5302"},
			Records: []upkeep.Record{{Name: "ns1", Type: "A", Value: "192.0.2.53"}, {Name: "@", Type: "NS", Value: "ns1"}},
		},
		upkeep.Pool{
			Name: "web", Zones: []string{"example.test"}, Records: []string{"@", "*", "www"}, TTL: upkeep.Duration(time.Minute),
			Members: []upkeep.Member{{Address: addr("127.0.0.11")}, {Address: addr("127.0.0.12"), CheckAddress: "127.0.0.12"}},
			Check:   upkeep.Check{Type: "tcp", Port: 8081, Interval: upkeep.Duration(time.Second), Timeout: upkeep.Duration(500 * time.Millisecond)},
			Policy:  upkeep.Policy{FailOpen: "all", HealthyFraction: 0.5, Anchors: []netip.Addr{addr("127.0.0.1")}},
		},
	}
	for name, text := range map[string]string{
		"as it is":         example,
		"CRLF":             strings.ReplaceAll(example, "\n", "\r\n"),
		"byte order mark":  "\uFEFF" + example,
		"empty documents":  "---\n# nothing here\n---\n" + example + "---\n...\n---\n",
		"tabs in comments": strings.ReplaceAll(example, "     # ", "\t#\t"),
	} {
		got, err := Read("x.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(want, got, comparable); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

const written = `kind: zone
name: example.test
publishers:
  - type: transfer
    secondaries: ["127.0.0.1:5302"]
    tsig: keyfile
  - type: bind
    zone_file: db.example.test
    include_dir: dir
    rndc: [rndc, "-c", rndc.conf]
  - type: update
    server: "127.0.0.1:53"
    key: keyfile
servers: ["127.0.0.1:5301", "127.0.0.1:5302"]
records:
  - name: ns1
    type: A
    value: 192.0.2.53
  - name: "@"
    type: NS
    value: ns1
---
kind: pool
name: web
zones: [example.test]
records: ["@", "*", www]
ttl: 1m
members:
  - 127.0.0.11
  - address: 127.0.0.12
    check_address: 127.0.0.12
check:
  type: tcp
  port: 8081
  interval: 1s
  timeout: 500ms
policy:
  fail_open: all
  healthy_fraction: 0.5
  anchors: [127.0.0.1]
`

func TestWriteExample(t *testing.T) {
	objects, err := Read("x.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := Write(&text, objects...); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(written, text.String()); diff != "" {
		t.Error(diff)
	}
}

func TestReadNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "---\n", "# a comment\n", "---\n---\n...\n", "null\n", "\uFEFF"} {
		if got, err := Read("x.yaml", []byte(text)); err != nil || len(got) != 0 {
			t.Errorf("%q was read as %v, %v", text, got, err)
		}
	}
}

// document is a pool with lines of the test's own; %s is line 6.
const document = "kind: pool\nname: web\nzones: [a.test]\nrecords: [www]\nmembers: [192.0.2.1]\n%s\n"

// One broken rule each, as a person would see it. Line 6 and on is the test's.
func TestReadErrors(t *testing.T) {
	const check = "check: {type: ping}\n"
	for _, one := range []struct{ name, lines, want string }{
		{"unknown field", check + "tll: 60s", `7:1: tll: is not a field; did you mean ttl?`},
		{"unknown field below", "check: {type: ping, intervall: 1s}", `6:21: check.intervall: is not a field; did you mean interval?`},
		{"field of another place", check + "fall: 3", `7:1: fall: is not a field; it belongs into check`},
		{"field from nowhere", "check: {type: ping}\nbanana: 3",
			`7:1: banana: is not a field; the fields here are name, zones, records, ttl, degraded_ttl, members, check, policy, status`},
		{"field in another case", check + "TTL: 60s", `7:1: TTL: is not a field; did you mean ttl?`},
		{"given twice", check + "ttl: 60s\nttl: 70s", `8:1: ttl: is given twice; the first time in line 7`},
		{"given twice below", "check: {type: ping, interval: 1s, 'interval': 2s}", `6:35: check.interval: is given twice; the first time in line 6`},
		{"no value", check + "ttl:", `7:5: ttl: has no value; give it one or leave the field out`},
		{"null", check + "policy: ~", `7:9: policy: has no value; give it one or leave the field out`},
		{"null in a list", check + "policy: {anchors: [null]}", `7:20: policy.anchors[0]: has no value; give it one or leave the field out`},
		{"number without a unit", check + "ttl: 60", `7:6: ttl: "60": is not a duration such as 500ms, 1s, 5m, 12h, 30d or 10y`},
		{"sexagesimal", check + "ttl: 1:30", `7:6: ttl: "1:30": is not a duration such as 500ms, 1s, 5m, 12h, 30d or 10y`},
		{"empty text", check + `ttl: ""`, `7:6: ttl: must not be empty`},
		{"on", "check: {type: ping, burst: on}", `6:28: check.burst: "on": must be true or false`},
		{"quoted truth", `check: {type: ping, burst: "true"}`, `6:28: check.burst: "true": must be true or false, without quotes`},
		{"octal", "check: {type: tcp, port: 0123}", `6:26: check.port: "0123": must be a whole number in decimal digits, without quotes`},
		{"hexadecimal", "check: {type: tcp, port: 0x50}", `6:26: check.port: "0x50": must be a whole number in decimal digits, without quotes`},
		{"underscores", "check: {type: tcp, port: 8_080}", `6:26: check.port: "8_080": must be a whole number in decimal digits, without quotes`},
		{"quoted number", `check: {type: tcp, port: "80"}`, `6:26: check.port: "80": must be a whole number in decimal digits, without quotes`},
		{"fraction", "check: {type: tcp, port: 80.0}", `6:26: check.port: "80.0": must be a whole number in decimal digits, without quotes`},
		{"too large", "check: {type: tcp, port: 99999999999999999999}", `6:26: check.port: "99999999999999999999": must be a whole number in decimal digits, without quotes`},
		{"out of range", "check: {type: tcp, port: 65536}", `6:26: check.port: "65536": must be 1 to 65535`},
		{"not a number", check + "policy: {healthy_fraction: .nan}", `7:28: policy.healthy_fraction: ".nan": must be a number such as 0.5, without quotes`},
		{"infinite", check + "policy: {healthy_fraction: .inf}", `7:28: policy.healthy_fraction: ".inf": must be a number such as 0.5, without quotes`},
		{"percent", check + "policy: {healthy_fraction: 50%}", `7:28: policy.healthy_fraction: "50%": must be a number such as 0.5, without quotes`},
		{"a number for text", "check: {type: http, host: 12}", `6:27: check.host: "12": must be text, and without quotes this is a number in YAML: write it in quotes`},
		{"a date for text", "check: {type: http, host: 2026-01-01}", `6:27: check.host: "2026-01-01": must be text, and without quotes this is a date in YAML: write it in quotes`},
		{"a truth for text", "check: {type: http, host: true}", `6:27: check.host: "true": must be text, and without quotes this is true or false in YAML: write it in quotes`},
		{"a list for text", "check: {type: [ping]}", `6:15: check.type: must be a single value, not a list or a mapping`},
		{"text for a list", check + "policy: {anchors: 192.0.2.1}", `7:19: policy.anchors: "192.0.2.1": must be a list, such as [a, b]`},
		{"text for a mapping", "check: ping", `6:8: check: "ping": must be a mapping with fields such as type, port, interval`},
		{"a list for a mapping", "check: [ping]", `6:8: check: must be a mapping with fields such as type, port, interval`},
		{"text for headers", "check: {type: http, header: X}", `6:29: check.header: "X": must be a mapping, such as {Name: value}`},
		{"a number for a header", "check: {type: http, header: {X: 1}}", `6:33: check.header.X: "1": must be text, and without quotes this is a number in YAML: write it in quotes`},
		{"a header twice", "check: {type: http, header: {X: a, X: b}}", `6:36: check.header.X: is given twice; the first time in line 6`},
		{"not an address", check + "policy: {anchors: [192.0.2.256]}", `7:20: policy.anchors[0]: "192.0.2.256": must be an IPv4 or IPv6 address`},
		{"not a rate", "check: {type: ping, max_false: 3}", `6:32: check.max_false: "3": is not a rate such as 1/10y or 2/30d`},
		{"not a status", "check: {type: http, status: [900]}", `6:30: check.status[0]: "900": is not a status such as 200 or a range such as 200-299`},
		{"a tag", "check: !ping {type: ping}", `6:8: check: "!ping": tags have no use here; write the value without one`},
		{"a tag of YAML's own", "check: {type: !!str ping}", `6:15: check.type: "!!str": tags have no use here; write the value without one`},
		{"a tag at the kind", "check: {type: ping}\n---\nkind: !!python/x pool", `8:7: kind: "!!python/x": tags have no use here; write the value without one`},
		{"binary", "check: {type: !!binary cGluZw==}", `6:15: check.type: "!!binary": tags have no use here; write the value without one`},
		{"merging", "check: {<<: {type: ping}}", `6:9: check: "<<": merging is not done; write the fields out, or use an alias for a whole value`},
		{"a list for a name", "check: {[type]: ping}", `6:9: check: the name of a field must be a word`},
		{"an escaped control character", `check: {type: exec, command: ["a\0b"]}`, `6:31: check.command[0]: "a\x00b": must not hold the control character U+0000`},
		{"an escape sequence", `check: {type: http, path: "/\e[31m"}`, `6:27: check.path: "/\x1b[31m": must not hold the control character U+001B`},
		{"zero for the default", check + "ttl: 0s", `7:6: ttl: "0s": cannot be empty or zero; leave it out for the default, 1m`},
		{"zero for the default below", "check: {type: ping, interval: 0s}", `6:31: check.interval: "0s": cannot be empty or zero; leave it out for the default, 1s`},
		{"nothing for the default", `check: {type: http, method: ""}`, `6:29: check.method: cannot be empty or zero; leave it out for the default, GET`},
		{"no elements for the default", `check: {type: http, status: []}`, `6:29: check.status: cannot be empty or zero; leave it out for the default, [200-399]`},
		{"a rule of validation", "check: {type: ping, interval: 1s, timeout: 1s}",
			`6:44: check.timeout: "1s": must be below interval (1s), so that a probe ends before the next one starts`},
		{"a field that is missing", "check: {type: tcp}", `6:8: check.port: is required for a tcp check`},
		{"a mapping that is missing", "ttl: 60s", `1:1: check.type: must be one of ping, tcp, http, https, dns, exec, heartbeat`},
	} {
		t.Run(one.name, func(t *testing.T) {
			got, err := Read("x.yaml", []byte(fmt.Sprintf(document, one.lines)))
			if err == nil {
				t.Fatalf("was read as %+v", got)
			}
			var invalid *upkeep.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("error %#v", err)
			}
			if diff := cmp.Diff("x.yaml:"+one.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is wrong with whole texts.
func TestReadErrorsOfTexts(t *testing.T) {
	good := fmt.Sprintf(document, "check: {type: ping}")
	for _, one := range []struct{ name, text, want string }{
		{"no kind", "name: web\n", "1:1: kind: is required: one of " + strings.Join(upkeep.Kinds, ", ")},
		{"unknown kind", "kind: pol\nname: web\n", `1:7: kind: "pol": must be one of ` + strings.Join(upkeep.Kinds, ", ") + "; did you mean pool?"},
		{"kind of another type", "kind: [pool]\n", "1:7: kind: must be one of " + strings.Join(upkeep.Kinds, ", ")},
		{"kind twice", "kind: pool\nkind: zone\n" + good[11:], "2:1: kind: is given twice; the first time in line 1"},
		{"no name", strings.Replace(good, "name: web\n", "", 1), `1:1: name: must be 1 to 63 lower-case letters, digits and hyphens`},
		{"a list of lists", "- - kind: zone\n", "1:3: a document must be a mapping with kind and name, such as: kind: pool"},
		{"a word", "pool\n", `1:1: "pool": a document must be a mapping with kind and name, such as: kind: pool`},
		{"twice", good + "---\n" + good, "9:7: name: \"web\": pool web is declared twice; the first time in line 2"},
		{"tab", "kind: pool\nmembers:\n\t- 192.0.2.1\n", "3:1: a tab cannot indent YAML; use spaces"},
		{"no YAML", "kind: pool\nname: [web\n", "2:1: this is not YAML: did not find expected ',' or ']'"},
		{"no YAML in a later document", good + "---\nkind: 'pool\n", "8:1: this is not YAML: found unexpected end of stream"},
		{"a stray indent", "kind: pool\nname: web\n  zones: [a.test]\n", "3:1: this is not YAML: mapping values are not allowed in this context"},
		{"a stray word", "kind: pool\nname: web\nzones\nttl: 60s\n", "3:1: this is not YAML: could not find expected ':'"},
		{"unknown anchor", "kind: pool\nname: *web\n", "2:7: this is not YAML: unknown anchor 'web' referenced"},
		{"NUL", "kind: pool\nname: w\x00b\n", "2:8: control character U+0000 is not allowed"},
		{"escape", "kind: pool # \x1b[2J\n", "1:14: control character U+001B is not allowed"},
		{"C1", "kind: pool\u0085\n", "1:11: control character U+0085 is not allowed"},
		{"Latin 1", "kind: pool\n# caf\xe9\n", "2:6: the text must be UTF-8; this is byte 0xe9"},
		{"UTF-16", "k\x00i\x00n\x00d\x00", "1:2: control character U+0000 is not allowed"},
		{"too long", strings.Repeat(" ", MaxText+1), fmt.Sprintf("1:1: the text has %d bytes; at most %d are read", MaxText+1, MaxText)},
		{"too many entries", strings.Repeat("- ", maxMarks+1), "1:1: the text has too many entries; split it into several files"},
		{"too deep", strings.Repeat("[", 100_000), "1:1: this is not YAML: exceeded max depth of 10000"},
	} {
		t.Run(one.name, func(t *testing.T) {
			got, err := Read("x.yaml", []byte(one.text))
			if err == nil {
				t.Fatalf("was read as %+v", got)
			}
			if diff := cmp.Diff("x.yaml:"+one.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// All errors of a text come at once, in order, and none that only follows from
// another.
func TestReadReportsAllErrors(t *testing.T) {
	_, err := Read("x.yaml", []byte(`kind: pool
name: Web
zones: [a.test]
records: ["w w"]
members: [192.0.2.1, 192.0.2, 192.0.2.1, {adress: 192.0.2.2}]
ttl: soon
check: {type: tpc}
---
kind: zone
name: a.test
publisher: [{type: transfer}]
servers: ["nowhere"]
---
kind: house
`))
	want := []string{
		`x.yaml:2:7: name: "Web": must be 1 to 63 lower-case letters, digits and hyphens`,
		`x.yaml:4:11: records[0]: "w w": must be "@", a name relative to the zone, or a wildcard`,
		`x.yaml:5:22: members[1]: "192.0.2": is not an IPv4 or IPv6 address`,
		`x.yaml:5:31: members[2].address: "192.0.2.1": is listed twice`,
		`x.yaml:5:43: members[3].adress: is not a field; did you mean address?`,
		`x.yaml:6:6: ttl: "soon": is not a duration such as 500ms, 1s, 5m, 12h, 30d or 10y`,
		`x.yaml:7:15: check.type: "tpc": must be one of ping, tcp, http, https, dns, exec, heartbeat`,
		`x.yaml:11:1: publisher: is not a field; did you mean publishers?`,
		`x.yaml:14:7: kind: "house": must be one of ` + strings.Join(upkeep.Kinds, ", "),
	}
	if err == nil {
		t.Fatal("was read")
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Error(diff)
	}
}

func TestReadBoundsErrors(t *testing.T) {
	text := fmt.Sprintf(document, "check: {type: ping}")
	text = strings.Replace(text, "members: [192.0.2.1]", "members: ["+strings.Repeat("nobody,", 90_000)+"]", 1)
	_, err := Read("x.yaml", []byte(text))
	var invalid *upkeep.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Fields) != maxErrors+1 || !strings.Contains(invalid.Fields[maxErrors].Rule, "not shown") {
		t.Errorf("%.300v", err)
	}
}

func TestAliases(t *testing.T) {
	got, err := Read("x.yaml", []byte(`kind: zone
name: a.test
publishers:
  - {type: update, server: "192.0.2.1:53", key: &key /etc/key}
  - {type: update, server: "192.0.2.2:53", key: *key}
`))
	if err != nil {
		t.Fatal(err)
	}
	if publishers := got[0].(upkeep.Zone).Publishers; publishers[1].Key != "/etc/key" {
		t.Errorf("%+v", publishers)
	}
	// The place is that of the alias.
	_, err = Read("x.yaml", []byte(fmt.Sprintf(document, "check: {type: http, path: &x here, host: *x, method: *x, body: *x}\nttl: *x")))
	if want := "7:6: ttl"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// An input whose aliases stand for far more than it holds is refused, and costs
// no more than its length.
func TestAliasBombs(t *testing.T) {
	wide := "kind: zone\nname: a.test\nservers: &s [" + strings.Repeat("'a:1',", 1000) + "]\npublishers: [" +
		strings.Repeat("{type: transfer, secondaries: *s},", 5000) + "]\n"
	laughs := "kind: &a0 pool\nname: [&a1 [*a0,*a0,*a0,*a0,*a0,*a0,*a0,*a0,*a0]"
	for i := range 30 {
		laughs += fmt.Sprintf(", &a%d [%s]", i+2, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i+1), 9), ","))
	}
	for name, one := range map[string]struct{ text, want string }{
		"wide":      {wide, "too large once its aliases are replaced"},
		"laughs":    {laughs + "]\n", "must be a single value"},
		"in itself": {"kind: pool\nzones: &z [*z, a.test]\n", "zones[0]: must be a single value"},
	} {
		if _, err := Read("x.yaml", []byte(one.text)); err == nil || !strings.Contains(err.Error(), one.want) {
			t.Errorf("%s: %.300v", name, err)
		}
	}
}

func TestPlace(t *testing.T) {
	documents, err := ReadDocuments("x.yaml", []byte("---\n# a pool\n"+fmt.Sprintf(document, "check: {type: ping}")))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"zones[0]": "x.yaml:5:9", "zones[7]": "x.yaml:5:8", "members[0].address": "x.yaml:7:11", "check.fall": "x.yaml:8:8",
		"policy.anchors[1]": "x.yaml:3:1", "": "x.yaml:3:1",
	} {
		e := documents[0].Place(upkeep.FieldError{Field: field, Rule: "x"})
		if got := fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column); got != want {
			t.Errorf("%s stands at %s, want %s", field, got, want)
		}
	}
}
