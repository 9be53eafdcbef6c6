package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"upkeep"
)

const (
	// readLimit is how many events are read at once.
	readLimit = 1000
	// saveEvery is after how many events that nobody wants the cursor is moved:
	// after a restart they are not read again.
	saveEvery = 500
	// retryMin and retryMax bound the pause after an attempt that did not succeed.
	retryMin = time.Second
	retryMax = 5 * time.Minute
	// noticeAfter is how long a receiver must be out of reach before others are
	// told of it.
	noticeAfter = time.Minute
	// storeWait is the pause after the database could not be read.
	storeWait = 5 * time.Second
	idle      = time.Hour
	// created is how the event of a new declaration begins.
	created = "created"
)

// worker tells one receiver, in a goroutine of its own: nobody else waits when
// it has to.
type worker struct {
	receiver upkeep.Receiver // defaults applied
	filter   filter
	sender   sender
	options  Options
	log      *slog.Logger
	identity string

	poke   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}

	// Of the goroutine alone.
	group    group
	read     int64 // id of the last event that was read
	saved    int64 // id up to which the receiver was told, as stored
	unsaved  bool  // a message was taken, but the cursor could not be stored
	sent     time.Time
	attempts int       // since the last success
	retry    time.Time // not before
	noticed  bool      // others were told that this receiver is out of reach

	mu     sync.Mutex
	counts Stats
}

func newWorker(r upkeep.Receiver, f filter, o Options) *worker {
	log := o.Logger.With("receiver", r.Name)
	return &worker{
		receiver: r, filter: f, sender: senders[r.Type](r, log), options: o, log: log, identity: identity(r, f),
		poke: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

func (w *worker) start(ctx context.Context, work *sync.WaitGroup) {
	ctx, w.cancel = context.WithCancel(ctx)
	work.Go(func() {
		defer close(w.done)
		w.run(ctx)
	})
}

// stop ends the worker and waits for it.
func (w *worker) stop() {
	w.cancel()
	<-w.done
}

func (w *worker) wake() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

func (w *worker) snapshot() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts
}

func (w *worker) count(f func(*Stats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.counts)
}

func (w *worker) run(ctx context.Context) {
	loaded := false
	for ctx.Err() == nil {
		var err error
		wait := time.Duration(0)
		if !loaded {
			err = w.load(ctx)
			loaded = err == nil
		} else if err = w.gather(ctx); err == nil {
			wait = w.step(ctx)
		}
		if err != nil {
			if ctx.Err() == nil {
				w.log.Error("reading what is to be told", "err", err)
			}
			wait = storeWait
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-w.poke:
		}
		timer.Stop()
	}
}

// load finds out how far the receiver was told. A new one is told of what
// happens from its declaration on.
func (w *worker) load(ctx context.Context) error {
	store, name := w.options.Store, w.receiver.Name
	cursor, err := store.Cursor(ctx, cursorName(name))
	if err != nil {
		return err
	}
	sent, err := store.Cursor(ctx, sentName(name))
	if err != nil {
		return err
	}
	now := time.Now()
	if last := time.UnixMilli(sent); sent > 0 && last.Before(now) { // the clock may have been set back
		w.sent = now.Add(-now.Sub(last))
	} else if sent > 0 {
		w.sent = now
	}
	begin, err := w.declaredAt(ctx)
	if err != nil {
		return err
	}
	if begin > cursor { // new, or declared again after a deletion that a crash cut short
		cursor = begin
		if err := store.SetCursor(ctx, cursorName(name), cursor); err != nil {
			return err
		}
	}
	w.read, w.saved = cursor, cursor
	return nil
}

// declaredAt is the id of the event with which the receiver came into being. When
// that is not kept any more, it is 0 for a receiver that was told before, and the
// latest event of all for one that was not.
func (w *worker) declaredAt(ctx context.Context) (int64, error) {
	events, err := w.options.Store.Events(ctx, Query{Object: w.filter.self, Kind: upkeep.EventDeclared, Latest: true, Limit: readLimit})
	if err != nil {
		return 0, err
	}
	for _, e := range slices.Backward(events) {
		if strings.HasPrefix(e.What, created) {
			return e.ID, nil
		}
	}
	cursor, err := w.options.Store.Cursor(ctx, cursorName(w.receiver.Name))
	if err != nil || cursor > 0 {
		return 0, err
	}
	if events, err = w.options.Store.Events(ctx, Query{Latest: true, Limit: 1}); err != nil || len(events) == 0 {
		return 0, err
	}
	return events[0].ID, nil
}

// gather reads the events that have come and takes in those that are wanted.
func (w *worker) gather(ctx context.Context) error {
	for {
		events, err := w.options.Store.Events(ctx, Query{After: w.read, Limit: readLimit})
		if err != nil {
			return err
		}
		now := time.Now()
		for _, e := range events {
			w.read = e.ID
			if w.filter.wants(e) {
				w.group.add(e, now)
			}
		}
		if w.group.empty() && !w.unsaved && w.read-w.saved >= saveEvery {
			if err := w.save(ctx, w.read); err != nil {
				return err
			}
		}
		if len(events) < readLimit {
			w.count(func(s *Stats) { s.Waiting = len(w.group.first) + len(w.group.last) + w.group.omitted })
			return nil
		}
	}
}

func (w *worker) save(ctx context.Context, cursor int64) error {
	if err := w.options.Store.SetCursor(ctx, cursorName(w.receiver.Name), cursor); err != nil {
		return err
	}
	w.saved = cursor
	return nil
}

// step sends what is due and returns how long nothing will be, if nothing
// happens.
func (w *worker) step(ctx context.Context) time.Duration {
	now := time.Now()
	wait := idle
	switch {
	case !w.group.empty():
		wait = w.tellGroup(ctx, now)
	case w.options.Status != nil && w.receiver.Repeat > 0:
		wait = w.remind(ctx, now)
	}
	if w.unsaved {
		if w.commit(ctx); w.unsaved {
			wait = min(wait, storeWait)
		}
	}
	return wait
}

// tellGroup sends what waits if it has waited long enough.
func (w *worker) tellGroup(ctx context.Context, now time.Time) time.Duration {
	w.group.expire(now.Add(-time.Duration(w.receiver.MaxAge)))
	if w.group.empty() {
		w.giveUp(ctx)
		return 0
	}
	if wait := w.due().Sub(now); wait > 0 {
		return wait
	}
	w.tell(ctx, w.group.message(w.receiver.Name, w.options.Host, now))
	return 0
}

// due is when the group is to be told.
func (w *worker) due() time.Time {
	due := w.group.begun.Add(time.Duration(*w.receiver.GroupWait))
	for _, least := range []time.Time{w.sent.Add(time.Duration(w.receiver.MinInterval)), w.retry} {
		if least.After(due) {
			due = least
		}
	}
	return due
}

// remind tells what is still wrong when the time for that has come.
func (w *worker) remind(ctx context.Context, now time.Time) time.Duration {
	if w.sent.IsZero() {
		w.sent = now
	}
	due := w.sent.Add(time.Duration(w.receiver.Repeat))
	if w.retry.After(due) {
		due = w.retry
	}
	if wait := due.Sub(now); wait > 0 {
		return wait
	}
	wrong, err := problems(ctx, w.options.Status, w.filter, now)
	if err != nil {
		w.log.Error("asking what is still wrong", "err", err)
		return storeWait
	}
	if len(wrong) == 0 {
		w.sent = now
		return time.Duration(w.receiver.Repeat)
	}
	w.tell(ctx, reminder(w.receiver.Name, w.options.Host, now, wrong))
	return 0
}

// tell makes one attempt.
func (w *worker) tell(ctx context.Context, m Message) {
	attempt, cancel := context.WithTimeout(ctx, time.Duration(w.receiver.Timeout))
	err := w.sender.send(attempt, m)
	cancel()
	if ctx.Err() != nil && err != nil {
		return // stopped, which says nothing about the receiver
	}
	now := time.Now()
	if err != nil {
		w.failed(err, now)
		return
	}
	w.count(func(s *Stats) { s.Sent, s.Failing, s.Waiting = s.Sent+1, time.Time{}, 0 })
	w.log.Info("told", "id", m.ID, "events", len(m.Events)+m.Omitted)
	if w.noticed {
		w.noticed = false
		w.options.Notice(w.filter.self, "can be told again", "")
	}
	w.attempts, w.retry, w.sent = 0, time.Time{}, now
	if !m.Reminder {
		w.group = group{}
	}
	w.unsaved = true
	// It was taken: that is to be remembered even if everything is stopping.
	w.commit(context.WithoutCancel(ctx))
}

// commit stores that everything read so far was told. As long as that does not
// succeed, it is remembered here alone, and nothing is told twice.
func (w *worker) commit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	told := w.read
	if !w.group.empty() {
		told = w.group.from - 1
	}
	err := w.save(ctx, told)
	if !w.sent.IsZero() {
		err = errors.Join(err, w.options.Store.SetCursor(ctx, sentName(w.receiver.Name), w.sent.UnixMilli()))
	}
	if err != nil {
		w.log.Error("storing what was told", "err", err)
		return
	}
	w.unsaved = false
}

// failed puts the next attempt off, longer each time and by chance, so that many
// receivers behind one dead server do not come back in step.
func (w *worker) failed(err error, now time.Time) {
	pause := min(retryMin<<min(w.attempts, 20), retryMax)
	pause = pause/2 + rand.N(pause)
	if asked := later(err); asked > pause {
		pause = min(asked, retryMax)
	}
	w.attempts++
	w.retry = now.Add(pause)
	var since time.Time
	w.count(func(s *Stats) {
		s.Failed++
		if s.Failing.IsZero() {
			s.Failing = now
		}
		since = s.Failing
	})
	w.log.Warn("a message was not taken; trying again", "attempt", w.attempts, "in", pause.Round(time.Millisecond), "err", err)
	if !w.noticed && now.Sub(since) >= noticeAfter {
		w.noticed = true
		w.options.Notice(w.filter.self, "cannot be told what happens; trying again", clean(err.Error()))
	}
}

// giveUp lets go of events that are too old to be told.
func (w *worker) giveUp(ctx context.Context) {
	lost := w.group.expired
	w.count(func(s *Stats) { s.Expired, s.Waiting = s.Expired+uint64(lost), 0 })
	w.log.Error("events were too old to be told and are given up", "events", lost)
	w.options.Notice(w.filter.self, fmt.Sprintf("%d events were never told: they are older than %s", lost, w.receiver.MaxAge), "")
	w.group = group{}
	w.unsaved = true
	w.commit(ctx)
}
