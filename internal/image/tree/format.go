package tree

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A manifest as text has one entry a line, in words with a space between:
//
//	path type mode uid:gid seconds [key=value]...
//
// with the keys in the order of the function fields. There is one way only to
// write a manifest, and the reader takes no other: equal trees have equal bytes.
const firstWord = "upkeep-tree-1"

// Write writes the manifest as text.
func (m *Manifest) Write(w io.Writer) error {
	b := bufio.NewWriterSize(w, 1<<16)
	fmt.Fprintf(b, "%s block=%d\n", firstWord, m.Block)
	for i := range m.Entries {
		b.WriteString(m.Entries[i].line())
		b.WriteByte('\n')
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("writing a manifest: %w", err)
	}
	return nil
}

func (e *Entry) line() string {
	words := []string{
		Escape(e.Path), string(e.Type), fmt.Sprintf("%04o", e.Mode), fmt.Sprintf("%d:%d", e.UID, e.GID),
		seconds(unix.StatxTimestamp{Sec: e.Sec, Nsec: e.Nsec}),
	}
	for _, f := range e.fields() {
		if f[1] != "" {
			words = append(words, f[0]+"="+f[1])
		}
	}
	return strings.Join(words, " ")
}

// fields are the keys and values of an entry, "" where there is nothing to say.
func (e *Entry) fields() [][2]string {
	f := [][2]string{
		{"size", decimal(e.Size)}, {"device", ""}, {"target", Escape(e.Target)}, {"flags", letters(e.Flags)}, {"project", decimal(int64(e.Project))},
		{"link", Escape(e.Link)}, {"holes", rangesText(e.Holes)}, {"prealloc", rangesText(e.Prealloc)}, {"sum", e.Sum},
	}
	if e.Type == 'c' || e.Type == 'b' {
		f[1][1] = fmt.Sprintf("%d:%d", unix.Major(e.Device), unix.Minor(e.Device))
	}
	for _, x := range e.Xattrs {
		// A name may hold an equals sign, which base64 does not spare either.
		f = append(f, [2]string{"xattr", Escape(x[0]) + "=" + base64.StdEncoding.EncodeToString([]byte(x[1]))})
	}
	return f
}

func decimal(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func rangesText(ranges []Range) string {
	var words []string
	for _, r := range ranges {
		words = append(words, fmt.Sprintf("%d-%d", r.From, r.To))
	}
	return strings.Join(words, ",")
}

// maxLine bounds a line of a manifest: a path, a link to another and attributes.
const maxLine = 16 << 20

// ReadManifest reads what Write wrote. What it takes, Write writes byte for byte.
func ReadManifest(r io.Reader) (*Manifest, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	lines.Split(wholeLines)
	m := &Manifest{}
	for n := 1; lines.Scan(); n++ {
		var err error
		if n == 1 {
			err = m.readHeader(lines.Text())
		} else {
			err = m.readLine(lines.Text())
		}
		if err != nil {
			return nil, fmt.Errorf("manifest, line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", err)
	}
	if m.Block == 0 {
		return nil, errors.New("manifest: it is empty")
	}
	return m, nil
}

// wholeLines splits at line feeds and wants one at the end: without it a manifest
// was cut off.
func wholeLines(data []byte, atEOF bool) (int, []byte, error) {
	for i, c := range data {
		if c == '\n' {
			return i + 1, data[:i], nil
		}
	}
	if atEOF && len(data) > 0 {
		return 0, nil, errors.New("its last line was cut off")
	}
	return 0, nil, nil
}

func (m *Manifest) readHeader(line string) error {
	text, is := strings.CutPrefix(line, firstWord+" block=")
	block, err := strconv.ParseInt(text, 10, 64)
	if !is || err != nil || block <= 0 || decimal(block) != text {
		return fmt.Errorf("a manifest begins with %q and the size of blocks, not %.40q", firstWord, line)
	}
	m.Block = block
	return nil
}

func (m *Manifest) readLine(line string) error {
	words := strings.Split(line, " ")
	if len(words) < 5 || len(words[1]) != 1 || !strings.Contains("fdlpscb", words[1]) {
		return errors.New("want a path, one of f d l p s c b, a mode, an owner and a time")
	}
	e := Entry{Type: words[1][0]}
	var err error
	if e.Path, err = unescape(words[0]); err != nil {
		return err
	}
	mode, err := strconv.ParseUint(words[2], 8, 12)
	if err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	e.Mode = uint16(mode)
	uid, gid, _ := strings.Cut(words[3], ":")
	sec, nsec, _ := strings.Cut(words[4], ".")
	if err := errors.Join(parse32(uid, &e.UID), parse32(gid, &e.GID), parse64(sec, &e.Sec), parse32(nsec, &e.Nsec)); err != nil {
		return err
	}
	for _, word := range words[5:] {
		key, value, _ := strings.Cut(word, "=")
		if err := e.set(key, value); err != nil {
			return fmt.Errorf("%s: %w", Escape(key), err)
		}
	}
	if e.Path == "" || e.Nsec >= 1e9 || e.line() != line {
		return errors.New("it is not written as upkeep writes it")
	}
	if n := len(m.Entries); n > 0 && m.Entries[n-1].Path >= e.Path {
		return errors.New("paths are not sorted, or one is there twice")
	}
	m.Entries = append(m.Entries, e)
	return nil
}

func (e *Entry) set(key, value string) (err error) {
	switch key {
	case "size":
		err = parse64(value, &e.Size)
	case "device":
		var major, minor uint32
		a, b, _ := strings.Cut(value, ":")
		err = errors.Join(parse32(a, &major), parse32(b, &minor))
		e.Device = unix.Mkdev(major, minor)
	case "target":
		e.Target, err = unescape(value)
	case "flags":
		for _, f := range flagNames {
			if strings.IndexByte(value, f.name) >= 0 {
				e.Flags |= f.bit
			}
		}
	case "project":
		err = parse32(value, &e.Project)
	case "link":
		e.Link, err = unescape(value)
	case "holes":
		e.Holes, err = parseRanges(value)
	case "prealloc":
		e.Prealloc, err = parseRanges(value)
	case "sum":
		if sum, err := hex.DecodeString(strings.TrimPrefix(value, "p")); err != nil || len(sum) != 32 || strings.ToLower(value) != value {
			return errors.New("it is no SHA-256")
		}
		e.Sum = value
	case "xattr":
		return e.setXattr(value)
	default:
		return errors.New("there is no such key")
	}
	return err
}

func (e *Entry) setXattr(text string) error {
	// The name is what comes ahead of the first equals sign behind which there is
	// nothing but base64; written again, it has to come out the same.
	for at := 0; ; {
		next := strings.IndexByte(text[at:], '=')
		if next < 0 {
			return errors.New("want a name and a value in base64")
		}
		at += next + 1
		value, err := base64.StdEncoding.Strict().DecodeString(text[at:])
		if err != nil {
			continue
		}
		name, err := unescape(text[:at-1])
		if err != nil {
			return err
		}
		if n := len(e.Xattrs); name == "" || n > 0 && e.Xattrs[n-1][0] >= name {
			return errors.New("names are not sorted")
		}
		e.Xattrs = append(e.Xattrs, [2]string{name, string(value)})
		return nil
	}
}

func parse32(text string, to *uint32) error {
	n, err := strconv.ParseUint(text, 10, 32)
	*to = uint32(n)
	return err
}

func parse64(text string, to *int64) (err error) {
	*to, err = strconv.ParseInt(text, 10, 64)
	return err
}

func parseRanges(text string) ([]Range, error) {
	var ranges []Range
	for word := range strings.SplitSeq(text, ",") {
		var r Range
		a, b, _ := strings.Cut(word, "-")
		if err := errors.Join(parse64(a, &r.From), parse64(b, &r.To)); err != nil {
			return nil, err
		}
		if n := len(ranges); r.From < 0 || r.To <= r.From || n > 0 && ranges[n-1].To >= r.From {
			return nil, errors.New("ranges are not in order")
		}
		ranges = append(ranges, r)
	}
	return slices.Clip(ranges), nil
}
