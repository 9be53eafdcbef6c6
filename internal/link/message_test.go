package link

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"upkeep"
)

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	_, private := keys(t)
	job := signed(t, private, testJob())
	for _, m := range []Message{
		{Hello: &Hello{Version: "1.0", Kinds: []string{upkeep.JobMkdir}, Facts: upkeep.Facts{Hostname: "web1", At: noon, Kinds: []string{}}}},
		{Job: &job},
		{Cancel: &Cancel{ID: 3}},
		{Progress: &Progress{ID: 3, Step: "reloading", Percent: 100}},
		{Outcome: &Outcome{ID: 3, State: upkeep.JobFailed, Error: "no", Field: "site.name", Result: json.RawMessage(`{"a":1}`)}},
	} {
		text, err := encode(m, maxReport)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(text, maxReport)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, got.Message); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, says := range map[string]string{
		``:                                       "unexpected end",
		`null`:                                   "is 0 of them",
		`{}`:                                     "is 0 of them",
		`{"shell":{"command":"id"}}`:             "is 0 of them",
		`{"hello":{}} x`:                         "invalid character",
		`{"cancel":{"id":1},"hello":{}}`:         "is 2 of them",
		`{"cancel":{}}`:                          "about no job",
		`{"cancel":{"id":-1}}`:                   "about no job",
		`{"cancel":{"id":1e99}}`:                 "cannot unmarshal",
		`{"progress":{"id":1,"percent":101}}`:    "101 percent",
		`{"outcome":{"id":1,"state":"running"}}`: `"running" is not how`,
		`{"outcome":{"id":1,"state":""}}`:        `"" is not how`,
		`{"outcome":{"id":1,"state":"failed"}}`:  "does not say why",
		`{"outcome":{"state":"done"}}`:           "about no job",
		`{"job":{}}`:                             "the job is empty",
		`{"job":{"body":"e30=","signature":"AAAA"}}`:                                              "has 3 bytes and must have 64",
		`{"progress":{"id":1,"step":"` + strings.Repeat("x", maxStep+1) + `"}}`:                   "at most 400",
		`{"outcome":{"id":1,"state":"failed","error":"` + strings.Repeat("x", maxError+1) + `"}}`: "at most 8192",
		`{"hello":{"kinds":[` + strings.Repeat(`"x",`, maxKinds) + `"x"]}}`:                       "at most 100",
		`{"cancel":{"id":1},"pad":"` + strings.Repeat("x", maxReport) + `"}`:                      "at most 4194304",
		strings.Repeat(`[`, 20000): "exceeded max depth",
	} {
		m, err := decode([]byte(text), maxReport)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.80q: got %v, %v, want an error with %q", text, m, err, says)
		}
	}
}

func TestNewerVersionsAreUnderstood(t *testing.T) {
	m, err := decode([]byte(`{"cancel":{"id":1,"why":"asked"},"trace":"x"}`), maxReport)
	if err != nil || m.Cancel == nil || m.Cancel.ID != 1 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestLongTextsAreShortened(t *testing.T) {
	long := strings.Repeat("é", maxError) + "\xff"
	text, err := encode(Message{Outcome: &Outcome{ID: 1, State: upkeep.JobFailed, Error: long, Field: long}}, maxReport)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decode(text, maxReport)
	if err != nil {
		t.Fatal(err)
	}
	if o := m.Outcome; !strings.HasSuffix(o.Error, "é...") || len(o.Error) > maxError || len(o.Error) < maxError-2 || len(o.Field) > maxField {
		t.Errorf("error has %d bytes and ends in %q, field has %d", len(o.Error), o.Error[len(o.Error)-5:], len(o.Field))
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		`{"hello":{"version":"1","kinds":["mkdir"],"facts":{"at":"2026-11-20T12:00:00Z","stall":"1s"}}}`, `{"cancel":{"id":1}}`,
		`{"progress":{"id":1,"step":"x","percent":5}}`, `{"outcome":{"id":1,"state":"failed","error":"\ud800","result":[1]}}`, `{"job":{"body":"e30=","signature":""}}`,
		`{"beat":{}}`, `{"renew":{"request":"AAAA"}}`, `{"renewed":{"certificate":"AAAA","error":"x"}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decode(text, maxReport)
		if err != nil {
			return
		}
		if m.aside() {
			return
		}
		again, err := encode(m.Message, 2*maxReport) // escapes can make it longer
		if err != nil {
			t.Fatalf("%q is received, but cannot be sent: %v", text, err)
		}
		if !utf8.Valid(again) && utf8.Valid(text) {
			t.Fatalf("%q became invalid UTF-8", text)
		}
	})
}
