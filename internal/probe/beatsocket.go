package probe

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"upkeep/internal/beat"
)

// beatBatch is how many datagrams one system call takes in.
const beatBatch = 64

// beatSocket is a UDP socket that is read in batches and answers from the address
// that was asked: a sender's socket is connected, and takes answers from no other.
type beatSocket struct {
	conn  *net.UDPConn
	batch *ipv4.PacketConn // the same socket; its batches fit both families
	in    []ipv4.Message
	lost  uint32 // datagrams that the queue had no room for
}

func openBeatSocket(listen string) (*beatSocket, error) {
	packets, err := net.ListenPacket("udp", listen)
	if err != nil {
		return nil, fmt.Errorf("listening for heartbeats: %w", err)
	}
	conn := packets.(*net.UDPConn) // as "udp" gives
	s := &beatSocket{conn: conn, batch: ipv4.NewPacketConn(conn)}
	if err := s.prepare(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("preparing the heartbeat socket: %w", err)
	}
	for range beatBatch {
		s.in = append(s.in, ipv4.Message{
			// One byte more than a beat has, to know longer ones.
			Buffers: [][]byte{make([]byte, beat.Size+1)},
			OOB:     make([]byte, controlSize),
		})
	}
	return s, nil
}

func (s *beatSocket) prepare() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	v6 := s.conn.LocalAddr().(*net.UDPAddr).IP.To4() == nil
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = setBeatOptions(int(fd), v6)
	})
	if err != nil {
		return err
	}
	return failed
}

func setBeatOptions(fd int, v6 bool) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueSize) != nil {
		// Without CAP_NET_ADMIN net.core.rmem_max bounds it silently.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queueSize); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return err
	}
	if v6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// wakeAfter has a waiting read end after d.
func (s *beatSocket) wakeAfter(d time.Duration) {
	_ = s.conn.SetReadDeadline(time.Now().Add(d)) // fails only on a closed socket, as the read will
}

// neverWake clears the time limit, without which a read that does not wait would
// say that its time is over and not look.
func (s *beatSocket) neverWake() {
	_ = s.conn.SetReadDeadline(time.Time{}) // as in wakeAfter
}

// read takes in one batch. It returns 0 without an error when nothing has come.
func (s *beatSocket) read(wait bool) (n int, err error) {
	for i := range s.in {
		s.in[i].OOB = s.in[i].OOB[:cap(s.in[i].OOB)]
	}
	flags := 0
	if !wait {
		flags = unix.MSG_DONTWAIT
	}
	n, err = s.batch.ReadBatch(s.in, flags)
	if err != nil {
		if isTimeout(err) {
			return 0, nil
		}
		return 0, err
	}
	if n > 0 {
		s.countLost(n - 1) // the number is a sum, so the last says all
	}
	return n, nil
}

func (s *beatSocket) countLost(i int) {
	messages, err := unix.ParseSocketControlMessage(s.in[i].OOB[:s.in[i].NN])
	if err != nil {
		return // cut short; the next batch will say it
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_RXQ_OVFL && len(m.Data) >= 4 {
			s.lost = binary.NativeEndian.Uint32(m.Data)
		}
	}
}

func (s *beatSocket) datagram(i int) []byte { return s.in[i].Buffers[0][:s.in[i].N] }

// reply answers the i-th datagram, from the address that it was sent to.
func (s *beatSocket) reply(i int, text []byte) {
	to, is := s.in[i].Addr.(*net.UDPAddr)
	if !is {
		return
	}
	addr := netip.AddrPortFrom(to.AddrPort().Addr().Unmap(), to.AddrPort().Port())
	// An unreachable sender is no trouble of ours; it will ask again.
	_, _, _ = s.conn.WriteMsgUDPAddrPort(text, answerFrom(s.in[i].OOB[:s.in[i].NN]), addr)
}

// answerFrom turns the control messages of a datagram into those of its answer.
func answerFrom(control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			to := net.IP(m.Data[:16])
			if to.To4() != nil {
				return (&ipv4.ControlMessage{Src: to}).Marshal()
			}
			if to.IsLinkLocalUnicast() || to.IsMulticast() {
				return nil // the kernel knows better, by the interface
			}
			return (&ipv6.ControlMessage{Src: to}).Marshal()
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			return (&ipv4.ControlMessage{Src: net.IP(m.Data[8:12])}).Marshal() // ipi_addr
		}
	}
	return nil
}
