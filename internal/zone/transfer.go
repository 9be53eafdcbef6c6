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
	keeper *keeper
	// refusals tells of transfers that were refused.
	refusals *notices

	mu       sync.RWMutex
	settings settings
	others   []ServedAt // who else has the zone: listed servers and secondaries
	current  *version   // nil until something was published or loaded
	deltas   []delta    // to current, oldest first
	unsaved  bool       // current is served but nothing holds it that survives a restart
	unasked  bool       // current was loaded, and nobody was asked for a later serial
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

// Publish implements [Publisher]. Where the content can be kept neither in the
// journal nor beside it, it is answered nevertheless, since keeping a dead
// address in DNS would be worse than what comes of a restart; the error says so,
// and the next Publish tries again.
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
	p.listOthers(c.Zone.Servers)
	p.mu.RLock()
	current, unsaved := p.current, p.unsaved
	p.mu.RUnlock()
	serial, forgotten := p.nextSerial(ctx, current)
	next, err := newVersion(p.origin, serial, records)
	if err != nil {
		return 0, fmt.Errorf("publishing zone %s: %w", p.name, err)
	}
	if current == nil || forgotten || !current.same(next) {
		return serial, p.advance(ctx, current, next)
	}
	if !unsaved {
		return current.serial, nil
	}
	err = p.save(ctx, current, nil)
	p.mu.Lock()
	p.unsaved = err != nil
	p.mu.Unlock()
	return current.serial, err
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
	if err := p.keeper.keep(ctx, v, step); err != nil {
		return fmt.Errorf("zone %s is answered with serial %d, but a restart would forget it: %w", p.name, v.serial, err)
	}
	return nil
}

// encoded is a version as a journal takes it.
type encoded struct {
	content, step []byte
	keep          int // deltas
}

func (p *primary) encode(v *version, step *delta) (e encoded, err error) {
	if e.content, err = encodeRecords(v.zone.Records()); err != nil || step == nil {
		return e, err
	}
	if e.step, err = encodeRecords(step.records); err != nil {
		return e, err
	}
	step.size = len(e.step)
	p.mu.RLock()
	defer p.mu.RUnlock()
	e.keep = len(bounded(append(slices.Clip(p.deltas), *step)))
	return e, nil
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

// load takes up what is kept, so that a restarted server answers at once with
// what it answered last.
func (p *primary) load(ctx context.Context) error {
	current, deltas, err := p.keeper.load(ctx)
	if err != nil || current == nil {
		return err
	}
	p.mu.Lock()
	p.current, p.deltas, p.unasked = current, bounded(deltas), true
	p.mu.Unlock()
	p.server.serve(p, current)
	return nil
}

// journaled reads the journal; a version of nil means that there is nothing in it.
func (p *primary) journaled(ctx context.Context) (*version, []delta, error) {
	content, steps, err := p.server.o.Journal.LoadZone(ctx, p.name)
	if err != nil {
		return nil, nil, fmt.Errorf("loading zone %s: %w", p.name, err)
	}
	if content == nil {
		return nil, nil, nil
	}
	current, err := decodeVersion(p.origin, content)
	if err != nil {
		// The next Publish writes it anew; refusing to start would help nobody.
		p.log().Error("the journal of a zone cannot be read; secondaries will get the zone whole", "error", err)
		return nil, nil, nil
	}
	var deltas []delta
	for _, b := range steps {
		d, err := decodeDelta(b)
		if err != nil {
			p.log().Error("a step in the journal of a zone cannot be read; secondaries behind it will get the zone whole", "error", err)
			deltas = nil
			continue
		}
		deltas = append(deltas, d)
	}
	return current, chain(deltas, current.serial), nil
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
