package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

// RequeueJobs makes jobs of a server ready once more after the link to it broke:
// those that were running are pending again, and the attempt does not count. A
// newer job about the same takes the place of one that was running. drops is
// added to the count of links that broke under each; one that reaches most
// fails, with the reason: it may be what breaks the link. Of the ids given, those
// that were not started are ready as before.
func (s *Store) RequeueJobs(ctx context.Context, server string, given []int64, drops, most int, reason string) error {
	if len(given) == 0 {
		return nil
	}
	return s.changeJobs(ctx, "putting jobs back", func(ctx context.Context, tx Tx) error {
		for part := range slices.Chunk(given, chunk) {
			var rows []jobRow
			err := tx.tx.NewSelect().Model(&rows).Where("id IN (?)", bun.List(part)).Where("server = ?", server).
				Where("state IN (?)", bun.List(openStates)).Order("id").Scan(ctx)
			if err != nil {
				return err
			}
			if err := tx.requeue(ctx, rows, drops, most, reason); err != nil {
				return err
			}
		}
		return nil
	})
}

// openStates are those of jobs that something will still be done about.
var openStates = []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}

// requeue makes running jobs pending, counting drops links that broke, and
// notes all of them that are ready.
func (t Tx) requeue(ctx context.Context, rows []jobRow, drops, most int, reason string) error {
	taken, err := t.pendingKeys(ctx, rows)
	if err != nil {
		return err
	}
	var back, open []jobRow
	var ends []JobEnd
	for _, row := range rows {
		switch {
		case row.State == upkeep.JobPending:
			open = append(open, row)
		case taken[row.key()] != 0:
			ends = append(ends, JobEnd{ID: row.ID, State: upkeep.JobSuperseded, Error: fmt.Sprintf("job %d, which is newer, takes its place", taken[row.key()])})
		case row.Drops+drops >= most:
			ends = append(ends, JobEnd{ID: row.ID, State: upkeep.JobFailed, Error: reason})
		default:
			row.State, row.Drops, row.Attempts, row.Started, row.Progress, row.Percent = upkeep.JobPending, row.Drops+drops, row.Attempts-1, 0, "", 0
			back = append(back, row)
		}
	}
	if err := t.finish(ctx, ends, upkeep.JobRunning); err != nil || len(back)+len(open) == 0 {
		return err
	}
	if len(back) > 0 {
		_, err := t.tx.NewUpdate().Model((*jobRow)(nil)).Set("state = ?", upkeep.JobPending).Set("drops = drops + ?", drops).
			Set("attempts = attempts - 1").Set("started = 0").Set("progress = ''").Set("percent = 0").
			Where("id IN (?)", bun.List(ids(back))).Exec(ctx)
		if err != nil {
			return err
		}
	}
	t.jobs.Changed = append(t.jobs.Changed, plainJobs(back)...)
	return t.readyUnlessWaiting(ctx, append(open, back...))
}

// pendingKeys are the pending jobs that would be in the way if the rows became
// pending, by their keys.
func (t Tx) pendingKeys(ctx context.Context, rows []jobRow) (map[jobKey]int64, error) {
	keys := map[jobKey]int64{}
	for part := range slices.Chunk(rows, chunk) {
		objects := make([]string, len(part))
		for i, row := range part {
			objects[i] = row.Object
		}
		var pending []jobRow
		err := t.tx.NewSelect().Model(&pending).Column("id", "server", "kind", "object").
			Where("object IN (?)", bun.List(objects)).Where("state = ?", upkeep.JobPending).
			Where("kind <> ?", upkeep.JobNotification). // which are never in the way
			Scan(ctx)
		if err != nil {
			return nil, err
		}
		for _, row := range pending {
			keys[row.key()] = row.ID
		}
	}
	return keys, nil
}

// RecoverJobs is called once at the start, by the only process that has jobs
// done: those that were running when the process before it ended are pending
// again. An agent that had done one, and could not say so, knows it by its
// generation. It returns how many jobs are pending; nobody is told of them, as
// those who are there ask for theirs, see [Store.PendingJobs].
func (s *Store) RecoverJobs(ctx context.Context) (pending int64, err error) {
	err = s.changeJobs(ctx, "recovering jobs", func(ctx context.Context, tx Tx) error {
		tx.queue = nil
		if err := clearRiver(ctx, tx.tx); err != nil {
			return err
		}
		for last := int64(0); ; {
			var rows []jobRow
			err := tx.tx.NewSelect().Model(&rows).Where("state = ?", upkeep.JobRunning).Where("id > ?", last).Order("id").Limit(chunk).Scan(ctx)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			last = rows[len(rows)-1].ID
			if err := tx.requeue(ctx, rows, 0, noMost, ""); err != nil {
				return err
			}
		}
		var err error
		pending, err = tx.tx.NewSelect().Model((*jobRow)(nil)).Where("state = ?", upkeep.JobPending).Where("server <> ''").Count(ctx)
		return err
	})
	return pending, err
}

// PendingJobs are the jobs that wait for a server, in the order of their ids:
// those that can be started and those that wait for others.
func (s *Store) PendingJobs(ctx context.Context, server string) (pending []int64, err error) {
	err = s.read.NewSelect().Model((*jobRow)(nil)).Column("id").Where("server = ?", server).Where("state = ?", upkeep.JobPending).Order("id").Scan(ctx, &pending)
	return pending, s.explain("reading the jobs of "+server, err)
}

// noMost is more drops than any job has.
const noMost = 1 << 30

// RetryJob makes a job that failed or was cancelled pending once more, and with
// it those that only ended because it had. It returns [upkeep.ErrConflict] for a
// job that is in another state, whose place another pending one has taken, or
// that waits for one that has to be retried first. An empty who is upkeep itself,
// whose retries are not written down.
func (s *Store) RetryJob(ctx context.Context, id int64, who string) (job upkeep.Job, err error) {
	err = s.changeJobs(ctx, "retrying a job", func(ctx context.Context, tx Tx) error {
		row, err := selectJob(ctx, tx.tx, id)
		if err != nil {
			return err
		}
		if row.State != upkeep.JobFailed && row.State != upkeep.JobCancelled {
			return upkeep.WithHint(fmt.Errorf("job %d is %s, and only what failed or was cancelled can be retried: %w", id, row.State, upkeep.ErrConflict),
				fmt.Sprintf("see what became of it with: upkeep job show %d", id))
		}
		taken, err := tx.pendingKeys(ctx, []jobRow{row})
		if err != nil {
			return err
		}
		if other := taken[row.key()]; other != 0 {
			return fmt.Errorf("job %d is pending already and does the same as %d: %w", other, id, upkeep.ErrConflict)
		}
		if err := tx.retriable(ctx, id); err != nil {
			return err
		}
		if err := tx.retry(ctx, []jobRow{row}); err != nil {
			return err
		}
		if job, err = s.jobIn(ctx, tx.tx, id); err != nil {
			return err
		}
		if who == "" {
			return nil
		}
		return tx.auditJob(ctx, who, "retried", row.job(), job)
	})
	return job, err
}

// retriable refuses to retry what waits for a job that will not be done.
func (t Tx) retriable(ctx context.Context, id int64) error {
	var first []int64
	err := t.tx.NewSelect().Model((*afterRow)(nil)).ModelTableExpr("job_after AS a").ColumnExpr("a.after").
		Join("JOIN jobs AS first ON first.id = a.after").Where("a.job = ?", id).
		Where("first.state IN (?)", bun.List([]upkeep.JobState{upkeep.JobFailed, upkeep.JobCancelled})).OrderExpr("a.after").Limit(1).Scan(ctx, &first)
	if err != nil || len(first) == 0 {
		return err
	}
	return upkeep.WithHint(fmt.Errorf("job %d waits for job %d, which was not done: %w", id, first[0], upkeep.ErrConflict),
		fmt.Sprintf("retry that one, and this one follows: upkeep job retry %d", first[0]))
}

// retry makes ended jobs pending, and after them what ended because they had.
func (t Tx) retry(ctx context.Context, rows []jobRow) error {
	var again []jobRow
	_, err := t.tx.NewUpdate().Model((*jobRow)(nil)).Set("state = ?", upkeep.JobPending).Set("drops = 0").Set("started = 0").Set("finished = 0").
		Set("error = ''").Set("field = ''").Set("holder = ''").Set("percent = 0").Where("id IN (?)", bun.List(ids(rows))).Returning("*").Exec(ctx, &again)
	if err != nil {
		return err
	}
	t.jobs.Changed = append(t.jobs.Changed, plainJobs(again)...)
	if err := t.readyUnlessWaiting(ctx, again); err != nil {
		return err
	}
	var dependents []jobRow
	err = t.tx.NewSelect().Model(&dependents).Where("id IN (?)", t.tx.NewSelect().Model((*afterRow)(nil)).Column("job").Where("after IN (?)", bun.List(ids(rows)))).
		Where("state IN (?)", bun.List([]upkeep.JobState{upkeep.JobFailed, upkeep.JobCancelled})).Where("attempts = 0").Order("id").Scan(ctx)
	if err != nil || len(dependents) == 0 {
		return err
	}
	taken, err := t.pendingKeys(ctx, dependents)
	if err != nil {
		return err
	}
	dependents = slices.DeleteFunc(dependents, func(r jobRow) bool { return taken[r.key()] != 0 })
	if len(dependents) == 0 {
		return nil
	}
	return t.retry(ctx, dependents)
}

// CancelJob cancels a pending job. A running one is left to its agent: it is
// returned as it is, and its outcome says what became of it. It returns
// [upkeep.ErrConflict] for a job that has ended.
func (s *Store) CancelJob(ctx context.Context, id int64, who string) (job upkeep.Job, err error) {
	err = s.endPending(ctx, id, who, JobEnd{ID: id, State: upkeep.JobCancelled, Error: "cancelled by " + who}, &job)
	return job, err
}

// ReadJob ends a notification that was read.
func (s *Store) ReadJob(ctx context.Context, id int64, who string) (job upkeep.Job, err error) {
	err = s.endPending(ctx, id, who, JobEnd{ID: id, State: upkeep.JobDone}, &job)
	if err == nil && job.Kind != upkeep.JobNotification {
		err = fmt.Errorf("job %d is a %s, which an agent does: %w", id, job.Kind, upkeep.ErrConflict)
	}
	return job, err
}

// ended refuses to end a job that has ended, and says what can be done about it.
func ended(row jobRow, to upkeep.JobState) error {
	err := fmt.Errorf("job %d is %s already, and only what waits or runs can be given up: %w", row.ID, row.State, upkeep.ErrConflict)
	hint := fmt.Sprintf("there is nothing left to give up; see what became of it with: upkeep job show %d", row.ID)
	switch {
	case to == upkeep.JobDone && row.Kind != upkeep.JobNotification:
		return fmt.Errorf("job %d is a %s, which an agent does: %w", row.ID, row.Kind, upkeep.ErrConflict)
	case to == upkeep.JobDone:
		err = fmt.Errorf("message %d was read already, or taken back: %w", row.ID, upkeep.ErrConflict)
		hint = "list those that were not with: upkeep job list --kind notification --state unread"
	case row.State == upkeep.JobFailed, row.State == upkeep.JobCancelled:
		hint = fmt.Sprintf("see why with: upkeep job show %[1]d; have it done after all with: upkeep job retry %[1]d", row.ID)
	}
	return upkeep.WithHint(err, hint)
}

func (s *Store) endPending(ctx context.Context, id int64, who string, end JobEnd, job *upkeep.Job) error {
	return s.changeJobs(ctx, "ending a job", func(ctx context.Context, tx Tx) error {
		row, err := selectJob(ctx, tx.tx, id)
		if err != nil {
			return err
		}
		if row.State.Ended() {
			return ended(row, end.State)
		}
		if end.State == upkeep.JobCancelled || row.Kind == upkeep.JobNotification {
			if err := tx.finish(ctx, []JobEnd{end}, upkeep.JobPending); err != nil {
				return err
			}
		}
		if *job, err = s.jobIn(ctx, tx.tx, id); err != nil {
			return err
		}
		what := map[upkeep.JobState]string{upkeep.JobCancelled: "asked to be given up", upkeep.JobDone: "read"}[end.State]
		if end.State == upkeep.JobDone && row.Kind != upkeep.JobNotification {
			return nil // which is refused
		}
		return tx.auditJob(ctx, who, what, row.job(), *job)
	})
}

// CancelServer cancels what waits for a server that is not declared any more,
// and forgets what it served and who was there.
func (t Tx) CancelServer(ctx context.Context, server string) error {
	var waiting []int64
	err := t.tx.NewSelect().Model((*jobRow)(nil)).Column("id").Where("server = ?", server).Where("state = ?", upkeep.JobPending).Scan(ctx, &waiting)
	if err != nil {
		return err
	}
	ends := make([]JobEnd, len(waiting))
	for i, id := range waiting {
		ends[i] = JobEnd{ID: id, State: upkeep.JobCancelled, Error: "server " + server + " was removed"}
	}
	if err := t.finish(ctx, ends, upkeep.JobPending); err != nil {
		return err
	}
	if _, err := t.tx.NewDelete().Model((*accountServerRow)(nil)).Where("server = ?", server).Exec(ctx); err != nil {
		return err
	}
	_, err = t.tx.NewDelete().Model((*siteStateRow)(nil)).Where("server = ?", server).Exec(ctx)
	return err
}

// CancelPending cancels the pending jobs of a kind about an object, on all servers.
func (t Tx) CancelPending(ctx context.Context, kind, object, reason string) error {
	var waiting []int64
	err := t.tx.NewSelect().Model((*jobRow)(nil)).Column("id").Where("kind = ?", kind).Where("object = ?", clean(object)).
		Where("state = ?", upkeep.JobPending).Scan(ctx, &waiting)
	if err != nil {
		return err
	}
	ends := make([]JobEnd, len(waiting))
	for i, id := range waiting {
		ends[i] = JobEnd{ID: id, State: upkeep.JobCancelled, Error: reason}
	}
	return t.finish(ctx, ends, upkeep.JobPending)
}

// PruneJobs forgets jobs that ended before a time, and failed ones that ended
// before an earlier one. It returns how many went. It works in batches, so a
// cancelled pruning has done part of the work.
func (s *Store) PruneJobs(ctx context.Context, before, failedBefore time.Time) (int64, error) {
	var total int64
	for {
		var n int64
		err := s.change(ctx, "pruning jobs", func(ctx context.Context, tx bun.Tx) error {
			var old []int64
			err := tx.NewSelect().Model((*jobRow)(nil)).Column("id").Where("finished > 0").Where("finished < ?", nanos(before)).
				Where("(state <> ? OR finished < ?)", upkeep.JobFailed, nanos(failedBefore)).Order("finished").Limit(pruneBatch).Scan(ctx, &old)
			if err != nil || len(old) == 0 {
				return err
			}
			n = int64(len(old))
			if _, err := tx.NewDelete().Model((*afterRow)(nil)).Where("(job IN (?) OR after IN (?))", bun.List(old), bun.List(old)).Exec(ctx); err != nil {
				return err
			}
			_, err = tx.NewDelete().Model((*jobRow)(nil)).Where("id IN (?)", bun.List(old)).Exec(ctx)
			return err
		})
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}
