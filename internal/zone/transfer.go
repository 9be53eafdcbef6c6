package zone

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"upkeep"
)

// Bounds of one zone's journal. A secondary that is further behind gets the
// whole zone, which is then not much longer.
const (
	maxDeltas     = 200
	maxDeltaBytes = 1 << 20
)

// primary is a zone that the [Server] answers for.
type primary struct {
	server *Server
	name   string // as declared
	origin string // with a final dot
	notify *notifier

	mu       sync.RWMutex
	settings settings
	others   []ServedAt // who else has the zone: listed servers and secondaries
	current  *version   // nil until something was published or loaded
	deltas   []delta    // to current, oldest first
	unsaved  bool       // current is served but the journal does not hold it
	latest   *handle
	stats    TransferStats

	publishing sync.Mutex // serialises Publish
}

// settings are what the publisher's document says of transfers.
type settings struct {
	secondaries []string
	prefixes    []netip.Prefix
	key         Key
}

// handle is the Publisher of a zone. A later one for the same zone replaces it.
type handle struct{ p *primary }

// Publish implements [Publisher]. Where the journal cannot be written the
// content is answered nevertheless, since keeping a dead address in DNS would be
// worse than a full transfer after a restart; the error says so, and the next
// Publish saves again.
func (h *handle) Publish(ctx context.Context, c Content) (uint32, error) {
	p := h.p
	p.publishing.Lock()
	defer p.publishing.Unlock()
	normal, err := c.Normal()
	if err != nil {
		return 0, fmt.Errorf("publishing zone %s: %w", p.name, err)
	}
	records, err := normal.records(0)
	if err != nil {
		return 0, fmt.Errorf("publishing zone %s: %w", p.name, err)
	}
	p.mu.RLock()
	current, unsaved := p.current, p.unsaved
	p.mu.RUnlock()
	p.listOthers(c.Zone.Servers)
	serial := p.nextSerial(ctx, current)
	next, err := newVersion(p.origin, serial, records)
	if err != nil {
		return 0, fmt.Errorf("publishing zone %s: %w", p.name, err)
	}
	if current != nil && current.same(next) {
		if unsaved {
			return current.serial, p.save(ctx, current, nil)
		}
		return current.serial, nil
	}
	return serial, p.advance(ctx, current, next)
}

// advance saves and then serves the next version. That order means that no
// secondary ever holds a serial that a crash makes upkeep forget.
func (p *primary) advance(ctx context.Context, current, next *version) error {
	var step *delta
	if current != nil {
		d := newDelta(current, next)
		step = &d
	}
	errSave := p.save(ctx, next, step)
	p.mu.Lock()
	p.current, p.unsaved = next, errSave != nil
	if step == nil {
		p.deltas = nil
	} else {
		p.deltas = bounded(append(p.deltas, *step))
	}
	p.mu.Unlock()
	p.server.serve(p, next)
	return errSave
}

func (p *primary) save(ctx context.Context, v *version, step *delta) error {
	fail := func(err error) error {
		return fmt.Errorf("zone %s is answered with serial %d, but a restart would forget it: %w", p.name, v.serial, err)
	}
	content, err := encodeRecords(v.zone.Records())
	if err != nil {
		return fail(err)
	}
	var encoded []byte
	keep := 0
	if step != nil {
		if encoded, err = encodeRecords(step.records); err != nil {
			return fail(err)
		}
		step.size = len(encoded)
		p.mu.RLock()
		keep = len(bounded(append(slices.Clip(p.deltas), *step)))
		p.mu.RUnlock()
	}
	if err := p.server.o.Journal.SaveZone(ctx, p.name, content, encoded, keep); err != nil {
		return fail(err)
	}
	p.mu.Lock()
	p.unsaved = false
	p.mu.Unlock()
	return nil
}

// bounded drops the oldest deltas beyond the bounds of a journal.
func bounded(deltas []delta) []delta {
	size, first := 0, len(deltas)
	for first > 0 && len(deltas)-first < maxDeltas {
		if size += deltas[first-1].size; size > maxDeltaBytes {
			break
		}
		first--
	}
	return deltas[first:]
}

// load takes up what the journal holds, so that a restarted server answers at
// once with what it answered last.
func (p *primary) load(ctx context.Context) error {
	content, encoded, err := p.server.o.Journal.LoadZone(ctx, p.name)
	if err != nil {
		return fmt.Errorf("loading zone %s: %w", p.name, err)
	}
	if content == nil {
		return nil
	}
	current, err := decodeVersion(p.origin, content)
	if err != nil {
		// The next Publish writes it anew; refusing to start would help nobody.
		p.log().Error("the journal of a zone cannot be read; secondaries will get the zone whole", "error", err)
		return nil
	}
	var deltas []delta
	for _, b := range encoded {
		d, err := decodeDelta(b)
		if err != nil {
			p.log().Error("a step in the journal of a zone cannot be read; secondaries behind it will get the zone whole", "error", err)
			deltas = nil
			continue
		}
		deltas = append(deltas, d)
	}
	p.mu.Lock()
	p.current, p.deltas = current, bounded(chain(deltas, current.serial))
	p.mu.Unlock()
	p.server.serve(p, current)
	return nil
}

// Close implements [Publisher]: the zone is refused from now on, and its
// secondaries are not notified any more. The journal stays, so that a zone that
// is declared anew goes on with its serials.
func (h *handle) Close() error {
	return h.p.server.drop(h)
}

func (p *primary) log() *slog.Logger { return p.server.o.Logger.With("zone", p.name) }

// readSettings resolves what the document names.
func readSettings(p upkeep.Publisher) (settings, error) {
	s := settings{secondaries: slices.Clone(p.Secondaries), prefixes: slices.Clone(p.AllowTransfer)}
	if p.TSIG == "" {
		return s, nil
	}
	key, err := ReadKeyFile(p.TSIG)
	if err != nil {
		return settings{}, err
	}
	s.key = key
	return s, nil
}

// TransferStats counts what a zone's secondaries asked for since the start.
type TransferStats struct {
	Full        uint64    `json:"full"`        // AXFR, or IXFR answered with the whole zone
	Incremental uint64    `json:"incremental"` // IXFR answered with deltas
	Current     uint64    `json:"current"`     // IXFR by a secondary that was up to date
	Refused     uint64    `json:"refused"`
	LastAt      time.Time `json:"last_at,omitzero"`
}

func (p *primary) count(edit func(*TransferStats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit(&p.stats)
	p.stats.LastAt = p.server.o.Now()
}

// snapshot returns what a transfer needs, all of one moment.
func (p *primary) snapshot() (*version, []delta, settings) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.current, p.deltas, p.settings
}

var _ Publisher = (*handle)(nil)

func originOf(zone string) string { return dns.CanonicalName(zone) }
