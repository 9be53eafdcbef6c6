package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// tcpCheck opens a connection and closes it again. The connection is closed in
// the ordinary way (FIN): a reset would be cheaper by a few packets, but many
// services log it as an error, once a second and member.
type tcpCheck struct {
	port   uint16
	chosen bool // the kernel may choose this port for the near end
}

func prepareTCP(_ *Engine, c upkeep.Check) (asker, error) {
	first, last := 32768, 60999 // the kernel's defaults
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &first, &last)
	}
	return tcpCheck{uint16(c.Port), first <= c.Port && c.Port <= last}, nil
}

// begun is a connection that was begun in this round.
type begun struct {
	m  *member
	fd int32 // tells a later probe of the same member from this one
}

func (t tcpCheck) start(l *loop, m *member) {
	family := unix.AF_INET6
	if m.addr.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		l.fail(m, err)
		return
	}
	m.fd = int32(fd)
	size := putSockaddr(&l.to, m.addr, t.port)
	switch err = connect(fd, &l.to, size); {
	case err == nil:
		t.connected(l, m, 0)
	case errors.Is(err, unix.EINPROGRESS):
		l.begun = append(l.begun, begun{m, m.fd})
	default:
		t.failed(l, m, err)
	}
}

// lookAtBegun looks at the connections that the last round began. Nearby
// targets have answered by now; only the others are worth handing to epoll, which
// costs as much as all that this program itself does for a check.
func (l *loop) lookAtBegun() {
	for _, b := range l.begun {
		if b.m.phase != flying || b.m.fd != b.fd {
			continue
		}
		t := b.m.def.asker.(tcpCheck)
		switch state, rtt, err := tcpState(int(b.fd)); {
		case err != nil:
			t.failed(l, b.m, err)
		case state == unix.BPF_TCP_SYN_SENT || state == unix.BPF_TCP_SYN_RECV:
			if err := l.poll(int(b.fd), unix.EPOLLOUT|unix.EPOLLONESHOT, b.m.index, b.fd); err != nil {
				t.failed(l, b.m, err)
			}
		default:
			t.decided(l, b.m, state, rtt)
		}
	}
	clear(l.begun)
	l.begun = l.begun[:0]
}

// tcpReady goes on with a connection that epoll says is decided.
func tcpReady(l *loop, m *member) {
	t := m.def.asker.(tcpCheck)
	state, rtt, err := tcpState(int(m.fd))
	if err != nil {
		t.failed(l, m, err)
		return
	}
	t.decided(l, m, state, rtt)
}

func (t tcpCheck) decided(l *loop, m *member, state uint8, rtt time.Duration) {
	if state != unix.BPF_TCP_CLOSE {
		t.connected(l, m, rtt)
		return
	}
	errno, err := unix.GetsockoptInt(int(m.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		t.failed(l, m, err)
	case errno == 0: // opened, and reset since
		t.failed(l, m, unix.ECONNRESET)
	default:
		t.failed(l, m, unix.Errno(errno))
	}
}

// connected ends a probe well. rtt is the kernel's measure of the handshake,
// which does not contain the time until the loop came round; zero when there is
// none.
func (t tcpCheck) connected(l *loop, m *member, rtt time.Duration) {
	r := Result{OK: true, RTT: max(l.clock.now()-m.sent, time.Microsecond)}
	if 0 < rtt && rtt < r.RTT {
		r.RTT = rtt
	}
	if t.toItself(m) {
		r = Result{Refused: true, Reason: "connection refused"}
	}
	t.cancel(l, m)
	l.finish(m, r)
}

// toItself reports whether the socket met itself: a connection to a port of this
// machine on which nobody listens succeeds when the kernel happens to choose
// that very port for the near end (RFC 9293, section 3.5, simultaneous open).
func (t tcpCheck) toItself(m *member) bool {
	if !t.chosen {
		return false
	}
	near, err := unix.Getsockname(int(m.fd))
	if err != nil {
		return false
	}
	switch near := near.(type) {
	case *unix.SockaddrInet4:
		return near.Port == int(t.port) && netip.AddrFrom4(near.Addr) == m.addr
	case *unix.SockaddrInet6:
		return near.Port == int(t.port) && netip.AddrFrom16(near.Addr) == m.addr.WithZone("")
	}
	return false
}

func (t tcpCheck) failed(l *loop, m *member, err error) {
	t.cancel(l, m)
	l.fail(m, err)
}

func (t tcpCheck) expire(l *loop, m *member) Result {
	t.cancel(l, m)
	return Result{Reason: reasonSilent(m.timeout)}
}

func (tcpCheck) cancel(_ *loop, m *member) {
	if m.fd >= 0 {
		closeSocket(int(m.fd))
		m.fd = -1
	}
}
