// Package browser is a real Chromium for tests of pages.
package browser

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"upkeep/internal/testkit"
)

// patience is how long a page may take to become what a test waits for.
const patience = time.Minute

// Tab is one tab, with what the browser complains of on its console.
type Tab struct {
	t          testing.TB
	ctx        context.Context
	mu         sync.Mutex
	complaints []string
	requests   []string
}

// Open starts a browser that dies with the test.
func Open(t testing.TB) *Tab {
	t.Helper()
	testkit.Need(t, "chromium")
	// The sandbox needs user namespaces, which many build machines refuse. What
	// is shown to it are the pages of this program alone.
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &Tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *Tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		b.complaints = append(b.complaints, e.Entry.Text)
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, e.ExceptionDetails.Text)
	}
}

// Complaints returns what the browser found wrong: errors of scripts, breaches
// of the content security policy, files that could not be loaded.
func (b *Tab) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.complaints)
}

// Requests returns the addresses of all that was asked for, of whichever host.
func (b *Tab) Requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requests)
}

// Do fails the test when the browser cannot do what it is asked to in time. A part
// of a page that follows what happens may be replaced between being found and being
// pressed: it is looked for again.
func (b *Tab) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for _, step := range steps {
		err := chromedp.Do(ctx, step)
		for err != nil && ctx.Err() == nil && strings.Contains(err.Error(), "Could not find node with given id") {
			err = chromedp.Do(ctx, step)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// Ask returns the value of an expression in the page; that of a promise is waited for.
func Ask[T any](b *Tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// Fill types values into fields of a form by their names.
func (b *Tab) Fill(form string, values ...string) {
	b.t.Helper()
	for i := 0; i < len(values); i += 2 {
		field := form + ` [name="` + values[i] + `"]`
		b.Do(chromedp.WaitVisible(chromedp.CSS(field)), chromedp.SendKeys(chromedp.CSS(field), values[i+1]))
	}
}

// Click presses a button and waits for what comes of it.
func (b *Tab) Click(button, then string) {
	b.t.Helper()
	b.Do(chromedp.Click(chromedp.CSS(button)), chromedp.WaitVisible(then))
}

// Scheme makes pages believe in a colour scheme, light or dark.
func Scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
		return err
	})
}

// Cookie has what is asked of a server carry a cookie, and no other; none with an empty
// value.
func Cookie(name, value, url string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if _, err := cdp.Call(ctx, t, network.ClearBrowserCookies, cdp.Empty{}); err != nil || value == "" {
			return err
		}
		_, err := cdp.Call(ctx, t, network.SetCookie, network.SetCookieParams{Name: name, Value: value, URL: url})
		return err
	})
}

// Scriptless keeps pages from running any script. What [Ask] is given still runs: it
// stands for what a person does that no action here does.
func Scriptless() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	})
}

// Picture writes what the page looks like, from top to bottom, as PNG.
func (b *Tab) Picture(path string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
