package webserver

import "time"

// pace decides when a round begins. Reloads cost the server's visitors a stall
// that grows with the number of sites, so the time between two follows what the
// last one took: seldom where it is long, at once where nothing was reloaded
// lately.
type pace struct {
	first, last time.Time // arrivals of what waits
	reloaded    time.Time // end of the last reload
	stall       time.Duration
	missing     map[int64]int // requests of each batch still to come
}

const (
	// quiet is how long nothing may arrive before a round begins; streamQuiet the
	// same soon after a reload, when more of the same is likely.
	quiet       = 4 * time.Millisecond
	streamQuiet = 50 * time.Millisecond
	// share is how many times as long as a stall the time to the next one is.
	share  = 10
	minGap = 200 * time.Millisecond
	maxGap = 2 * time.Minute
	// patience is how long a request waits for others that keep arriving, and for
	// the rest of its batch.
	patience      = 5 * time.Second
	batchPatience = time.Second
)

func (p *pace) arrived(now time.Time, r *request) {
	if p.first.IsZero() {
		p.first = now
	}
	p.last = now
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
}

// emptied forgets what waited. What is missing of a batch stays known: a part
// of it that comes late is not waited for as if all were.
func (p *pace) emptied() {
	p.first, p.last = time.Time{}, time.Time{}
	for batch, left := range p.missing {
		if left <= 0 {
			delete(p.missing, batch)
		}
	}
	if len(p.missing) > 1000 {
		clear(p.missing)
	}
}

func (p *pace) reload(end time.Time, stall time.Duration) { p.reloaded, p.stall = end, stall }

// gap is the least time from one reload to the next.
func (p *pace) gap() time.Duration { return min(max(share*p.stall, minGap), maxGap) }

// wait is how long from now the round begins, if nothing else arrives.
func (p *pace) wait(now time.Time) time.Duration {
	soon, allowed := quiet, time.Duration(0)
	if !p.reloaded.IsZero() {
		allowed = p.gap() - now.Sub(p.reloaded)
		if allowed > 0 {
			soon = streamQuiet
		}
	}
	for _, left := range p.missing {
		if left > 0 {
			soon = batchPatience
		}
	}
	settled := min(soon-now.Sub(p.last), patience-now.Sub(p.first))
	return max(0, settled, allowed)
}
