package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"upkeep/internal/testkit/netlab"
)

// servicePort is where members listen.
const servicePort = 8080

// member is a host with a small web server, run by the test itself on a socket
// of the host.
type member struct {
	*netlab.Host
	mu       sync.Mutex
	listener net.Listener
	mute     bool // accepts, reads and never answers
}

// serve starts to listen; a member that listens already stays as it is.
func (m *member) serve(t testing.TB) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listener != nil {
		return
	}
	listener, err := m.Listen("tcp", fmt.Sprintf(":%d", servicePort))
	if err != nil {
		t.Fatalf("listening on %s: %v", m.Name, err)
	}
	m.listener = listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go m.answer(conn)
		}
	}()
}

func (m *member) answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if strings.TrimSpace(lines.Text()) != "" {
			continue
		}
		m.mu.Lock()
		mute := m.mute
		m.mu.Unlock()
		if !mute {
			_, _ = conn.Write([]byte("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nalive"))
			return
		}
	}
}

// close stops listening: connections are refused from then on.
func (m *member) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listener != nil {
		_ = m.listener.Close()
		m.listener = nil
	}
}

func (m *member) setMute(mute bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mute = mute
}

// addrs returns the addresses of members, but those of the ones left out.
func addrs(members []*member, without ...*member) []netip.Addr {
	var all []netip.Addr
next:
	for _, m := range members {
		for _, w := range without {
			if m == w {
				continue next
			}
		}
		all = append(all, m.Addr)
	}
	return all
}
