package probe

import (
	"errors"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// maxReason is the length in bytes of what a target can put into a reason.
const maxReason = 200

// clean makes text that a target may have chosen fit to be shown in a line of a
// terminal, a log or a page: no control or formatting characters (which could
// rewrite the line), valid UTF-8, bounded.
func clean(s string) string {
	var b strings.Builder
	space := false
	for _, c := range s {
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			space = b.Len() > 0
			continue
		case c == utf8.RuneError || !unicode.IsPrint(c):
			c = '?'
		}
		if b.Len()+1+utf8.RuneLen(c) > maxReason {
			return b.String() + "…"
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(c)
	}
	return b.String()
}

// explain turns the error of a connection into a plain sentence and says
// whether it is a definite answer about the target. An unreachable network is
// not: it is this machine's own routing table that speaks.
func explain(err error) (reason string, refused bool) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", true
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset", true
	case errors.Is(err, syscall.EPIPE):
		return "connection closed", true
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "host unreachable", true
	case errors.Is(err, syscall.ENETUNREACH):
		return "network unreachable: no route from here", false
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "not permitted by this machine's own firewall or routing", false
	case errors.Is(err, syscall.ETIMEDOUT):
		return "no answer", false
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error(), false
	}
	return clean(err.Error()), false
}

// isSystem reports whether err comes from a system call.
func isSystem(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno)
}

// errNoRoom means that this machine lacks what a probe needs.
var errNoRoom = errors.New("no room for another probe on this machine")

// isLack reports whether err says that this machine ran out of something, which
// says nothing about the target.
func isLack(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EAGAIN, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return errors.Is(err, errNoRoom)
}
