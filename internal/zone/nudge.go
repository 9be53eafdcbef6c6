package zone

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// nudger sends NOTIFY (RFC 1996) to the listed servers of a zone whose primary
// is somebody else's. The primary sends its own, and BIND holds the second one
// of a zone back for notify-delay, five seconds by default; a removal should not
// wait for that. It is taken from hosts that secondaries have for a primary,
// which is the case where upkeep runs beside named, or that allow-notify lists.
// Whoever refuses it loses nothing.
type nudger struct {
	log     *slog.Logger
	zone    string
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newNudger(zone string, log *slog.Logger) *nudger {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	n := &nudger{log: log, zone: zone}
	n.ctx, n.stop = context.WithCancel(context.Background())
	return n
}

// nudgeTimeouts are the waits of successive attempts. The message is a favour,
// and the primary's own follows. The first is shorter than a long round trip: who
// is told twice checks once more whether there is anything new, whereas a message
// that is lost costs a removal all of the wait.
var nudgeTimeouts = [...]time.Duration{40 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond, time.Second}

// tell nudges every server but the primary and does not wait for it.
func (n *nudger) tell(primary string, servers []string) {
	for _, server := range servers {
		if server == primary || n.ctx.Err() != nil {
			continue
		}
		n.running.Go(func() {
			if err := n.send(server); err != nil && n.ctx.Err() == nil {
				n.log.Debug("a name server did not take a NOTIFY; its primary sends another", "zone", n.zone, "server", server, "err", err)
			}
		})
	}
}

func (n *nudger) send(server string) (err error) {
	m := new(dns.Msg)
	m.SetNotify(dns.Fqdn(n.zone))
	m.Authoritative = true
	for _, timeout := range nudgeTimeouts {
		var answer *dns.Msg
		answer, err = exchange(n.ctx, m, server, "udp", timeout, Key{})
		if err == nil {
			if answer.Rcode != dns.RcodeSuccess {
				n.log.Debug("a name server refused a NOTIFY; its primary sends another", "zone", n.zone, "server", server, "rcode", dns.RcodeToString[answer.Rcode])
			}
			return nil
		}
	}
	return err
}

// close ends what is under way and waits for it.
func (n *nudger) close() {
	n.stop()
	n.running.Wait()
}
