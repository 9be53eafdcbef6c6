package zone

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

// proveInFlight bounds the questions that one proof has open at a time, which
// keeps a large zone from looking like a flood.
const proveInFlight = 16

// proveTimeout bounds the whole proof of one server.
const proveTimeout = 5 * time.Second

// Prove asks one name server whether it answers the zone as published: a serial
// that is not older (RFC 1982) and exactly the published addresses at every
// owner, no more and no fewer. A wildcard is asked by a random label below it.
//
// A newer serial counts, since signers and other writers raise it too; what is
// published is the record sets. A set without addresses is proven by their
// absence.
func Prove(ctx context.Context, server, zone string, serial uint32, sets []AddressSet) upkeep.ServerStatus {
	ctx, cancel := context.WithTimeout(ctx, proveTimeout)
	defer cancel()
	status := upkeep.ServerStatus{Address: server, AskedAt: time.Now()}
	served, err := ServedSerial(ctx, server, zone)
	if err != nil {
		status.Error = err.Error()
		return status
	}
	status.Serial = served
	if served != serial && !SerialLess(serial, served) {
		status.Error = fmt.Sprintf("answers serial %d, older than %d", served, serial)
		return status
	}
	p := prover{server: server, zone: zone, want: wanted(zone, sets)}
	if wrong := p.run(ctx); len(wrong) > 0 {
		status.Error = strings.Join(wrong, "; ")
		return status
	}
	status.InSync = true
	return status
}

// want is what one owner must be answered with.
type want struct {
	owner string // absolute, such as *.example.test
	ttl   time.Duration
	addrs [2][]netip.Addr // A, AAAA; sorted
	// also is what an owner without addresses may be answered with instead:
	// those of the wildcard that covers it.
	also [2][]netip.Addr
}

var addressTypes = [2]uint16{dns.TypeA, dns.TypeAAAA}

// wanted joins the sets of one owner and sorts them; unlike Content.Normal it
// keeps empty ones.
func wanted(zone string, sets []AddressSet) []want {
	at := map[string]int{}
	var wants []want
	for _, set := range sets {
		owner := upkeep.Absolute(set.Owner, zone)
		i, exists := at[owner]
		if !exists {
			i = len(wants)
			at[owner] = i
			wants = append(wants, want{owner: owner, ttl: set.TTL})
		}
		v4, v6 := set.split()
		wants[i].addrs[0] = append(wants[i].addrs[0], v4...)
		wants[i].addrs[1] = append(wants[i].addrs[1], v6...)
	}
	for i := range wants {
		for family := range wants[i].addrs {
			wants[i].addrs[family] = canonical(wants[i].addrs[family])
		}
	}
	for i := range wants {
		if _, parent, below := strings.Cut(wants[i].owner, "."); below {
			if j, exists := at["*."+parent]; exists && j != i {
				wants[i].also = wants[j].addrs
			}
		}
	}
	return wants
}

// canonical returns the addresses sorted, each listed once.
func canonical(addrs []netip.Addr) []netip.Addr {
	addrs = slices.Clone(addrs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

type prover struct {
	server, zone string
	want         []want
}

// run asks for every record set and returns what is wrong, in the order of the
// sets.
func (p prover) run(ctx context.Context) []string {
	wrong := make([][2]string, len(p.want))
	slots := make(chan struct{}, proveInFlight)
	var asked sync.WaitGroup
	for i, w := range p.want {
		for family := range addressTypes {
			slots <- struct{}{}
			asked.Go(func() {
				defer func() { <-slots }()
				if err := p.ask(ctx, w, family); err != nil {
					wrong[i][family] = err.Error()
				}
			})
		}
	}
	asked.Wait()
	var lines []string
	for _, families := range wrong {
		for _, line := range families {
			if line != "" {
				lines = append(lines, line)
			}
		}
	}
	// A server that lags behind in everything would otherwise fill pages.
	const shown = 4
	if more := len(lines) - shown; more > 0 {
		lines = append(lines[:shown], fmt.Sprintf("and %d more", more))
	}
	return lines
}

func (p prover) ask(ctx context.Context, w want, family int) error {
	q := query{server: p.server, name: askable(w.owner), qtype: addressTypes[family]}
	answer, err := q.ask(ctx)
	if err != nil {
		return err
	}
	kind := dns.TypeToString[q.qtype]
	if err := authoritative(answer); err != nil {
		return fmt.Errorf("%s %s: %w", w.owner, kind, err)
	}
	got, ttl, err := addresses(answer, q.name, q.qtype)
	if err != nil {
		return fmt.Errorf("%s %s: %w", w.owner, kind, err)
	}
	absent := len(w.addrs[0])+len(w.addrs[1]) == 0
	if !slices.Equal(got, w.addrs[family]) && !(absent && slices.Equal(got, w.also[family])) {
		return fmt.Errorf("%s %s: %s", w.owner, kind, difference(w.addrs[family], got))
	}
	// A lower TTL is what a cache in front of the server makes of it; a higher
	// one breaks the promise of how soon clients ask again.
	if len(got) > 0 && !absent && ttl > w.ttl {
		return fmt.Errorf("%s %s: has TTL %s in place of %s", w.owner, kind, upkeep.Duration(ttl), upkeep.Duration(w.ttl))
	}
	return nil
}

// askable returns the name to ask for what is published at an owner: for a
// wildcard a name below it that nobody else has.
func askable(owner string) string {
	parent, wildcard := strings.CutPrefix(owner, "*.")
	if !wildcard {
		return owner
	}
	label := make([]byte, 8)
	_, _ = rand.Read(label) // never fails (crypto/rand)
	name := "upkeep-" + hex.EncodeToString(label) + "." + parent
	if !fitsName(name) {
		return owner // asked literally, a wildcard answers with its own records
	}
	return name
}

// addresses returns the data of the answer's records of one type at name,
// sorted, and their TTL.
func addresses(answer *dns.Msg, name string, qtype uint16) (addrs []netip.Addr, ttl time.Duration, err error) {
	for _, rr := range answer.Answer {
		header := rr.Header()
		if dns.CanonicalName(header.Name) != dns.CanonicalName(name) {
			continue
		}
		var addr netip.Addr
		switch data := rr.(type) {
		case *dns.CNAME:
			return nil, 0, fmt.Errorf("is an alias (CNAME) of %s", plain(data.Target))
		case *dns.A:
			addr, _ = netip.AddrFromSlice(data.A.To4())
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(data.AAAA.To16())
		}
		if header.Rrtype == qtype {
			addrs = append(addrs, addr)
			ttl = max(ttl, time.Duration(header.Ttl)*time.Second)
		}
	}
	// Duplicates stay: a server that sends a record twice is not right.
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, ttl, nil
}

// difference says in which way got differs from want; both are sorted.
func difference(want, got []netip.Addr) string {
	var parts []string
	if missing := without(want, got); len(missing) > 0 {
		parts = append(parts, "lacks "+listed(missing))
	}
	if extra := without(got, want); len(extra) > 0 {
		parts = append(parts, "still has "+listed(extra))
	}
	if len(parts) == 0 {
		parts = append(parts, "lists an address twice")
	}
	return strings.Join(parts, ", ")
}

// without returns those of addrs that are not among others.
func without(addrs, others []netip.Addr) []netip.Addr {
	var rest []netip.Addr
	for _, addr := range addrs {
		if !slices.Contains(others, addr) {
			rest = append(rest, addr)
		}
	}
	return rest
}

// listed writes addresses for a person, the first few of many.
func listed(addrs []netip.Addr) string {
	const shown = 5
	var texts []string
	for _, addr := range addrs[:min(len(addrs), shown)] {
		texts = append(texts, addr.String())
	}
	if more := len(addrs) - shown; more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(texts, ", ")
}
