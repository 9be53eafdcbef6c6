package browser

import (
	"net/url"
	"regexp"
)

// Markup breaks out of whatever a page puts it into, if that is not held together:
// texts, attributes in either quotes, titles, text areas, styles, scripts and comments.
// What comes of it is seen by [Tab.Harm] and [Tab.Strayed].
const Markup = `"'>--></title></style></textarea></option></select></noscript></script></svg></a>` +
	`<script>window.ran=1</script><img src=https://evil.test/i onerror=window.ran=2><svg onload=window.ran=3></svg><evil-mark style=color:red>` +
	`<iframe srcdoc="<script>parent.ran=4</script>"></iframe><base href=https://evil.test/><link rel=stylesheet href=https://evil.test/s>` +
	`<meta http-equiv=refresh content="0;url=https://evil.test/m"><form action=https://evil.test/f><button formaction=https://evil.test/b autofocus onfocus=window.ran=5>` +
	`" onmouseover="window.ran=6" autofocus onfocus="window.ran=7" evil-one="' onmouseover='window.ran=8' evil-two='` +
	"{{.}}${window.ran=9}`;window.ran=10;//\u2028\u202e\x1b[2J\x00]]>&lt;script&gt;window.ran=11&lt;/script&gt;"

const harm = `(() => {
	const found = [];
	if (window.ran !== undefined) found.push("script " + window.ran + " ran");
	for (const e of document.querySelectorAll("*")) {
		const here = e.outerHTML.slice(0, 80);
		if (["evil-mark", "iframe", "frame", "object", "embed", "img", "base", "style", "video", "audio"].includes(e.localName)) found.push("an element: " + here);
		if (e.localName === "script" && !e.src.startsWith(location.origin + "/assets/")) found.push("a script: " + here);
		if (e.localName === "meta" && e.httpEquiv) found.push("a meta: " + here);
		for (const a of e.attributes) {
			if (a.name.startsWith("on") || a.name.startsWith("evil") || ["style", "srcdoc", "formaction"].includes(a.name)) found.push("an attribute " + a.name + ": " + here);
			if (["href", "src", "action", "data", "xlink:href"].includes(a.name)) {
				const to = new URL(a.value, location.href);
				if (to.origin !== location.origin && to.protocol !== "otpauth:") found.push("a way to elsewhere, " + a.value + ": " + here);
			}
		}
	}
	return found.slice(0, 5);
})()`

// Harm lists what the page that is open should not have: scripts that ran, elements and
// attributes that come of [Markup] and of no template, ways to other hosts.
func (b *Tab) Harm() []string {
	b.t.Helper()
	return Ask[[]string](b, harm)
}

// refused is said of pages that are refused, or not there, which tests ask for.
var refused = regexp.MustCompile(`status of 4\d\d`)

// Strayed lists what was asked of other hosts than one since the browser was opened, and
// what it complained of, such as a script that the content security policy kept from
// running.
func (b *Tab) Strayed(host string) []string {
	var found []string
	for _, asked := range b.Requests() {
		if to, err := url.Parse(asked); err != nil || to.Scheme != "about" && to.Hostname() != host {
			found = append(found, "asked for "+asked)
		}
	}
	for _, complaint := range b.Complaints() {
		if !refused.MatchString(complaint) {
			found = append(found, complaint)
		}
	}
	return found
}
