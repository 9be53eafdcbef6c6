package beat

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	// maintainEvery is how often the receiver's silence is judged.
	maintainEvery = time.Second
	// resolveEvery is how often a receiver that is given by name is looked up.
	resolveEvery = time.Minute
	// silentFor is how long a receiver may leave a new session unanswered before
	// the next of its addresses is tried, from a socket of its own.
	silentFor = 5 * time.Second
	// deafAfter is the same for a session that was answered before. The receiver
	// renews its nonce each minute.
	deafAfter = 3 * renewAfter
	// replyEvery bounds how often an answer may lead to an extra beat.
	replyEvery = 20 * time.Millisecond
	// goodbyeFor and goodbyeTries bound the goodbye: it is said until it is
	// acknowledged, at first quickly.
	goodbyeFor   = time.Second
	goodbyeTries = 8
)

// link is the sender's side towards one receiver.
type link struct {
	to       string
	interval time.Duration
	log      *slog.Logger
	pulse    *pulse
	secrets  chan Credential
	resolved chan []netip.AddrPort

	credential Credential
	session    *Session
	began      time.Time // of the session

	addrs []netip.AddrPort
	next  int // index of the address to try next
	conn  *net.UDPConn
	heard chan []byte // datagrams from conn

	dialed    time.Time // when a socket was last asked for
	answered  time.Time // last sign of the receiver, or when the socket was made
	replied   time.Time // last extra beat
	answering bool      // the receiver answered in this session; for the log
	trouble   string    // last error logged
}

func newLink(to string, c Credential, interval time.Duration, log *slog.Logger, p *pulse) *link {
	return &link{
		to: to, interval: interval, log: log.With("to", to), pulse: p, credential: c,
		secrets: make(chan Credential, 1), resolved: make(chan []netip.AddrPort, 1),
	}
}

// rekey has the link begin a session with another secret. Only one goroutine
// may call it.
func (l *link) rekey(c Credential) {
	select {
	case <-l.secrets:
	default:
	}
	l.secrets <- c
}

// run beats until ctx is done and says goodbye. began is called when the first
// beat was sent, or could not be.
func (l *link) run(ctx context.Context, began func()) {
	defer l.close()
	resolving, stop := context.WithCancel(ctx)
	defer stop()
	l.begin(l.credential)
	if addrs, literal := literalAddress(l.to); literal {
		l.readdress(addrs)
	} else {
		go l.resolve(resolving)
	}
	began()
	tick := time.NewTicker(l.interval)
	defer tick.Stop()
	maintain := time.NewTicker(maintainEvery)
	defer maintain.Stop()
	for {
		_, changed := l.pulse.get()
		select {
		case <-ctx.Done():
			l.goodbye()
			return
		case <-tick.C:
			l.beat()
		case <-maintain.C:
			l.lookAfter()
			if !l.answering && l.interval > maintainEvery {
				l.beat() // a lost challenge must not cost a whole interval
			}
		case <-changed:
			l.beat()
		case datagram := <-l.heard:
			l.hear(datagram)
		case c := <-l.secrets:
			l.begin(c)
			l.beat()
		case addrs := <-l.resolved:
			l.readdress(addrs)
		}
	}
}

func (l *link) begin(c Credential) {
	l.credential, l.session, l.began = c, NewSession(c, l.interval), time.Now()
	l.answering = false
}

func (l *link) beat() {
	health, _ := l.pulse.get()
	l.send(l.session.Beat(time.Since(l.began), health))
}

func (l *link) send(datagram []byte) {
	if l.conn == nil {
		return
	}
	_, err := l.conn.Write(datagram)
	l.note(err)
}

// note logs trouble when it comes and when it changes. An error of a connected
// UDP socket may belong to an earlier datagram.
func (l *link) note(err error) {
	switch {
	case err != nil && err.Error() != l.trouble:
		l.trouble = err.Error()
		l.log.Warn("beats do not get through", "error", err)
	case err == nil && l.trouble != "" && l.answering:
		l.trouble = ""
	}
}

func (l *link) hear(datagram []byte) Answer {
	answer := l.session.Hear(datagram)
	if answer == Ignored {
		return answer
	}
	l.answered = time.Now()
	if !l.answering {
		l.answering, l.trouble = true, ""
		l.log.Info("beating", "as", l.credential.ID, "every", l.interval)
	}
	if answer == BeatNow && time.Since(l.replied) >= replyEvery {
		l.replied = time.Now()
		l.beat()
	}
	return answer
}

// lookAfter makes a new socket when the receiver has been silent for too long:
// it may have moved, or something between has forgotten the old one.
func (l *link) lookAfter() {
	if l.conn == nil {
		l.dial()
		return
	}
	patience := max(deafAfter, 3*l.interval)
	if !l.answering {
		patience = silentFor
	}
	if time.Since(l.answered) < patience {
		return
	}
	if l.answering || l.trouble == "" {
		l.trouble = "silent"
		l.log.Warn("no answer from the receiver, so no beat counts; it answers only to a key that it knows, and its answers must get through", "silent", time.Since(l.answered).Round(time.Second))
	}
	l.answering = false
	l.dial()
}

// resolve looks the receiver up until ctx is done, apart from the beats.
func (l *link) resolve(ctx context.Context) {
	for wait := time.Second; ; wait = min(2*wait, resolveEvery) {
		addrs, err := lookUp(ctx, l.to)
		if err == nil {
			select {
			case l.resolved <- addrs:
			case <-ctx.Done():
				return
			}
			wait = resolveEvery / 2
		} else if ctx.Err() == nil {
			l.log.Warn("receiver cannot be looked up", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// literalAddress is the receiver's address when it is not given by name.
func literalAddress(to string) ([]netip.AddrPort, bool) {
	addr, err := netip.ParseAddrPort(to)
	return []netip.AddrPort{addr}, err == nil
}

func lookUp(ctx context.Context, to string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var addrs []netip.AddrPort
	for _, addr := range found {
		addrs = append(addrs, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
	}
	return addrs, nil
}

// readdress takes over what the receiver's name stands for now. A socket to an
// address that is still among them stays.
func (l *link) readdress(addrs []netip.AddrPort) {
	l.addrs = addrs
	if l.conn != nil {
		for _, addr := range addrs {
			if l.conn.RemoteAddr().String() == addr.String() {
				return
			}
		}
	}
	l.next = 0
	l.dial()
	l.beat()
}

// dial makes a socket to the next address. It is connected, so that only the
// receiver's datagrams come in and refusals are told.
func (l *link) dial() {
	l.close()
	if len(l.addrs) == 0 {
		return
	}
	addr := l.addrs[l.next%len(l.addrs)]
	l.next++
	l.dialed = time.Now()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	l.note(err)
	if err != nil {
		return // lookAfter tries again
	}
	l.conn, l.heard, l.answered = conn, make(chan []byte, 16), l.dialed
	go listen(conn, l.heard)
}

// listen hands on what comes in, until the socket is closed.
func listen(conn *net.UDPConn, heard chan<- []byte) {
	for {
		datagram := make([]byte, Size+1)
		n, err := conn.Read(datagram)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, syscall.ECONNREFUSED): // told of an earlier beat; Write tells it too
			continue
		case err != nil:
			time.Sleep(replyEvery) // whatever it is must not keep a processor busy
			continue
		case n != Size:
			continue
		}
		select {
		case heard <- datagram[:n]:
		default: // the link is busy; the receiver will say it again
		}
	}
}

func (l *link) close() {
	if l.conn != nil {
		_ = l.conn.Close() // nothing is buffered
		l.conn = nil
	}
}

// goodbye says that the member leaves until the receiver acknowledges it.
func (l *link) goodbye() {
	end := time.Now().Add(goodbyeFor)
	wait := replyEvery
	for try := range goodbyeTries {
		l.send(l.session.Beat(time.Since(l.began), Health{State: Goodbye}))
		// A receiver that never answered gets no more than three.
		if l.conn == nil || !l.answering && try == 2 || !time.Now().Before(end) {
			return
		}
		if l.dismissed(wait) {
			l.log.Info("said goodbye", "as", l.credential.ID)
			return
		}
		wait = min(2*wait, 200*time.Millisecond)
	}
	l.log.Warn("the goodbye was not acknowledged", "as", l.credential.ID)
}

// dismissed waits for the answer to a goodbye, answering a challenge with
// another goodbye at once.
func (l *link) dismissed(wait time.Duration) bool {
	timeout := time.After(wait)
	for {
		select {
		case <-timeout:
			return false
		case datagram := <-l.heard:
			switch l.session.Hear(datagram) {
			case Dismissed:
				return true
			case BeatNow:
				l.answering = true
				l.send(l.session.Beat(time.Since(l.began), Health{State: Goodbye}))
			}
		}
	}
}
