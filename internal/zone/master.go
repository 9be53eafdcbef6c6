package zone

import (
	"bytes"
	"fmt"
	"strings"
)

// A zone file is read here as text, in which every byte has its place, so that
// it can be edited without losing a comment or a blank. What its records mean
// is left to named-checkzone and to the DNS library.

// word is one token of a zone file, quotes included.
type word struct {
	start, end int // in bytes from the start of the file
	quoted     bool
}

// entry is one record or directive with all the lines that it takes, or a run
// of one line that has neither.
type entry struct {
	start, end int // whole lines, the last line break included
	line       int // from 1
	words      []word
	// inherits means that the entry begins with a blank: it belongs to the owner
	// of the record before it.
	inherits bool
	comments [][2]int // each from its semicolon to the end of its line
}

// masterText is a zone file (RFC 1035 section 5) cut into entries.
type masterText struct {
	text    []byte
	entries []entry
}

// cutMaster cuts a zone file into entries as named's lexer does: a semicolon
// starts a comment, parentheses join lines, a backslash takes the meaning from
// the byte after it, a quoted string ends on its line.
func cutMaster(text []byte) (masterText, error) {
	m := masterText{text: text}
	err := m.each(func(e entry) error {
		m.entries = append(m.entries, e)
		return nil
	})
	return m, err
}

// each calls visit for every entry of the text, without keeping any: a large
// zone takes many times its size once it is cut.
func (m masterText) each(visit func(entry) error) error {
	line := 1
	for at := 0; at < len(m.text); {
		e, lines, err := cutEntry(m.text, at)
		if err != nil {
			return fmt.Errorf("line %d: %w", line+lines, err)
		}
		e.line = line
		line += lines
		if err := visit(e); err != nil {
			return err
		}
		at = e.end
	}
	return nil
}

// cutEntry cuts the entry that starts at a line's beginning. On an error, lines
// counts from the entry's first line to the one at fault.
func cutEntry(text []byte, start int) (e entry, lines int, err error) {
	e = entry{start: start, inherits: text[start] == ' ' || text[start] == '\t'}
	depth, at := 0, start
	for at < len(text) {
		switch c := text[at]; c {
		case '\n':
			at++
			lines++
			if depth == 0 {
				e.end = at
				return e, lines, nil
			}
		case ' ', '\t', '\r':
			at++
		case '(':
			depth++
			at++
		case ')':
			if depth--; depth < 0 {
				return e, lines, fmt.Errorf("a closing parenthesis without an opening one")
			}
			at++
		case ';':
			end := lineEnd(text, at)
			e.comments = append(e.comments, [2]int{at, end})
			at = end
		case '"':
			end, err := quoteEnd(text, at)
			if err != nil {
				return e, lines, err
			}
			e.words = append(e.words, word{at, end, true})
			at = end
		default:
			end := wordEnd(text, at)
			e.words = append(e.words, word{at, end, false})
			at = end
		}
	}
	if depth > 0 {
		return e, lines, fmt.Errorf("a parenthesis is not closed")
	}
	e.end = at
	return e, lines, nil
}

// lineEnd is where the line's text ends, before its line break.
func lineEnd(text []byte, at int) int {
	end := bytes.IndexByte(text[at:], '\n')
	if end < 0 {
		return len(text)
	}
	end += at
	if end > at && text[end-1] == '\r' {
		end--
	}
	return end
}

func quoteEnd(text []byte, at int) (int, error) {
	for i := at + 1; i < len(text) && text[i] != '\n'; i++ {
		switch text[i] {
		case '\\':
			i++
			if i < len(text) && text[i] == '\n' {
				return 0, fmt.Errorf("a quoted string does not end on its line")
			}
		case '"':
			return i + 1, nil
		}
	}
	return 0, fmt.Errorf("a quoted string does not end on its line")
}

func wordEnd(text []byte, at int) int {
	for at < len(text) && strings.IndexByte(" \t\r\n;()\"", text[at]) < 0 {
		if text[at] == '\\' && at+1 < len(text) && text[at+1] != '\n' {
			at++
		}
		at++
	}
	return at
}

// raw is a word as it is written.
func (m masterText) raw(w word) string { return string(m.text[w.start:w.end]) }

// value is a word without its quotes.
func (m masterText) value(w word) string {
	if w.quoted {
		return string(m.text[w.start+1 : w.end-1])
	}
	return m.raw(w)
}

// directive returns the name of the entry's directive in upper case, such as
// $INCLUDE, or "" for a record. A directive starts in the first column.
func (m masterText) directive(e entry) string {
	if e.inherits || len(e.words) == 0 || m.text[e.start] != '$' {
		return ""
	}
	return strings.ToUpper(m.raw(e.words[0]))
}
