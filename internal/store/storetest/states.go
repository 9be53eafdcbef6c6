package storetest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/store"
)

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

var overrideTests = []test{
	{"later rules come later", overrideOrder},
	{"bad rules are refused", overrideRefused},
}

func overrideOrder(t *testing.T, open func() *store.Store) {
	s := open()
	set := func(pool, member, state string) {
		t.Helper()
		o := upkeep.Override{Pool: pool, Member: member, State: state, Who: "uid 0", Why: "it's time", At: start}
		stored, events, err := s.SetOverride(ctx, o)
		must(t, err)
		o.ID = stored.ID
		if diff := cmp.Diff(o, stored); diff != "" || o.ID == 0 {
			t.Errorf("stored: %s", diff)
		}
		want := upkeep.Event{At: start, Kind: upkeep.EventAdmin, Who: "uid 0", Object: "pool/" + pool + "/" + member, What: "set to " + state, Why: "it's time"}
		if len(events) == 1 {
			want.ID = events[0].ID
		}
		if diff := cmp.Diff([]upkeep.Event{want}, events); diff != "" {
			t.Error(diff)
		}
	}
	rules := func() (text string) {
		t.Helper()
		overrides, err := open().Overrides(ctx)
		must(t, err)
		for _, o := range overrides {
			text += fmt.Sprintf("%s/%s=%s ", o.Pool, o.Member, o.State)
		}
		return text
	}
	set("*", "192.0.2.1", upkeep.AdminDown)
	set("web", "*", upkeep.AdminDrain)
	set("web", "192.0.2.7", upkeep.AdminUp)
	set("*", "192.0.2.1", upkeep.AdminAuto) // the same patterns: it moves to the end
	if got := rules(); got != "web/*=drain web/192.0.2.7=up */192.0.2.1=auto " {
		t.Error(got)
	}
	clearing := func(pool, member string, want int, left string) {
		t.Helper()
		n, events, err := s.ClearOverrides(ctx, "uid 0", pool, member)
		if n != want || len(events) != want || err != nil {
			t.Errorf("cleared %d with %d events, %v; want %d", n, len(events), err, want)
		}
		if got := rules(); got != left {
			t.Error(got)
		}
	}
	clearing("web", "192.0.2.8", 0, "web/*=drain web/192.0.2.7=up */192.0.2.1=auto ")
	clearing("web", "192.0.2.7", 1, "web/*=drain */192.0.2.1=auto ")
	clearing("web", "", 1, "*/192.0.2.1=auto ")
	clearing("*", "*", 0, "*/192.0.2.1=auto ")
	clearing("*", "", 1, "")
	if all := events(t, s, store.EventFilter{Kind: upkeep.EventAdmin}); len(all) != 7 {
		t.Errorf("%d events, want 7", len(all))
	}
}

func overrideRefused(t *testing.T, open func() *store.Store) {
	s := open()
	for _, o := range []upkeep.Override{
		{Pool: "[", Member: "*", State: upkeep.AdminUp},
		{Pool: "", Member: "*", State: upkeep.AdminUp},
		{Pool: "web", Member: "", State: upkeep.AdminUp},
		{Pool: "web", Member: "a\x00", State: upkeep.AdminUp},
		{Pool: "web", Member: "*", State: "sideways"},
	} {
		if _, _, err := s.SetOverride(ctx, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if left, err := s.Overrides(ctx); len(left) != 0 || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
}

var stateTests = []test{
	{"saved states come back", statesComeBack},
	{"many states", manyStates},
}

func statesComeBack(t *testing.T, open func() *store.Store) {
	s := open()
	must(t, s.SaveStates(ctx, nil))
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	saved := map[string][]byte{"pool/web": all, "pool/web2": {}, "pool/~": nil, "target/a'b\\?": []byte("x"), "Pool/web": []byte("y")}
	must(t, s.SaveStates(ctx, saved))
	must(t, s.SaveStates(ctx, map[string][]byte{"pool/web2": []byte("again")}))
	saved["pool/web2"], saved["pool/~"] = []byte("again"), []byte{}
	load := func(prefix string, keys ...string) {
		t.Helper()
		want := map[string][]byte{}
		for _, key := range keys {
			want[key] = saved[key]
		}
		got, err := open().LoadStates(ctx, prefix)
		must(t, err)
		if diff := cmp.Diff(want, got, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Errorf("prefix %q: %s", prefix, diff)
		}
	}
	load("", "pool/web", "pool/web2", "pool/~", "target/a'b\\?", "Pool/web")
	load("pool/", "pool/web", "pool/web2", "pool/~")
	load("pool/~", "pool/~")
	load("pool/web", "pool/web", "pool/web2")
	load("none")
	must(t, s.DeleteStates(ctx))
	must(t, s.DeleteStates(ctx, "pool/web", "target/a'b\\?", "none"))
	load("", "pool/web2", "pool/~", "Pool/web")
}

func manyStates(t *testing.T, open func() *store.Store) {
	s := open()
	saved := map[string][]byte{}
	var keys []string
	for i := range 3000 {
		key := fmt.Sprintf("target/%04d", i)
		saved[key] = bytes.Repeat([]byte{byte(i)}, 300)
		keys = append(keys, key)
	}
	must(t, s.SaveStates(ctx, saved))
	if s.SaveStates(cancelled(), map[string][]byte{"other": nil}) == nil {
		t.Error("a cancelled change was made")
	}
	got, err := s.LoadStates(ctx, "")
	must(t, err)
	if diff := cmp.Diff(saved, got, cmp.Comparer(bytes.Equal)); diff != "" {
		t.Error(diff)
	}
	must(t, s.DeleteStates(ctx, keys...))
	if got, err := s.LoadStates(ctx, ""); len(got) != 0 || err != nil {
		t.Errorf("%d left, %v", len(got), err)
	}
}

var zoneTests = []test{{"journals", journals}}

func journals(t *testing.T, open func() *store.Store) {
	s := open()
	expect := func(zone, content string, deltas ...string) {
		t.Helper()
		gotContent, gotDeltas, err := open().LoadZone(ctx, zone)
		must(t, err)
		if (gotContent == nil) != (content == "") || string(gotContent) != content {
			t.Errorf("content of %s is %q, want %q", zone, gotContent, content)
		}
		var texts []string
		for _, delta := range gotDeltas {
			texts = append(texts, string(delta))
		}
		if diff := cmp.Diff(deltas, texts); diff != "" {
			t.Errorf("deltas of %s: %s", zone, diff)
		}
	}
	expect("a.test", "")
	must(t, s.SaveZone(ctx, "a.test", []byte("one"), nil, 3))
	must(t, s.SaveZone(ctx, "b.test", []byte("other"), []byte("0-1"), 3))
	expect("a.test", "one")
	for i, content := range []string{"two", "three", "four", "five"} {
		must(t, s.SaveZone(ctx, "a.test", []byte(content), []byte(fmt.Sprintf("%d-%d", i+1, i+2)), 3))
	}
	expect("a.test", "five", "2-3", "3-4", "4-5")
	must(t, s.SaveZone(ctx, "a.test", []byte("five+"), nil, 2))
	expect("a.test", "five+", "3-4", "4-5")
	big := bytes.Repeat([]byte{0}, store.MaxDeltaBytes/2+1)
	must(t, s.SaveZone(ctx, "a.test", []byte("six"), big, 10))
	must(t, s.SaveZone(ctx, "a.test", []byte("seven"), big, 10))
	expect("a.test", "seven", string(big))
	expect("b.test", "other", "0-1")
	must(t, s.DeleteZone(ctx, "a.test"))
	expect("a.test", "")
	expect("b.test", "other", "0-1")
}

var openTests = []test{{"opening again keeps everything", openAgain}}

func openAgain(t *testing.T, open func() *store.Store) {
	s := open()
	put(t, s, zone("a.test"))
	add(t, s, upkeep.Event{At: start, What: "kept"})
	for range 3 {
		s = open()
	}
	if got := generations(t, s); got != "zone/a.test:1" {
		t.Error(got)
	}
	if all := events(t, s, store.EventFilter{}); len(all) != 2 || all[1].What != "kept" {
		t.Errorf("events %+v", all)
	}
}
