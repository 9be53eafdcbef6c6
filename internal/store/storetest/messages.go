package storetest

import (
	"errors"
	"fmt"
	"testing"

	"upkeep"
	"upkeep/internal/store"
)

// says is a message for an account about an object.
func says(account, object, text string) store.NewJob {
	return store.NewJob{
		Job:     upkeep.Job{Account: account, Kind: upkeep.JobNotification, Object: object, Who: "tester"},
		Payload: fmt.Appendf(nil, `{"account":%q,"text":%q}`, account, text),
	}
}

func jobsMessages(t *testing.T, open func() *store.Store) {
	s := open()
	first := enqueue(t, s, says("acme", "account/acme", "one"), says("acme", "account/acme", "two"), says("acme", "account/acme", "one"))
	if first[0] == first[1] || first[0] != first[2] {
		t.Fatalf("one, two and one are jobs %v", first)
	}
	again := enqueue(t, s, newJob("web1", upkeep.JobSiteApply, "site/a.test", 1), says("acme", "account/acme", "two"), says("acme", "site/a.test", "two"),
		says("beta", "account/acme", "two"), says("acme", "account/acme", "three"))
	if again[1] != first[1] || again[2] == first[1] || again[3] == first[1] || again[3] == again[2] {
		t.Errorf("the same again is not one, or another is: %v, then %v", first, again)
	}
	texts := func() (texts []string) {
		jobs, err := s.Jobs(ctx, store.JobFilter{Account: "acme", Object: "account/acme", States: []upkeep.JobState{upkeep.JobPending}})
		must(t, err)
		for _, job := range jobs {
			texts = append(texts, job.Text)
		}
		return texts
	}
	if got := fmt.Sprint(texts()); got != "[three two one]" {
		t.Errorf("acme has to read %s", got)
	}
	// The number that people see is of their own messages: it does not tell how many
	// others get.
	for account, want := range map[string]int64{"beta": 1, "acme": 6} {
		jobs, err := s.Jobs(ctx, store.JobFilter{Account: account, Limit: 1})
		must(t, err)
		if len(jobs) != 1 || jobs[0].Generation != want {
			t.Errorf("the newest of %s is %+v, want number %d", account, jobs, want)
		}
	}
	// Who has read one has read that one, and may be told it anew.
	_, err := s.ReadJob(ctx, first[0], "user acme")
	must(t, err)
	if got := fmt.Sprint(texts()); got != "[three two]" {
		t.Errorf("after one was read: %s", got)
	}
	if anew := enqueue(t, s, says("acme", "account/acme", "one")); anew[0] == first[0] {
		t.Error("what was read stands for what was said after it")
	}
	_, err = s.CancelJob(ctx, first[1], "uid 0")
	must(t, err)
	if _, err := s.RetryJob(ctx, first[1], "uid 0"); err != nil {
		t.Errorf("another message is in the way of one that was taken back: %v", err)
	}
	if got := fmt.Sprint(texts()); got != "[one three two]" {
		t.Errorf("in the end: %s", got)
	}
}

func jobsUnread(t *testing.T, open func() *store.Store) {
	s := open()
	ask := func(text string) (upkeep.Job, error) { return s.AskFor(ctx, says("acme", "account/acme", text)) }
	var last upkeep.Job
	for i := range store.MaxUnread {
		job, err := ask(fmt.Sprint(i))
		must(t, err)
		last = job
	}
	var hinted *upkeep.HintError
	if _, err := ask("too many"); !errors.Is(err, upkeep.ErrConflict) || !errors.As(err, &hinted) {
		t.Errorf("one more: %v", err)
	}
	if job, err := ask(last.Text); err != nil || job.ID != last.ID {
		t.Errorf("what is there already, once more: %+v, %v", job, err)
	}
	if _, err := s.AskFor(ctx, says("beta", "account/beta", "hello")); err != nil {
		t.Errorf("another account: %v", err)
	}
	_, err := s.ReadJob(ctx, last.ID, "user acme")
	must(t, err)
	if _, err := ask("now"); err != nil {
		t.Errorf("after one was read: %v", err)
	}
}
