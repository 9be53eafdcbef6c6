package console

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"upkeep"
	"upkeep/internal/testkit"
)

// tab is one tab of a real Chromium, with what it complains of.
type tab struct {
	t          *testing.T
	ctx        context.Context
	mu         sync.Mutex
	complaints []string
}

func openTab(t *testing.T) *tab {
	t.Helper()
	testkit.Need(t, "chromium")
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded:
			b.complaints = append(b.complaints, e.Entry.Text)
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, e.ExceptionDetails.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) complained() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.complaints)
}

// do fails the test when the browser cannot do what it is asked to within a minute.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// ask returns the value of an expression in the page.
func ask[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// scheme makes the page believe in a colour scheme.
func scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
		return err
	})
}

// Every page fits its window at every width, with nothing sticking out of
// it, and with nothing for the browser to complain
// of, its content security policy included. UPKEEP_SHOTS names a folder to keep
// pictures in.
func TestPagesFitTheirWindow(t *testing.T) {
	b := openTab(t)
	shots, schemes := os.Getenv("UPKEEP_SHOTS"), []string{"light"} // colours move nothing
	if shots != "" {
		schemes = append(schemes, "dark")
	}
	for name, scene := range map[string]struct {
		f    *fake
		path string
	}{
		"empty":    {&fake{}, "/"},
		"healthy":  {healthy(), "/"},
		"typical":  {typical(), "/"},
		"broken":   {broken(), "/"},
		"crowded":  {crowded(), "/"},
		"pool":     {typical(), "/pools/web"},
		"bigpool":  {crowded(), "/pools/anycast-of-everything-that-has-a-really-long-name-for-a-pool-ok"},
		"events":   {crowded(), "/events"},
		"notfound": {&fake{}, "/pools/gone"},
		"hostile":  {hostile(), "/"},
	} {
		server := httptest.NewServer(handler(t, scene.f))
		for _, width := range []int64{360, 768, 1280} {
			for _, colours := range schemes {
				b.do(chromedp.EmulateViewport(width, 900), scheme(colours), chromedp.Navigate(server.URL+scene.path), chromedp.WaitReady(chromedp.CSS("footer")))
				overflow := ask[float64](b, "document.documentElement.scrollWidth - innerWidth")
				wide := ask[[]string](b, `[...document.querySelectorAll("main *")].filter(e => !e.closest("svg") && !e.closest("thead") && e.getBoundingClientRect().right > innerWidth + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 90))`)
				if overflow > 0 || len(wide) > 0 {
					t.Errorf("%s at %d in %s: %v pixels too wide: %.300q", name, width, colours, overflow, wide)
				}
				if shots != "" {
					b.picture(filepath.Join(shots, fmt.Sprintf("%s-%d-%s.png", name, width, colours)))
				}
			}
		}
		b.do(chromedp.Navigate("about:blank")) // lets go of the stream
		server.Close()
	}
	for _, complaint := range b.complained() {
		if !strings.Contains(complaint, "404") { // of the page that is not found
			t.Errorf("the browser complains: %s", complaint)
		}
	}
}

// An open page follows by itself what happens, keeps its scroll position and
// the keyboard's focus, and shows a page of another shape as that.
func TestPageFollowsByItself(t *testing.T) {
	b := openTab(t)
	f := healthy()
	server := httptest.NewServer(handler(t, f))
	defer server.Close()
	b.do(
		chromedp.Navigate(server.URL),
		chromedp.WaitVisible(`//h1[contains(., "All is well")]`),
		chromedp.WaitReady(chromedp.CSS(`html[data-following=yes]`)),
	)
	ask[bool](b, `window.kept = true; document.querySelector("#pool-web h2 a").focus(); true`)
	f.change(func() {
		m := &f.pools[0].Members[1]
		m.Verdict, m.Published, m.ChangedAt, m.Reason = upkeep.Down, false, time.Now(), "connection refused"
		f.pools[0].Published = f.pools[0].Published[:2]
	})
	b.do(
		chromedp.WaitVisible(`//h1[contains(., "web needs a look")]`),
		chromedp.WaitVisible(`//tr[@id="m-192-0-2-12"]//td[contains(., "connection refused")]`),
	)
	if !ask[bool](b, "window.kept === true") {
		t.Error("the page was loaded anew rather than changed")
	}
	if focus := ask[string](b, `document.activeElement.getAttribute("href") || ""`); focus != "/pools/web" {
		t.Errorf("the keyboard's focus went to %q", focus)
	}
	f.change(func() { f.pools = append(f.pools, pool("mail", member("192.0.2.21"))) })
	b.do(chromedp.WaitVisible(chromedp.CSS("#pool-mail")))
	f.change(func() { f.pools = f.pools[:1] })
	b.do(chromedp.WaitNotPresent(chromedp.CSS("#pool-mail")))
	b.do(chromedp.Navigate("about:blank"))
	if c := b.complained(); len(c) > 0 {
		t.Errorf("the browser complains: %q", c)
	}
}

// picture keeps what the page looks like, from top to bottom.
func (b *tab) picture(path string) {
	b.t.Helper()
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
