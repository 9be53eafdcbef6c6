package webserver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// goodTexts are the texts of files that sites were seen to answer with, in one
// file to which each is appended. A link to the file in place would cost as much
// as that file did, and an editor that writes into it would change both.
//
// It is not brought to disk each time: what a crash of the machine takes from its
// end is missing when somebody breaks that very file next.
type goodTexts struct {
	file string
	// size is of the file, and kept what it was after it was last made anew.
	size, kept int64
}

// slackTexts is by how much the file may outgrow twice what it has to hold.
const slackTexts = 8 << 20

// openGoodTexts makes the file anew with the latest text of each wanted path, and
// without what a kill left half written at its end.
func openGoodTexts(state string, wanted map[string]bool) (*goodTexts, error) {
	g := &goodTexts{file: filepath.Join(state, "good")}
	if err := g.compact(wanted); err != nil {
		return nil, fmt.Errorf("opening the last good versions of sites' files: %w", err)
	}
	return g, nil
}

func (g *goodTexts) compact(wanted map[string]bool) error {
	latest := map[string][]byte{}
	if err := g.each(func(path string, text []byte) {
		if wanted[path] {
			latest[path] = text
		}
	}); err != nil {
		return err
	}
	var all []byte
	for path, text := range latest {
		all = appendGood(all, path, text)
	}
	temp, err := stage(g.file, all, 0o600, -1)
	if err == nil {
		err = os.Rename(temp, g.file)
	}
	if err != nil {
		return err
	}
	g.size, g.kept = int64(len(all)), int64(len(all))
	return syncDir(filepath.Dir(g.file))
}

// appendGood appends a record: a line with the path, the text's sum and its
// length, and the text.
func appendGood(to []byte, path string, text []byte) []byte {
	to = fmt.Appendf(to, "%s %s %d\n", path, sumOf(text), len(text))
	return append(append(to, text...), '\n')
}

// add keeps texts, as [appendGood] made them. Now and then the wanted ones of
// before are looked through.
func (g *goodTexts) add(records []byte, wanted func() map[string]bool) error {
	if len(records) == 0 {
		return nil
	}
	if g.size > 2*g.kept+slackTexts {
		if err := g.compact(wanted()); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(g.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(records); err != nil {
		// What is cut off, as by a full disk, would hide all that comes after it.
		return errors.Join(err, f.Truncate(g.size), f.Close())
	}
	g.size += int64(len(records))
	return f.Close()
}

// latest is the last text that was kept of a path, or nil.
func (g *goodTexts) latest(path string) (text []byte, err error) {
	err = g.each(func(p string, t []byte) {
		if p == path {
			text = t
		}
	})
	return text, err
}

// maxGood is the longest text that is believed to be one, in bytes.
const maxGood = 16 << 20

// each passes on every whole record, the oldest first, up to the first that is
// not whole.
func (g *goodTexts) each(take func(path string, text []byte)) error {
	f, err := os.Open(g.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	in := bufio.NewReader(f)
	for {
		path, text, err := readGood(in)
		if errors.Is(err, errNotWhole) {
			return nil
		}
		if err != nil {
			return err
		}
		take(path, text)
	}
}

var errNotWhole = errors.New("the record is not whole")

func readGood(in *bufio.Reader) (path string, text []byte, err error) {
	line, err := in.ReadString('\n')
	if errors.Is(err, io.EOF) {
		return "", nil, errNotWhole
	}
	if err != nil {
		return "", nil, err
	}
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return "", nil, errNotWhole
	}
	n, err := strconv.Atoi(fields[2])
	if err != nil || n < 0 || n > maxGood {
		return "", nil, errNotWhole
	}
	text = make([]byte, n+1)
	if _, err := io.ReadFull(in, text); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errNotWhole
		}
		return "", nil, err
	}
	text, whole := bytes.CutSuffix(text, []byte("\n"))
	if !whole || sumOf(text) != fields[1] {
		return "", nil, errNotWhole
	}
	return fields[0], text, nil
}
