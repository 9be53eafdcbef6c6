package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/store"
)

var eventTests = []test{
	{"what was added comes back", eventsComeBack},
	{"filters", eventFilters},
	{"ids rise as readers see them", eventOrder},
	{"hostile text", eventText},
	{"pruning by age", eventPruning},
	{"cursors", cursors},
}

func add(t *testing.T, s *store.Store, more ...upkeep.Event) []upkeep.Event {
	t.Helper()
	added, err := s.AddEvents(ctx, more...)
	must(t, err)
	return added
}

func eventsComeBack(t *testing.T, open func() *store.Store) {
	s := open()
	if added := add(t, s); len(added) != 0 {
		t.Errorf("nothing added: %+v", added)
	}
	given := upkeep.Event{At: start, Kind: upkeep.EventVerdict, Who: "upkeep", Object: "pool/web/192.0.2.1", What: "down", Why: "no answer: it's 3 of 3; 100% loss?"}
	added := add(t, s, given, upkeep.Event{Kind: upkeep.EventSystem})
	if given.ID = added[0].ID; given.ID == 0 {
		t.Error("no id")
	}
	if added[1].ID <= added[0].ID || time.Since(added[1].At) > time.Hour {
		t.Errorf("second event %+v", added[1])
	}
	if diff := cmp.Diff([]upkeep.Event{given, added[1]}, events(t, s, store.EventFilter{})); diff != "" {
		t.Error(diff)
	}
	// More than one statement holds.
	var many []upkeep.Event
	for i := range 1234 {
		many = append(many, upkeep.Event{At: start, Kind: "many", What: fmt.Sprint(i)})
	}
	added = add(t, s, many...)
	for i, e := range added {
		if e.What != fmt.Sprint(i) || i > 0 && e.ID <= added[i-1].ID {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	if got := events(t, s, store.EventFilter{Kind: "many"}); len(got) != len(many) {
		t.Errorf("%d events of %d", len(got), len(many))
	}
}

func eventFilters(t *testing.T, open func() *store.Store) {
	s := open()
	objects := []string{"pool/web", "pool/web/192.0.2.1", "pool/webmail", "pool/web-2", "pool/web/2001:db8::1", "zone/web", "pool/Web"}
	kinds := []string{"verdict", "publish"}
	var ids []int64
	for i := range 14 {
		e := add(t, s, upkeep.Event{At: start.Add(time.Duration(i) * time.Second), Kind: kinds[i%2], Object: objects[i%7], What: fmt.Sprint(i)})
		ids = append(ids, e[0].ID)
	}
	for name, one := range map[string]struct {
		filter store.EventFilter
		want   string
	}{
		"all":             {store.EventFilter{}, "0 1 2 3 4 5 6 7 8 9 10 11 12 13"},
		"object":          {store.EventFilter{Object: "pool/web"}, "0 1 4 7 8 11"},
		"object itself":   {store.EventFilter{Object: "pool/web/192.0.2.1"}, "1 8"},
		"part of a name":  {store.EventFilter{Object: "pool/we"}, ""},
		"pattern":         {store.EventFilter{Object: "pool/%"}, ""},
		"kind":            {store.EventFilter{Kind: "publish"}, "1 3 5 7 9 11 13"},
		"of a kind":       {store.EventFilter{Of: []string{"zone"}, Kind: "publish"}, "5"},
		"of kinds":        {store.EventFilter{Of: []string{"zone", "pool"}, Object: "pool/Web"}, "6 13"},
		"of no kind":      {store.EventFilter{Of: []string{"poo", "%"}}, ""},
		"both":            {store.EventFilter{Kind: "publish", Object: "pool/web"}, "1 7 11"},
		"after":           {store.EventFilter{After: ids[11]}, "12 13"},
		"before":          {store.EventFilter{Before: ids[2]}, "0 1"},
		"between":         {store.EventFilter{After: ids[1], Before: ids[4]}, "2 3"},
		"since":           {store.EventFilter{Since: start.Add(12 * time.Second)}, "12 13"},
		"oldest":          {store.EventFilter{Limit: 3}, "0 1 2"},
		"latest":          {store.EventFilter{Limit: 3, Latest: true}, "11 12 13"},
		"latest before":   {store.EventFilter{Limit: 2, Latest: true, Before: ids[5], Object: "pool/web"}, "1 4"},
		"first after":     {store.EventFilter{Limit: 2, After: ids[5]}, "6 7"},
		"after the last":  {store.EventFilter{After: ids[13]}, ""},
		"unknown object":  {store.EventFilter{Object: "pool/none"}, ""},
		"NUL and invalid": {store.EventFilter{Object: "pool/\x00\xff'", Kind: "\x00"}, ""},
	} {
		var got []string
		for _, e := range events(t, s, one.filter) {
			got = append(got, e.What)
		}
		if strings.Join(got, " ") != one.want {
			t.Errorf("%s: got %v, want %s", name, got, one.want)
		}
	}
	for _, limit := range []int{-1, store.MaxEvents + 1} {
		if _, err := s.Events(ctx, store.EventFilter{Limit: limit}); err == nil {
			t.Errorf("limit %d was taken", limit)
		}
	}
}

// A reader that goes on after the last id it saw must miss nothing: an event
// must not become visible after one with a higher id.
func eventOrder(t *testing.T, open func() *store.Store) {
	const writers, each = 3, 20
	s := open()
	var group sync.WaitGroup
	for w := range writers {
		mine := open()
		group.Go(func() {
			for range each {
				if _, err := mine.AddEvents(ctx, upkeep.Event{Kind: fmt.Sprint(w)}, upkeep.Event{Kind: fmt.Sprint(w)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { group.Wait(); close(written) }()
	var last int64
	seen, done := 0, false
	for !done {
		select {
		case <-written:
			done = true // and look once more
		default:
		}
		for _, e := range events(t, s, store.EventFilter{After: last}) {
			last, seen = e.ID, seen+1
		}
	}
	if seen != 2*writers*each {
		t.Errorf("saw %d events of %d", seen, 2*writers*each)
	}
}

func eventText(t *testing.T, open func() *store.Store) {
	s := open()
	hostile := []string{
		"a\x00b", "\xff\xfe", "it's'; DROP TABLE events; --", `back\slash\'`, "?0 ?1 ? $1 :x @y", "line\nbreak\r", "\u2028 \U0001F600",
		strings.Repeat("x", 1<<20), strings.Repeat("\xf0\x9f\x98\x80", 5000), strings.Repeat("\x80", 9000),
	}
	for _, text := range hostile {
		added := add(t, s, upkeep.Event{At: start, Kind: text, Who: text, Object: text, What: text, Why: text})
		got := events(t, s, store.EventFilter{Limit: 1, Latest: true})[0]
		if diff := cmp.Diff(added[0], got); diff != "" {
			t.Errorf("%.20q: %s", text, diff)
		}
		if !utf8.ValidString(got.Why) || strings.ContainsRune(got.Why, 0) || len(got.Why) > 20<<10 {
			t.Errorf("%.20q is kept as %d bytes", text, len(got.Why))
		}
		if fine := utf8.ValidString(text) && !strings.Contains(text, "\x00") && len(text) <= 4<<10; fine && got.Why != text {
			t.Errorf("%q became %q", text, got.Why)
		}
	}
}

func eventPruning(t *testing.T, open func() *store.Store) {
	s := open()
	var many []upkeep.Event
	for i := range 2500 {
		many = append(many, upkeep.Event{At: start.Add(time.Duration(i) * time.Second), What: fmt.Sprint(i)})
	}
	added := add(t, s, many...)
	n, err := s.PruneEvents(ctx, start.Add(2400*time.Second))
	must(t, err)
	left := events(t, s, store.EventFilter{})
	if n != 2400 || len(left) != 100 || left[0].What != "2400" {
		t.Errorf("%d went, %d left", n, len(left))
	}
	if n, err = s.PruneEvents(ctx, start); n != 0 || err != nil {
		t.Errorf("nothing to prune: %d, %v", n, err)
	}
	_, err = s.PruneEvents(ctx, start.Add(time.Hour))
	must(t, err)
	// Not even an empty table gives an id again.
	if next := add(t, s, upkeep.Event{}); next[0].ID <= added[len(added)-1].ID {
		t.Errorf("id %d after %d", next[0].ID, added[len(added)-1].ID)
	}
}

func cursors(t *testing.T, open func() *store.Store) {
	s := open()
	expect := func(name string, want int64) {
		t.Helper()
		if got, err := s.Cursor(ctx, name); got != want || err != nil {
			t.Errorf("cursor %s: %d, %v, want %d", name, got, err, want)
		}
	}
	expect("mail", 0)
	must(t, s.SetCursor(ctx, "mail", 7))
	must(t, s.SetCursor(ctx, "hook", 3))
	must(t, s.SetCursor(ctx, "mail", 9))
	expect("mail", 9)
	expect("hook", 3)
	must(t, s.DeleteCursor(ctx, "mail"))
	must(t, s.DeleteCursor(ctx, "mail"))
	expect("mail", 0)
	if s.SetCursor(cancelled(), "hook", 4) == nil {
		t.Error("a cancelled change was made")
	}
	expect("hook", 3)
	var hint *upkeep.HintError
	if err := s.SetCursor(cancelled(), "hook", 4); errors.As(err, &hint) {
		t.Errorf("a cancelled call got the advice %q", hint.Hint)
	}
}
