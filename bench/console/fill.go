package main

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

const (
	servers  = 100
	accounts = 1000
	zones    = 100
)

func account(i int) string { return fmt.Sprintf("account%d", i%accounts) }
func web(i int) string     { return fmt.Sprintf("web%d", i%servers) }
func site(i int) string    { return fmt.Sprintf("site%d.example.test", i) }
func pool(i int) string    { return fmt.Sprintf("pool-%04d", i) }
func zone(i int) string    { return fmt.Sprintf("zone%d.test", i%zones) }

// fill declares everything by the store, and writes by the databases' own programs
// what would have come of it in a year.
func (b *bench) fill() error {
	began := time.Now()
	ctx := context.Background()
	s, err := store.Open(ctx, b.dsn)
	if err != nil {
		return err
	}
	for _, objects := range b.declared() {
		if _, err := s.Apply(ctx, "bench", store.Change{Put: objects}); err != nil {
			_ = s.Close()
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	cmd := exec.Command("sqlite3", "-bail", strings.TrimPrefix(b.dsn, "sqlite:"))
	numbers := func(n int) string {
		return fmt.Sprintf("(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT i FROM n) AS n", n)
	}
	if b.database == "postgres" {
		cmd = exec.Command("psql", "-q", "-v", "ON_ERROR_STOP=1", b.dsn)
		numbers = func(n int) string { return fmt.Sprintf("generate_series(1, %d) AS n(i)", n) }
	}
	cmd.Stdin = strings.NewReader(b.history(numbers))
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("filling the database: %w\n%s", err, output)
	}
	if b.database == "postgres" { // as autovacuum does, within a minute
		if output, err := exec.Command("psql", "-q", "-v", "ON_ERROR_STOP=1", b.dsn, "-c", "ANALYZE").CombinedOutput(); err != nil {
			return fmt.Errorf("analysing the database: %w\n%s", err, output)
		}
	}
	if err := os.WriteFile(filepath.Join(b.data(), "filled"), nil, 0o600); err != nil {
		return err
	}
	log.Printf("%d pools, %d sites, %d jobs written in %s", b.pools, b.sites, b.jobs, time.Since(began).Round(time.Second))
	return nil
}

// declared are things in the order in which they can be declared.
func (b *bench) declared() (changes [][]upkeep.Object) {
	var around, dns []upkeep.Object
	for i := range servers {
		around = append(around, upkeep.Server{Name: web(i), Roles: []string{upkeep.RoleWeb}})
	}
	for i := range accounts {
		around = append(around, upkeep.Account{Name: account(i)})
	}
	for i := range zones {
		dns = append(dns, upkeep.Zone{Name: zone(i), Publishers: []upkeep.Publisher{{Type: upkeep.PublishTransfer}}})
	}
	for i := range b.pools {
		p := upkeep.Pool{Name: pool(i), Zones: []string{zone(i)}, Records: []string{pool(i)},
			Check: upkeep.Check{Type: upkeep.CheckTCP, Port: port, Interval: upkeep.Duration(30 * time.Second)}}
		for j := range 3 {
			p.Members = append(p.Members, upkeep.Member{Address: member(i, j)})
		}
		dns = append(dns, p)
	}
	changes = append(changes, around, dns)
	for first := 0; first < b.sites; first += 1000 {
		var some []upkeep.Object
		for i := first; i < min(first+1000, b.sites); i++ {
			some = append(some, upkeep.Site{Name: site(i), Account: account(i), Servers: []string{web(i), web(i + 1)}, Aliases: []string{fmt.Sprintf("alias%d.test", i)}})
		}
		changes = append(changes, some)
	}
	return changes
}

func member(i, j int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + j), byte(i / 250), byte(1 + i%250)})
}

// history is SQL for both databases. Of the sites 1 in 100 failed, of the jobs 1 in
// 100, a few wait or were given up, and every hundredth pool had an outage each day.
func (b *bench) history(numbers func(n int) string) string {
	now := b.now.UnixNano()
	const columns = "account, server, kind, object, generation, state, payload, attempts, drops, progress, percent, error, field, result, who, created, started, finished"
	month := int64(30*24*time.Hour) / int64(b.jobs)
	facts := `{"hostname":"web.example.test","system":"Debian GNU/Linux 12 (bookworm)","web_server":"Apache/2.4.62"}`
	return fmt.Sprintf(`BEGIN;
INSERT INTO site_state (server, site, generation, url, document_root, state, reason, at)
	SELECT used_name, name, 1, 'http://127.0.0.1:80', '/home/customer/' || name || '/htdocs', 'live', '', %[1]d FROM object_uses WHERE kind = 'site' AND role = 'web';
UPDATE site_state SET state = 'failed', reason = 'the web server refuses it: AH00526: Syntax error on line 7' WHERE site LIKE '%%77.example.test';
INSERT INTO jobs (%[2]s)
	SELECT '', 'web' || (i %% %[3]d), 'server.facts', 'server/web' || (i %% %[3]d), i, 'done', '', 1, 0, '', 100, '', '', '%[4]s', 'upkeep', %[5]d, %[5]d, %[5]d FROM %[6]s;
INSERT INTO jobs (%[2]s)
	SELECT 'account' || (i %% %[7]d), 'web' || (i %% %[3]d), CASE WHEN i %% 10 = 3 THEN 'user.ensure' ELSE 'site.apply' END, 'site/site' || (i %% %[8]d) || '.example.test', 1,
	CASE WHEN i > %[9]d - 500 THEN 'pending' WHEN i %% 100 = 50 THEN 'failed' WHEN i %% 500 = 7 THEN 'cancelled' WHEN i %% 500 = 9 THEN 'superseded' ELSE 'done' END,
	'', 1, 0, '', 0, CASE WHEN i %% 100 = 50 THEN 'the disk is full' ELSE '' END, '', '', 'user ada',
	%[5]d + i * %[10]d, %[5]d + i * %[10]d, CASE WHEN i > %[9]d - 500 THEN 0 ELSE %[5]d + i * %[10]d END FROM %[11]s;
INSERT INTO events (at, kind, who, object, what, why)
	SELECT %[1]d - (40001 - i) * 15000000000, 'verdict', 'upkeep', 'pool/pool-' || substr('000' || ((i %% 10) * 100), -4) || '/127.1.0.' || (1 + (i %% 10)), CASE WHEN i %% 20 < 10 THEN 'down' ELSE 'up' END, 'connection refused' FROM %[12]s;
INSERT INTO events (at, kind, who, object, what, why)
	SELECT %[5]d + i * %[10]d, 'job', 'user ada', 'site/site' || (i %% %[8]d) || '.example.test', 'site.apply on web' || (i %% %[3]d) || ' done', '' FROM %[11]s;
COMMIT;
`, now, columns, servers, facts, now-int64(30*24*time.Hour), numbers(100*servers), accounts, b.sites, b.jobs, month, numbers(b.jobs), numbers(40000)) + map[string]string{"postgres": "VACUUM ANALYZE;\n"}[b.database]
}
