//go:build !linux

package dnsserver

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// listenPackets opens one socket: sharing a port evenly among several, and
// batches, are to be had on Linux alone.
func listenPackets(network, address string, _ int) ([]*net.UDPConn, error) {
	var config net.ListenConfig
	conn, err := config.ListenPacket(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	return []*net.UDPConn{conn.(*net.UDPConn)}, nil
}

func (s *Server) servePackets(conn *net.UDPConn) {
	query, answer := make([]byte, maxQuery), make([]byte, MaxPacket)
	limit := newLimiter(s.o.Amplification, 1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(query)
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
		_, _ = conn.WriteToUDPAddrPort(answer[:size], from)
	}
}

func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

func isNoFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}
