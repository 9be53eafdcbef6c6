package tree

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Escape writes any name so that it stays on one line and in one word: bytes
// that are not printable ASCII, spaces and backslashes become \ooo in octal, as in
// mtree(5).
func Escape(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }) {
		return name
	}
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape is the way back; anything but what Escape writes is refused.
func unescape(text string) (string, error) {
	if !strings.Contains(text, `\`) {
		if Escape(text) != text {
			return "", fmt.Errorf("%q is not written as names are", text)
		}
		return text, nil
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		if i+3 >= len(text) {
			return "", fmt.Errorf("%q ends in the middle of a character", text)
		}
		n, err := strconv.ParseUint(text[i+1:i+4], 8, 8)
		if err != nil {
			return "", fmt.Errorf("%q is not written as names are: %w", text, err)
		}
		b.WriteByte(byte(n))
		i += 3
	}
	if Escape(b.String()) != text {
		return "", fmt.Errorf("%q is not written as names are", text)
	}
	return b.String(), nil
}

// seconds writes a time as seconds since 1970 with nine digits behind the point.
// The fraction counts upwards before 1970, too, as the kernel has it.
func seconds(t unix.StatxTimestamp) string {
	return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec)
}
