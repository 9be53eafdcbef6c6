package probe

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// tcpCheck opens a connection and closes it again. The connection is closed in
// the ordinary way (FIN): a reset would be cheaper by a few packets, but many
// services log it as an error, once a second and member.
type tcpCheck struct{ port uint16 }

func prepareTCP(_ *Engine, c upkeep.Check) (asker, error) {
	return tcpCheck{uint16(c.Port)}, nil
}

func (t tcpCheck) start(l *loop, m *member) {
	family, sa := unix.AF_INET6, sockaddr(m.addr, t.port)
	if m.addr.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		l.fail(m, err)
		return
	}
	m.fd = int32(fd)
	switch err = unix.Connect(fd, sa); {
	case err == nil:
		t.connected(l, m)
	case errors.Is(err, unix.EINPROGRESS):
		if err := l.poll(fd, unix.EPOLLOUT|unix.EPOLLONESHOT, m.index, m.fd); err != nil {
			t.failed(l, m, err)
		}
	default:
		t.failed(l, m, err)
	}
}

// tcpReady goes on with a connection that the kernel has decided about.
func tcpReady(l *loop, m *member, events uint32, _ time.Duration) {
	t := m.def.asker.(tcpCheck)
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if errno, err := unix.GetsockoptInt(int(m.fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
			t.failed(l, m, unix.Errno(errno))
			return
		}
	}
	t.connected(l, m)
}

func (t tcpCheck) connected(l *loop, m *member) {
	r := Result{OK: true, RTT: l.clock.now() - m.sent}
	// The kernel's own measure of the handshake does not contain the time until
	// the loop came round.
	if info, err := unix.GetsockoptTCPInfo(int(m.fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.Rtt > 0 {
		r.RTT = min(r.RTT, time.Duration(info.Rtt)*time.Microsecond)
	}
	r.RTT = max(r.RTT, time.Microsecond)
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
	if t.port < 1024 {
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
		unix.Close(int(m.fd))
		m.fd = -1
	}
}
