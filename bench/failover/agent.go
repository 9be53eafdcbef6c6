package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"upkeep/internal/testkit"
)

const agentPort = 8055

// throughAgent runs upkeep on a machine of its own, that of the client, and an
// agent beside the primary.
func throughAgent(check string) func(*stage) error {
	return func(s *stage) error {
		document, err := bindPublisher(s)
		if err != nil {
			return err
		}
		primary, servers, found := strings.Cut(document, "servers:")
		if !found {
			return fmt.Errorf("the document of the zone has no servers: %s", primary)
		}
		folder := filepath.Join(s.dir, "named-"+s.dns.Name)
		document = fmt.Sprintf("kind: zone\nname: %s\npublishers:\n  - {type: bind, agent: dns1, zone_file: %s/db.example.test, include_dir: %s}\nservers:%s",
			zoneName, folder, s.dir, servers)
		control := filepath.Join(s.dir, "data")
		if _, err := s.start(s.client, s.upkeep, "serve", "--data", control, "--http", "", "--agents", fmt.Sprintf("%s:%d", s.client.Addr, agentPort)); err != nil {
			return err
		}
		if err := s.joinAgent(control, folder); err != nil {
			return err
		}
		return s.declare(s.client, document, check)
	}
}

// joinAgent has an agent on the host of the primary join control, and runs it.
func (s *stage) joinAgent(control, named string) error {
	var output string
	err := await("upkeep makes a token", 30*time.Second, func() (made bool) {
		var err error
		output, err = s.client.Run(s.upkeep, "server", "add", "dns1", "--role", "dns", "-o", "json", "--data", control)
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	var invitation struct{ Token string }
	if err := json.Unmarshal([]byte(output), &invitation); err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	data := filepath.Join(s.dir, "agent")
	if output, err := s.dns.Run(s.upkeep, "join", fmt.Sprintf("https://%s:%d", s.client.Addr, agentPort), invitation.Token, "--data", data); err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	rndc, err := testkit.Find("rndc")
	if err != nil {
		return err
	}
	checkzone, err := testkit.Find("named-checkzone")
	if err != nil {
		return err
	}
	policy := filepath.Join(s.dir, "policy.yaml")
	text := fmt.Sprintf("kinds: [zone.publish, server.facts]\nfront: nobody\nzones: {include_dirs: [%s], zone_dirs: [%s], rndc: [%s, -c, %s/rndc.conf], checkzone: [%s], server: \"%s:53\", notify: [\"%s:53\"]}\n",
		s.dir, named, rndc, named, checkzone, s.dns.Addr, s.secondary.Addr)
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		return err
	}
	_, err = s.start(s.dns, s.upkeep, "agent", "--data", data, "--policy", policy)
	return err
}
