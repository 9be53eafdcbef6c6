package storetest

import (
	"testing"

	"upkeep"
	"upkeep/internal/store"
)

// refuse ends jobs that failed because another site has one of their names.
func refuse(t *testing.T, s *store.Store, holder string, ids ...int64) {
	t.Helper()
	var ends []store.JobEnd
	for _, id := range ids {
		ends = append(ends, store.JobEnd{ID: id, State: upkeep.JobFailed, Error: "the name is taken", Holder: holder})
	}
	must(t, s.FinishJobs(ctx, ends))
}

// jobsHeld is about jobs that failed because another site had one of their names.
func jobsHeld(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1), newJob("web1", upkeep.JobSiteApply, "site/taker.test", 1),
		newJob("web2", upkeep.JobSiteApply, "site/taker.test", 1), newJob("web0", upkeep.JobSiteRemove, "site/taker.test", 1, 1, 2),
		newJob("web1", upkeep.JobSiteApply, "site/b.test", 1))
	claim(t, s, "web1", 2, 5)
	claim(t, s, "web2", 3)
	refuse(t, s, "site/a.test", 2, 3)
	wantStates(t, s, "1:pending 2:failed 3:failed 4:failed 5:running")

	finish(t, s, upkeep.JobDone, "", 5) // another one
	claim(t, s, "web1", 1)
	finish(t, s, upkeep.JobFailed, "no luck", 1)
	wantStates(t, s, "1:failed 2:failed 3:failed 4:failed 5:done")
	c.take(t)
	_, err := s.RetryJob(ctx, 1, "uid 7")
	must(t, err)
	claim(t, s, "web1", 1)
	c.take(t)
	finish(t, s, upkeep.JobDone, "", 1) // there, and not on the other server
	wantStates(t, s, "1:done 2:pending 3:failed 4:pending 5:done")
	wantReady(t, c, 2)
	if job, err := s.Job(ctx, 2); err != nil || job.Error != "" || !job.Finished.IsZero() {
		t.Errorf("tried again: %+v, %v", job, err)
	}

	// One that has been done goes on without being asked twice, and so does what was
	// waiting for it.
	claim(t, s, "web1", 2)
	finish(t, s, upkeep.JobDone, "", 2)
	enqueue(t, s, newJob("web2", upkeep.JobSiteRemove, "site/a.test", 2)) // 6
	claim(t, s, "web2", 6)
	c.take(t)
	finish(t, s, upkeep.JobDone, "", 6)
	wantStates(t, s, "1:done 2:done 3:pending 4:pending 5:done 6:done")
	wantReady(t, c, 3)
}

// jobsHeldNewer is about jobs whose place a newer one has taken since they failed.
func jobsHeldNewer(t *testing.T, open func() *store.Store) {
	s := open()
	withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/taker.test", 1), newJob("web1", upkeep.JobSiteApply, "site/other.test", 1), newJob("web1", upkeep.JobSiteApply, "site/a.test", 1))
	claim(t, s, "web1", 1, 2)
	refuse(t, s, "site/a.test", 1, 2)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/taker.test", 2), newJob("web1", upkeep.JobSiteApply, "site/other.test", 2)) // 4, 5
	claim(t, s, "web1", 4)
	finish(t, s, upkeep.JobFailed, "something else", 4)
	claim(t, s, "web1", 3)
	finish(t, s, upkeep.JobDone, "", 3)
	wantStates(t, s, "1:failed 2:failed 3:done 4:failed 5:pending")
}

// jobsHeldLate is about ends that are heard of after that of the site which had the
// name.
func jobsHeldLate(t *testing.T, open func() *store.Store) {
	s := open()
	c := withQueue(s)
	enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1), newJob("web1", upkeep.JobSiteApply, "site/taker.test", 1), newJob("web2", upkeep.JobSiteApply, "site/taker.test", 1))
	claim(t, s, "web1", 1, 2)
	claim(t, s, "web2", 3)
	finish(t, s, upkeep.JobDone, "", 1)
	c.take(t)
	refuse(t, s, "site/a.test", 2, 3)
	wantStates(t, s, "1:done 2:pending 3:failed")
	wantReady(t, c, 2)
	claim(t, s, "web1", 2) // after the other: it has the name still
	refuse(t, s, "site/a.test", 2)
	wantStates(t, s, "1:done 2:failed 3:failed")

	// Both at once, and two that want each other's names, come to an end.
	enqueue(t, s, newJob("web3", upkeep.JobSiteApply, "site/a.test", 1), newJob("web3", upkeep.JobSiteApply, "site/taker.test", 1)) // 4, 5
	claim(t, s, "web3", 4, 5)
	must(t, s.FinishJobs(ctx, []store.JobEnd{{ID: 5, State: upkeep.JobFailed, Error: "the name is taken", Holder: "site/a.test"}, {ID: 4, State: upkeep.JobFailed, Error: "the name is taken", Holder: "site/taker.test"}}))
	wantStates(t, s, "1:done 2:failed 3:failed 4:failed 5:failed")
	_, err := s.RetryJob(ctx, 4, "uid 7")
	must(t, err)
	claim(t, s, "web3", 4)
	finish(t, s, upkeep.JobDone, "", 4)
	wantStates(t, s, "1:done 2:failed 3:failed 4:done 5:pending")
}
