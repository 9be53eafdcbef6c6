package zone

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

// rrset names one set of address records.
type rrset struct {
	owner string // absolute, in lower case, without a final dot
	qtype uint16 // A or AAAA
}

func (s rrset) String() string { return s.owner + " " + dns.TypeToString[s.qtype] }

// records is the data of an rrset, sorted.
type records struct {
	ttl   time.Duration
	addrs []netip.Addr
}

// edit is one rrset that an update replaces: there must be exactly what was
// found there before, nothing if that was nothing.
type edit struct {
	set        rrset
	found, new records
}

// updateMessage makes the one message that carries all edits, so that nobody
// ever sees one of them without the others, nor a moment without addresses.
func updateMessage(zone string, edits []edit) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(dns.Fqdn(zone))
	seen := map[string]bool{}
	for _, e := range edits {
		if len(e.found.addrs) == 0 {
			m.RRsetNotUsed([]dns.RR{bare(e.set.owner, e.set.qtype)})
		} else {
			m.Used(addressRecords(e.set, e.found))
		}
		if !seen[e.set.owner] {
			seen[e.set.owner] = true
			// A server drops address records added beside an alias without a
			// word (RFC 2136 section 3.4.2.2).
			m.RRsetNotUsed([]dns.RR{bare(e.set.owner, dns.TypeCNAME)})
		}
	}
	for _, e := range edits {
		if len(e.found.addrs) > 0 {
			m.RemoveRRset([]dns.RR{bare(e.set.owner, e.set.qtype)})
		}
		m.Insert(addressRecords(e.set, e.new))
	}
	return m
}

// existsMessage asks whether an rrset exists, by a prerequisite without any
// update: a query cannot tell, since a wildcard answers it just as well.
func existsMessage(zone string, set rrset) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(dns.Fqdn(zone))
	m.RRsetUsed([]dns.RR{bare(set.owner, set.qtype)})
	return m
}

func bare(owner string, qtype uint16) dns.RR {
	return &dns.ANY{Hdr: dns.RR_Header{Name: dns.Fqdn(owner), Rrtype: qtype}}
}

func addressRecords(set rrset, r records) []dns.RR {
	rrs := make([]dns.RR, len(r.addrs))
	for i, addr := range r.addrs {
		header := dns.RR_Header{Name: dns.Fqdn(set.owner), Rrtype: set.qtype, Class: dns.ClassINET, Ttl: uint32(r.ttl / time.Second)}
		if set.qtype == dns.TypeA {
			rrs[i] = &dns.A{Hdr: header, A: net.IP(addr.AsSlice())}
		} else {
			rrs[i] = &dns.AAAA{Hdr: header, AAAA: net.IP(addr.AsSlice())}
		}
	}
	return rrs
}

// updateTimeouts are the waits for an answer to an update over UDP, then TCP.
const (
	updateUDPTimeout = 700 * time.Millisecond
	updateTCPTimeout = 5 * time.Second
)

// send sends an update and returns its rcode. It goes by UDP where it fits, and
// by TCP where it does not or no answer came; an update that was carried out
// although its answer was lost then fails its own prerequisites, which the
// caller finds out by looking again.
func (t target) send(ctx context.Context, m *dns.Msg) (int, error) {
	var answer *dns.Msg
	err := errTooLarge
	if m.Len() <= udpSize-tsigRoom {
		answer, err = exchange(ctx, m, t.server, "udp", updateUDPTimeout, t.key)
	}
	var netErr net.Error
	if err == errTooLarge || errors.As(err, &netErr) && netErr.Timeout() && ctx.Err() == nil || answer != nil && answer.Truncated {
		answer, err = exchange(ctx, m, t.server, "tcp", updateTCPTimeout, t.key)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("sending an update of %s to %s: %w", t.zone, t.server, noAnswer(err))
	case !answer.Response || answer.Opcode != dns.OpcodeUpdate:
		return 0, fmt.Errorf("sending an update of %s to %s: the answer is not one to an update", t.zone, t.server)
	case answer.IsTsig() == nil && answer.Rcode == dns.RcodeSuccess:
		return 0, fmt.Errorf("sending an update of %s to %s: the answer is not signed, so anybody may have sent it", t.zone, t.server)
	}
	return answer.Rcode, nil
}

var errTooLarge = errors.New("too large for UDP")

// tsigRoom is kept free for the signature, in bytes.
const tsigRoom = 200

// target is the server, zone and key of an update publisher.
type target struct {
	server, zone string
	key          Key
}

// prerequisiteFailed reports whether the rcode says that the zone is not as
// the message presumed.
func prerequisiteFailed(rcode int) bool {
	switch rcode {
	case dns.RcodeYXDomain, dns.RcodeYXRrset, dns.RcodeNXRrset, dns.RcodeNameError:
		return true
	}
	return false
}

// refusal turns an rcode other than success into an error with its own advice.
func (t target) refusal(rcode int) error {
	err := fmt.Errorf("%s refused the update of %s: %s", t.server, t.zone, dns.RcodeToString[rcode])
	name := strings.TrimSuffix(t.key.Name, ".")
	switch rcode {
	case dns.RcodeRefused:
		return upkeep.WithHint(err, fmt.Sprintf("the server knows the key %s but does not let it change these records; in BIND: zone %q { update-policy { grant %s zonesub A AAAA; }; }; on a secondary, set server to the primary",
			name, t.zone, name))
	case dns.RcodeNotAuth:
		return upkeep.WithHint(err, "the server is not the primary of the zone: set server to the one that is")
	case dns.RcodeNotZone:
		return upkeep.WithHint(err, "a record of the pool lies outside this zone, perhaps in a child zone of its own")
	case dns.RcodeNotImplemented:
		return upkeep.WithHint(err, "the server does not take dynamic updates at all: switch them on, or use another type of publisher")
	case dns.RcodeServerFailure:
		return upkeep.WithHint(err, "the server could not carry it out; often its user cannot write the zone's journal (FILE.jnl): see the server's log")
	case dns.RcodeFormatError:
		return upkeep.WithHint(err, "the server cannot read the message; is it something other than a DNS server for this zone, or a firewall that rewrites DNS?")
	}
	return err
}

// tsigError says why a server did not accept the signature.
type tsigError struct {
	code uint16
	what string
}

func (e *tsigError) Error() string { return e.what }

// tsigRefusal returns the error that the answer's TSIG record carries, if any
// (RFC 8945 section 5.2). The record is not signed when the key is unknown, so
// it is used for advice alone.
func tsigRefusal(answer *dns.Msg, key Key) error {
	sig := answer.IsTsig()
	if sig == nil || sig.Error == dns.RcodeSuccess {
		return nil
	}
	name := strings.TrimSuffix(key.Name, ".")
	switch int(sig.Error) {
	case dns.RcodeBadKey:
		return upkeep.WithHint(&tsigError{sig.Error, "BADKEY: the server has no key " + key.String()},
			"put the key file's statement into the server's configuration, with the same name and algorithm, and reload it")
	case dns.RcodeBadSig:
		return upkeep.WithHint(&tsigError{sig.Error, "BADSIG: the server has another secret for key " + name},
			"copy the key file from the server again; the secrets differ")
	case dns.RcodeBadTime:
		return upkeep.WithHint(&tsigError{sig.Error, "BADTIME: " + clockDifference(sig)},
			"set the clocks of both machines right, for example by running an NTP service on each")
	}
	return &tsigError{sig.Error, "TSIG error " + dns.RcodeToString[int(sig.Error)]}
}

// clockDifference reads the server's clock out of a BADTIME answer.
func clockDifference(sig *dns.TSIG) string {
	other, err := hex.DecodeString(sig.OtherData)
	if err != nil || len(other) != 6 {
		return fmt.Sprintf("the clocks differ by more than %d seconds", tsigFudge)
	}
	server, _ := strconv.ParseInt(sig.OtherData, 16, 64) // 6 octets of hexadecimal
	difference := time.Unix(server, 0).Sub(time.Unix(int64(sig.TimeSigned), 0))
	side := "ahead of"
	if difference < 0 {
		side, difference = "behind", -difference
	}
	return fmt.Sprintf("the server's clock is %s %s this machine's; %ds are allowed", upkeep.Duration(difference), side, tsigFudge)
}

// serialMessage makes the message that replaces the SOA by one that differs in
// its serial alone, while it is as it was found.
func serialMessage(soa *dns.SOA, serial uint32) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(soa.Hdr.Name)
	m.Used([]dns.RR{dns.Copy(soa)})
	renumbered := dns.Copy(soa).(*dns.SOA)
	renumbered.Serial = serial
	m.Insert([]dns.RR{renumbered})
	return m
}
