package webserver

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// busyPatience is how long a pool that takes requests may leave one unanswered until
// it counts as busy.
const busyPatience = 2 * time.Second

// busyAgain is how often a busy pool is asked whether it still is: each question waits
// in its queue, beside its visitors.
const busyAgain = 10 * time.Second

// busyPools are the sites whose PHP took a request and did not come to it, with when
// it was asked last.
type busyPools struct {
	mu     sync.Mutex
	sites  map[string]time.Time
	over   bool
	asking sync.WaitGroup
}

func (b *busyPools) set(site string, busy bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !busy {
		delete(b.sites, site)
		return
	}
	if b.sites == nil {
		b.sites = map[string]time.Time{}
	}
	b.sites[site] = time.Now()
}

// end waits for the questions that are under way, and lets no more begin.
func (b *busyPools) end() {
	b.mu.Lock()
	b.over = true
	b.mu.Unlock()
	b.asking.Wait()
}

// isBusy reports whether an error of a pool is that it does not come to a request. A
// socket with no room for one more that waits says so at once, as a timeout.
func isBusy(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// BusyPHP are the sites whose PHP was too busy to answer when it was asked last. It
// waits for none of them: those that may have come to rest are asked meanwhile.
func (a *Applier) BusyPHP() []string {
	b := &a.busy
	b.mu.Lock()
	defer b.mu.Unlock()
	for site, asked := range b.sites {
		if b.over || time.Since(asked) < busyAgain {
			continue
		}
		b.sites[site] = time.Now()
		b.asking.Go(func() {
			ctx, cancel := context.WithTimeout(a.ctx, busyPatience)
			defer cancel()
			err := pingPool(ctx, a.o.Layout.Socket(site))
			if a.ctx.Err() == nil {
				b.set(site, isBusy(err)) // one that went, or is dead, is told of elsewhere
			}
		})
	}
	return slices.Sorted(maps.Keys(b.sites))
}
