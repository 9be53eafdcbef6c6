package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/nameserver"
)

// nasty are values that would do harm where they reached a zone file, a
// configuration, a log or a header unquoted.
var nasty = []string{
	"x\n@ 60 IN A 6.6.6.6",
	"x\r\n$INCLUDE /etc/passwd",
	"$INCLUDE /etc/passwd",
	"$GENERATE 1-100 h$ A 6.6.6.6",
	"www 60 IN A 6.6.6.6 ;",
	"www\" 60 IN A 6.6.6.6",
	"( 6.6.6.6",
	"\\010@ A 6.6.6.6",
	"a\x00b",
	"\x1b[2J",
	"\u2028@ A 6.6.6.6",
	"../../../../etc/passwd",
	"-o/etc/passwd",
	"",
	strings.Repeat("a", 70_000),
}

// everything declares each kind of thing with each field that holds text. Its
// own values are fine.
const everything = `[
{"kind": "zone", "name": "other.test", "ttl": "1h",
 "publishers": [{"type": "transfer", "secondaries": ["10.53.0.5:53"], "allow_transfer": ["10.53.0.0/24"]}],
 "servers": ["10.53.0.5:53"],
 "records": [{"name": "ns1", "type": "A", "value": "10.53.0.1"}, {"name": "@", "type": "NS", "value": "ns1", "ttl": "60s"},
             {"name": "t", "type": "TXT", "value": "\"text\""}],
 "soa": {"mname": "ns1.other.test", "rname": "hostmaster.other.test", "refresh": "5m"}},
{"kind": "pool", "name": "web", "zones": ["example.test"], "records": ["@", "*", "www"], "ttl": "60s",
 "members": [{"address": "10.53.0.8", "check_address": "10.53.0.8", "check_port": 8080}, "10.53.0.9"],
 "check": {"type": "tcp", "port": 8080, "interval": "200ms", "timeout": "100ms", "max_false": "1/10y"},
 "policy": {"fail_open": "fixed", "fixed": ["10.53.0.8"], "anchors": ["10.53.0.3"]}},
{"kind": "pool", "name": "http", "zones": ["example.test"], "records": ["http"], "members": ["10.53.0.8"],
 "check": {"type": "https", "method": "GET", "host": "www.example.test", "path": "/", "status": ["200-299"], "body": "ok",
           "header": {"X-Test": "value"}, "interval": "1h"}},
{"kind": "pool", "name": "dns", "zones": ["example.test"], "records": ["dns"], "members": ["10.53.0.8"],
 "check": {"type": "dns", "query": "www.example.test", "qtype": "A", "rcode": "NOERROR", "answer": ["10.53.0.8"], "interval": "1h"}},
{"kind": "pool", "name": "exec", "zones": ["example.test"], "records": ["exec"], "members": ["10.53.0.8"],
 "check": {"type": "exec", "command": ["/bin/true", "{address}"], "interval": "1h"}}
]`

// Every text of every document is replaced by every nasty value, through the
// API. What is refused must be refused as invalid input; what is taken must not
// put a single record, name or directive into the zone that was not asked for.
func TestHostileText(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	zone := s.bindPrimary(s.path("include"), 1)
	s.serve("--http", "", "--dns", s.monitor.Addr.String()+":5300")
	s.apply(zone)
	documents := func() []any {
		var list []any
		s.must(json.Unmarshal([]byte(everything), &list))
		return list
	}
	apply := func(list []any) error {
		text := &strings.Builder{}
		for _, document := range list {
			raw, err := json.Marshal(document)
			s.must(err)
			fmt.Fprintf(text, "---\n%s\n", raw)
		}
		_, err := s.control().Apply(context.Background(), []wire.Source{{File: "hostile.yaml", Base: s.dir, Text: text.String()}}, false)
		return err
	}
	s.must(apply(documents())) // the harmless form is taken
	fields := countTexts(documents())
	taken := 0
	for field := range fields {
		for _, value := range nasty {
			list := documents()
			path := replaceText(list, field, value)
			err := apply(list)
			var problem *wire.Problem
			switch {
			case err == nil:
				taken++
				t.Logf("taken: %s = %.40q", path, value)
				if strings.HasPrefix(path, "[0].records[2].value") {
					s.onlyText("other.test")
				}
				s.must(apply(documents()))
			case !errors.As(err, &problem) || problem.Status != 422 && problem.Status != 400 && problem.Status != 409:
				t.Errorf("%s = %.40q: %v", path, value, err)
			}
		}
	}
	t.Logf("%d fields with %d values each, %d taken", fields, len(nasty), taken)
	s.expect(s.members[0].Addr, s.members[1].Addr)
	for _, name := range []string{"ips.include", "soa.include"} {
		text := s.read(s.path("include", name))
		if strings.Contains(text, "6.6.6.6") || strings.Contains(text, "$INCLUDE") || strings.Contains(text, "$GENERATE") || strings.Contains(text, "passwd") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	s.includesWhole()
	output, err := s.client.Run("dig", "@"+s.net.Host("ns1").Addr.String(), zoneName, "AXFR", "+onesoa")
	s.must(err)
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, ";") {
			continue
		}
		if !regexp.MustCompile(`^((\*|www|ns1|http|dns|exec)\.)?example\.test\.\s+\d+\s+IN\s+(SOA\s|NS\s|A\s+10\.53\.)`).MatchString(line) {
			t.Errorf("in the zone: %s", line)
		}
	}
}

// onlyText asserts that a zone whose TXT record was changed holds the records
// that it was declared with, and no contents of any file.
func (s *site) onlyText(zone string) {
	s.t.Helper()
	var output string
	testkit.Eventually(s.t, 30*time.Second, func() (bool, string) {
		var err error
		output, err = s.client.Run("dig", "@"+s.monitor.Addr.String(), "-p", "5300", zone, "AXFR", "+onesoa", "+noall", "+answer")
		return err == nil && strings.Contains(output, "TXT") && !strings.Contains(output, `"text"`), output
	})
	if strings.Contains(output, "root:") || strings.Count(output, "\n") != 4 {
		s.t.Errorf("a text became more than a text:\n%s", output)
	}
}

// countTexts is the number of texts in a document: values and keys of maps.
func countTexts(node any) int {
	n := 0
	walkTexts(node, "", func(string, string, func(string)) { n++ })
	return n
}

// replaceText replaces the text of that number and returns its path.
func replaceText(node any, number int, value string) (path string) {
	n := 0
	walkTexts(node, "", func(at, _ string, set func(string)) {
		if n == number {
			path = at
			set(value)
		}
		n++
	})
	return path
}

func walkTexts(node any, at string, visit func(at, text string, set func(string))) {
	switch node := node.(type) {
	case []any:
		for i, item := range node {
			here := fmt.Sprintf("%s[%d]", at, i)
			if text, is := item.(string); is {
				visit(here, text, func(v string) { node[i] = v })
			} else {
				walkTexts(item, here, visit)
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(node)) { // in the same order each time
			item, here := node[key], at+"."+key
			if key == "X-Test" { // the one map whose keys are the operator's
				visit(here+" (key)", key, func(v string) { delete(node, key); node[v] = item })
			}
			if text, is := item.(string); is {
				visit(here, text, func(v string) { node[key] = v })
			} else {
				walkTexts(item, here, visit)
			}
		}
	}
}

// Documents that are too large, too deep, or that grow when they are read, and
// requests that never end, leave upkeep alive, small and working.
func TestHostileSize(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	zone := s.bindPrimary(s.path("include"), 1)
	const port = "8053"
	http := s.monitor.Addr.String() + ":" + port
	s.serve("--http", http)
	s.apply(zone + s.pool("web", checkTCP, owners...))
	s.expect(addrs(s.members)...)

	for name, text := range map[string]string{
		"eleven megabytes of comment": strings.Repeat("# nothing\n", 1_100_000),
		"ten megabytes of documents":  strings.Repeat("---\nkind: pool\nname: web\n", 400_000),
		"one line of nine megabytes":  "kind: pool\nname: " + strings.Repeat("x", 9<<20),
		"deep nesting":                strings.Repeat("[", 1_000_000),
		"deep mapping":                strings.Repeat("{a: ", 500_000),
		"billion laughs":              laughs(),
		"a million keys":              manyKeys(1_000_000 / 4),
		"not UTF-8":                   "kind: pool\nname: \xff\xfe\x80",
		"a NUL":                       "kind: pool\nname: \x00",
		"a tag":                       "!!python/object/apply:os.system [\"true\"]",
	} {
		s.write("hostile.yaml", text)
		output, exit := s.run("apply", "-f", s.path("hostile.yaml"))
		if exit == 0 || !s.upkeep.Running() {
			t.Errorf("%s: exit %d, running %v: %.300s", name, exit, s.upkeep.Running(), output)
		}
		if len(output) > 64<<10 {
			t.Errorf("%s: the error is %d bytes long", name, len(output))
		}
	}
	s.slowLoris(http)
	s.floodBody(http)
	if peak := s.peakMemory(); peak > 1<<30 {
		t.Errorf("upkeep has used %d MiB", peak>>20)
	}
	m := s.members[0]
	m.close()
	s.expect(addrs(s.members, m)...)
	s.whole()
}

// laughs is the YAML form of the billion laughs.
func laughs() string {
	b := &strings.Builder{}
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 12 {
		fmt.Fprintf(b, "a%d: &a%[1]d [%s]\n", i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	return b.String()
}

func manyKeys(n int) string {
	b := &strings.Builder{}
	for i := range n {
		fmt.Fprintf(b, "key%d: 1\n", i)
	}
	return b.String()
}

// slowLoris holds many connections open that never finish their request. Others
// must be served meanwhile, and the connections be closed in the end.
func (s *site) slowLoris(http string) {
	s.t.Helper()
	var conns []net.Conn
	for i := range 300 {
		conn, err := s.client.Dial(context.Background(), "tcp", http)
		if err != nil {
			break // refusing more is a fine defence
		}
		_, _ = fmt.Fprintf(conn, "GET /%d HTTP/1.1\r\nHost: x\r\nX-Slow: ", i)
		conns = append(conns, conn)
	}
	if _, err := s.control().Pools(context.Background()); err != nil {
		s.t.Errorf("with %d slow clients: %v", len(conns), err)
	}
	if answer := s.get(http, "/metrics"); !strings.Contains(answer[:min(15, len(answer))], " 200") {
		s.t.Errorf("with %d slow clients the metrics answer %.100q", len(conns), answer)
	}
	for _, conn := range conns {
		_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			s.t.Errorf("a client that never ends its request is not hung up on")
		}
		_ = conn.Close()
	}
}

func (s *site) get(http, path string) string {
	s.t.Helper()
	conn, err := s.client.Dial(context.Background(), "tcp", http)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, http)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// floodBody sends a body without end.
func (s *site) floodBody(http string) {
	s.t.Helper()
	conn, err := s.client.Dial(context.Background(), "tcp", http)
	s.must(err)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	_, _ = fmt.Fprintf(conn, "POST /api/v1/apply HTTP/1.1\r\nHost: %s\r\nContent-Type: application/yaml\r\nTransfer-Encoding: chunked\r\n\r\n", http)
	chunk := "10000\r\n" + strings.Repeat("#", 0x10000) + "\r\n"
	for range 1000 { // 64 MiB
		if _, err := io.WriteString(conn, chunk); err != nil {
			return // hung up on, as it should be
		}
	}
	s.t.Error("a body of 64 MiB was read to its end")
}

// peakMemory is the most memory that upkeep has had resident, in bytes.
func (s *site) peakMemory() int64 {
	s.t.Helper()
	status := s.read(fmt.Sprintf("/proc/%d/status", s.upkeep.PID()))
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(status)
	if found == nil {
		s.t.Fatalf("no VmHWM in\n%s", status)
	}
	kib, err := strconv.ParseInt(found[1], 10, 64)
	s.must(err)
	return kib << 10
}

// A pool of 5,000 members is taken, checked and published, a hundred of them at
// one name, and deleted again.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	own := s.monitor.Addr.String() + ":53"
	s.asked = []string{own}
	// All of 127.0.0.0/8 is the monitor itself.
	listener, err := s.monitor.Listen("tcp", ":8080")
	s.must(err)
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	list := &strings.Builder{}
	for i := range 5000 {
		fmt.Fprintf(list, "  - 127.1.%d.%d\n", i/250, i%250+1)
	}
	s.serve("--http", "", "--dns", own)
	s.apply(fmt.Sprintf(`kind: zone
name: %s
publishers: [{type: transfer}]
servers: ["%s"]
records: [{name: ns1, type: A, value: %s}, {name: "@", type: NS, value: ns1}]
---
kind: pool
name: web
zones: [%[1]s]
records: ["www"]
check: {type: tcp, port: 8080, interval: 5s}
members:
%[4]s`, zoneName, own, s.monitor.Addr, list))
	testkit.Eventually(t, 60*time.Second, func() (bool, string) {
		up := 0
		for _, m := range s.status("web").Members {
			if m.Verdict.String() == "up" {
				up++
			}
		}
		return up == 5000, fmt.Sprintf("%d members up", up)
	})
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		got, err := nameserver.Addresses(s.client, own, "www."+zoneName)
		return err == nil && len(got) == 100, fmt.Sprintf("%d addresses, %v", len(got), err)
	})
	s.must(s.control().Delete(context.Background(), wire.Ref{Kind: "pool", Name: "web"}))
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		got, err := nameserver.Addresses(s.client, own, "www."+zoneName)
		return err == nil && len(got) == 0, fmt.Sprintf("%d addresses, %v", len(got), err)
	})
}

// Applying and deleting pools, ten thousand in all, leaves no goroutine and no
// descriptor behind: one at a time, and many in one change.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	own := s.monitor.Addr.String() + ":53"
	http := s.monitor.Addr.String() + ":8053"
	s.serve("--http", http, "--dns", own)
	s.apply(fmt.Sprintf("kind: zone\nname: %s\npublishers: [{type: transfer}]\nrecords: [{name: ns1, type: A, value: %s}, {name: \"@\", type: NS, value: ns1}]\n",
		zoneName, s.monitor.Addr))
	up := s.control()
	cycle := func(times, pools int) {
		t.Helper()
		text := &strings.Builder{}
		var refs []wire.Ref
		for i := range pools {
			name := fmt.Sprintf("web%d", i)
			text.WriteString(s.pool(name, checkTCP, fmt.Sprintf("www%d", i)))
			refs = append(refs, wire.Ref{Kind: "pool", Name: name})
		}
		document := []wire.Source{{File: "x.yaml", Text: text.String()}}
		for range times {
			_, err := up.Apply(context.Background(), document, false)
			s.must(err)
			s.must(up.Delete(context.Background(), refs...))
		}
	}
	cycle(50, 1) // fills caches and connection pools
	cycle(10, 20)
	before := s.footprint(http)
	cycle(1000, 1)
	cycle(450, 20)
	// What was in the air may end.
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		after := s.footprint(http)
		return after.goroutines <= before.goroutines+10 && after.descriptors <= before.descriptors+10,
			fmt.Sprintf("before %+v, after 10,000 pools %+v", before, after)
	})
	t.Logf("before %+v, after 10,000 pools %+v; at most %d MiB", before, s.footprint(http), s.peakMemory()>>20)
}

type footprint struct{ goroutines, descriptors int }

// footprint reads what upkeep holds from its own metrics, and from the kernel.
func (s *site) footprint(http string) footprint {
	s.t.Helper()
	metrics := s.get(http, "/metrics")
	found := regexp.MustCompile(`(?m)^go_goroutines (\d+)`).FindStringSubmatch(metrics)
	if found == nil {
		s.t.Fatalf("no go_goroutines in %.500q", metrics)
	}
	goroutines, err := strconv.Atoi(found[1])
	s.must(err)
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.upkeep.PID()))
	s.must(err)
	return footprint{goroutines, len(descriptors)}
}
