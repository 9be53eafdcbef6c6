package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/task"
)

// errandPatience bounds how long [Errand.Do] waits: whoever asks has others to serve.
// What is asked for takes an agent a fraction of this, and goes on when it takes
// longer.
const errandPatience = 5 * time.Second

// Errand is something about one object that a server's agent is asked for over
// and over, each time as it then is: only the newest counts. It makes a job when
// what is asked for is not done yet, takes the place of one that waits, and
// repeats one that failed, so that a name server that is away for a day leaves
// one failed job and not thousands.
type Errand struct {
	d      *Dispatcher
	server string
	who    string
	// news is called when there is a reason to try again: a job has ended for which
	// [Errand.Do] did not wait, or the agent is back.
	news func()

	base    context.Context
	stop    context.CancelFunc
	waiting sync.WaitGroup

	turn   chan struct{} // holds one token, taken by whoever is in Do
	last   upkeep.Job    // the job that was made last, its zero value before that
	want   []byte        // that it was made for
	behind bool          // somebody waits in the background for its end
	newest int64         // generation
	mu     sync.Mutex    // guards behind, which the background resets
}

// Errand returns one for a server, on behalf of who. It must be closed. News is
// called when it is time to call [Errand.Do] again: what it did not wait for has
// ended, or the agent is back.
func (d *Dispatcher) Errand(server, who string, news func()) *Errand {
	e := &Errand{d: d, server: server, who: who, news: news, turn: make(chan struct{}, 1)}
	e.base, e.stop = context.WithCancel(context.Background())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errands[e] = true
	return e
}

// back tells those who have errands on a server that its agent is there.
func (d *Dispatcher) back(server string) {
	d.mu.Lock()
	var mine []*Errand
	for e := range d.errands {
		if e.server == server {
			mine = append(mine, e)
		}
	}
	d.mu.Unlock()
	for _, e := range mine {
		e.news()
	}
}

// Close lets go of it. A job that is under way is done all the same.
func (e *Errand) Close() error {
	e.stop()
	e.waiting.Wait()
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	delete(e.d.errands, e)
	return nil
}

// errNotDone is why Do returns before the job has ended.
type errNotDone struct{ why string }

func (e *errNotDone) Error() string { return e.why }

// Do has the agent do what payload says, and returns the job with its result when
// it is done. What is wanted identifies that: a payload for which the same is
// wanted as the last time is not sent again when it was done, unless again is true. An
// agent that is away, or that takes long, is an error: the job then waits for it,
// and news is told when it is over.
func (e *Errand) Do(ctx context.Context, want []byte, payload task.Payload, again bool) (upkeep.Job, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return upkeep.Job{}, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, errandPatience)
	defer cancel()
	job, err := e.ensure(ctx, want, payload, again)
	if err != nil {
		return job, err
	}
	if !job.State.Ended() {
		job, err = e.await(ctx, job.ID)
	}
	var late *errNotDone
	if errors.As(err, &late) {
		e.follow(job.ID)
	}
	if err != nil {
		return job, err
	}
	e.last = job
	if job.State != upkeep.JobDone {
		return job, fmt.Errorf("job %d on %s: %s", job.ID, e.server, outcomeText(job))
	}
	return job, nil
}

func outcomeText(job upkeep.Job) string {
	if job.Error != "" {
		return job.Error
	}
	return string(job.State)
}

// ensure returns a job for what is wanted, which is the newest one.
func (e *Errand) ensure(ctx context.Context, want []byte, payload task.Payload, again bool) (upkeep.Job, error) {
	if e.last.ID != 0 && bytes.Equal(e.want, want) {
		job, err := e.d.store.Job(ctx, e.last.ID)
		switch {
		case errors.Is(err, upkeep.ErrNotFound): // it is forgotten
		case err != nil:
			return job, err
		case !job.State.Ended(), job.State == upkeep.JobDone && !again:
			return job, nil
		case job.State == upkeep.JobFailed || job.State == upkeep.JobCancelled:
			job, err := e.d.store.RetryJob(ctx, job.ID, "")
			if err == nil {
				return job, nil
			}
			if !errors.Is(err, upkeep.ErrConflict) {
				return job, err
			}
		}
	}
	if err := e.d.able(ctx, payload.Kind(), e.server); err != nil {
		return upkeep.Job{}, err
	}
	generation, err := e.generation(ctx, payload)
	if err != nil {
		return upkeep.Job{}, err
	}
	job := upkeep.Job{Server: e.server, Kind: payload.Kind(), Object: payload.Object(), Generation: generation, Who: e.who}
	made, err := e.d.store.Enqueue(ctx, store.NewJob{Job: job, Payload: encode(payload)})
	if err != nil {
		return upkeep.Job{}, err
	}
	e.last, e.want, e.newest = made[0], bytes.Clone(want), generation
	return made[0], nil
}

// generation is the time in milliseconds, or one more than the last. It is not
// counted in the database alone: an agent does nothing that is older than what it
// did, and a database that was put back from a copy would go on with numbers that
// the agent has seen, until they had caught up.
func (e *Errand) generation(ctx context.Context, payload task.Payload) (int64, error) {
	if e.newest == 0 {
		before, err := e.d.store.Jobs(ctx, store.JobFilter{Server: e.server, Kind: payload.Kind(), Object: payload.Object(), Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(before) > 0 {
			e.newest = before[0].Generation
		}
	}
	return max(e.d.now().UnixMilli(), e.newest+1), nil
}

// await waits for the end of a job as long as that can come soon.
func (e *Errand) await(ctx context.Context, id int64) (upkeep.Job, error) {
	told, stop := e.d.Watch()
	defer stop()
	job, err := e.d.Show(ctx, id) // it may have ended before the watch began
	for err == nil && !job.State.Ended() {
		link, known := e.d.link(e.server)
		if !link.Connected {
			return job, upkeep.WithHint(&errNotDone{fmt.Sprintf("the agent on %s is not connected%s: what is to be published waits for it as job %d", e.server, since(link, known), id)},
				"see: upkeep server list; on "+e.server+": systemctl status upkeep-agent")
		}
		select {
		case news, more := <-told:
			if !more {
				return job, &errNotDone{fmt.Sprintf("job %d on %s has not ended", id, e.server)}
			}
			if news.ID == id {
				job = *news
			}
			if news.ID == id && news.State.Ended() {
				job, err = e.d.Show(ctx, id)
			}
		case <-ctx.Done():
			return job, &errNotDone{slow(job)}
		}
	}
	return job, err
}

// since says when a link was lost, and not how long ago that was: the sentence
// must not be another one each time that it is told.
func since(link Presence, known bool) string {
	if !known {
		return ""
	}
	return " since " + link.Since.UTC().Format(time.DateTime+" MST")
}

func slow(job upkeep.Job) string {
	doing := "waits for its turn"
	if job.State == upkeep.JobRunning {
		doing = "is being done"
	}
	if job.Progress != "" {
		doing += " (" + job.Progress + ")"
	}
	return fmt.Sprintf("job %d on %s %s for more than %s", job.ID, job.Server, doing, errandPatience)
}

// follow has news called at the end of a job.
func (e *Errand) follow(id int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.behind {
		return // it looks at the newest when it is through
	}
	e.behind = true
	e.waiting.Go(func() {
		_, err := e.d.Await(e.base, id)
		e.mu.Lock()
		e.behind = false
		e.mu.Unlock()
		if err == nil {
			e.news()
		}
	})
}

// link is the link to the agent of a server, false when it never was connected
// since the start.
func (d *Dispatcher) link(server string) (Presence, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sessions[server]; s != nil {
		return s.presence(), true
	}
	presence, known := d.seen[server]
	return presence, known
}
