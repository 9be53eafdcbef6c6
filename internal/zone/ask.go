package zone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// askTimeouts are the waits of successive UDP attempts. On a path without loss
// the first one is never used up; a lost packet costs the first wait only.
var askTimeouts = [...]time.Duration{400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond}

// udpSize is the answer size offered by EDNS: what passes without fragments
// everywhere (DNS flag day 2020).
const udpSize = 1232

// tsigFudge is the clock difference in seconds that a signed message allows (RFC
// 8945 section 10 recommends 300).
const tsigFudge = 300

// query is one question to one name server, which is expected to have
// authority for the answer.
type query struct {
	server string // host:port
	name   string // absolute, with or without the final dot
	qtype  uint16
	key    Key // signs the question when not zero
}

// ask sends the question over UDP, again when no answer comes, and over TCP
// when the answer was truncated. Every attempt has a socket, a source port and
// a message id of its own. The answer is the server's whatever its rcode.
func (q query) ask(ctx context.Context) (*dns.Msg, error) {
	var last error
	for _, timeout := range askTimeouts {
		answer, err := q.once(ctx, "udp", timeout)
		if err == nil && answer.Truncated {
			answer, err = q.once(ctx, "tcp", 2*time.Second)
			if err == nil && answer.Truncated {
				err = errors.New("the answer is truncated even over TCP")
			}
		}
		if err == nil {
			return answer, nil
		}
		last = err
		var netErr net.Error
		if ctx.Err() != nil || !errors.As(err, &netErr) || !netErr.Timeout() {
			break
		}
	}
	return nil, fmt.Errorf("asking %s for %s %s: %w", q.server, plain(q.name), dns.TypeToString[q.qtype], noAnswer(last))
}

func (q query) once(ctx context.Context, network string, timeout time.Duration) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.name), q.qtype)
	m.RecursionDesired = false
	m.SetEdns0(udpSize, false)
	answer, err := exchange(ctx, m, q.server, network, timeout, q.key)
	if err != nil {
		return nil, err
	}
	// The library matches the id; the question is what makes an answer ours.
	if !answer.Response || len(answer.Question) != 1 || !strings.EqualFold(answer.Question[0].Name, m.Question[0].Name) ||
		answer.Question[0].Qtype != q.qtype {
		return nil, errors.New("the answer is to another question")
	}
	return answer, nil
}

// exchange sends one message, signed when there is a key, and returns what came
// back. An answer that says why the signature was refused is a *tsigError.
func exchange(ctx context.Context, m *dns.Msg, server, network string, timeout time.Duration, key Key) (*dns.Msg, error) {
	// A Conn would keep the last TSIG MAC, so that its second signed message
	// fails: a client per message.
	client := &dns.Client{Net: network, Timeout: timeout, UDPSize: udpSize}
	if !key.IsZero() {
		m = m.Copy()
		m.SetTsig(key.Name, key.Algorithm, tsigFudge, time.Now().Unix())
		client.TsigSecret = key.Secrets()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, _, err := client.ExchangeContext(ctx, m, server)
	if answer != nil && !key.IsZero() {
		if refused := tsigRefusal(answer, key); refused != nil {
			return answer, refused
		}
		// The library does not verify a NOTAUTH. It is no success, so that it may
		// be believed without.
		if answer.Rcode == dns.RcodeNotAuth && errors.Is(err, dns.ErrAuth) {
			return answer, nil
		}
	}
	return answer, err
}

// noAnswer puts in plain words what the network says of a server that does not
// answer.
func noAnswer(err error) error {
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return fmt.Errorf("no answer: %w", err)
	}
	return err
}

// ServedSerial asks a name server for the serial of the zone that it answers
// with authority.
func ServedSerial(ctx context.Context, server, zone string) (uint32, error) {
	return query{server: server, name: zone, qtype: dns.TypeSOA}.serial(ctx)
}

func (q query) serial(ctx context.Context) (uint32, error) {
	answer, err := q.ask(ctx)
	if err != nil {
		return 0, err
	}
	soa, err := soaOf(answer, q.name)
	if err != nil {
		return 0, fmt.Errorf("asking %s for %s SOA: %w", q.server, plain(q.name), err)
	}
	return soa.Serial, nil
}

// ServedAt is one zone at one name server.
type ServedAt struct{ Server, Zone string }

// servedBy asks several servers at a time and returns the serials of those that
// answered, and those that did not.
func servedBy(ctx context.Context, at []ServedAt) (serials []uint32, quiet []ServedAt) {
	var (
		mu   sync.Mutex
		done sync.WaitGroup
	)
	slots := make(chan struct{}, proveInFlight)
	for _, a := range at {
		slots <- struct{}{}
		done.Go(func() {
			defer func() { <-slots }()
			serial, err := ServedSerial(ctx, a.Server, a.Zone)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				quiet = append(quiet, a)
			} else {
				serials = append(serials, serial)
			}
		})
	}
	done.Wait()
	return serials, quiet
}

// soaOf returns the SOA record out of an answer with authority.
func soaOf(answer *dns.Msg, zone string) (*dns.SOA, error) {
	if err := authoritative(answer); err != nil {
		return nil, err
	}
	for _, rr := range answer.Answer {
		if soa, is := rr.(*dns.SOA); is && dns.CanonicalName(soa.Hdr.Name) == dns.CanonicalName(zone) {
			return soa, nil
		}
	}
	return nil, errors.New("the answer holds none")
}

// errNotServed means that whoever answers does not have the zone.
var errNotServed = errors.New("zone not served")

const typeSOA = dns.TypeSOA

// authoritative returns an error unless the message is an answer of a server
// that has the zone.
func authoritative(answer *dns.Msg) error {
	switch {
	case answer.Rcode == dns.RcodeServerFailure:
		return errors.New("SERVFAIL: the server has the zone but could not load it, or it has expired there")
	case answer.Rcode == dns.RcodeRefused:
		return fmt.Errorf("%w: REFUSED: the server does not have the zone, or does not answer this client", errNotServed)
	case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
		return fmt.Errorf("the server answers %s", dns.RcodeToString[answer.Rcode])
	case !answer.Authoritative:
		return fmt.Errorf("%w: the server has no authority for it", errNotServed)
	}
	return nil
}

func plain(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }
