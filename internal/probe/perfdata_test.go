package probe

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSplitOutput(t *testing.T) {
	for _, c := range []struct{ output, text, perf string }{
		{"", "", ""},
		{"OK", "OK", ""},
		{"OK | time=0.2s;;;0.000", "OK", "time=0.2s;;;0.000"},
		{"OK|a=1 'b c'=2%;~:5;@1:2 d=U", "OK", "a=1 'b c'=2%;~:5;@1:2 d=U"},
		{"OK | 'it''s'=1B x==2 =3 y= z=1;2;3;4;5;6 'open=1", "OK", "'it''s'=1B"},
		{"OK | a=-0.5e3 b=+1 c=.5ms d=1..2 e=--1", "OK", "b=+1 c=.5ms"},
		{"line one | a=1\nlong\ntext | b=2\nc=3", "line one", "a=1 b=2 c=3"},
		{"a\tb \x1b[31m\u202ered", "a b ?[31m?red", ""},
		{"OK | a=1\x00 b\x1b=2 c=3", "OK", "c=3"},
	} {
		text, perf := splitOutput(c.output)
		if text != c.text || perf != c.perf {
			t.Errorf("%q:\n got %q and %q\nwant %q and %q", c.output, text, perf, c.text, c.perf)
		}
	}
}

func FuzzSplitOutput(f *testing.F) {
	f.Add("PING OK - Packet loss = 0%, RTA = 0.80 ms|rta=0.8ms;200;500;0 pl=0%;40;80;;")
	f.Add("x|'a b''c'=1;2;3;4;5\n|'")
	f.Add(strings.Repeat("|a=1 ", 1000))
	f.Fuzz(func(t *testing.T, output string) {
		text, perf := splitOutput(output)
		for _, s := range []string{text, perf} {
			if !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\n\r\x1b\t") {
				t.Errorf("unclean: %q", s)
			}
		}
		if len(text) > maxReason+len("…") || len(perf) > maxPerf {
			t.Errorf("too long: %d and %d", len(text), len(perf))
		}
		if again := cleanPerf(perf); again != perf {
			t.Errorf("not stable: %q becomes %q", perf, again)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b]0;title\a\u202e\xff\xfe " + strings.Repeat("é", 300))
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || len(got) > maxReason+len("…") || strings.ContainsAny(got, "\x00\n\r\x1b\t") {
			t.Errorf("clean(%q) = %q", s, got)
		}
	})
}
