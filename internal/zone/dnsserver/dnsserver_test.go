package dnsserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"upkeep/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each message with itself; "none" with nothing, "twice" twice and
// "end" with an error.
type echo struct{}

func (echo) Packet(dst, query []byte, _ netip.AddrPort, _ uint32) int {
	if string(query) == "none" {
		return 0
	}
	return copy(dst, query)
}

func (echo) Stream(query []byte, _ netip.AddrPort, send func([]byte) error) error {
	switch string(query) {
	case "none":
		return nil
	case "end":
		return errors.New("no more")
	case "twice":
		if err := send(query); err != nil {
			return err
		}
	}
	return send(query)
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Listen == nil {
		o.Listen = []string{"127.0.0.1:0"}
	}
	if o.Handler == nil {
		o.Handler = echo{}
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func dial(t *testing.T, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func say(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	message := []byte(text)
	if conn.LocalAddr().Network() == "tcp" {
		message = append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...)
	}
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	buffer := make([]byte, 65535)
	var n int
	var err error
	if conn.LocalAddr().Network() == "tcp" {
		if _, err = io.ReadFull(conn, buffer[:2]); err == nil {
			n, err = io.ReadFull(conn, buffer[:binary.BigEndian.Uint16(buffer)])
		}
	} else {
		n, err = conn.Read(buffer)
	}
	if err != nil || string(buffer[:n]) != want {
		t.Fatalf("heard %q, %v; want %q", buffer[:n], err, want)
	}
}

// hearEnd waits until the server closes the connection.
func hearEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("the connection is still open: %d octets, %v", n, err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestEveryClientIsAnswered(t *testing.T) {
	for _, sockets := range []int{1, 3} {
		s := start(t, Options{Sockets: sockets})
		var all sync.WaitGroup
		for client := range 20 {
			all.Go(func() {
				conn, err := net.Dial("udp", s.Addrs()[0].String())
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				for i := range 200 {
					text := fmt.Sprintf("client %d, query %d", client, i)
					buffer := make([]byte, 100)
					_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
					_, errWrite := conn.Write([]byte(text))
					n, errRead := conn.Read(buffer)
					if errWrite != nil || errRead != nil || string(buffer[:n]) != text {
						t.Errorf("%s: heard %q, %v", text, buffer[:n], errors.Join(errWrite, errRead))
						return
					}
				}
			})
		}
		all.Wait()
	}
}

func TestPacketsOfEverySize(t *testing.T) {
	s := start(t, Options{})
	conn := dial(t, "udp", s.Addrs()[0])
	for _, size := range []int{1, 2, 11, 12, 512, maxPacketQuery} {
		text := strings.Repeat("x", size)
		say(t, conn, text)
		hear(t, conn, text)
	}
	// What is longer than any query is dropped, and so is nothing at all.
	say(t, conn, strings.Repeat("y", maxPacketQuery+1))
	say(t, conn, "")
	say(t, conn, "none")
	say(t, conn, "after")
	hear(t, conn, "after")
}

// TestAnswersLeaveFromTheAddressAsked holds for a socket that is bound to all
// addresses: a client takes answers from nowhere else.
func TestAnswersLeaveFromTheAddressAsked(t *testing.T) {
	s := start(t, Options{Listen: []string{":0"}})
	port := s.Addrs()[0].Port()
	for _, host := range []string{"127.0.0.1", "127.1.2.3", "::1"} {
		addr := netip.MustParseAddr(host)
		if addr.Is6() && len(s.Addrs()) < 2 {
			t.Logf("no IPv6 here")
			continue
		}
		for _, network := range []string{"udp", "tcp"} {
			conn := dial(t, network, netip.AddrPortFrom(addr, port)) // connected: it hears that address only
			say(t, conn, "who is there")
			hear(t, conn, "who is there")
		}
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	s := start(t, Options{})
	if other, err := New(Options{Listen: []string{s.Addrs()[0].String()}, Handler: echo{}}); err == nil {
		_ = other.Close()
		t.Error("two servers listen on one address")
	}
	for _, address := range []string{"127.0.0.1", "localhost:0", "127.0.0.1:65536", "192.0.2.1:0"} {
		if other, err := New(Options{Listen: []string{"127.0.0.1:0", address}, Handler: echo{}}); err == nil {
			_ = other.Close()
			t.Errorf("listening on %s succeeds", address)
		}
	}
}

func TestStreamsArePipelined(t *testing.T) {
	s := start(t, Options{})
	conn := dial(t, "tcp", s.Addrs()[0])
	var sent bytes.Buffer
	for i := range 100 {
		text := fmt.Sprintf("query %d", i)
		sent.Write(binary.BigEndian.AppendUint16(nil, uint16(len(text))))
		sent.WriteString(text)
	}
	if _, err := conn.Write(sent.Bytes()); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		hear(t, conn, fmt.Sprintf("query %d", i))
	}
	say(t, conn, "twice")
	hear(t, conn, "twice")
	hear(t, conn, "twice")
	say(t, conn, "none")
	say(t, conn, "end")
	hearEnd(t, conn)
}

func TestStreamsThatWasteTimeAreClosed(t *testing.T) {
	s := start(t, Options{Idle: 300 * time.Millisecond, Patience: 200 * time.Millisecond})
	t.Run("says nothing", func(t *testing.T) { hearEnd(t, dial(t, "tcp", s.Addrs()[0])) })
	t.Run("says half", func(t *testing.T) {
		conn := dial(t, "tcp", s.Addrs()[0])
		if _, err := conn.Write([]byte{0, 10, 'a'}); err != nil {
			t.Fatal(err)
		}
		hearEnd(t, conn)
	})
	t.Run("drips", func(t *testing.T) {
		conn := dial(t, "tcp", s.Addrs()[0])
		end := make(chan struct{})
		go func() {
			defer close(end)
			for range 400 { // each octet well within Idle and Patience
				if _, err := conn.Write([]byte{1}); err != nil {
					return
				}
				<-time.After(20 * time.Millisecond)
			}
		}()
		hearEnd(t, conn)
		<-end
	})
	t.Run("does not listen", func(t *testing.T) {
		conn := dial(t, "tcp", s.Addrs()[0])
		query := append([]byte{0x0f, 0xff}, bytes.Repeat([]byte("x"), 0x0fff)...)
		for {
			if _, err := conn.Write(query); err != nil {
				break // the server gave up on us
			}
		}
	})
	t.Run("says too much", func(t *testing.T) {
		conn := dial(t, "tcp", s.Addrs()[0])
		if _, err := conn.Write([]byte{0xff, 0xff}); err != nil {
			t.Fatal(err)
		}
		hearEnd(t, conn)
	})
}

func TestTheLongestIdleStreamMakesRoom(t *testing.T) {
	s := start(t, Options{MaxConns: 3, MaxConnsPerHost: 3, Idle: time.Minute})
	var conns []net.Conn
	for i := range 3 {
		conn := dial(t, "tcp", s.Addrs()[0])
		say(t, conn, "hello") // which orders the idle times
		hear(t, conn, "hello")
		conns = append(conns, conn)
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			n := s.conns.idleCount()
			return n == i+1, fmt.Sprintf("%d idle", n)
		})
	}
	say(t, conns[0], "again")
	hear(t, conns[0], "again")
	testkit.Eventually(t, 10*time.Second, func() (bool, string) { return s.conns.idleCount() == 3, "" })

	// One address may not have more than its share, however idle.
	hearEnd(t, dial(t, "tcp", s.Addrs()[0]))
	// Another address may: the second connection, idle the longest, makes room.
	elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	other, err := elsewhere.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_ = other.SetDeadline(time.Now().Add(20 * time.Second))
	say(t, other, "I am new")
	hear(t, other, "I am new")
	hearEnd(t, conns[1])
	for _, i := range []int{0, 2} {
		say(t, conns[i], "still here")
		hear(t, conns[i], "still here")
	}
}

// idleCount is the number of connections that wait for a query.
func (cs *connections) idleCount() (n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		if !c.since.IsZero() {
			n++
		}
	}
	return n
}

func TestCloseEndsEverything(t *testing.T) {
	s := start(t, Options{Listen: []string{"127.0.0.1:0", "127.0.0.2:0"}, Sockets: 2})
	conn := dial(t, "tcp", s.Addrs()[0])
	say(t, conn, "hello")
	hear(t, conn, "hello")
	packets := dial(t, "udp", s.Addrs()[1])
	say(t, packets, "hello")
	hear(t, packets, "hello")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	hearEnd(t, conn)
	again := start(t, Options{Listen: []string{s.Addrs()[0].String()}}) // the port is free
	_ = again
}
