// Package lookup makes files as package fs has them of the nodes of a file system that is
// read, and not mounted: it follows names and links, and lists folders.
package lookup

import (
	"errors"
	"io/fs"
	"strings"
)

// ErrNoFolder is why there is nothing below a file.
var ErrNoFolder = errors.New("not a directory")

// maxLinks are followed on the way to one file, as by Linux.
const maxLinks = 40

// walk goes from the root to a file. In returns what has a name in a folder; link
// the text of a symbolic link, and false for what is none. Links that start with a
// slash, or climb over the root, stay in the file system: an image says where they
// lead, and may mean harm. The last link is followed if follow says so.
func walk[N any](root N, name string, follow bool, in func(folder N, name string) (N, error), link func(N) (text string, is bool, err error)) (N, error) {
	if !valid(name) {
		return root, fs.ErrInvalid
	}
	way, rest := []N{root}, strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			way = way[:max(1, len(way)-1)]
			continue
		}
		next, err := in(way[len(way)-1], part)
		if err != nil {
			return root, err
		}
		if len(rest) == 0 && !follow {
			return next, nil
		}
		text, is, err := link(next)
		if err != nil {
			return root, err
		}
		if !is {
			way = append(way, next)
			continue
		}
		if links++; links > maxLinks {
			return root, errors.New("too many symbolic links")
		}
		if strings.HasPrefix(text, "/") {
			way = way[:1]
		}
		rest = append(strings.Split(text, "/"), rest...)
	}
	return way[len(way)-1], nil
}

// valid is [fs.ValidPath] but for the encoding: names in a file system are bytes, and
// were Latin-1 on many a server before they were UTF-8.
func valid(name string) bool { return fs.ValidPath(strings.ToValidUTF8(name, "x")) }
