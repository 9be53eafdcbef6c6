package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"upkeep"
	"upkeep/internal/access"
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
	// share is the most of a core that making pages anew without an event takes, and
	// newsShare that of those with one: what is watched for comes before who watches.
	share     = 0.02
	newsShare = 0.25
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
	readers map[chan *message]bool
	dirty   bool
	making  bool
	shown   shown // as it was made last
	made    time.Time
	took    time.Duration
	now     *content // what it is, nil before it was made
	// all is the whole of it for who begins to read, as it was at a time. A thousand
	// begin together when upkeep was started anew.
	all   *message
	allAt time.Time
}

// content is what a page holds. Two that have the same id are the same but for ages.
type content struct {
	parts []part
	title string
	id    string
}

func newContent(parts []part, title string) *content {
	hash := sha256.New()
	fmt.Fprintf(hash, "%q", title)
	for _, p := range parts {
		fmt.Fprintf(hash, "%q", p.id)
		hash.Write(p.sum[:])
	}
	return &content{parts, title, hex.EncodeToString(hash.Sum(nil)[:12])}
}

// message is a piece of news for a page, plain and as a piece of a gzip stream.
type message struct{ plain, packed []byte }

func newMessage(text []byte) *message { return &message{text, piece(text)} }

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

// join has a reader told of a page, from the content on that it has, if it has any; nil
// where there is none that can be followed.
func (h *hub) join(caller access.Caller, at, has string) (*openPage, chan *message) {
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
		p = &openPage{key: key, pattern: pattern, path: u.Path, readers: map[chan *message]bool{}, dirty: true}
		h.pages[key] = p
		h.nudge()
	}
	reader := make(chan *message, backlog)
	p.readers[reader] = true
	if p.now != nil && p.now.id != has {
		reader <- p.whole(h.c.o.Now())
	}
	if h.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		h.stop = stop
		go h.listen(ctx, h.subscribe()) // before anything is made: what happens from now on is heard
		go h.work(ctx)
	}
	return p, reader
}

// leave is join's end.
func (h *hub) leave(p *openPage, reader chan *message) {
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

// feed is what is told of what happens.
type feed struct {
	events <-chan upkeep.Event
	jobs   <-chan *upkeep.Job
	end    func()
}

func (h *hub) subscribe() feed {
	events, endEvents := h.c.o.Recorder.Subscribe()
	if h.c.o.Hosting == nil {
		return feed{events: events, end: endEvents}
	}
	jobs, endJobs := h.c.o.Hosting.Jobs.Watch()
	return feed{events, jobs, func() { endEvents(); endJobs() }}
}

// listen notes which pages what happens concerns.
func (h *hub) listen(ctx context.Context, from feed) {
	for {
		h.hear(ctx, from)
		from.end()
		if ctx.Err() != nil {
			return
		}
		from = h.subscribe()
		h.mark(func(*openPage) bool { return true }) // what was missed may concern any
	}
}

// hear returns when it was cut off for being too slow, or ctx has ended.
func (h *hub) hear(ctx context.Context, from feed) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-from.events:
			if !open {
				pause(ctx, calm) // upkeep itself may be stopping
				return
			}
			h.mark(func(p *openPage) bool { return p.concerned(e) })
		case job, open := <-from.jobs:
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
	total, news := time.Duration(0), time.Duration(0)
	for _, p := range h.pages {
		total += p.took
		if p.dirty {
			news += p.took
		}
	}
	rest, newsRest := max(slow, time.Duration(float64(total)/share)), max(calm, time.Duration(float64(news)/newsShare))
	wait = slow
	for _, p := range h.pages {
		due := p.made.Add(rest)
		if p.dirty {
			due = p.made.Add(newsRest)
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
	p.dirty, p.making = false, true // what happens from now on is not in it
	h.mu.Unlock()
	began := time.Now()
	made, beside := h.render(ctx, p)
	h.mu.Lock()
	defer h.mu.Unlock()
	p.making = false
	p.made = time.Now()
	p.took = p.made.Sub(began)
	if made == nil || len(p.readers) == 0 {
		return
	}
	was := p.now
	p.now, p.shown = made, beside
	if was != nil && made.id == was.id {
		return
	}
	var news *message
	if p.all = nil; was == nil {
		news = p.whole(h.c.o.Now())
	} else {
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
func (h *hub) render(ctx context.Context, p *openPage) (*content, shown) {
	ctx, cancel := context.WithTimeout(access.With(ctx, p.key.view), slow)
	defer cancel()
	beside := shown{}
	r, err := http.NewRequestWithContext(context.WithValue(ctx, shownKey{}, beside), http.MethodGet, p.key.uri, nil)
	if err != nil {
		return nil, nil
	}
	w := &answer{header: http.Header{}, status: http.StatusOK}
	h.mux.ServeHTTP(w, r)
	if w.status >= http.StatusInternalServerError {
		return nil, nil
	}
	if w.status != http.StatusOK { // it is gone, or leads elsewhere
		return newContent(nil, ""), nil
	}
	parts, title := partsOf(w.body.Bytes())
	return newContent(parts, title), beside
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

// told is a message as scripts read it.
type told struct {
	At    string            `json:"at"`
	Title string            `json:"title"`
	IDs   []string          `json:"ids"`   // of all parts, in their order
	Parts map[string]string `json:"parts"` // those that differ
}

// whole is what a page that holds nothing yet has to be told. The time in it may have
// passed by as much as lies between two pieces of news.
func (p *openPage) whole(now time.Time) *message {
	if age := now.Sub(p.allAt); p.all == nil || age < 0 || age >= calm {
		p.all, p.allAt = p.now.since(&content{}, now), now
	}
	return p.all
}

// since is what a page that holds the one before has to be told.
func (c *content) since(before *content, now time.Time) *message {
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
	var text bytes.Buffer
	text.WriteString("id: " + c.id + "\nevent: page\ndata: ")
	into := json.NewEncoder(&text)
	into.SetEscapeHTML(false) // a script reads it, no page holds it
	if err := into.Encode(t); err != nil {
		return newMessage([]byte(": " + err.Error() + "\n\n")) // strings are always written
	}
	text.WriteByte('\n') // after the one of the encoder
	return newMessage(text.Bytes())
}
