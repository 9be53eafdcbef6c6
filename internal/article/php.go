package article

import (
	"errors"
	"fmt"
	"strconv"
)

// Bounds of what is read: the article's values are flat arrays of a few entries.
const (
	maxDepth   = 8
	maxEntries = 10_000
)

// entry is one element of a PHP array, in the order in which PHP keeps them.
type entry struct {
	key   string // an integer key in decimal
	value any
}

// unserialize reads a value as PHP's serialize writes it: nil, bool, int64,
// float64, string or []entry. Objects and references are refused: to make a
// stranger's objects is what unserialize is notorious for, and the article has
// none.
//
// Source of the format: https://www.php.net/manual/en/function.serialize.php.
// Lengths of strings are in bytes.
func unserialize(text string) (any, error) {
	p := php{text: text}
	value, err := p.value(0)
	if err == nil && p.at != len(text) {
		err = errors.New("something follows the value")
	}
	if err != nil {
		return nil, fmt.Errorf("reading PHP's serialised form at byte %d: %w", p.at, err)
	}
	return value, nil
}

type php struct {
	text    string
	at      int
	entries int
}

func (p *php) value(depth int) (any, error) {
	if len(p.text)-p.at < 2 {
		return nil, errors.New("it ends too early")
	}
	kind := p.text[p.at : p.at+2]
	p.at += 2
	switch kind {
	case "N;":
		return nil, nil
	case "b:":
		digits, err := p.until(';')
		if err == nil && digits != "0" && digits != "1" {
			err = fmt.Errorf("%q is neither 0 nor 1", digits)
		}
		return digits == "1", err
	case "i:":
		digits, err := p.until(';')
		if err != nil {
			return nil, err
		}
		return strconv.ParseInt(digits, 10, 64)
	case "d:":
		digits, err := p.until(';')
		if err != nil {
			return nil, err
		}
		return strconv.ParseFloat(digits, 64)
	case "s:":
		return p.str()
	case "a:":
		return p.array(depth)
	}
	return nil, fmt.Errorf("%q is not a kind of value that is taken", kind)
}

func (p *php) until(end byte) (string, error) {
	for i := p.at; i < len(p.text) && i < p.at+40; i++ {
		if p.text[i] == end {
			found := p.text[p.at:i]
			p.at = i + 1
			return found, nil
		}
	}
	return "", fmt.Errorf("%q is missing", end)
}

func (p *php) expect(text string) error {
	if len(p.text)-p.at < len(text) || p.text[p.at:p.at+len(text)] != text {
		return fmt.Errorf("%q is missing", text)
	}
	p.at += len(text)
	return nil
}

func (p *php) length() (int, error) {
	digits, err := p.until(':')
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is not a length", digits)
	}
	return int(n), nil
}

func (p *php) str() (string, error) {
	n, err := p.length()
	if err != nil {
		return "", err
	}
	if err := p.expect(`"`); err != nil {
		return "", err
	}
	if n > len(p.text)-p.at {
		return "", errors.New("a string ends too early")
	}
	value := p.text[p.at : p.at+n]
	p.at += n
	return value, p.expect(`";`)
}

func (p *php) array(depth int) ([]entry, error) {
	n, err := p.length()
	if err != nil {
		return nil, err
	}
	if p.entries += n; depth >= maxDepth || n > maxEntries || p.entries > maxEntries {
		return nil, errors.New("an array is larger than any that the article makes")
	}
	if err := p.expect("{"); err != nil {
		return nil, err
	}
	entries := []entry{}
	for range n {
		key, err := p.value(maxDepth) // no arrays
		if err != nil {
			return nil, err
		}
		var name string
		switch key := key.(type) {
		case int64:
			name = strconv.FormatInt(key, 10)
		case string:
			name = key
		default:
			return nil, errors.New("a key is neither a number nor a string")
		}
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name, value})
	}
	return entries, p.expect("}")
}
