package console

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"upkeep/internal/access"
	"upkeep/internal/api"
)

// live tells a page what of it has changed, as server-sent events.
func (c *Console) live(w http.ResponseWriter, r *http.Request) {
	if s := c.openLive(w, r); s != nil {
		defer s.close()
		s.follow(r.Context())
	}
}

// liveStream is what an open page is told, packed where its reader can read that. A
// thousand of them wait: what each holds, on its stack too, is held to what it needs.
type liveStream struct {
	hub     *hub
	w       http.ResponseWriter
	control *http.ResponseController
	packed  bool
	caller  access.Caller
	at      string
	page    *openPage
	news    chan *message
	open    *atomic.Int64 // those of its sort
}

// openLive begins a stream, or answers why not and returns nil. [liveStream.close] is
// its end.
func (c *Console) openLive(w http.ResponseWriter, r *http.Request) *liveStream {
	s := &liveStream{hub: c.hub, w: w, control: http.NewResponseController(w), packed: takesGzip(r), caller: access.From(r.Context()), at: r.URL.Query().Get("at")}
	most := int64(maxStrangers)
	if s.open = &c.hub.strangers; s.caller.Known() {
		s.open, most = &c.hub.readers, maxReaders
	}
	if s.open.Add(1) > most {
		s.open.Add(-1)
		http.Error(w, "too many pages are open; this one has to ask", http.StatusServiceUnavailable)
		return nil
	}
	if s.page, s.news = c.hub.join(s.caller, s.at, r.Header.Get("Last-Event-ID")); s.page == nil {
		s.open.Add(-1)
		if s.caller.Known() {
			http.Error(w, "there is no such page to follow", http.StatusNotFound)
		} else {
			http.Error(w, "sign in to follow this page", http.StatusForbidden)
		}
		return nil
	}
	api.NewStream(w)
	w.Header().Set("Vary", "Accept-Encoding")
	if s.packed {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write([]byte(gzipHeader))
	}
	return s
}

func (s *liveStream) close() {
	if s.page != nil {
		s.hub.leave(s.page, s.news)
	}
	s.open.Add(-1)
}

// sign is for how long nothing is sent before a sign of life is.
const sign = 15 * time.Second

// follow sends what there is to tell until nobody listens any more.
func (s *liveStream) follow(ctx context.Context) {
	if s.send(hello()) != nil {
		return
	}
	quiet := time.NewTimer(sign)
	defer quiet.Stop()
	for {
		said := alive()
		select {
		case <-ctx.Done():
		case <-quiet.C:
		case m, open := <-s.news:
			if said = m; !open { // was too slow
				if s.page, s.news = s.hub.join(s.caller, s.at, ""); s.page == nil {
					return
				}
				continue
			}
		}
		if ctx.Err() != nil { // whatever came beside it
			if api.Forgotten(ctx) {
				_ = s.send(bye()) // what it shows is not for this browser any more
			}
			return
		}
		if s.send(said) != nil {
			return
		}
		quiet.Reset(sign)
	}
}

var (
	hello = fixed("event: hello\ndata: hello\n\n")
	alive = fixed(": alive\n\n")
	bye   = fixed("event: bye\ndata: bye\n\n")
)

// fixed is a message that is always the same. It is packed when it is first sent, and
// not at the start of every command.
func fixed(text string) func() *message {
	return sync.OnceValue(func() *message { return newMessage([]byte(text)) })
}

// patience is how long a reader may take nothing before it is gone.
const patience = time.Minute

func (s *liveStream) send(m *message) error {
	s.control.SetWriteDeadline(time.Now().Add(patience))
	text := m.packed
	if !s.packed {
		text = m.plain
	}
	if _, err := s.w.Write(text); err != nil {
		return err
	}
	return s.control.Flush()
}
