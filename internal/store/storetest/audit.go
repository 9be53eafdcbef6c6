package storetest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

var auditTests = []test{
	{"what is declared, with what it was and is", auditDeclared},
	{"users and their tokens, without secrets", auditUsers},
	{"who may connect", auditRoster},
	{"admin states", auditOverrides},
	{"jobs that people ask for, retry and give up", auditJobs},
	{"is read by page, and pruned", auditPages},
}

// audit is what the log has about an object, the newest first: "who what before > after".
func audit(t *testing.T, s *store.Store, object string) []string {
	t.Helper()
	entries, err := s.Audit(ctx, store.AuditFilter{Object: object})
	must(t, err)
	texts := make([]string, len(entries))
	for i, short := range entries {
		if short.Before != nil || short.After != nil {
			t.Errorf("a list has what there was: %+v", short)
		}
		e, err := s.AuditEntry(ctx, short.ID)
		must(t, err)
		texts[i] = e.Who + ": " + e.Object + " " + e.What + " " + string(e.Before) + " > " + string(e.After)
	}
	return texts
}

// saw fails unless the newest entries hold these texts.
func saw(t *testing.T, got []string, want ...[]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("there are %d entries, not %d: %q", len(got), len(want), got)
	}
	for i, texts := range want {
		for _, text := range texts {
			if !strings.Contains(got[i], text) {
				t.Errorf("entry %d lacks %q: %s", i, text, got[i])
			}
		}
	}
}

func auditDeclared(t *testing.T, open func() *store.Store) {
	s := open()
	web := upkeep.Server{Name: "web1", Roles: []string{upkeep.RoleWeb}}
	acme := upkeep.Account{Name: "acme"}
	site := upkeep.Site{Name: "a.test", Account: "acme", Servers: []string{"web1"}}
	put(t, s, web, acme, site, zone("b.test"), pool("web", "b.test", "192.0.2.1"))
	site.CGI = true
	_, err := s.Apply(ctx, "user eve", store.Change{Put: []upkeep.Object{site}, Why: "a form"})
	must(t, err)
	put(t, s, site) // as it is: no change
	if _, err := s.Apply(ctx, "user eve", store.Change{Put: []upkeep.Object{upkeep.Account{Name: "new"}}, DryRun: true}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Apply(ctx, "user ada", store.Change{Delete: []store.Ref{{Kind: "site", Name: "a.test"}, {Kind: "pool", Name: "web"}}})
	must(t, err)
	saw(t, audit(t, s, "site/a.test"),
		[]string{"user ada: ", "deleted", `{"name":"a.test"`, `"cgi":true`, "} > "},
		[]string{"user eve: ", "changed cgi", `{"name":"a.test"`, `> {"name":"a.test"`},
		[]string{"tester: ", "created", `created  > {"name":"a.test"`})
	saw(t, audit(t, s, "pool"), []string{"deleted", `{"name":"web"`}, []string{"created"})
	for _, object := range []string{"server/web1", "account", "zone/b.test"} {
		saw(t, audit(t, s, object), []string{"created"})
	}
	if got := audit(t, s, "account/new"); len(got) > 0 {
		t.Errorf("a trial is in the log: %q", got)
	}
}

func auditUsers(t *testing.T, open func() *store.Store) {
	s := open()
	u := s.Users()
	put(t, s, upkeep.Account{Name: "acme"})
	addUser(t, u, upkeep.User{Name: "eve", Role: upkeep.UserCustomer, Account: "acme"})
	events := func(_ []upkeep.Event, err error) { t.Helper(); must(t, err) }
	events(u.SetPassword(ctx, "user ada", "eve", "another hash"))
	events(u.SetFactor(ctx, "user eve", "eve", "a secret", 1, []string{"spare"}))
	made, _, err := u.AddToken(ctx, "user eve", "eve", "hash of a token", upkeep.AccessToken{Name: "backup", Scope: "read", Expires: time.Now().Add(time.Hour)})
	must(t, err)
	events(u.RemoveToken(ctx, "user ada", "eve", made.ID))
	events(u.SignIn(ctx, "eve", "another hash", store.Proof{Step: 5}, "hash of a browser", upkeep.SignIn{Created: time.Now(), Expires: time.Now().Add(time.Hour), Address: "192.0.2.9"}))
	events(u.SignOut(ctx, "user ada", "eve", 0))
	_, err = s.Apply(ctx, "user ada", store.Change{Delete: []store.Ref{{Kind: "account", Name: "acme"}}})
	must(t, err)
	got := audit(t, s, "user/eve")
	saw(t, got,
		[]string{"user ada", "removed", `"name":"eve"`, "} > "},
		[]string{"user ada", "signed out everywhere", "192.0.2.9"},
		[]string{"user eve", "signed in", `> {"id":`, "192.0.2.9"},
		[]string{"user ada", "taken back", `"name":"backup"`, "} > "},
		[]string{"user eve", "got token", `> {"id":`, `"name":"backup"`},
		[]string{"user eve", "second factor turned on", `"second_factor":false`, `> {`, `"second_factor":true`},
		[]string{"user ada", "got a new password  > "},
		[]string{"tester", "added as customer", `> {"name":"eve"`})
	for _, secret := range []string{"hash", "secret,", "spare"} {
		if text := strings.Join(got, "\n"); strings.Contains(text, secret) {
			t.Errorf("the log holds %q: %s", secret, text)
		}
	}
}

func auditRoster(t *testing.T, open func() *store.Store) {
	s := open()
	put(t, s, upkeep.Server{Name: "web1", Roles: []string{upkeep.RoleWeb}})
	now := time.Now()
	r := s.Roster().By("user ada")
	must(t, r.Invite(ctx, upkeep.Invitation{Server: "web1", Hash: "a hash", Expires: now.Add(time.Hour)}))
	must(t, r.Redeem(ctx, "a hash", upkeep.Certificate{Server: "web1", Serial: "0a", Issued: now, Expires: now.Add(time.Hour)}))
	must(t, r.Revoke(ctx, "web1"))
	must(t, r.Revoke(ctx, "web1")) // there is nothing left
	saw(t, audit(t, s, "server/web1"),
		[]string{"user ada", "revoked", `"serial":"0a"`, "] > "},
		[]string{"agent of web1", "joined", `> {`, `"serial":"0a"`},
		[]string{"user ada", "a token to join was made", `> {"expires":`},
		[]string{"created"})
}

func auditOverrides(t *testing.T, open func() *store.Store) {
	s := open()
	for _, state := range []string{upkeep.AdminDrain, upkeep.AdminDown} {
		_, _, err := s.SetOverride(ctx, upkeep.Override{Pool: "web", Member: "192.0.2.1", State: state, Who: "user ada", Why: "a new kernel"})
		must(t, err)
	}
	_, _, err := s.ClearOverrides(ctx, "user bob", "web", "192.0.2.1")
	must(t, err)
	must(t, s.AddAudit(ctx, upkeep.AuditEntry{Who: "user ada", Object: "pool", What: "mass failure declared real"}))
	saw(t, audit(t, s, "pool/web/192.0.2.1"),
		[]string{"user bob", "released from down", `"state":"down"`, "} > "},
		[]string{"user ada", "set to down", `"state":"drain"`, "> {", `"state":"down"`},
		[]string{"user ada", "set to drain", `drain  > {`})
	if got := audit(t, s, "pool"); len(got) != 4 {
		t.Errorf("of all pools there are %d entries: %q", len(got), got)
	}
}

func auditJobs(t *testing.T, open func() *store.Store) {
	s := open()
	ask := func(object string) upkeep.Job {
		t.Helper()
		job, err := s.AskFor(ctx, store.NewJob{Job: upkeep.Job{Server: "web1", Kind: upkeep.JobMkdir, Object: object, Who: "user ada"}})
		must(t, err)
		return job
	}
	job := ask("dir/1")
	_, err := s.CancelJob(ctx, job.ID, "user bob")
	must(t, err)
	_, err = s.RetryJob(ctx, job.ID, "user ada")
	must(t, err)
	_, err = s.CancelJob(ctx, job.ID, "user bob")
	must(t, err)
	_, err = s.RetryJob(ctx, job.ID, "") // upkeep's own
	must(t, err)
	saw(t, audit(t, s, "job/1"),
		[]string{"user bob", "asked to be given up", `"state":"pending"`, "> {", `"state":"cancelled"`},
		[]string{"user ada", "retried", `"state":"cancelled"`, "> {", `"state":"pending"`},
		[]string{"user bob", "asked to be given up"},
		[]string{"user ada", "asked for: mkdir about dir/1", "> {"})
	note, err := s.AskFor(ctx, store.NewJob{Job: upkeep.Job{Account: "acme", Kind: upkeep.JobNotification, Object: "account/acme", Who: "user ada"}, Payload: []byte(`{"text":"hello"}`)})
	must(t, err)
	if _, err := s.ReadJob(ctx, job.ID, "user eve"); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("a job of an agent was read: %v", err)
	}
	_, err = s.ReadJob(ctx, note.ID, "user eve")
	must(t, err)
	saw(t, audit(t, s, "job/2"), []string{"user eve", "read", `"state":"done"`}, []string{"asked for"})
}

func auditPages(t *testing.T, open func() *store.Store) {
	s := open()
	for _, who := range []string{"user ada", "user bob", "user ada"} {
		must(t, s.AddAudit(ctx, upkeep.AuditEntry{Who: who, Object: "pool", What: "x\x00y"}))
	}
	first, err := s.Audit(ctx, store.AuditFilter{Limit: 2})
	must(t, err)
	rest, err := s.Audit(ctx, store.AuditFilter{Limit: 2, Before: first[1].ID})
	must(t, err)
	bobs, err := s.Audit(ctx, store.AuditFilter{Who: "user bob", Since: time.Now().Add(-time.Hour)})
	must(t, err)
	if len(first) != 2 || first[0].ID != 3 || len(rest) != 1 || rest[0].ID != 1 || len(bobs) != 1 || bobs[0].ID != 2 || bytes.Contains([]byte(bobs[0].What), []byte{0}) {
		t.Errorf("pages are %+v and %+v, of one %+v", first, rest, bobs)
	}
	if _, err := s.Audit(ctx, store.AuditFilter{Limit: store.MaxAudit + 1}); err == nil {
		t.Error("a limit above all is taken")
	}
	if _, err := s.AuditEntry(ctx, 99); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("an entry that is not there: %v", err)
	}
	if n, err := s.PruneAudit(ctx, time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("%d young entries went: %v", n, err)
	}
	if n, err := s.PruneAudit(ctx, time.Now().Add(time.Hour)); n != 3 || err != nil {
		t.Errorf("%d entries went: %v", n, err)
	}
}
