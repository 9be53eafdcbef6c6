package zone

import (
	"context"
	"fmt"
	"sync"
	"time"

	"upkeep"
)

const (
	// doubtsFor bounds what asking costs a change.
	doubtsFor = time.Second
	maxDoubts = 16
)

// DoubtServers asks, for zones with a bind publisher that does not say where its
// named answers, whether one does at [DefaultBindServer], and returns a sentence
// for each zone where none does. Without a server that answers, each publish waits
// for one. No more than a second is spent on it, and not more than a few zones are
// asked for.
func DoubtServers(ctx context.Context, zones []upkeep.Zone) []string {
	ctx, cancel := context.WithTimeout(ctx, doubtsFor)
	defer cancel()
	said := make([]string, min(len(zones), maxDoubts))
	var asking sync.WaitGroup
	for i := range said {
		asking.Go(func() { said[i] = doubtServer(ctx, zones[i], DefaultBindServer) })
	}
	asking.Wait()
	var doubts []string
	for _, s := range said {
		if s != "" {
			doubts = append(doubts, s)
		}
	}
	return doubts
}

// doubtServer is the sentence about one zone, "" when there is nothing to say;
// standard is where named is taken to be.
func doubtServer(ctx context.Context, z upkeep.Zone, standard string) string {
	unsaid := false
	for _, p := range z.Publishers {
		unsaid = unsaid || p.Type == upkeep.PublishBind && p.Server == "" && p.Agent == ""
	}
	if !unsaid {
		return ""
	}
	answers := make([]bool, len(z.Servers)+1)
	var asking sync.WaitGroup
	for i, server := range append([]string{standard}, z.Servers...) {
		asking.Go(func() {
			_, err := ServedSerial(ctx, server, z.Name)
			answers[i] = err == nil
		})
	}
	asking.Wait()
	if answers[0] {
		return ""
	}
	warning := fmt.Sprintf("zone %s: its bind publisher names no server, and %s does not answer for the zone: each publish would wait for it", z.Name, standard)
	for i, server := range z.Servers {
		if answers[i+1] {
			return fmt.Sprintf("%s; %s answers: if that is the named that rndc controls, write server: %q into the publisher", warning, server, server)
		}
	}
	return warning + "; write where the named that rndc controls answers, as server: \"ADDRESS:PORT\""
}
