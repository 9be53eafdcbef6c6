package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"

	"upkeep"
	"upkeep/internal/link"
)

// remote is a [Worker] at the other end of a socket: root, as its front sees it.
type remote struct {
	conn    net.Conn
	writing sync.Mutex

	mu    sync.Mutex
	last  uint64
	calls map[uint64]call
	gone  error // why there will be no more answers
}

// call is a request that waits for its answer.
type call struct {
	tell   func(link.Progress)
	answer chan []byte // closed without one when the socket ends
}

func newRemote(conn net.Conn) *remote { return &remote{conn: conn, calls: map[uint64]call{}} }

// read reads answers until the socket ends, which is when root does, and returns
// why.
func (r *remote) read() error {
	reader := bufio.NewReaderSize(r.conn, 64<<10)
	for {
		f, err := readFrame(reader, toFront)
		if err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.gone = err
			for tag, c := range r.calls {
				close(c.answer)
				delete(r.calls, tag)
			}
			return err
		}
		r.mu.Lock()
		c, known := r.calls[f.tag]
		if known && f.kind != frameProgress {
			delete(r.calls, f.tag)
		}
		r.mu.Unlock()
		switch {
		case !known:
		case f.kind == frameProgress:
			var p link.Progress
			if c.tell != nil && json.Unmarshal(f.body, &p) == nil {
				c.tell(p)
			}
		default:
			c.answer <- f.body
		}
	}
}

var errRootGone = errors.New("the privileged half of the agent has ended")

// ask sends a request and waits for its answer. Where the context ends first, a
// job is cancelled, and its outcome waited for.
func (r *remote) ask(ctx context.Context, kind byte, body []byte, tell func(link.Progress)) ([]byte, error) {
	r.mu.Lock()
	if r.gone != nil {
		r.mu.Unlock()
		return nil, errRootGone
	}
	r.last++
	tag, c := r.last, call{tell, make(chan []byte, 1)}
	r.calls[tag] = c
	r.mu.Unlock()
	if err := r.send(frame{kind, tag, body}); err != nil {
		return nil, err
	}
	done := ctx.Done()
	for {
		select {
		case answer, is := <-c.answer:
			if !is {
				return nil, errRootGone
			}
			return answer, nil
		case <-done:
			if kind != frameJob {
				return nil, ctx.Err()
			}
			done = nil
			if err := r.send(frame{frameCancel, tag, nil}); err != nil {
				return nil, err
			}
		}
	}
}

func (r *remote) send(f frame) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	_, err := r.conn.Write(appendFrame(nil, f))
	return err
}

// Do implements [Worker]. Where root ends meanwhile there is no outcome.
func (r *remote) Do(ctx context.Context, signed link.Signed, tell func(link.Progress)) link.Outcome {
	body := append(append(make([]byte, 0, len(signed.Signature)+len(signed.Body)), signed.Signature...), signed.Body...)
	answer, err := r.ask(ctx, frameJob, body, tell)
	var outcome link.Outcome
	if err == nil {
		err = json.Unmarshal(answer, &outcome)
	}
	if errors.Is(err, errRootGone) || errors.Is(err, net.ErrClosed) {
		return link.Outcome{}
	}
	if err != nil {
		return failed(0, err)
	}
	if outcome.State == "" {
		return failed(0, errors.New("the agent's answer was too long to be passed on"))
	}
	return outcome
}

// Facts implements [Worker].
func (r *remote) Facts(ctx context.Context) (facts upkeep.Facts) {
	answer, err := r.ask(ctx, frameFacts, nil, nil)
	if err == nil {
		err = json.Unmarshal(answer, &facts)
	}
	if err != nil {
		facts.Warnings = []string{"the agent's facts: " + plainText(err.Error())}
	}
	return facts
}

// renew has root keep a renewed identity.
func (r *remote) renew(text []byte) error {
	answer, err := r.ask(context.Background(), frameIdentity, text, nil)
	if err == nil && len(answer) > 0 {
		err = errors.New(string(answer))
	}
	return err
}
