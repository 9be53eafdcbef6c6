package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/uptrace/bun"

	"upkeep"
)

// Queue wakes those who have jobs done. Package job implements it.
type Queue interface {
	// Insert notes, in the transaction that made them ready, that jobs can be
	// started. A job may be noted more often than once.
	Insert(ctx context.Context, tx Tx, ready []upkeep.Job) error
	// Committed tells, after the transaction, what it did. It must not wait for
	// the store.
	Committed(JobNews)
}

// JobNews is what one transaction did to jobs.
type JobNews struct {
	Changed []upkeep.Job // made or changed, as they are now
	Ready   []upkeep.Job // that can be started
	Events  []upkeep.Event
	// Sites are those whose declared row, or what a server is known to serve of
	// them, changed; Accounts are those that changed.
	Sites, Accounts []string
}

// empty reports that there is nothing to tell.
func (n JobNews) empty() bool {
	return len(n.Changed)+len(n.Ready)+len(n.Sites)+len(n.Accounts) == 0
}

// Wake has q told of jobs from now on. It is called before the store is shared.
// Jobs that became ready before are found by [Store.RecoverJobs].
func (s *Store) Wake(q Queue) { s.queue = q }

// NewJob is a job to be made.
type NewJob struct {
	// Job has its account, server, kind, object, generation and who filled in. A
	// generation of 0 stands for one higher than any that was given before to a
	// thing without a generation of its own.
	Job upkeep.Job
	// Payload is what the job carries where that does not follow from declared
	// things, as JSON; empty otherwise. It never holds a secret: people read it.
	Payload []byte
	// Behind are indices, in the same list, of jobs that must be done first.
	Behind []int
	// BehindAccount lets it wait for all jobs of its account on its server that have
	// not ended.
	BehindAccount bool
	// BehindRemoval is an object: the job waits for a site.remove about it that its
	// server is busy with. One that has not begun finds out by itself whether it
	// still is to be.
	BehindRemoval string
}

type jobRow struct {
	bun.BaseModel `bun:"table:jobs"`
	ID            int64 `bun:",pk,autoincrement"`
	Account       string
	Server        string
	Kind          string
	Object        string
	Generation    int64
	State         upkeep.JobState
	Payload       string
	Attempts      int
	Drops         int
	Progress      string
	Percent       int
	Error         string
	Field         string
	Holder        string // of a name, for want of which it failed
	Result        string
	Who           string
	Created       int64
	Started       int64
	Finished      int64
}

func (r jobRow) job() upkeep.Job {
	job := upkeep.Job{
		ID: r.ID, Account: r.Account, Server: r.Server, Kind: r.Kind, Object: r.Object, Generation: r.Generation, State: r.State,
		Attempts: r.Attempts, Progress: r.Progress, Percent: r.Percent, Error: r.Error, Field: r.Field, Who: r.Who,
		Created: instant(r.Created), Started: instant(r.Started), Finished: instant(r.Finished),
	}
	if r.Kind == upkeep.JobNotification {
		var message struct{ Text string }
		_ = json.Unmarshal([]byte(r.Payload), &message) // one that cannot be read has no text
		job.Text = message.Text
	}
	return job
}

func plainJobs(rows []jobRow) []upkeep.Job {
	jobs := make([]upkeep.Job, len(rows))
	for i, row := range rows {
		jobs[i] = row.job()
	}
	return jobs
}

// afterRow says that a job waits for another.
type afterRow struct {
	bun.BaseModel `bun:"table:job_after"`
	Job           int64 `bun:",pk"`
	After         int64 `bun:",pk"`
}

// changeJobs is [Store.change] for transactions in which jobs change: those who
// have jobs done hear of it in the transaction and after it.
func (s *Store) changeJobs(ctx context.Context, doing string, f func(context.Context, Tx) error) error {
	var news JobNews
	err := s.change(ctx, doing, func(ctx context.Context, tx bun.Tx) error {
		news = JobNews{}
		return f(ctx, Tx{tx: tx, At: s.now(), jobs: &news, queue: s.queue})
	})
	if err == nil {
		s.committed(news)
	}
	return err
}

func (s *Store) committed(news JobNews) {
	if s.queue != nil && !news.empty() {
		s.queue.Committed(news)
	}
}

// ready notes that jobs can be started. Those that no agent does wait for a
// person instead.
func (t Tx) ready(ctx context.Context, jobs []upkeep.Job) error {
	jobs = slices.DeleteFunc(slices.Clone(jobs), func(j upkeep.Job) bool { return j.Server == "" })
	if len(jobs) == 0 || t.queue == nil {
		return nil
	}
	t.jobs.Ready = append(t.jobs.Ready, jobs...)
	return t.queue.Insert(ctx, t, jobs)
}

// Enqueue makes jobs in a transaction of its own, see [Tx.Enqueue].
func (s *Store) Enqueue(ctx context.Context, jobs ...NewJob) (made []upkeep.Job, err error) {
	err = s.changeJobs(ctx, "making jobs", func(ctx context.Context, tx Tx) error {
		made, err = tx.Enqueue(ctx, jobs)
		return err
	})
	return made, err
}

// AskFor is [Store.Enqueue] of a job that a person asks for, rather than one that
// follows from what is declared.
func (s *Store) AskFor(ctx context.Context, job NewJob) (made upkeep.Job, err error) {
	err = s.changeJobs(ctx, "making a job", func(ctx context.Context, tx Tx) error {
		all, err := tx.Enqueue(ctx, []NewJob{job})
		if err != nil {
			return err
		}
		made = all[0]
		if err := tx.roomFor(ctx, made); err != nil {
			return err
		}
		return tx.auditJob(ctx, job.Job.Who, "asked for: "+made.Kind+" about "+made.Object, nil, made)
	})
	return made, err
}

// auditJob writes down what somebody did to a job.
func (t Tx) auditJob(ctx context.Context, who, what string, before any, after upkeep.Job) error {
	after.Result = nil
	return addAudit(ctx, t.tx, t.At, audited{who: who, object: fmt.Sprintf("job/%d", after.ID), what: what, before: before, after: after})
}

// jobKey is what identifies a job while it is pending. A notification is known by
// what it says as well.
type jobKey struct{ server, kind, object, message string }

func (r jobRow) key() jobKey {
	return keyOf(NewJob{Job: upkeep.Job{Server: r.Server, Kind: r.Kind, Object: r.Object}, Payload: []byte(r.Payload)})
}

func keyOf(j NewJob) jobKey {
	key := jobKey{server: clean(j.Job.Server), kind: clean(j.Job.Kind), object: clean(j.Job.Object)}
	if key.kind == upkeep.JobNotification {
		key.message = string(j.Payload)
	}
	return key
}

// Enqueue makes jobs. Where one of the same server, kind and object is pending
// already, that one stands for both: it keeps its id and its place, is that of
// the higher generation, and waits for what either waits for. A notification
// stands for another only if both say the same to the same account.
// What is returned corresponds to what was given.
func (t Tx) Enqueue(ctx context.Context, jobs []NewJob) ([]upkeep.Job, error) {
	rows, at, err := t.newRows(ctx, jobs)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	fresh, err := t.withoutUnread(ctx, rows, at)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(fresh, chunk) {
		// What the statement returns is in no particular order.
		var stored []jobRow
		_, err := t.tx.NewInsert().Model(&part).On("CONFLICT (server, kind, object) WHERE state = 'pending' AND kind <> 'notification' DO UPDATE").
			Set(newer("generation")).Set(newer("account")).Set(newer("payload")).Set(newer("who")).
			Returning("*").Exec(ctx, &stored)
		if err != nil {
			return nil, err
		}
		for _, row := range stored {
			i, known := at[row.key()]
			if !known {
				return nil, fmt.Errorf("writing job %d: %s %s on %s was not asked for", row.ID, row.Kind, row.Object, row.Server)
			}
			rows[i] = row
		}
	}
	if err := t.wait(ctx, jobs, rows, at); err != nil {
		return nil, err
	}
	return t.enqueued(ctx, jobs, rows, at)
}

// newer takes a column from the job of the higher generation.
func newer(column string) string {
	return fmt.Sprintf("%[1]s = CASE WHEN EXCLUDED.generation >= job_row.generation THEN EXCLUDED.%[1]s ELSE job_row.%[1]s END", column)
}

// newRows are the rows for jobs, one for each key, and which row a key has.
func (t Tx) newRows(ctx context.Context, jobs []NewJob) ([]jobRow, map[jobKey]int, error) {
	next, err := t.generations(ctx, jobs)
	if err != nil {
		return nil, nil, err
	}
	rows, at := make([]jobRow, 0, len(jobs)), make(map[jobKey]int, len(jobs))
	for _, job := range jobs {
		j := job.Job
		if j.Generation == 0 {
			j.Generation = next[numberedBy(j)]
			next[numberedBy(j)]++
		}
		row := jobRow{
			Account: clean(j.Account), Server: clean(j.Server), Kind: clean(j.Kind), Object: clean(j.Object), Generation: j.Generation,
			State: upkeep.JobPending, Payload: string(job.Payload), Who: clean(j.Who), Created: nanos(t.At),
		}
		if i, twice := at[row.key()]; twice {
			row.Generation = max(row.Generation, rows[i].Generation)
			rows[i] = row
			continue
		}
		at[row.key()] = len(rows)
		rows = append(rows, row)
	}
	return rows, at, nil
}

// numberedBy names the count that a job has its generation of, where what is declared
// does not give it one. Messages are counted for each account: its people see the
// number, and are not to see from it how many others get.
func numberedBy(j upkeep.Job) string {
	if j.Kind == upkeep.JobNotification {
		return "messages/" + clean(j.Account)
	}
	return "jobs"
}

// generations sets numbers aside for jobs without one, and returns the first of each
// count.
func (t Tx) generations(ctx context.Context, jobs []NewJob) (map[string]int64, error) {
	wanted := map[string]int64{}
	for _, job := range jobs {
		if job.Job.Generation == 0 {
			wanted[numberedBy(job.Job)]++
		}
	}
	first := make(map[string]int64, len(wanted))
	for _, name := range slices.Sorted(maps.Keys(wanted)) { // in one order, so that no two wait for each other
		var last int64
		err := t.tx.NewRaw(`INSERT INTO job_generations (name, last) VALUES (?, ?) ON CONFLICT (name)
			DO UPDATE SET last = job_generations.last + EXCLUDED.last RETURNING last`, name, wanted[name]).Scan(ctx, &last)
		if err != nil {
			return nil, err
		}
		first[name] = last - wanted[name] + 1
	}
	return first, nil
}

// wait writes down which of the jobs wait for which.
func (t Tx) wait(ctx context.Context, jobs []NewJob, rows []jobRow, at map[jobKey]int) error {
	var links []afterRow
	for _, job := range jobs {
		waiting := rows[at[keyOf(job)]]
		for _, i := range job.Behind {
			if i < 0 || i >= len(jobs) {
				return fmt.Errorf("making a %s job: it waits for number %d of %d jobs", job.Job.Kind, i, len(jobs))
			}
			first := rows[at[keyOf(jobs[i])]]
			if first.ID == waiting.ID {
				return fmt.Errorf("making a %s job for %s: it waits for itself", waiting.Kind, waiting.Object)
			}
			links = append(links, afterRow{Job: waiting.ID, After: first.ID})
		}
		open, err := t.inTheWay(ctx, job, waiting)
		if err != nil {
			return err
		}
		for _, first := range open {
			links = append(links, afterRow{Job: waiting.ID, After: first})
		}
	}
	for part := range slices.Chunk(links, chunk) {
		if _, err := t.tx.NewInsert().Model(&part).On("CONFLICT (job, after) DO NOTHING").Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// inTheWay are the jobs made before that one has to wait for.
func (t Tx) inTheWay(ctx context.Context, job NewJob, waiting jobRow) (open []int64, err error) {
	query := t.tx.NewSelect().Model((*jobRow)(nil)).Column("id").Where("server = ?", waiting.Server).Where("id <> ?", waiting.ID)
	switch {
	case job.BehindAccount:
		query.Where("account = ?", waiting.Account).Where("state IN (?)", bun.List(openStates))
	case job.BehindRemoval != "":
		query.Where("object = ?", clean(job.BehindRemoval)).Where("kind = ?", upkeep.JobSiteRemove).Where("state = ?", upkeep.JobRunning)
	default:
		return nil, nil
	}
	return open, query.Scan(ctx, &open)
}

// enqueued notes which of the jobs are ready, and returns all of them.
func (t Tx) enqueued(ctx context.Context, jobs []NewJob, rows []jobRow, at map[jobKey]int) ([]upkeep.Job, error) {
	stored := plainJobs(rows)
	if err := addAfter(ctx, t.tx, stored); err != nil {
		return nil, err
	}
	t.jobs.Changed = append(t.jobs.Changed, stored...)
	var ready []upkeep.Job
	for i, job := range stored {
		// One that was pending before was noted when it became ready.
		if len(job.After) == 0 && rows[i].Created == nanos(t.At) {
			ready = append(ready, job)
		}
	}
	made := make([]upkeep.Job, len(jobs))
	for i, job := range jobs {
		made[i] = stored[at[keyOf(job)]]
	}
	return made, t.ready(ctx, ready)
}

// MaxJobs is how many jobs one call of [Store.Jobs] returns at most.
const MaxJobs = 10000

// JobFilter says which jobs are wanted; its zero value means the newest
// [MaxJobs].
type JobFilter struct {
	Account, Server, Kind, Object string // empty for any
	// Objects are some of which a job must be about one, and Kinds some of which it must
	// be of one; none for any.
	Objects, Kinds []string
	States         []upkeep.JobState
	// Before is an id, excluded: the last one of the page before. 0 for no bound.
	Before int64
	// Limit is at most [MaxJobs], which 0 stands for too.
	Limit int
}

// Jobs returns the jobs that pass the filter, the newest first.
func (s *Store) Jobs(ctx context.Context, f JobFilter) ([]upkeep.Job, error) {
	if f.Limit < 0 || f.Limit > MaxJobs {
		return nil, fmt.Errorf("reading jobs: a limit of %d is not within 0 to %d", f.Limit, MaxJobs)
	}
	if f.Limit == 0 {
		f.Limit = MaxJobs
	}
	if (f.Kind != "" || len(f.Kinds) > 0) && len(f.States) == 0 {
		f.States = allStates
	}
	var rows []jobRow
	query := s.read.NewSelect().Model(&rows).ExcludeColumn("result").Order("id DESC").Limit(int64(f.Limit))
	if len(f.States) > 1 && len(f.Objects) == 0 {
		query.Where("id IN (?)", s.jobsOfStates(f))
	} else {
		f.choose(query)
	}
	if err := query.Scan(ctx); err != nil {
		return nil, s.explain("reading jobs", err)
	}
	jobs := plainJobs(rows)
	return jobs, s.explain("reading jobs", addAfter(ctx, s.read, jobs))
}

// allStates are in the index of kinds, which is in order within a state only.
var allStates = []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning, upkeep.JobDone, upkeep.JobFailed, upkeep.JobSuperseded, upkeep.JobCancelled}

// unsettled reports whether no job is wanted that is done or was given up: an
// index has the rest by what they are about.
func (f JobFilter) unsettled() bool {
	return len(f.States) > 0 && !slices.ContainsFunc(f.States, func(state upkeep.JobState) bool {
		return state != upkeep.JobPending && state != upkeep.JobRunning && state != upkeep.JobFailed
	})
}

// choose has a query find the jobs that pass.
func (f JobFilter) choose(query *bun.SelectQuery) {
	for _, one := range []struct{ column, value string }{
		{"account", f.Account}, {"server", f.Server}, {"kind", f.Kind}, {"object", f.Object},
	} {
		if one.value != "" {
			query.Where("? = ?", bun.Ident(one.column), clean(one.value))
		}
	}
	if len(f.Objects) > 0 {
		query.Where("object IN (?)", bun.List(f.Objects))
	}
	if len(f.Kinds) > 0 {
		query.Where("kind IN (?)", bun.List(f.Kinds))
	}
	if f.unsettled() {
		query.Where("state IN ('pending', 'running', 'failed')") // in the words of the index
	}
	state := bun.Safe("state")
	if len(f.Objects) > 0 && f.unsettled() {
		// Not by the index of failed jobs: PostgreSQL takes its 10,000 for cheaper than
		// those of 100 objects, and reads each from another page.
		state = "(state || '')"
	}
	if len(f.States) == 1 {
		query.Where("? = ?", state, f.States[0])
	} else if len(f.States) > 1 {
		query.Where("? IN (?)", state, bun.List(f.States))
	}
	if f.Before > 0 {
		query.Where("id < ?", f.Before)
	}
}

// jobsOfStates are the ids of the newest jobs of each of several states: each is in
// order in an index, and all together are in order in none.
func (s *Store) jobsOfStates(f JobFilter) *bun.SelectQuery {
	var all *bun.SelectQuery
	for _, state := range f.States {
		f.States = []upkeep.JobState{state}
		newest := s.read.NewSelect().Model((*jobRow)(nil)).Column("id").Order("id DESC").Limit(int64(f.Limit))
		f.choose(newest)
		one := s.read.NewSelect().TableExpr("(?) AS newest", newest).Column("id")
		if all == nil {
			all = one
		} else {
			all = all.UnionAll(one)
		}
	}
	return all
}

// LastResults are the results of the last job of a kind that was done on each
// declared server.
func (s *Store) LastResults(ctx context.Context, kind string) (map[string]json.RawMessage, error) {
	var rows []jobRow
	last := s.read.NewSelect().Model((*jobRow)(nil)).ModelTableExpr("jobs AS j").ColumnExpr("j.id").Where("j.kind = ?", kind).
		Where("j.server = o.name").Where("j.result <> ''").Where("j.state = ?", upkeep.JobDone).OrderExpr("j.id DESC").Limit(1)
	ids := s.read.NewSelect().TableExpr("objects AS o").ColumnExpr("(?)", last).Where("o.kind = ?", upkeep.KindServer).Where("NOT o.deleted")
	if err := s.read.NewSelect().Model(&rows).Column("server", "result").Where("id IN (?)", ids).Scan(ctx); err != nil {
		return nil, s.explain("reading what servers told", err)
	}
	results := make(map[string]json.RawMessage, len(rows))
	for _, row := range rows {
		results[row.Server] = json.RawMessage(row.Result)
	}
	return results, nil
}

// addAfter fills in which jobs others wait for. Those that were done are not waited
// for any more; of a job that has ended itself, all are told that it came after.
func addAfter(ctx context.Context, db bun.IDB, jobs []upkeep.Job) error {
	at := make(map[int64]int, len(jobs))
	ids := make([]int64, len(jobs))
	for i, job := range jobs {
		at[job.ID], ids[i] = i, job.ID
	}
	for part := range slices.Chunk(ids, chunk) {
		var links []struct {
			Job, After int64
			State      upkeep.JobState // of the first of them
		}
		err := db.NewSelect().Model((*afterRow)(nil)).ModelTableExpr("job_after AS a").ColumnExpr("a.job, a.after, first.state").
			Join("JOIN jobs AS first ON first.id = a.after").Where("a.job IN (?)", bun.List(part)).OrderExpr("a.job, a.after").Scan(ctx, &links)
		if err != nil {
			return err
		}
		for _, link := range links {
			job := &jobs[at[link.Job]]
			if job.State == upkeep.JobPending && (link.State == upkeep.JobDone || link.State == upkeep.JobSuperseded) {
				continue
			}
			job.After = append(job.After, link.After)
		}
	}
	return nil
}

// CountPending is how many jobs wait for each server.
func (s *Store) CountPending(ctx context.Context) (map[string]int, error) {
	var rows []struct {
		Server string
		Count  int
	}
	err := s.read.NewSelect().Model((*jobRow)(nil)).Column("server").ColumnExpr("count(*) AS count").
		Where("state IN ('pending', 'running')").Where("server <> ''").Group("server").Scan(ctx, &rows)
	if err != nil {
		return nil, s.explain("counting jobs", err)
	}
	counts := make(map[string]int, len(rows))
	for _, row := range rows {
		counts[row.Server] = row.Count
	}
	return counts, nil
}

// Job returns one job, or [upkeep.ErrNotFound].
func (s *Store) Job(ctx context.Context, id int64) (upkeep.Job, error) {
	return s.jobIn(ctx, s.read, id)
}

func (s *Store) jobIn(ctx context.Context, db bun.IDB, id int64) (upkeep.Job, error) {
	row, err := selectJob(ctx, db, id)
	if errors.Is(err, upkeep.ErrNotFound) {
		return upkeep.Job{}, err
	}
	if err != nil {
		return upkeep.Job{}, s.explain("reading a job", err)
	}
	jobs := []upkeep.Job{row.job()}
	if row.Result != "" {
		jobs[0].Result = json.RawMessage(row.Result)
	}
	err = addAfter(ctx, db, jobs)
	return jobs[0], s.explain("reading a job", err)
}

func selectJob(ctx context.Context, db bun.IDB, id int64) (jobRow, error) {
	row := jobRow{ID: id}
	found, err := notFound(db.NewSelect().Model(&row).WherePK().Scan(ctx))
	if err == nil && !found {
		err = upkeep.WithHint(fmt.Errorf("job %d: %w", id, upkeep.ErrNotFound), "list those that there are with: upkeep job list")
	}
	return row, err
}
