package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Codes with which control ends a link, from the range of RFC 6455 section 7.4.2
// for private use. Which one it is tells the agent how long to wait.
const (
	codeRefused  websocket.StatusCode = 4003 // the certificate is not taken any more
	codeReplaced websocket.StatusCode = 4009 // by a newer link of the same server
)

// pace is how often the two sides of a link tell each other that they are there.
type pace struct {
	beat   time.Duration
	silent time.Duration // without a sign, until the link is given up
	write  time.Duration // for a short message
	renew  time.Duration // over which certificates that are due at one time are renewed
}

// usualPace finds a dead machine within 45 seconds (a dead process is found at
// once, by its closed connection) at the price of four messages a minute.
var usualPace = pace{beat: 15 * time.Second, silent: 45 * time.Second, write: 30 * time.Second, renew: 4 * time.Hour}

// slowest is how fast a link must be at least to carry a long message, in bytes
// per second.
const slowest = 128 << 10

// subprotocol is what both sides must speak.
const subprotocol = "upkeep.v1"

// wire is a link over a WebSocket. Reading and writing have a goroutine each, so
// that contexts of callers end their waiting and not the connection, which is all
// that contexts can do to a websocket.Conn.
type wire struct {
	ws                *websocket.Conn
	other             string // who is at the other side, in plain words
	inLimit, outLimit int
	pace              pace
	aside             func(envelope) // called by the reader with what is not a message

	in   chan Message // closed by the reader
	out  chan []byte
	gone chan struct{} // the writer has ended, and with it the connection

	mu    sync.Mutex
	done  chan struct{} // something has ended the link
	err   error         // what
	here  bool          // it was ended at this side
	code  websocket.StatusCode
	why   string // told to the other side
	heard time.Time
	full  bool // the reader waits for Receive, and hears nothing
}

// newWire makes a link of a connection, which it owns from then on. toAgent says
// which side this is. Nothing happens until start.
func newWire(ws *websocket.Conn, toAgent bool, pace pace, aside func(envelope)) *wire {
	w := &wire{
		ws: ws, other: "control", inLimit: maxDown, outLimit: maxReport, pace: pace, aside: aside,
		in: make(chan Message, queued), out: make(chan []byte), gone: make(chan struct{}), done: make(chan struct{}),
		heard: time.Now(),
	}
	if toAgent {
		w.other, w.inLimit, w.outLimit = "the agent", maxReport, maxDown
	}
	return w
}

func (w *wire) start() {
	w.ws.SetReadLimit(int64(w.inLimit))
	reading, stop := context.WithCancel(context.Background())
	go w.read(reading)
	go w.write(stop)
}

func (w *wire) Send(ctx context.Context, m Message) error {
	text, err := encode(m, w.outLimit)
	if err != nil {
		return err
	}
	return w.send(ctx, text)
}

// sendAside sends what is not a message.
func (w *wire) sendAside(ctx context.Context, e envelope) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return w.send(ctx, text)
}

func (w *wire) send(ctx context.Context, text []byte) error {
	// A select takes any of the cases that are ready; the end comes first.
	select {
	case <-w.done:
		return w.reason()
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	select {
	case <-w.done:
		return w.reason()
	case <-ctx.Done():
		return ctx.Err()
	case w.out <- text:
		return nil
	}
}

func (w *wire) Receive(ctx context.Context) (Message, error) {
	if err := ctx.Err(); err != nil {
		return Message{}, err
	}
	if w.endedHere() {
		return Message{}, w.reason()
	}
	select {
	case m, more := <-w.in:
		return w.received(m, more)
	case <-ctx.Done():
		return Message{}, ctx.Err()
	case <-w.done:
		if w.endedHere() {
			return Message{}, w.reason()
		}
		m, more := <-w.in // what the other side had sent before
		return w.received(m, more)
	}
}

func (w *wire) received(m Message, more bool) (Message, error) {
	if !more {
		return Message{}, w.reason()
	}
	return m, nil
}

// Close waits until the other side was told, but not for long.
func (w *wire) Close() error {
	w.end(websocket.StatusNormalClosure, "")
	return nil
}

// end closes the link and tells the other side why, in at most 120 bytes.
func (w *wire) end(code websocket.StatusCode, why string) {
	w.fail(errHere, true, code, why)
	const patience = 2 * time.Second
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.gone:
	case <-timer.C:
	}
}

// fail ends the link for a reason; the first one counts.
func (w *wire) fail(err error, here bool, code websocket.StatusCode, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	w.err, w.here, w.code, w.why = err, here, code, shorten(why, 120)
	close(w.done)
}

func (w *wire) reason() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *wire) endedHere() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.here
}

// alive reports whether the other side answers within a while.
func (w *wire) alive(ctx context.Context) bool { return w.ws.Ping(ctx) == nil }

// read runs until the connection ends.
func (w *wire) read(ctx context.Context) {
	defer close(w.in)
	for {
		kind, text, err := w.next(ctx)
		if err != nil {
			w.fail(w.explain(err), false, websocket.CloseStatus(err), "")
			return
		}
		var e envelope
		if kind != websocket.MessageText {
			err = errors.New("receiving a message: it is not text")
		} else {
			e, err = decode(text, w.inLimit)
		}
		if err != nil {
			w.fail(fmt.Errorf("%w: %s sent what cannot be read: %w", ErrClosed, w.other, err), true, websocket.StatusPolicyViolation, err.Error())
			return
		}
		if e.aside() {
			if e.Beat == nil {
				w.aside(e)
			}
			continue
		}
		w.hear(true)
		select {
		case w.in <- e.Message:
			w.hear(false)
		case <-w.done:
			return
		}
	}
}

// next reads what comes next. Each part of it is a sign of the other side: a long
// message on a slow line takes longer than silence may.
func (w *wire) next(ctx context.Context) (websocket.MessageType, []byte, error) {
	kind, message, err := w.ws.Reader(ctx)
	if err != nil {
		return 0, nil, err
	}
	w.hear(false)
	text, err := io.ReadAll(hearing{message, w})
	return kind, text, err
}

type hearing struct {
	io.Reader
	w *wire
}

func (h hearing) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	h.w.hear(false)
	return n, err
}

func (w *wire) hear(full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard, w.full = time.Now(), full
}

// explain says in words why reading has ended.
func (w *wire) explain(err error) error {
	var closed websocket.CloseError
	switch {
	case errors.As(err, &closed):
		if closed.Reason != "" {
			return fmt.Errorf("%w by %s: %s", ErrClosed, w.other, printable(closed.Reason))
		}
		return fmt.Errorf("%w by %s", ErrClosed, w.other)
	case errors.Is(err, websocket.ErrMessageTooBig):
		return fmt.Errorf("%w: %s sent a message of more than %d bytes", ErrClosed, w.other, w.inLimit)
	}
	return fmt.Errorf("%w: the connection to %s broke: %w", ErrClosed, w.other, err)
}

// printable replaces what could steer a terminal.
func printable(s string) string {
	clean := []rune(shorten(s, 400))
	for i, c := range clean {
		if c < 0x20 || c >= 0x7f && c < 0xa0 {
			clean[i] = ' '
		}
	}
	return string(clean)
}

// write runs until the link ends, and closes the connection.
func (w *wire) write(stopReading context.CancelFunc) {
	defer close(w.gone)
	defer stopReading()
	// The first beat comes at a random time, so that a thousand agents that came at
	// once do not beat at once for ever.
	beat := time.NewTimer(rand.N(w.pace.beat))
	defer beat.Stop()
	for {
		var err error
		select {
		case text := <-w.out:
			err = w.put(text)
		case <-beat.C:
			beat.Reset(w.pace.beat)
			if err = w.silence(); err == nil {
				err = w.put([]byte(`{"beat":{}}`))
			}
		case <-w.done:
			w.shut()
			return
		}
		if err != nil {
			w.fail(fmt.Errorf("%w: %w", ErrClosed, err), true, websocket.StatusPolicyViolation, err.Error())
		}
	}
}

func (w *wire) put(text []byte) error {
	ctx, stop := context.WithTimeout(context.Background(), w.pace.write+time.Duration(len(text))*time.Second/slowest)
	defer stop()
	if err := w.ws.Write(ctx, websocket.MessageText, text); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s took nothing for %s", w.other, w.pace.write)
		}
		return fmt.Errorf("sending to %s: %w", w.other, err)
	}
	return nil
}

func (w *wire) silence() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if since := time.Since(w.heard); !w.full && since > w.pace.silent {
		return fmt.Errorf("nothing was heard of %s for %s", w.other, since.Round(time.Second))
	}
	return nil
}

// shut closes the connection: with a word to the other side if it was ended here.
func (w *wire) shut() {
	w.mu.Lock()
	here, code, why := w.here, w.code, w.why
	w.mu.Unlock()
	if here {
		_ = w.ws.Close(code, why) // what it could say is that the other side is gone
	} else {
		_ = w.ws.CloseNow()
	}
}

// endCode is the code with which the other side closed the link, or this one.
func (w *wire) endCode() websocket.StatusCode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.code
}
