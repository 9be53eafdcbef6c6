package probe

import (
	"container/heap"
	"fmt"
	"net"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/beat"
)

// heartbeat takes the beats of members. All heartbeat checks of an engine share
// one receiver, for a member sends to one address whatever pools it is in.
type heartbeat struct {
	receiver *receiver
	check    upkeep.Check
}

func prepareHeartbeat(e *Engine, c upkeep.Check) (asker, error) {
	r := e.beats.Load()
	if r == nil {
		r = newReceiver(e.options.HeartbeatListen, e.log)
		e.beats.Store(r)
		e.onClose(r.close)
	}
	return &heartbeat{receiver: r, check: c}, nil
}

// preflightHeartbeat sees that beats can arrive and be judged.
func preflightHeartbeat(e *Engine, c upkeep.Check) error {
	listen := e.options.HeartbeatListen
	if listen == "" {
		return upkeep.WithHint(fmt.Errorf("a heartbeat check needs an address that beats are sent to, and this upkeep has none"),
			"start it with --beat ADDRESS, such as --beat :5301")
	}
	if _, err := beat.ReadKeys(c.KeyFile); err != nil {
		return err
	}
	if r := e.beats.Load(); r != nil && r.isOpen() {
		return nil
	}
	socket, err := net.ListenPacket("udp", listen)
	if err != nil {
		return fmt.Errorf("listening for heartbeats: %w", err)
	}
	return socket.Close()
}

func (h *heartbeat) watch(w watched) (stop func(), err error) {
	// The identity in the key file is what is asked; the address that the member
	// is published under will do too.
	var ids []string
	for _, name := range []string{w.target, w.name} {
		if id, err := beat.ParseID(name); err == nil {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%q cannot be the identity of a heartbeat", w.target)
	}
	l := &listener{
		watched: w, ids: ids, file: h.check.KeyFile,
		interval: time.Duration(h.check.Interval), patience: time.Duration(h.check.Timeout),
	}
	h.receiver.add(l)
	return func() { h.receiver.remove(l) }, nil
}

// listener is a member whose beats are awaited. The receiver's lock guards it.
type listener struct {
	watched
	ids      []string // the first that the key file holds is used
	file     string
	interval time.Duration
	patience time.Duration // the most that a beat may be late

	credential beat.Credential // zero while there is no key
	lack       string          // why not, fit for a reason

	results *Tally // of the receiver

	place  int           // in the schedule, -1 outside
	due    time.Duration // when the next beat is missed
	queued time.Duration // the due time that the schedule knows, due or earlier

	rhythm  beat.Rhythm   // says when the next beat is due
	last    time.Duration // when the last beat came; zero before the first
	told    time.Duration // when the last beat was reported
	since   time.Duration // when listening began
	health  beat.Health
	pace    time.Duration // interval that the sender states
	goodbye bool
	failing bool
	rivals  time.Duration // when two senders were last seen, zero never
	warned  string        // the warning told last
	lost    uint32        // datagrams that this machine had lost when the next beat began to be awaited
}

// begin awaits the first beat from now on.
func (l *listener) begin(now time.Duration) {
	l.since = now
	l.rhythm = beat.NewRhythm(l.interval, l.patience, now)
	l.due = l.rhythm.Due()
}

// heard takes an accepted beat. paused means that beats have been waiting for
// this program, so that their spacing says nothing.
func (l *listener) heard(now time.Duration, h beat.Heard, paused bool) {
	late := l.rhythm.Heard(now, paused || l.goodbye)
	l.due = l.rhythm.Due()
	if h.Rivals {
		l.rivals = now
	}
	turned := h.Health != l.health
	first := l.last == 0 || l.failing || turned
	l.last, l.pace, l.health = now, h.Interval, h.Health
	if l.goodbye = h.Health.State == beat.Goodbye; l.goodbye {
		if turned { // it is said several times
			l.tell(now, Result{Goodbye: true, Reason: "its heartbeat was stopped in good order"})
		}
		l.failing = true
		return
	}
	// A sender that is quicker than the check's interval would fill the history
	// with successes, while misses are counted at the interval.
	warning := l.warning(now)
	if !first && warning == l.warned && now-l.told < l.interval/2 {
		return
	}
	l.warned = warning
	if h.Health.State == beat.NotWell {
		l.tell(now, Result{Refused: true, Reason: "not well: " + h.Health.Reason()})
		return
	}
	l.failing = false
	l.tell(now, Result{OK: true, Late: late, Warning: warning})
}

func (l *listener) tell(now time.Duration, r Result) {
	l.told = now
	l.results.note(r)
	l.report(r)
}

// missed takes the absence of a beat. blind means that datagrams were lost on
// this machine, so that an absence says nothing.
func (l *listener) missed(now time.Duration, blind bool) {
	overdue := l.rhythm.Missed(now, blind || l.lack != "")
	l.due = l.rhythm.Due()
	if l.lack != "" {
		l.tell(now, Result{Void: true, Reason: l.lack})
		return
	}
	if blind {
		l.tell(now, Result{Void: true, Reason: "heartbeats were lost on the monitor itself: its receive queue ran over"})
		return
	}
	l.failing = true
	l.tell(now, Result{RTT: overdue, Reason: l.silence(now)})
}

func (l *listener) silence(now time.Duration) string {
	switch {
	case l.last == 0:
		return fmt.Sprintf("no heartbeat since this check began %s ago", rough(now-l.since))
	case l.goodbye:
		return fmt.Sprintf("said goodbye %s ago and has not beaten since", rough(now-l.last))
	case l.pace > l.interval:
		return fmt.Sprintf("no heartbeat for %s: its sender beats every %s, the check expects one every %s", rough(now-l.last), l.pace, l.interval)
	}
	return fmt.Sprintf("no heartbeat for %s", rough(now-l.last))
}

// rivalsFor is how long two senders with one key are warned of.
const rivalsFor = 10 * time.Minute

func (l *listener) warning(now time.Duration) string {
	var warnings []string
	if l.rivals != 0 && now-l.rivals < rivalsFor {
		warnings = append(warnings, fmt.Sprintf("two senders beat with the key of %s: while one lives, the member counts as alive", l.credential.ID))
	}
	if l.pace > l.interval {
		warnings = append(warnings, fmt.Sprintf("its sender beats every %s, slower than the check's interval of %s: beats are missed all the time", l.pace, l.interval))
	}
	return strings.Join(warnings, "; ")
}

// rough rounds a time to what a person wants to read.
func rough(d time.Duration) time.Duration {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond)
	case d < time.Minute:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// schedule is a heap of listeners by when the next beat is missed. A beat does
// not move its listener: that happens when the old time has come, once for each
// interval and not for each beat.
type schedule []*listener

var _ heap.Interface = (*schedule)(nil)

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].queued < s[j].queued }
func (s schedule) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i, j
}

// Push is for package heap.
func (s *schedule) Push(x any) {
	l := x.(*listener)
	l.place, l.queued = len(*s), l.due
	*s = append(*s, l)
}

// Pop is for package heap.
func (s *schedule) Pop() any {
	old := *s
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	last.place = -1
	return last
}
