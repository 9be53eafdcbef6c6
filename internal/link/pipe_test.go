package link

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func cancel(id int64) Message { return Message{Cancel: &Cancel{ID: id}} }

// send and receive fail the test where they take longer than anything should.
func send(t testing.TB, c Conn, m Message) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	if err := c.Send(ctx, m); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, c Conn) Message {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	m, err := c.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// receiveErr is the error after what is still there.
func receiveErr(t testing.TB, c Conn) error {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	for {
		if _, err := c.Receive(ctx); err != nil {
			return err
		}
	}
}

// pair makes the two sides of a link. Every kind of link passes the same suite.
type pair func(t *testing.T) (control, agent Conn)

func TestPipe(t *testing.T) {
	conformance(t, func(*testing.T) (Conn, Conn) { return Pipe() })
}

func conformance(t *testing.T, link pair) {
	t.Run("order", func(t *testing.T) { keepsOrder(t, link) })
	t.Run("wrong message", func(t *testing.T) { wrongMessage(t, link) })
	t.Run("context ends", func(t *testing.T) { contextEnds(t, link) })
	t.Run("bounded", func(t *testing.T) { isBounded(t, link) })
	t.Run("close", func(t *testing.T) { closes(t, link) })
	t.Run("concurrent", func(t *testing.T) { sendsConcurrently(t, link) })
}

func keepsOrder(t *testing.T, link pair) {
	control, agent := link(t)
	for _, way := range [][2]Conn{{control, agent}, {agent, control}} {
		go func() {
			for id := range int64(100) {
				send(t, way[0], cancel(id+1))
			}
		}()
		for id := range int64(100) {
			if m := receive(t, way[1]); m.Cancel == nil || m.Cancel.ID != id+1 {
				t.Fatalf("message %d is %+v", id+1, m)
			}
		}
	}
}

func wrongMessage(t *testing.T, link pair) {
	control, agent := link(t)
	for _, m := range []Message{{}, {Cancel: &Cancel{}}, {Cancel: &Cancel{ID: 1}, Hello: &Hello{}}} {
		if err := agent.Send(t.Context(), m); err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("sending %+v: %v", m, err)
		}
	}
	long := Message{Hello: &Hello{Version: strings.Repeat("x", maxReport)}}
	if err := agent.Send(t.Context(), long); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a message that is too long: %v", err)
	}
	send(t, agent, cancel(1))
	receive(t, control)
}

func contextEnds(t *testing.T, link pair) {
	control, agent := link(t)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := agent.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("receiving nothing: %v", err)
	}
	if err := agent.Send(ctx, cancel(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sending with a context that has ended: %v", err)
	}
	send(t, control, cancel(2))
	if m := receive(t, agent); m.Cancel.ID != 2 {
		t.Errorf("the message after that is %+v", m)
	}
}

// isBounded sends until nothing goes any more, and looks for every message that
// went.
func isBounded(t *testing.T, link pair) {
	control, agent := link(t)
	step := strings.Repeat("x", maxStep)
	sent := int64(0)
	for {
		ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := control.Send(ctx, Message{Progress: &Progress{ID: sent + 1, Step: step}})
		stop()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if sent++; sent > 200_000 {
			t.Fatal("there is no bound")
		}
	}
	for id := range sent {
		if m := receive(t, agent); m.Progress.ID != id+1 {
			t.Fatalf("message %d is %d", id+1, m.Progress.ID)
		}
	}
}

func closes(t *testing.T, link pair) {
	control, agent := link(t)
	waiting := make(chan error, 1)
	go func() {
		_, err := control.Receive(context.Background())
		waiting <- err
	}()
	send(t, control, cancel(1))
	if err := control.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("who was waiting at the side that closed: %v", err)
	}
	if m := receive(t, agent); m.Cancel.ID != 1 {
		t.Errorf("what was sent before the end is %+v", m)
	}
	if err := receiveErr(t, agent); !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "control") {
		t.Errorf("the other side receives %v", err)
	}
	for _, side := range []Conn{control, agent} {
		if err := side.Send(t.Context(), cancel(2)); !errors.Is(err, ErrClosed) {
			t.Errorf("sending after the end: %v", err)
		}
		if _, err := side.Receive(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("receiving after the end: %v", err)
		}
		if err := side.Close(); err != nil {
			t.Errorf("closing again: %v", err)
		}
	}
}

func sendsConcurrently(t *testing.T, link pair) {
	control, agent := link(t)
	const senders, each = 8, 50
	for sender := range int64(senders) {
		go func() {
			for n := range int64(each) {
				send(t, agent, cancel(1+sender*each+n))
			}
		}()
	}
	seen := map[int64]bool{}
	for range senders * each {
		seen[receive(t, control).Cancel.ID] = true
	}
	if len(seen) != senders*each {
		t.Errorf("%d of %d messages arrived", len(seen), senders*each)
	}
}

func TestPipeSharesNoMemory(t *testing.T) {
	control, agent := Pipe()
	m := Message{Hello: &Hello{Kinds: []string{"mkdir"}}}
	send(t, agent, m)
	m.Hello.Kinds[0] = "changed"
	if got := receive(t, control).Hello.Kinds[0]; got != "mkdir" {
		t.Errorf("received %q", got)
	}
}

func TestPipeLeavesNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		control, agent := Pipe()
		for _, side := range []Conn{control, agent} {
			go func() {
				for side.Send(t.Context(), cancel(1)) == nil {
				}
			}()
		}
		synctest.Wait() // both wait for room
		if err := agent.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait() // the bubble fails if one still does
	})
}

// Who closes a link is not warned that it ended before its agent said hello; who
// finds it closed by the other side is.
func TestClosedBeforeHello(t *testing.T) {
	for name, warned := range map[string]bool{"control": false, "the agent": true} {
		var log bytes.Buffer
		hub := NewHub(HubOptions{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})), Now: time.Now})
		control, agent := Pipe()
		closes := map[string]Conn{"control": control, "the agent": agent}[name]
		_ = closes.Close() // never fails
		if err := hub.Attach("local", control); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "an agent did not connect"); got != warned {
			t.Errorf("closed by %s: %q", name, log.String())
		}
	}
}
