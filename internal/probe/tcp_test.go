package probe

import (
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

func tcp(port int, interval time.Duration) upkeep.Check {
	return upkeep.Check{Type: upkeep.CheckTCP, Port: port, Interval: every(interval)}
}

func TestTCP(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		listener, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
		if err != nil {
			t.Fatal(err)
		}
		c := tcp(port(t, listener.Addr()), time.Second)
		// Nobody accepts: that the kernel does is all a tcp check can tell.
		same(t, "open, "+addr, once(t, addr, c), Result{OK: true})
		_ = listener.Close()
		same(t, "closed, "+addr, once(t, addr, c), Result{Refused: true, Reason: "connection refused"})
	}
}

// TestTCPReset has a server that resets what it accepts.
func TestTCPReset(t *testing.T) {
	p := serve(t, func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) })
	e := newEngine(t, Options{})
	o := newObserver()
	c := tcp(p, 50*time.Millisecond)
	e.Set(map[Key]Spec{"k": {Target: "127.0.0.1", Check: c, Observe: o.observe}})
	// Whether the reset is seen depends on who is quicker; nothing else is.
	for range 10 {
		if r := o.wait(t, 1); !r.OK && (!r.Refused || r.Reason != "connection reset") {
			t.Errorf("got %+v", r)
		}
	}
}

// TestTCPNetwork has hosts that are silent, that answer late, and that are not
// there.
func TestTCPNetwork(t *testing.T) {
	if !apart(t) {
		return
	}
	newCable(t, func(w *cable, to netip.Addr, packet []byte) {
		switch to.String() {
		case "10.9.0.17":
			w.deliver(0, complaint(packet, "10.9.0.254", icmp4Unreachable, 1, 500))
		case "10.9.0.18":
			w.deliver(20*time.Millisecond, reset(packet))
		}
	})
	c := tcp(8081, time.Second)
	same(t, "silent", once(t, "10.9.0.16", c), Result{Reason: "no answer within 500ms"})
	same(t, "silent, IPv6", once(t, "fd09::16", c), Result{Reason: "no answer within 500ms"})
	same(t, "unreachable", once(t, "10.9.0.17", c), Result{Refused: true, Reason: "host unreachable"})
	same(t, "refused from afar", once(t, "10.9.0.18", c), Result{Refused: true, Reason: "connection refused"})
	same(t, "no route", once(t, "203.0.113.1", c), Result{Reason: "network unreachable: no route from here"})
}

// reset answers a TCP segment with a reset.
func reset(packet []byte) []byte {
	tcp := packet[ip4Least:]
	p := make([]byte, ip4Least+20)
	copy(p, packet[:ip4Least])
	p[3] = byte(len(p))
	copy(p[12:], packet[16:20])
	copy(p[16:], packet[12:16])
	r := p[ip4Least:]
	copy(r, tcp[2:4])
	copy(r[2:], tcp[:2])
	copy(r[8:], tcp[4:8]) // acknowledges the SYN, which counts as one
	for i := 11; i >= 8; i-- {
		if r[i]++; r[i] != 0 {
			break
		}
	}
	r[12], r[13] = 5<<4, 0x14 // RST, ACK
	pseudo := append(append([]byte{}, p[12:20]...), 0, 6, 0, 20)
	sum := checksum(append(pseudo, r...))
	r[16], r[17] = byte(sum>>8), byte(sum)
	p[10], p[11] = 0, 0
	sum = checksum(p[:ip4Least])
	p[10], p[11] = byte(sum>>8), byte(sum)
	return p
}

// TestTCPToItself leaves the kernel no port for the near end but the one that is
// asked: without a look at that, the target would now and then be found well.
func TestTCPToItself(t *testing.T) {
	if !apart(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40001"), 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	met := false
	for range 100 {
		if unix.Connect(fd, &unix.SockaddrInet4{Port: 40000, Addr: [4]byte{127, 0, 0, 1}}) == nil {
			met = true
			break
		}
	}
	unix.Close(fd)
	if !met {
		t.Fatal("the kernel never connects a socket to itself; the test shows nothing")
	}
	e := newEngine(t, Options{})
	o := newObserver()
	e.Set(map[Key]Spec{"k": {Target: "127.0.0.1", Check: tcp(40000, 50*time.Millisecond), Observe: o.observe}})
	o.wait(t, 20)
	for _, r := range o.all() {
		if r.OK || !r.Refused || r.Reason != "connection refused" {
			t.Fatalf("got %+v", r)
		}
	}
}

// TestTCPNoDescriptors runs out of file descriptors: targets are not blamed for
// it, and are asked when there is room again.
func TestTCPNoDescriptors(t *testing.T) {
	if !apart(t) {
		return
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, Options{})
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // all are taken by now
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	o := newObserver()
	e.Set(map[Key]Spec{"k": {Target: "127.0.0.1", Check: tcp(port(t, listener.Addr()), 200*time.Millisecond), Observe: o.observe}})
	eventually(t, "probes are put off", func() bool { return e.Stats().PutOff > 2 })
	if all := o.all(); len(all) != 0 {
		t.Errorf("observed %+v", all)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if r := o.wait(t, 1); !r.OK {
		t.Errorf("got %+v", r)
	}
}
