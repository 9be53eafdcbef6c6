package link

import (
	"context"
	"fmt"
	"sync"
)

// Pipe is a link inside one process, for an agent that lives with its control.
// Messages are written and read as on the network, so the same are refused and
// the two sides share no memory.
func Pipe() (control, agent Conn) {
	down, up := make(chan []byte, queued), make(chan []byte, queued)
	closed := &closing{done: make(chan struct{})}
	return &pipe{in: up, out: down, inLimit: maxReport, outLimit: maxDown, closed: closed, name: "control"},
		&pipe{in: down, out: up, inLimit: maxDown, outLimit: maxReport, closed: closed, name: "the agent"}
}

// closing is the end of a pipe, which its two sides share.
type closing struct {
	once sync.Once
	done chan struct{}
	by   string // set before done is closed
}

// pipe is one side. Its channels are never closed: done ends everything.
type pipe struct {
	in, out           chan []byte
	inLimit, outLimit int
	closed            *closing
	name              string
}

func (p *pipe) Send(ctx context.Context, m Message) error {
	text, err := encode(m, p.outLimit)
	if err != nil {
		return err
	}
	// A select takes any of the cases that are ready; the end comes first.
	select {
	case <-p.closed.done:
		return p.end()
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	select {
	case <-p.closed.done:
		return p.end()
	case <-ctx.Done():
		return ctx.Err()
	case p.out <- text:
		return nil
	}
}

func (p *pipe) Receive(ctx context.Context) (Message, error) {
	if err := ctx.Err(); err != nil {
		return Message{}, err
	}
	select {
	case <-p.closed.done:
		return p.rest()
	default:
	}
	select {
	case text := <-p.in:
		return p.open(text)
	case <-ctx.Done():
		return Message{}, ctx.Err()
	case <-p.closed.done:
		return p.rest()
	}
}

// rest receives what the other side had sent before it closed the link.
func (p *pipe) rest() (Message, error) {
	if p.closed.by == p.name {
		return Message{}, p.end()
	}
	select {
	case text := <-p.in:
		return p.open(text)
	default:
		return Message{}, p.end()
	}
}

func (p *pipe) open(text []byte) (Message, error) {
	e, err := decode(text, p.inLimit)
	return e.Message, err
}

func (p *pipe) Close() error {
	p.closed.once.Do(func() {
		p.closed.by = p.name
		close(p.closed.done)
	})
	return nil
}

func (p *pipe) end() error {
	if p.closed.by == p.name {
		return errHere
	}
	return fmt.Errorf("%w by %s", ErrClosed, p.closed.by)
}
