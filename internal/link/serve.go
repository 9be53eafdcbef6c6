package link

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// How strangers are bounded. A request of an agent has a few hundred bytes and
// takes milliseconds.
const (
	maxStrangers   = 2048 // connections that are not links yet
	maxHeaderBytes = 8 << 10
	sweepEvery     = 10 * time.Second
	grace          = 5 * time.Second
)

// Serve answers agents on a TCP listener until ctx ends. Then agents are told that
// control stops, so that they come back without delay, and Serve waits for the calls of
// Connected to return, for a few seconds.
//
// Beside that it looks every few seconds whether the certificates of standing
// links are still on the roster, for those that are taken off by another process
// than the one that calls [Hub.Drop]; and it renews control's certificate.
func (h *Hub) Serve(ctx context.Context, listener net.Listener) error {
	strangers := newStrangers(maxStrangers)
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: h.patient, // and for the handshake
		ReadTimeout:       h.patient,
		WriteTimeout:      h.patient,
		IdleTimeout:       h.patient,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         strangers.note,
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){}, // a WebSocket begins in HTTP/1.1
		ErrorLog:          slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug),
	}
	sweeping, stopSweeping := context.WithCancel(ctx)
	var sweeper sync.WaitGroup
	sweeper.Go(func() { h.sweep(sweeping) })
	stopped := make(chan error, 1)
	go func() {
		<-sweeping.Done()
		stopped <- errors.Join(server.Close(), h.Close())
	}()
	err := server.Serve(tls.NewListener(listener, h.TLSConfig()))
	stopSweeping()
	sweeper.Wait()
	if closing := <-stopped; ctx.Err() != nil {
		return closing // Serve failed because it was asked to
	}
	return err
}

// Close ends all links and takes no new ones.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.closing = true
	var ends sync.WaitGroup
	for _, link := range h.links {
		ends.Go(func() { link.conn.end(websocket.StatusServiceRestart, "control is stopping") })
	}
	h.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		ends.Wait()
		h.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(grace):
		return errors.New("closing the links of agents: what is done about one of them does not end")
	}
}

func (h *Hub) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.check(ctx)
		}
	}
}

// check ends the links whose certificates are not taken any more.
func (h *Hub) check(ctx context.Context) {
	if err := h.Authority.Renew(); err != nil {
		h.Log.Error("control's certificate is not renewed", "error", err)
	}
	list, err := h.Roster.Certificates(ctx)
	if err != nil {
		if ctx.Err() == nil {
			h.Log.Error("the list of certificates cannot be read; links stay as they are", "error", err)
		}
		return
	}
	taken := make(map[[2]string]bool, len(list))
	now := h.Now()
	for _, c := range list {
		taken[[2]string{c.Server, c.Serial}] = now.Before(c.Expires)
	}
	for _, link := range h.standing() {
		if link.serial != "" && !taken[[2]string{link.server, link.serial}] {
			link.conn.end(codeRefused, "control does not take this certificate any more")
		}
	}
}

func (h *Hub) standing() []*held {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := make([]*held, 0, len(h.links))
	for _, link := range h.links {
		found = append(found, link)
	}
	return found
}

// strangers are connections that are not links yet. When there are too many, the
// oldest is closed: an agent is through within milliseconds, and who holds on
// without saying anything is the oldest soon.
type strangers struct {
	most  int
	mu    sync.Mutex
	order list.List // of net.Conn, oldest first
	known map[net.Conn]*list.Element
}

func newStrangers(most int) *strangers {
	return &strangers{most: most, known: map[net.Conn]*list.Element{}}
}

// note is called by the HTTP server.
func (s *strangers) note(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.known[conn] = s.order.PushBack(conn)
		if s.order.Len() > s.most {
			oldest := s.order.Front().Value.(net.Conn)
			s.forget(oldest)
			// Closing a TLS connection says goodbye, which can wait for the other side.
			go oldest.Close()
		}
	case http.StateHijacked, http.StateClosed:
		s.forget(conn)
	}
}

func (s *strangers) forget(conn net.Conn) {
	if element, known := s.known[conn]; known {
		s.order.Remove(element)
		delete(s.known, conn)
	}
}
