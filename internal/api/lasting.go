package api

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"upkeep"
)

// again is how often it is asked who reads an answer that has no end, beside when
// something happened to its user: a sign-in ends by itself, too.
const again = 10 * time.Second

// errUnknown ends answers whose caller is not any more who it was.
var errUnknown = errors.New("the caller is not any more who it was")

// Forgotten reports whether a context ended because its caller is not any more who it
// was: signed out, without a token, of another account.
func Forgotten(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errUnknown) }

// lasting are the answers that have no end of their own. One of them all listens to
// what happens to users: were it each for itself, every verdict would wake a thousand.
type lasting struct {
	mu   sync.Mutex
	open map[chan struct{}]string // woken when something happened to this user
	stop context.CancelFunc       // of who listens, while there are any
}

// whileKnown is a context that ends when its caller is not any more who it was.
func (l *lasting) whileKnown(ctx context.Context, from Recorder) (context.Context, context.CancelFunc) {
	still, is := ctx.Value(stillKey).(func() bool)
	user := callerOf(ctx).User
	ctx, cancel := context.WithCancelCause(ctx)
	end := func() { cancel(context.Canceled) }
	if !is || user == "" {
		return ctx, end
	}
	woken := l.join(user, from)
	go func() {
		defer l.leave(woken)
		tick := time.NewTicker(again)
		defer tick.Stop()
		for {
			// At once, too: it may have happened before it was listened to.
			if ctx.Err() == nil && !still() {
				cancel(errUnknown)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-woken:
			}
		}
	}()
	return ctx, end
}

func (l *lasting) join(user string, from Recorder) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	woken := make(chan struct{}, 1)
	if l.open == nil {
		l.open = map[chan struct{}]string{}
	}
	l.open[woken] = user
	if l.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		l.stop = stop
		events, cancel := from.Subscribe() // before anybody is looked up
		go l.listen(ctx, from, events, cancel)
	}
	return woken
}

func (l *lasting) leave(woken chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, woken)
	if len(l.open) == 0 && l.stop != nil {
		l.stop()
		l.stop = nil
	}
}

// listen wakes the answers of users to whom something happened.
func (l *lasting) listen(ctx context.Context, from Recorder, events <-chan upkeep.Event, cancel func()) {
	defer func() { cancel() }()
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if open {
				l.wake(e)
				continue
			}
			// It fell behind, or upkeep stops: what was missed may be of anybody.
			cancel()
			if sleep(ctx, 100*time.Millisecond) != nil {
				return
			}
			events, cancel = from.Subscribe()
			l.wake(upkeep.Event{Object: upkeep.KindAccount})
		}
	}
}

// wake wakes those whom an event may concern: with an account go its users.
func (l *lasting) wake(e upkeep.Event) {
	kind, name, _ := strings.Cut(e.Object, "/")
	if kind != "user" && kind != upkeep.KindAccount {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for woken, user := range l.open {
		if kind == "user" && user != name {
			continue
		}
		select {
		case woken <- struct{}{}:
		default: // it is about to look already
		}
	}
}
