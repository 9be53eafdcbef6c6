package zone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

// Each reason for which a server refuses an update has advice of its own.
func TestUpdateRefusals(t *testing.T) {
	lab := newUpdateLab(t)
	for name, c := range map[string]struct {
		key  string
		zone string
		want []string
	}{
		"unknown key": {
			key:  strings.Replace(updateKey, `"upkeep"`, `"other"`, 1),
			want: []string{"BADKEY", "the server has no key other", "put the key file's statement"},
		},
		"another secret": {
			key:  strings.Replace(updateKey, "c2Vj", "AAAA", 1),
			want: []string{"BADSIG", "another secret for key upkeep", "copy the key file"},
		},
		"another algorithm": {
			key:  strings.Replace(updateKey, "hmac-sha256", "hmac-sha512", 1),
			want: []string{"BADKEY"},
		},
		"a key that may not": {
			key:  `key "weak" { algorithm hmac-sha256; secret "d2Vhay13ZWFrLXdlYWstd2Vhay13ZWFr"; };`,
			want: []string{"REFUSED", "update-policy { grant weak zonesub A AAAA; }"},
		},
		"a zone that is not dynamic": {zone: "fixed.test", want: []string{"REFUSED", "update-policy"}},
		"a zone of nobody":           {zone: "nowhere.test", want: []string{"REFUSED"}},
	} {
		t.Run(name, func(t *testing.T) {
			z := lab.zone
			p := z.Publishers[0]
			if c.key != "" {
				p.Key = lab.keyFile(t, c.key)
			}
			if c.zone != "" {
				z.Name = c.zone
			}
			pub, err := NewUpdate(z, p, UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			content := lab.content([]string{"@"}, "192.0.2.1")
			content.Zone = z
			_, err = pub.Publish(t.Context(), content)
			demandError(t, err, c.want...)
		})
	}
	if _, err := NewUpdate(lab.zone, upkeep.Publisher{Key: "/nonexistent"}, UpdateOptions{}); err == nil {
		t.Error("a key file that is missing was accepted")
	}
}

// The rcodes that a sane server gives to a sane message seldom.
func TestUpdateRcodes(t *testing.T) {
	key, err := ParseKey([]byte(updateKey))
	if err != nil {
		t.Fatal(err)
	}
	for rcode, want := range map[int]string{
		dns.RcodeNotAuth: "set server to the one that is", dns.RcodeNotZone: "outside this zone", dns.RcodeNotImplemented: "does not take dynamic updates",
		dns.RcodeServerFailure: "journal", dns.RcodeFormatError: "cannot read the message",
	} {
		server := fakeUpdateServer(t, key, nil, func(m *dns.Msg) { m.Rcode = rcode })
		pub := updateTo(t, server)
		_, err := pub.Publish(t.Context(), Content{Zone: testZone(), Sets: poolSets("192.0.2.1")})
		demandError(t, err, dns.RcodeToString[rcode], want)
	}
}

// fakeUpdateServer has an empty zone and answers updates with what change makes
// of a success; drop may leave a message unanswered.
func fakeUpdateServer(t *testing.T, key Key, drop func(w dns.ResponseWriter, r *dns.Msg) bool, change func(m *dns.Msg)) string {
	t.Helper()
	s := func(w dns.ResponseWriter, r *dns.Msg) {
		if drop != nil && drop(w, r) {
			return
		}
		m := new(dns.Msg)
		m.SetReply(r)
		m.Authoritative = true
		if r.Opcode == dns.OpcodeUpdate {
			change(m)
		} else if r.Question[0].Qtype == dns.TypeSOA {
			m.Answer = rr(t, "example.test. 60 SOA ns1 host 100 1 1 1 1")
		}
		if r.IsTsig() != nil && m.Id == r.Id {
			m.SetTsig(key.Name, key.Algorithm, tsigFudge, time.Now().Unix())
		}
		_ = w.WriteMsg(m) // the client may have gone
	}
	return fakeSignedServer(t, key, s)
}

func updateTo(t *testing.T, server string) *UpdatePublisher {
	t.Helper()
	lab := &updateLab{}
	pub, err := NewUpdate(testZone(), upkeep.Publisher{Server: server, Key: lab.keyFile(t, updateKey)}, UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// BADTIME tells the server's clock. The message is signed as a machine would
// whose clock is an hour slow.
func TestUpdateClocksDiffer(t *testing.T) {
	lab := newUpdateLab(t)
	key, err := ReadKeyFile(lab.key)
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	m.SetQuestion("example.test.", dns.TypeSOA)
	m.SetTsig(key.Name, key.Algorithm, tsigFudge, time.Now().Add(-time.Hour).Unix())
	answer, _, err := (&dns.Client{TsigSecret: key.Secrets()}).ExchangeContext(t.Context(), m, lab.Addr)
	if answer == nil {
		t.Fatal(err)
	}
	demandError(t, tsigRefusal(answer, key), "BADTIME", "the server's clock is 1h", "ahead of", "NTP")
}

// An answer that is not signed may be anybody's.
func TestUpdateUnsignedAnswer(t *testing.T) {
	server := fakeServer(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(r)
		m.Authoritative = true
		if r.Opcode != dns.OpcodeUpdate && r.Question[0].Qtype == dns.TypeSOA {
			m.Answer = rr(t, "example.test. 60 SOA ns1 host 100 1 1 1 1")
		}
		_ = w.WriteMsg(m)
	})
	_, err := updateTo(t, server).Publish(t.Context(), Content{Zone: testZone(), Sets: poolSets("192.0.2.1")})
	demandError(t, err, "not signed")
}

// An update whose answer is lost is sent again over TCP. It was carried out the
// first time, so its prerequisites fail the second time, and looking again finds
// the zone as wanted.
func TestUpdateAnswerLost(t *testing.T) {
	lab := newUpdateLab(t)
	lab.publish(t, lab.content(apexAndAll, "192.0.2.1"))
	var lost atomic.Bool
	relay := relayTo(t, lab.Addr, func(question []byte, ask func() []byte) []byte {
		answer := ask()
		if isUpdate(question) && lost.CompareAndSwap(false, true) {
			return nil
		}
		return answer
	})
	p := lab.zone.Publishers[0]
	p.Server = relay
	pub, err := NewUpdate(lab.zone, p, UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	content := lab.content(apexAndAll, "192.0.2.2")
	serial, err := pub.Publish(t.Context(), content)
	if err != nil {
		t.Fatal(err)
	}
	if !lost.Load() {
		t.Error("no answer was lost")
	}
	if status := Prove(t.Context(), lab.Addr, "example.test", serial, content.Sets); !status.InSync {
		t.Error(status.Error)
	}
	if again := lab.served(t); again != serial {
		t.Errorf("serial %d, then %d", serial, again)
	}
}

// isUpdate looks at the opcode (RFC 1035 section 4.1.1).
func isUpdate(message []byte) bool { return message[2]&0x78>>3 == dns.OpcodeUpdate }

// Somebody writes between the look and the update: the prerequisites stop the
// update, and the next look finds what is there.
func TestUpdateRace(t *testing.T) {
	lab := newUpdateLab(t)
	lab.publish(t, lab.content(apexAndAll, "192.0.2.1"))
	var raced atomic.Int32
	var intruder string
	relay := relayTo(t, lab.Addr, func(question []byte, ask func() []byte) []byte {
		if isUpdate(question) && raced.Add(1) == 1 {
			lab.nsupdate(t, func(m *dns.Msg) { m.Insert(rr(t, "www.example.test. 60 A "+intruder)) })
		}
		return ask()
	})
	for n, c := range []struct {
		intruder, want string
	}{{"192.0.2.3", ""}, {"203.0.113.9", "www.example.test A has 192.0.2.2, 203.0.113.9"}} {
		raced.Store(0)
		intruder = c.intruder
		p := lab.zone.Publishers[0]
		p.Server = relay
		pub, err := NewUpdate(lab.zone, p, UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		content := lab.content(apexAndAll, fmt.Sprintf("192.0.2.%d", 2+n))
		_, err = pub.Publish(t.Context(), content)
		if c.want == "" && err != nil {
			t.Errorf("a member written in between: %v", err)
		} else if c.want != "" {
			demandError(t, err, c.want)
		}
		if raced.Load() < 2 {
			t.Error("the update was not tried again")
		}
	}
}

// relayTo passes datagrams and connections on to a server as they are. What
// comes back for a datagram is what pass makes of it, nil for nothing.
func relayTo(t *testing.T, server string, pass func(question []byte, ask func() []byte) []byte) string {
	t.Helper()
	tcp, udp := listenBoth(t)
	t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
	go func() {
		for {
			question := make([]byte, 64<<10)
			n, from, err := udp.ReadFrom(question)
			if err != nil {
				return // closed
			}
			go func() {
				answer := pass(question[:n], func() []byte { return askRaw(server, question[:n]) })
				if answer != nil {
					_, _ = udp.WriteTo(answer, from) // a test's own socket
				}
			}()
		}
	}()
	go func() {
		for {
			in, err := tcp.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer in.Close()
				onward, err := net.Dial("tcp4", server)
				if err != nil {
					return
				}
				defer onward.Close()
				go func() { _, _ = io.Copy(onward, in) }()
				_, _ = io.Copy(in, onward)
			}()
		}
	}()
	return tcp.Addr().String()
}

func askRaw(server string, question []byte) []byte {
	onward, err := net.Dial("udp4", server)
	if err != nil {
		return nil
	}
	defer onward.Close()
	answer := make([]byte, 64<<10)
	if _, err := onward.Write(question); err != nil {
		return nil
	}
	n, err := onward.Read(answer)
	if err != nil {
		return nil
	}
	return answer[:n]
}

func (l *updateLab) served(t *testing.T) uint32 {
	t.Helper()
	serial, err := ServedSerial(t.Context(), l.Addr, "example.test")
	if err != nil {
		t.Fatal(err)
	}
	return serial
}

// Everything goes in one message, over TCP where it is too large for UDP, and
// nobody ever sees a name without addresses or half of a change.
func TestUpdateIsAtomic(t *testing.T) {
	lab := newUpdateLab(t)
	pool := func(net byte) (list []netip.Addr) {
		for i := range 100 {
			list = append(list, netip.AddrFrom4([4]byte{198, 51, net, byte(i)}))
		}
		return list
	}
	content := func(net byte) Content {
		c := Content{Zone: lab.zone}
		for _, owner := range apexAndAll {
			c.Sets = append(c.Sets, AddressSet{Owner: owner, TTL: time.Minute, Addresses: pool(net), Members: append(pool(100), pool(101)...)})
		}
		return c
	}
	lab.publish(t, content(100))
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			answer, err := query{server: lab.Addr, name: "www.example.test", qtype: dns.TypeA}.ask(ctx)
			if err != nil {
				continue // the end of the context
			}
			got, _, err := addresses(answer, "www.example.test", dns.TypeA)
			if err != nil || !slices.Equal(got, pool(100)) && !slices.Equal(got, pool(101)) {
				watched <- fmt.Errorf("seen %d addresses from %v, %w", len(got), got[:min(1, len(got))], err)
				return
			}
		}
		watched <- nil
	}()
	last := lab.served(t)
	for i := range 10 {
		serial := lab.publish(t, content(byte(100+(i+1)%2)))
		if serial != last+1 {
			t.Errorf("one change took the serial from %d to %d", last, serial)
		}
		last = serial
	}
	cancel()
	if err := <-watched; err != nil {
		t.Error(err)
	}
}

// The first publish takes over what is empty or holds members only.
func TestUpdateTakesOver(t *testing.T) {
	lab := newUpdateLab(t)
	lab.nsupdate(t, func(m *dns.Msg) {
		m.Insert(rr(t, "www.example.test. 300 A 192.0.2.1"))
		m.Insert(rr(t, "www.example.test. 300 A 192.0.2.3"))
	})
	lab.publish(t, lab.content(apexAndAll, "192.0.2.2"))
	if len(lab.said) != 1 || !strings.Contains(lab.said[0], "www.example.test A is upkeep's from now on") {
		t.Errorf("notices: %q", lab.said)
	}
}

func TestUpdateFirstPublishFindsStranger(t *testing.T) {
	lab := newUpdateLab(t)
	lab.nsupdate(t, func(m *dns.Msg) { m.Insert(rr(t, "www.example.test. 300 A 203.0.113.5")) })
	_, err := lab.pub.Publish(t.Context(), lab.content(apexAndAll, "192.0.2.2"))
	demandError(t, err, "www.example.test A has 203.0.113.5", "upkeep never wrote it", "make it a member")
	// Declared as a member, it is.
	content := lab.content(apexAndAll, "192.0.2.2")
	for i := range content.Sets {
		content.Sets[i].Members = append(slices.Clone(members), addrs("203.0.113.5")...)
	}
	lab.publish(t, content)
}

// An alias cannot have addresses beside it; servers drop them without a word.
func TestUpdateAlias(t *testing.T) {
	lab := newUpdateLab(t)
	serial, err := lab.pub.Publish(t.Context(), lab.content([]string{"@", "alias"}, "192.0.2.2"))
	demandError(t, err, "alias.example.test A is an alias (CNAME) of mail.example.test")
	if status := Prove(t.Context(), lab.Addr, "example.test", serial, lab.content([]string{"@"}, "192.0.2.2").Sets); !status.InSync {
		t.Errorf("the other owner: %s", status.Error)
	}
}

// What a wildcard answers with is not what is at the name.
func TestUpdateBelowWildcard(t *testing.T) {
	lab := newUpdateLab(t)
	lab.nsupdate(t, func(m *dns.Msg) { m.Insert(rr(t, "*.example.test. 300 A 203.0.113.5")) })
	lab.publish(t, lab.content([]string{"www"}, "192.0.2.2"))
	if status := Prove(t.Context(), lab.Addr, "example.test", lab.served(t), []AddressSet{{Owner: "*", TTL: 5 * time.Minute, Addresses: addrs("203.0.113.5")}}); !status.InSync {
		t.Errorf("the wildcard: %s", status.Error)
	}
	lab.restart(t)
	// The name emptied, the wildcard shows through, and that is not foreign.
	if _, err := lab.pub.Publish(t.Context(), Content{Zone: lab.zone, Sets: []AddressSet{{Owner: "www", TTL: time.Minute, Members: members}}}); err != nil {
		t.Fatal(err)
	}
	if status := Prove(t.Context(), lab.Addr, "example.test", lab.served(t), []AddressSet{{Owner: "www", TTL: 5 * time.Minute, Addresses: addrs("203.0.113.5")}}); !status.InSync {
		t.Errorf("the emptied name: %s", status.Error)
	}
	lab.restart(t)
	lab.publish(t, lab.content([]string{"www"}, "192.0.2.3"))
	if len(lab.said) > 0 {
		t.Errorf("notices: %q", lab.said)
	}
}

// A kill between the update and its record is not taken for a foreign writer,
// even when the pool has changed since.
func TestUpdateKilledBeforeRecord(t *testing.T) {
	lab := newUpdateLab(t)
	lab.publish(t, lab.content(apexAndAll, "192.0.2.1"))
	// What the process had saved just before it sent the next update.
	saving := &saveTwice{processMemory: lab.memory, keep: 1}
	pub, err := NewUpdate(lab.zone, lab.zone.Publishers[0], UpdateOptions{Memory: saving})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pub.Publish(t.Context(), lab.content(apexAndAll, "192.0.2.2", "192.0.2.3")); err != nil {
		t.Fatal(err)
	}
	lab.restart(t)
	content := lab.content(apexAndAll, "198.51.100.1")
	for i := range content.Sets {
		content.Sets[i].Members = addrs("198.51.100.1") // none of those before
	}
	lab.publish(t, content)
	if len(lab.said) > 0 {
		t.Errorf("notices: %q", lab.said)
	}
}

// saveTwice is a memory whose process dies after some saves.
type saveTwice struct {
	*processMemory
	keep int
}

func (m *saveTwice) Save(ctx context.Context, key string, value []byte) error {
	if m.keep--; m.keep < 0 {
		return errors.New("killed")
	}
	return m.processMemory.Save(ctx, key, value)
}

// A memory that fails holds nothing up.
func TestUpdateMemoryFails(t *testing.T) {
	lab := newUpdateLab(t)
	var said []string
	pub, err := NewUpdate(lab.zone, lab.zone.Publishers[0], UpdateOptions{
		Memory: &saveTwice{processMemory: &processMemory{}},
		Notice: func(_, what, _ string) { said = append(said, what) },
	})
	if err != nil {
		t.Fatal(err)
	}
	lab.pub = pub
	lab.publish(t, lab.content(apexAndAll, "192.0.2.1"))
	lab.publish(t, lab.content(apexAndAll, "192.0.2.2"))
	if len(said) != 1 {
		t.Errorf("notices: %q", said)
	}
}
