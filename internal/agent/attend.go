package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"upkeep/internal/link"
)

// Bounds of what a front can have root hold at a time.
const (
	maxHeld = 256 << 20 // bytes of jobs
	// maxAsking is how many questions for facts are answered at a time. A front asks
	// one by one; what comes beyond waits in the socket.
	maxAsking = 4
	// writeTime is how long a front may take to read what it is told, before it is
	// given up.
	writeTime = 30 * time.Second
)

// attending is root's end of the socket to its front.
type attending struct {
	worker Worker
	// renew keeps a renewed identity.
	renew func(text []byte) error
	conn  net.Conn

	writing sync.Mutex
	asking  chan struct{} // has an element for each question for facts

	mu   sync.Mutex
	jobs map[uint64]context.CancelCauseFunc
	held int
	room *sync.Cond // of held
}

// attend does what a front asks for, until its end of the socket is closed or it
// says something that no front says. Jobs that are under way then go on to their
// end: they are control's, not the front's.
func attend(ctx context.Context, conn net.Conn, worker Worker, renew func([]byte) error) error {
	a := &attending{worker: worker, renew: renew, conn: conn, asking: make(chan struct{}, maxAsking), jobs: map[uint64]context.CancelCauseFunc{}}
	a.room = sync.NewCond(&a.mu)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	reader := bufio.NewReaderSize(conn, 64<<10)
	for {
		f, err := readFrame(reader, toRoot)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err == nil {
			err = a.handle(ctx, f)
		}
		if err != nil {
			_ = conn.Close()
			return err
		}
	}
}

func (a *attending) handle(ctx context.Context, f frame) error {
	switch f.kind {
	case frameJob:
		return a.take(ctx, f)
	case frameCancel:
		a.mu.Lock()
		defer a.mu.Unlock()
		if cancel := a.jobs[f.tag]; cancel != nil {
			cancel(errCancelled)
		}
	case frameFacts:
		a.asking <- struct{}{} // Facts ends with ctx, and say gives up who does not read
		go func() {
			defer func() { <-a.asking }()
			a.say(frameFacts, f.tag, a.worker.Facts(ctx))
		}()
	case frameIdentity:
		why := ""
		if err := a.renew(f.body); err != nil {
			why = err.Error()
		}
		a.write(frame{frameIdentity, f.tag, []byte(why[:min(len(why), 4<<10)])})
	}
	return nil
}

// take waits for room, and has the job done.
func (a *attending) take(ctx context.Context, f frame) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.jobs) >= maxJobs || a.held > 0 && a.held+len(f.body) > maxHeld {
		a.room.Wait()
	}
	if a.jobs[f.tag] != nil {
		return fmt.Errorf("the front uses the number %d twice", f.tag)
	}
	job, cancel := context.WithCancelCause(ctx)
	a.jobs[f.tag] = cancel
	a.held += len(f.body)
	go func() {
		defer a.release(f, cancel)
		outcome := a.worker.Do(job, signedOf(f.body), func(p link.Progress) { a.say(frameProgress, f.tag, p) })
		if ctx.Err() == nil { // else the agent is stopping, which is not the job's fault
			a.say(frameOutcome, f.tag, outcome)
		}
	}()
	return nil
}

func (a *attending) release(f frame, cancel context.CancelCauseFunc) {
	cancel(nil)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.jobs, f.tag)
	a.held -= len(f.body)
	a.room.Broadcast()
}

func (a *attending) say(kind byte, tag uint64, value any) {
	text, err := json.Marshal(value)
	if err != nil || len(text) > toFront[kind] {
		text = []byte("{}") // a result that fits nowhere; the front fills in whose it is
	}
	a.write(frame{kind, tag, text})
}

// write gives up a front that does not read: its supervisor starts another.
func (a *attending) write(f frame) {
	a.writing.Lock()
	defer a.writing.Unlock()
	_ = a.conn.SetWriteDeadline(time.Now().Add(writeTime)) // a closed socket says so below
	if _, err := a.conn.Write(appendFrame(nil, f)); err != nil {
		_ = a.conn.Close()
	}
}
