package zone

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

const (
	// doubtsFor bounds what asking costs a change.
	doubtsFor = time.Second
	maxDoubts = 16
)

// DoubtServers asks, for zones with a bind publisher, whether named answers for
// the zone where the publisher says so, or at [DefaultBindServer], and what SOA
// record is served. It returns a sentence for each publisher where none answers,
// since each publish waits for it, and one for each zone whose SOA fields would
// become others without the document saying so. No more than a second is spent
// on it, and not more than a few zones are asked for. Ask before the change is
// made: afterwards what was served may be gone.
func DoubtServers(ctx context.Context, zones []upkeep.Zone) []string {
	ctx, cancel := context.WithTimeout(ctx, doubtsFor)
	defer cancel()
	said := make([][]string, min(len(zones), maxDoubts))
	var asking sync.WaitGroup
	for i := range said {
		asking.Go(func() { said[i] = doubtZone(ctx, zones[i], DefaultBindServer) })
	}
	asking.Wait()
	return slices.Concat(said...)
}

// doubtZone is the sentences about one zone; standard is where named is taken to
// be.
func doubtZone(ctx context.Context, z upkeep.Zone, standard string) (doubts []string) {
	var own []string // where the zone's nameds are said to answer
	bind := false
	for _, p := range z.Publishers {
		bind = bind || p.Type == upkeep.PublishBind
		if p.Type != upkeep.PublishBind || p.Agent != "" {
			continue
		}
		if p.Server == "" {
			p.Server = standard
		}
		own = append(own, p.Server)
	}
	if !bind {
		return nil
	}
	served := servedSOAs(ctx, z, own)
	for i, server := range own {
		if served[i] == nil {
			doubts = append(doubts, silentServer(z, server, server == standard, served[len(own):]))
		}
	}
	if at := slices.IndexFunc(served, func(soa *dns.SOA) bool { return soa != nil }); at >= 0 {
		if unsaid := unsaidSOA(z, served[at]); unsaid != "" {
			doubts = append(doubts, unsaid)
		}
	}
	return doubts
}

// servedSOAs is the SOA record that each of the given servers has of the zone, and
// then each of the zone's listed ones; nil where there is none. The listed ones
// are not waited for when all of the others answer.
func servedSOAs(ctx context.Context, z upkeep.Zone, own []string) []*dns.SOA {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make([]*dns.SOA, len(own)+len(z.Servers))
	ask := func(i int, server string) {
		if answer, err := (query{server: server, name: z.Name, qtype: typeSOA}).ask(ctx); err == nil {
			served[i], _ = soaOf(answer, z.Name) // nil where it does not have the zone
		}
	}
	var first, rest sync.WaitGroup
	for i, server := range own {
		first.Go(func() { ask(i, server) })
	}
	for i, server := range z.Servers {
		rest.Go(func() { ask(len(own)+i, server) })
	}
	first.Wait()
	if len(own) > 0 && !slices.Contains(served[:len(own)], nil) {
		cancel()
	}
	rest.Wait()
	return served
}

// silentServer is the sentence about a named that does not answer where its
// publisher says so. One of the zone's servers that does may be the one meant.
func silentServer(z upkeep.Zone, server string, standard bool, listed []*dns.SOA) string {
	warning := fmt.Sprintf("zone %s: server of its bind publisher is %s, which does not answer for the zone: each publish would wait for it", z.Name, server)
	if standard {
		warning = fmt.Sprintf("zone %s: its bind publisher names no server, and %s does not answer for the zone: each publish would wait for it", z.Name, server)
	}
	for i, other := range z.Servers {
		if listed[i] != nil && other != server {
			return fmt.Sprintf("%s; %s answers: if that is the named that rndc controls, write server: %q into the publisher", warning, other, other)
		}
	}
	return warning + "; write where the named that rndc controls answers, as server: \"ADDRESS:PORT\""
}

// unsaidSOA is the sentence about SOA fields and the TTL that the document leaves
// out, where the defaults are not what is served.
func unsaidSOA(z upkeep.Zone, served *dns.SOA) string {
	kept := fromSOA(z, served)
	differ, lines := defaultsDiffer(z, kept)
	if len(differ) == 0 {
		return ""
	}
	return fmt.Sprintf("zone %s: the document leaves out what is served: %s; to keep it, write %s", z.Name, strings.Join(differ, ", "), strings.Join(lines, " and "))
}

// fromSOA fills what the zone's document leaves out with what is served, as far
// as a document can say it.
func fromSOA(z upkeep.Zone, soa *dns.SOA) upkeep.Zone {
	fill := func(d *upkeep.Duration, seconds uint32) {
		if *d == 0 {
			*d = upkeep.Duration(time.Duration(seconds) * time.Second)
		}
	}
	fill(&z.SOA.Refresh, soa.Refresh)
	fill(&z.SOA.Retry, soa.Retry)
	fill(&z.SOA.Expire, soa.Expire)
	fill(&z.SOA.Minimum, soa.Minttl)
	fill(&z.TTL, soa.Hdr.Ttl)
	for _, name := range []struct {
		to    *string
		found string
	}{{&z.SOA.MName, plain(soa.Ns)}, {&z.SOA.RName, plain(soa.Mbox)}} {
		if *name.to == "" && upkeep.ValidName(name.found) {
			*name.to = name.found
		}
	}
	return z
}

// defaultsDiffer says what a zone as it is declared would change of one with the
// fields that were found, and the lines to write so that it does not.
func defaultsDiffer(declared, found upkeep.Zone) (differ, lines []string) {
	served, kept := declared.WithDefaults(), found.WithDefaults()
	var soa []string
	compare := func(field string, served, kept any) {
		if served == kept {
			return
		}
		differ = append(differ, fmt.Sprintf("%s would become %v instead of %v", field, served, kept))
		if name, of := strings.CutPrefix(field, "soa."); of {
			soa = append(soa, fmt.Sprintf("%s: %v", name, kept))
		}
	}
	compare("soa.mname", served.SOA.MName, kept.SOA.MName)
	compare("soa.rname", served.SOA.RName, kept.SOA.RName)
	compare("soa.refresh", served.SOA.Refresh, kept.SOA.Refresh)
	compare("soa.retry", served.SOA.Retry, kept.SOA.Retry)
	compare("soa.expire", served.SOA.Expire, kept.SOA.Expire)
	compare("soa.minimum", served.SOA.Minimum, kept.SOA.Minimum)
	compare("ttl", served.TTL, kept.TTL)
	if len(soa) > 0 {
		lines = append(lines, "soa: {"+strings.Join(soa, ", ")+"}")
	}
	if served.TTL != kept.TTL {
		lines = append(lines, "ttl: "+kept.TTL.String())
	}
	return differ, lines
}
