//go:build !linux

package dnsserver

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// packetSocket is a UDP socket. Sharing a port evenly among several, and
// batches, are to be had on Linux alone.
type packetSocket struct{ conn *net.UDPConn }

func listenPackets(at netip.AddrPort, _ int) ([]*packetSocket, error) {
	conn, err := net.ListenUDP("udp"+family(at.Addr()), net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	return []*packetSocket{{conn}}, nil
}

func (s *packetSocket) stop() { _ = s.conn.Close() } // nothing was buffered that could be lost

func (s *Server) servePackets(socket *packetSocket) {
	query, answer := make([]byte, maxPacketQuery), make([]byte, MaxPacket)
	limit := newLimiter(s.o.Amplification, 1)
	for {
		n, from, err := socket.conn.ReadFromUDPAddrPort(query)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || from.Port() == 0 {
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		size := s.o.Handler.Packet(answer, query[:n], from, rand.Uint32())
		if size == 0 {
			continue
		}
		limit.at(time.Now())
		size = limit.fit(answer[:size], n, from.Addr())
		// An answer that cannot be sent is the client's to ask for again.
		_, _ = socket.conn.WriteToUDPAddrPort(answer[:size], from)
	}
}

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func isNoFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}
