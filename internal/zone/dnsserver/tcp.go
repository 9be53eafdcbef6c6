package dnsserver

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// acceptPause is how long accepting rests when descriptors have run out.
const acceptPause = 50 * time.Millisecond

func (s *Server) acceptStreams(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.o.Logger.Warn("accepting a DNS connection", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		from := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		c := &stream{conn: conn, from: from, since: time.Now()}
		if !s.conns.add(c) {
			conn.Close()
			continue
		}
		s.running.Go(func() {
			defer s.conns.remove(c)
			s.serveStream(c)
		})
	}
}

// stream is one TCP connection.
type stream struct {
	conn net.Conn
	from netip.AddrPort
	// since is when the connection fell idle; zero while a query is answered.
	// Guarded by connections.mu.
	since time.Time
}

// serveStream answers the queries of one connection one after the other, in the
// order in which they came. It holds one buffer of maxQuery octets while idle.
func (s *Server) serveStream(c *stream) {
	defer c.conn.Close()
	buffer := make([]byte, maxQuery)
	send := func(message []byte) error {
		if err := c.conn.SetWriteDeadline(time.Now().Add(s.o.Patience)); err != nil {
			return err
		}
		prefix := binary.BigEndian.AppendUint16(make([]byte, 0, 2), uint16(len(message)))
		buffers := net.Buffers{prefix, message}
		_, err := buffers.WriteTo(c.conn)
		return err
	}
	for {
		query, err := s.readQuery(c, buffer)
		if err != nil {
			return
		}
		s.conns.busy(c)
		if err := s.o.Handler.Stream(query, c.from, send); err != nil {
			return
		}
		s.conns.idle(c)
	}
}

// readQuery reads a message with its length prefix. The first octet may take
// Idle to come, all the others together Patience, however slowly they drip.
func (s *Server) readQuery(c *stream, buffer []byte) ([]byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(s.o.Idle)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.conn, buffer[:1]); err != nil {
		return nil, err
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(s.o.Patience)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.conn, buffer[1:2]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(buffer))
	if length > len(buffer) {
		return nil, errors.New("query too long")
	}
	_, err := io.ReadFull(c.conn, buffer[:length])
	return buffer[:length], err
}

// connections bounds the open connections: of one address by refusing further
// ones, of all by closing the one that has been idle the longest.
type connections struct {
	max, perHost int

	mu     sync.Mutex
	open   map[*stream]struct{}
	hosts  map[netip.Addr]int
	closed bool
}

func newConnections(most, perHost int) *connections {
	return &connections{max: most, perHost: perHost, open: map[*stream]struct{}{}, hosts: map[netip.Addr]int{}}
}

// add reports whether the connection may be served.
func (cs *connections) add(c *stream) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed || cs.hosts[c.from.Addr()] >= cs.perHost {
		return false
	}
	if len(cs.open) >= cs.max {
		oldest := cs.longestIdle()
		if oldest == nil {
			return false
		}
		cs.drop(oldest)
	}
	cs.open[c] = struct{}{}
	cs.hosts[c.from.Addr()]++
	return true
}

func (cs *connections) longestIdle() *stream {
	var oldest *stream
	for c := range cs.open {
		if !c.since.IsZero() && (oldest == nil || c.since.Before(oldest.since)) {
			oldest = c
		}
	}
	return oldest
}

func (cs *connections) drop(c *stream) {
	if _, open := cs.open[c]; !open {
		return
	}
	delete(cs.open, c)
	c.conn.Close()
	host := c.from.Addr()
	if cs.hosts[host]--; cs.hosts[host] == 0 {
		delete(cs.hosts, host)
	}
}

func (cs *connections) remove(c *stream) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.drop(c)
}

func (cs *connections) busy(c *stream) { cs.mark(c, time.Time{}) }
func (cs *connections) idle(c *stream) { cs.mark(c, time.Now()) }

func (cs *connections) mark(c *stream, since time.Time) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.since = since
}

func (cs *connections) closeAll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for c := range cs.open {
		cs.drop(c)
	}
}
