// Package console is the status page: what DNS is made to answer, what it
// answers, and why. It changes nothing.
//
// Every page is whole without scripts. With them, a page fetches itself again
// when something happened and swaps the parts that differ.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"upkeep"
	"upkeep/internal/api"
)

//go:embed assets pages
var files embed.FS

// Options are what a console is made of; all fields are required but Now.
type Options struct {
	Observer api.Observer
	Recorder api.Recorder
	Log      *slog.Logger
	Version  string
	Now      func() time.Time
}

// Console answers the status page and what belongs to it.
type Console struct {
	o       Options
	mux     *http.ServeMux
	pages   *template.Template
	host    string
	readers atomic.Int64 // open streams
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
	c := &Console{o: o, mux: http.NewServeMux()}
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
		c.mux.HandleFunc("GET /assets/"+entry.Name(), serveAsset(entry.Name(), content))
	}
	c.pages, err = template.New("").Funcs(template.FuncMap{
		"asset": func(name string) string { return assets[name] },
		"safe":  upkeep.Printable,
	}).ParseFS(files, "pages/*.html")
	if err != nil {
		return nil, err
	}
	c.mux.HandleFunc("GET /{$}", c.overview)
	c.mux.HandleFunc("GET /pools/{name}", c.pool)
	c.mux.HandleFunc("GET /events", c.events)
	c.mux.HandleFunc("GET /live", c.live)
	c.mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		c.fault(w, http.StatusNotFound, "There is no such page.")
	})
	return c, nil
}

func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", policy)
	c.mux.ServeHTTP(w, r)
}

func serveAsset(name string, content []byte) http.HandlerFunc {
	kind := map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind[name[strings.LastIndexByte(name, '.')+1:]])
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable") // the URL changes with the content
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	}
}

// frame is what every page has around its content.
type frame struct {
	Title   string
	Host    string
	Version string
	At      moment
	Content any
}

// render answers with a page. It is made whole first, so that a fault in it
// cannot end as half a page.
func (c *Console) render(w http.ResponseWriter, status int, page, title string, content any) {
	var body bytes.Buffer
	err := c.pages.ExecuteTemplate(&body, page, frame{Title: title, Host: c.host, Version: c.o.Version, At: at(c.o.Now(), c.o.Now()), Content: content})
	if err != nil {
		c.o.Log.Error("making a page", "page", page, "err", err)
		http.Error(w, "upkeep is at fault; its log has the details", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

func (c *Console) fault(w http.ResponseWriter, status int, text string) {
	c.render(w, status, "fault.html", http.StatusText(status), text)
}

// broken answers for an error that is upkeep's own.
func (c *Console) broken(w http.ResponseWriter, err error) {
	c.o.Log.Error("reading for a page", "err", err)
	c.fault(w, http.StatusInternalServerError, "This cannot be shown just now. The log of upkeep says why.")
}

// number reads a positive number from the query, or returns otherwise.
func number(r *http.Request, name string, otherwise int64) int64 {
	n, err := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	if err != nil || n < 1 {
		return otherwise
	}
	return n
}

// maxStreams bounds the pages that are told of news as it happens; others ask
// every now and then.
const maxStreams = 200

// calm is the least time between two pieces of news to one page.
const calm = 500 * time.Millisecond

// live tells a page that something happened, not what: the page asks then.
func (c *Console) live(w http.ResponseWriter, r *http.Request) {
	if c.readers.Add(1) > maxStreams {
		c.readers.Add(-1)
		http.Error(w, "too many pages are open; this one has to ask", http.StatusServiceUnavailable)
		return
	}
	defer c.readers.Add(-1)
	events, cancel := c.o.Recorder.Subscribe()
	defer func() { cancel() }()
	stream := api.NewStream(w)
	if stream.Send(0, "hello", "hello") != nil {
		return
	}
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	told, pending := time.Time{}, (<-chan time.Time)(nil)
	for {
		var err error
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
			err = stream.Comment("alive")
		case _, open := <-events:
			if !open { // was too slow: what it missed is one more piece of news
				cancel()
				events = nil
			}
			if pending == nil {
				pending = time.After(max(0, calm-time.Since(told)))
			}
		case <-pending:
			told, pending = time.Now(), nil
			if events == nil {
				events, cancel = c.o.Recorder.Subscribe()
			}
			err = stream.Send(0, "news", "news")
		}
		if err != nil {
			return
		}
	}
}

// pathOf is the page of an event's object, or "".
func pathOf(object string) string {
	kind, rest, _ := strings.Cut(object, "/")
	if kind != upkeep.KindPool || rest == "" {
		return ""
	}
	name, member, _ := strings.Cut(rest, "/")
	path := "/pools/" + name
	if _, err := netip.ParseAddr(member); err == nil {
		path += "#" + anchor(member)
	}
	return path
}

// anchor is an address as the id of an element.
func anchor(address string) string {
	return "m-" + strings.NewReplacer(":", "-", ".", "-").Replace(address)
}
