package job

import (
	"context"
	"crypto/ed25519"
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

// Config is what a dispatcher needs.
type Config struct {
	Store *store.Store
	// Key signs jobs.
	Key ed25519.PrivateKey
	Log *slog.Logger
	// Announce is told of the events that were written, if set.
	Announce func([]upkeep.Event)
	// Keep is how long jobs that ended are kept, KeepFailed those that failed; 30
	// and 180 days when 0.
	Keep, KeepFailed time.Duration
}

// Dispatcher has jobs done by agents.
type Dispatcher struct {
	store    *store.Store
	key      ed25519.PrivateKey
	log      *slog.Logger
	announce func([]upkeep.Event)
	keep     [2]time.Duration
	now      func() time.Time

	river  *store.River
	client *store.RiverClient
	record *record
	news   news
	roll   roll

	stop    context.CancelFunc
	running sync.WaitGroup // the dispatcher's own goroutines

	mu       sync.Mutex
	closed   bool
	sessions map[string]*session // by server
	serving  sync.WaitGroup      // calls of Serve
	seen     map[string]Presence // servers that were connected once, by name
	errands  map[*Errand]bool    // that are open
}

// Presence is what is known of the link to a server's agent.
type Presence struct {
	Connected bool
	// Since is when the link was made, or when it was lost.
	Since time.Time
	// Hello is what the agent last said of itself.
	Hello link.Hello
}

// webDown is why the server's web server is known not to run; empty otherwise.
func (p Presence) webDown() string {
	if !p.Connected {
		return ""
	}
	return bounded(p.Hello.Facts.WebDown)
}

// New prepares a dispatcher. From then on jobs follow from changes of the store,
// which must not be shared before.
func New(ctx context.Context, cfg Config) (*Dispatcher, error) {
	d := &Dispatcher{
		store: cfg.Store, key: cfg.Key, log: cfg.Log, announce: cfg.Announce, now: time.Now,
		keep:     [2]time.Duration{cfg.Keep, cfg.KeepFailed},
		record:   newRecord(cfg.Store, cfg.Log),
		sessions: map[string]*session{}, seen: map[string]Presence{}, errands: map[*Errand]bool{},
	}
	const day = 24 * time.Hour
	for i, otherwise := range []time.Duration{30 * day, 180 * day} {
		if d.keep[i] == 0 {
			d.keep[i] = otherwise
		}
	}
	log := slog.New(quiet{cfg.Log.Handler()})
	var err error
	if d.river, err = cfg.Store.River(ctx, log); err != nil {
		return nil, err
	}
	if d.client, err = newRiver(d.river, log, d.call); err != nil {
		return nil, err
	}
	cfg.Store.Wake(d)
	cfg.Store.Follow(d)
	return d, nil
}

// Start takes up what the process before left. Only one process may do so: the
// caller holds the database.
func (d *Dispatcher) Start(ctx context.Context) error {
	pending, err := d.store.RecoverJobs(ctx)
	if err != nil {
		return err
	}
	if pending > 0 {
		d.log.Info("jobs wait for their servers", "jobs", pending)
	}
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := d.client.Start(ctx); err != nil {
		d.stop()
		return fmt.Errorf("starting River: %w", err)
	}
	d.running.Go(func() { d.record.run(ctx) })
	d.running.Go(func() { d.tidy(ctx) })
	return nil
}

// Close lets go of all links and of what is being done, and writes down what is
// known. Jobs that agents are at are done there all the same, and sent again
// after the next start, when their agents say so.
func (d *Dispatcher) Close() error {
	d.mu.Lock()
	d.closed = true
	for _, s := range d.sessions {
		_ = s.conn.Close() // its Serve says how it ended
	}
	d.mu.Unlock()
	d.serving.Wait()
	var err error
	if d.stop != nil {
		ctx, done := context.WithTimeout(context.Background(), 10*time.Second)
		err = d.client.Stop(ctx)
		done()
		d.stop()
		d.running.Wait()
	}
	d.news.close()
	return err
}

// errClosing refuses links while control ends.
var errClosing = errors.New("control is stopping")

// Serve has jobs of a server done over a link, until it breaks or ctx ends. A
// new link to a server takes the place of one that is still there: the agent
// knows better than control that the old one is dead.
func (d *Dispatcher) Serve(ctx context.Context, server string, hello link.Hello, conn link.Conn) error {
	s := newSession(d, server, hello, conn)
	defer func() { _ = conn.Close() }()
	if err := d.admit(ctx, s); err != nil {
		return err
	}
	defer d.serving.Done()
	// After it was admitted: what becomes ready from now on it is called for.
	pending, err := d.store.PendingJobs(ctx, server)
	if err == nil {
		s.call(pending...)
		s.log.Info("agent connected", "version", hello.Version)
		if age := hello.Age(); age != "" {
			s.log.Warn(age)
		}
		d.back(server)
		if hello.Facts.WebDown != "" {
			d.roll.tellServer(server)
		}
		d.astray(ctx, server, hello.Facts)
		err = s.run(ctx)
		s.log.Info("agent disconnected", "why", err)
	}
	sent, unsent := s.finishUp()
	putBack, drops := context.WithoutCancel(ctx), 1
	if d.closing() {
		drops = 0 // which is nobody's fault
	}
	d.requeue(putBack, server, sent, drops, mostDrops, fmt.Sprintf(
		"the link to the agent on %s broke each of the %d times that it worked on this, in the end on nothing else", server, mostDrops))
	d.requeue(putBack, server, unsent, 0, noMost, "")
	d.mu.Lock()
	delete(d.sessions, server)
	d.seen[server] = Presence{Since: d.now(), Hello: s.presence().Hello}
	d.mu.Unlock()
	if s.presence().Hello.Facts.WebDown != "" { // which is not known any more
		d.roll.tellServer(server)
	}
	close(s.ended)
	return err
}

// admit makes a session the one of its server, after the one before has ended.
func (d *Dispatcher) admit(ctx context.Context, s *session) error {
	for {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return errClosing
		}
		before := d.sessions[s.server]
		if before == nil {
			d.sessions[s.server] = s
			d.serving.Add(1)
			d.mu.Unlock()
			return nil
		}
		d.mu.Unlock()
		_ = before.conn.Close() // its own Serve says how it ended
		select {
		case <-before.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// requeueWithin bounds one try to put jobs back: a database that takes a write and
// never answers would keep control from stopping.
const requeueWithin = 10 * time.Second

// requeue puts jobs back, and does not give up while the database is away: a job
// that is left running would wait for the next start.
func (d *Dispatcher) requeue(ctx context.Context, server string, ids []int64, drops, most int, reason string) {
	for {
		within, done := context.WithTimeout(ctx, requeueWithin)
		err := d.store.RequeueJobs(within, server, ids, drops, most, reason)
		done()
		if err == nil || ctx.Err() != nil || d.closing() {
			return
		}
		d.log.Error("putting jobs back", "server", server, "jobs", len(ids), "err", err)
		wait(ctx, again)
	}
}

// callAll has sessions look at jobs that have just become ready. River has calls for
// the same jobs, and is looked into by a session when it has claimed them: before, it
// would have a transaction of its own that they wait for.
func (d *Dispatcher) callAll(ready []upkeep.Job) {
	byServer := map[string][]int64{}
	for _, job := range ready {
		byServer[job.Server] = append(byServer[job.Server], job.ID)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for server, jobs := range byServer {
		if s := d.sessions[server]; s != nil {
			s.call(jobs...)
		} else {
			d.river.Nudge()
		}
	}
}

func (d *Dispatcher) closing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// call has the session of a server look at a job. Where there is none, its next
// one asks for all jobs that wait.
func (d *Dispatcher) call(server string, id int64) {
	d.mu.Lock()
	s := d.sessions[server]
	d.mu.Unlock()
	if s != nil {
		s.call(id)
	}
}

// declared reads what the orders of jobs are made from.
func (d *Dispatcher) declared(ctx context.Context, jobs []store.ClaimedJob) (declared, error) {
	var from declared
	var refs []store.Ref
	all := false
	for _, job := range jobs {
		refs = append(refs, needs(job.Job)...)
		all = all || job.Kind == upkeep.JobSiteSync
	}
	var err error
	if from.found, err = d.store.Declared(ctx, refs); err != nil || !all {
		return from, err
	}
	if from.sites, err = d.store.All(ctx, upkeep.KindSite); err != nil {
		return from, err
	}
	accounts, err := d.store.All(ctx, upkeep.KindAccount)
	for _, account := range accounts {
		if account.Err == nil {
			from.found[store.RefOf(account.Object)] = account
		}
	}
	if err != nil {
		return from, err
	}
	// After what is declared was read: a change in between is among these.
	if from.changing, err = d.changing(ctx, jobs); err != nil {
		return from, err
	}
	from.moving, err = d.moving(ctx, jobs)
	return from, err
}

// moving are the sites that each server which is to be regenerated goes on answering
// for, since others do not yet.
func (d *Dispatcher) moving(ctx context.Context, jobs []store.ClaimedJob) (moving map[string][]string, err error) {
	moving = map[string][]string{}
	for _, job := range jobs {
		if job.Object != (task.SiteSync{}).Object() {
			continue
		}
		if moving[job.Server], err = d.store.MovingSites(ctx, job.Server); err != nil {
			return nil, err
		}
	}
	return moving, nil
}

// changing are the sites that jobs are about which have not ended, for each server
// that is to verify.
func (d *Dispatcher) changing(ctx context.Context, jobs []store.ClaimedJob) (map[string][]string, error) {
	changing := map[string][]string{}
	for _, job := range jobs {
		if job.Object != verification {
			continue
		}
		filter := store.JobFilter{Server: job.Server, States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}, Limit: store.MaxJobs}
		var sites []string
		for {
			open, err := d.store.Jobs(ctx, filter)
			if err != nil {
				return nil, err
			}
			for _, one := range open {
				if site := object(one); site.Kind == upkeep.KindSite {
					sites = append(sites, site.Name)
				}
			}
			if len(open) < filter.Limit {
				break
			}
			filter.Before = open[len(open)-1].ID
		}
		slices.Sort(sites)
		changing[job.Server] = slices.Compact(sites)
	}
	return changing, nil
}

// verification is the object of the jobs that verify.
var verification = task.SiteSync{Verify: true}.Object()

// sign makes what travels, plain for an agent that reads nothing packed.
func (d *Dispatcher) sign(p parcel, plain bool) (link.Signed, error) {
	return link.Sign(d.key, link.Job{
		ID: p.job.ID, Server: p.job.Server, Kind: p.job.Kind, Object: p.job.Object, Generation: p.generation,
		Expires: d.now().Add(life), Payload: encode(p.payload), Plain: plain,
	})
}

// Insert is called by the store in a transaction that made jobs ready.
func (d *Dispatcher) Insert(ctx context.Context, tx store.Tx, ready []upkeep.Job) error {
	if _, err := d.client.InsertManyFastTx(ctx, tx.SQL(), calls(ready)); err != nil {
		return fmt.Errorf("calling for jobs: %w", err)
	}
	return nil
}

// Committed is called by the store after a transaction that changed jobs.
func (d *Dispatcher) Committed(news store.JobNews) {
	d.callAll(news.Ready)
	d.roll.tell(news)
	d.hasten(news.Changed)
	d.news.send(news.Changed)
	if d.announce != nil && len(news.Events) > 0 {
		d.announce(news.Events)
	}
}

// Follow is called by the store in the transaction of a change.
func (d *Dispatcher) Follow(ctx context.Context, tx store.Tx, changes []store.Altered) error {
	for _, change := range changes {
		switch {
		case change.Ref.Kind == upkeep.KindServer && change.New == nil:
			if err := tx.CancelServer(ctx, change.Ref.Name); err != nil {
				return err
			}
		case change.Ref.Kind == upkeep.KindAccount && change.Old == nil:
			if err := tx.CancelPending(ctx, upkeep.JobUserRemove, change.Ref.String(), "the account was declared again"); err != nil {
				return err
			}
		}
	}
	var sites []upkeep.Declared
	if needsSites(changes) {
		all, err := tx.Sites(ctx)
		if err != nil {
			return err
		}
		for _, site := range all {
			if site.Err == nil {
				sites = append(sites, site.Declared)
			}
		}
	}
	around := around{sites: sites, users: map[string][]string{}}
	var err error
	if around.serving, err = tx.Serving(ctx, removable(changes, sites)); err != nil {
		return err
	}
	for _, change := range changes {
		if change.Ref.Kind != upkeep.KindAccount || change.New != nil {
			continue
		}
		if around.users[change.Ref.Name], err = tx.AccountServers(ctx, change.Ref.Name); err != nil {
			return err
		}
	}
	if around.unread, err = tx.Unread(ctx, concerned(changes)); err != nil {
		return err
	}
	_, err = tx.Enqueue(ctx, follow(changes, around, tx.Who))
	return err
}

// tidy looks after what nobody asks for: jobs of which nothing is heard, and old
// ones.
func (d *Dispatcher) tidy(ctx context.Context) {
	look, prune, reread := time.NewTicker(30*time.Second), time.NewTicker(time.Hour), time.NewTicker(rereading)
	defer look.Stop()
	defer prune.Stop()
	defer reread.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			for _, s := range d.present() {
				s.impatient(ctx, d.now())
			}
		case <-reread.C:
			d.reread(ctx)
		case <-prune.C:
			now := d.now()
			if _, err := d.store.PruneJobs(ctx, now.Add(-d.keep[0]), now.Add(-d.keep[1])); err != nil && ctx.Err() == nil {
				d.log.Error("forgetting old jobs", "err", err)
			}
		}
	}
}

func (d *Dispatcher) present() []*session {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*session, 0, len(d.sessions))
	for _, s := range d.sessions {
		all = append(all, s)
	}
	return all
}
