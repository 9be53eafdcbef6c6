package watch

import (
	"sync"

	"upkeep"
)

// subscriberBuffer is how many events a reader may be behind before it is cut off.
const subscriberBuffer = 1024

// broadcaster hands events to any number of readers and waits for none.
type broadcaster struct {
	mu      sync.Mutex
	readers map[chan upkeep.Event]bool
	closed  bool
}

func newBroadcaster() *broadcaster { return &broadcaster{readers: map[chan upkeep.Event]bool{}} }

func (b *broadcaster) subscribe() (<-chan upkeep.Event, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan upkeep.Event, subscriberBuffer)
	if b.closed {
		close(c)
		return c, func() {}
	}
	b.readers[c] = true
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.drop(c)
	}
}

// drop closes c once; b.mu is held.
func (b *broadcaster) drop(c chan upkeep.Event) {
	if b.readers[c] {
		delete(b.readers, c)
		close(c)
	}
}

func (b *broadcaster) send(events []upkeep.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.readers {
		for _, e := range events {
			select {
			case c <- e:
				continue
			default:
			}
			b.drop(c)
			break
		}
	}
}

func (b *broadcaster) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for c := range b.readers {
		b.drop(c)
	}
}
