package webserver

import "time"

// pace decides when a round begins. Reloads cost the server's visitors a stall
// that grows with the number of sites, so they have a budget: single changes go
// out at once, and a server that is changed without end reloads a tenth of the
// time at most, which for one that takes long means seldom.
type pace struct {
	first, last time.Time // arrivals of what waits
	waiting     int
	missing     map[int64]int  // requests of each batch still to come
	batches     map[int64]bool // of which something waits
	// unsifted is true while something waits of which it is not known that it needs a
	// reload. Beyond the budget that is found out at nextSift.
	unsifted bool
	nextSift time.Time

	reloaded time.Time     // end of the last reload
	stall    time.Duration // that it took
	debt     time.Duration // of stalls, at that time
}

const (
	// quiet is how long nothing may arrive before a round begins: what was sent
	// together comes within it. streamQuiet is the same when several requests wait, and
	// more of the same is likely.
	quiet       = time.Millisecond
	streamQuiet = 50 * time.Millisecond
	stream      = 3
	// credit is how much of stalls may come one after the other, and handful as how
	// many reloads it is at least: somebody who adds a few sites by hand does not
	// wait on a server that is slow to reload. Beyond it, share times as long as each
	// lies between them.
	credit     = 10 * time.Second
	handful    = 8
	mostCredit = time.Minute
	share      = 10
	maxGap     = 2 * time.Minute
	// patience is how long a request waits for others that keep arriving.
	patience = 5 * time.Second
	// batchPatience is the longest gap within a batch, and wholePatience how long its
	// first request waits for the last: on a machine under load a thousand sites
	// take many seconds to prepare, and a reload for each part would take longer.
	batchPatience = time.Second
	wholePatience = 30 * time.Second
)

func (p *pace) arrived(now time.Time, r *request) {
	if p.first.IsZero() {
		p.first = now
	}
	p.last, p.unsifted = now, true
	p.waiting++
	if r.BatchSize < 2 {
		return
	}
	if p.missing == nil {
		p.missing = map[int64]int{}
	}
	left, known := p.missing[r.Batch]
	if !known {
		left = r.BatchSize
	}
	p.missing[r.Batch] = left - 1
	if p.batches == nil {
		p.batches = map[int64]bool{}
	}
	p.batches[r.Batch] = true
}

// emptied forgets what waited. What is missing of a batch stays known: a part
// of it that comes late is not waited for as if all were.
func (p *pace) emptied() {
	p.first, p.last, p.waiting = time.Time{}, time.Time{}, 0
	p.unsifted = false
	clear(p.batches)
	for batch, left := range p.missing {
		if left <= 0 {
			delete(p.missing, batch)
		}
	}
	if len(p.missing) > 1000 {
		clear(p.missing)
	}
}

// sifted notes that all that waits needs a reload. To find that out about many
// requests takes time, so that they have a budget too.
func (p *pace) sifted(end time.Time, took time.Duration) {
	p.unsifted, p.nextSift = false, end.Add(share*took)
}

func (p *pace) reload(end time.Time, stall time.Duration) {
	p.debt = p.owed(end) + stall
	p.reloaded, p.stall = end, stall
}

// owed is what is left of the debt.
func (p *pace) owed(now time.Time) time.Duration {
	return max(0, p.debt-now.Sub(p.reloaded)/share)
}

// allowed is how long from now the budget has no reload.
func (p *pace) allowed(now time.Time) time.Duration {
	return max(0, min(share*(p.owed(now)-min(max(credit, handful*p.stall), mostCredit)), maxGap))
}

// wait is how long from now something is to be done about what waits, if nothing
// else arrives.
func (p *pace) wait(now time.Time) time.Duration {
	soon, most := quiet, patience
	if p.waiting >= stream {
		soon = streamQuiet
	}
	// What never came of an earlier batch, such as a site that could not be
	// prepared, holds nobody up.
	for batch := range p.batches {
		if p.missing[batch] > 0 {
			soon, most = batchPatience, wholePatience
		}
	}
	settled := max(0, min(soon-now.Sub(p.last), most-now.Sub(p.first)))
	allowed := p.allowed(now)
	if p.unsifted {
		allowed = min(allowed, p.nextSift.Sub(now))
	}
	return max(settled, allowed)
}
