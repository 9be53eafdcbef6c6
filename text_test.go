package upkeep_test

import (
	"testing"
	"unicode/utf8"

	"upkeep"
)

func TestPrintable(t *testing.T) {
	for given, want := range map[string]string{
		"plain text, naïve Ünïcode 日本": "plain text, naïve Ünïcode 日本",
		"\x1b[31mred\x1b[0m":           `\x1b[31mred\x1b[0m`,
		"\x1b]0;title\a":               `\x1b]0;title\x07`,
		"two\nlines\r\t":               `two\x0alines\x0d\x09`,
		"\u202egnp.exe":                `\u202egnp.exe`,
		"zero\u200bwidth":              `zero\u200bwidth`,
		"c1 \u009b31m":                 `c1 \x9b31m`,
		"bad \xff utf-8":               `bad \xff utf-8`,
		"honest \ufffd":                "honest \ufffd",
	} {
		if got := upkeep.Printable(given); got != want {
			t.Errorf("Printable(%q) = %q, want %q", given, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[2J\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := upkeep.Printable(s)
		if !utf8.ValidString(got) || upkeep.Printable(got) != got {
			t.Errorf("Printable(%q) = %q, which is not safe", s, got)
		}
	})
}

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 files", 1: "1 file", 2: "2 files"} {
		if got := upkeep.Plural(n, "file", "files"); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
