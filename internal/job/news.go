package job

import (
	"sync"

	"upkeep"
)

// readerBuffer is how many jobs a reader may be behind before it is cut off: a
// change of thousands of sites makes as many jobs at once.
const readerBuffer = 1 << 14

// news hands changed jobs to any number of readers, the same to all, and waits for none.
type news struct {
	mu      sync.Mutex
	readers map[chan *upkeep.Job]bool
	closed  bool
}

func (n *news) subscribe() (<-chan *upkeep.Job, func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := make(chan *upkeep.Job, readerBuffer)
	if n.closed {
		close(c)
		return c, func() {}
	}
	if n.readers == nil {
		n.readers = map[chan *upkeep.Job]bool{}
	}
	n.readers[c] = true
	return c, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.drop(c)
	}
}

// drop closes c once; n.mu is held.
func (n *news) drop(c chan *upkeep.Job) {
	if n.readers[c] {
		delete(n.readers, c)
		close(c)
	}
}

func (n *news) send(jobs []upkeep.Job) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.readers {
		if cap(c)-len(c) < len(jobs) {
			n.drop(c)
			continue
		}
		for i := range jobs {
			c <- &jobs[i]
		}
	}
}

func (n *news) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for c := range n.readers {
		n.drop(c)
	}
}
