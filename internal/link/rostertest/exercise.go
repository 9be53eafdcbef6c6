package rostertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upkeep"
)

// Roster is what the suite exercises: link.Roster and what operators do.
type Roster interface {
	Invitation(ctx context.Context, hash string) (upkeep.Invitation, error)
	Redeem(ctx context.Context, hash string, certificate upkeep.Certificate) error
	AddCertificate(ctx context.Context, inUse string, certificate upkeep.Certificate) error
	UseCertificate(ctx context.Context, server, serial string) error
	Certificates(ctx context.Context) ([]upkeep.Certificate, error)
	// Invite lists an invitation; one of the same server that was not used goes.
	Invite(ctx context.Context, invitation upkeep.Invitation) error
	// Revoke takes all certificates and invitations of a server off the list.
	Revoke(ctx context.Context, server string) error
}

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func invitation(server, hash string) upkeep.Invitation {
	return upkeep.Invitation{Server: server, Hash: hash, Expires: noon.Add(time.Hour)}
}

// certificate is issued n minutes after noon.
func certificate(server, serial string, n int) upkeep.Certificate {
	issued := noon.Add(time.Duration(n) * time.Minute)
	return upkeep.Certificate{Server: server, Serial: serial, Issued: issued, Expires: issued.Add(24 * time.Hour)}
}

// Exercise runs the suite. Each call of empty returns a roster without entries, which
// knows the servers web1 and web2.
func Exercise(t *testing.T, empty func(t *testing.T) Roster) {
	for name, test := range map[string]func(*testing.T, Roster){
		"invitations":          invitations,
		"one wins":             oneWins,
		"changing over":        changingOver,
		"at most two":          atMostTwo,
		"revoked":              revoked,
		"servers are apart":    serversAreApart,
		"joined once more":     joinedOnceMore,
		"refused when strange": strange,
	} {
		t.Run(name, func(t *testing.T) { test(t, empty(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refuses(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("%s: %v, want a refusal", what, err)
	}
}

// listed is the serial numbers on the list, with their servers.
func listed(t *testing.T, r Roster) []string {
	t.Helper()
	list, err := r.Certificates(t.Context())
	must(t, err)
	found := []string{}
	for _, c := range list {
		found = append(found, c.Server+"/"+c.Serial)
	}
	slices.Sort(found)
	return found
}

func lists(t *testing.T, r Roster, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, listed(t, r)); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
}

func invitations(t *testing.T, r Roster) {
	ctx := t.Context()
	if _, err := r.Invitation(ctx, "a"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("an invitation that is not there: %v", err)
	}
	must(t, r.Invite(ctx, invitation("web1", "a")))
	must(t, r.Invite(ctx, invitation("web1", "b"))) // takes the place of the first
	must(t, r.Invite(ctx, invitation("web2", "c")))
	if _, err := r.Invitation(ctx, "a"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("an invitation that was replaced: %v", err)
	}
	refuses(t, "redeeming one that was replaced", r.Redeem(ctx, "a", certificate("web1", "1", 1)))
	refuses(t, "redeeming one of another server", r.Redeem(ctx, "c", certificate("web1", "1", 1)))
	refuses(t, "redeeming one that has expired", r.Redeem(ctx, "b", certificate("web1", "1", 60)))
	lists(t, r, []string{}...)
	must(t, r.Redeem(ctx, "b", certificate("web1", "1", 59)))
	refuses(t, "redeeming one twice", r.Redeem(ctx, "b", certificate("web1", "2", 59)))
	got, err := r.Invitation(ctx, "b")
	must(t, err)
	want := invitation("web1", "b")
	want.Used = noon.Add(59 * time.Minute)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the invitation that was used (-want +got):\n%s", diff)
	}
	list, err := r.Certificates(ctx)
	must(t, err)
	if diff := cmp.Diff([]upkeep.Certificate{certificate("web1", "1", 59)}, list); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
}

// oneWins has two agents come with one token in the same instant.
func oneWins(t *testing.T, r Roster) {
	must(t, r.Invite(t.Context(), invitation("web1", "a")))
	var all sync.WaitGroup
	results := make(chan error, 8)
	for n := range cap(results) {
		all.Go(func() { results <- r.Redeem(t.Context(), "a", certificate("web1", fmt.Sprint(n), 1)) })
	}
	all.Wait()
	close(results)
	won := 0
	for err := range results {
		if err == nil {
			won++
		} else {
			refuses(t, "a second one", err)
		}
	}
	if won != 1 || len(listed(t, r)) != 1 {
		t.Errorf("%d of %d joined with one token; the list is %v", won, cap(results), listed(t, r))
	}
}

func join(t *testing.T, r Roster, server, serial string, n int) {
	t.Helper()
	must(t, r.Invite(t.Context(), invitation(server, server+serial)))
	must(t, r.Redeem(t.Context(), server+serial, certificate(server, serial, n)))
}

func changingOver(t *testing.T, r Roster) {
	ctx := t.Context()
	join(t, r, "web1", "1", 1)
	must(t, r.UseCertificate(ctx, "web1", "1"))
	must(t, r.AddCertificate(ctx, "1", certificate("web1", "2", 2)))
	must(t, r.UseCertificate(ctx, "web1", "1")) // the answer may have been lost
	lists(t, r, "web1/1", "web1/2")
	must(t, r.UseCertificate(ctx, "web1", "2"))
	lists(t, r, "web1/2")
	refuses(t, "the old one after the new one", r.UseCertificate(ctx, "web1", "1"))
	refuses(t, "renewing the old one", r.AddCertificate(ctx, "1", certificate("web1", "3", 3)))
}

func atMostTwo(t *testing.T, r Roster) {
	join(t, r, "web1", "1", 1)
	for n := 2; n < 6; n++ {
		must(t, r.AddCertificate(t.Context(), "1", certificate("web1", fmt.Sprint(n), n)))
	}
	lists(t, r, "web1/1", "web1/5")
}

func revoked(t *testing.T, r Roster) {
	ctx := t.Context()
	join(t, r, "web1", "1", 1)
	join(t, r, "web2", "1", 1)
	must(t, r.Invite(ctx, invitation("web1", "out")))
	must(t, r.Revoke(ctx, "web1"))
	lists(t, r, "web2/1")
	refuses(t, "using a revoked one", r.UseCertificate(ctx, "web1", "1"))
	refuses(t, "renewing a revoked one", r.AddCertificate(ctx, "1", certificate("web1", "2", 2)))
	refuses(t, "an invitation from before", r.Redeem(ctx, "out", certificate("web1", "3", 3)))
	must(t, r.Revoke(ctx, "web1")) // once more
}

func serversAreApart(t *testing.T, r Roster) {
	ctx := t.Context()
	join(t, r, "web1", "1", 1)
	join(t, r, "web2", "2", 2)
	refuses(t, "using one as another server", r.UseCertificate(ctx, "web1", "2"))
	refuses(t, "renewing one as another server", r.AddCertificate(ctx, "2", certificate("web1", "3", 3)))
	must(t, r.UseCertificate(ctx, "web2", "2"))
	lists(t, r, "web1/1", "web2/2")
}

func joinedOnceMore(t *testing.T, r Roster) {
	ctx := t.Context()
	join(t, r, "web1", "1", 1)
	must(t, r.UseCertificate(ctx, "web1", "1"))
	join(t, r, "web1", "2", 2)
	must(t, r.UseCertificate(ctx, "web1", "1")) // goes on until the new one came
	must(t, r.UseCertificate(ctx, "web1", "2"))
	lists(t, r, "web1/2")
}

func strange(t *testing.T, r Roster) {
	refuses(t, "a certificate that was never issued", r.UseCertificate(t.Context(), "web1", "1"))
	refuses(t, "renewing it", r.AddCertificate(t.Context(), "1", certificate("web1", "2", 2)))
	refuses(t, "an invitation that never was", r.Redeem(t.Context(), "x", certificate("web1", "1", 1)))
}
