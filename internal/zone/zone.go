// Package zone carries record sets into DNS zones and proves that they arrived.
//
// A zone has one or more publishers: transfer (upkeep answers by itself and is
// primary for secondaries), bind (include files and a reload of the operator's
// own BIND) and update (RFC 2136). All of them take the same [Content] and keep
// the same promise: publishing what is already published changes nothing and
// raises no serial.
package zone

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"upkeep"
)

// AddressSet is what is published at one owner: one A and one AAAA record set
// of the same TTL. An empty set publishes nothing at the owner.
type AddressSet struct {
	Owner     string        // as declared: "@", "*", "www"
	TTL       time.Duration // in whole seconds
	Addresses []netip.Addr
	// Members are all addresses that the pool may come to publish here. The
	// update publisher takes a record set over, at first or after somebody else
	// changed it, only when it holds nothing but members.
	Members []netip.Addr
}

// Content is everything that a zone shall hold beside its SOA serial.
type Content struct {
	Zone upkeep.Zone // defaults applied
	Sets []AddressSet
}

// Publisher carries a zone's content to where it is answered.
type Publisher interface {
	// Publish makes the content the published one and returns the serial under
	// which it is. It is idempotent: content that is already published is not
	// published again and keeps its serial.
	Publish(ctx context.Context, c Content) (serial uint32, err error)
	// Close releases what the publisher holds. What was published stays so,
	// save for the transfer publisher, which ceases to answer for the zone.
	Close() error
}

// Normal returns the content in the one form in which equal contents are equal:
// owners in lower case and in order, sets of one owner joined, addresses sorted
// and each listed once, empty sets left out. It fails where no valid zone can
// come of the content, naming the set at fault.
func (c Content) Normal() (Content, error) {
	joined := map[string]*AddressSet{}
	for _, set := range c.Sets {
		if err := set.check(c.Zone.Name); err != nil {
			return Content{}, err
		}
		owner := strings.ToLower(set.Owner)
		if len(set.Addresses) == 0 {
			continue
		}
		whole, exists := joined[owner]
		if !exists {
			whole = &AddressSet{Owner: owner, TTL: set.TTL}
			joined[owner] = whole
		}
		// All records of a set share one TTL (RFC 2181 section 5.2); the lower
		// one is the promise that both writers can keep.
		whole.TTL = min(whole.TTL, set.TTL)
		whole.Addresses = append(whole.Addresses, set.Addresses...)
		whole.Members = append(whole.Members, set.Members...)
	}
	normal := Content{Zone: c.Zone}
	for _, set := range joined {
		slices.SortFunc(set.Addresses, netip.Addr.Compare)
		set.Addresses = slices.Compact(set.Addresses)
		if v4, v6 := set.split(); len(v4) > upkeep.MaxAnswer || len(v6) > upkeep.MaxAnswer {
			return Content{}, fmt.Errorf("%s in zone %s has more than %d addresses of one family: BIND refuses such a zone",
				set.Owner, c.Zone.Name, upkeep.MaxAnswer)
		}
		normal.Sets = append(normal.Sets, *set)
	}
	slices.SortFunc(normal.Sets, func(a, b AddressSet) int { return cmp.Compare(a.Owner, b.Owner) })
	return normal, nil
}

// split returns the set's IPv4 and IPv6 addresses apart, in the set's order.
func (s AddressSet) split() (v4, v6 []netip.Addr) {
	for _, addr := range s.Addresses {
		if addr.Is4() {
			v4 = append(v4, addr)
		} else {
			v6 = append(v6, addr)
		}
	}
	return v4, v6
}

func (s AddressSet) check(zone string) error {
	if !upkeep.ValidOwner(s.Owner) {
		return fmt.Errorf("record %q of zone %s: must be \"@\", a name relative to the zone, or a wildcard", s.Owner, zone)
	}
	if !fitsName(upkeep.Absolute(s.Owner, zone)) {
		return fmt.Errorf("record %q of zone %s: the whole name is longer than 253 octets", s.Owner, zone)
	}
	if s.TTL < 0 || s.TTL > 365*upkeep.Day || s.TTL%time.Second != 0 {
		return fmt.Errorf("record %q of zone %s: TTL %s: must be 0s to 365d in whole seconds", s.Owner, zone, s.TTL)
	}
	for _, addr := range s.Addresses {
		if !upkeep.Publishable(addr) {
			return fmt.Errorf("record %q of zone %s: %q: must be a unicast IPv4 or IPv6 address", s.Owner, zone, addr)
		}
	}
	return nil
}

// fitsName reports whether an absolute name without a final dot keeps to the
// 255 octets of a name in wire form (RFC 1035 section 2.3.4).
func fitsName(name string) bool { return len(name) <= 253 }
