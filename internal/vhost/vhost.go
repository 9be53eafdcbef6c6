// Package vhost makes web server configuration from sites: a pure function of
// the declared row and of the paths that a server's policy gives, and nothing
// else. No field of a site is ever taken for a directive, a path of its own or
// a comment: values go through writers that quote by construction and refuse
// what cannot be quoted.
//
// Apache is the first implementation of [Renderer], nginx the second.
package vhost

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"upkeep"
)

// Input is all that the files of a site follow from.
type Input struct {
	Site       upkeep.Site
	Generation int64
	// UID is the number of the account's user, and of its group.
	UID int
	// Suspended is true when the site or its account is.
	Suspended bool
	Layout    Layout
}

// Layout says where things are on a server and how it is reached. It comes from
// the agent's policy. Every folder is absolute, and only root writes to any of
// them but Home's grandchildren.
type Layout struct {
	// Include is the folder whose *.conf files the web server reads.
	Include string
	// Pages holds texts of error pages, Auth files of passwords, FPM pools of
	// php-fpm (empty where there is none), Sockets what those listen on, and
	// Logs a folder for each site.
	Pages, Auth, FPM, Sockets, Logs string
	// Home holds HOME/ACCOUNT/SITE.
	Home string
	// Listen is the address and port of virtual hosts, such as "*:80", as the
	// server's own configuration has it.
	Listen string
	// Public is how the outside reaches the sites, "http://" or "https://" and a
	// port where it is not the scheme's own: redirects are made with it. Without
	// Scheme it is http on the port of Listen.
	Scheme string
	Port   int
	// Group is the group that the web server runs as; with it go the files that
	// it alone may read. -1 leaves the group of files alone.
	Group int
	// Pipe is the command that splits logs by site (see package weblog), program
	// first. With Piped it is used; without, each site has log files of its own.
	Pipe  []string
	Piped bool
	// OneUser is set where the web server, its sites and their programs all belong
	// to one user: there are no neighbours that programs of a site could hurt.
	OneUser bool
}

// Folders of files, as the first part of a [File]'s path.
const (
	FolderSites = "sites"
	FolderPages = "pages"
	FolderAuth  = "auth"
	FolderFPM   = "fpm"
)

// File is one generated file.
type File struct {
	// Path is FOLDER/NAME or FOLDER/SITE/NAME, with one of the folders above.
	Path string
	Text []byte
	Mode fs.FileMode
	// Group is true for a file that belongs to the web server's group.
	Group bool
}

// Place is where a file of this layout is on the server.
func (l Layout) Place(file string) string {
	folder, name, _ := strings.Cut(file, "/")
	return filepath.Join(l.Folder(folder), filepath.FromSlash(name))
}

// Folder is where one of the folders of files is; empty when there is none.
func (l Layout) Folder(folder string) string {
	switch folder {
	case FolderSites:
		return l.Include
	case FolderPages:
		return l.Pages
	case FolderAuth:
		return l.Auth
	case FolderFPM:
		return l.FPM
	}
	return ""
}

// Renderer makes the files of one kind of web server.
type Renderer interface {
	// Site makes the files of a site; an error is a [*ValueError] where a field
	// is to blame.
	Site(Input) ([]File, error)
	// Default makes the files that are there once on a server: what answers
	// unknown names, and what all sites have in common.
	Default(Layout) ([]File, error)
	// Field says which field of a site a line of one of its files came from;
	// "" when none in particular.
	Field(text []byte, line int) string
	// Probes are what proves that a server answers for the site with exactly
	// these files.
	Probes([]File) []Probe
}

// Probe is a request that only one version of a site's files answers with
// status 204.
type Probe struct{ Host, Path string }

// ValueError says that a value of a site cannot be written. The message names
// the rule, for the person whose site it is.
type ValueError struct {
	Field, Value, Rule string
}

func (e *ValueError) Error() string { return fmt.Sprintf("%s: %q %s", e.Field, e.Value, e.Rule) }

// FieldError is the error as the rest of upkeep shows it.
func (e *ValueError) FieldError() upkeep.FieldError {
	return upkeep.FieldError{Field: e.Field, Value: e.Value, Rule: e.Rule}
}

// refuse makes a ValueError with the value cut to what a person can read.
func refuse(field, value, rule string) error {
	if len(value) > 80 {
		value = strings.ToValidUTF8(value[:77], "") + "..."
	}
	return &ValueError{field, value, rule}
}

// SiteFolder is HOME/ACCOUNT/SITE.
func (in Input) SiteFolder() string {
	return filepath.Join(in.Layout.Home, in.Site.Account, in.folderName())
}

// folderName is the name of the site whose folder this one is in: its own, or
// that of the site it is part of.
func (in Input) folderName() string {
	if in.Site.SubOf != "" {
		return in.Site.SubOf
	}
	return in.Site.Name
}

// DocumentRoot is where the pages are.
func (in Input) DocumentRoot() string {
	return filepath.Join(in.SiteFolder(), "htdocs", filepath.FromSlash(in.root()))
}

// root is the folder of the pages below htdocs.
func (in Input) root() string {
	if in.Site.Root == "" && in.Site.SubOf != "" {
		return strings.TrimSuffix(in.Site.Name, "."+in.Site.SubOf)
	}
	return in.Site.Root
}

// LogFolder is where a site's logs are.
func (l Layout) LogFolder(site string) string { return filepath.Join(l.Logs, site) }

// Socket is what the php-fpm pool of a site listens on.
func (l Layout) Socket(site string) string { return filepath.Join(l.Sockets, socketName(site)) }

// public is the URL of a name as visitors see it, without a path.
func (l Layout) public(name string) string {
	scheme, port := l.Scheme, l.Port
	if scheme == "" {
		scheme = "http"
		if port == 0 {
			port = l.listenPort()
		}
	}
	if port == 0 || scheme == "http" && port == 80 || scheme == "https" && port == 443 {
		return scheme + "://" + name
	}
	return scheme + "://" + name + ":" + strconv.Itoa(port)
}

func (l Layout) listenPort() int {
	port, _ := strconv.Atoi(l.Listen[strings.LastIndexByte(l.Listen, ':')+1:]) // 0 is "unknown"
	return port
}

// names are what the rendering of a site works with: each set is disjoint.
type names struct {
	// serve are the exact names that are answered, redirect those that are sent
	// on to the canonical one.
	serve, redirect []string
	canonical       string
	wildcard        string
}

func namesOf(s upkeep.Site) (names, error) {
	n := names{canonical: s.Name}
	www := "www." + s.Name
	switch s.Canonical {
	case "":
	case "bare":
		n.redirect = []string{www}
	case "www":
		n.canonical, n.redirect = www, []string{s.Name}
	default:
		return n, refuse("canonical", s.Canonical, "must be bare or www")
	}
	for _, name := range s.Names() {
		switch bare, wild := strings.CutPrefix(name, "*."); {
		case !upkeep.ValidHost(bare):
			return n, refuse(nameField(s, name), name, "must be a host name such as example.test")
		case wild:
			n.wildcard = name
		case n.redirect == nil || name != n.redirect[0]:
			n.serve = append(n.serve, name)
		}
	}
	if s.Canonical != "" && !s.HasWWW() {
		return n, refuse("canonical", s.Canonical, "needs the name "+www)
	}
	return n, nil
}

func nameField(s upkeep.Site, name string) string {
	if name == s.Name {
		return "name"
	}
	return "aliases"
}

// check refuses what would make a path of ours lead elsewhere. The agent has
// validated all this before; a renderer that trusts nobody needs no caller that
// is always right.
func (in Input) check() error {
	s := in.Site
	switch {
	case !upkeep.ValidHost(s.Name):
		return refuse("name", s.Name, "must be a host name such as example.test")
	case !upkeep.ValidAccount(s.Account):
		return refuse("account", s.Account, "must be the name of an account")
	case s.SubOf != "" && (!upkeep.ValidHost(s.SubOf) || !strings.HasSuffix(s.Name, "."+s.SubOf) && s.Root == ""):
		return refuse("subof", s.SubOf, "must be the name of another site")
	case in.root() != "" && !plainPath(in.root()):
		return refuse("root", s.Root, "must be a relative path of plain names, without . and ..")
	case in.Generation < 1:
		return fmt.Errorf("site %s: generation %d is not one", s.Name, in.Generation)
	}
	return nil
}

// plainPath reports whether p is a clean relative path of plain names.
func plainPath(p string) bool {
	if path.Clean(p) != p || len(p) > 1024 {
		return false
	}
	for name := range strings.SplitSeq(p, "/") {
		if !plainName(name) {
			return false
		}
	}
	return true
}

// plainName reports whether a name of a file is one that no web server reads
// anything into: letters, digits, _ . @ + and -, the first a letter, digit or _.
func plainName(name string) bool {
	if name == "" || len(name) > 255 || strings.IndexByte(".@+-", name[0]) >= 0 {
		return false
	}
	return only(name, "_.@+-")
}

// only reports whether s has ASCII letters, digits and the further characters.
func only(s, further string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte(further, c) < 0 {
			return false
		}
	}
	return true
}
