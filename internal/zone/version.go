package zone

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"upkeep/internal/zone/answer"
)

// version is a zone as it is published under one serial.
type version struct {
	serial  uint32
	records map[string]dns.RR // by wire form, without the SOA
	start   string            // wire form of the SOA with serial 0
	zone    *answer.Zone
}

func newVersion(origin string, serial uint32, records []dns.RR) (*version, error) {
	v := &version{serial: serial, records: make(map[string]dns.RR, len(records))}
	for _, rr := range records {
		soa, is := rr.(*dns.SOA)
		if is {
			unnumbered := *soa
			unnumbered.Serial = 0
			start, err := wire(&unnumbered)
			if err != nil {
				return nil, err
			}
			v.start = start
			soa.Serial = serial
			continue
		}
		key, err := wire(rr)
		if err != nil {
			return nil, err
		}
		v.records[key] = rr
	}
	indexed, err := answer.NewZone(origin, records)
	if err != nil {
		return nil, err
	}
	v.zone = indexed
	return v, nil
}

// same reports whether both versions differ in nothing but the serial.
func (v *version) same(other *version) bool {
	if v.start != other.start || len(v.records) != len(other.records) {
		return false
	}
	for key := range v.records {
		if _, exists := other.records[key]; !exists {
			return false
		}
	}
	return true
}

// delta is the step from one version to the next, as it stands in an
// incremental transfer (RFC 1995 section 4): the old SOA, what was removed, the
// new SOA, what was added.
type delta struct {
	from, to uint32
	records  []dns.RR
	size     int // octets of the encoded form
}

func newDelta(from, to *version) delta {
	d := delta{from: from.serial, to: to.serial}
	d.records = append(d.records, from.zone.SOA())
	d.records = append(d.records, missing(from, to)...)
	d.records = append(d.records, to.zone.SOA())
	d.records = append(d.records, missing(to, from)...)
	return d
}

// missing returns the records of a that b lacks, in a fixed order.
func missing(a, b *version) []dns.RR {
	var keys []string
	for key := range a.records {
		if _, exists := b.records[key]; !exists {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	records := make([]dns.RR, len(keys))
	for i, key := range keys {
		records[i] = a.records[key]
	}
	return records
}

// formMark stands before encoded records; the digit rises with the form.
var formMark = []byte("upkeep zone 1\n")

// encodeRecords is the form in which a journal keeps records: their wire forms
// one after the other.
func encodeRecords(records []dns.RR) ([]byte, error) {
	b := slices.Clone(formMark)
	for _, rr := range records {
		packed, err := wire(rr)
		if err != nil {
			return nil, err
		}
		b = append(b, packed...)
	}
	return b, nil
}

func decodeRecords(b []byte) ([]dns.RR, error) {
	packed, marked := bytes.CutPrefix(b, formMark)
	if !marked {
		return nil, errors.New("not written by this version of upkeep")
	}
	var records []dns.RR
	for off := 0; off < len(packed); {
		rr, next, err := dns.UnpackRR(packed, off)
		if err != nil {
			return nil, fmt.Errorf("at octet %d: %w", off, err)
		}
		records, off = append(records, rr), next
	}
	return records, nil
}

// decodeVersion reads what encodeRecords made of a version's records.
func decodeVersion(origin string, b []byte) (*version, error) {
	records, err := decodeRecords(b)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, errors.New("no records")
	}
	soa, is := records[0].(*dns.SOA)
	if !is {
		return nil, errors.New("the first record is no SOA")
	}
	return newVersion(origin, soa.Serial, records)
}

func decodeDelta(b []byte) (delta, error) {
	records, err := decodeRecords(b)
	if err != nil {
		return delta{}, err
	}
	d := delta{records: records, size: len(b)}
	var serials []uint32
	for _, rr := range records {
		if soa, is := rr.(*dns.SOA); is {
			serials = append(serials, soa.Serial)
		}
	}
	if len(serials) != 2 || records[0].Header().Rrtype != dns.TypeSOA {
		return delta{}, errors.New("a delta holds two SOA records, one at its start")
	}
	d.from, d.to = serials[0], serials[1]
	return d, nil
}

// chain returns the tail of the deltas that leads without a gap to serial to.
func chain(deltas []delta, to uint32) []delta {
	first := len(deltas)
	for first > 0 && deltas[first-1].to == to {
		first--
		to = deltas[first].from
	}
	return deltas[first:]
}
