package selftest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"upkeep"
)

// texts are attacks by what stands in a field. Each puts its values into every
// text of a site that has all fields, one at a time.
var texts = []Attack{
	{
		Name: "newlines", Lesson: "Froxlor CVE-2026-90937, CVE-2026-109961",
		Tries: "puts line ends and directives behind them into every text of a site",
		Holds: "a line end is refused, or stays text: no directive of the tenant's is ever read by the web server",
		Do: everywhere("x\nAlias /pwned \"OUTSIDE/secret.txt\"", "x\r\nInclude OUTSIDE/secret.txt", "x\n</VirtualHost>\nHeader always set X-Pwned 1",
			"/x\nHeader always set X-Pwned 1\n", "x\vy", "x\u2028Header set X-Pwned 1", "x\u0085Header set X-Pwned 1"),
	},
	{
		Name: "quotes", Lesson: "Apache trap 5: apache2 -t takes a quote in a ServerName",
		Tries: "puts quotes of every kind, and directives behind them, into every text of a site",
		Holds: "a quote is refused, or is quoted: it ends no argument",
		Do: everywhere(`x" "y`, `x"`, `'x`, `x' -y`, `x" env=X`, `"Header always set X-Pwned 1`, "x`id`", `/x" "OUTSIDE/secret.txt`, `x">
Header`),
	},
	{
		Name: "backslash-at-the-end", Lesson: "Apache trap 3: the next line is swallowed",
		Tries: "ends every text of a site in backslashes",
		Holds: "a backslash is refused, or does not take the line after it along",
		Do:    everywhere(`x\`, `x\\`, `x\\\`, `/x\`, `\`, `x\"`, "x\\\n"),
	},
	{
		Name: "expressions", Lesson: "Apache trap 1: %{file:} shows any file that the web server can read",
		Tries: "puts expressions that read files, variables and results of functions into every text of a site",
		Holds: "an expression is refused, or is shown as it stands and not evaluated",
		Do: everywhere("%{file:OUTSIDE/secret.txt}", "x %{FILE:OUTSIDE/secret.txt} y", "/%{file:OUTSIDE/secret.txt}", "expr=%{file:OUTSIDE/secret.txt}", "%{osenv:PATH}",
			"%{reqenv:PATH}", "%{base64:x}", "https://evil.test/%{file:OUTSIDE/secret.txt}", "<!--#include file=\"secret.txt\" -->", "%{PATH}e"),
	},
	{
		Name: "variables", Lesson: "Apache trap 2: ${NAME} is filled in from root's environment",
		Tries: "puts references to variables and definitions into every text of a site",
		Holds: "a reference is refused, or is shown as it stands and not filled in",
		Do:    everywhere("${PATH}", "x${EVIL_SECRET}y", "/${EVIL_SECRET}", "https://${EVIL_SECRET}.test/", "$PATH", "$1", "%1", "$document_root", "https://evil.test/$1", "${"),
	},
	{
		Name: "shells", Lesson: "HestiaCP CVE-2022-1509, Vesta CVE-2020-10808, Apache trap 4: a log beginning with | is a program",
		Tries: "puts what a shell or a piped log would run into every text of a site",
		Holds: "nothing is run",
		Do: everywhere("|/usr/bin/touch OUTSIDE/pwned", "|$/usr/bin/touch OUTSIDE/pwned", "x;touch OUTSIDE/pwned", "x|touch OUTSIDE/pwned", "$(touch OUTSIDE/pwned)",
			"`touch OUTSIDE/pwned`", "x && touch OUTSIDE/pwned", "-o OUTSIDE/pwned", "--help", "prg:/usr/bin/id", "x\ttouch OUTSIDE/pwned"),
	},
	{
		Name: "paths", Lesson: "document roots and pages outside of the tenant's home",
		Tries: "puts absolute paths, .. and links to /proc into every text of a site",
		Holds: "no file outside the tenant's folders is served or written",
		Do: everywhere("../../../../etc/passwd", "/../../../OUTSIDE/secret.txt", "OUTSIDE/secret.txt", "/OUTSIDE", "..", ".", "./x", "/proc/self/environ", "x/../../..", "%2e%2e/%2e%2e",
			"htdocs/../../victim.test/htdocs", "~root", "file:///etc/passwd", "//OUTSIDE"),
	},
	{
		Name: "control-characters", Lesson: "Froxlor 2.3.17: a dollar that matches before a line end",
		Tries: "puts NUL, escape sequences, DEL, text that is no UTF-8, and characters that turn text around into every text of a site",
		Holds: "they are refused, and shown as escapes where they are told of",
		Do:    everywhere("x\x00y", "x\x1b[2Jy", "x\x7fy", "x\u202ey", "\ufeffx", "x\u200by", "\x01", "x\x08"),
	},
	{
		Name: "no-utf-8", Lesson: "encodings of one character in several ways",
		Tries: "sends documents that are no UTF-8, hold NUL, tags of types, anchors and duplicate keys",
		Holds: "they are refused, and the refusal says where in the text",
		Do:    oddDocuments,
	},
	{
		Name: "redirects", Lesson: "Froxlor CVE-2026-90937 and its incomplete repair CVE-2026-100717: user%0a@host",
		Tries: "has redirects lead through encoded line ends, user information, other schemes, and hosts that are none",
		Holds: "such a target is refused, and what is taken is sent byte for byte",
		Do:    redirects,
	},
	{
		Name: "headers", Lesson: "Froxlor 2.3.17: header values verbatim in the configuration",
		Tries: "declares headers that frame messages, that are expressions, and names that are none",
		Holds: "they are refused, and what is taken comes out as it was declared",
		Do:    headers,
	},
	{
		Name: "environment", Lesson: "HestiaCP: PATH of programs that root runs; PHP_ADMIN_VALUE takes limits away",
		Tries: "sets variables that change what is run: LD_PRELOAD, PATH, PHP_ADMIN_VALUE, HTTP_PROXY and the like",
		Holds: "they are refused",
		Do:    refusedFields("environment", "LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "PHP_ADMIN_VALUE", "PHP_VALUE", "HTTP_PROXY", "BASH_ENV", "SCRIPT_FILENAME", "DOCUMENT_ROOT", "GCONV_PATH", "A B", "a", "A=B", "A\nB", ""),
	},
	{
		Name: "error-texts", Lesson: "Apache trap 1: texts of ErrorDocument are expressions",
		Tries: "shows an error page's text that has markup, quotes, percent signs and backslashes in it",
		Holds: "what is taken is shown byte for byte",
		Do:    errorTexts,
	},
	{
		Name: "passwords", Lesson: "Froxlor 2.3.17: names of htpasswd verbatim; go-ispconfig writes .htpasswd by path into the document root",
		Tries: "adds lines to password files by names and hashes, asks for hashes that cost minutes, and plain passwords",
		Holds: "they are refused without being repeated, and no password file is in the tenant's folders or readable to it",
		Do:    passwords,
	},
	{
		Name: "raw-directives", Lesson: "Plesk CVE-2026-48614, nginx-ui CVE-2026-84316",
		Tries: "declares fields that other systems have for directives of the web server",
		Holds: "there is no such field, and what is unknown is refused",
		Do:    rawDirectives,
	},
}

// complete is a site of the tenant's that has every field.
func (w *World) complete(name string) map[string]any {
	return w.site(name, map[string]any{
		"aliases": []any{"also-" + name}, "wildcard": true, "root": "public", "index": []any{"index.html"}, "methods": []any{"GET", "HEAD", "POST"},
		"error_pages": map[string]any{"404": "there is nothing here", "403": "/forbidden.html"},
		"deny":        []any{"192.0.2.0/24"}, "allow": []any{"127.0.0.0/8", "::1"}, "canonical": "bare", "canonical_status": 307,
		"protect":   []any{map[string]any{"path": "/private", "realm": "members", "users": map[string]any{"ann": hash}}},
		"redirects": []any{map[string]any{"from": "/old", "to": "https://evil.test/new", "status": 302}},
		"headers":   map[string]any{"X-Evil": "value"}, "environment": map[string]any{"EVIL": "value"},
	})
}

// hash is the bcrypt hash of a password that nobody needs.
const hash = "$2y$05$abcdefghijklmnopqrstuu4kDkMSWGTcZrvtlJ6iUcO4mXyzO2aXq"

// everywhere puts values into every text of a site, and every key of its maps,
// one at a time. OUTSIDE stands for the folder that nothing may reach. What is
// taken is taken by a site of its own each, so that the web server reads all of
// them together.
func everywhere(values ...string) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		if err := w.live(ctx, w.complete(w.textSite(0))); err != nil {
			return err
		}
		var taken []string // what each of the first sites was taken with
		broken := []error{}
		for _, value := range values {
			value = strings.ReplaceAll(value, "OUTSIDE", w.Outside)
			for number := 0; len(broken) < maxBroken; number++ {
				document := w.complete(w.textSite(len(taken)))
				place := replace(document, number, value)
				if place == "" {
					break
				}
				what := fmt.Sprintf("%s = %q", place, value)
				switch _, err := w.Declare(ctx, document); {
				case err != nil:
					err = refused(err)
					if err != nil {
						broken = append(broken, fmt.Errorf("%s: %w", what, err))
					}
				case document["name"] != w.textSite(len(taken)):
					broken = append(broken, fmt.Errorf("a site named %q was taken", document["name"]))
				default:
					taken = append(taken, what)
				}
			}
		}
		for i, what := range taken {
			if err := w.oneText(ctx, w.textSite(i)); err != nil {
				broken = append(broken, fmt.Errorf("%s: %w", what, err))
			}
		}
		return errors.Join(broken[:min(len(broken), maxBroken)]...)
	}
}

// textSite is the name of a site of the tenant's for texts, one after the other in
// each attack, so that there are no more sites than one attack needs.
func (w *World) textSite(i int) string { return fmt.Sprintf("evil-text-%d.test", i) }

// oneText waits for a site with a text that was taken. It may do no harm.
func (w *World) oneText(ctx context.Context, name string) error {
	status, err := w.Site(ctx, name)
	if err != nil {
		return err
	}
	if status.State == upkeep.SiteFailed {
		return printable(status.Reason)
	}
	return w.harmless(ctx, name)
}

// replace puts a value in the place of the text of a number and returns the
// text's path; "" when there are not as many.
func replace(document any, number int, value string) (place string) {
	n := 0
	walk(document, "", func(at string, set func(string)) {
		if n == number {
			place = at
			set(value)
		}
		n++
	})
	return place
}

// walk visits every text of a document, and every key that is a person's, in
// the same order each time.
func walk(node any, at string, visit func(at string, set func(string))) {
	switch node := node.(type) {
	case []any:
		for i, item := range node {
			if _, is := item.(string); is {
				visit(fmt.Sprintf("%s[%d]", at, i), func(v string) { node[i] = v })
				continue
			}
			walk(item, fmt.Sprintf("%s[%d]", at, i), visit)
		}
	case []string:
		for i := range node {
			visit(fmt.Sprintf("%s[%d]", at, i), func(v string) { node[i] = v })
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(node)) {
			item, here := node[key], strings.TrimPrefix(at+"."+key, ".")
			if slices.Contains([]string{"error_pages", "users", "headers", "environment"}, at[strings.LastIndexByte(at, '.')+1:]) {
				visit(here+" (key)", func(v string) { delete(node, key); node[v] = item })
			}
			if _, is := item.(string); is {
				if here != "kind" {
					visit(here, func(v string) { node[key] = v })
				}
				continue
			}
			walk(item, here, visit)
		}
	}
}

// refusedFields puts names into one of a site's maps, each of which must be
// refused.
func refusedFields(field string, names ...string) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		for _, name := range names {
			_, err := w.Declare(ctx, w.site(w.fresh(), map[string]any{field: map[string]any{name: "value"}}))
			if err := refused(err); err != nil {
				return fmt.Errorf("%s %q: %w", field, name, err)
			}
		}
		return nil
	}
}

func oddDocuments(ctx context.Context, w *World) error {
	for what, text := range map[string]string{
		"bytes that are no UTF-8": "kind: site\nname: evil-\xff\xfe.test\n", "overlong encoding": "kind: site\nname: evil\xc0\xafx.test\n",
		"NUL": "kind: site\nname: evil\x00.test\n", "a tag": "!!python/object/apply:os.system [\"touch " + w.outside("pwned") + "\"]\n",
		"a tag in a field": "kind: account\nname: !!binary ZXZpbA==\n", "an anchor": "kind: account\nname: &a evil-x\nemail: *a\n",
		"a key twice": "kind: account\nname: evil-x\nname: root\n", "a merge": "kind: account\n<<: {name: evil-x}\n",
		"a number": "kind: account\nname: 0\n", "a list": "kind: account\nname: [evil-x]\n", "nothing": "kind: account\nname: ~\n",
		"another kind": "kind: shell\nname: evil-x\n", "no kind": "name: evil-x\n",
	} {
		_, err := w.Declare(ctx, Verbatim(text))
		if err := refused(err); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func redirects(ctx context.Context, w *World) error {
	name := w.fresh()
	of := func(from, to string) map[string]any {
		return w.site(name, map[string]any{"redirects": []any{map[string]any{"from": from, "to": to}}})
	}
	for _, to := range []string{
		"https://user%0aHeader%20set%20X-Pwned%201@evil.test/", "https://user:pass@evil.test/", "https://evil.test%0d%0aX-Pwned:1/", "https://evil.test/%0d%0aX-Pwned:%201", "https://evil.test/%00",
		"https://evil.test@victim.test/", "//victim.test/", "/\\victim.test/", "javascript:alert(1)", "data:text/html,x", "ftp://evil.test/", "https:///x", "https://", "https://[::1%25eth0]/", "https://evil.test:0/",
		"https://evil.test:99999/", "https://evil.test/ \"x\"", "https://evil.test/\r\nX-Pwned: 1", "HTTPS://evil.test/\n", "https://evil.test/%zz", "https://evil.test/<x>", " https://evil.test/",
	} {
		_, err := w.Declare(ctx, of("/old", to))
		if err := refused(err); err != nil {
			return fmt.Errorf("a redirect to %q: %w", to, err)
		}
	}
	for _, from := range []string{"/old\nX", "old", "/old\" x", "/../x", "//x", "/.*", "/(x", "/%2e%2e/", "/old\\", "/${x}", "/.well-known/\nX"} {
		_, err := w.Declare(ctx, of(from, "https://evil.test/"))
		if err := refused(err); err != nil {
			return fmt.Errorf("a redirect from %q: %w", from, err)
		}
	}
	for _, to := range []string{"https://evil.test/new?a=b&c=%20d#e", "http://evil.test:8080/~x/(y)"} {
		if err := w.live(ctx, of("/old", to)); err != nil {
			return err
		}
		got, err := w.get(ctx, name, "/old")
		if err != nil {
			return err
		}
		if location := got.header.Get("Location"); got.status != http.StatusFound || !strings.HasSuffix(location, to) {
			return fmt.Errorf("a redirect to %q answers with status %d and %q", to, got.status, location)
		}
	}
	// What a visitor puts behind the path is no header either.
	got, err := w.get(ctx, name, "/old%0d%0aX-Pwned:%201")
	if err != nil {
		return err
	}
	if got.header.Get("X-Pwned") != "" {
		return errors.New("an encoded line end in a request became a header")
	}
	return nil
}

func headers(ctx context.Context, w *World) error {
	name := w.fresh()
	for field, value := range map[string]string{
		"Content-Length": "0", "Transfer-Encoding": "chunked", "Connection": "upgrade", "X-Evil\nX-Pwned": "1", "X-Evil:": "1", "X Evil": "1", "": "1", "Content-Encoding": "gzip", "Status": "200",
		"X-A": "expr=%{file:" + w.outside("secret.txt") + "}", "X-B": "a\r\nX-Pwned: 1", "X-C": "%{EVIL_SECRET}e", "X-D": "\"x\" env=y", "X-E": "a\x00b", "X-F": "${PATH}", "X-G": "a\\", "X-H": " x", "X-I": "é",
		"Location": "https://evil.test/", "Date": "never", "WWW-Authenticate": "Basic", "X-" + strings.Repeat("a", 70): "1",
	} {
		_, err := w.Declare(ctx, w.site(name, map[string]any{"headers": map[string]any{field: value}}))
		if err == nil && field == "X-D" { // which is harmless where it is quoted
			if err := w.live(ctx, w.site(name, map[string]any{"headers": map[string]any{field: value}})); err != nil {
				return err
			}
			if got, err := w.get(ctx, name, "/"); err != nil || got.header.Get("X-D") != value {
				return fmt.Errorf("the header %q came out as %q, %w", value, got.header.Get("X-D"), err)
			}
			continue
		}
		if err := refused(err); err != nil {
			return fmt.Errorf("the header %q: %q: %w", field, value, err)
		}
	}
	const plain = `a "b" 100% 'c'`
	if err := w.live(ctx, w.site(name, map[string]any{"headers": map[string]any{"X-Evil": plain}})); err != nil {
		return err
	}
	got, err := w.get(ctx, name, "/")
	if err != nil {
		return err
	}
	if value := got.header.Get("X-Evil"); value != plain {
		return fmt.Errorf("the header %q came out as %q", plain, value)
	}
	return nil
}

func errorTexts(ctx context.Context, w *World) error {
	var taken []string
	for _, text := range []string{
		`<p>"There" is 100% nothing &amp; \n here\</p>`, "one\ntwo\t\"three\"\\", "% { file:x } $ {x}", "|/usr/bin/id", "' or 1=1", "</VirtualHost>", "# comment \\", "\u202e\u2028 café",
	} {
		_, err := w.Declare(ctx, w.site(w.textSite(len(taken)), map[string]any{"error_pages": map[string]any{"404": text}}))
		if err == nil {
			taken = append(taken, text)
		} else if err := refused(err); err != nil {
			return fmt.Errorf("the text %q: %w", text, err)
		}
	}
	for i, text := range taken {
		if status, err := w.Site(ctx, w.textSite(i)); err != nil || status.State != upkeep.SiteLive {
			return fmt.Errorf("with the text %q the site is %s: %s, %w", text, status.State, status.Reason, err)
		}
		got, err := w.get(ctx, w.textSite(i), "/nothing-here")
		if err != nil {
			return err
		}
		if got.status != http.StatusNotFound || got.body != text {
			return fmt.Errorf("the text %q is shown with status %d as %q", text, got.status, got.body)
		}
	}
	return nil
}

func passwords(ctx context.Context, w *World) error {
	name := w.fresh()
	of := func(users map[string]any) map[string]any {
		return w.site(name, map[string]any{"protect": []any{map[string]any{"path": "/", "users": users}}})
	}
	const plain = "my-own-password"
	for user, given := range map[string]string{
		"ann\nroot": hash, "ann:root": hash, "#ann": hash, "": hash, "ann\x00": hash, "a": hash + "\nroot:" + hash, "b": plain, "c": "$2y$31$" + hash[7:], "d": "$apr1$x$y", "e": "{SHA}x", "f": "", "g": hash + " ",
	} {
		_, err := w.Declare(ctx, of(map[string]any{user: given}))
		if err := refused(err); err != nil {
			return fmt.Errorf("the user %q with %q: %w", user, given, err)
		}
		if strings.Contains(err.Error(), plain) {
			return errors.New("the refusal repeats the password")
		}
	}
	if err := w.live(ctx, of(map[string]any{"ann": hash})); err != nil {
		return err
	}
	if got, err := w.get(ctx, name, "/"); err != nil || got.status != http.StatusUnauthorized {
		return fmt.Errorf("without a password it answers with status %d, %w", got.status, err)
	}
	return nil
}

func rawDirectives(ctx context.Context, w *World) error {
	for _, field := range []string{
		"directives", "additional_directives", "apache_directives", "custom", "raw", "extra", "options", "include", "log", "access_log", "error_log", "document_root", "docroot", "user", "uid", "port",
		"ssl_ciphers", "Name", "NAME", "allow_override", "php_admin_value", "template",
	} {
		_, err := w.Declare(ctx, w.site(w.fresh(), map[string]any{field: "Include " + w.outside("secret.txt")}))
		if err := refused(err); err != nil {
			return fmt.Errorf("the field %s: %w", field, err)
		}
	}
	return nil
}
