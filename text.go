package upkeep

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Plural is how many there are of something: "1 file", "2 files".
func Plural[N int | int64 | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Printable makes text that came from elsewhere safe to show: control
// characters, among them the escape sequences that move a terminal's cursor or
// change its title, and characters that hide or turn the direction of text, are
// shown as escapes such as \x1b.
func Printable(s string) string {
	if !strings.ContainsFunc(s, misleading) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case misleading(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case misleading(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func misleading(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
}

// oneLine checks a text for people: one line, and nothing in it that turns what is
// shown around it.
func (r *rules) oneLine(field, text string, most int) {
	if len(text) > most || Printable(text) != text {
		r.add(field, text, "must be one line of printable text, at most %d bytes", most)
	}
}
