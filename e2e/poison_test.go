package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	_ "modernc.org/sqlite" // registers the "sqlite" driver; testkit registers "pgx"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/selftest"
	"upkeep/internal/testkit"
)

// poisoned is a running system whose database somebody writes into.
type poisoned struct {
	*selftest.System
	t        *testing.T
	db       *sql.DB
	postgres bool
	n        int
}

// TestPoisonedSQLite and TestPoisonedPostgres have somebody write into the
// database of a running control, past every check: whatever the rows say, the
// others' sites go on, nothing outside changes, and what is wrong is said.
func TestPoisonedSQLite(t *testing.T) {
	dir, inside := isolated(t)
	if !inside {
		return
	}
	s := attacked(t, dir, "")
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.Data, "upkeep.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	(&poisoned{System: s, t: t, db: db}).all()
}

func TestPoisonedPostgres(t *testing.T) {
	dir, inside := isolated(t)
	if !inside {
		return
	}
	server := testkit.NewPostgres(t)
	folder := server.DSN()
	folder = folder[strings.Index(folder, "host=")+len("host="):]
	folder, _, _ = strings.Cut(folder, "&")
	if err := os.Chmod(folder, 0o711); err != nil { // control is another user
		t.Fatal(err)
	}
	s := attacked(t, dir, server.DSN())
	db, err := sql.Open("pgx", server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	(&poisoned{System: s, t: t, db: db, postgres: true}).all()
}

func (p *poisoned) all() {
	p.t.Cleanup(func() {
		if err := p.db.Close(); err != nil {
			p.t.Error(err)
		}
	})
	t := p.t
	t.Run("documents", p.documents)
	t.Run("rows", p.rows)
	t.Run("jobs", p.jobs)
	t.Run("afterwards", p.afterwards)
}

func (p *poisoned) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// exec writes into the database.
func (p *poisoned) exec(statement string, args ...any) error {
	_, err := p.db.ExecContext(context.Background(), statement, args...)
	return err
}

// site makes a harmless site of the tenant's, to be poisoned.
func (p *poisoned) site() string {
	p.t.Helper()
	p.n++
	name := fmt.Sprintf("evil-sql-%d.test", p.n)
	_, err := p.Declare(context.Background(), map[string]any{"kind": "site", "name": name, "account": "evil", "servers": []string{p.Server}})
	p.must(err)
	status, err := p.Site(context.Background(), name)
	p.must(err)
	if status.State != upkeep.SiteLive {
		p.t.Fatalf("%s is %s: %s", name, status.State, status.Reason)
	}
	return name
}

// stir makes control read and do by what is in the database: the account is
// suspended and back again, and the server made anew.
func (p *poisoned) stir(ctx context.Context) error {
	for _, suspended := range []bool{true, false} {
		if _, err := p.Declare(ctx, map[string]any{"kind": "account", "name": "evil", "suspended": suspended}); err != nil {
			return fmt.Errorf("suspending and back: %w", err)
		}
	}
	job, err := p.Client.SyncServer(ctx, p.Server, "regenerate")
	if err != nil {
		return fmt.Errorf("regenerating: %w", err)
	}
	return p.settled(ctx, job.ID)
}

// settled waits for a job and for all others of the server.
func (p *poisoned) settled(ctx context.Context, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		job, err := p.Client.Job(ctx, id)
		if err != nil {
			return err
		}
		open, err := p.Client.Jobs(ctx, wire.JobFilter{Server: p.Server, States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}})
		if err != nil {
			return err
		}
		if job.State.Ended() && len(open) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("job %d is %s: %s; open are %+v", id, job.State, job.Error, open)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// said holds a sentence for people to what it must be.
func said(sentence string) error {
	if len(sentence) < 20 || strings.ContainsFunc(sentence, unicode.IsControl) || strings.Contains(sentence, "panic") {
		return fmt.Errorf("it is said as %q", sentence)
	}
	return nil
}

// failed asserts that a site is said to have failed, and why.
func (p *poisoned) failed(name string) error {
	status, err := p.Client.Site(context.Background(), name)
	if err != nil {
		return fmt.Errorf("showing %s: %w", name, err)
	}
	if status.State != upkeep.SiteFailed {
		return fmt.Errorf("%s is %s: %s", name, status.State, status.Reason)
	}
	list, err := p.Client.Sites(context.Background(), "")
	if err != nil {
		return err
	}
	for _, one := range list {
		if one.Name == name && one.State == upkeep.SiteFailed {
			return said(status.Reason)
		}
	}
	return fmt.Errorf("%s is not listed as failed", name)
}

// poison are documents of a site, in which NAME stands for its own and SERVER
// for the server.
var poison = []string{
	``, `{`, `null`, `[]`, `0`, `"x"`, `{}`, `{"name":"NAME"}`, strings.Repeat(`{"name":`, 10_000), "\xff\xfe", `{"name":"NAME","account":"evil","servers":["SERVER"]} trailing`,
	`{"name":"NAME","account":"evil","servers":"SERVER"}`, `{"name":["NAME"],"account":"evil","servers":["SERVER"]}`, `{"name":"NAME","account":{"a":1},"servers":["SERVER"]}`, `{"name":"NAME","account":1,"servers":[1]}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"aliases":"x"}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"canonical_status":1e99}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"wildcard":"yes"}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"directives":"Include /etc/shadow"}`,
	`{"name":"victim.test","account":"evil","servers":["SERVER"]}`, `{"name":"other.test","account":"evil","servers":["SERVER"]}`,
	`{"name":"NAME","account":"root","servers":["SERVER"]}`, `{"name":"NAME","account":"../outside","servers":["SERVER"]}`, `{"name":"NAME","account":"nobody-there","servers":["SERVER"]}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"aliases":["victim.test"]}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"aliases":["www.victim.test"]}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"aliases":["evil-unregistered.test"]}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"aliases":["*.victim.test"]}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"root":"../../../outside"}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"root":"/etc"}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"subof":"victim.test"}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"error_pages":{"404":"%{file:/etc/passwd}"}}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"error_pages":{"404\nInclude /etc/passwd":"x"}}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"redirects":[{"from":"/old","to":"https://x.test/\nHeader set X-Pwned 1"}]}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"redirects":[{"from":"/old\" x","to":"${PATH}"}]}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"headers":{"X-Evil\nX-Pwned":"1"}}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"headers":{"X-Evil":"a\\"}}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"environment":{"LD_PRELOAD":"/x.so"}}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"protect":[{"path":"/","users":{"a\nroot":"x"}}]}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"index":["../x","a b"]}`,
	`{"name":"NAME","account":"evil","servers":["SERVER"],"deny":["0.0.0.0/0\nAllow from all"]}`, `{"name":"NAME","account":"evil","servers":["SERVER"],"methods":["GET\nX"]}`,
}

// documents poisons what is declared of a site.
func (p *poisoned) documents(t *testing.T) {
	p.t = t
	ctx := context.Background()
	names := make([]string, len(poison))
	for i := range poison {
		names[i] = p.site()
	}
	err := p.Endure(ctx, func() error {
		for i, text := range poison {
			text = strings.NewReplacer("NAME", names[i], "SERVER", p.Server).Replace(text)
			if err := p.exec("UPDATE objects SET document = $1, generation = generation + 1 WHERE kind = 'site' AND name = $2", text, names[i]); err != nil {
				if p.postgres && !strings.Contains(text, "NAME") { // it keeps text in UTF-8
					t.Logf("PostgreSQL refuses %.40q: %v", text, err)
					names[i] = ""
					continue
				}
				return err
			}
		}
		if err := p.stir(ctx); err != nil {
			return err
		}
		var broken []error
		for i, name := range names {
			if name == "" {
				continue
			}
			if err := p.failed(name); err != nil {
				broken = append(broken, fmt.Errorf("%.200q: %w", poison[i], err))
			}
		}
		return errors.Join(broken...)
	})
	if err != nil {
		t.Error(err)
	}
	p.delete(names)
}

// delete takes poisoned sites away as a person would: by their names.
func (p *poisoned) delete(names []string) {
	p.t.Helper()
	for _, name := range names {
		if name == "" {
			continue
		}
		if err := p.Delete(context.Background(), upkeep.KindSite, name); err != nil {
			p.t.Errorf("deleting %s: %v", name, err)
		}
	}
}

// rows poisons other columns, and other tables that decide about sites.
func (p *poisoned) rows(t *testing.T) {
	p.t = t
	ctx := context.Background()
	document := func(name, account string) string {
		text, err := json.Marshal(map[string]any{"name": name, "account": account, "servers": []string{p.Server}})
		p.must(err)
		return string(text)
	}
	insert := func(kind, name, document string, generation any) error {
		return p.exec("INSERT INTO objects (kind, name, generation, document, changed_at, changed_by, deleted) VALUES ($1, $2, $3, $4, 1, 'x', false)", kind, name, generation, document)
	}
	for what, do := range map[string]func(name string) error{
		"a negative generation": func(name string) error {
			return p.exec("UPDATE objects SET generation = -5, document = $1 WHERE kind = 'site' AND name = $2", document(name, "evil"), name)
		},
		"generation 0": func(name string) error {
			return p.exec("UPDATE objects SET generation = 0 WHERE kind = 'site' AND name = $1", name)
		},
		"the largest generation": func(name string) error {
			return p.exec("UPDATE objects SET generation = 9223372036854775807 WHERE kind = 'site' AND name = $1", name)
		},
		"values of other types": func(name string) error {
			// Both databases refuse these by themselves.
			for _, column := range []string{"generation", "changed_at", "deleted"} {
				if p.exec("UPDATE objects SET "+column+" = 'maybe' WHERE kind = 'site' AND name = $1", name) == nil {
					return fmt.Errorf("a word was taken for %s", column)
				}
			}
			return nil
		},
		"a row of no kind": func(name string) error {
			return errors.Join(insert("shell", name, `{"command":"touch /tmp/pwned"}`, 1), insert("", name, ``, 1))
		},
		"a site that nobody registered": func(name string) error {
			return errors.Join(insert("site", "evil-new.test", document("evil-new.test", "evil"), 1), insert("site", "shop.victim.test", document("shop.victim.test", "evil"), 1))
		},
		"names of others": func(name string) error {
			return p.exec("UPDATE site_names SET site = $1, account = 'evil' WHERE name = 'www.victim.test'", name)
		},
		"an account with root's name": func(name string) error {
			return errors.Join(insert("account", "root", `{"name":"root","uid":0}`, 1), insert("site", "evil-root.test", document("evil-root.test", "root"), 1))
		},
		"the account's number is root's": func(string) error {
			return p.exec(`UPDATE objects SET document = '{"name":"evil","uid":0}' WHERE kind = 'account' AND name = 'evil'`)
		},
		"the account's number is the neighbour's": func(string) error {
			return p.exec(`UPDATE objects SET document = (SELECT replace(document, 'victim', 'evil') FROM objects WHERE kind = 'account' AND name = 'victim') WHERE kind = 'account' AND name = 'evil'`)
		},
		"the account is no JSON": func(string) error {
			return p.exec(`UPDATE objects SET document = 'x' WHERE kind = 'account' AND name = 'evil'`)
		},
		"a server that is none": func(string) error {
			return errors.Join(insert("server", "web\n9", `{"name":"web\n9","roles":["web"]}`, 1), insert("server", "evil-server", `[]`, 1))
		},
		"a delegation of everything": func(string) error {
			return errors.Join(insert("delegation", "victim.test", `{"name":"victim.test","account":"evil"}`, 1), insert("delegation", "x\n", `{"name":"x\n"}`, -1))
		},
	} {
		name := p.site()
		saved := p.save()
		err := p.Endure(ctx, func() error {
			if err := do(name); err != nil {
				return fmt.Errorf("writing: %w", err)
			}
			if what == "names of others" {
				// It cannot be told who is right: nothing is done by that row, and its
				// servers go on.
				return errors.Join(p.failed("victim.test"), p.restoreRows(saved))
			}
			return errors.Join(p.alive(ctx), p.restoreRows(saved))
		})
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// alive asserts that everything about other sites works: changes, lists, jobs.
func (p *poisoned) alive(ctx context.Context) error {
	var broken []error
	job, err := p.Client.SyncServer(ctx, p.Server, "regenerate")
	if err == nil {
		err = p.settled(ctx, job.ID)
	}
	broken = append(broken, err)
	_, err = p.Declare(ctx, map[string]any{"kind": "site", "name": "victim.test", "account": "victim", "servers": []string{p.Server}, "wildcard": false})
	broken = append(broken, err)
	status, err := p.Client.Site(ctx, "victim.test")
	if err == nil && status.State != upkeep.SiteLive {
		err = fmt.Errorf("victim.test is %s: %s", status.State, status.Reason)
	}
	broken = append(broken, err)
	sites, err := p.Client.Sites(ctx, "")
	if err == nil {
		for _, site := range sites {
			if site.State == upkeep.SiteFailed {
				broken = append(broken, said(site.Reason))
			}
		}
	}
	_, err2 := p.Client.Servers(ctx)
	_, err3 := p.Client.Jobs(ctx, wire.JobFilter{})
	return errors.Join(append(broken, err, err2, err3)...)
}

// save copies the declared rows and the names; restoreRows puts them back.
func (p *poisoned) save() (tables map[string][][]any) {
	p.t.Helper()
	tables = map[string][][]any{}
	for _, table := range []string{"objects", "site_names"} {
		rows, err := p.db.QueryContext(context.Background(), "SELECT * FROM "+table)
		p.must(err)
		columns, err := rows.Columns()
		p.must(err)
		for rows.Next() {
			row, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range row {
				into[i] = &row[i]
			}
			p.must(rows.Scan(into...))
			tables[table] = append(tables[table], row)
		}
		p.must(errors.Join(rows.Err(), rows.Close()))
	}
	return tables
}

func (p *poisoned) restoreRows(tables map[string][][]any) error {
	tx, err := p.db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	for table, rows := range tables {
		if _, err := tx.Exec("DELETE FROM " + table); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		for _, row := range rows {
			marks := make([]string, len(row))
			for i := range row {
				marks[i] = fmt.Sprintf("$%d", i+1)
			}
			if _, err := tx.Exec("INSERT INTO "+table+" VALUES ("+strings.Join(marks, ", ")+")", row...); err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
	}
	return tx.Commit()
}

// jobs poisons the table of jobs: what waits, and what was made up.
func (p *poisoned) jobs(t *testing.T) {
	p.t = t
	ctx := context.Background()
	type made struct{ account, kind, object, payload string }
	for _, one := range []made{
		{"evil", "shell", "x", `{"command":"touch /tmp/pwned"}`}, {"evil", "", "x", ``}, {"evil", "mkdir\n", "x", `{}`},
		{"evil", "mkdir", "dir/etc/x", `{"root":"etc","path":"x","owner":"root","group":"root","mode":"0755"}`}, {"evil", "mkdir", "dir/data/../x", `{"root":"data","path":"../outside/x","owner":"evil","group":"evil","mode":"0755"}`},
		{"evil", "mkdir", "dir/x", ``}, {"evil", "mkdir", "dir/y", `{`}, {"evil", "mkdir", "dir/z", `[]`}, {"evil", "mkdir", "dir/u", `{"root":1}`}, {"evil", "mkdir", "dir/v", `{"root":"data","path":"v","owner":"evil","group":"evil","mode":"0755","command":"x"}`},
		{"evil", "user.ensure", "account/root", ``}, {"evil", "user.ensure", "account/nobody-there", `{"account":"root","uid":0}`}, {"evil", "user.ensure", "account/x:0:0\n", ``},
		{"evil", "user.remove", "account/victim", `{"account":"root","uid":0}`}, {"evil", "user.remove", "account/evil", ``},
		{"evil", "site.apply", "site/victim.test", `{}`}, {"evil", "site.apply", "site/nobody.test", ``}, {"evil", "site.apply", "victim.test", ``}, {"evil", "site.apply", "site/../../x", ``}, {"evil", "site.apply", "", ``},
		{"evil", "site.remove", "site/victim.test", `{"name":"victim.test","account":"victim","generation":999}`}, {"evil", "site.remove", "site/nobody.test", `{"name":"victim.test","account":"evil","generation":999}`},
		{"evil", "site.remove", "site/..", `{"name":"..","account":"..","generation":-1}`}, {"evil", "site.sync", "sites/x", `{"sites":[],"partial":true}`}, {"evil", "site.sync", "sites/y", `x`},
		{"evil", "site.files", "site/victim.test", ``}, {"evil", "zone.publish", "zone/evil.test", `{"zone":{"name":"evil.test"}}`}, {"evil", "notification", "account/victim", `{"account":"victim","text":"\u001b[2J"}`}, {"evil", "server.facts", "facts", `{"x":1}`},
	} {
		err := p.Endure(ctx, func() error { return p.oneJob(ctx, one.account, one.kind, one.object, one.payload, "7") })
		if err != nil {
			t.Errorf("%+v: %v", one, err)
		}
	}
	for _, generation := range []string{"-1", "0", "9223372036854775807", "x", "1.5", ""} {
		err := p.Endure(ctx, func() error {
			return p.oneJob(ctx, "evil", "mkdir", "dir/data/evil-g", `{"root":"data","path":"../x","owner":"evil","group":"evil","mode":"0755"}`, generation)
		})
		if err != nil {
			t.Errorf("generation %q: %v", generation, err)
		}
	}
}

// oneJob turns a harmless job that is pending into another one: its row stays, with
// its place in the queue. The server's agent is kept from taking it by a job before
// it about the same object.
func (p *poisoned) oneJob(ctx context.Context, account, kind, object, payload, generation string) error {
	job, err := p.Client.RunJob(ctx, wire.NewJob{Kind: upkeep.JobServerFacts, Server: p.Server, Payload: json.RawMessage(`{}`)})
	if err != nil {
		return err
	}
	if err := p.settled(ctx, job.ID); err != nil {
		return err
	}
	err = p.exec("UPDATE jobs SET account = $1, kind = $2, object = $3, payload = $4, generation = $5, state = 'failed', error = 'written past upkeep' WHERE id = $6", account, kind, object, payload, generation, job.ID)
	if _, number := strconv.ParseInt(generation, 10, 64); err != nil {
		if number != nil {
			return nil // both databases keep types
		}
		return err
	}
	defer func() { _ = p.exec("DELETE FROM jobs WHERE id = $1", job.ID) }()
	// A person tries it again, which puts it into the queue.
	if _, err := p.Client.ChangeJob(ctx, job.ID, "retry"); err != nil {
		return said(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	// Another job for the server goes through, whatever becomes of that one.
	next, err := p.Client.RunJob(ctx, wire.NewJob{Kind: upkeep.JobServerFacts, Server: p.Server, Payload: json.RawMessage(`{}`)})
	if err != nil {
		return fmt.Errorf("the next job: %w", err)
	}
	if err := p.settled(ctx, next.ID); err != nil {
		return err
	}
	ended, err := p.Client.Job(ctx, job.ID)
	if err != nil {
		return err
	}
	if ended.State == upkeep.JobDone && kind != upkeep.JobUserEnsure && kind != upkeep.JobServerFacts && kind != upkeep.JobSiteSync && kind != upkeep.JobNotification {
		return errors.New("it was done")
	}
	if ended.State == upkeep.JobFailed {
		return said(strings.ReplaceAll(ended.Error, "\n", "; "))
	}
	return nil
}

// afterwards everything is as it was declared, and can be changed.
func (p *poisoned) afterwards(t *testing.T) {
	p.t = t
	name := p.site()
	if err := p.Endure(context.Background(), func() error { return p.alive(context.Background()) }); err != nil {
		t.Error(err)
	}
	if status, err := p.Site(context.Background(), name); err != nil || status.State != upkeep.SiteLive {
		t.Errorf("%+v, %v", status, err)
	}
}
