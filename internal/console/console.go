// Package console is the pages: what DNS is made to answer, what it answers, and
// why; and for those who signed in, what they may see and change beside it.
//
// Who may have which page is decided by package access before a handler is called;
// what customers see of sites and jobs is bounded by [api.Bounds].
//
// Every page is whole without scripts. With them, a page fetches itself again
// when something happened and swaps the parts that differ.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
	"upkeep/internal/api/wire"
	"upkeep/internal/names"
)

//go:embed assets pages
var files embed.FS

// Options are what a console is made of; all fields are required but People and
// Now.
type Options struct {
	Observer api.Observer
	Recorder api.Recorder
	// People let people sign in; nil for nobody.
	People People
	// Hosting is what pages about sites, jobs and servers ask; nil leaves them out.
	Hosting *Hosting
	Log     *slog.Logger
	Version string
	// Private is as in [api.Options].
	Private bool
	Now     func() time.Time
}

// Console makes the pages.
type Console struct {
	o        Options
	routes   map[string]http.Handler
	pages    *template.Template
	host     string
	hub      *hub
	verdicts verdicts
	pasts    pasts
}

// policy lets a page load its own style and script and nothing else, from
// nowhere else, and lets no other page frame it.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// New makes a console. It is for [api.Options].Page.
func New(o Options) (*Console, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Console{o: o, routes: map[string]http.Handler{}}
	c.host, _ = os.Hostname()
	assets := map[string]string{} // name to URL with the content's hash
	entries, err := fs.ReadDir(files, "assets")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		content, err := files.ReadFile("assets/" + entry.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		assets[entry.Name()] = "/assets/" + entry.Name() + "?v=" + hex.EncodeToString(sum[:6])
		c.route("GET /assets/"+entry.Name(), serveAsset(entry.Name(), content))
	}
	c.pages, err = template.New("").Funcs(template.FuncMap{
		"asset": func(name string) string { return assets[name] },
		"safe":  upkeep.Printable,
		"lines": printableLines,
		"host":  names.Shown,
	}).ParseFS(files, "pages/*.html")
	if err != nil {
		return nil, err
	}
	c.route("GET /{$}", c.overview)
	c.route("GET /pools/{name}", c.pool)
	c.route("GET /events", c.events)
	c.route("GET /live", c.live)
	c.statusRoutes()
	docs, err := c.apiDocs()
	if err != nil {
		return nil, err
	}
	c.route("GET /docs/api", docs)
	c.route("GET /", func(w http.ResponseWriter, r *http.Request) {
		c.fault(w, r, http.StatusNotFound, "There is no such page.")
	})
	if o.People != nil {
		c.peopleRoutes()
	}
	if o.Hosting != nil {
		c.siteRoutes()
		c.jobRoutes()
		c.staffRoutes()
		c.imageRoutes()
		c.declaredRoutes()
		c.formRoutes()
		c.auditRoutes()
		c.userRoutes()
	}
	c.hub = newHub(c)
	return c, nil
}

// Routes implements [api.Pages].
func (c *Console) Routes() map[string]http.Handler { return c.routes }

func (c *Console) route(pattern string, handler http.HandlerFunc) {
	c.routes[pattern] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		if r.Method == http.MethodPost && !c.readForm(w, r) {
			return
		}
		handler(w, r)
	})
}

// Refused implements [api.Pages]: it leads to the sign-in, or says why not.
func (c *Console) Refused(w http.ResponseWriter, r *http.Request, p *wire.Problem) {
	w.Header().Set("Content-Security-Policy", policy)
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case p.Status != http.StatusUnauthorized && get && r.URL.Path == "/":
		http.Redirect(w, r, "/sites", http.StatusSeeOther) // a customer's first page, where the status is private
	case p.Status != http.StatusUnauthorized:
		c.fault(w, r, p.Status, upperFirst(p.Detail)+".")
	case c.o.People == nil || c.o.People.Setup() != "":
		w.Header().Set("WWW-Authenticate", api.Challenge)
		c.fault(w, r, p.Status, "This page is for who has the token of this upkeep. Once there are users, they sign in here.")
	case get && strings.Contains(r.Header.Get("Accept"), "text/html"):
		http.Redirect(w, r, "/signin?"+url.Values{"next": {r.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
	default:
		c.fault(w, r, p.Status, "Sign in first. Nothing was done.")
	}
}

// printableLines is what upkeep.Printable makes of each line of a text.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = upkeep.Printable(line)
	}
	return strings.Join(lines, "\n")
}

func serveAsset(name string, content []byte) http.HandlerFunc {
	kind := map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
	small := packed(content, gzip.BestCompression)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind[name[strings.LastIndexByte(name, '.')+1:]])
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // the URL changes with the content
		w.Header().Set("Vary", "Accept-Encoding")
		if takesGzip(r) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(small)
			return
		}
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	}
}

// frame is what every page has around its content.
type frame struct {
	Title   string
	Host    string
	Version string
	At      moment
	// Caller is who reads it; SignsIn says that people can sign in at all.
	Caller  access.Caller
	SignsIn bool
	// Hosts says that there are pages about sites and jobs for the caller.
	Hosts bool
	// Still pages are not loaded anew by themselves: somebody is writing.
	Still   bool
	Content any
}

// still is a content in which somebody may be writing.
type still interface{ isForm() bool }

// render answers with a page. It is made whole first, so that a fault in it
// cannot end as half a page.
func (c *Console) render(w http.ResponseWriter, r *http.Request, status int, page, title string, content any) {
	var body bytes.Buffer
	f := frame{Title: title, Host: c.host, Version: c.o.Version, At: at(c.o.Now(), c.o.Now()), Content: content,
		Caller: access.From(r.Context()), SignsIn: c.o.People != nil, Hosts: c.o.Hosting != nil && access.From(r.Context()).Known()}
	// What answers a form is at an address that is not to be asked for again.
	f.Still = r.Method == http.MethodPost
	if s, is := content.(still); is {
		f.Still = s.isForm()
	}
	err := c.pages.ExecuteTemplate(&body, page, f)
	if err != nil {
		c.o.Log.Error("making a page", "page", page, "err", err)
		http.Error(w, "upkeep is at fault; its log has the details", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Vary", "Accept-Encoding")
	text := body.Bytes()
	// An answer to a form may hold a secret beside what was typed, and its length would
	// then tell of both.
	if r.Method == http.MethodGet && takesGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
		text = packed(text, gzip.BestSpeed)
	}
	w.WriteHeader(status)
	w.Write(text)
}

// number reads a positive number from the query, or returns otherwise.
func number(r *http.Request, name string, otherwise int64) int64 {
	n, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	if err != nil || n < 1 {
		return otherwise
	}
	return n
}

// pathOf is the page of what an event, a job or an entry of the audit log is about, or
// "": most are for staff.
func pathOf(object string, staff bool) string {
	kind, name, _ := strings.Cut(object, "/")
	switch {
	case name == "":
		return ""
	case kind == upkeep.KindSite:
		return sitePath(name)
	case kind == upkeep.KindPool:
		return memberPath(name)
	case !staff:
		return ""
	}
	name = url.PathEscape(name)
	switch kind {
	case upkeep.KindZone, upkeep.KindServer, "job":
		return "/" + kind + "s/" + name
	case upkeep.KindReceiver, upkeep.KindDelegation:
		return "/" + kind + "s/" + name + "/edit"
	case upkeep.KindAccount:
		return "/declared/" + kind + "/" + name
	case "user":
		return "/users"
	}
	return ""
}

// memberPath is the page of a pool, at one of its members where the name goes on with
// that.
func memberPath(name string) string {
	pool, member, _ := strings.Cut(name, "/")
	path := "/pools/" + url.PathEscape(pool)
	if _, err := netip.ParseAddr(member); err == nil {
		path += "#" + anchor(member)
	}
	return path
}

// anchor is an address as the id of an element.
func anchor(address string) string {
	return "m-" + strings.NewReplacer(":", "-", ".", "-").Replace(address)
}
