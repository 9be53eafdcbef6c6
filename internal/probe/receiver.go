package probe

import (
	"container/heap"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"upkeep/internal/beat"
)

// receiver takes in all heartbeats through one socket. One goroutine reads, judges
// and keeps the schedule of what is missed; it looks at the schedule only when the
// socket is empty, so a beat that has arrived is never called missing because this
// program came late. A second one keeps the key files and the socket.
type receiver struct {
	listen string
	log    *slog.Logger
	done   chan struct{} // closed by close
	work   sync.WaitGroup
	poked  chan struct{} // for the keeper: a listener came

	mu        sync.Mutex
	clock     clock
	socket    *beatSocket // nil while it cannot be opened
	fault     string      // why not
	roll      *beat.Roll
	files     map[string]*keyFile
	listeners map[beat.Credential][]*listener // those that have a key
	schedule  schedule                        // all
	armed     time.Duration                   // when the reader means to wake
	stats     BeatStats
	results   Tally
	warned    time.Time                // when lost datagrams were last logged
	refused   [beat.Outcomes]time.Time // when a datagram of each outcome was
}

// BeatStats counts heartbeat datagrams.
type BeatStats struct {
	Outcomes [beat.Outcomes]uint64
	// Lost are datagrams that the socket's queue had no room for.
	Lost uint64
}

// keyFile is a key file as it was last read well.
type keyFile struct {
	file  *beat.KeyFile
	keys  map[string]beat.Credential
	fault string // why it could not be read the last time
	read  bool   // at least once
	users int
}

const (
	// keepEvery is how often key files are looked at, and a socket that could not
	// be opened is tried again.
	keepEvery = 2 * time.Second
	// drainMost bounds the datagrams taken in before misses are looked at, so that
	// a flood does not keep a dead member alive. It exceeds what the queue holds.
	drainMost = 16 << 10
	// idleFor is how long the reader sleeps with nobody to wait for.
	idleFor = time.Hour
)

func newReceiver(listen string, log *slog.Logger) *receiver {
	r := &receiver{
		listen: listen, log: log, done: make(chan struct{}), poked: make(chan struct{}, 1),
		clock: newClock(), roll: beat.NewRoll(), files: map[string]*keyFile{}, listeners: map[beat.Credential][]*listener{},
	}
	r.work.Go(r.keep)
	return r
}

func (r *receiver) close() {
	close(r.done)
	r.mu.Lock()
	if r.socket != nil {
		_ = r.socket.conn.Close() // the reader ends by it
	}
	r.mu.Unlock()
	r.work.Wait()
}

func (r *receiver) isOpen() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.socket != nil
}

// add begins to wait for a member's beats.
func (r *receiver) add(l *listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.files[l.file]
	if f == nil {
		f = &keyFile{file: beat.NewKeyFile(l.file)}
		r.files[l.file] = f
	}
	f.users++
	l.results = &r.results
	// Nothing is missed before the socket is open and the keys are read.
	l.begin(r.clock.now())
	if r.socket != nil {
		l.lost = r.socket.lost
	}
	r.match(l)
	heap.Push(&r.schedule, l)
	r.wake()
	select {
	case r.poked <- struct{}{}:
	default:
	}
}

func (r *receiver) remove(l *listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.place >= 0 {
		heap.Remove(&r.schedule, l.place)
	}
	r.unmatch(l)
	if f := r.files[l.file]; f != nil {
		if f.users--; f.users == 0 {
			delete(r.files, l.file)
		}
	}
	// Its key goes with the next look at the files; until then its beats are
	// judged and nobody is told.
}

// match finds a listener's key and says why there is none.
func (r *receiver) match(l *listener) {
	r.unmatch(l)
	f := r.files[l.file]
	l.lack = ""
	for _, id := range l.ids {
		if c, found := f.keys[id]; found {
			l.credential = c
			r.listeners[c] = append(r.listeners[c], l)
			break
		}
	}
	switch {
	case r.socket == nil:
		l.lack = r.fault
	case !f.read:
		l.lack = f.fault
	case l.credential.ID == "":
		l.lack = clean(fmt.Sprintf("%s holds no key for %s", l.file, l.ids[0]))
	}
	if r.socket == nil && l.lack == "" || r.socket != nil && !f.read && l.lack == "" {
		l.lack = "heartbeats are not taken in yet"
	}
}

func (r *receiver) unmatch(l *listener) {
	if l.credential.ID == "" {
		return
	}
	others := slices.DeleteFunc(r.listeners[l.credential], func(o *listener) bool { return o == l })
	if len(others) == 0 {
		delete(r.listeners, l.credential)
	} else {
		r.listeners[l.credential] = others
	}
	l.credential = beat.Credential{}
}

// keep opens the socket and reads key files until the receiver closes.
func (r *receiver) keep() {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.done:
			return
		case <-tick.C:
		case <-r.poked:
		}
		opened := r.open()
		if read := r.readFiles(); read || opened {
			r.rematch()
		}
	}
}

// open opens the socket if it is not open, and lets the reader begin.
func (r *receiver) open() bool {
	if r.isOpen() {
		return false
	}
	var socket *beatSocket
	err := errors.New("this upkeep takes no heartbeats: it was started without --beat")
	if r.listen != "" { // which would mean any port
		socket, err = openBeatSocket(r.listen)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		if err == nil {
			_ = socket.conn.Close()
		}
		return false
	default:
	}
	if err != nil {
		if fault := clean(err.Error()); fault != r.fault {
			r.fault = fault
			r.log.Error("heartbeats cannot be taken in", "error", err)
		}
		return true // the listeners' reason has changed
	}
	r.socket, r.fault = socket, ""
	r.log.Info("taking heartbeats", "address", socket.conn.LocalAddr())
	r.work.Go(r.run)
	return true
}

// readFiles reads key files that have changed. What cannot be read leaves the
// keys as they were: a slip in an editor must not silence every member.
func (r *receiver) readFiles() (changed bool) {
	r.mu.Lock()
	files := make(map[string]*keyFile, len(r.files))
	for path, f := range r.files {
		files[path] = f
	}
	r.mu.Unlock()
	for path, f := range files {
		credentials, fresh, err := f.file.Read() // only this goroutine uses f.file
		if err == nil && !fresh {
			continue
		}
		changed = true
		keys := make(map[string]beat.Credential, len(credentials))
		for _, c := range credentials {
			keys[c.ID] = c
		}
		r.mu.Lock()
		switch {
		case err == nil:
			r.log.Info("read heartbeat keys", "file", path, "members", len(keys))
			f.keys, f.read, f.fault = keys, true, ""
		case clean(err.Error()) != f.fault:
			f.fault = clean(err.Error())
			r.log.Error("heartbeat keys stay as they were", "file", path, "error", err)
		}
		r.mu.Unlock()
	}
	return changed
}

// rematch gives every listener its key, and the roll the keys that are awaited.
// A key in a file that no check uses counts for nothing.
func (r *receiver) rematch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	for _, l := range r.schedule {
		lacked := l.lack != ""
		r.match(l)
		switch {
		case lacked && l.lack == "": // from now on beats can be missed
			l.begin(now)
		case r.socket == nil: // and so no reader that would tell of it
			l.tell(now, Result{Void: true, Reason: l.lack})
		}
	}
	credentials := make([]beat.Credential, 0, len(r.listeners))
	for c := range r.listeners {
		credentials = append(credentials, c)
	}
	r.roll.SetKeys(credentials)
}

// wake has the reader look at the schedule again if it sleeps too long.
func (r *receiver) wake() {
	if r.socket != nil && len(r.schedule) > 0 && r.schedule[0].queued < r.armed {
		r.armed = r.schedule[0].queued
		r.socket.wakeAfter(0)
	}
}

// run reads until the socket is closed.
func (r *receiver) run() {
	for {
		r.mu.Lock()
		r.arm()
		r.mu.Unlock()
		n, err := r.socket.read(true)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil && !r.rest(err) {
			return
		}
		r.mu.Lock()
		before := r.clock.skew
		r.clock.arrive()
		paused := r.clock.skew != before
		r.take(n, paused)
		if len(r.schedule) > 0 && r.schedule[0].queued <= r.clock.now() {
			r.drain(paused)
			r.expire()
		}
		r.mu.Unlock()
	}
}

// rest waits a moment after a failed read, which must not keep a processor busy.
func (r *receiver) rest(err error) bool {
	r.log.Error("reading heartbeats", "error", err)
	select {
	case <-r.done:
		return false
	case <-time.After(time.Second):
		return true
	}
}

// arm sets the time at which the reader wakes without a datagram.
func (r *receiver) arm() {
	now := r.clock.now()
	r.armed = now + idleFor
	if len(r.schedule) > 0 {
		r.armed = r.schedule[0].queued
	}
	r.socket.wakeAfter(max(r.armed-now, 0))
	r.clock.expect(r.armed)
}

// drain takes in what has arrived already.
func (r *receiver) drain(paused bool) {
	r.socket.neverWake()
	for taken := 0; taken < drainMost; {
		n, err := r.socket.read(false)
		if n == 0 || err != nil {
			return
		}
		r.take(n, paused)
		taken += n
	}
}

// take judges the n datagrams of the batch just read and answers them.
func (r *receiver) take(n int, paused bool) {
	now, raw := r.clock.now(), time.Duration(r.clock.raw())
	for i := range n {
		heard := r.roll.Receive(raw, r.socket.datagram(i))
		r.stats.Outcomes[heard.Outcome]++
		if heard.Reply != nil {
			r.socket.reply(i, heard.Reply)
		}
		if heard.Outcome == beat.Forged || heard.Outcome == beat.Stranger {
			r.noteRefused(i, heard.Outcome)
		}
		if heard.Outcome != beat.Accepted {
			continue
		}
		for _, l := range r.listeners[heard.From] {
			l.lost = r.socket.lost
			l.heard(now, heard, paused)
			if l.due < l.queued {
				l.queued = l.due
				heap.Fix(&r.schedule, l.place)
			}
		}
	}
}

// expire tells of the beats that are missed by now.
func (r *receiver) expire() {
	r.noteLost()
	now := r.clock.now()
	for len(r.schedule) > 0 && r.schedule[0].queued <= now {
		l := r.schedule[0]
		if l.due <= now {
			blind := l.lost != r.socket.lost
			l.lost = r.socket.lost
			l.missed(now, blind)
		}
		l.queued = l.due
		heap.Fix(&r.schedule, 0)
	}
}

// noteRefused logs who sends what cannot count, once a minute at most.
func (r *receiver) noteRefused(i int, outcome beat.Outcome) {
	if time.Since(r.refused[outcome]) < time.Minute {
		return
	}
	r.refused[outcome] = time.Now()
	why := "no heartbeat check awaits this identity"
	if outcome == beat.Forged {
		why = "its secret is not the one in the key file of that member"
	}
	r.log.Warn("heartbeat refused", "from", r.socket.in[i].Addr, "outcome", outcome, "why", why)
}

// noteLost logs lost datagrams, once a minute at most.
func (r *receiver) noteLost() {
	if lost := uint64(r.socket.lost); lost != r.stats.Lost {
		r.stats.Lost = lost
		if time.Since(r.warned) > time.Minute {
			r.warned = time.Now()
			r.log.Warn("heartbeats were lost on this machine: its receive queue ran over", "lost", lost)
		}
	}
}

func (r *receiver) snapshot() (BeatStats, Tally) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats, r.results
}

// isTimeout reports whether a read ended because its time was over.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, unix.EAGAIN)
}
