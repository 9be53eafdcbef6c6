package selftest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// neighbours asks sites of another account for their pages, again and again, and
// remembers whatever was not as it should be.
type neighbours struct {
	mu     sync.Mutex
	broken []error
	asked  int
	cancel context.CancelFunc
	done   sync.WaitGroup
	round  *sync.Cond
	rounds int
}

const (
	// askEvery is how often each neighbour is asked.
	askEvery = 50 * time.Millisecond
	// patience is how long a neighbour may take. A reload lets new connections wait
	// for as long as it takes to read the configuration, which is little here.
	patience = 10 * time.Second
	// maxBroken bounds what is remembered of one attack.
	maxBroken = 3
)

func watch(w *World, hosts ...string) *neighbours {
	ctx, cancel := context.WithCancel(context.Background())
	n := &neighbours{cancel: cancel}
	n.round = sync.NewCond(&n.mu)
	n.done.Go(func() {
		ticker := time.NewTicker(askEvery)
		defer ticker.Stop()
		for ctx.Err() == nil {
			for _, host := range hosts {
				n.ask(ctx, w, host)
			}
			n.mu.Lock()
			n.rounds++
			n.round.Broadcast()
			n.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
		n.mu.Lock()
		n.rounds += 1 << 30 // nobody waits any more
		n.round.Broadcast()
		n.mu.Unlock()
	})
	return n
}

func (n *neighbours) ask(ctx context.Context, w *World, host string) {
	began := time.Now()
	got, err := w.get(ctx, host, "/")
	took := time.Since(began)
	if ctx.Err() != nil {
		return
	}
	want := strings.TrimPrefix(host, "www.")
	switch {
	case err != nil:
		err = fmt.Errorf("the neighbour %s did not answer: %w", host, err)
	case got.status != http.StatusOK || got.body != page(want):
		err = fmt.Errorf("the neighbour %s answered with status %d: %.80q", host, got.status, got.body)
	case took > patience:
		err = fmt.Errorf("the neighbour %s took %s", host, took.Round(time.Millisecond))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if err != nil && len(n.broken) < maxBroken {
		n.broken = append(n.broken, err)
	}
}

// fresh waits until each neighbour was asked once more, from beginning to end,
// and returns what was wrong since the last call.
func (n *neighbours) fresh() []error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for target := n.rounds + 2; n.rounds < target; {
		n.round.Wait()
	}
	broken := n.broken
	n.broken = nil
	return broken
}

func (n *neighbours) stop() {
	if n != nil {
		n.cancel()
		n.done.Wait()
	}
}
