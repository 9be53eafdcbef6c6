package selftest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"upkeep"
)

// sizeAttacks are inputs that are far too large, or as large as may be.
var sizeAttacks = []Attack{
	{
		Name: "twenty-megabytes", Lesson: "Apache: a ServerAlias line of 20 MB is too long, and no site answers",
		Tries: "puts 20 MB into every text of a site",
		Holds: "it is refused at once, and not repeated",
		Do:    twentyMegabytes,
	},
	{
		Name: "many-aliases", Lesson: "100,000 aliases",
		Tries: "asks for 100,000 aliases, denied addresses, redirects, headers, variables, index names, error pages and servers",
		Holds: "it is refused, and says how many there may be",
		Do:    manyAliases,
	},
	{
		Name: "as-large-as-allowed", Lesson: "limits that hold one by one and not together",
		Tries: "declares a site that is as large in every field as it may be",
		Holds: "it is served, or its job fails with a reason; the reload stalls nobody",
		Do:    asLargeAsAllowed,
	},
	{
		Name: "deep-documents", Lesson: "the billion laughs",
		Tries: "sends documents that are nested a million deep, that grow when they are read, and ten thousand at once",
		Holds: "they are refused, or taken in a time that nobody notices",
		Do:    deepDocuments,
	},
	{
		Name: "many-changes", Lesson: "HestiaCP #3900, Froxlor #1249: a reload for each change",
		Tries: "changes a site two hundred times in a row",
		Holds: "the last change is served, and the neighbours have noticed nothing",
		Do:    manyChanges,
	},
}

func twentyMegabytes(ctx context.Context, w *World) error {
	huge := strings.Repeat("a", 20<<20)
	for number := 0; ; number++ {
		document := w.complete(w.fresh())
		place := replace(document, number, huge)
		if place == "" {
			return nil
		}
		_, err := w.Declare(ctx, document)
		if err := refused(err); err != nil {
			return fmt.Errorf("%s of 20 MB: %w", place, err)
		}
		if len(err.Error()) > 4096 {
			return fmt.Errorf("the refusal of %s has %d bytes", place, len(err.Error()))
		}
		if number > 3 && number%5 != 0 {
			continue
		}
		// Just below what the front door reads.
		document = w.complete(w.fresh())
		replace(document, number, huge[:9<<20])
		_, err = w.Declare(ctx, document)
		if err := refused(err); err != nil {
			return fmt.Errorf("%s of 9 MB: %w", place, err)
		}
		if len(err.Error()) > 64<<10 {
			return fmt.Errorf("the refusal of %s has %d bytes", place, len(err.Error()))
		}
	}
}

// many makes a list of n elements.
func many(n int, element func(int) any) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = element(i)
	}
	return list
}

// manyKeys makes a mapping of n keys.
func manyKeys(n int, pair func(int) (string, any)) map[string]any {
	all := make(map[string]any, n)
	for i := range n {
		key, value := pair(i)
		all[key] = value
	}
	return all
}

func address(i int) any { return fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255) }

func manyAliases(ctx context.Context, w *World) error {
	const n = 100_000
	fields := map[string]any{
		"aliases": many(n, func(i int) any { return fmt.Sprintf("a%d.evil-many.test", i) }),
		"deny":    many(n, address),
		"allow":   many(n, address),
		"index":   many(n, func(i int) any { return fmt.Sprintf("i%d.html", i) }),
		"methods": many(n, func(int) any { return "GET" }),
		"servers": many(n, func(i int) any { return fmt.Sprintf("web%d", i) }),
		"headers": manyKeys(n, func(i int) (string, any) { return fmt.Sprintf("X-%d", i), "x" }),
		"redirects": many(n, func(i int) any {
			return map[string]any{"from": fmt.Sprintf("/%d", i), "to": "/x"}
		}),
		"environment": manyKeys(n, func(i int) (string, any) { return fmt.Sprintf("E%d", i), "x" }),
		"error_pages": manyKeys(n, func(i int) (string, any) { return fmt.Sprint(i), "x" }),
		"protect": many(n, func(i int) any {
			return map[string]any{"path": fmt.Sprintf("/%d", i), "users": map[string]any{"a": hash}}
		}),
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		began := time.Now()
		_, err := w.Declare(ctx, w.site("evil-many.test", map[string]any{field: fields[field]}))
		if err := refused(err); err != nil {
			return fmt.Errorf("%d of %s: %w", n, field, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			return fmt.Errorf("refusing %d of %s took %s", n, field, took)
		}
	}
	return nil
}

// largest is a site with as much of everything as there may be.
func (w *World) largest(name string) map[string]any {
	long := strings.Repeat("a", 60)
	value := strings.Repeat("v", 4000)
	return w.site(name, map[string]any{
		"aliases":  many(upkeep.MaxAliases, func(i int) any { return fmt.Sprintf("%s.%s.%s.x%d.%s", long, long, long, i, name) }),
		"wildcard": true,
		"deny":     many(upkeep.MaxAddresses, address),
		"allow":    append(many(upkeep.MaxAddresses-1, func(i int) any { return address(i + 1<<20) }), "127.0.0.1"),
		"redirects": many(upkeep.MaxRedirects, func(i int) any {
			return map[string]any{"from": fmt.Sprintf("/%d/%s", i, strings.Repeat("f", 900)), "to": "https://evil.test/" + strings.Repeat("t", 2000), "exact": i%2 == 0}
		}),
		"headers":     manyKeys(upkeep.MaxHeaders, func(i int) (string, any) { return fmt.Sprintf("X-%d-%s", i, long[:50]), value }),
		"environment": manyKeys(upkeep.MaxEnvironment, func(i int) (string, any) { return fmt.Sprintf("E%d", i), value }),
		"error_pages": manyKeys(8, func(i int) (string, any) { return fmt.Sprint(400 + i), strings.Repeat("x", upkeep.MaxErrorText) }),
		"protect": many(upkeep.MaxProtections, func(i int) any {
			return map[string]any{"path": fmt.Sprintf("/p%d", i), "users": manyKeys(upkeep.MaxUsers, func(i int) (string, any) { return fmt.Sprintf("user%d", i), hash })}
		}),
	})
}

func asLargeAsAllowed(ctx context.Context, w *World) error {
	name := w.fresh()
	if _, err := w.Declare(ctx, w.largest(name)); err != nil {
		return fmt.Errorf("declaring it: %w", err)
	}
	status, err := w.Site(ctx, name)
	if err != nil {
		return err
	}
	if status.State == upkeep.SiteFailed {
		return printable(status.Reason)
	}
	got, err := w.get(ctx, name, "/nothing-here")
	if err == nil && got.status != http.StatusNotFound {
		err = fmt.Errorf("it answers with status %d", got.status)
	}
	if err != nil {
		return err
	}
	return w.live(ctx, w.site(name)) // small again, so that it costs nobody anything
}

func deepDocuments(ctx context.Context, w *World) error {
	laughs := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 12 {
		laughs += fmt.Sprintf("a%d: &a%[1]d [%s]\n", i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	for what, text := range map[string]string{
		"lists in lists": strings.Repeat("[", 1_000_000), "mappings in mappings": strings.Repeat("{a: ", 500_000), "JSON in JSON": strings.Repeat(`{"a":`, 500_000), "the billion laughs": laughs,
		"nothing but a quote": `"` + strings.Repeat("x", 9<<20), "300,000 empty documents with a bad one": strings.Repeat("---\n", 300_000) + "kind: shell\n",
	} {
		began := time.Now()
		_, err := w.Declare(ctx, Verbatim(text))
		if err := refused(err); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			return fmt.Errorf("refusing %s took %s", what, took)
		}
	}
	return nil
}

func manyChanges(ctx context.Context, w *World) error {
	name := w.fresh()
	const n = 200
	for i := range n {
		if _, err := w.Declare(ctx, w.site(name, map[string]any{"headers": map[string]string{"X-N": fmt.Sprint(i + 1)}})); err != nil {
			return err
		}
	}
	status, err := w.Site(ctx, name)
	if err != nil {
		return err
	}
	got, err := w.get(ctx, name, "/")
	if err == nil && (status.State != upkeep.SiteLive || got.header.Get("X-N") != fmt.Sprint(n)) {
		err = fmt.Errorf("the site is %s and answers change %s: %s", status.State, got.header.Get("X-N"), status.Reason)
	}
	return err
}
