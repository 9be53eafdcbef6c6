package zone

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Timing of NOTIFY (RFC 1996). The RFC asks for retries until a secondary has
// answered, with growing pauses, and for a spread where many are told.
const (
	notifyTimeout  = 2 * time.Second
	notifyPause    = time.Second // after the first failure; doubled after each further one
	notifyPauseMax = time.Minute
	notifyAtOnce   = 10 // secondaries told without a spread
	notifySpread   = 2 * time.Second
	notifySettle   = 2 * time.Second // what a secondary needs to act on a NOTIFY
	lookupInterval = 5 * time.Minute // of secondaries given by name
)

// notifier tells the secondaries of one zone that it has changed. Changes that
// come while a secondary is being told are told together.
type notifier struct {
	zone *primary

	mu      sync.Mutex
	targets map[string]*secondary
	serial  uint32 // to tell of; 0 for none yet
	closed  bool
	running sync.WaitGroup
}

// secondary is one secondary.
type secondary struct {
	address string // as declared
	key     Key
	wake    chan struct{} // holds one token while there is something to tell
	stop    context.CancelFunc

	// Guarded by notifier.mu.
	addrs  []netip.Addr
	status SecondaryStatus
}

// SecondaryStatus is what is known of one secondary of a zone.
type SecondaryStatus struct {
	Address string `json:"address"`
	// Serial is the latest that the secondary acknowledged a NOTIFY for.
	Serial  uint32    `json:"serial"`
	AckedAt time.Time `json:"acked_at,omitzero"`
	// Tries counts the NOTIFY messages sent for the serial that is not yet
	// acknowledged; Error is what came of the last one.
	Tries int    `json:"tries,omitempty"`
	Error string `json:"error,omitempty"`
}

func newNotifier(zone *primary) *notifier {
	return &notifier{zone: zone, targets: map[string]*secondary{}}
}

// configure starts and stops telling so that exactly the secondaries of the
// settings are told, each at once of the serial in force.
func (n *notifier) configure(s settings) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for address, t := range n.targets {
		if n.closed || !slices.Contains(s.secondaries, address) || t.key.Name != s.key.Name || t.key.Secret() != s.key.Secret() {
			t.stop()
			delete(n.targets, address)
		}
	}
	if n.closed {
		return
	}
	for _, address := range s.secondaries {
		if n.targets[address] != nil {
			continue
		}
		ctx, stop := context.WithCancel(context.Background())
		t := &secondary{address: address, key: s.key, wake: make(chan struct{}, 1), stop: stop}
		t.status.Address = address
		if addr, err := netip.ParseAddrPort(address); err == nil {
			t.addrs = []netip.Addr{addr.Addr().Unmap()}
		}
		n.targets[address] = t
		n.running.Go(func() { n.tell(ctx, t) })
		if n.serial != 0 {
			t.wake <- struct{}{}
		}
	}
}

// changed has every secondary told of the serial.
func (n *notifier) changed(serial uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.serial = serial
	for _, t := range n.targets {
		t.status.Tries, t.status.Error = 0, ""
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// close stops telling and returns when nothing of it runs any more.
func (n *notifier) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.configure(settings{})
	n.running.Wait()
}

func (n *notifier) isSecondary(addr netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.targets {
		if slices.Contains(t.addrs, addr) {
			return true
		}
	}
	return false
}

func (n *notifier) statuses() []SecondaryStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []SecondaryStatus
	for _, t := range n.targets {
		all = append(all, t.status)
	}
	slices.SortFunc(all, func(a, b SecondaryStatus) int { return strings.Compare(a.Address, b.Address) })
	return all
}

// tell runs for as long as the target is a secondary of the zone.
func (n *notifier) tell(ctx context.Context, t *secondary) {
	n.lookup(ctx, t)
	again := time.NewTicker(lookupInterval)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			n.lookup(ctx, t)
		case <-t.wake:
			if !pause(ctx, n.spread(), nil) {
				return
			}
			n.tellUntilAcknowledged(ctx, t)
		}
	}
}

// tellUntilAcknowledged sends NOTIFY with growing pauses until the secondary has
// acknowledged it and is not behind. A new change ends the pause.
func (n *notifier) tellUntilAcknowledged(ctx context.Context, t *secondary) {
	wait, last := notifyPause, uint32(0)
	for {
		n.mu.Lock()
		serial := n.serial
		n.mu.Unlock()
		if serial != last {
			wait, last = notifyPause, serial
		}
		err := n.send(ctx, t, serial)
		if ctx.Err() != nil {
			return
		}
		n.note(t, serial, err)
		if err == nil && !n.behind(ctx, t, serial) {
			return
		}
		jitter := time.Duration(rand.Int64N(int64(wait)/4 + 1))
		if !pause(ctx, wait+jitter, t.wake) {
			return
		}
		wait = min(2*wait, notifyPauseMax)
	}
}

// behind reports whether a secondary that has acknowledged a NOTIFY did nothing
// about it. BIND acknowledges and forgets one that comes while it is trying to
// reach its primary in vain, as when both have just started; the zone is then
// missing there until its own retry. A new change ends the wait for an answer.
func (n *notifier) behind(ctx context.Context, t *secondary, serial uint32) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := make(chan bool, 1)
	n.running.Go(func() { late <- pause(ctx, notifySettle, nil) && n.lacks(ctx, t, serial) })
	select {
	case is := <-late:
		return is
	case <-t.wake:
		select {
		case t.wake <- struct{}{}: // for tell, which goes on with it
		default:
		}
		return false
	}
}

// lacks asks a secondary for its serial. Only an older one, or SERVFAIL for a
// zone not loaded, is a sign that it is behind: who does not answer questions may
// be as well informed as anybody.
func (n *notifier) lacks(ctx context.Context, t *secondary, serial uint32) bool {
	answer, err := query{server: t.address, name: n.zone.name, qtype: dns.TypeSOA}.once(ctx, "udp", notifyTimeout)
	if err != nil {
		return false
	}
	for _, record := range answer.Answer {
		if soa, is := record.(*dns.SOA); is {
			return SerialLess(soa.Serial, serial)
		}
	}
	return answer.Rcode == dns.RcodeServerFailure
}

// note keeps the outcome of one NOTIFY.
func (n *notifier) note(t *secondary, serial uint32, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		t.status.Tries++
		t.status.Error = err.Error()
		if t.status.Tries == 3 {
			n.zone.log().Warn("a secondary does not acknowledge NOTIFY", "secondary", t.address, "error", err)
		}
		return
	}
	t.status.Serial, t.status.AckedAt = serial, n.zone.server.o.Now()
	t.status.Tries, t.status.Error = 0, ""
}

// spread is how long to wait before telling one of many secondaries.
func (n *notifier) spread() time.Duration {
	n.mu.Lock()
	many := len(n.targets) > notifyAtOnce
	n.mu.Unlock()
	if !many {
		return 0
	}
	return rand.N(notifySpread)
}

// pause waits and reports whether to go on; a token in wake ends it early.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wake:
	}
	return true
}

// lookup finds the addresses of a secondary that is given by name. The last
// good ones are kept while the name does not resolve.
func (n *notifier) lookup(ctx context.Context, t *secondary) {
	host, _, err := net.SplitHostPort(t.address)
	if err != nil {
		return
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		return
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	n.mu.Lock()
	t.addrs = found
	n.mu.Unlock()
}

// send sends one NOTIFY and waits for its answer.
func (n *notifier) send(ctx context.Context, t *secondary, serial uint32) error {
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	conn, err := n.dial(ctx, t.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	m := new(dns.Msg).SetNotify(n.zone.origin)
	if current, _, _ := n.zone.snapshot(); current != nil {
		m.Answer = []dns.RR{dns.Copy(current.zone.SOA())}
	}
	packed, mac := []byte(nil), ""
	if t.key.IsZero() {
		packed, err = m.Pack()
	} else {
		m.SetTsig(t.key.Name, t.key.Algorithm, fudge, n.zone.server.o.Now().Unix())
		packed, mac, err = dns.TsigGenerate(m, t.key.Secret(), "", false)
	}
	if err != nil {
		return err
	}
	if _, err := conn.Write(packed); err != nil {
		return err
	}
	return awaitAcknowledgement(ctx, conn, m.Id, t.key, mac)
}

// awaitAcknowledgement reads until the answer comes; whatever else comes in its
// place (late, forged, badly signed) is passed over.
func awaitAcknowledgement(ctx context.Context, conn net.Conn, id uint16, key Key, mac string) error {
	buffer := make([]byte, dns.DefaultMsgSize)
	var wrong error
	for {
		size, err := conn.Read(buffer)
		if err != nil {
			if ctx.Err() != nil {
				return errors.Join(wrong, errors.New("no answer to NOTIFY"))
			}
			return err
		}
		var m dns.Msg
		if m.Unpack(buffer[:size]) != nil || !m.Response || m.Id != id || m.Opcode != dns.OpcodeNotify {
			continue
		}
		if m.Rcode != dns.RcodeSuccess {
			// A refusal of the key itself cannot be signed (RFC 8945 section 5.3.2).
			return fmt.Errorf("NOTIFY is answered with %s", dns.RcodeToString[m.Rcode])
		}
		if !key.IsZero() {
			if err := dns.TsigVerify(buffer[:size], key.Secret(), mac, false); err != nil {
				wrong = fmt.Errorf("the answer to NOTIFY is not signed well: %w", err)
				continue
			}
		}
		return nil
	}
}

// dial opens a socket to a secondary from an address that the server listens on
// where it can, because that is the one the secondary knows its primary by.
func (n *notifier) dial(ctx context.Context, address string) (net.Conn, error) {
	if remote, err := netip.ParseAddrPort(address); err == nil {
		for _, local := range n.zone.server.Addrs() {
			if local.Addr().IsUnspecified() || local.Addr().Is4() != remote.Addr().Unmap().Is4() {
				continue
			}
			dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0))}
			if conn, err := dialer.DialContext(ctx, "udp", address); err == nil {
				return conn, nil
			}
		}
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "udp", address)
}
