package notify

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"upkeep"
)

func TestMessageText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", 3600))
	g := group{}
	for _, e := range []upkeep.Event{
		{ID: 5, At: at, Kind: upkeep.EventAdmin, Who: "uid 0 (root)", Object: "pool/web/192.0.2.1", What: "set to drain", Why: "kernel\nupdate"},
		{ID: 7, At: at, Kind: upkeep.EventVerdict, Who: "upkeep", Object: "pool/web/192.0.2.2", What: "down", Why: "refused"},
		{ID: 9, At: at, Kind: upkeep.EventDecision, Who: "upkeep", Object: "pool/web", What: "publishing 1 of 3"},
	} {
		g.add(e, at)
	}
	m := g.message("ops", "monitor", at)
	want := `web/192.0.2.2: down (and 2 more)

2026-01-02 02:04:05.678 UTC  pool/web/192.0.2.1  set to drain
    kernel update
    by uid 0 (root)

2026-01-02 02:04:05.678 UTC  pool/web/192.0.2.2  down
    refused

2026-01-02 02:04:05.678 UTC  pool/web  publishing 1 of 3

-- 
upkeep on monitor, receiver ops
`
	if diff := cmp.Diff(want, m.Text()); diff != "" {
		t.Error(diff)
	}
	if m.ID != "ops/5-9" {
		t.Errorf("id %q", m.ID)
	}
}

func TestTitle(t *testing.T) {
	for want, events := range map[string][]upkeep.Event{
		"nothing happened": nil,
		"web/192.0.2.1: up (and 1 more)": {
			{Kind: upkeep.EventPublish, Object: "zone/a.test", What: "serial 7"}, {Kind: upkeep.EventVerdict, Object: "pool/web/192.0.2.1", What: "up"},
		},
		"receiver/x: cannot be told (and 1 more)": {
			{Kind: upkeep.EventDecision, Object: "pool/web", What: "publishing"}, {Kind: upkeep.EventWarning, Object: "receiver/x", What: "cannot be told"},
		},
		"a/1: down (and 1 more)": {
			{Kind: upkeep.EventVerdict, Object: "pool/a/1", What: "down"}, {Kind: upkeep.EventVerdict, Object: "pool/a/2", What: "down"},
		},
	} {
		if got := title(events, 0); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzClean holds that no text can begin a header, reorder a line or break a
// template that uses json.
func FuzzClean(f *testing.F) {
	for _, seed := range []string{"plain", "a\r\nBcc: x", "\u202e\u2028\x00\x1b[31m\xff", strings.Repeat("\u00e9", maxText), "\" \\ {{"} {
		f.Add(seed)
	}
	hook := &webhook{upkeep.Receiver{Template: `{"text": {{json .Title}}, "why": [{{range $i, $e := .Events}}{{if $i}},{{end}}{{json $e.Why}}{{end}}]}`}}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || len(got) > maxText+8 || strings.ContainsFunc(got, func(c rune) bool { return c != ' ' && !unicode.IsPrint(c) }) {
			t.Errorf("%q becomes %q", s, got)
		}
		g := group{}
		g.add(upkeep.Event{ID: 1, Object: s, What: s, Why: s, Who: s}, time.Unix(0, 0))
		m := g.message("ops", "host", time.Unix(0, 0))
		body, err := hook.body(m)
		var back struct {
			Text string
			Why  []string
		}
		if err == nil {
			err = json.Unmarshal(body, &back)
		}
		if err != nil || back.Text != m.Title || len(back.Why) != 1 || back.Why[0] != got {
			t.Errorf("%q: %v: %s", s, err, body)
		}
		if lines := strings.Count(m.Text(), "\n"); lines > 9 {
			t.Errorf("%q makes %d lines", s, lines)
		}
	})
}
