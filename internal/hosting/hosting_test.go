package hosting

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/job"
	"upkeep/internal/link"
	"upkeep/internal/link/authority"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
	"upkeep/internal/watch"
)

// declarer stores without a loop of pools beside it.
type declarer struct{ store *store.Store }

func (d declarer) ApplyIf(ctx context.Context, who string, still map[store.Ref]int64, objects []upkeep.Object, _ bool) (watch.Applied, error) {
	_, err := d.store.Apply(ctx, who, store.Change{Put: objects, IfGeneration: still})
	return watch.Applied{}, err
}

// agents notes whose links were ended.
type agents struct{ dropped []string }

func (*agents) Link(string) (link.Standing, bool) { return link.Standing{}, false }

func (a *agents) Drop(server, _ string) { a.dropped = append(a.dropped, server) }

func newDesk(t *testing.T) (*Desk, *agents) {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	s, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "upkeep.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := job.New(ctx, job.Config{Store: s, Key: key, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = jobs.Close() })
	keys, err := authority.Open(filepath.Join(dir, "link"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	a := &agents{}
	d := &Desk{Store: s, Jobs: jobs, Declarer: declarer{s}, Agents: a, Inviter: keys, Notice: func(string, string, string) {}}
	s.Follow(d)
	if err := jobs.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return d, a
}

func (d *Desk) put(t *testing.T, objects ...upkeep.Object) {
	t.Helper()
	if _, err := d.Store.Apply(context.Background(), "tester", store.Change{Put: objects}); err != nil {
		t.Fatal(err)
	}
}

var (
	web1 = upkeep.Server{Name: "web1", Roles: []string{upkeep.RoleWeb}}
	acme = upkeep.Account{Name: "acme"}
)

func site(change func(*upkeep.Site)) upkeep.Site {
	s := upkeep.Site{Name: "example.test", Account: "acme", Servers: []string{"web1"}}
	if change != nil {
		change(&s)
	}
	return s
}

// TestUndo goes back to what differs, to a generation, and to a site that was
// deleted, each under a new generation.
func TestUndo(t *testing.T) {
	d, _ := newDesk(t)
	ctx := context.Background()
	d.put(t, web1, acme, site(nil))
	if _, err := d.Undo(ctx, "tester", "example.test", 0, 0); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("there is nothing to go back to, and Undo says %v", err)
	}
	d.put(t, site(func(s *upkeep.Site) { s.CGI = true }))
	d.put(t, site(func(s *upkeep.Site) { s.Suspended = true }))
	expect := func(generation int64, want func(upkeep.Site) bool) {
		t.Helper()
		status, err := d.Undo(ctx, "tester", "example.test", generation, 0)
		if err != nil {
			t.Fatal(err)
		}
		now, err := d.Store.Object(ctx, store.Ref{Kind: upkeep.KindSite, Name: "example.test"})
		if err != nil {
			t.Fatal(err)
		}
		if got := now.Object.(upkeep.Site); !want(got) || now.Generation != status.Generation {
			t.Errorf("back to %d: got %+v at generation %d, and the status says %d", generation, got, now.Generation, status.Generation)
		}
	}
	expect(0, func(s upkeep.Site) bool { return s.CGI && !s.Suspended })
	expect(1, func(s upkeep.Site) bool { return !s.CGI && !s.Suspended })
	if _, err := d.Store.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: upkeep.KindSite, Name: "example.test"}}}); err != nil {
		t.Fatal(err)
	}
	expect(0, func(s upkeep.Site) bool { return !s.CGI && !s.Suspended })
	for generation, want := range map[int64]error{99: upkeep.ErrNotFound, 6: upkeep.ErrRefused} {
		if _, err := d.Undo(ctx, "tester", "example.test", generation, 0); !errors.Is(err, want) {
			t.Errorf("back to %d: %v, want %v", generation, err, want)
		}
	}
	if _, err := d.Undo(ctx, "tester", "never.test", 0, 0); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("a site that never was: %v", err)
	}
}

// TestUndoOfWhatWasRead goes back from what the caller has seen, and from nothing
// else.
func TestUndoOfWhatWasRead(t *testing.T) {
	d, _ := newDesk(t)
	ctx := context.Background()
	d.put(t, web1, acme, site(nil))
	d.put(t, site(func(s *upkeep.Site) { s.CGI = true }))
	if _, err := d.Undo(ctx, "tester", "example.test", 0, 1); !errors.Is(err, upkeep.ErrChanged) {
		t.Errorf("somebody has changed it since, and Undo says %v", err)
	}
	if status, err := d.Undo(ctx, "tester", "example.test", 0, 2); err != nil || status.Generation != 3 {
		t.Errorf("from what was read: generation %d, %v", status.Generation, err)
	}
	if _, err := d.Store.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: upkeep.KindSite, Name: "example.test"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Undo(ctx, "tester", "example.test", 0, 3); !errors.Is(err, upkeep.ErrChanged) {
		t.Errorf("it was removed since, and Undo says %v", err)
	}
	if _, err := d.Undo(ctx, "tester", "example.test", 0, store.Exists); !errors.Is(err, upkeep.ErrChanged) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("from whatever there is, where there is nothing: %v", err)
	}
	if _, err := d.Undo(ctx, "tester", "example.test", 0, 4); err != nil {
		t.Errorf("a removal that was read: %v", err)
	}
	if status, err := d.Undo(ctx, "tester", "example.test", 0, store.Exists); err != nil || status.Generation != 6 {
		t.Errorf("from whatever there is: generation %d, %v", status.Generation, err)
	}
}

// TestServersFromAddToRemoval follows a server through its states, and sees that
// neither revocation nor deletion leaves anything with which it could come back.
func TestServersFromAddToRemoval(t *testing.T) {
	d, agents := newDesk(t)
	ctx := context.Background()
	state := func() string {
		t.Helper()
		servers, err := d.Servers(ctx)
		if err != nil || len(servers) != 1 {
			t.Fatalf("got %+v, %v", servers, err)
		}
		return servers[0].State
	}
	if _, _, err := d.Invite(ctx, "tester", "web1"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("inviting a server that is not declared: %v", err)
	}
	if err := d.Revoke(ctx, "tester", "web1"); !errors.Is(err, upkeep.ErrNotFound) || len(agents.dropped) > 0 {
		t.Errorf("revoking a server that is not declared: %v, and dropped were %v", err, agents.dropped)
	}
	d.put(t, web1)
	if got := state(); got != "new" {
		t.Errorf("after the declaration it is %s", got)
	}
	join := func(serial string) error {
		t.Helper()
		text, expires, err := d.Invite(ctx, "tester", "web1")
		if err != nil {
			t.Fatal(err)
		}
		token, err := authority.ParseToken(text)
		if err != nil || expires.Before(time.Now()) {
			t.Fatalf("token %q, good until %s: %v", text, expires, err)
		}
		if got := state(); got != "waiting" && got != "joined" {
			t.Errorf("with a token out it is %s", got)
		}
		now := time.Now()
		return d.Store.Roster().Redeem(ctx, authority.Hash(token.Secret), upkeep.Certificate{Server: "web1", Serial: serial, Issued: now, Expires: now.Add(time.Hour)})
	}
	if err := join("1"); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != "joined" {
		t.Errorf("with a certificate it is %s", got)
	}
	if err := d.Revoke(ctx, "tester", "web1"); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != "new" || !slices.Equal(agents.dropped, []string{"web1"}) {
		t.Errorf("revoked it is %s, and dropped were %v", got, agents.dropped)
	}
	if err := d.Store.Roster().UseCertificate(ctx, "web1", "1"); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("the revoked certificate: %v", err)
	}
	if err := join("2"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Store.Apply(ctx, "tester", store.Change{Delete: []store.Ref{{Kind: upkeep.KindServer, Name: "web1"}}}); err != nil {
		t.Fatal(err)
	}
	if err := d.Store.Roster().UseCertificate(ctx, "web1", "2"); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("the certificate of a server that was removed: %v", err)
	}
	if err := d.Revoke(ctx, "tester", "web1"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("revoking a server that was removed: %v", err)
	}
	if _, _, err := d.Invite(ctx, "tester", "web1"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("inviting a server that was removed: %v", err)
	}
}

// TestAgentsOfOtherBuilds has the list of servers say which side is to be upgraded.
func TestAgentsOfOtherBuilds(t *testing.T) {
	d, _ := newDesk(t)
	d.put(t, web1)
	for protocol, says := range map[int]string{0: "older upkeep than control", link.Protocol: "", link.Protocol + 1: "upgrade control"} {
		ours, theirs := link.Pipe()
		hello := link.Hello{Version: "other", Protocol: protocol, Facts: upkeep.Facts{Warnings: []string{"one"}}}
		served := make(chan error, 1)
		go func() { served <- d.Jobs.Serve(context.Background(), "web1", hello, ours) }()
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			servers, err := d.Servers(context.Background())
			if err != nil || len(servers) != 1 || !servers[0].Connected {
				return false, fmt.Sprintf("%+v, %v", servers, err)
			}
			got := servers[0].Facts.Warnings
			if want := map[bool]int{true: 1, false: 2}[says == ""]; len(got) != want || !strings.Contains(got[want-1], says) {
				t.Errorf("of an agent with protocol %d it says %q, want %q", protocol, got, says)
			}
			return true, ""
		})
		if connected, err := d.Connected(context.Background()); err != nil || len(connected) != 1 || !connected["web1"] {
			t.Errorf("connected are %v, %v", connected, err)
		}
		_ = theirs.Close()
		<-served
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			connected, err := d.Connected(context.Background())
			is, there := connected["web1"]
			return err == nil && there && !is, fmt.Sprintf("after it went away: %v, %v", connected, err)
		})
	}
}

// TestInviteWithoutListener says how agents can be let in.
func TestInviteWithoutListener(t *testing.T) {
	d, _ := newDesk(t)
	d.Agents = nil
	d.put(t, web1)
	_, _, err := d.Invite(context.Background(), "tester", "web1")
	var hinted *upkeep.HintError
	if !errors.Is(err, upkeep.ErrRefused) || !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "--agents") {
		t.Errorf("got %v", err)
	}
}

// TestPreviewMakesNoChange asks for a look at a site that is not declared: it is
// a job for each of its servers, and nothing is declared by it.
func TestPreviewMakesNoChange(t *testing.T) {
	d, _ := newDesk(t)
	ctx := context.Background()
	web2 := upkeep.Server{Name: "web2", Roles: []string{upkeep.RoleWeb}}
	d.put(t, web1, web2, acme)
	jobs, err := d.Preview(ctx, "tester", []upkeep.Object{site(func(s *upkeep.Site) { s.Servers = []string{"web1", "web2"} })})
	if err != nil || len(jobs) != 2 || jobs[0].Kind != upkeep.JobSiteSync || jobs[0].Server == jobs[1].Server {
		t.Errorf("got %+v, %v", jobs, err)
	}
	if _, err := d.Site(ctx, "example.test"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("the site that was looked at: %v", err)
	}
	if _, err := d.Preview(ctx, "tester", []upkeep.Object{site(func(s *upkeep.Site) { s.Account = "nobody-yet" })}); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("an account that is not declared: %v", err)
	}
	jobs, err = d.Preview(ctx, "tester", []upkeep.Object{site(func(s *upkeep.Site) { s.Account = "beta" }), upkeep.Account{Name: "beta", Suspended: true}})
	if err != nil || len(jobs) != 1 || jobs[0].Account != "beta" {
		t.Errorf("an account that would be declared with it: %+v, %v", jobs, err)
	}
	if all, err := d.Store.All(ctx, upkeep.KindAccount); err != nil || len(all) != 1 {
		t.Errorf("the account that was looked at is declared: %v, %v", all, err)
	}
}

// TestRemovedServerIsDropped sees that the link of a server ends when it is
// declared no more, and that other events end none.
func TestRemovedServerIsDropped(t *testing.T) {
	d, agents := newDesk(t)
	ctx, stop := context.WithCancel(context.Background())
	events := make(chan upkeep.Event, 4)
	for _, e := range []upkeep.Event{
		{Kind: upkeep.EventDeclared, Object: "server/web1", What: "changed roles"},
		{Kind: upkeep.EventDeclared, Object: "site/web1", What: store.Deleted},
		{Kind: upkeep.EventDeclared, Object: "server/web2", What: store.Deleted},
	} {
		events <- e
	}
	close(events)
	subscribed := 0
	subscribe := func() (<-chan upkeep.Event, func()) {
		if subscribed++; subscribed == 2 { // the first one was read to its end
			stop()
		}
		return events, func() {}
	}
	if err := d.Attend(ctx, subscribe); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(agents.dropped, []string{"web2"}) {
		t.Errorf("dropped were %v", agents.dropped)
	}
}

// TestImages tells what agents told of their images: as it came last, and of those
// servers that have any.
func TestImages(t *testing.T) {
	d, _ := newDesk(t)
	ctx := context.Background()
	d.put(t, web1, upkeep.Server{Name: "vm1", Roles: []string{upkeep.RoleImages}})
	if _, err := d.Images(ctx, "vm2"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("of a server that is not declared: %v", err)
	}
	lists := func(server string) upkeep.ImageList {
		t.Helper()
		lists, err := d.Images(ctx, server)
		if err != nil || len(lists) != 1 || lists[0].Server != "vm1" {
			t.Fatalf("got %+v, %v", lists, err)
		}
		return lists[0]
	}
	if got := lists("vm1"); !got.At.IsZero() || got.Images == nil || len(got.Images) > 0 {
		t.Errorf("before anything was told: %+v", got)
	}
	for _, result := range []string{`{"server":"web1","at":"2026-01-02T03:04:05Z","images":[{"path":"old.img"}]}`, `{"server":"web1","images":[{"root":"vms","path":"a.img","size":4096}]}`} {
		made, err := d.Store.Enqueue(ctx, store.NewJob{Job: upkeep.Job{Server: "vm1", Kind: upkeep.JobImageList, Object: "images"}})
		if err == nil {
			_, err = d.Store.ClaimJobs(ctx, "vm1", []int64{made[0].ID})
		}
		if err == nil {
			err = d.Store.FinishJobs(ctx, []store.JobEnd{{ID: made[0].ID, State: upkeep.JobDone, Result: []byte(result)}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := lists(""); len(got.Images) != 1 || got.Images[0].Path != "a.img" || got.Images[0].Size != 4096 {
		t.Errorf("got %+v", got)
	}
}

// TestEndOfDelegation sees that the end of a delegation is told of when it comes,
// though it was declared after the desk had looked.
func TestEndOfDelegation(t *testing.T) {
	d, _ := newDesk(t)
	told := make(chan upkeep.Event, 4)
	d.Announce = func(events []upkeep.Event) {
		for _, e := range events {
			told <- e
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	declared := make(chan upkeep.Event)
	attended := make(chan error, 1)
	go func() {
		attended <- d.Attend(ctx, func() (<-chan upkeep.Event, func()) { return declared, func() {} })
	}()
	until := time.Now().Add(2 * time.Second).UTC().Truncate(time.Second)
	given := upkeep.Delegation{Name: "blog.example.test", Account: "acme", Until: until.Format(time.RFC3339)}
	d.put(t, acme, given)
	declared <- upkeep.Event{Kind: upkeep.EventDeclared, Object: "delegation/blog.example.test", What: store.Created}
	e := <-told
	if e.Object != "delegation/blog.example.test" || e.What != "the delegation has ended" || time.Now().Before(until) || e.At.Before(until) {
		t.Errorf("told at %s: %+v", time.Now(), e)
	}
	stop()
	if err := <-attended; err != nil || len(told) > 0 {
		t.Errorf("%v, and %d more were told", err, len(told))
	}
}
