package webserver

import (
	"context"
	"errors"
	"slices"
	"time"
)

// sift parts what waits, while the budget has no reload: what needs none, because
// it is refused or the server has it already, is done now, and the rest waits.
// Whoever asked for something that cannot be is not to wait minutes to be told.
func (a *Applier) sift(ctx context.Context, waiting []*request) (now, rest []*request) {
	var changes, comparisons []*request
	var regeneration *whole
	for _, req := range waiting {
		switch {
		case req.purge:
			rest = append(rest, req)
		case req.whole == nil:
			changes = append(changes, req)
		case req.whole.verify:
			comparisons = append(comparisons, req)
		default:
			regeneration = req.whole
		}
	}
	if regeneration != nil {
		if a.needsReload(ctx, changes, regeneration) {
			return nil, waiting
		}
		return slices.DeleteFunc(slices.Clone(waiting), func(r *request) bool { return r.purge }), rest
	}
	r := &round{Applier: a, layout: a.o.Layout, began: time.Now()}
	r.collect(changes)
	if err := r.weigh(ctx); err != nil {
		return waiting, nil // a round says so, and reloads nothing
	}
	common := r.rewritesOne(r.common)
	for _, c := range r.changes {
		if c.err == nil && c.result == "" && (common || c.unproven || r.rewritesOne(c)) {
			rest = append(rest, c.requests...)
		} else {
			now = append(now, c.requests...)
		}
	}
	if len(rest) == 0 {
		return append(now, comparisons...), nil
	}
	// A name that is taken may be on its way out with what waits.
	for _, c := range r.changes {
		var taken *NameTakenError
		if errors.As(c.err, &taken) {
			return nil, waiting
		}
	}
	// A comparison with what is declared would find what waits.
	return now, append(rest, comparisons...)
}

// needsReload reports whether a regeneration does, with the changes that go with it.
func (a *Applier) needsReload(ctx context.Context, changes []*request, w *whole) bool {
	r := &round{Applier: a, layout: a.o.Layout, began: time.Now()}
	r.collect(changes)
	r.whole = &whole{wanted: w.wanted, keep: w.keep} // one of its own, since it gathers strays
	if r.weigh(ctx) != nil || r.whole.findStrays(r) != nil {
		return false // a round says so, and reloads nothing
	}
	return r.reloads()
}
