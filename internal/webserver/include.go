package webserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"upkeep"
)

// Includer is a server whose main configuration can be given the line that
// includes our folder, and be rid of it.
type Includer interface {
	// SetInclude adds the line, or takes it out, and reports whether that changed
	// anything. All else stays as it is. What the server's program does not accept
	// is not done. The running server reads it at its next reload.
	SetInclude(ctx context.Context, on bool) (changed bool, err error)
}

// SetInclude implements [Includer].
func (a Apache) SetInclude(ctx context.Context, on bool) (bool, error) {
	edit := func(text []byte) ([]byte, error) { return withoutApache(text, a.Include, a.Config), nil }
	if on {
		edit = func(text []byte) ([]byte, error) { return withApache(text, a.Include, a.Config), nil }
	}
	return include(a.Config, edit, func(copied string) (string, error) {
		_, output, err := run(ctx, a.env(), a.Program, "-t", "-f", copied)
		return output, err
	})
}

// SetInclude implements [Includer].
func (n Nginx) SetInclude(ctx context.Context, on bool) (bool, error) {
	edit := func(text []byte) ([]byte, error) { return withoutNginx(text, n.Include), nil }
	if on {
		edit = func(text []byte) ([]byte, error) { return withNginx(text, n.Include) }
	}
	return include(n.Config, edit, func(copied string) (string, error) {
		_, output, err := run(ctx, nil, n.Program, "-t", "-q", "-c", copied)
		return output, err
	})
}

// include edits a main configuration: a copy beside it is tested first, since
// paths in it may be relative to its folder.
func include(config string, edit func([]byte) ([]byte, error), test func(copied string) (output string, err error)) (changed bool, err error) {
	text, err := os.ReadFile(config)
	if err != nil {
		return false, fmt.Errorf("reading the web server's configuration: %w", err)
	}
	edited, err := edit(text)
	if err != nil || bytes.Equal(edited, text) {
		return false, err
	}
	copied := filepath.Join(filepath.Dir(config), ".upkeep-include"+tempMark)
	if err := replaceFile(copied, edited, 0o600); err != nil {
		return false, err
	}
	output, err := test(copied)
	if err = errors.Join(err, removeAll(copied)); err != nil {
		if output != "" {
			err = testError(output)
		}
		return false, upkeep.WithHint(fmt.Errorf("the web server's program does not accept %s with the change, which was not made: %w", config, err),
			"fix its configuration first")
	}
	return true, rewrite(config, edited)
}

func withApache(text []byte, folder, config string) []byte {
	if includeLine(folder, config).Match(text) {
		return text
	}
	if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
		text = append(slices.Clip(text), '\n')
	}
	return append(slices.Clip(text), IncludeLine(folder)+"\n"...)
}

func withoutApache(text []byte, folder, config string) []byte {
	found := includeLine(folder, config).FindIndex(text)
	if found == nil {
		return text
	}
	return withoutLine(text, found)
}

// withoutLine cuts a match out and, where nothing else is in its line, the line.
func withoutLine(text []byte, found []int) []byte {
	start, end := found[0], found[1]
	rest, _, _ := bytes.Cut(text[end:], []byte("\n"))
	begins := start == 0 || text[start-1] == '\n'
	if begins && len(bytes.TrimSpace(rest)) == 0 {
		end = min(end+len(rest)+1, len(text))
	}
	return slices.Concat(text[:start], text[end:])
}

// withNginx puts the line at the end of the http block: of two servers for one
// name the first has the visitors, and hand-made ones are to come first.
func withNginx(text []byte, folder string) ([]byte, error) {
	if nginxInclude(folder).Match(text) {
		return text, nil
	}
	end := httpEnd(text)
	if end < 0 {
		return nil, upkeep.WithHint(errors.New("the web server's main configuration has no http block"), "its http block needs this line: include "+folder+"/*.conf;")
	}
	line := "include " + folder + "/*.conf;\n"
	start := bytes.LastIndexByte(text[:end], '\n') + 1
	if strings.TrimSpace(string(text[start:end])) == "" {
		return slices.Concat(text[:start], []byte("\t"+line), text[start:]), nil
	}
	return slices.Concat(text[:end], []byte("\n\t"+line), text[end:]), nil
}

func withoutNginx(text []byte, folder string) []byte {
	found := nginxInclude(folder).FindIndex(text)
	if found == nil {
		return text
	}
	return withoutLine(text, found)
}

// httpEnd is where the brace is that ends the http block, or -1. Blanks, quotes,
// comments and braces are all that there is to the syntax of nginx's files.
func httpEnd(text []byte) int {
	depth, http, statement := 0, false, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '#':
			if end := bytes.IndexByte(text[i:], '\n'); end >= 0 {
				i += end
			} else {
				i = len(text)
			}
			if depth == 0 {
				statement = min(i+1, len(text))
			}
		case '"', '\'':
			i += quoted(text[i:])
		case '{':
			if depth++; depth == 1 {
				http = string(bytes.TrimSpace(text[statement:i])) == "http"
			}
		case '}':
			if depth--; depth == 0 && http {
				return i
			}
			statement = i + 1
		case ';':
			statement = i + 1
		}
	}
	return -1
}

// quoted is how far the end of a quoted text is from its beginning.
func quoted(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case text[0]:
			return i
		}
	}
	return len(text)
}
