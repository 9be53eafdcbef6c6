package console

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"upkeep"
	"upkeep/internal/testkit/browser"
)

// axeRules are the rules of axe-core that pages keep: those of WCAG 2.2 at its levels A
// and AA, and what axe-core calls best practice.
const axeRules = `{type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}`

// axeExceptions are rules that a page need not keep, by its address, with the reason.
var axeExceptions = map[string]map[string]string{}

// violation is what axe-core found, with the elements that break the rule.
type violation struct {
	ID, Help string
	Nodes    []string
}

// audited runs axe-core on the page that is open.
func audited(tab *browser.Tab, axe, rules string) []violation {
	if !browser.Ask[bool](tab, `typeof axe === "object"`) {
		browser.Ask[bool](tab, axe+"; true")
	}
	return browser.Ask[[]violation](tab, `axe.run(document, {runOnly: `+rules+`, resultTypes: ["violations"]}).then(r => r.violations.map(v => ({
		ID: v.id, Help: v.help, Nodes: v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + " " + (n.any[0]?.message ?? "").slice(0, 200))})))`)
}

// No page breaks a rule of axe-core, in light and in dark, at a desk and on a phone.
func TestEveryPageIsAccessible(t *testing.T) {
	source, err := os.ReadFile("testdata/axe/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	tab := browser.Open(t)
	livedIn(t).tour(t, tab, func(at stop, _ string) {
		for _, how := range []struct {
			width  int64
			scheme string
			rules  string
		}{
			{1280, "light", axeRules},
			{390, "light", axeRules},
			// Colours move nothing.
			{390, "dark", `{type: "rule", values: ["color-contrast"]}`},
			{1280, "dark", `{type: "rule", values: ["color-contrast"]}`},
		} {
			tab.Do(chromedp.EmulateViewport(how.width, 900), browser.Scheme(how.scheme))
			for _, v := range audited(tab, string(source), how.rules) {
				if axeExceptions[at.path][v.ID] == "" {
					t.Errorf("%s at %d in %s: %s (%s): %q", at, how.width, how.scheme, v.Help, v.ID, v.Nodes)
				}
			}
		}
	})
}

// A rule that is broken is found.
func TestBrokenRulesAreFound(t *testing.T) {
	source, err := os.ReadFile("testdata/axe/axe.min.js")
	if err != nil {
		t.Fatal(err)
	}
	tab := browser.Open(t)
	tab.Do(chromedp.Navigate(`data:text/html,<title>x</title><img src="x"><p style="color:%23ccc">pale`))
	var found []string
	for _, v := range audited(tab, string(source), axeRules) {
		found = append(found, v.ID)
	}
	for _, want := range []string{"image-alt", "color-contrast", "html-has-lang", "landmark-one-main", "page-has-heading-one"} {
		if !slices.Contains(found, want) {
			t.Errorf("%s is not among what was found: %q", want, found)
		}
	}
}

// watchFocus notes what the keyboard reached, which window.left tells the rest of, and in
// window.dim what it reached without that being seen. Elements are known by what they are
// and do and not as objects: a page that follows puts new ones in their places.
const watchFocus = `(() => {
	const reached = new Set();
	const named = () => {
		const seen = new Map();
		return [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
			.filter(e => e.checkVisibility({visibilityProperty: true}))
			.map(e => {
				const is = [e.tagName, e.type, e.name, e.getAttribute("href") ?? e.form?.getAttribute("action"), e.tagName === "SELECT" ? "" : e.textContent].join(" ");
				seen.set(is, (seen.get(is) ?? 0) + 1);
				return [e, is + " " + seen.get(is)];
			});
	};
	window.left = () => named().filter(([, name]) => !reached.has(name)).map(([e]) => e);
	window.dim = [];
	document.addEventListener("focusin", () => {
		const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
		reached.add(named().find(([other]) => other === e)?.[1]);
		const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && style.outlineColor !== getComputedStyle(document.body).backgroundColor;
		const there = box.width > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight;
		if (!seen || !there) window.dim.push(e.outerHTML.slice(0, 120));
	});
	return window.left().length;
})()`

// The keyboard reaches everything that can be pressed or filled in, what it is at is
// seen, and the first thing that it comes to leads past the navigation.
func TestEveryActionIsReachedByKeyboard(t *testing.T) {
	tab := browser.Open(t)
	tab.Do(chromedp.EmulateViewport(1280, 900))
	livedIn(t).tour(t, tab, func(at stop, _ string) {
		most := int(browser.Ask[float64](tab, watchFocus))
		press := func(key string) { tab.Do(chromedp.KeyEvent(key)) }
		// Fields such as a number's have parts of their own.
		for i := 0; i < 3*most+10 && browser.Ask[float64](tab, "window.left().length") > 0; i++ {
			press(kb.Tab)
		}
		left := browser.Ask[[]string](tab, `window.left().slice(0, 3).map(e => e.outerHTML.slice(0, 120))`)
		dim := browser.Ask[[]string](tab, `window.dim.slice(0, 3)`)
		if len(left)+len(dim) > 0 {
			t.Errorf("%s: the keyboard does not reach %q, and reaches unseen %q", at, left, dim)
		}
		if at.form != "" || strings.HasPrefix(at.path, "/status/") {
			return // skipped to the same way; and there is no navigation to be skipped
		}
		first := browser.Ask[string](tab, `document.querySelector(".skip").focus(), document.activeElement.className`)
		press(kb.Enter)
		press(kb.Tab)
		if inside := browser.Ask[string](tab, `document.activeElement.closest("main") ? "" : document.activeElement.outerHTML.slice(0, 120)`); first != "skip" || inside != "" && browser.Ask[bool](tab, `document.querySelector("main :is(a[href], button, summary, select, textarea)") !== null`) {
			t.Errorf("%s: after the content was skipped to, the keyboard is at %q", at, inside)
		}
	})
}

// The first thing that the keyboard comes to is the way past the navigation, which is
// seen from then on.
func TestSkipLinkComesFirst(t *testing.T) {
	tab := browser.Open(t)
	s := livedIn(t)
	for _, width := range []int64{390, 1280} {
		tab.Do(chromedp.EmulateViewport(width, 900))
		s.walk(t, tab, as("/sites", "ada"), func(stop, string) {
			tab.Do(chromedp.KeyEvent(kb.Tab))
			if at := browser.Ask[string](tab, `(() => { const e = document.activeElement, box = e.getBoundingClientRect(); return e.className + (box.left >= 0 && box.top >= 0 && box.width > 20 ? " seen" : ""); })()`); at != "skip seen" {
				t.Errorf("at %d the keyboard comes to %q first", width, at)
			}
		})
	}
}

// What somebody has opened on a page that follows stays open, and the keyboard stays
// where it is, while what is around is replaced.
func TestKeyboardStaysWhilePagesFollow(t *testing.T) {
	tab := browser.Open(t)
	s := livedIn(t)
	s.walk(t, tab, as("/servers", "ada"), func(stop, string) {
		tab.Do(chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)))
		browser.Ask[bool](tab, `(() => {
			const details = document.querySelector('details:has(form[action="/servers/web2/revoke"])');
			details.open = true;
			details.querySelector('form[action="/servers/web2/revoke"] button').focus();
			return true;
		})()`)
		s.h.mu.Lock()
		s.h.servers = append([]upkeep.AgentStatus{{Name: "web0", Roles: []string{upkeep.RoleWeb}, State: "new"}}, s.h.servers...)
		s.h.mu.Unlock()
		s.f.change(func() {})
		tab.Do(chromedp.WaitVisible(`//section[@id="servers"]//th[contains(., "web0")]`))
		if at := browser.Ask[string](tab, `(document.activeElement.form?.getAttribute("action") ?? document.activeElement.outerHTML.slice(0, 80)) + " " + [...document.querySelectorAll("details[open] form")].map(f => f.getAttribute("action"))`); at != "/servers/web2/revoke /servers/web2/invite,/servers/web2/revoke" {
			t.Errorf("the keyboard is at, and open are %q", at)
		}
	})
}
