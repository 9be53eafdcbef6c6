package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendBatch = 32
	// receiveBatch is how many messages one system call takes in; receiveMost
	// bounds a round of them, so that a flood cannot hold the loop for ever.
	receiveBatch = 64
	receiveMost  = 1024 * receiveBatch
	// receiveSize holds the longest IP header, an ICMP header and an error's
	// quotation as far as the token. What is longer is cut off.
	receiveSize = 256
	controlSize = 96
	// queueSize is the room for answers that the loop has not taken in yet: at
	// the kernel's reckoning of some 800 bytes for each, 10,000 answers.
	queueSize = 8 << 20
)

// icmpSocket is one socket for all pings of one address family, with batches
// that are filled in place. All of it is used under the loop's lock only.
type icmpSocket struct {
	fd    int
	v6    bool
	raw   bool
	id    uint16
	seq   uint16
	drops uint32 // messages that the kernel had no room for

	out     [sendBatch]mmsghdr
	outIov  [sendBatch]unix.Iovec
	outAddr [sendBatch]unix.RawSockaddrInet6
	outData [sendBatch][echoSize]byte

	in        [receiveBatch]mmsghdr
	inIov     [receiveBatch]unix.Iovec
	inAddr    [receiveBatch]unix.RawSockaddrInet6
	inData    [receiveBatch][receiveSize]byte
	inControl [receiveBatch][controlSize]byte
}

// openICMP opens a raw socket, which needs root or CAP_NET_RAW, or else a ping
// socket, which needs a group of the process in net.ipv4.ping_group_range (which
// holds for IPv6 too). The raw one comes first because it is told of unreachable
// hosts and because a closed range is Debian's default.
func openICMP(v6 bool, id uint16) (*icmpSocket, error) {
	s := &icmpSocket{v6: v6, id: id, raw: true}
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	const flags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	fd, err := unix.Socket(family, unix.SOCK_RAW|flags, proto)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		s.raw = false
		fd, err = unix.Socket(family, unix.SOCK_DGRAM|flags, proto)
	}
	if err != nil {
		return nil, fmt.Errorf("opening an ICMP socket: %w", err)
	}
	s.fd = fd
	if err := s.prepare(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("preparing an ICMP socket: %w", err)
	}
	s.link()
	for s.receive() > 0 { // what came in before the filters stood
	}
	return s, nil
}

func (s *icmpSocket) prepare() error {
	for _, o := range []struct{ force, plain int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF},
		{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, o.force, queueSize) != nil {
			// Without CAP_NET_ADMIN net.core.rmem_max bounds it silently.
			if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, o.plain, queueSize); err != nil {
				return err
			}
		}
	}
	for _, option := range []int{unix.SO_TIMESTAMPNS, unix.SO_RXQ_OVFL} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, option, 1); err != nil {
			return err
		}
	}
	if !s.raw {
		return nil
	}
	return errors.Join(s.filterTypes(), s.filterID())
}

// filterTypes lets through answers and errors alone. A raw socket would
// otherwise be given all ICMP of the machine, on loopback its own requests too.
func (s *icmpSocket) filterTypes() error {
	if s.v6 {
		filter := unix.ICMPv6Filter{}
		for i := range filter.Data {
			filter.Data[i] = ^uint32(0)
		}
		for _, kind := range []int{icmp6EchoReply, icmp6Unreachable, icmp6TimeExceeded} {
			filter.Data[kind/32] &^= 1 << (kind % 32)
		}
		return unix.SetsockoptICMPv6Filter(s.fd, unix.IPPROTO_ICMPV6, 1 /* ICMPV6_FILTER */, &filter)
	}
	block := ^uint32(1<<icmp4EchoReply | 1<<icmp4Unreachable | 1<<icmp4TimeExceeded)
	return unix.SetsockoptInt(s.fd, unix.SOL_RAW, 1 /* ICMP_FILTER */, int(int32(block)))
}

// filterID drops the replies to other programs' pings before they take room in
// the queue. It is a matter of economy; it is the token that decides.
func (s *icmpSocket) filterID() error {
	kind := uint32(icmp4EchoReply)
	offset := unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0} // x = length of the IP header
	if s.v6 {
		kind = icmp6EchoReply
		offset = unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM, K: 0}
	}
	program := []unix.SockFilter{
		offset,
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: kind, Jf: 2},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(s.id), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// link ties the batches' parts together, once and for all.
func (s *icmpSocket) link() {
	for i := range s.out {
		s.outIov[i].Base = &s.outData[i][0]
		s.outIov[i].SetLen(echoSize)
		h := &s.out[i].hdr
		h.Iov = &s.outIov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&s.outAddr[i]))
		for j := range s.outData[i] {
			s.outData[i][j] = byte(j)
		}
	}
	for i := range s.in {
		s.inIov[i].Base = &s.inData[i][0]
		s.inIov[i].SetLen(receiveSize)
		h := &s.in[i].hdr
		h.Iov = &s.inIov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&s.inAddr[i]))
		h.Control = &s.inControl[i][0]
	}
}

// fill writes the i-th echo request of a batch.
func (s *icmpSocket) fill(i int, to netip.Addr, t token) {
	h := &s.out[i].hdr
	s.seq++
	h.Namelen = putSockaddr(&s.outAddr[i], to, 0)
	kind := byte(icmp4EchoRequest)
	if s.v6 {
		kind = icmp6EchoRequest
	}
	putEcho(s.outData[i][:], kind, s.id, s.seq, t)
}

// send sends messages from to n of the batch. When it returns an error, the
// first message that was not sent is the culprit.
func (s *icmpSocket) send(from, n int) (sent int, err error) {
	return sendmmsg(s.fd, s.out[from:n])
}

// receive takes in one batch without waiting.
func (s *icmpSocket) receive() int {
	for i := range s.in {
		h := &s.in[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
	}
	n, err := recvmmsg(s.fd, s.in[:])
	if err != nil {
		// An error of an earlier message, such as of a ping socket that met a
		// firewall, is taken out of the queue by this; the next round goes on.
		return 0
	}
	return n
}

// read is the i-th message of the batch just received.
func (s *icmpSocket) read(i int) (answer, bool) {
	b := s.inData[i][:min(int(s.in[i].len), receiveSize)]
	switch {
	case s.v6:
		return parseICMP6(b, netip.AddrFrom16(s.inAddr[i].Addr))
	case s.raw:
		return parseICMP4(b)
	}
	if len(b) < icmpHeader || b[0] != icmp4EchoReply {
		return answer{}, false
	}
	from := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.inAddr[i]))
	return reply(b, netip.AddrFrom4(from.Addr))
}

// arrival is when the kernel took in the i-th message, as wall-clock time in
// nanoseconds; zero when it does not say.
func (s *icmpSocket) arrival(i int) (at int64) {
	h := &s.in[i].hdr
	control := s.inControl[i][:min(uint64(h.Controllen), controlSize)]
	for len(control) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		if header.Level == unix.SOL_SOCKET && header.Type == unix.SO_TIMESTAMPNS && len(data) >= 16 {
			at = int64(binary.NativeEndian.Uint64(data))*int64(time.Second) + int64(binary.NativeEndian.Uint64(data[8:]))
		}
		if header.Level == unix.SOL_SOCKET && header.Type == unix.SO_RXQ_OVFL && len(data) >= 4 {
			s.drops = binary.NativeEndian.Uint32(data)
		}
		control = rest
	}
	return at
}
