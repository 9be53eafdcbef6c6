package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"upkeep"
	"upkeep/internal/link"
)

// Worker is the privileged half as the front sees it: a [Root] in this process,
// or one at the other end of a socket.
type Worker interface {
	// Do returns what became of a job; an outcome without a state means that
	// nobody knows, because root has ended. Control sends such a job again.
	Do(ctx context.Context, signed link.Signed, tell func(link.Progress)) link.Outcome
	Facts(ctx context.Context) upkeep.Facts
}

// maxJobs bounds the jobs that are under way at a time. Those of one change come
// together and share a reload, so it is as large as a change may be.
const maxJobs = 4096

// Front is the unprivileged half of an agent: it says hello, takes jobs from the
// link and tells what became of them.
type Front struct {
	worker  Worker
	version string
	log     *slog.Logger

	ctx   context.Context // of the jobs, which outlive the link they came on
	stop  context.CancelFunc
	slots chan struct{}
	steps chan link.Progress
	jobs  sync.WaitGroup

	// asked is true when control was told by a job of server.facts what watch has not
	// seen.
	asked atomic.Bool
	// served is true when a site was applied, of which control takes that the web
	// server runs.
	served atomic.Bool

	mu     sync.Mutex
	conn   link.Conn // the present one, nil for none
	cancel map[int64][]*taken
}

// taken is a job that is under way, as cancelling needs it.
type taken struct{ cancel context.CancelCauseFunc }

// NewFront returns a front for a worker. Close it afterwards.
func NewFront(worker Worker, version string, log *slog.Logger) *Front {
	f := &Front{
		worker: worker, version: version, log: log,
		slots: make(chan struct{}, maxJobs), steps: make(chan link.Progress, 256), cancel: map[int64][]*taken{},
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.jobs.Go(f.tellSteps)
	return f
}

// Close gives up what is under way and waits for it.
func (f *Front) Close() error {
	f.stop()
	f.jobs.Wait()
	return nil
}

// Serve works off one link, until that ends: it is what [link.Dialer.Run] calls.
// Jobs that are under way then go on; control asks for them again on the next
// link, and is told there what became of what it asked for there. An outcome is
// never told on another link than the one that its job came by: control may ask for
// a newer generation under the same id, and would take the older one's end for it.
func (f *Front) Serve(conn link.Conn) {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	facts := f.worker.Facts(ctx)
	if err := conn.Send(ctx, link.Message{Hello: &link.Hello{Version: f.version, Protocol: link.Protocol, Kinds: facts.Kinds, Facts: facts}}); err != nil {
		if !errors.Is(err, link.ErrClosed) { // of which the dialer tells
			f.log.Warn("saying hello to control", "error", err)
		}
		return
	}
	f.use(conn)
	defer f.use(nil)
	if facts.URL != "" {
		f.jobs.Go(func() { f.watch(ctx, conn, facts) })
	}
	for {
		select {
		case f.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		m, err := conn.Receive(ctx)
		if err != nil || m.Job == nil {
			<-f.slots
		}
		switch {
		case errors.Is(err, link.ErrClosed) || ctx.Err() != nil:
			return
		case err != nil:
			f.log.Warn("control said something that is not understood", "error", err)
			return
		case m.Job != nil:
			f.take(conn, *m.Job)
		case m.Cancel != nil:
			f.abandon(m.Cancel.ID)
		}
	}
}

// watchEvery is how often it is looked whether something is wrong with the web
// server.
const watchEvery = 5 * time.Second

// watch says hello anew when sites went astray of which control has not been told,
// which has them tried again, and when there are other warnings than control was told
// of last, by whatever way: of a web server that is down, and that it is back.
func (f *Front) watch(ctx context.Context, conn link.Conn, told upkeep.Facts) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		facts := f.worker.Facts(ctx)
		asked := f.asked.Swap(false)
		served := f.served.Swap(false) && told.WebDown != ""
		if ctx.Err() != nil || !asked && !served && sameTrouble(facts, told) {
			continue
		}
		told = facts
		if err := conn.Send(ctx, link.Message{Hello: &link.Hello{Version: f.version, Protocol: link.Protocol, Kinds: facts.Kinds, Facts: facts}}); err != nil {
			return
		}
	}
}

// sameTrouble reports whether two looks at a server found the same wrong.
func sameTrouble(a, b upkeep.Facts) bool {
	return maps.Equal(a.Astray, b.Astray) && maps.Equal(a.InForce, b.InForce) && slices.Equal(a.Warnings, b.Warnings) && a.WebDown == b.WebDown
}

func (f *Front) use(conn link.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn = conn
}

// take has a job done in a goroutine of its own, which frees its slot.
func (f *Front) take(from link.Conn, signed link.Signed) {
	id, kind := claimed(signed)
	ctx, cancel := context.WithCancelCause(f.ctx)
	mine := &taken{cancel}
	f.mu.Lock()
	f.cancel[id] = append(f.cancel[id], mine)
	f.mu.Unlock()
	f.jobs.Go(func() {
		defer func() { <-f.slots }()
		defer f.forget(id, mine)
		outcome := f.worker.Do(ctx, signed, f.step)
		if f.ctx.Err() != nil || outcome.State == "" {
			return // the agent is stopping, which is not the job's fault
		}
		if outcome.ID == 0 {
			outcome.ID = id // it was refused before anybody knew whose it is
		}
		f.tell(from, outcome)
		switch kind {
		case upkeep.JobServerFacts:
			f.asked.Store(true)
		case upkeep.JobSiteApply:
			f.served.Store(true)
		}
	})
}

func (f *Front) forget(id int64, mine *taken) {
	mine.cancel(nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	var left []*taken
	for _, other := range f.cancel[id] {
		if other != mine {
			left = append(left, other)
		}
	}
	if f.cancel[id] = left; len(left) == 0 {
		delete(f.cancel, id)
	}
}

func (f *Front) abandon(id int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, job := range f.cancel[id] {
		job.cancel(errCancelled)
	}
}

// claimed are the id and the kind that an unverified job says it has: good enough to
// tell control what became of it.
func claimed(signed link.Signed) (id int64, kind string) {
	var job struct {
		ID   int64  `json:"id"`
		Kind string `json:"kind"`
	}
	if json.Unmarshal(signed.Body, &job) != nil {
		return 0, ""
	}
	return job.ID, job.Kind
}

// tell sends an outcome. Where that fails, control asks for the job again.
func (f *Front) tell(to link.Conn, outcome link.Outcome) {
	if outcome.ID <= 0 {
		f.log.Warn("something that is no job was refused", "error", outcome.Error)
		return
	}
	f.send(to, link.Message{Outcome: &outcome}, time.Minute)
}

// step never waits: a link that is stuck must not hold up a job.
func (f *Front) step(p link.Progress) {
	select {
	case f.steps <- p:
	default:
	}
}

// tellSteps tells how far jobs are on whichever link there is: of one that was sent
// again, what is under way is its first sending.
func (f *Front) tellSteps() {
	for {
		select {
		case p := <-f.steps:
			f.mu.Lock()
			conn := f.conn
			f.mu.Unlock()
			if conn != nil {
				f.send(conn, link.Message{Progress: &p}, 5*time.Second)
			}
		case <-f.ctx.Done():
			return
		}
	}
}

func (f *Front) send(to link.Conn, m link.Message, patience time.Duration) {
	ctx, cancel := context.WithTimeout(f.ctx, patience)
	defer cancel()
	if err := to.Send(ctx, m); err != nil {
		f.log.Debug("telling control", "error", err)
	}
}
