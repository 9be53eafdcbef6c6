package selftest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// visitorAttacks are what somebody does who only sends requests.
var visitorAttacks = []Attack{
	{
		Name: "forwarded-addresses", Lesson: "HestiaCP CVE-2026-43634: an address from a header is believed",
		Tries: "visits a site that denies it, with headers that name another address",
		Holds: "the address of the connection counts",
		Do:    forwarded,
	},
	{
		Name: "methods", Lesson: "TRACE shows cookies, CONNECT makes a proxy",
		Tries: "asks with methods that the site does not answer, in odd letters, and to be connected elsewhere",
		Holds: "they are refused, and nothing is proxied",
		Do:    methods,
	},
	{
		Name: "passwords-around", Lesson: "paths that are protected in one spelling only",
		Tries: "asks for a protected folder by other spellings of its path",
		Holds: "no page comes without the password",
		Do:    around,
	},
	{
		Name: "own-paths", Lesson: "what upkeep asks a site for is nobody's way in",
		Tries: "asks for the paths that upkeep itself uses, with tokens guessed and left out, and for its files",
		Holds: "they show nothing",
		Do:    ownPaths,
	},
	{
		Name: "front-door", Lesson: "Froxlor CVE-2026-52793: the API skips what the pages ask for",
		Tries: "speaks to control without a token: reads, declares, runs jobs, connects as an agent, from a page of another host",
		Holds: "nothing is declared, run or shown that is not public",
		Do:    frontDoor,
	},
}

func forwarded(ctx context.Context, w *World) error {
	name := w.fresh()
	if err := w.live(ctx, w.site(name, map[string]any{"deny": []string{"127.0.0.0/8"}})); err != nil {
		return err
	}
	for _, header := range []string{"X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "Client-IP", "Via", "X-Originating-IP"} {
		for _, value := range []string{"198.51.100.7", "for=198.51.100.7", "::1", "198.51.100.7, 127.0.0.1"} {
			got, err := w.get(ctx, name, "/", header, value)
			if err != nil {
				return err
			}
			if got.status != http.StatusForbidden {
				return fmt.Errorf("with %s: %s it answers with status %d", header, value, got.status)
			}
		}
	}
	return nil
}

func methods(ctx context.Context, w *World) error {
	for _, line := range []string{
		"TRACE / HTTP/1.1\r\nHost: evil.test\r\nCookie: secret-cookie", "CONNECT victim.test:80 HTTP/1.1\r\nHost: victim.test:80", "PUT /x HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 0",
		"DELETE /index.html HTTP/1.1\r\nHost: evil.test", "get / HTTP/1.1\r\nHost: evil.test", "GeT / HTTP/1.1\r\nHost: evil.test", "PROPFIND / HTTP/1.1\r\nHost: evil.test", "X\x00 / HTTP/1.1\r\nHost: evil.test",
		"GET http://" + w.Address + "/ HTTP/1.1\r\nHost: nobody.test", "GET https://victim.test:443/ HTTP/1.1\r\nHost: nobody.test", "OPTIONS * HTTP/1.1\r\nHost: evil.test",
	} {
		text, err := w.raw(ctx, line+"\r\nConnection: close\r\n\r\n")
		if err != nil {
			return err
		}
		status := firstLine(text)
		if strings.Contains(text, "secret-cookie") || strings.Contains(status, " 200 ") && !strings.HasPrefix(line, "OPTIONS") {
			return fmt.Errorf("%q is answered: %.200q", line, text)
		}
	}
	return nil
}

func around(ctx context.Context, w *World) error {
	name := w.fresh()
	if err := w.live(ctx, w.site(name, map[string]any{"protect": []any{map[string]any{"path": "/private", "users": map[string]any{"ann": hash}}}})); err != nil {
		return err
	}
	if err := w.put(name, "private/page.html", w.secret); err != nil {
		return err
	}
	for _, path := range []string{
		"/private/page.html", "//private/page.html", "/./private/page.html", "/x/../private/page.html", "/%70rivate/page.html", "/private%2fpage.html", "/private//page.html", "/private/./page.html", "/private;x/page.html",
		"/PRIVATE/page.html", "/private/page.html/", "/private/page.html%00", "/cgi-bin/../private/page.html", "/.well-known/upkeep/../../private/page.html", "/.well-known/upkeep/%2e%2e/%2e%2e/private/page.html", "/private/page.html?x", "/x/%2e%2e/private/page.html",
	} {
		got, err := w.get(ctx, name, path)
		if err != nil {
			return err
		}
		if strings.Contains(got.body, w.secret) {
			return fmt.Errorf("%s shows the page without a password", path)
		}
	}
	return nil
}

func ownPaths(ctx context.Context, w *World) error {
	for _, path := range []string{
		"/.well-known/upkeep/", "/.well-known/upkeep/00000000000000000000000000000000", "/.well-known/upkeep/pages/", "/.well-known/upkeep/pages/../../auth/", "/.well-known/upkeep/pages/..%2f..%2fauth/",
		"/.well-known/upkeep/pages/%2e%2e/%2e%2e/apache.conf", "/server-status", "/server-info", "/icons/", "/manual/", "/cgi-bin/", "/.upkeep", "/log/", "/.trash/",
	} {
		got, err := w.get(ctx, evilSite, path)
		if err != nil {
			return err
		}
		if got.status < 300 {
			return fmt.Errorf("%s is answered with status %d: %.100q", path, got.status, got.body)
		}
	}
	return nil
}

func frontDoor(ctx context.Context, w *World) error {
	for _, address := range w.Closed {
		for _, ask := range []struct{ method, path, body string }{
			{"GET", "/api/v1/objects/account", ""}, {"GET", "/api/v1/sites", ""}, {"GET", "/api/v1/jobs", ""}, {"GET", "/api/v1/servers", ""},
			{"POST", "/api/v1/apply", "kind: account\nname: evil-door\n"}, {"POST", "/api/v1/jobs", `{"kind":"server.facts","server":"` + w.Server + `"}`},
			{"POST", "/api/v1/delete", `{"objects":[{"kind":"site","name":"victim.test"}]}`}, {"GET", "/link", ""}, {"POST", "/join", `{}`}, {"GET", "/debug/pprof/", ""}, {"GET", "/../token", ""}, {"GET", "/%2e%2e/token", ""},
		} {
			for _, header := range [][2]string{{"X-Test", ""}, {"Authorization", "Bearer "}, {"Authorization", "Bearer x"}, {"X-Forwarded-For", "127.0.0.1"}, {"Host", "evil.test"}, {"Origin", "http://evil.test"}} {
				if err := w.knock(ctx, address, ask.method, ask.path, ask.body, header); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// knock asks control for something without its token.
func (w *World) knock(ctx context.Context, address, method, path, body string, header [2]string) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/yaml")
	if req.Header.Set(header[0], header[1]); header[0] == "Host" {
		req.Host = header[1]
	}
	req.Close = true
	resp, err := w.client.Do(req)
	if err != nil {
		return nil // TLS is spoken there, or it hangs up: nobody was let in
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode < 300 && (method != http.MethodGet || strings.Contains(string(text), victim)) {
		return fmt.Errorf("%s %s with %s: %s is answered with status %d: %.200q", method, path, header[0], header[1], resp.StatusCode, text)
	}
	return nil
}
