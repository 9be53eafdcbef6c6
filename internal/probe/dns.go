package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

// dnsCheck asks a name server one question: over UDP, and over TCP when the
// answer is truncated.
type dnsCheck struct {
	port   uint16
	query  string
	qtype  uint16
	rcode  int
	want   []string // record data as dnsData writes it; any one will do
	dialer net.Dialer
}

// dnsPayload is the size of answers asked for by EDNS: what passes unfragmented
// everywhere (DNS flag day 2020).
const dnsPayload = 1232

func prepareDNS(_ *Engine, c upkeep.Check) (asker, error) {
	d := &dnsCheck{port: uint16(c.Port), query: dns.Fqdn(strings.ToLower(c.Query))}
	var known bool
	if d.qtype, known = dns.StringToType[strings.ToUpper(c.QType)]; !known {
		return nil, fmt.Errorf("record type %q is not known", c.QType)
	}
	if d.rcode, known = dns.StringToRcode[strings.ToUpper(c.RCode)]; !known {
		return nil, fmt.Errorf("response code %q is not known", c.RCode)
	}
	for _, text := range c.Answer {
		rr, err := dns.NewRR(". 0 IN " + dns.TypeToString[d.qtype] + " " + text)
		if err != nil || rr == nil || strings.ContainsAny(text, "\r\n") {
			return nil, fmt.Errorf("answer %q is not the data of a %s record", text, c.QType)
		}
		d.want = append(d.want, dnsData(rr))
	}
	return d, nil
}

// preflightDNS finds what only a parser of DNS can.
func preflightDNS(e *Engine, c upkeep.Check) error {
	_, err := prepareDNS(e, c)
	return err
}

// dnsData is a record's data in one spelling.
func dnsData(rr dns.RR) string {
	return strings.ToLower(strings.TrimPrefix(rr.String(), rr.Header().String()))
}

func (d *dnsCheck) run(ctx context.Context, t target) (Result, error) {
	began := time.Now()
	question, packed, err := d.question()
	if err != nil {
		return Result{}, err
	}
	where := netip.AddrPortFrom(t.addr, d.port).String()
	phase := noDNSAnswer
	answer, err := d.exchange(ctx, "udp", where, question, packed)
	if err == nil && answer.Truncated {
		phase = "truncated DNS answer, and no whole one over TCP"
		answer, err = d.exchange(ctx, "tcp", where, question, packed)
	}
	switch {
	case isLack(err):
		return Result{}, err
	case err != nil:
		return failure(ctx, t, phase, err), nil
	}
	if reason := d.judge(answer); reason != "" {
		return Result{Refused: true, Reason: reason}, nil
	}
	return Result{OK: true, RTT: time.Since(began)}, nil
}

// question is a query with a random number, which together with the random
// source port is what a forged answer would have to guess.
func (d *dnsCheck) question() (*dns.Msg, []byte, error) {
	q := new(dns.Msg)
	q.SetQuestion(d.query, d.qtype)
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	q.Id = binary.BigEndian.Uint16(id[:])
	q.SetEdns0(dnsPayload, false)
	packed, err := q.Pack()
	if err != nil {
		return nil, nil, fmt.Errorf("packing a DNS query: %w", err)
	}
	return q, packed, nil
}

func (d *dnsCheck) exchange(ctx context.Context, network, where string, q *dns.Msg, packed []byte) (*dns.Msg, error) {
	conn, err := d.dialer.DialContext(ctx, network, where)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		return exchangeTCP(conn, q, packed)
	}
	if _, err := conn.Write(packed); err != nil {
		return nil, err
	}
	// The socket is connected: the kernel drops what comes from elsewhere. What
	// does not answer this question is passed over, not believed, until the time
	// is over.
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		answer := new(dns.Msg)
		if answers(buf[:n], answer, q) == nil {
			return answer, nil
		}
	}
}

func exchangeTCP(conn net.Conn, q *dns.Msg, packed []byte) (*dns.Msg, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packed)), uint16(len(packed)))
	if _, err := conn.Write(append(framed, packed...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	answer := new(dns.Msg)
	return answer, answers(buf, answer, q)
}

// answers unpacks a message that must be the answer to q.
func answers(packet []byte, answer, q *dns.Msg) error {
	// A truncated message may end in the middle of a record.
	if err := answer.Unpack(packet); err != nil && !(answer.Truncated && answer.Id == q.Id) {
		return err
	}
	switch {
	case answer.Id != q.Id || !answer.Response:
		return errors.New("not the answer to the question")
	case len(answer.Question) == 0 && answer.Rcode != dns.RcodeSuccess:
		return nil // a server that understood nothing need not repeat the question
	case len(answer.Question) != 1 || answer.Question[0].Qtype != q.Question[0].Qtype ||
		!strings.EqualFold(answer.Question[0].Name, q.Question[0].Name):
		return errors.New("the answer is to another question")
	}
	return nil
}

// judge says what is wrong with an answer.
func (d *dnsCheck) judge(answer *dns.Msg) string {
	if answer.Rcode != d.rcode {
		return fmt.Sprintf("answer %s, wanted %s", rcodeText(answer.Rcode), rcodeText(d.rcode))
	}
	if len(d.want) == 0 {
		return ""
	}
	var got []string
	for _, rr := range answer.Answer {
		if rr.Header().Rrtype != d.qtype {
			continue // a CNAME on the way
		}
		data := dnsData(rr)
		if slices.Contains(d.want, data) {
			return ""
		}
		got = append(got, data)
	}
	what := "no " + dns.TypeToString[d.qtype] + " record"
	if len(got) > 0 {
		what = strings.Join(got, ", ")
	}
	return clean("answered " + what + ", wanted " + strings.Join(d.want, " or "))
}

func rcodeText(code int) string {
	if text, known := dns.RcodeToString[code]; known {
		return text
	}
	return fmt.Sprintf("RCODE%d", code)
}
