package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

func lockThread() { runtime.LockOSThread() }

// echo answers an echo request: the packet turned round.
func echo(packet []byte) []byte {
	p := slices.Clone(packet)
	if p[0]>>4 == 4 {
		copy(p[12:16], packet[16:20])
		copy(p[16:20], packet[12:16])
		p[ip4Least] = icmp4EchoReply
	} else {
		copy(p[8:24], packet[24:40])
		copy(p[24:40], packet[8:24])
		p[ip6Size] = icmp6EchoReply
	}
	return mend(p)
}

// mend writes the checksums anew.
func mend(p []byte) []byte {
	if p[0]>>4 == 4 {
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], checksum(p[:ip4Least]))
		icmp := p[ip4Least:]
		icmp[2], icmp[3] = 0, 0
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
		return p
	}
	icmp := p[ip6Size:]
	icmp[2], icmp[3] = 0, 0
	pseudo := slices.Concat(p[8:40], []byte{0, 0, byte(len(icmp) >> 8), byte(len(icmp)), 0, 0, 0, 58}, icmp)
	binary.BigEndian.PutUint16(icmp[2:], checksum(pseudo))
	return p
}

// complaint is an ICMP error of router about packet, of which it quotes n bytes.
func complaint(packet []byte, router string, kind, code byte, n int) []byte {
	by := netip.MustParseAddr(router)
	icmp := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, packet[:min(n, len(packet))]...)
	var p []byte
	if by.Is4() {
		p = make([]byte, ip4Least)
		p[0], p[8], p[9] = 0x45, 64, 1
		binary.BigEndian.PutUint16(p[2:], uint16(ip4Least+len(icmp)))
		copy(p[12:], by.AsSlice())
		copy(p[16:], packet[12:16])
	} else {
		p = make([]byte, ip6Size)
		p[0], p[6], p[7] = 0x60, 58, 64
		binary.BigEndian.PutUint16(p[4:], uint16(len(icmp)))
		copy(p[8:], by.AsSlice())
		copy(p[24:], packet[8:24])
	}
	return mend(append(p, icmp...))
}

// TestPingNetwork has hosts of all kinds on one network.
func TestPingNetwork(t *testing.T) {
	if !apart(t) {
		return
	}
	newCable(t, func(w *cable, to netip.Addr, packet []byte) {
		start := ip4Least
		if to.Is6() {
			start = ip6Size
		}
		if kind := packet[start]; kind != icmp4EchoRequest && kind != icmp6EchoRequest {
			return
		}
		switch to.String() {
		case "10.9.0.10", "fd09::10":
			w.deliver(0, echo(packet))
		case "10.9.0.12", "fd09::12": // twice
			w.deliver(0, echo(packet))
			w.deliver(0, echo(packet))
		case "10.9.0.13", "fd09::13": // who guesses everything but the seal
			forged := echo(packet)
			forged[start+icmpHeader+tokenSize-1] ^= 1
			w.deliver(0, mend(forged))
		case "10.9.0.14", "fd09::14": // from another host
			forged := echo(packet)
			forged[start-1] = 0 // the last byte of the destination, or of the source
			if to.Is4() {
				forged[start-1] = packet[15]
				forged[15] ^= 1
			} else {
				forged[start-1], forged[23] = packet[23], forged[23]^1
			}
			w.deliver(0, mend(forged))
		case "10.9.0.17":
			w.deliver(0, complaint(packet, "10.9.0.254", icmp4Unreachable, 1, 500))
		case "fd09::17":
			w.deliver(0, complaint(packet, "fd09::fe", icmp6Unreachable, 3, 500))
		case "10.9.0.18": // quotes no more than RFC 792 demands: anyone could have
			w.deliver(0, complaint(packet, "10.9.0.254", icmp4Unreachable, 1, ip4Least+8))
		case "fd09::18":
			w.deliver(0, complaint(packet, "fd09::fe", icmp6Unreachable, 3, ip6Size+8))
		case "10.9.0.19", "fd09::19": // cut short
			short := echo(packet)[:start+icmpHeader+tokenSize-1]
			if to.Is4() {
				binary.BigEndian.PutUint16(short[2:], uint16(len(short)))
			} else {
				binary.BigEndian.PutUint16(short[4:], uint16(len(short)-ip6Size))
			}
			w.deliver(0, mend(short))
		}
	})
	e := newEngine(t, Options{})
	c := upkeep.Check{Type: upkeep.CheckPing, Interval: every(2500 * time.Millisecond), Timeout: every(2 * time.Second)}
	const silence = "no answer within 2s"
	want := map[string]Result{
		"10.9.0.10": {OK: true}, "fd09::10": {OK: true},
		"10.9.0.11": {Reason: silence}, "fd09::11": {Reason: silence},
		"10.9.0.12": {OK: true}, "fd09::12": {OK: true},
		"10.9.0.13": {Reason: silence}, "fd09::13": {Reason: silence},
		"10.9.0.14": {Reason: silence}, "fd09::14": {Reason: silence},
		"10.9.0.17":   {Refused: true, Reason: "host unreachable, says 10.9.0.254"},
		"fd09::17":    {Refused: true, Reason: "host unreachable, says fd09::fe"},
		"10.9.0.18":   {Reason: silence},
		"fd09::18":    {Reason: silence},
		"10.9.0.19":   {Reason: silence},
		"fd09::19":    {Reason: silence},
		"203.0.113.1": {Reason: "network unreachable: no route from here"},
	}
	specs, observers := map[Key]Spec{}, map[string]*observer{}
	for addr := range want {
		o := newObserver()
		specs[KeyOf(addr, c)] = Spec{Target: addr, Check: c, Observe: o.observe}
		observers[addr] = o
	}
	e.Set(specs)
	for addr, o := range observers {
		for range 2 { // the second one finds the leavings of the first
			r := o.wait(t, 1)
			if r.OK != (r.RTT > 0) || r.RTT > 2*time.Second {
				t.Errorf("%s: RTT %v", addr, r.RTT)
			}
			r.At, r.RTT = time.Time{}, 0
			if r != want[addr] {
				t.Errorf("%s:\n got %+v\nwant %+v", addr, r, want[addr])
			}
		}
	}
	// Two of each that is to be counted have been seen by now, of each family.
	if s := e.Stats(); s.Duplicates < 2 || s.Strays < 8 || s.Late != 0 || s.Overflow != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestPingLate has a host whose answers take longer than a shortened timeout.
func TestPingLate(t *testing.T) {
	if !apart(t) {
		return
	}
	newCable(t, func(w *cable, to netip.Addr, packet []byte) {
		if packet[0]>>4 == 4 && packet[ip4Least] == icmp4EchoRequest {
			w.deliver(150*time.Millisecond, echo(packet))
		}
	})
	e := newEngine(t, Options{})
	c := upkeep.Check{Type: upkeep.CheckPing, Interval: every(time.Second), Timeout: every(900 * time.Millisecond)}
	o := newObserver()
	o.next = Next{Timeout: 30 * time.Millisecond}
	e.Set(map[Key]Spec{"k": {Target: "10.9.0.20", Check: c, Observe: o.observe}})
	o.wait(t, 3)
	all := o.all()
	// The first is patient.
	if r := all[0]; !r.OK || r.Late || r.RTT < 150*time.Millisecond {
		t.Errorf("first: %+v", r)
	}
	if r := all[1]; r.OK || r.Reason != "no answer within 30ms" {
		t.Errorf("second: %+v", r)
	}
	if r := all[2]; !r.OK || !r.Late || r.RTT < 150*time.Millisecond || r.RTT > 900*time.Millisecond {
		t.Errorf("late: %+v", r)
	}
	if s := e.Stats(); s.Late == 0 || s.Strays != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestPingPermission goes through the ways to be allowed to ping.
func TestPingPermission(t *testing.T) {
	if !apart(t) {
		return
	}
	check := upkeep.Check{Type: upkeep.CheckPing}
	e := newEngine(t, Options{})
	if err := e.Preflight(check); err != nil {
		t.Errorf("with CAP_NET_RAW: %v", err)
	}
	groups := func(text string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	groups("1 0")
	withoutRaw(t, func() {
		err := e.Preflight(check)
		if err == nil {
			t.Fatal("without CAP_NET_RAW and ping sockets: Preflight has nothing to say")
		}
		for _, want := range []string{"CAP_NET_RAW", "net.ipv4.ping_group_range (1 0)", "group 0"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	})
	groups("0 0")
	withoutRaw(t, func() {
		if err := e.Preflight(check); err != nil {
			t.Errorf("with ping sockets: %v", err)
		}
	})
}

// TestPingSockets pings without privileges.
func TestPingSockets(t *testing.T) {
	if !apart(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		t.Fatal(err)
	}
	newCable(t, func(w *cable, to netip.Addr, packet []byte) {
		switch {
		case to == netip.MustParseAddr("10.9.0.10"), to == netip.MustParseAddr("fd09::10") && packet[ip6Size] == icmp6EchoRequest:
			w.deliver(0, echo(packet))
			w.deliver(0, echo(packet))
		}
	})
	e := newEngine(t, Options{})
	l := e.loops[0]
	withoutRaw(t, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for family := range 2 {
			s, err := l.ping.socket(l, family)
			if err != nil {
				t.Fatal(err)
			}
			if s.raw {
				t.Fatal("that is a raw socket")
			}
		}
	})
	c := upkeep.Check{Type: upkeep.CheckPing, Interval: every(200 * time.Millisecond)}
	specs, observers := map[Key]Spec{}, map[string]*observer{}
	for _, addr := range []string{"127.0.0.1", "::1", "10.9.0.10", "fd09::10", "10.9.0.11"} {
		o := newObserver()
		specs[KeyOf(addr, c)] = Spec{Target: addr, Check: c, Observe: o.observe}
		observers[addr] = o
	}
	e.Set(specs)
	for addr, o := range observers {
		r := o.wait(t, 3)
		if want := addr != "10.9.0.11"; r.OK != want || want && r.RTT <= 0 {
			t.Errorf("%s: %+v", addr, r)
		}
	}
	if s := e.Stats(); s.Duplicates == 0 {
		t.Errorf("no duplicate was counted: %+v", s)
	}
}

// FuzzICMP gives arbitrary packets to the parsers and to a loop with members.
func FuzzICMP(f *testing.F) {
	good := make([]byte, ip4Least+echoSize)
	good[0] = 0x45
	copy(good[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	putEcho(good[ip4Least:], icmp4EchoRequest, 7, 8, token{0, 5, 6})
	f.Add(echo(good))
	f.Add(complaint(good, "10.0.0.1", icmp4Unreachable, 3, 100))
	f.Add([]byte{0x4f, 0, 0})
	six := make([]byte, ip6Size+echoSize)
	six[0], six[6] = 0x60, 58
	putEcho(six[ip6Size:], icmp6EchoRequest, 7, 8, token{0, 5, 6})
	f.Add(six[ip6Size:])
	f.Add(complaint(six, "fd09::1", icmp6TimeExceeded, 0, 100)[ip6Size:])
	l := &loop{clock: newClock(), wakeAt: forever}
	l.ping.init()
	l.table = []*member{{
		phase: flying, stamp: 5, addr: netip.MustParseAddr("127.0.0.1"), def: &definition{},
		observe: func(Result) Next { panic("an answer without the seal was believed") },
	}}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parseICMP4(b); ok {
			l.ping.match(l, a, l.clock.raw())
		}
		if a, ok := parseICMP6(b, netip.IPv6Loopback()); ok {
			l.ping.match(l, a, l.clock.raw())
		}
	})
}

func TestChecksum(t *testing.T) {
	// The example of RFC 1071, section 3.
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("got %#x", got)
	}
	if got := checksum([]byte{0x00, 0x01, 0xf2}); got != ^uint16(0xf201) {
		t.Errorf("odd length: got %#x", got)
	}
}

// TestPingOverflow leaves the socket next to no room for answers: none of those
// that are lost there is held against its target.
func TestPingOverflow(t *testing.T) {
	if !apart(t) {
		return
	}
	e := newEngine(t, Options{})
	l := e.loops[0]
	l.mu.Lock()
	s, err := l.ping.socket(l, 0)
	if err == nil {
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	}
	l.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	c := upkeep.Check{Type: upkeep.CheckPing, Interval: every(200 * time.Millisecond), Timeout: every(150 * time.Millisecond)}
	var ok, void, failed atomic.Int64
	specs := map[Key]Spec{}
	for i := range 500 {
		target := fmt.Sprintf("127.0.%d.%d", i/250, i%250+1)
		specs[KeyOf(target, c)] = Spec{Target: target, Check: c, Observe: func(r Result) Next {
			switch {
			case r.OK:
				ok.Add(1)
			case r.Void:
				void.Add(1)
			default:
				failed.Add(1)
			}
			return Next{}
		}}
	}
	e.Set(specs)
	eventually(t, "answers were lost and others came", func() bool { return void.Load() > 100 && ok.Load() > 100 })
	if n := failed.Load(); n > 0 || e.Stats().Overflow == 0 {
		t.Errorf("%d targets were blamed, %d answers lost", n, e.Stats().Overflow)
	}
}
