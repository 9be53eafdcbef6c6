package console

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
)

// How many pages of strangers, and of those who signed in, are told of news as it
// happens; others ask every now and then. The former must not use up what the latter
// need.
const (
	maxStrangers = 200
	maxReaders   = 1500
)

const (
	// calm is the least time between two pieces of news to one page.
	calm = time.Second
	// slow is how often a page is made anew though nothing happened: round trips and
	// times of asking move without any event.
	slow = 15 * time.Second
	// share is the most of a core that making pages anew without an event takes.
	share = 0.05
)

// hub makes each page that is open once for all who have it open and may see the
// same, and hands them the parts that differ from what they have.
type hub struct {
	c    *Console
	mux  *http.ServeMux // pages that can be followed
	wake chan struct{}  // there is something to make
	// Open streams of strangers and of others.
	strangers, readers atomic.Int64

	mu    sync.Mutex
	pages map[pageKey]*openPage
	stop  context.CancelFunc // of what runs while any page is open
}

// pageKey is a page as one group of callers sees it.
type pageKey struct {
	view access.Caller
	uri  string
}

// openPage is a page that somebody has open. All but the key is guarded by the
// hub's lock.
type openPage struct {
	key     pageKey
	pattern string
	path    string
	readers map[chan message]bool
	dirty   bool
	made    time.Time
	took    time.Duration
	now     *content // what it is, nil before it was made
}

// content is what a page holds.
type content struct {
	parts []part
	title string
}

// message is a piece of news for a page, plain and as a piece of a gzip stream.
type message struct {
	plain  string
	packed []byte
}

func newMessage(text string) message { return message{text, piece(text)} }

// backlog is how many messages a reader may be behind before it begins anew.
const backlog = 4

func newHub(c *Console) *hub {
	h := &hub{c: c, mux: http.NewServeMux(), wake: make(chan struct{}, 1), pages: map[pageKey]*openPage{}}
	for pattern, handler := range c.routes {
		if _, follows := concerns[pattern]; follows {
			h.mux.Handle(pattern, handler)
		}
	}
	return h
}

// viewOf is what decides about what a caller sees. Who it is does not: parts of pages
// are shared by all of one view.
func viewOf(c access.Caller) access.Caller {
	return access.Caller{Staff: c.Staff, Account: c.Account, ReadOnly: c.ReadOnly}
}

// join has a reader told of a page; nil where there is none that can be followed.
func (h *hub) join(caller access.Caller, at string) (*openPage, chan message) {
	u, err := url.ParseRequestURI(at)
	if err != nil || u.Host != "" || !strings.HasPrefix(at, "/") || len(at) > 2000 {
		return nil, nil
	}
	_, pattern := h.mux.Handler(&http.Request{Method: http.MethodGet, URL: u})
	rule, known := access.For(pattern)
	view := viewOf(caller)
	if !known || rule.Check(view, h.c.o.Private) != access.Allowed {
		return nil, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	key := pageKey{view, u.RequestURI()}
	p := h.pages[key]
	if p == nil {
		p = &openPage{key: key, pattern: pattern, path: u.Path, readers: map[chan message]bool{}, dirty: true}
		h.pages[key] = p
		h.nudge()
	}
	reader := make(chan message, backlog)
	p.readers[reader] = true
	if p.now != nil {
		reader <- p.now.whole(h.c.o.Now())
	}
	if h.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		h.stop = stop
		go h.listen(ctx)
		go h.work(ctx)
	}
	return p, reader
}

// leave is join's end.
func (h *hub) leave(p *openPage, reader chan message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(p.readers, reader)
	if len(p.readers) == 0 && h.pages[p.key] == p {
		delete(h.pages, p.key)
	}
	if len(h.pages) == 0 && h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

func (h *hub) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// listen notes which pages what happens concerns.
func (h *hub) listen(ctx context.Context) {
	for ctx.Err() == nil {
		h.hear(ctx)
		h.mark(func(*openPage) bool { return true }) // what was missed may concern any
	}
}

// hear returns when it was cut off for being too slow, or ctx has ended.
func (h *hub) hear(ctx context.Context) {
	events, endEvents := h.c.o.Recorder.Subscribe()
	defer endEvents()
	jobs, endJobs := (<-chan upkeep.Job)(nil), func() {}
	if h.c.o.Hosting != nil {
		jobs, endJobs = h.c.o.Hosting.Jobs.Watch()
	}
	defer func() { endJobs() }()
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if !open {
				pause(ctx, calm) // upkeep itself may be stopping
				return
			}
			h.mark(func(p *openPage) bool { return concerns[p.pattern](p.path, e.Object) })
		case job, open := <-jobs:
			if !open {
				pause(ctx, calm)
				return
			}
			about := "job/" + strconv.FormatInt(job.ID, 10)
			h.mark(func(p *openPage) bool {
				owns := p.key.view.Owns(job.Account)
				return owns && (concerns[p.pattern](p.path, job.Object) || concerns[p.pattern](p.path, about))
			})
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (h *hub) mark(concerned func(*openPage) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.pages {
		if !p.dirty && concerned(p) {
			p.dirty = true
			h.nudge()
		}
	}
}

// work makes pages, one at a time.
func (h *hub) work(ctx context.Context) {
	for ctx.Err() == nil {
		p, wait := h.next(time.Now())
		if p != nil {
			h.make(ctx, p)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-h.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next is the page to be made now, or how long to wait until there may be one.
func (h *hub) next(now time.Time) (next *openPage, wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	total := time.Duration(0)
	for _, p := range h.pages {
		total += p.took
	}
	rest := max(slow, time.Duration(float64(total)/share))
	wait = slow
	for _, p := range h.pages {
		due := p.made.Add(rest)
		if p.dirty {
			due = p.made.Add(calm)
		}
		left := due.Sub(now)
		if left <= 0 && (next == nil || p.made.Before(next.made)) {
			next = p
		}
		wait = min(wait, max(left, 0))
	}
	return next, wait
}

// make makes a page and tells its readers what of it differs.
func (h *hub) make(ctx context.Context, p *openPage) {
	h.mu.Lock()
	p.dirty = false // what happens from now on is not in it
	h.mu.Unlock()
	began := time.Now()
	made := h.render(ctx, p)
	h.mu.Lock()
	defer h.mu.Unlock()
	p.made = time.Now()
	p.took = p.made.Sub(began)
	if made == nil || len(p.readers) == 0 {
		return
	}
	was := p.now
	p.now = made
	if was != nil && made.same(was) {
		return
	}
	news := made.whole(h.c.o.Now())
	if was != nil {
		news = made.since(was, h.c.o.Now())
	}
	for reader := range p.readers {
		select {
		case reader <- news:
		default: // it begins anew with the whole
			delete(p.readers, reader)
			close(reader)
		}
	}
}

// render makes a page as its readers would get it; nil where it cannot be made just
// now.
func (h *hub) render(ctx context.Context, p *openPage) *content {
	ctx, cancel := context.WithTimeout(access.With(ctx, p.key.view), slow)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.key.uri, nil)
	if err != nil {
		return nil
	}
	w := &answer{header: http.Header{}, status: http.StatusOK}
	h.mux.ServeHTTP(w, r)
	if w.status >= http.StatusInternalServerError {
		return nil
	}
	if w.status != http.StatusOK { // it is gone, or leads elsewhere
		return &content{}
	}
	parts, title := partsOf(w.body.Bytes())
	return &content{parts, title}
}

// answer takes a page in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header                { return a.header }
func (a *answer) WriteHeader(status int)             { a.status = status }
func (a *answer) Write(text []byte) (n int, _ error) { return a.body.Write(text) }

func (c *content) same(o *content) bool {
	return c.title == o.title && slices.EqualFunc(c.parts, o.parts, func(a, b part) bool { return a.id == b.id && a.sum == b.sum })
}

// told is a message as scripts read it.
type told struct {
	At    string            `json:"at"`
	Title string            `json:"title"`
	IDs   []string          `json:"ids"`   // of all parts, in their order
	Parts map[string]string `json:"parts"` // those that differ
}

func (c *content) whole(now time.Time) message { return c.since(&content{}, now) }

// since is what a page that holds the one before has to be told.
func (c *content) since(before *content, now time.Time) message {
	had := map[string]part{}
	for _, p := range before.parts {
		had[p.id] = p
	}
	t := told{At: now.UTC().Format(time.RFC3339Nano), Title: c.title, IDs: []string{}, Parts: map[string]string{}}
	for _, p := range c.parts {
		t.IDs = append(t.IDs, p.id)
		if old, is := had[p.id]; !is || old.sum != p.sum {
			t.Parts[p.id] = p.text
		}
	}
	text, err := json.Marshal(t)
	if err != nil {
		return newMessage(": " + err.Error() + "\n\n") // strings are always written
	}
	return newMessage("event: page\ndata: " + string(text) + "\n\n")
}

// live tells a page what of it has changed, as server-sent events.
func (c *Console) live(w http.ResponseWriter, r *http.Request) {
	caller := access.From(r.Context())
	open, most := &c.hub.strangers, int64(maxStrangers)
	if caller.Known() {
		open, most = &c.hub.readers, maxReaders
	}
	defer open.Add(-1)
	if open.Add(1) > most {
		http.Error(w, "too many pages are open; this one has to ask", http.StatusServiceUnavailable)
		return
	}
	at := r.URL.Query().Get("at")
	page, news := c.hub.join(caller, at)
	if page == nil && !caller.Known() {
		http.Error(w, "sign in to follow this page", http.StatusForbidden)
		return
	}
	if page == nil {
		http.Error(w, "there is no such page to follow", http.StatusNotFound)
		return
	}
	defer func() { c.hub.leave(page, news) }()
	s := newLiveStream(w, r)
	if s.send(hello) != nil {
		return
	}
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		said := alive
		select {
		case <-r.Context().Done():
			if api.Forgotten(r.Context()) {
				_ = s.send(bye) // what it shows is not for this browser any more
			}
			return
		case <-tick.C:
		case m, open := <-news:
			if said = m; !open { // was too slow
				if page, news = c.hub.join(caller, at); page == nil {
					return
				}
				continue
			}
		}
		if s.send(said) != nil {
			return
		}
	}
}

var (
	hello = newMessage("event: hello\ndata: hello\n\n")
	alive = newMessage(": alive\n\n")
	bye   = newMessage("event: bye\ndata: bye\n\n")
)

// liveStream is a stream of messages, packed where its reader can read that.
type liveStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	packed  bool
}

func newLiveStream(w http.ResponseWriter, r *http.Request) *liveStream {
	api.NewStream(w)
	s := &liveStream{w, http.NewResponseController(w), takesGzip(r)}
	w.Header().Set("Vary", "Accept-Encoding")
	if s.packed {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write([]byte(gzipHeader))
	}
	return s
}

// patience is how long a reader may take nothing before it is gone.
const patience = time.Minute

func (s *liveStream) send(m message) error {
	s.control.SetWriteDeadline(time.Now().Add(patience))
	text := m.packed
	if !s.packed {
		text = []byte(m.plain)
	}
	if _, err := s.w.Write(text); err != nil {
		return err
	}
	return s.control.Flush()
}

// concerns has the pages that can be followed, by pattern. Each says whether what
// happened to an object may change the page at a path. Too often costs a moment; too
// rarely leaves the page behind until it is made anew all the same.
var concerns = map[string]func(path, object string) bool{
	"GET /{$}": func(_, object string) bool { return !among(object, upkeep.KindSite, "job") },
	"GET /pools/{name}": func(path, object string) bool {
		return among(object, upkeep.KindZone, "") || below(object, upkeep.KindPool, path)
	},
	"GET /events":              func(_, object string) bool { return !among(object, "job") },
	"GET /zones/{name}":        func(_, object string) bool { return among(object, upkeep.KindZone, "") },
	"GET /audit":               func(_, object string) bool { return !among(object, "job") },
	"GET /zones":               func(_, object string) bool { return among(object, upkeep.KindZone, "") },
	"GET /servers":             aboutServers,
	"GET /servers/{name}":      aboutServers,
	"GET /images":              aboutServers,
	"GET /images/{name}/image": aboutServers,
	"GET /sites":               func(_, object string) bool { return among(object, upkeep.KindSite, upkeep.KindAccount, "") },
	"GET /sites/{name}": func(path, object string) bool {
		return among(object, upkeep.KindAccount, "") || below(object, upkeep.KindSite, path)
	},
	"GET /jobs":      func(_, object string) bool { return among(object, "job") },
	"GET /jobs/{id}": func(path, object string) bool { return below(object, "job", path) },
}

// aboutServers is for pages of what is on servers.
func aboutServers(_, object string) bool {
	return !among(object, upkeep.KindPool, upkeep.KindZone, "job")
}

// among reports whether an object is of one of some kinds; "" is upkeep itself.
func among(object string, kinds ...string) bool {
	kind, _, named := strings.Cut(object, "/")
	if !named {
		kind = ""
	}
	return slices.Contains(kinds, kind)
}

// below reports whether an object is the one of a page, such as pool/web of
// /pools/web, or a part of it.
func below(object, kind, path string) bool {
	rest, is := strings.CutPrefix(object, kind+"/"+path[strings.LastIndexByte(path, '/')+1:])
	return is && (rest == "" || rest[0] == '/')
}
