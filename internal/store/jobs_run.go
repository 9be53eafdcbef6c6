package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

// ClaimedJob is a job that is being sent to its server.
type ClaimedJob struct {
	upkeep.Job
	Payload []byte
	// Drops counts the links that broke while the job was being done.
	Drops int
}

// ClaimJobs makes pending jobs of a server running, in the order of their ids,
// and returns those that it could. Left out are jobs that are not pending any
// more, that wait for others, and all but the first about one object: they are
// ready once more when that one has ended.
func (s *Store) ClaimJobs(ctx context.Context, server string, wanted []int64) (claimed []ClaimedJob, err error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	err = s.changeJobs(ctx, "starting jobs", func(ctx context.Context, tx Tx) error {
		rows, err := tx.claimable(ctx, server, wanted)
		if err != nil {
			return err
		}
		claimed = make([]ClaimedJob, len(rows))
		for i := range rows {
			row := &rows[i]
			row.State, row.Attempts, row.Started = upkeep.JobRunning, row.Attempts+1, nanos(tx.At)
			claimed[i] = ClaimedJob{row.job(), []byte(row.Payload), row.Drops}
			tx.jobs.Changed = append(tx.jobs.Changed, claimed[i].Job)
		}
		for part := range slices.Chunk(ids(rows), chunk) {
			_, err := tx.tx.NewUpdate().Model((*jobRow)(nil)).Set("state = ?", upkeep.JobRunning).Set("attempts = attempts + 1").
				Set("started = ?", nanos(tx.At)).Where("id IN (?)", bun.List(part)).Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// claimable are the jobs of a server that can be started, at most one for each
// object and none for an object that another job is busy with.
func (t Tx) claimable(ctx context.Context, server string, wanted []int64) ([]jobRow, error) {
	var running []string
	err := t.tx.NewSelect().Model((*jobRow)(nil)).Column("object").Where("server = ?", server).
		Where("state = ?", upkeep.JobRunning).Scan(ctx, &running)
	if err != nil {
		return nil, err
	}
	busy := make(map[string]bool, len(running)+len(wanted))
	for _, object := range running {
		busy[object] = true
	}
	var rows []jobRow
	for part := range slices.Chunk(slices.Sorted(slices.Values(wanted)), chunk) {
		var some []jobRow
		err := t.tx.NewSelect().Model(&some).Where("id IN (?)", bun.List(part)).Where("server = ?", server).
			Where("state = ?", upkeep.JobPending).Order("id").Scan(ctx)
		if err != nil {
			return nil, err
		}
		waiting, err := t.waiting(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, row := range some {
			if !busy[row.Object] && !waiting[row.ID] {
				busy[row.Object] = true
				rows = append(rows, row)
			}
		}
	}
	return rows, nil
}

// waiting tells which of the jobs wait for one that is not done.
func (t Tx) waiting(ctx context.Context, asked []int64) (map[int64]bool, error) {
	var jobs []int64
	err := t.tx.NewSelect().Model((*afterRow)(nil)).ModelTableExpr("job_after AS a").ColumnExpr("DISTINCT a.job").
		Join("JOIN jobs AS first ON first.id = a.after").Where("a.job IN (?)", bun.List(asked)).
		Where("first.state NOT IN (?)", bun.List([]upkeep.JobState{upkeep.JobDone, upkeep.JobSuperseded})).Scan(ctx, &jobs)
	waiting := make(map[int64]bool, len(jobs))
	for _, id := range jobs {
		waiting[id] = true
	}
	return waiting, err
}

// JobEnd is how a job ended.
type JobEnd struct {
	ID int64
	// State is done, failed, superseded or cancelled.
	State upkeep.JobState
	// Error and Field say why it failed, or was superseded.
	Error, Field string
	// Holder is the object that had a name which the job needed on its server, where
	// that is why it failed.
	Holder string
	// Result is what the agent told beside that, as JSON; empty for nothing.
	Result []byte
	// Generation is what was sent, where that was newer than the job's; 0 otherwise.
	Generation int64
	// Sites are what the server is now known to serve, written beside the end.
	Sites []SiteState
	// AllSites says that the server serves Sites and nothing else.
	AllSites bool
}

// FinishJobs ends jobs that are running, in one transaction for all of them, with
// an event each. Jobs that have ended already are left as they are: their
// outcome was heard before. What waited for them becomes ready, or ends as they
// did where they were not done.
func (s *Store) FinishJobs(ctx context.Context, ends []JobEnd) error {
	if len(ends) == 0 {
		return nil
	}
	return s.changeJobs(ctx, "ending jobs", func(ctx context.Context, tx Tx) error {
		return tx.finish(ctx, ends, upkeep.JobRunning)
	})
}

// finish ends the jobs that are in one of the given states.
func (t Tx) finish(ctx context.Context, ends []JobEnd, from ...upkeep.JobState) error {
	ended, err := t.end(ctx, ends, from)
	if err != nil || len(ended) == 0 {
		return err
	}
	if err := t.keepSites(ctx, ends, ended); err != nil {
		return err
	}
	events := make([]upkeep.Event, 0, len(ended))
	for _, row := range ended {
		events = append(events, row.event(t.At))
		t.jobs.Changed = append(t.jobs.Changed, row.job())
	}
	stored, err := addEvents(ctx, t.tx, events)
	if err != nil {
		return err
	}
	t.jobs.Events = append(t.jobs.Events, stored...)
	if err := t.releaseObjects(ctx, ended); err != nil {
		return err
	}
	if err := t.releaseDependents(ctx, ended); err != nil {
		return err
	}
	return t.retryHeld(ctx, ended)
}

func (r jobRow) event(at time.Time) upkeep.Event {
	where := ""
	if r.Server != "" {
		where = " on " + r.Server
	}
	return upkeep.Event{At: at, Kind: upkeep.EventJob, Who: r.Who, Object: r.Object, What: fmt.Sprintf("%s%s %s", r.Kind, where, r.State), Why: r.Error}
}

// end writes the ends down and returns the rows that had not ended before. Those
// that are simply done, which is nearly all, are one statement.
func (t Tx) end(ctx context.Context, ends []JobEnd, from []upkeep.JobState) ([]jobRow, error) {
	var ended []jobRow
	var plain []int64
	update := func(e JobEnd, some []int64) error {
		var rows []jobRow
		percent := "percent"
		if e.State == upkeep.JobDone {
			percent = "100"
		}
		query := t.tx.NewUpdate().Model((*jobRow)(nil)).Set("state = ?", e.State).Set("finished = ?", nanos(t.At)).
			Set("progress = ''").Set("percent = "+percent).Set("error = ?", clean(e.Error)).Set("field = ?", clean(e.Field)).Set("holder = ?", clean(e.Holder)).
			Where("id IN (?)", bun.List(some)).Where("state IN (?)", bun.List(from)).Returning("*")
		if len(e.Result) > 0 {
			query.Set("result = ?", strings.ToValidUTF8(string(e.Result), "\uFFFD"))
		}
		if e.Generation > 0 {
			query.Set("generation = ?", e.Generation)
		}
		_, err := query.Exec(ctx, &rows)
		ended = append(ended, rows...)
		return err
	}
	for _, e := range ends {
		if !e.State.Ended() {
			return nil, fmt.Errorf("ending job %d: %s is not an end", e.ID, e.State)
		}
		if e.State == upkeep.JobDone && e.Error == "" && e.Generation == 0 && len(e.Result) == 0 {
			plain = append(plain, e.ID)
			continue
		}
		if err := update(e, []int64{e.ID}); err != nil {
			return nil, err
		}
	}
	for part := range slices.Chunk(plain, chunk) {
		if err := update(JobEnd{State: upkeep.JobDone}, part); err != nil {
			return nil, err
		}
	}
	return ended, nil
}

// releaseObjects makes ready what was held back because a job about the same
// object was running.
func (t Tx) releaseObjects(ctx context.Context, ended []jobRow) error {
	type place struct{ server, object string }
	free := map[place]bool{}
	objects := make([]string, len(ended))
	for i, row := range ended {
		free[place{row.Server, row.Object}], objects[i] = true, row.Object
	}
	for part := range slices.Chunk(objects, chunk) {
		var rows []jobRow
		err := t.tx.NewSelect().Model(&rows).Where("object IN (?)", bun.List(part)).Where("state = ?", upkeep.JobPending).Order("id").Scan(ctx)
		if err != nil {
			return err
		}
		rows = slices.DeleteFunc(rows, func(r jobRow) bool { return !free[place{r.Server, r.Object}] })
		if err := t.readyUnlessWaiting(ctx, rows); err != nil {
			return err
		}
	}
	return nil
}

// readyUnlessWaiting notes the pending jobs that wait for no other.
func (t Tx) readyUnlessWaiting(ctx context.Context, rows []jobRow) error {
	for part := range slices.Chunk(rows, chunk) {
		waiting, err := t.waiting(ctx, ids(part))
		if err != nil {
			return err
		}
		ready := slices.DeleteFunc(slices.Clone(part), func(r jobRow) bool { return waiting[r.ID] })
		if err := t.ready(ctx, plainJobs(ready)); err != nil {
			return err
		}
	}
	return nil
}

func ids(rows []jobRow) []int64 {
	all := make([]int64, len(rows))
	for i, row := range rows {
		all[i] = row.ID
	}
	return all
}

// releaseDependents makes ready what waited for jobs that are done, and ends
// what waited for jobs that failed or were cancelled. One that was superseded
// counts as done: the newer one that took its place has dependents of its own.
func (t Tx) releaseDependents(ctx context.Context, ended []jobRow) error {
	byID := make(map[int64]jobRow, len(ended))
	for _, row := range ended {
		byID[row.ID] = row
	}
	for part := range slices.Chunk(ids(ended), chunk) {
		var links []afterRow
		err := t.tx.NewSelect().Model(&links).Where("after IN (?)", bun.List(part)).Order("job", "after").Scan(ctx)
		if err != nil {
			return err
		}
		stayed, err := t.despite(ctx, links, byID)
		if err != nil {
			return err
		}
		var released []int64
		var doomed []JobEnd
		for _, link := range links {
			first := byID[link.After]
			switch {
			case first.succeeded() || stayed[link]:
				released = append(released, link.Job)
			case first.State == upkeep.JobCancelled:
				doomed = append(doomed, JobEnd{ID: link.Job, State: upkeep.JobCancelled, Error: first.doom("was cancelled")})
			default:
				doomed = append(doomed, JobEnd{ID: link.Job, State: upkeep.JobFailed, Error: first.doom("failed: " + first.Error)})
			}
		}
		if err := t.finish(ctx, doomed, upkeep.JobPending); err != nil {
			return err
		}
		if len(released) == 0 {
			continue
		}
		var rows []jobRow
		err = t.tx.NewSelect().Model(&rows).Where("id IN (?)", bun.List(released)).Where("state = ?", upkeep.JobPending).Order("id").Scan(ctx)
		if err != nil {
			return err
		}
		if err := t.readyUnlessWaiting(ctx, rows); err != nil {
			return err
		}
	}
	return nil
}

func (r jobRow) succeeded() bool {
	return r.State == upkeep.JobDone || r.State == upkeep.JobSuperseded
}

// despite are the links of jobs that make something and waited for a removal which was
// not done: what it would have taken away has stayed, which is all that they need. The
// links go, or the jobs would go on waiting.
func (t Tx) despite(ctx context.Context, links []afterRow, ended map[int64]jobRow) (map[afterRow]bool, error) {
	var waiting []int64
	for _, link := range links {
		if first := ended[link.After]; first.Kind == upkeep.JobSiteRemove && !first.succeeded() {
			waiting = append(waiting, link.Job)
		}
	}
	if len(waiting) == 0 {
		return nil, nil
	}
	var makers []int64
	err := t.tx.NewSelect().Model((*jobRow)(nil)).Column("id").Where("id IN (?)", bun.List(waiting)).
		Where("kind IN (?)", bun.List([]string{upkeep.JobSiteApply, upkeep.JobSiteFiles})).Scan(ctx, &makers)
	if err != nil {
		return nil, err
	}
	stayed := map[afterRow]bool{}
	for _, link := range links {
		if first := ended[link.After]; first.Kind != upkeep.JobSiteRemove || first.succeeded() || !slices.Contains(makers, link.Job) {
			continue
		}
		stayed[link] = true
		if _, err := t.tx.NewDelete().Model(&link).WherePK().Exec(ctx); err != nil {
			return nil, err
		}
	}
	return stayed, nil
}

// doom says to the owner of a job what became of the one that it waited for.
func (r jobRow) doom(what string) string {
	return fmt.Sprintf("job %d (%s on %s), which has to be done first, %s", r.ID, r.Kind, r.Server, what)
}

// JobStep is how far a running job has come.
type JobStep struct {
	ID      int64
	Step    string
	Percent int
}

// StepJobs notes how far running jobs have come.
func (s *Store) StepJobs(ctx context.Context, steps []JobStep) error {
	if len(steps) == 0 {
		return nil
	}
	return s.changeJobs(ctx, "noting the progress of jobs", func(ctx context.Context, tx Tx) error {
		for _, step := range steps {
			var rows []jobRow
			_, err := tx.tx.NewUpdate().Model((*jobRow)(nil)).Set("progress = ?", clean(step.Step)).Set("percent = ?", step.Percent).
				Where("id = ?", step.ID).Where("state = ?", upkeep.JobRunning).Returning("*").Exec(ctx, &rows)
			if err != nil {
				return err
			}
			tx.jobs.Changed = append(tx.jobs.Changed, plainJobs(rows)...)
		}
		return nil
	})
}
