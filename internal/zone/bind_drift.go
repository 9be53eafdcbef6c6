package zone

import (
	"context"
	"time"
)

const (
	// driftDoubt is how long named must have answered something else than the
	// files hold, under their serial, before that is fixed: a zone that named
	// signs by itself lags behind for a moment.
	driftDoubt = 5 * time.Second
	// driftFirst and driftMost bound the pauses between attempts: where a record
	// in the operator's own zone file is in the way, loading does not help.
	driftFirst, driftMost = 20 * time.Second, 10 * time.Minute
)

// doubt is since when named answers something else than it loaded by its serial.
type doubt struct {
	since, next time.Time
	wait        time.Duration
}

// hasDrifted reports whether it is time to load the zone anew although named
// serves the serial of the files: the line that includes them may have been
// removed from the zone file, and put back without a new serial. Nothing else
// would notice, for the files are as they should be.
func (p *BindPublisher) hasDrifted(ctx context.Context, sets []AddressSet, serial uint32) bool {
	status, now := Prove(ctx, p.server, p.name, serial, sets), p.bind.o.Now()
	switch {
	case status.InSync:
		p.doubt = doubt{}
		return false
	case status.Serial == 0 || ctx.Err() != nil:
		return false // it could not be asked
	case p.doubt.since.IsZero() || now.Before(p.doubt.since):
		p.doubt = doubt{since: now, next: now.Add(driftDoubt), wait: driftFirst}
		return false
	case now.Before(p.doubt.next):
		return false
	}
	p.doubt.next, p.doubt.wait = now.Add(p.doubt.wait), min(2*p.doubt.wait, driftMost)
	p.status.Store(nil) // it may be another kind of zone by now
	p.notices.add("named answered something else under the serial that was published; the zone is loaded anew", status.Error)
	return true
}
