package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/nameserver"
	"upkeep/internal/testkit/netlab"
)

// publishers are the ways in which upkeep carries addresses into DNS.
var publishers = map[string]func(s *stage) (document string, err error){
	"bind": bindPublisher, "update": updatePublisher, "transfer": transferPublisher,
}

func upkeepContenders() []contender {
	probed := []string{"path dropped", "listener closed"}
	beaten := []string{"path dropped", "process killed", "goodbye"}
	var all []contender
	for _, c := range []struct {
		name, publisher, interval string
	}{
		{"upkeep on BIND by include files, 1s", "bind", "1s"},
		{"upkeep on BIND by dynamic update, 1s", "update", "1s"},
		{"upkeep by itself, 1s", "transfer", "1s"},
		{"upkeep on BIND by include files, 100ms", "bind", "100ms"},
		{"upkeep by itself, 100ms", "transfer", "100ms"},
	} {
		period, _ := time.ParseDuration(c.interval) // well-formed above
		all = append(all, contender{
			name: c.name, deaths: probed, secondary: true, lived: lived, patience: 10 * time.Second, period: period,
			start: upkeep(c.publisher, fmt.Sprintf("{type: tcp, port: %d, interval: %s}", service, c.interval)),
		})
	}
	for _, publisher := range []string{"bind", "transfer"} {
		all = append(all, contender{
			name:   map[string]string{"bind": "upkeep on BIND by include files", "transfer": "upkeep by itself"}[publisher] + ", heartbeats each 100ms",
			deaths: beaten, secondary: true, lived: lived, patience: 10 * time.Second, period: 100 * time.Millisecond,
			start: heartbeats(publisher),
		})
	}
	all = append(all, contender{
		name: "upkeep on BIND through an agent, 1s", deaths: probed, secondary: true, lived: lived, patience: 10 * time.Second, period: time.Second,
		start: throughAgent(fmt.Sprintf("{type: tcp, port: %d, interval: 1s}", service)),
	})
	for i := range all {
		all[i].note = fmt.Sprintf("all options left at their defaults but the interval, and `probation: 1s` so that a member is back soon for its next death; members lived for %s before the first", lived)
	}
	return all
}

// lived is how long members live before the first kill: a member that is not
// known well yet is given more time, see docs/detection.md.
const lived = time.Minute

const beatPort = 8054

// upkeep runs the program with one publisher and one check.
func upkeep(publisher, check string) func(*stage) error {
	return func(s *stage) error {
		zone, err := publishers[publisher](s)
		if err != nil {
			return err
		}
		data := filepath.Join(s.dir, "data")
		argv := []string{s.upkeep, "serve", "--data", data, "--http", "", "--beat", fmt.Sprintf("%s:%d", s.dns.Addr, beatPort)}
		if publisher == "transfer" {
			argv = append(argv, "--dns", s.dns.Addr.String()+":53")
		}
		if _, err := s.start(s.dns, argv...); err != nil {
			return err
		}
		return s.declare(s.dns, zone, check)
	}
}

// declare has the upkeep on a host take the zone and a pool of all members.
func (s *stage) declare(host *netlab.Host, zone, check string) error {
	document := zone + fmt.Sprintf(`---
kind: pool
name: web
zones: [%s]
records: [www]
members: [%s]
check: %s
policy: {probation: 1s, probation_max: 1s}
`, zoneName, s.list("%s", ", "), check)
	if err := s.write("upkeep.yaml", "%s", document); err != nil {
		return err
	}
	var output string
	err := await("upkeep takes the document", 30*time.Second, func() (taken bool) {
		var err error
		output, err = host.Run(s.upkeep, "apply", "--data", filepath.Join(s.dir, "data"), "-f", filepath.Join(s.dir, "upkeep.yaml"))
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	return nil
}

func (s *stage) servers() string {
	return fmt.Sprintf(`"%s:53", "%s:53"`, s.dns.Addr, s.secondary.Addr)
}

// follow runs the secondary.
func (s *stage) follow() error {
	_, err := s.named(s.secondary, nameserver.Zone{Name: zoneName, Primary: s.dns})
	return err
}

func bindPublisher(s *stage) (string, error) {
	zone, err := s.includes("www")
	if err != nil {
		return "", err
	}
	primary, err := s.named(s.dns, zone)
	if err != nil {
		return "", err
	}
	document := fmt.Sprintf("kind: zone\nname: %s\npublishers:\n  - {type: bind, zone_file: %s/db.example.test, include_dir: %s, server: \"%s:53\", rndc: [%s]}\nservers: [%s]\n",
		zoneName, primary.Dir, s.dir, s.dns.Addr, strings.Join(primary.RNDC(), ", "), s.servers())
	return document, s.follow()
}

var updateKey = nameserver.Key{Name: "upkeep", Secret: "dXBrZWVwIGJlbmNobWFyayB1cGRhdGUga2V5IDAxMjM="}

func updatePublisher(s *stage) (string, error) {
	text := fmt.Sprintf("$TTL 300\n@ SOA ns1 hostmaster 1 300 60 86400 60\n@ NS ns1\nns1 A %s\nwww 60 A %s\n", s.dns.Addr, s.members[0].host.Addr)
	if err := s.write("update.key", "%s", updateKey.Text()); err != nil {
		return "", err
	}
	if err := os.Chmod(filepath.Join(s.dir, "update.key"), 0o600); err != nil {
		return "", err
	}
	if _, err := s.named(s.dns, nameserver.Zone{Name: zoneName, Text: text, Notify: []*netlab.Host{s.secondary}, Key: &updateKey}); err != nil {
		return "", err
	}
	document := fmt.Sprintf("kind: zone\nname: %s\npublishers:\n  - {type: update, server: \"%s:53\", key: %s/update.key}\nservers: [%s]\n",
		zoneName, s.dns.Addr, s.dir, s.servers())
	return document, s.follow()
}

func transferPublisher(s *stage) (string, error) {
	document := fmt.Sprintf(`kind: zone
name: %s
publishers:
  - {type: transfer, secondaries: ["%s:53"], allow_transfer: ["%[2]s/32"]}
servers: [%s]
records: [{name: ns1, type: A, value: %s}, {name: "@", type: NS, value: ns1}]
`, zoneName, s.secondary.Addr, s.servers(), s.dns.Addr)
	return document, s.follow()
}

// heartbeats runs upkeep with members that beat.
func heartbeats(publisher string) func(*stage) error {
	return func(s *stage) error {
		var all bytes.Buffer
		for i, m := range s.members {
			secret := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{byte(i + 1)}, 32))
			line := fmt.Sprintf("%s %s\n", m.host.Addr, secret)
			all.WriteString(line)
			key := filepath.Join(s.dir, fmt.Sprintf("beat%d.key", i))
			if err := os.WriteFile(key, []byte(line), 0o600); err != nil {
				return err
			}
			m.beat = func() (*testkit.Process, error) {
				return testkit.Command{Argv: m.host.Argv(s.upkeep, "beat", "--to", fmt.Sprintf("%s:%d", s.dns.Addr, beatPort),
					"--key", key, "--interval", "100ms")}.Launch()
			}
		}
		keys := filepath.Join(s.dir, "beats.key")
		if err := os.WriteFile(keys, all.Bytes(), 0o600); err != nil {
			return err
		}
		if err := upkeep(publisher, fmt.Sprintf("{type: heartbeat, key_file: %s, interval: 100ms}", keys))(s); err != nil {
			return err
		}
		for _, m := range s.members {
			if m.listener != nil { // of no use here
				_ = m.listener.Close()
				m.listener = nil
			}
			if err := m.revive(); err != nil {
				return err
			}
		}
		return nil
	}
}
