package selftest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"upkeep"
)

// nameAttacks are attempts on names that are somebody else's.
var nameAttacks = []Attack{
	{
		Name: "name-theft", Lesson: "Apache trap 6: of two sites with one name the first file answers, with no warning",
		Tries: "asks for a neighbour's names as aliases: as they are, in capitals, with a final dot, in wide letters, and behind invisible characters",
		Holds: "a name has one site only; the refusal says whose it is",
		Do:    nameTheft,
	},
	{
		Name: "site-takeover", Lesson: "Froxlor CVE-2026-41232: a check of the wrong half",
		Tries: "declares a neighbour's site anew, as the tenant's own",
		Holds: "a site does not change hands by being declared under another account",
		Do:    siteTakeover,
	},
	{
		Name: "wildcard-theft", Lesson: "Apache trap 6: *.test in 05- stole dup.test from its owner",
		Tries: "asks for wildcards over a neighbour's names, by alias and by flag",
		Holds: "they are refused; a wildcard takes no name that somebody has",
		Do:    wildcardTheft,
	},
	{
		Name: "subdomain-takeover", Lesson: "HestiaCP CVE-2021-27231, Froxlor 2.3.17: aliases that are not owned",
		Tries: "asks for names below a neighbour's, as name, alias and sub-site",
		Holds: "they are refused without a delegation, which names an account and ends",
		Do:    subdomainTakeover,
	},
	{
		Name: "parent-takeover", Lesson: "jabali #1789",
		Tries: "asks for names above a neighbour's, which would make it lie in the tenant's domain",
		Holds: "they are refused",
		Do:    refusedNames("b.neighbour.test", "neighbour.test"),
	},
	{
		Name: "homographs", Lesson: "names that look like another's",
		Tries: "asks for a neighbour's name in letters of another script",
		Holds: "it is kept in A-labels, and said to look like the neighbour's",
		Do:    homographs,
	},
	{
		Name: "no-names", Lesson: "Apache trap 5: apache2 -t takes anything for a name",
		Tries: "asks for public suffixes, addresses, numbers, names of this machine, and texts that are no names",
		Holds: "they are refused",
		Do: refusedNames("co.uk", "com", "127.0.0.1", "1.2.3.4.5", "evil.123", "[::1]", "0x7f000001", "2130706433", "..", "evil..test", ".evil.test", "-evil.test", "evil-.test", "evil_x.test", "evil .test",
			"evil.test/x", "evil.test:80", "*", "*.evil.test", "xn--a.test", "xn--", strings.Repeat("a", 64)+".test", strings.Repeat("a.", 130)+"test", "evil\u3002\u3002test", "", "_default_", "evil.test victim.test", "evil,test"),
	},
	{
		Name: "hand-made-sites", Lesson: "generated files that shadow what an operator wrote",
		Tries: "asks for a name that the web server answers by hand-made configuration",
		Holds: "the agent refuses it, and the hand-made site goes on",
		Do:    handMade,
	},
	{
		Name: "unknown-hosts", Lesson: "Apache trap 7: an unknown name is answered by the first site",
		Tries: "visits the web server by names that nobody has, without one, and by its address",
		Holds: "no site answers: 404 or 421",
		Do:    unknownHosts,
	},
	{
		Name: "delegation", Lesson: "a delegation must be explicit, and ends",
		Tries: "delegates a neighbour's names to itself, and uses what a delegation does not cover or that has ended",
		Holds: "only the owner of a domain gives some of it away, and only what is named",
		Do:    delegation,
	},
}

// refusedNames are names, each of which must be refused as name and as alias.
func refusedNames(names ...string) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		for _, name := range names {
			_, err := w.Declare(ctx, w.site(name))
			if err := refused(err); err != nil {
				return fmt.Errorf("the name %q: %w", name, err)
			}
			_, err = w.Declare(ctx, w.site(w.fresh(), map[string]any{"aliases": []string{name}}))
			if err := refused(err); err != nil {
				return fmt.Errorf("the alias %q: %w", name, err)
			}
		}
		return nil
	}
}

func nameTheft(ctx context.Context, w *World) error {
	for _, name := range []string{
		victimSite, "www." + victimSite, victimOther, "VICTIM.test", victimSite + ".", "\uff56ictim.test", "victim\u3002test", "vic\u00adtim.test", "victim\u200d.test", "vict\u0131m.test.victim.test",
	} {
		_, err := w.Declare(ctx, w.site(w.fresh(), map[string]any{"aliases": []string{name}}))
		if err := refused(err); err != nil {
			return fmt.Errorf("the alias %q: %w", name, err)
		}
		if !strings.Contains(err.Error(), victim) && isASCII(name) {
			return fmt.Errorf("the refusal of %q does not say whose it is: %w", name, err)
		}
	}
	// www is a name as any other, and what one change takes twice is taken by nobody.
	one, two := w.fresh(), w.fresh()
	_, err := w.Declare(ctx, w.site(one, map[string]any{"aliases": []string{"evil-both.test"}}), w.site(two, map[string]any{"aliases": []string{"evil-both.test"}}))
	if err := refused(err); err != nil {
		return fmt.Errorf("one name for two sites of one change: %w", err)
	}
	_, err = w.Declare(ctx, w.site("evil-w.test", map[string]any{"aliases": []string{"www.evil-v.test"}}), w.site("evil-v.test"))
	if err := refused(err); err != nil {
		return fmt.Errorf("the www name of another site of the change: %w", err)
	}
	return nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c > 0x7f })
}

func siteTakeover(ctx context.Context, w *World) error {
	for _, name := range []string{victimSite, "Victim.TEST", victimOther} {
		_, err := w.Declare(ctx, w.site(name))
		if err := refused(err); err != nil {
			return fmt.Errorf("site %s for account %s: %w", name, evil, err)
		}
	}
	// Nor by way of another site whose folder it would share.
	_, err := w.Declare(ctx, w.site("shop."+evilSite, map[string]any{"subof": victimSite}))
	return refused(err)
}

func wildcardTheft(ctx context.Context, w *World) error {
	for _, name := range []string{"*.victim.test", "*.test", "*", "*.b.neighbour.test", "**.test", "v*.test", "*victim.test"} {
		_, err := w.Declare(ctx, w.site(w.fresh(), map[string]any{"aliases": []string{name}}))
		if err := refused(err); err != nil {
			return fmt.Errorf("the alias %q: %w", name, err)
		}
	}
	for _, name := range []string{"b.neighbour.test", "test"} {
		_, err := w.Declare(ctx, w.site(name, map[string]any{"wildcard": true}))
		if err := refused(err); err != nil {
			return fmt.Errorf("a wildcard below %q: %w", name, err)
		}
	}
	// That the tenant's own wildcard takes nothing from the name below it that it
	// has given away is watched all the time.
	got, err := w.get(ctx, "anything."+evilSite, "/")
	if err == nil && got.body != page(evilSite) {
		err = fmt.Errorf("a wildcard answers with status %d: %.80q", got.status, got.body)
	}
	return err
}

func subdomainTakeover(ctx context.Context, w *World) error {
	for _, name := range []string{"shop.victim.test", "a.b.c.victim.test", "x.www.victim.test", "x.a.b.neighbour.test"} {
		if err := refusedNames(name)(ctx, w); err != nil {
			return err
		}
		_, err := w.Declare(ctx, w.site(name, map[string]any{"subof": victimSite}))
		if err := refused(err); err != nil {
			return fmt.Errorf("the sub-site %q: %w", name, err)
		}
	}
	// A name that is not there is nobody's leave.
	_, err := w.Declare(ctx, w.site("x.nobody.test", map[string]any{"subof": "nobody.test"}))
	return refused(err)
}

func homographs(ctx context.Context, w *World) error {
	w.mine = append(w.mine, "xn--")
	for _, given := range []string{"vіctim.test", "νictim.test", "vıctım.test", "victiⅿ.test"} { // a Ukrainian i, a Greek nu, dotless i's, a Roman numeral
		warnings, err := w.Declare(ctx, w.site(given))
		if err != nil {
			if err := refused(err); err != nil {
				return err
			}
			continue
		}
		if len(warnings) == 0 {
			return fmt.Errorf("nobody is warned that %q looks like %s", given, victimSite)
		}
		if !slices.ContainsFunc(warnings, func(s string) bool {
			return strings.Contains(s, "looks like "+victimSite) && strings.Contains(s, "xn--") && printable(s) == nil
		}) {
			return fmt.Errorf("the warning about %q does not say what it looks like: %q", given, warnings)
		}
	}
	return nil
}

func handMade(ctx context.Context, w *World) error {
	if !w.Foreign {
		return nil
	}
	name := w.fresh()
	_, err := w.Declare(ctx, w.site(name, map[string]any{"aliases": []string{foreignSite}}))
	if err != nil {
		return refused(err) // control has heard of it from the agent
	}
	status, err := w.Site(ctx, name)
	if err != nil {
		return err
	}
	if status.State != upkeep.SiteFailed || !strings.Contains(status.Reason, foreignSite) {
		return fmt.Errorf("the site is %s: %s", status.State, status.Reason)
	}
	got, err := w.get(ctx, foreignSite, "/")
	if err == nil && got.status != http.StatusNoContent {
		err = fmt.Errorf("the hand-made site answers with status %d", got.status)
	}
	return errors.Join(err, printable(status.Reason))
}

func unknownHosts(ctx context.Context, w *World) error {
	for _, host := range []string{"nobody.test", w.Address, "localhost", "x.y.z", "victim.test.evil.example", "..", strings.Repeat("a", 200) + ".test", "evil.test.", "VICTIM.TEST"} {
		got, err := w.get(ctx, host, "/")
		if err != nil {
			return err
		}
		own := strings.TrimSuffix(strings.ToLower(host), ".")
		if (own == evilSite || own == victimSite) && (got.status == http.StatusOK && got.body != page(own)) {
			return fmt.Errorf("%q is answered with the page of another: %.100q", host, got.body)
		}
		if own != evilSite && own != victimSite && got.status != http.StatusNotFound && got.status != http.StatusMisdirectedRequest && got.status != http.StatusBadRequest {
			return fmt.Errorf("%q, which nobody has, is answered with status %d: %.100q", host, got.status, got.body)
		}
	}
	// HTTP/1.0 needs no Host; a request may also have two, or name one in its line.
	for request, never := range map[string]string{
		"GET / HTTP/1.0\r\n\r\n": "nobody else", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n": "nobody else",
		"GET / HTTP/1.1\r\nHost: evil.test\r\nHost: victim.test\r\nConnection: close\r\n\r\n":                                                                                    "nobody else",
		"GET http://evil.test/ HTTP/1.1\r\nHost: victim.test\r\nConnection: close\r\n\r\n":                                                                                       page(victimSite),
		"GET / HTTP/1.1\r\nHost: victim.test@evil.test\r\nConnection: close\r\n\r\n":                                                                                             page(victimSite),
		"GET / HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: victim.test\r\nConnection: close\r\n\r\n":                                                                        page(victimSite),
		"GET / HTTP/1.1\r\nHost: evil.test\tvictim.test\r\nConnection: close\r\n\r\n":                                                                                            page(victimSite),
		"POST / HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: victim.test\r\nConnection: close\r\n\r\n": page(victimSite),
	} {
		text, err := w.raw(ctx, request)
		if err != nil {
			return err
		}
		if strings.Contains(text, never) {
			return fmt.Errorf("the request %q is answered with a site's page", request)
		}
	}
	return nil
}

// raw sends bytes to the web server and reads until it hangs up.
func (w *World) raw(ctx context.Context, request string) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.Address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return "", err
	}
	var text strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		text.Write(buffer[:n])
		if err != nil {
			return text.String(), nil // the end, or a reset behind an answer
		}
	}
}

func delegation(ctx context.Context, w *World) error {
	delegated := func(name, until string) map[string]any {
		d := map[string]any{"kind": upkeep.KindDelegation, "name": name, "account": evil}
		if until != "" {
			d["until"] = until
		}
		return d
	}
	// A delegation that has ended, one for another name, and one for another
	// account, which the operator made: none of them lets the tenant in.
	past := delegated("evil-past.victim.test", "2001-01-01T00:00:00Z")
	if _, err := w.Declare(ctx, past); err != nil {
		if err := refused(err); err != nil {
			return err
		}
	}
	for _, name := range []string{"evil-past.victim.test", "x.evil-past.victim.test", "evil-past.a.victim.test"} {
		_, err := w.Declare(ctx, w.site(name))
		if err := refused(err); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range []string{"*.victim.test", "victim.test\n", "..", "", "-"} {
		_, err := w.Declare(ctx, delegated(name, ""))
		if err := refused(err); err != nil {
			return fmt.Errorf("a delegation of %q: %w", name, err)
		}
	}
	_, err := w.Declare(ctx, delegated("evil-until.victim.test", "tomorrow\nx"))
	return refused(err)
}
