package api

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api/wire"
)

// knows are users who are signed in by their names, until they are not.
type knows struct {
	mu    sync.Mutex
	gone  map[string]bool
	asked int
}

func (k *knows) Browser(_ context.Context, secret string) (access.Caller, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked++
	if k.gone[secret] {
		return access.Caller{}, upkeep.ErrNotFound
	}
	return access.Caller{Who: "user " + secret, User: secret, Staff: true, SignIn: 1}, nil
}

func (k *knows) Token(context.Context, string) (access.Caller, error) {
	return access.Caller{}, upkeep.ErrNotFound
}

func (k *knows) forget(user string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone[user] = true
}

func (k *knows) lookups() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

// Who is signed out is told nothing from then on; others are not looked up for it, and
// an end that nobody tells of is found soon.
func TestStreamsEndWithTheSignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, k := &fake{}, &knows{gone: map[string]bool{}}
		a := newTestAPI(t, f, func(o *Options) { o.People = k })
		p, stop := serveBubble(t, a)
		defer stop()
		open := func(user string) <-chan time.Time {
			conn := p.dial()
			t.Cleanup(func() { conn.Close() })
			r := httptest.NewRequest("GET", "http://localhost/api/v1/events/stream", nil)
			r.AddCookie(&http.Cookie{Name: "upkeep", Value: user})
			go r.Write(conn)
			response, err := http.ReadResponse(bufio.NewReader(conn), r)
			if err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("opening a stream of %s: %v, %+v", user, err, response)
			}
			ended := make(chan time.Time, 1)
			go func() {
				for lines := bufio.NewScanner(response.Body); lines.Scan(); {
				}
				ended <- time.Now()
			}()
			return ended
		}
		eve, ada, bob := open("eve"), open("ada"), open("bob")
		synctest.Wait()
		before, looked := time.Now(), k.lookups()
		k.forget("eve")
		f.happen(upkeep.Event{Object: "user/eve", What: "signed out"})
		if end := <-eve; !end.Equal(before) {
			t.Errorf("the stream of who was signed out goes on for %s", end.Sub(before))
		}
		synctest.Wait()
		if n := k.lookups() - looked; n != 1 {
			t.Errorf("%d were looked up because one was signed out", n)
		}
		k.forget("bob") // at its own time, of which nothing is told
		if end := <-bob; end.Sub(before) > again {
			t.Errorf("the stream of who is not signed in any more goes on for %s", end.Sub(before))
		}
		more := []<-chan time.Time{open("ada"), open("ada"), open("ada")}
		synctest.Wait()
		looked = k.lookups()
		time.Sleep(again)
		synctest.Wait()
		if n := k.lookups() - looked; n != 1 {
			t.Errorf("%d were looked up in a round, of one browser with four streams", n)
		}
		before = time.Now()
		k.forget("ada")
		f.happen(upkeep.Event{Object: "account/acme", What: "deleted"})
		if end := <-ada; !end.Equal(before) {
			t.Errorf("the stream of a user whose account is gone goes on for %s", end.Sub(before))
		}
		for _, one := range more {
			if end := <-one; !end.Equal(before) {
				t.Errorf("another stream of the same browser goes on for %s", end.Sub(before))
			}
		}
		synctest.Wait()
		a.still.mu.Lock()
		defer a.still.mu.Unlock()
		if len(a.still.open) > 0 || a.still.stop != nil {
			t.Errorf("%d answers are still waited for", len(a.still.open))
		}
	})
}

// A sign-in that ended while the stream was opened ends it; one that fell behind looks
// everybody up.
func TestLastingAnswersMissNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l := &fake{}, &lasting{}
		known := true
		base, stop := context.WithCancel(access.With(t.Context(), access.Caller{User: "eve", Staff: true}))
		defer stop()
		r := httptest.NewRequest("GET", "/", nil)
		ask := context.WithValue(base, askerKey, asker{r, func(*http.Request) (access.Caller, *wire.Problem) {
			if known {
				return callerOf(base), nil
			}
			return access.Caller{}, wire.NewProblem(http.StatusUnauthorized, "unknown", "")
		}})
		known = false
		ctx, cancel := l.whileKnown(ask, f)
		defer cancel()
		begin := time.Now()
		<-ctx.Done()
		if !Forgotten(ctx) || !time.Now().Equal(begin) {
			t.Errorf("it ends after %s, %v", time.Since(begin), context.Cause(ctx))
		}
		known = true
		ctx, cancel = l.whileKnown(ask, f)
		defer cancel()
		synctest.Wait()
		known = false
		f.cutOff()
		<-ctx.Done()
		if !Forgotten(ctx) || time.Since(begin) > time.Second {
			t.Errorf("after news were missed it ends after %s, %v", time.Since(begin), context.Cause(ctx))
		}
		known = true
		ctx, cancel = l.whileKnown(ask, f)
		cancel()
		synctest.Wait()
		if Forgotten(ctx) {
			t.Error("who went away by itself is taken for unknown")
		}
	})
}
