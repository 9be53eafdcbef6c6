package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

var jobTests = []test{
	{"one is pending for each server, kind and object", jobsUnique},
	{"generations that nothing declares rise", jobsGenerations},
	{"lists are filtered and paged", jobsListed},
	{"a job starts once and ends once", jobsGuarded},
	{"one job about an object runs at a time", jobsOneObject},
	{"what comes after waits", jobsAfter},
	{"what lives in a folder waits while that is taken away", jobsAfterRemoval},
	{"what comes after a failure fails, and is retried with it", jobsAfterFailure},
	{"a broken link costs no attempt", jobsRequeued},
	{"what links break on fails in the end", jobsPoison},
	{"a start takes up what a kill left", jobsRecovered},
	{"retry and cancel know when they are pointless", jobsRetryCancel},
	{"what failed over a name is tried again when that may be free", jobsHeld},
	{"what failed over a name is left alone when something newer was made", jobsHeldNewer},
	{"a name that was given up before its taker's failure was heard of", jobsHeldLate},
	{"old jobs are forgotten, failed ones later", jobsPruned},
	{"what servers serve is kept beside the end", jobsSites},
	{"what servers serve is not written again as it is", jobsSitesAgain},
	{"a job goes with the change that it follows from", jobsWithChange},
	{"a removed server has no jobs", jobsOfRemovedServer},
	{"what each server told last is found", jobsTold},
	{"messages stand for themselves until they are read", jobsMessages},
	{"an account that reads nothing gets no more messages", jobsUnread},
	{"thousands at once", jobsMany},
}

// calls is a [store.Queue] that remembers.
type calls struct {
	inserted []int64 // in transactions, kept or not
	ready    []int64
	changed  []upkeep.Job
	refuse   error
}

func (c *calls) Insert(_ context.Context, tx store.Tx, ready []upkeep.Job) error {
	if tx.SQL() == nil {
		return errors.New("no transaction")
	}
	for _, job := range ready {
		c.inserted = append(c.inserted, job.ID)
	}
	return c.refuse
}

func (c *calls) Committed(news store.JobNews) {
	for _, job := range news.Ready {
		c.ready = append(c.ready, job.ID)
	}
	c.changed = append(c.changed, news.Changed...)
}

// take returns the jobs that became ready since the last time, and holds that
// each was called for in its transaction.
func (c *calls) take(t *testing.T) string {
	t.Helper()
	if !slices.Equal(c.inserted, c.ready) {
		t.Errorf("called for %v, ready are %v", c.inserted, c.ready)
	}
	text := fmt.Sprint(c.ready)
	c.inserted, c.ready = nil, nil
	return text
}

func newJob(server, kind, object string, generation int64, behind ...int) store.NewJob {
	return store.NewJob{Job: upkeep.Job{Account: "acme", Server: server, Kind: kind, Object: object, Generation: generation, Who: "tester"}, Behind: behind}
}

func withQueue(s *store.Store) *calls {
	c := &calls{}
	s.Wake(c)
	return c
}

func enqueue(t *testing.T, s *store.Store, jobs ...store.NewJob) []int64 {
	t.Helper()
	made, err := s.Enqueue(ctx, jobs...)
	must(t, err)
	var ids []int64
	for _, job := range made {
		ids = append(ids, job.ID)
	}
	return ids
}

func claim(t *testing.T, s *store.Store, server string, ids ...int64) (claimed []int64) {
	t.Helper()
	jobs, err := s.ClaimJobs(ctx, server, ids)
	must(t, err)
	for _, job := range jobs {
		if job.State != upkeep.JobRunning || job.Attempts == 0 || job.Started.IsZero() {
			t.Errorf("claimed %+v", job)
		}
		claimed = append(claimed, job.ID)
	}
	return claimed
}

func finish(t *testing.T, s *store.Store, state upkeep.JobState, why string, ids ...int64) {
	t.Helper()
	var ends []store.JobEnd
	for _, id := range ids {
		ends = append(ends, store.JobEnd{ID: id, State: state, Error: why})
	}
	must(t, s.FinishJobs(ctx, ends))
}

// jobStates are the states of jobs, such as "1:pending 2:done".
func jobStates(t *testing.T, s *store.Store) string {
	t.Helper()
	jobs, err := s.Jobs(ctx, store.JobFilter{})
	must(t, err)
	slices.Reverse(jobs)
	var texts []string
	for _, job := range jobs {
		texts = append(texts, fmt.Sprintf("%d:%s", job.ID, job.State))
	}
	return strings.Join(texts, " ")
}

func wantStates(t *testing.T, s *store.Store, want string) {
	t.Helper()
	if got := jobStates(t, s); got != want {
		t.Errorf("states are %s, want %s", got, want)
	}
}

func wantReady(t *testing.T, c *calls, want ...int64) {
	t.Helper()
	if want == nil {
		want = []int64{}
	}
	if got := c.take(t); got != fmt.Sprint(want) {
		t.Errorf("ready are %s, want %v", got, want)
	}
}

func jobsUnique(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	first := newJob("web1", upkeep.JobSiteApply, "site/a.test", 3)
	if ids := enqueue(t, s, first, newJob("web2", upkeep.JobSiteApply, "site/a.test", 3), newJob("web1", upkeep.JobSiteRemove, "site/a.test", 3)); fmt.Sprint(ids) != "[1 2 3]" {
		t.Errorf("ids %v", ids)
	}
	wantReady(t, c, 1, 2, 3)
	again := first
	again.Job.Generation, again.Payload, again.Job.Who = 5, []byte(`{"new":true}`), "another"
	older := first
	older.Job.Generation = 4
	for _, one := range []store.NewJob{again, older} {
		if ids := enqueue(t, s, one); ids[0] != 1 {
			t.Errorf("a second one got the id %d", ids[0])
		}
	}
	job, err := s.Job(ctx, 1)
	must(t, err)
	if job.Generation != 5 || job.Who != "another" {
		t.Errorf("the pending one is %+v", job)
	}
	wantReady(t, c) // it was called for before
	if claimed := claim(t, s, "web1", 1); len(claimed) != 1 {
		t.Fatal("not claimed")
	}
	// While one runs, the next is another job.
	if ids := enqueue(t, s, again); ids[0] == 1 {
		t.Error("a running job was taken for a pending one")
	}
}

func jobsGenerations(t *testing.T, open func() *store.Store) {
	s := open()
	last := int64(0)
	for range 3 {
		made, err := s.Enqueue(ctx, newJob("web1", upkeep.JobMkdir, "dir/home/x", 0), newJob("web1", upkeep.JobMkdir, "dir/home/y", 0))
		must(t, err)
		if made[0].Generation <= last || made[1].Generation <= made[0].Generation {
			t.Errorf("generations %d and %d after %d", made[0].Generation, made[1].Generation, last)
		}
		last = made[1].Generation
		s = open()
	}
}

func jobsListed(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	for i := range 20 {
		job := newJob(fmt.Sprintf("web%d", i%2), upkeep.JobSiteApply, fmt.Sprintf("site/%d.test", i%5), 1)
		if i%2 == 0 {
			job.Job.Kind = upkeep.JobSiteRemove
		}
		if i%4 == 0 {
			job.Job.Account = "other"
		}
		job.Job.Object += fmt.Sprint(i / 10)
		enqueue(t, s, job)
	}
	claim(t, s, "web0", 1, 3)
	finish(t, s, upkeep.JobFailed, "no", 1)
	for _, one := range []struct {
		filter store.JobFilter
		want   string
	}{
		{store.JobFilter{Limit: 3}, "20 19 18"},
		{store.JobFilter{Limit: 3, Before: 18}, "17 16 15"},
		{store.JobFilter{Account: "other"}, "17 13 9 5 1"},
		{store.JobFilter{Server: "web1", Limit: 2}, "20 18"},
		{store.JobFilter{Kind: upkeep.JobSiteRemove, Limit: 2}, "19 17"},
		{store.JobFilter{Kinds: []string{upkeep.JobSiteRemove, "image.list"}, Limit: 2}, "19 17"},
		{store.JobFilter{Kinds: []string{"image.list"}}, ""},
		{store.JobFilter{Object: "site/1.test0"}, "7 2"},
		{store.JobFilter{States: []upkeep.JobState{upkeep.JobFailed, upkeep.JobRunning}}, "3 1"},
		{store.JobFilter{Account: "other", States: []upkeep.JobState{upkeep.JobFailed}}, "1"},
		{store.JobFilter{Account: "acme' OR 1=1 --"}, ""},
		{store.JobFilter{Objects: []string{"site/1.test0", "site/2.test1", "site/none.test"}}, "18 13 7 2"},
		{store.JobFilter{Objects: []string{"site/0.test0", "site/2.test1"}, States: []upkeep.JobState{upkeep.JobFailed, upkeep.JobPending}}, "18 13 6 1"},
		{store.JobFilter{Account: "other", States: []upkeep.JobState{upkeep.JobFailed, upkeep.JobDone}}, "1"},
		{store.JobFilter{States: []upkeep.JobState{upkeep.JobFailed, upkeep.JobRunning, upkeep.JobPending, upkeep.JobDone}, Limit: 3, Before: 5}, "4 3 2"},
	} {
		jobs, err := s.Jobs(ctx, one.filter)
		must(t, err)
		var ids []string
		for _, job := range jobs {
			ids = append(ids, fmt.Sprint(job.ID))
		}
		if got := strings.Join(ids, " "); got != one.want {
			t.Errorf("%+v: %s, want %s", one.filter, got, one.want)
		}
	}
	if _, err := s.Jobs(ctx, store.JobFilter{Limit: -1}); err == nil {
		t.Error("a negative limit was taken")
	}
	if _, err := s.Job(ctx, 99); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("a job that is not there: %v", err)
	}
}

func jobsTold(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	put(t, s, upkeep.Server{Name: "web1", Roles: []string{upkeep.RoleWeb}}, upkeep.Server{Name: "web2", Roles: []string{upkeep.RoleWeb}})
	tell := func(server, kind string, state upkeep.JobState, result string) {
		t.Helper()
		ids := enqueue(t, s, newJob(server, kind, "server/"+server, 0))
		claim(t, s, server, ids...)
		must(t, s.FinishJobs(ctx, []store.JobEnd{{ID: ids[0], State: state, Result: []byte(result)}}))
	}
	tell("web1", upkeep.JobServerFacts, upkeep.JobDone, `{"a":1}`)
	tell("web1", upkeep.JobServerFacts, upkeep.JobDone, `{"a":2}`)
	tell("web1", upkeep.JobServerFacts, upkeep.JobFailed, `{"a":3}`)
	tell("web1", upkeep.JobServerFacts, upkeep.JobDone, ``)
	tell("web1", upkeep.JobImageList, upkeep.JobDone, `{"a":4}`)
	tell("gone", upkeep.JobServerFacts, upkeep.JobDone, `{"a":5}`)
	told, err := open().LastResults(ctx, upkeep.JobServerFacts)
	must(t, err)
	if len(told) != 1 || string(told["web1"]) != `{"a":2}` {
		t.Errorf("told is %s", told)
	}
}

func jobsGuarded(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobMkdir, "dir/home/a", 0), newJob("web1", upkeep.JobMkdir, "dir/home/b", 0))
	if got := claim(t, s, "web2", 1, 2); len(got) != 0 {
		t.Errorf("another server got %v", got)
	}
	finish(t, s, upkeep.JobDone, "", 1) // which was not started
	wantStates(t, s, "1:pending 2:pending")
	if got := claim(t, s, "web1", 2, 1, 7); fmt.Sprint(got) != "[1 2]" {
		t.Errorf("claimed %v", got)
	}
	if got := claim(t, s, "web1", 1, 2); len(got) != 0 {
		t.Errorf("claimed %v twice", got)
	}
	must(t, s.StepJobs(ctx, []store.JobStep{{ID: 1, Step: "half\x00way\xff", Percent: 50}, {ID: 9, Step: "nothing"}}))
	if job, err := s.Job(ctx, 1); err != nil || job.Percent != 50 || !strings.HasPrefix(job.Progress, "half") {
		t.Errorf("in progress: %+v, %v", job, err)
	}
	must(t, s.FinishJobs(ctx, []store.JobEnd{
		{ID: 1, State: upkeep.JobDone, Result: []byte(`{"a":1}`)}, {ID: 2, State: upkeep.JobFailed, Error: "no \x00 room", Field: "path"},
	}))
	finish(t, s, upkeep.JobFailed, "too late", 1)
	finish(t, s, upkeep.JobDone, "", 2)
	must(t, s.StepJobs(ctx, []store.JobStep{{ID: 1, Step: "late", Percent: 1}}))
	if got := claim(t, s, "web1", 1, 2); len(got) != 0 {
		t.Errorf("claimed %v after the end", got)
	}
	wantStates(t, s, "1:done 2:failed")
	one, err := s.Job(ctx, 1)
	must(t, err)
	two, err := s.Job(ctx, 2)
	must(t, err)
	if one.Percent != 100 || one.Progress != "" || string(one.Result) != `{"a":1}` || one.Finished.Before(one.Started) {
		t.Errorf("done: %+v", one)
	}
	if two.Error != "no \uFFFD room" || two.Field != "path" {
		t.Errorf("failed: %+v", two)
	}
	if all := events(t, s, store.EventFilter{Kind: upkeep.EventJob}); len(all) != 2 || all[1].What != "mkdir on web1 failed" || all[1].Who != "tester" {
		t.Errorf("events %+v", all)
	}
	if s.FinishJobs(ctx, []store.JobEnd{{ID: 1, State: upkeep.JobRunning}}) == nil {
		t.Error("running was taken for an end")
	}
}

func jobsOneObject(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1), newJob("web1", upkeep.JobSiteRemove, "site/a.test", 2),
		newJob("web2", upkeep.JobSiteApply, "site/a.test", 1), newJob("web1", upkeep.JobSiteApply, "site/b.test", 1))
	c.take(t)
	if got := claim(t, s, "web1", 1, 2, 4); fmt.Sprint(got) != "[1 4]" {
		t.Errorf("claimed %v", got)
	}
	if got := claim(t, s, "web2", 3); len(got) != 1 {
		t.Error("another server had to wait")
	}
	if got := claim(t, s, "web1", 2); len(got) != 0 {
		t.Error("two jobs about one object run")
	}
	finish(t, s, upkeep.JobDone, "", 4, 3)
	wantReady(t, c)
	finish(t, s, upkeep.JobFailed, "no", 1)
	wantReady(t, c, 2)
	if got := claim(t, s, "web1", 2); len(got) != 1 {
		t.Error("the second one cannot start")
	}
}

func jobsAfter(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	// Of three: the last waits for both others, and is given first.
	made, err := s.Enqueue(ctx, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1, 1, 2),
		newJob("files1", upkeep.JobSiteFiles, "site/a.test", 1), newJob("files2", upkeep.JobSiteFiles, "site/a.test", 1))
	must(t, err)
	if fmt.Sprint(made[0].After) != "[2 3]" {
		t.Errorf("waits for %v", made[0].After)
	}
	wantReady(t, c, 2, 3)
	if got := claim(t, s, "web1", 1); len(got) != 0 {
		t.Error("started before what has to be done first")
	}
	claim(t, s, "files1", 2)
	claim(t, s, "files2", 3)
	finish(t, s, upkeep.JobDone, "", 2)
	wantReady(t, c)
	if job, err := s.Job(ctx, 1); err != nil || fmt.Sprint(job.After) != "[3]" {
		t.Errorf("with one of both done it waits for %v, %v", job.After, err)
	}
	// The same once more waits for what is not done yet, and for the new one.
	enqueue(t, s, newJob("files1", upkeep.JobSiteFiles, "site/a.test", 2), newJob("web1", upkeep.JobSiteApply, "site/a.test", 2, 0))
	wantReady(t, c, 4)
	finish(t, s, upkeep.JobSuperseded, "", 3)
	wantReady(t, c)
	claim(t, s, "files1", 4)
	finish(t, s, upkeep.JobDone, "", 4)
	wantReady(t, c, 1)
	if got := claim(t, s, "web1", 1); len(got) != 1 {
		t.Error("cannot start")
	}
	if job, err := s.Job(ctx, 1); err != nil || fmt.Sprint(job.After) != "[2 3 4]" {
		t.Errorf("it came after %v, %v", job.After, err)
	}
	for name, jobs := range map[string][]store.NewJob{
		"itself":  {newJob("web9", upkeep.JobSiteApply, "site/z.test", 1, 0)},
		"nothing": {newJob("web9", upkeep.JobSiteApply, "site/z.test", 1, 7)},
	} {
		if _, err := s.Enqueue(ctx, jobs...); err == nil {
			t.Errorf("a job that waits for %s was made", name)
		}
	}
	if jobs, err := s.Jobs(ctx, store.JobFilter{Server: "web9"}); err != nil || len(jobs) != 0 {
		t.Errorf("refused jobs are there: %v, %v", jobs, err)
	}
}

// A removal that has not begun is not waited for: it sees by itself whether it is to
// be, and may be waiting for a server that is away.
func jobsAfterRemoval(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteRemove, "site/a.test", 1), newJob("web2", upkeep.JobSiteRemove, "site/a.test", 1), newJob("web1", upkeep.JobSiteApply, "site/b.test", 1))
	claim(t, s, "web1", 1, 3)
	c.take(t)
	sub := func(name string) {
		for _, server := range []string{"web1", "web2"} {
			job := newJob(server, upkeep.JobSiteApply, name, 1)
			job.BehindRemoval = "site/a.test"
			enqueue(t, s, job)
		}
	}
	sub("site/sub.a.test")
	wantReady(t, c, 5)
	finish(t, s, upkeep.JobDone, "", 1)
	wantReady(t, c, 4)
	sub("site/other.a.test")
	wantReady(t, c, 6, 7)
	// One that fails or is cancelled has taken nothing away.
	for i, end := range []upkeep.JobState{upkeep.JobFailed, upkeep.JobCancelled} {
		removal := enqueue(t, s, newJob("web1", upkeep.JobSiteRemove, "site/a.test", int64(2+i)))[0]
		claim(t, s, "web1", removal)
		c.take(t)
		job := newJob("web1", upkeep.JobSiteApply, fmt.Sprintf("site/%d.a.test", i), 1)
		job.BehindRemoval = "site/a.test"
		waits := enqueue(t, s, job)[0]
		wantReady(t, c)
		finish(t, s, end, "it stays", removal)
		wantReady(t, c, waits)
		if got := claim(t, s, "web1", waits); len(got) != 1 {
			t.Errorf("it cannot start after a removal that is %s", end)
		}
	}
}

func jobsAfterFailure(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	enqueue(t, s, newJob("files1", upkeep.JobSiteFiles, "site/a.test", 1), newJob("web1", upkeep.JobSiteApply, "site/a.test", 1, 0),
		newJob("web2", upkeep.JobSiteApply, "site/a.test", 1, 0), newJob("web0", upkeep.JobSiteRemove, "site/a.test", 1, 1, 2))
	claim(t, s, "files1", 1)
	finish(t, s, upkeep.JobFailed, "disk full", 1)
	wantStates(t, s, "1:failed 2:failed 3:failed 4:failed")
	job, err := s.Job(ctx, 2)
	must(t, err)
	if !strings.Contains(job.Error, "job 1") || !strings.Contains(job.Error, "disk full") || !strings.Contains(job.Error, "files1") {
		t.Errorf("error %q", job.Error)
	}
	if _, err := s.RetryJob(ctx, 2, "uid 7"); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("retrying what waits for a failure: %v", err)
	}
	c.take(t)
	_, err = s.RetryJob(ctx, 1, "uid 7")
	must(t, err)
	wantStates(t, s, "1:pending 2:pending 3:pending 4:pending")
	wantReady(t, c, 1)
	claim(t, s, "files1", 1)
	finish(t, s, upkeep.JobDone, "", 1)
	wantReady(t, c, 2, 3)
	if job, err := s.Job(ctx, 2); err != nil || job.Error != "" || !job.Finished.IsZero() {
		t.Errorf("after the retry: %+v, %v", job, err)
	}
	_, err = s.CancelJob(ctx, 2, "uid 0")
	must(t, err)
	wantStates(t, s, "1:done 2:cancelled 3:pending 4:cancelled")
}

func jobsRequeued(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1), newJob("web1", upkeep.JobSiteApply, "site/b.test", 1),
		newJob("web1", upkeep.JobSiteApply, "site/c.test", 1), newJob("web1", upkeep.JobSiteApply, "site/d.test", 1))
	claim(t, s, "web1", 1, 2, 3)
	finish(t, s, upkeep.JobDone, "", 3)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/b.test", 2)) // 5
	c.take(t)
	must(t, s.RequeueJobs(ctx, "web1", []int64{1, 2, 3, 4}, 1, 5, "no"))
	wantStates(t, s, "1:pending 2:superseded 3:done 4:pending 5:pending")
	slices.Sort(c.ready)
	slices.Sort(c.inserted)
	if got := c.take(t); got != "[1 4 5]" && got != "[1 4 5 5]" {
		t.Errorf("ready are %s", got)
	}
	job, err := s.Job(ctx, 1)
	must(t, err)
	if job.Attempts != 0 || !job.Started.IsZero() {
		t.Errorf("put back: %+v", job)
	}
	must(t, s.RequeueJobs(ctx, "web2", []int64{1}, 1, 1, "no"))
	wantStates(t, s, "1:pending 2:superseded 3:done 4:pending 5:pending")
}

func jobsPoison(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1))
	for i := range 3 {
		if got := claim(t, s, "web1", 1); len(got) != 1 {
			t.Fatalf("round %d: not claimed", i)
		}
		must(t, s.RequeueJobs(ctx, "web1", []int64{1}, 1, 3, "it broke each link"))
	}
	job, err := s.Job(ctx, 1)
	must(t, err)
	if job.State != upkeep.JobFailed || job.Error != "it broke each link" {
		t.Errorf("poison: %+v", job)
	}
	_, err = s.RetryJob(ctx, 1, "uid 7")
	must(t, err)
	claimed, err := s.ClaimJobs(ctx, "web1", []int64{1})
	if err != nil || len(claimed) != 1 || claimed[0].Drops != 0 {
		t.Errorf("after a retry: %+v, %v", claimed, err)
	}
}

func jobsRetryCancel(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1), newJob("web1", upkeep.JobSiteApply, "site/b.test", 1),
		newJob("", upkeep.JobNotification, "site/a.test", 0))
	wantReady(t, c, 1, 2)
	if job, err := s.CancelJob(ctx, 1, "uid 7"); err != nil || job.State != upkeep.JobCancelled || job.Error != "cancelled by uid 7" {
		t.Errorf("cancelled: %+v, %v", job, err)
	}
	var hinted *upkeep.HintError
	if _, err := s.CancelJob(ctx, 1, "uid 7"); !errors.Is(err, upkeep.ErrConflict) || !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "upkeep job retry 1") {
		t.Errorf("cancelled twice: %v", err)
	}
	if _, err := s.RetryJob(ctx, 2, "uid 7"); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("a pending one was retried: %v", err)
	}
	claim(t, s, "web1", 2)
	if job, err := s.CancelJob(ctx, 2, "uid 7"); err != nil || job.State != upkeep.JobRunning {
		t.Errorf("a running one: %+v, %v", job, err)
	}
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 2)) // 4
	if _, err := s.RetryJob(ctx, 1, "uid 7"); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("retried beside a pending one: %v", err)
	}
	c.take(t)
	if job, err := s.ReadJob(ctx, 3, "uid 7"); err != nil || job.State != upkeep.JobDone {
		t.Errorf("read: %+v, %v", job, err)
	}
	if _, err := s.ReadJob(ctx, 4, "uid 7"); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("read what is no message: %v", err)
	}
	wantStates(t, s, "1:cancelled 2:running 3:done 4:pending")
	for _, call := range []func() error{
		func() error { _, err := s.RetryJob(ctx, 99, "uid 7"); return err },
		func() error { _, err := s.CancelJob(ctx, 99, ""); return err },
		func() error { _, err := s.ReadJob(ctx, 99, "uid 7"); return err },
	} {
		if err := call(); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("a job that is not there: %v", err)
		}
	}
}

func jobsPruned(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	var ids []int64
	for i := range 5 {
		ids = append(ids, enqueue(t, s, newJob("web1", upkeep.JobMkdir, fmt.Sprintf("dir/home/%d", i), 0))...)
	}
	claim(t, s, "web1", 1, 2, 3)
	finish(t, s, upkeep.JobDone, "", 1)
	finish(t, s, upkeep.JobFailed, "no", 2)
	later := time.Now().Add(time.Hour)
	if n, err := s.PruneJobs(ctx, time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("%d went, %v", n, err)
	}
	if n, err := s.PruneJobs(ctx, later, time.Now().Add(-time.Hour)); n != 1 || err != nil {
		t.Errorf("%d went, %v", n, err)
	}
	wantStates(t, s, "2:failed 3:running 4:pending 5:pending")
	if n, err := s.PruneJobs(ctx, later, later); n != 1 || err != nil {
		t.Errorf("%d went, %v", n, err)
	}
	wantStates(t, s, "3:running 4:pending 5:pending")
	if next := enqueue(t, s, newJob("web1", upkeep.JobMkdir, "dir/home/9", 0)); next[0] != ids[4]+1 {
		t.Errorf("the next id is %d", next[0])
	}
}

func jobsWithChange(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	s.Follow(follower(func(ctx context.Context, tx store.Tx, changes []store.Altered) error {
		_, err := tx.Enqueue(ctx, []store.NewJob{newJob("web1", upkeep.JobSiteApply, changes[0].Ref.String(), changes[0].Generation)})
		return err
	}))
	put(t, s, zone("a.test"))
	wantReady(t, c, 1)
	if len(c.changed) != 1 || c.changed[0].Object != "zone/a.test" {
		t.Errorf("told of %+v", c.changed)
	}
	c.refuse = errors.New("no queue")
	if _, err := s.Apply(ctx, "tester", store.Change{Put: []upkeep.Object{zone("b.test")}}); !errors.Is(err, c.refuse) {
		t.Errorf("without a queue: %v", err)
	}
	if got := generations(t, s); got != "zone/a.test:1" {
		t.Errorf("a change without its job: %s", got)
	}
	wantStates(t, s, "1:pending")
	if len(c.ready) != 0 || len(c.changed) != 1 {
		t.Error("told of what was not kept")
	}
}

func jobsOfRemovedServer(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1), newJob("web2", upkeep.JobSiteApply, "site/a.test", 1),
		newJob("web2", upkeep.JobSiteApply, "site/b.test", 1))
	claim(t, s, "web2", 3)
	must(t, s.FinishJobs(ctx, []store.JobEnd{{ID: 3, State: upkeep.JobDone, Sites: []store.SiteState{{Site: "b.test", State: "live", Generation: 1}}}}))
	s.Follow(follower(func(ctx context.Context, tx store.Tx, _ []store.Altered) error { return tx.CancelServer(ctx, "web2") }))
	put(t, s, zone("a.test"))
	wantStates(t, s, "1:pending 2:cancelled 3:done")
	if states, err := s.SiteStates(ctx, ""); err != nil || len(states) != 0 {
		t.Errorf("it is said to serve %v, %v", states, err)
	}
}

func jobsMany(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	const n = 1203
	var jobs []store.NewJob
	for i := range n {
		job := newJob("web1", upkeep.JobSiteApply, fmt.Sprintf("site/%d.test", i), 1)
		if i > 0 {
			job.Behind = []int{0}
		}
		jobs = append(jobs, job)
	}
	ids := enqueue(t, s, jobs...)
	if !slices.IsSorted(ids) || len(ids) != n {
		t.Error("ids are not in order")
	}
	claim(t, s, "web1", ids[0])
	finish(t, s, upkeep.JobDone, "", ids[0])
	if got := claim(t, s, "web1", ids...); len(got) != n-1 || len(c.ready) != n {
		t.Errorf("%d claimed, %d ready", len(got), len(c.ready))
	}
	finish(t, s, upkeep.JobDone, "", ids...)
	if jobs, err := s.Jobs(ctx, store.JobFilter{States: []upkeep.JobState{upkeep.JobDone}}); err != nil || len(jobs) != n {
		t.Errorf("%d done, %v", len(jobs), err)
	}
	if s.FinishJobs(cancelled(), []store.JobEnd{{ID: 1, State: upkeep.JobDone}}) == nil {
		t.Error("a cancelled change was made")
	}
}
