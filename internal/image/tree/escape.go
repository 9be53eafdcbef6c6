package tree

import (
	"fmt"
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

// seconds writes a time as seconds since 1970 with nine digits behind the point.
// The fraction counts upwards before 1970, too, as the kernel has it.
func seconds(t unix.StatxTimestamp) string {
	return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec)
}
