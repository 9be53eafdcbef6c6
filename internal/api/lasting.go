package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api/wire"
)

// again is how often it is asked who reads an answer that has no end, beside when
// something happened to its user: a sign-in ends by itself, too.
const again = 10 * time.Second

// errUnknown ends answers whose caller is no longer who it was.
var errUnknown = errors.New("the caller is no longer who it was")

// Forgotten reports whether a context ended because its caller is no longer who it
// was: signed out, without a token, of another account.
func Forgotten(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errUnknown) }

// asker finds out again who a request is from.
type asker struct {
	r        *http.Request
	identify func(*http.Request) (access.Caller, *wire.Problem)
}

// by is what its caller shows. Who shows the same is the same.
func (a asker) by() string { return a.r.Header.Get("Authorization") + "\x00" + SignedIn(a.r) }

// now is who its caller is by now; nobody where that cannot be told.
func (a asker) now(ctx context.Context) access.Caller {
	c, problem := a.identify(a.r.WithContext(ctx))
	if problem != nil {
		return access.Caller{}
	}
	return c
}

// lasting are the answers that have no end of their own. One of them all listens to
// what happens to users, and one looks all of them up now and then: were it each for
// itself, every verdict would wake a thousand, and a browser with ten pages open would
// be looked up ten times.
type lasting struct {
	mu   sync.Mutex
	open map[*lastingAnswer]bool
	stop context.CancelFunc // of who listens, while there are any
}

// lastingAnswer is one of them.
type lastingAnswer struct {
	who   access.Caller // when it began
	asker asker
	end   context.CancelCauseFunc
}

// whileKnown is a context that ends when its caller is no longer who it was.
func (l *lasting) whileKnown(ctx context.Context, from Recorder) (context.Context, context.CancelFunc) {
	asker, is := ctx.Value(askerKey).(asker)
	who := callerOf(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	if !is || who.User == "" {
		return ctx, func() { cancel(context.Canceled) }
	}
	a := &lastingAnswer{who: who, asker: asker, end: cancel}
	l.join(a, from)
	if asker.now(ctx) != who { // it may have happened before it was listened to
		cancel(errUnknown)
	}
	return ctx, func() {
		cancel(context.Canceled)
		l.leave(a)
	}
}

func (l *lasting) join(a *lastingAnswer, from Recorder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*lastingAnswer]bool{}
	}
	l.open[a] = true
	if l.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		l.stop = stop
		events, cancel := from.Subscribe() // before anybody is looked up
		go l.listen(ctx, from, events, cancel)
		go l.turn(ctx)
	}
}

func (l *lasting) leave(a *lastingAnswer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, a)
	if len(l.open) == 0 && l.stop != nil {
		l.stop()
		l.stop = nil
	}
}

// turn looks everybody up now and then. It is not the one that listens: a round takes
// a while, and who is signed out does not wait for it.
func (l *lasting) turn(ctx context.Context) {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.look(ctx, func(access.Caller) bool { return true })
		}
	}
}

// listen looks up those to whom something happened.
func (l *lasting) listen(ctx context.Context, from Recorder, events <-chan upkeep.Event, cancel func()) {
	defer func() { cancel() }()
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if open {
				l.hear(ctx, e)
				continue
			}
			// It fell behind, or upkeep stops: what was missed may be of anybody.
			cancel()
			if sleep(ctx, 100*time.Millisecond) != nil {
				return
			}
			events, cancel = from.Subscribe()
			l.look(ctx, func(access.Caller) bool { return true })
		}
	}
}

// hear looks up those whom an event may concern: with an account go its users.
func (l *lasting) hear(ctx context.Context, e upkeep.Event) {
	switch kind, name, _ := strings.Cut(e.Object, "/"); kind {
	case "user":
		l.look(ctx, func(c access.Caller) bool { return c.User == name })
	case upkeep.KindAccount:
		l.look(ctx, func(access.Caller) bool { return true })
	}
}

// look ends the answers, of some callers, whose caller is no longer who it was. Each
// that shows the same is looked up once.
func (l *lasting) look(ctx context.Context, whose func(access.Caller) bool) {
	l.mu.Lock()
	same := map[string][]*lastingAnswer{}
	for a := range l.open {
		if whose(a.who) {
			by := a.asker.by()
			same[by] = append(same[by], a)
		}
	}
	l.mu.Unlock()
	for _, all := range same {
		now := all[0].asker.now(ctx)
		for _, a := range all {
			if a.who != now {
				a.end(errUnknown)
			}
		}
	}
}
