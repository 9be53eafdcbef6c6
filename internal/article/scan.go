package article

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// lexeme is one word of SQL.
type lexeme struct {
	kind lexemeKind
	text string
}

type lexemeKind uint8

const (
	bare     lexemeKind = iota // letters, digits, underscores
	named                      // in back quotes
	quoted                     // a string
	symbolic                   // one other character
)

// scanner takes SQL apart, as far as dumps use it: MySQL's strings, quoted names
// and comments. What a conditional comment holds is not read.
type scanner struct {
	in   *bufio.Reader
	line int
}

func (s *scanner) next() (byte, error) {
	c, err := s.in.ReadByte()
	if c == '\n' && err == nil {
		s.line++
	}
	return c, err
}

func (s *scanner) back(c byte) {
	if c == '\n' {
		s.line--
	}
	_ = s.in.UnreadByte() // right after a ReadByte it cannot fail
}

// statement returns the words up to the next semicolon, io.EOF when there are
// none left.
func (s *scanner) statement() (words []lexeme, line int, err error) {
	size := 0
	for {
		word, err := s.word()
		switch {
		case err == io.EOF && len(words) > 0:
			return words, line, nil // the last one may lack its semicolon
		case err != nil:
			return nil, line, err
		case word.kind == symbolic && word.text == ";":
			if len(words) == 0 {
				continue
			}
			return words, line, nil
		}
		if len(words) == 0 {
			line = s.line
		}
		words = append(words, word)
		if size += len(word.text) + 32; size > maxStatement {
			return nil, line, fmt.Errorf("a statement has more than %d bytes", maxStatement)
		}
	}
}

func (s *scanner) word() (lexeme, error) {
	for {
		c, err := s.next()
		if err != nil {
			return lexeme{}, err
		}
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		case c == '#':
			err = s.skipLine()
		case c == '-' && s.peek() == '-':
			err = s.skipLine()
		case c == '/' && s.peek() == '*':
			err = s.skipComment()
		case c == '\'' || c == '"':
			return s.quotedText(c, quoted)
		case c == '`':
			return s.quotedText(c, named)
		case isWord(c):
			return s.bareWord(c)
		default:
			return lexeme{symbolic, string(rune(c))}, nil
		}
		if err != nil {
			return lexeme{}, err
		}
	}
}

func (s *scanner) peek() byte {
	ahead, err := s.in.Peek(1)
	if err != nil {
		return 0
	}
	return ahead[0]
}

func (s *scanner) skipLine() error {
	for {
		c, err := s.next()
		if err != nil || c == '\n' {
			return err
		}
	}
}

func (s *scanner) skipComment() error {
	for last := byte(0); ; {
		c, err := s.next()
		if err == io.EOF {
			return errors.New("a comment has no end")
		}
		if err != nil || last == '*' && c == '/' {
			return err
		}
		last = c
	}
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

func (s *scanner) bareWord(c byte) (lexeme, error) {
	var b strings.Builder
	for number := c >= '0' && c <= '9'; isWord(c) || number && c == '.'; {
		b.WriteByte(c)
		if b.Len() > maxStatement {
			return lexeme{}, errors.New("a word is too long")
		}
		var err error
		if c, err = s.next(); err == io.EOF {
			return lexeme{bare, b.String()}, nil
		} else if err != nil {
			return lexeme{}, err
		}
	}
	s.back(c)
	return lexeme{bare, b.String()}, nil
}

// quotedText reads up to the closing quote. A doubled quote stands for one; in
// strings a backslash escapes (MySQL manual, "String Literals").
func (s *scanner) quotedText(quote byte, kind lexemeKind) (lexeme, error) {
	var b strings.Builder
	for b.Len() <= maxStatement {
		c, err := s.next()
		if err == io.EOF {
			return lexeme{}, errors.New("a string has no end")
		}
		if err != nil {
			return lexeme{}, err
		}
		switch {
		case c == quote && s.peek() == quote:
			_, _ = s.next() // seen by peek
		case c == quote:
			return lexeme{kind, b.String()}, nil
		case c == '\\' && kind == quoted:
			if c, err = s.next(); err != nil {
				return lexeme{}, errors.New("a string has no end")
			}
			if escaped := strings.IndexByte("0bnrtZ", c); escaped >= 0 {
				c = "\x00\b\n\r\t\x1a"[escaped]
			}
		}
		b.WriteByte(c)
	}
	return lexeme{}, errors.New("a string is too long")
}
