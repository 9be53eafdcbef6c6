package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/task"
)

const (
	// inFlight is how many jobs a server has at a time: enough for its agent to
	// serve a large change with one reload.
	inFlight = 1024
	// life is how long what is signed is good for. It is signed as it is sent; an
	// agent may have a queue of its own.
	life = time.Hour
	// patience is how long an agent may say nothing about a job that it has.
	patience = 15 * time.Minute
	// suspect is the number of broken links after which a job is sent alone, to see
	// whether it is what breaks them, and mostDrops the number after which it fails.
	suspect   = 3
	mostDrops = 5
)

// session has the jobs of one server done over the link to its agent.
type session struct {
	server string
	conn   link.Conn
	d      *Dispatcher
	log    *slog.Logger

	mu     sync.Mutex
	over   bool            // the link is gone
	called []int64         // asked for and not claimed yet, in order
	held   map[int64]*held // asked for and not released
	some   chan struct{}   // has an element when something was called
	idle   chan struct{}   // has an element when something was released
	ended  chan struct{}   // closed when everything is over and jobs are put back
	told   link.Hello      // what the agent last said of itself
	since  time.Time       // when the link was made
}

// held is a job that this session looks after.
type held struct {
	again   bool // it was called for once more meanwhile
	ending  bool // its end is being written down
	gaveWay bool // it was cancelled for a newer one
	sent    bool
	parcel  parcel    // when sent
	heard   time.Time // of it, when it was sent or the agent last spoke of it
}

func newSession(d *Dispatcher, server string, hello link.Hello, conn link.Conn) *session {
	return &session{
		server: server, conn: conn, d: d, log: d.log.With("server", server), told: hello, since: d.now(),
		held: map[int64]*held{}, some: make(chan struct{}, 1), idle: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

// call has jobs looked at, in their order.
func (s *session) call(jobs ...int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return // the next session asks for them
	}
	for _, id := range jobs {
		if h, twice := s.held[id]; twice {
			h.again = true // it may have become ready after it was looked at
			continue
		}
		s.held[id] = &held{}
		s.called = append(s.called, id)
	}
	signal(s.some)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// release lets go of a job, or looks at it once more where it was called for
// again.
func (s *session) release(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known := s.held[id]
	switch {
	case !known || s.over: // what is left after the end is put back
	case h.again:
		*h = held{}
		s.called = append(s.called, id)
	default:
		delete(s.held, id)
	}
	if len(s.called) > 0 {
		signal(s.some) // there is room for one more
	}
	signal(s.idle)
}

// run is the session from the link's beginning to its end.
func (s *session) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var both sync.WaitGroup
	both.Go(func() {
		s.send(ctx)
		_ = s.conn.Close() // an end that has happened already is no news
	})
	err := s.receive(ctx)
	stop()
	_ = s.conn.Close()
	both.Wait()
	return err
}

// send claims and sends what is called for.
func (s *session) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.some:
		}
		wanted := s.wanted()
		if len(wanted) == 0 {
			continue // until something is released
		}
		claimed, err := s.d.store.ClaimJobs(ctx, s.server, wanted)
		s.d.river.Nudge()
		var parcels []parcel
		if err == nil {
			parcels, err = s.assemble(ctx, claimed)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Error("taking jobs on", "err", err)
			s.backOff(ctx, wanted)
			continue
		}
		for _, id := range unclaimed(wanted, claimed) {
			s.release(id)
		}
		if err := s.deliver(ctx, parcels); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("sending jobs", "err", err)
			}
			return
		}
	}
}

// wanted are the jobs that were called for and that there is room for.
func (s *session) wanted() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	busy := len(s.held) - len(s.called)
	n := min(len(s.called), inFlight-busy)
	wanted := s.called[:n:n]
	s.called = s.called[n:]
	return wanted
}

// backOff puts calls back after the database failed, for another try. What may
// have been claimed all the same is made pending first.
func (s *session) backOff(ctx context.Context, wanted []int64) {
	s.d.requeue(ctx, s.server, wanted, 0, noMost, "")
	s.mu.Lock()
	s.called = append(wanted, s.called...)
	s.mu.Unlock()
	signal(s.some)
}

// noMost is more broken links than any job has.
const noMost = 1 << 30

func unclaimed(wanted []int64, claimed []store.ClaimedJob) []int64 {
	return slices.DeleteFunc(slices.Clone(wanted), func(id int64) bool {
		return slices.ContainsFunc(claimed, func(c store.ClaimedJob) bool { return c.ID == id })
	})
}

// assemble makes the orders of jobs from what is declared now. Jobs that turn out
// pointless or impossible end here.
func (s *session) assemble(ctx context.Context, claimed []store.ClaimedJob) ([]parcel, error) {
	from, err := s.d.declared(ctx, claimed)
	if err != nil {
		return nil, err
	}
	parcels := make([]parcel, 0, len(claimed))
	for _, job := range claimed {
		order, err := from.assemble(job)
		if err == nil {
			parcels = append(parcels, parcel{job, order})
			continue
		}
		end := store.JobEnd{ID: job.ID, State: upkeep.JobFailed}
		var no *pointless
		if errors.As(err, &no) {
			end.State = upkeep.JobSuperseded
		}
		end.Error, end.Field = sentence(err)
		s.finish(end)
	}
	batch(parcels)
	return parcels, nil
}

// finish has an end written down, and lets go of the job then.
func (s *session) finish(end store.JobEnd) {
	s.mu.Lock()
	if h, known := s.held[end.ID]; known {
		h.ending = true
	}
	s.mu.Unlock()
	s.d.record.end(end, func() { s.release(end.ID) })
}

// deliver sends jobs: all at once, but each alone that may be what breaks links.
func (s *session) deliver(ctx context.Context, parcels []parcel) error {
	for _, p := range parcels {
		if p.job.Drops < suspect {
			if err := s.post(ctx, p); err != nil {
				return err
			}
		}
	}
	for _, p := range parcels {
		if p.job.Drops < suspect {
			continue
		}
		if err := s.alone(ctx); err != nil {
			return err
		}
		if err := s.post(ctx, p); err != nil {
			return err
		}
		if err := s.alone(ctx); err != nil {
			return err
		}
	}
	return nil
}

// alone waits until the agent has no job.
func (s *session) alone(ctx context.Context) error {
	for {
		s.mu.Lock()
		busy := 0
		for _, h := range s.held {
			if h.sent {
				busy++
			}
		}
		s.mu.Unlock()
		if busy == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.idle:
		}
	}
}

// post signs and sends one job.
func (s *session) post(ctx context.Context, p parcel) error {
	signed, err := s.d.sign(p, s.presence().Hello.Protocol < 1)
	if err != nil {
		end := store.JobEnd{ID: p.job.ID, State: upkeep.JobFailed}
		end.Error, end.Field = sentence(err)
		s.finish(end)
		return nil
	}
	s.mu.Lock()
	if h, known := s.held[p.job.ID]; known {
		h.parcel, h.sent, h.heard = p, true, s.d.now()
	}
	s.mu.Unlock()
	return s.conn.Send(ctx, link.Message{Job: &signed})
}

// receive hears what the agent says of its jobs.
func (s *session) receive(ctx context.Context) error {
	for {
		message, err := s.conn.Receive(ctx)
		if err != nil {
			return err
		}
		switch {
		case message.Hello != nil:
			s.mu.Lock()
			before := s.told.Facts.WebDown
			s.told = *message.Hello
			s.mu.Unlock()
			if message.Hello.Facts.WebDown != before {
				s.d.roll.tellServer(s.server)
			}
			s.d.astray(ctx, s.server, message.Hello.Facts)
		case message.Progress != nil:
			if s.hear(message.Progress.ID) {
				s.d.record.progress(store.JobStep{ID: message.Progress.ID, Step: message.Progress.Step, Percent: message.Progress.Percent})
			}
		case message.Outcome != nil:
			s.outcome(*message.Outcome)
		}
	}
}

// hear notes that the agent spoke of a job, and reports whether it has it. An
// agent that speaks of others' jobs is not listened to.
func (s *session) hear(id int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known := s.held[id]
	if !known || !h.sent {
		return false
	}
	h.heard = s.d.now()
	return true
}

func (s *session) outcome(told link.Outcome) {
	s.mu.Lock()
	h, known := s.held[told.ID]
	if !known || !h.sent || h.ending {
		s.mu.Unlock()
		s.log.Debug("an outcome of a job that was not sent", "job", told.ID)
		return
	}
	p := h.parcel
	if p.older(told) {
		s.mu.Unlock()
		s.log.Debug("an outcome of an older sending", "job", told.ID)
		return
	}
	if h.gaveWay && told.State == upkeep.JobCancelled {
		told = superseded(told)
	}
	if facts, err := factsOf(p, told); err == nil {
		if s.told.Facts.WebDown != facts.WebDown {
			s.d.roll.tellServer(s.server)
		}
		s.told.Facts = facts
	} else if s.told.Facts.WebDown != "" && p.job.Kind == upkeep.JobSiteApply && told.State == upkeep.JobDone {
		// A site has just answered there. If that was the last that the web server did,
		// the agent says so when it looks next.
		s.told.Facts.WebDown = ""
		s.d.roll.tellServer(s.server)
	}
	s.mu.Unlock()
	if told.State == upkeep.JobFailed && told.Error == "" {
		told.Error = "the agent did not say why"
	}
	s.finish(p.ending(told))
}

// cancel asks the agent to give a job up.
func (s *session) cancel(ctx context.Context, id int64) error {
	return s.conn.Send(ctx, link.Message{Cancel: &link.Cancel{ID: id}})
}

// impatient ends jobs of which the agent has said nothing for too long.
func (s *session) impatient(ctx context.Context, now time.Time) {
	s.mu.Lock()
	var lost []int64
	for id, h := range s.held {
		if h.sent && !h.ending && now.Sub(h.heard) > patience {
			lost = append(lost, id)
		}
	}
	s.mu.Unlock()
	for _, id := range lost {
		if err := s.cancel(ctx, id); err != nil {
			return
		}
		s.finish(store.JobEnd{ID: id, State: upkeep.JobFailed,
			Error: fmt.Sprintf("the agent on %s has said nothing about it for %s; it was told to give it up", s.server, patience)})
	}
}

// finishUp ends the session's hold on all jobs. It returns those that the agent
// had and those that were taken on and not sent, but for those whose end is being
// written down.
func (s *session) finishUp() (sent, unsent []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, id := range s.called {
		delete(s.held, id) // nothing was done about it
	}
	for id, h := range s.held {
		switch {
		case h.ending:
		case h.sent:
			sent = append(sent, id)
		default:
			unsent = append(unsent, id)
		}
	}
	return sent, unsent
}

func (s *session) presence() Presence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Presence{Connected: !s.over, Since: s.since, Hello: s.told}
}

// factsOf are the facts that an outcome of server.facts told.
func factsOf(p parcel, told link.Outcome) (facts upkeep.Facts, err error) {
	if _, is := p.payload.(task.ServerFacts); !is || told.State != upkeep.JobDone {
		return facts, errors.ErrUnsupported
	}
	err = json.Unmarshal(told.Result, &facts)
	return facts, err
}
