package zone

import (
	"log/slog"
	"sync"
)

// notices tells an operator each thing once, however often it is found.
type notices struct {
	zone string
	tell func(zone, what, why string)

	mu   sync.Mutex
	told map[string]bool
}

// maxTold bounds the memory of what was told; after so many the same things are
// told again.
const maxTold = 200

func newNotices(zone string, log *slog.Logger, tell func(zone, what, why string)) *notices {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if tell == nil { // whoever is told logs it as well
		tell = func(zone, what, why string) { log.Warn(what, "zone", zone, "why", why) }
	}
	return &notices{zone: zone, tell: tell, told: map[string]bool{}}
}

func (n *notices) add(what, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.told[what+why] {
		return
	}
	if len(n.told) >= maxTold {
		clear(n.told)
	}
	n.told[what+why] = true
	n.tell(n.zone, what, why)
}

// addSome is add for what anybody on the network can bring about: after the
// given number nothing is told any more.
func (n *notices) addSome(most int, what, why string) {
	n.mu.Lock()
	full := len(n.told) >= most
	n.mu.Unlock()
	if !full {
		n.add(what, why)
	}
}
