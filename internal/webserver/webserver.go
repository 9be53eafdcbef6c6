// Package webserver makes a running web server answer for sites. It writes what
// package vhost renders, has the server test it before any of it is where the
// server reads, reloads once for many changes, and asks each changed site itself
// before it calls it done.
//
// It writes into folders of root's alone: the include folder, pages, password
// files, pools and logs. What lies below customers' homes is package agent's.
package webserver

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"upkeep/internal/lazy"
	"upkeep/internal/vhost"
)

// Server is a web server on this machine that reads the include folder.
type Server interface {
	// Test has the server's program read its whole configuration, with these files
	// in this order in place of those of the include folder. It touches nothing
	// that runs. What the program objects to is a [*TestError].
	Test(ctx context.Context, files []string) error
	// Reload has the running server take its configuration anew, without a test
	// and without dropping a request.
	Reload(ctx context.Context) error
	// Foreign lists the names that are answered by configuration that is not
	// ours, and the files that this configuration is in. The include folder counts
	// as empty but for beside, which are files there that others have put in it.
	Foreign(ctx context.Context, beside []string) (names, files []string, err error)
	// Version is the program's own, such as "Apache/2.4.66".
	Version(ctx context.Context) (string, error)
	// Process is the running server.
	Process() (Process, error)
	// Renderer makes files for this kind of server.
	Renderer() vhost.Renderer
}

// TestError is what a web server's program says about a configuration.
type TestError struct {
	// File is the base name of the file that it names, and Line the line there;
	// "" and 0 where it names none.
	File string
	Line int
	// Message is for people: printable, without folders, and not long.
	Message string
}

func (e *TestError) Error() string {
	if e.File == "" {
		return e.Message
	}
	return fmt.Sprintf("%s line %d: %s", e.File, e.Line, e.Message)
}

var (
	// "AH00526: Syntax error on line 3 of /etc/x.conf:" and the message in the next line.
	syntaxError = lazy.Regexp(`(?m)(?:^|: )Syntax error on line (\d+) of (.+?):$`)
	// "... error log of vhost defined at /etc/x.conf:1"
	definedAt = lazy.Regexp(`defined at (\S+):(\d+)`)
	// "nginx: [emerg] unknown directive "x" in /etc/x.conf:7"
	nginxError = lazy.Regexp(`(?m)\[emerg\] (?:\d+#\d+: )?(.*) in (\S+):(\d+)$`)
	// The same without a file, with the time and its process, or its own name.
	nginxSays = lazy.Regexp(`(?m)\[emerg\] (?:\d+#\d+: )?(.*)$`)
	code      = lazy.Regexp(`AH\d{5}: `)
	folders   = lazy.Regexp(`/(?:[A-Za-z0-9_.@+-]+/)+`)
)

// testError reads the output of a configuration test.
func testError(output string) *TestError {
	e := &TestError{Message: output}
	if m := syntaxError().FindStringSubmatchIndex(output); m != nil {
		e.Line, _ = strconv.Atoi(output[m[2]:m[3]])
		e.File = base(output[m[4]:m[5]])
		e.Message = firstLine(output[m[1]:])
	} else if m := nginxError().FindStringSubmatch(output); m != nil {
		e.Message, e.File = m[1], base(m[2])
		e.Line, _ = strconv.Atoi(m[3])
	} else if m := nginxSays().FindStringSubmatch(output); m != nil {
		e.Message = m[1]
	} else if m := definedAt().FindStringSubmatch(output); m != nil {
		e.File = base(m[1])
		e.Line, _ = strconv.Atoi(m[2])
		e.Message = lineWith(output, m[0])
	}
	e.Message = sanitise(e.Message)
	if strings.Contains(e.Message, "defined by a module not included") {
		e.Message += moduleHint(e.Message)
	}
	return e
}

// moduleHint says which module of Debian's Apache has the directive that a message is
// about.
func moduleHint(message string) string {
	for directive, module := range map[string]string{"'Header'": "headers", "'Rewrite": "rewrite", "'SuexecUserGroup'": "suexec"} {
		if strings.Contains(message, directive) {
			return " (enable it: a2enmod " + module + ")"
		}
	}
	return ""
}

// base is the base name of a file; one that is staged has the name of its place.
func base(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if staged, is := strings.CutSuffix(name, tempMark); is {
		return strings.TrimPrefix(staged, ".")
	}
	return name
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(text, "\n"), "\n")
	return line
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return text
}

// maxMessage is the longest message of a server that is shown, in bytes.
const maxMessage = 400

// sanitise makes the words of a program, which repeat those of customers, fit to
// be shown and kept: printable, without the folders of the server, and short.
func sanitise(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.Contains(line, "AH00558") { // no name of its own: not ours to fix
			continue
		}
		kept = append(kept, line)
	}
	text = strings.Join(kept, "; ")
	text = code().ReplaceAllString(text, "")
	text = folders().ReplaceAllString(text, "")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage-3], "") + "..."
	}
	return text
}
