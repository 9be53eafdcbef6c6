package dnsserver

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many datagrams one system call takes in or out.
	batch = 64
	// receiveBuffer is asked of the kernel for each socket, so that a burst is
	// kept while the answers to the last one are written.
	receiveBuffer = 4 << 20
)

// listenPackets opens sockets that share one address; the kernel spreads
// clients over them by their address and port.
func listenPackets(network, address string, sockets int) ([]*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if errControl := raw.Control(func(fd uintptr) { err = prepare(int(fd), network, sockets > 1) }); errControl != nil {
			return errControl
		}
		return err
	}}
	var conns []*net.UDPConn
	for range sockets {
		conn, err := config.ListenPacket(context.Background(), network, address)
		if err != nil {
			for _, open := range conns {
				open.Close()
			}
			return nil, err
		}
		conns = append(conns, conn.(*net.UDPConn))
	}
	return conns, nil
}

func prepare(fd int, network string, shared bool) error {
	if shared {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	// The forced form passes rmem_max and needs CAP_NET_ADMIN; a smaller buffer
	// serves too, so neither failure counts.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	// The local address of each query is wanted so that the answer leaves from
	// it, also where the socket is bound to no address in particular. Path MTU
	// discovery is left out of account: forged ICMP could make us fragment
	// (RFC 9715), and MaxPacket fits everywhere.
	if network == "udp6" {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT))
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT))
}

// multiHeader is struct mmsghdr of recvmmsg(2).
type multiHeader struct {
	header unix.Msghdr
	length uint32
}

// controlSpace holds one struct in6_pktinfo with its header, the longer one.
const controlSpace = 64

// slot is the memory of one datagram of a batch and of its answer.
type slot struct {
	query   [maxQuery]byte
	answer  [MaxPacket]byte
	peer    unix.RawSockaddrInet6
	control [controlSpace]byte
	in, out unix.Iovec
}

// batcher reads and answers the datagrams of one socket.
type batcher struct {
	slots   [batch]slot
	in, out [batch]multiHeader
	raw     syscall.RawConn

	// State of the system call under way, for the two functions below, which are
	// made once so that a call allocates nothing.
	from, to int
	done     int
	errno    syscall.Errno
	read     func(fd uintptr) bool
	write    func(fd uintptr) bool
}

func newBatcher(raw syscall.RawConn) *batcher {
	b := &batcher{raw: raw}
	for i := range b.slots {
		s := &b.slots[i]
		s.in.Base, s.out.Base = &s.query[0], &s.answer[0]
		s.in.SetLen(maxQuery)
		h := &b.in[i].header
		h.Iov, h.Name, h.Control = &s.in, (*byte)(unsafe.Pointer(&s.peer)), &s.control[0]
		h.SetIovlen(1)
	}
	b.read = func(fd uintptr) bool {
		return b.call(fd, unix.SYS_RECVMMSG, &b.in[0], batch)
	}
	b.write = func(fd uintptr) bool {
		return b.call(fd, unix.SYS_SENDMMSG, &b.out[b.from], b.to-b.from)
	}
	return b
}

// call reports whether the system call is done, as opposed to having to wait
// for the socket.
func (b *batcher) call(fd, number uintptr, headers *multiHeader, n int) bool {
	for {
		done, _, errno := unix.Syscall6(number, fd, uintptr(unsafe.Pointer(headers)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		b.done, b.errno = int(done), errno
		return errno != unix.EAGAIN
	}
}

// receive waits for datagrams and returns their number.
func (b *batcher) receive() (int, error) {
	for i := range b.in {
		h := &b.in[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSpace)
		h.Flags = 0
	}
	if err := b.raw.Read(b.read); err != nil {
		return 0, err
	}
	if b.errno != 0 {
		return 0, b.errno
	}
	return b.done, nil
}

// send writes n answers. One that the kernel refuses (a forged source without a
// route, a packet filter) is passed over.
func (b *batcher) send(n int) error {
	for b.from, b.to = 0, n; b.from < b.to; {
		if err := b.raw.Write(b.write); err != nil {
			return err
		}
		if b.errno != 0 {
			b.from++
			continue
		}
		b.from += b.done
	}
	return nil
}

func (s *Server) servePackets(conn *net.UDPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		s.o.Logger.Error("serving DNS over UDP", "error", err)
		return
	}
	b := newBatcher(raw)
	limit := newLimiter(s.o.Amplification, s.o.Sockets)
	random := rand.NewPCG(rand.Uint64(), rand.Uint64())
	for {
		n, err := b.receive()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		limit.at(time.Now())
		answers := 0
		for i := range n {
			if b.answer(i, answers, s.o.Handler, limit, uint32(random.Uint64())) {
				answers++
			}
		}
		if err := b.send(answers); err != nil {
			return // closed
		}
	}
}

// answer lets the handler answer datagram i of the batch and readies header k of
// the answers; it reports whether there is an answer.
func (b *batcher) answer(i, k int, handler Handler, limit *limiter, turn uint32) bool {
	s, in := &b.slots[i], &b.in[i]
	from, ok := s.peerAddr(in.header.Namelen)
	if !ok || in.header.Flags&unix.MSG_TRUNC != 0 || from.Port() == 0 {
		return false
	}
	query := s.query[:in.length]
	n := handler.Packet(s.answer[:], query, from, turn)
	if n == 0 {
		return false
	}
	n = limit.fit(s.answer[:n], len(query), from.Addr())
	s.out.SetLen(n)
	out := &b.out[k].header
	out.Name, out.Namelen = in.header.Name, in.header.Namelen
	out.Iov = &s.out
	out.SetIovlen(1)
	out.Control = nil
	out.SetControllen(0)
	if length := int(in.header.Controllen); s.localSource(length) {
		out.Control = &s.control[0]
		out.SetControllen(length)
	}
	return true
}

func (s *slot) peerAddr(length uint32) (netip.AddrPort, bool) {
	switch {
	case s.peer.Family == unix.AF_INET && length >= unix.SizeofSockaddrInet4:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.peer))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), networkOrder(&sa.Port)), true
	case s.peer.Family == unix.AF_INET6 && length >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.peer.Addr), networkOrder(&s.peer.Port)), true
	}
	return netip.AddrPort{}, false
}

func networkOrder(port *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(port))[:])
}

// localSource turns the packet information of a query into that of its answer:
// same local address. The interface is cleared, so that the route decides, save
// for link-local addresses, which mean nothing without it. It reports whether
// there was any information.
func (s *slot) localSource(length int) bool {
	if length < unix.SizeofCmsghdr {
		return false
	}
	head := (*unix.Cmsghdr)(unsafe.Pointer(&s.control[0]))
	data := s.control[unix.CmsgLen(0):]
	switch {
	case head.Level == unix.IPPROTO_IP && head.Type == unix.IP_PKTINFO && length >= unix.CmsgLen(unix.SizeofInet4Pktinfo):
		clear(data[:4])
		return true
	case head.Level == unix.IPPROTO_IPV6 && head.Type == unix.IPV6_PKTINFO && length >= unix.CmsgLen(unix.SizeofInet6Pktinfo):
		if linkLocal := data[0] == 0xfe && data[1]&0xc0 == 0x80; !linkLocal {
			clear(data[16:20])
		}
		return true
	}
	return false
}

func isInUse(err error) bool { return errors.Is(err, unix.EADDRINUSE) }

func isNoFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}
