package dnsserver

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// turnLength is how long a flood may keep other goroutines off a processor.
	turnLength = 2 * time.Millisecond
	// batch is how many datagrams one system call takes in or out.
	batch = 64
	// receiveBuffer is asked of the kernel for each socket, so that a burst is
	// kept while the answers to the last one are written.
	receiveBuffer = 4 << 20
)

// packetSocket is a UDP socket, read by one goroutine.
type packetSocket struct {
	conn *net.UDPConn
	// everywhere means that the socket is bound to no address in particular, so
	// that each answer must be told which one to leave from.
	everywhere bool
}

// listenPackets opens sockets that share one address; the kernel spreads
// clients over them by their address and port.
func listenPackets(at netip.AddrPort, sockets int) ([]*packetSocket, error) {
	config := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		var err error
		errControl := raw.Control(func(fd uintptr) {
			err = prepare(int(fd), network == "udp6", sockets > 1, at.Addr().IsUnspecified())
		})
		return errors.Join(errControl, err)
	}}
	var open []*packetSocket
	for range sockets {
		conn, err := config.ListenPacket(context.Background(), "udp"+family(at.Addr()), at.String())
		if err != nil {
			for _, s := range open {
				s.stop()
			}
			return nil, err
		}
		open = append(open, &packetSocket{conn: conn.(*net.UDPConn), everywhere: at.Addr().IsUnspecified()})
	}
	return open, nil
}

func (s *packetSocket) stop() { _ = s.conn.Close() } // nothing was buffered that could be lost

func prepare(fd int, v6, shared, everywhere bool) error {
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
	// Path MTU discovery is left out of account: forged ICMP could make us
	// fragment (RFC 9715), and MaxPacket fits everywhere.
	level, discover, information := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PKTINFO
	if v6 {
		level, discover, information = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_RECVPKTINFO
	}
	if err := unix.SetsockoptInt(fd, level, discover, unix.IP_PMTUDISC_OMIT); err != nil {
		return err
	}
	if !everywhere {
		return nil
	}
	return unix.SetsockoptInt(fd, level, information, 1)
}

// multiHeader is struct mmsghdr of recvmmsg(2).
type multiHeader struct {
	header unix.Msghdr
	length uint32
}

// controlSpace holds one struct in6_pktinfo with its header, the longer one.
const controlSpace = 64

// batcher reads and answers the datagrams of one socket. What belongs to one
// kind lies together: a batch then touches few pages.
//
// Its system calls never wait and are made without the Go scheduler's knowledge
// (RawSyscall). A call that the scheduler knows of wakes the runtime's monitor
// thread each time after the process was idle, and hands the processor on when
// it takes long; for a batch of few answers either costs more than the answers.
// The price is that such a call holds up a collection of garbage until it ends,
// for at most as long as one batch takes to be written, well below a
// millisecond. Waiting is left to the runtime's poller, as everywhere.
type batcher struct {
	everywhere bool
	handler    Handler
	limit      *limiter
	random     *rand.PCG
	in, out    [batch]multiHeader
	inV        [batch]unix.Iovec
	outV       [batch]unix.Iovec
	peers      [batch]unix.RawSockaddrInet6
	controls   [batch][controlSpace]byte
	queries    [batch][maxPacketQuery]byte
	answers    [batch][MaxPacket]byte
}

func newBatcher(everywhere bool, handler Handler, limit *limiter) *batcher {
	b := &batcher{everywhere: everywhere, handler: handler, limit: limit, random: rand.NewPCG(rand.Uint64(), rand.Uint64())}
	for i := range b.in {
		b.inV[i].Base, b.outV[i].Base = &b.queries[i][0], &b.answers[i][0]
		b.inV[i].SetLen(maxPacketQuery)
		in, out := &b.in[i].header, &b.out[i].header
		in.Iov, in.Name = &b.inV[i], (*byte)(unsafe.Pointer(&b.peers[i]))
		in.SetIovlen(1)
		out.SetIovlen(1)
	}
	return b
}

func (s *Server) servePackets(socket *packetSocket) {
	raw, err := socket.conn.SyscallConn()
	if err != nil {
		s.o.Logger.Error("serving DNS over UDP", "error", err)
		return
	}
	b := newBatcher(socket.everywhere, s.o.Handler, newLimiter(s.o.Amplification, s.o.Sockets))
	// It ends, with an error that says no more than that, when the socket is closed.
	_ = raw.Read(func(fd uintptr) bool {
		b.drain(int(fd), raw)
		return false
	})
}

// drain answers until the socket is empty. The poller is told of each datagram
// that comes after that (its registration is edge-triggered), so that nothing
// need be read again before waiting.
func (b *batcher) drain(fd int, raw syscall.RawConn) {
	began := time.Now()
	for now := began; ; now = time.Now() {
		n, errno := b.receive(fd)
		if errno == unix.EAGAIN {
			return
		}
		if errno != 0 {
			continue // an interrupt, or an ICMP error of an earlier answer
		}
		b.limit.at(now)
		answers := 0
		for i := range n {
			if b.answer(i, answers) {
				answers++
			}
		}
		b.send(fd, raw, answers)
		if n < batch {
			return
		}
		if now.Sub(began) > turnLength {
			// Under a flood the socket is never empty, and nobody else makes this
			// goroutine give way.
			runtime.Gosched()
			began = time.Now()
		}
	}
}

func call(number uintptr, fd int, headers *multiHeader, n int) (done int, errno syscall.Errno) {
	r, _, errno := unix.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(headers)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	return int(r), errno
}

// receive reads a batch and returns how many datagrams came.
func (b *batcher) receive(fd int) (int, syscall.Errno) {
	for i := range b.in {
		h := &b.in[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.Flags = 0
		if b.everywhere {
			h.Control = &b.controls[i][0]
			h.SetControllen(controlSpace)
		}
	}
	return call(unix.SYS_RECVMMSG, fd, &b.in[0], batch)
}

// send writes n answers. One that the kernel refuses (a forged source without a
// route, a packet filter) is passed over.
func (b *batcher) send(fd int, raw syscall.RawConn, n int) {
	for i := 0; i < n; {
		done, errno := call(unix.SYS_SENDMMSG, fd, &b.out[i], n-i)
		switch errno {
		case 0:
			i += done
		case unix.EINTR:
		case unix.EAGAIN:
			waited := false
			if raw.Write(func(uintptr) bool { again := waited; waited = true; return again }) != nil {
				return // closed
			}
		default:
			i++
		}
	}
}

// answer lets the handler answer datagram i of the batch and readies header k of
// the answers; it reports whether there is an answer.
func (b *batcher) answer(i, k int) bool {
	in := &b.in[i]
	from, ok := peerAddr(&b.peers[i], in.header.Namelen)
	if !ok || in.header.Flags&unix.MSG_TRUNC != 0 || from.Port() == 0 {
		return false
	}
	query, answer := b.queries[i][:in.length], b.answers[i][:]
	n := b.handler.Packet(answer, query, from, uint32(b.random.Uint64()))
	if n == 0 {
		return false
	}
	b.outV[i].SetLen(b.limit.fit(answer[:n], len(query), from.Addr()))
	out := &b.out[k].header
	out.Iov, out.Name, out.Namelen = &b.outV[i], in.header.Name, in.header.Namelen
	if b.everywhere {
		out.Control = nil
		out.SetControllen(0)
		if length := int(in.header.Controllen); localSource(b.controls[i][:], length) {
			out.Control = &b.controls[i][0]
			out.SetControllen(length)
		}
	}
	return true
}

func peerAddr(peer *unix.RawSockaddrInet6, length uint32) (netip.AddrPort, bool) {
	switch {
	case peer.Family == unix.AF_INET && length >= unix.SizeofSockaddrInet4:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(peer))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), networkOrder(&sa.Port)), true
	case peer.Family == unix.AF_INET6 && length >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(peer.Addr), networkOrder(&peer.Port)), true
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
func localSource(control []byte, length int) bool {
	if length < unix.SizeofCmsghdr {
		return false
	}
	head := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := control[unix.CmsgLen(0):]
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
