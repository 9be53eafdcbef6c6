package job_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

var all = store.JobFilter{}

type counts = map[upkeep.JobState]int

func web(f store.JobFilter) store.JobFilter {
	f.Server = "web1"
	return f
}

// A site's files come first, then its web servers, though these were there first;
// what each is sent is made from what is declared.
func TestSite(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		done := func(j link.Job) link.Outcome {
			result, err := json.Marshal(task.SiteResult{Generation: j.Generation, URL: "http://" + j.Server, DocumentRoot: "/home/acme/a.test/htdocs"})
			if err != nil {
				t.Error(err)
			}
			return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: result}
		}
		one, two := connect(t, c, "web1", done), connect(t, c, "web2", done)
		s := site("a.test", "web1", "web2")
		s.Files = "files1"
		c.put(t, s)
		c.until(t, store.JobFilter{Kind: upkeep.JobSiteApply}, counts{upkeep.JobPending: 2})
		if got := append(one.sent(), two.sent()...); len(got) != 0 {
			t.Errorf("sent before the files are there: %v", got)
		}
		files := connect(t, c, "files1", nil)
		c.until(t, all, counts{upkeep.JobDone: 3, upkeep.JobPending: 1}) // the message
		if diff := cmp.Diff([]string{"site.files site/a.test 1"}, files.sent()); diff != "" {
			t.Error(diff)
		}
		var order task.SiteApply
		if err := json.Unmarshal(two.jobs[0].Payload, &order); err != nil {
			t.Error(err)
		}
		want := task.SiteApply{Site: s, Generation: 1, Tenant: task.Tenant{Account: "acme", UID: 20001}, Batch: order.Batch, BatchSize: 1, Hold: 500}
		if diff := cmp.Diff(want, order, cmp.Comparer(func(a, b upkeep.Network) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		status, err := c.SiteStatus(context.Background(), "a.test")
		if err != nil || status.State != upkeep.SiteLive || len(status.Servers) != 2 || status.Servers[1].URL != "http://web2" || status.DocumentRoot == "" {
			t.Errorf("status %+v, %v", status, err)
		}
		// The whole account is suspended: the sites keep their generation, and are
		// sent all the same.
		c.put(t, upkeep.Account{Name: "acme", UID: 20001, Suspended: true})
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			status, err := c.SiteStatus(context.Background(), "a.test")
			return err == nil && status.State == upkeep.SiteSuspended && status.Servers[0].State == upkeep.SiteSuspended, fmt.Sprint(status, err)
		})
		if pending, err := c.Pending(context.Background(), "acme"); err != nil || len(pending) != 2 || pending[0].Text == "" {
			t.Errorf("what acme sees: %+v, %v", pending, err)
		}
	})
}

// An agent of before payloads were packed is sent them as it can read them.
func TestAgentOfAnOlderBuild(t *testing.T) {
	c := start(t, "sqlite:"+filepath.Join(t.TempDir(), "upkeep.db"))
	s := site("a.test", "web1")
	for i := range 500 {
		s.Redirects = append(s.Redirects, upkeep.Redirect{From: fmt.Sprintf("/%d/%s", i, strings.Repeat("moved-away/", 10)), To: "/"})
	}
	c.put(t, s)
	for protocol := range link.Protocol + 1 {
		ours, theirs := link.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- c.Serve(context.Background(), "web1", link.Hello{Version: "other", Protocol: protocol}, ours)
		}()
		message, err := theirs.Receive(t.Context())
		if err != nil || message.Job == nil {
			t.Fatalf("got %+v, %v", message, err)
		}
		if packed := bytes.Contains(message.Job.Body, []byte(`"packed":`)); packed != (protocol > 0) {
			t.Errorf("with protocol %d it travels packed: %v", protocol, packed)
		}
		_ = theirs.Close()
		<-served // the job is put back, and sent again
	}
}

// What is sent together says so, and one that is refused stops no other.
func TestRefusedJob(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		var sites []upkeep.Object
		for i := range 30 {
			sites = append(sites, site(fmt.Sprintf("s%d.test", i), "web1"))
		}
		c.put(t, sites...)
		a := connect(t, c, "web1", func(j link.Job) link.Outcome {
			if j.Object == "site/s7.test" {
				return link.Outcome{ID: j.ID, State: upkeep.JobFailed, Error: "AH00526: Syntax error", Field: "headers"}
			}
			return link.Outcome{ID: j.ID, State: upkeep.JobDone}
		})
		c.until(t, web(all), counts{upkeep.JobDone: 29, upkeep.JobFailed: 1})
		// They are claimed all at a time, or in a few goes on a busy machine; each go
		// is a batch that says how many it has.
		sizes, members := map[int64]int{}, map[int64]int{}
		a.mu.Lock()
		for _, j := range a.jobs {
			var order task.SiteApply
			if err := json.Unmarshal(j.Payload, &order); err != nil {
				t.Fatal(err)
			}
			sizes[order.Batch] = order.BatchSize
			members[order.Batch]++
		}
		a.mu.Unlock()
		if !maps.Equal(sizes, members) || len(sizes) > 15 {
			t.Errorf("batches said to be of %v have %v", sizes, members)
		}
		failed, err := c.List(context.Background(), store.JobFilter{States: []upkeep.JobState{upkeep.JobFailed}})
		if err != nil || len(failed) != 1 || failed[0].Field != "headers" || failed[0].Error != "AH00526: Syntax error" || failed[0].Attempts != 1 {
			t.Errorf("failed: %+v, %v", failed, err)
		}
		status, err := c.SiteStatus(context.Background(), "s7.test")
		if err != nil || status.State != upkeep.SiteFailed || !strings.Contains(status.Reason, "AH00526") {
			t.Errorf("status %+v, %v", status, err)
		}
		if _, err := c.Retry(context.Background(), failed[0].ID, "uid 0"); err != nil {
			t.Error(err)
		}
		c.until(t, web(all), counts{upkeep.JobDone: 29, upkeep.JobFailed: 1})
		if n := len(a.sent()); n != 31 {
			t.Errorf("%d were sent", n)
		}
	})
}

// A server that was away is sent the newest of each thing alone.
func TestOffline(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		for i := range 5 {
			s := site("a.test", "web1")
			s.Methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE"}[:i+1]
			c.put(t, s, site(fmt.Sprintf("s%d.test", i), "web1"))
		}
		gone := site("gone.test", "web1")
		c.put(t, gone)
		if _, err := c.store.Apply(context.Background(), "uid 0", store.Change{Delete: []store.Ref{store.RefOf(gone)}}); err != nil {
			t.Fatal(err)
		}
		c.put(t, site("s4.test", "web2"))
		a := connect(t, c, "web1", nil)
		c.until(t, web(all), counts{upkeep.JobDone: 6, upkeep.JobSuperseded: 2, upkeep.JobPending: 1})
		got := a.sent()
		slices.Sort(got)
		want := []string{"site.apply site/a.test 5", "site.apply site/s0.test 1", "site.apply site/s1.test 1", "site.apply site/s2.test 1",
			"site.apply site/s3.test 1", "site.remove site/gone.test 2"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		// It is taken from there once it answers on the other.
		connect(t, c, "web2", nil)
		c.until(t, web(all), counts{upkeep.JobDone: 7, upkeep.JobSuperseded: 2})
	})
}

// A link that breaks costs nothing but time.
func TestBrokenLinks(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		const n = 60
		var jobs []store.NewJob
		for i := range n {
			jobs = append(jobs, mkdir(i))
		}
		if _, err := c.store.Enqueue(context.Background(), jobs...); err != nil {
			t.Fatal(err)
		}
		var finished atomic.Int64
		for range 2 {
			// Of each three jobs one is told, and then the link goes.
			var a *agent
			var come atomic.Int64
			ready := make(chan struct{})
			a = connect(t, c, "web1", func(j link.Job) link.Outcome {
				<-ready
				if i := come.Add(1); i%3 != 0 || i > 30 {
					if i == 40 {
						_ = a.conn.Close()
					}
					return link.Outcome{}
				}
				finished.Add(1)
				return link.Outcome{ID: j.ID, State: upkeep.JobDone}
			})
			close(ready)
			if err := <-a.over; !errors.Is(err, link.ErrClosed) {
				t.Errorf("the link ended with: %v", err)
			}
		}
		testkit.Eventually(t, 10*time.Second, func() (bool, string) { // the last outcomes are being written down
			got := c.states(t, web(all))
			return got[upkeep.JobRunning] == 0 && got[upkeep.JobFailed] == 0, fmt.Sprintf("without a link: %v", got)
		})
		connect(t, c, "web1", nil)
		c.until(t, web(all), counts{upkeep.JobDone: n})
		list, err := c.List(context.Background(), all)
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range list {
			if job.Attempts > 1 {
				t.Errorf("job %d has %d attempts", job.ID, job.Attempts)
			}
		}
	})
}

// What an agent tells of a job as it was sent before the link broke is not taken for
// the end of what was sent since under the same id: the site would be called by what
// it is not.
func TestOutcomeOfAnOlderSending(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		nothing := func(link.Job) link.Outcome { return link.Outcome{} }
		first := connect(t, c, "web1", nothing)
		a := site("a.test", "web1")
		c.put(t, a)
		testkit.Eventually(t, 10*time.Second, func() (bool, string) { return len(first.sent()) == 1, "nothing was sent" })
		_ = first.conn.Close()
		<-first.over
		a.Aliases = []string{"b.test"}
		c.put(t, a)
		second := connect(t, c, "web1", nothing)
		testkit.Eventually(t, 10*time.Second, func() (bool, string) { return len(second.sent()) == 1, "nothing was sent again" })
		if first.jobs[0].ID != second.jobs[0].ID || second.jobs[0].Generation <= first.jobs[0].Generation {
			t.Fatalf("sent %v, then %v", first.sent(), second.sent())
		}
		for _, sent := range []link.Job{first.jobs[0], second.jobs[0]} {
			result := fmt.Appendf(nil, `{"name":"a.test","generation":%d}`, sent.Generation)
			if err := second.conn.Send(context.Background(), link.Message{Outcome: &link.Outcome{ID: sent.ID, State: upkeep.JobDone, Result: result}}); err != nil {
				t.Fatal(err)
			}
		}
		c.until(t, web(all), counts{upkeep.JobDone: 1})
		status, err := c.SiteStatus(context.Background(), "a.test")
		if err != nil || status.State != upkeep.SiteLive || status.Servers[0].Generation != second.jobs[0].Generation {
			t.Errorf("the site is %+v, %v", status, err)
		}
	})
}

// A job that breaks every link fails in the end, alone; the rest is done.
func TestPoison(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		const n = 20
		var jobs []store.NewJob
		for i := range n {
			jobs = append(jobs, mkdir(i))
		}
		if _, err := c.store.Enqueue(context.Background(), jobs...); err != nil {
			t.Fatal(err)
		}
		for round := 0; c.states(t, web(all))[upkeep.JobPending] > 0; round++ {
			if round > 20 {
				t.Fatalf("still %v", c.states(t, web(all)))
			}
			var a *agent
			ready := make(chan struct{})
			a = connect(t, c, "web1", func(j link.Job) link.Outcome {
				<-ready
				if strings.HasSuffix(j.Object, "/d7") {
					_ = a.conn.Close()
					return link.Outcome{}
				}
				if round < 3 {
					return link.Outcome{} // it dies before it is done with anything
				}
				return link.Outcome{ID: j.ID, State: upkeep.JobDone}
			})
			close(ready)
			testkit.Eventually(t, 20*time.Second, func() (bool, string) {
				states := c.states(t, web(all))
				return len(a.over) > 0 || states[upkeep.JobPending]+states[upkeep.JobRunning] == 0, fmt.Sprint(states)
			})
		}
		if got := c.states(t, web(all)); got[upkeep.JobDone] != n-1 || got[upkeep.JobFailed] != 1 {
			t.Errorf("in the end: %v", got)
		}
		failed, err := c.List(context.Background(), store.JobFilter{States: []upkeep.JobState{upkeep.JobFailed}})
		if err != nil || len(failed) != 1 || failed[0].Object != "dir/home/acme/d7" || !strings.Contains(failed[0].Error, "5 times") {
			t.Errorf("failed: %+v, %v", failed, err)
		}
	})
}

// Poisoned rows fail by themselves, in words.
func TestPoisonedRows(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		ctx := context.Background()
		c := start(t, dsn)
		bad := func(kind, object, payload string) store.NewJob {
			return store.NewJob{Job: upkeep.Job{Account: "acme", Server: "web1", Kind: kind, Object: object, Who: "nobody"}, Payload: []byte(payload)}
		}
		if _, err := c.store.Enqueue(ctx, bad(upkeep.JobMkdir, "dir/1", "{"), bad(upkeep.JobMkdir, "dir/2", `{"root":"home","path":"../../etc","owner":"root","group":"root","mode":"0777"}`),
			bad("shell", "rm", `{"run":"rm -rf /"}`), bad(upkeep.JobSiteApply, "site/none.test", ""), bad(upkeep.JobSiteApply, "", ""), bad(upkeep.JobSiteSync, "sites", "[]"),
			bad(upkeep.JobSiteRemove, "site/x.test", ""), bad(upkeep.JobUserEnsure, "account/ghost", ""), mkdir(1)); err != nil {
			t.Fatal(err)
		}
		a := connect(t, c, "web1", nil)
		c.until(t, web(all), counts{upkeep.JobDone: 1, upkeep.JobFailed: 6, upkeep.JobSuperseded: 2})
		if got := a.sent(); len(got) != 1 {
			t.Errorf("sent %v", got)
		}
		jobs, err := c.List(ctx, store.JobFilter{States: []upkeep.JobState{upkeep.JobFailed}})
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			if job.Error == "" {
				t.Errorf("job %d does not say why it failed", job.ID)
			}
		}
	})
}

// An agent speaks of its own jobs, and is asked to give up what is cancelled.
func TestStrangeAgents(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		ctx := context.Background()
		c := start(t, dsn)
		silent := connect(t, c, "web1", func(link.Job) link.Outcome { return link.Outcome{} })
		liar := connect(t, c, "web2", nil)
		made, err := c.store.Enqueue(ctx, mkdir(1))
		if err != nil {
			t.Fatal(err)
		}
		id := made[0].ID
		c.until(t, web(all), counts{upkeep.JobRunning: 1})
		jobs, stop := c.Watch()
		defer stop()
		for _, message := range []link.Message{
			{Outcome: &link.Outcome{ID: id, State: upkeep.JobDone}}, {Progress: &link.Progress{ID: id, Step: "lies", Percent: 99}},
			{Outcome: &link.Outcome{ID: 99999, State: upkeep.JobDone}}, {Hello: &link.Hello{Version: "liar"}},
		} {
			if err := liar.conn.Send(ctx, message); err != nil {
				t.Fatal(err)
			}
		}
		testkit.Eventually(t, 10*time.Second, func() (bool, string) { return c.Links()["web2"].Hello.Version == "liar", "no hello" })
		if err := silent.conn.Send(ctx, link.Message{Progress: &link.Progress{ID: id, Step: "half way", Percent: 50}}); err != nil {
			t.Fatal(err)
		}
		job := <-jobs
		for job.State == upkeep.JobRunning && job.Progress == "" { // news of its start, which may come late
			job = <-jobs
		}
		if job.State != upkeep.JobRunning || job.Progress != "half way" || job.Percent != 50 {
			t.Errorf("heard of %+v", job)
		}
		if job, err := c.Cancel(ctx, id, "uid 0"); err != nil || job.State != upkeep.JobRunning {
			t.Errorf("cancelling: %+v, %v", job, err)
		}
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			silent.mu.Lock()
			defer silent.mu.Unlock()
			return slices.Contains(silent.cancelled, id), fmt.Sprint(silent.cancelled)
		})
		if err := silent.conn.Send(ctx, link.Message{Outcome: &link.Outcome{ID: id, State: upkeep.JobCancelled}}); err != nil {
			t.Fatal(err)
		}
		c.until(t, web(all), counts{upkeep.JobCancelled: 1})
	})
}

// A second link to a server takes the place of the first.
func TestSecondLink(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		ctx := context.Background()
		c := start(t, dsn)
		first := connect(t, c, "web1", func(link.Job) link.Outcome { return link.Outcome{} })
		if _, err := c.store.Enqueue(ctx, mkdir(1)); err != nil {
			t.Fatal(err)
		}
		c.until(t, web(all), counts{upkeep.JobRunning: 1})
		connect(t, c, "web1", nil)
		if err := <-first.over; !errors.Is(err, link.ErrClosed) {
			t.Errorf("the first link ended with: %v", err)
		}
		c.until(t, web(all), counts{upkeep.JobDone: 1})
		if !c.Links()["web1"].Connected {
			t.Error("the second link is not there")
		}
	})
}

func TestRun(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		ctx := context.Background()
		c := start(t, dsn)
		c.put(t, upkeep.Server{Name: "dns1", Roles: []string{upkeep.RoleDNS}})
		good := `{"root":"home","path":"acme/x","owner":"acme","group":"acme","mode":"0750"}`
		for name, test := range map[string]struct {
			kind, payload, server string
			want                  error
		}{
			"a kind that is none":       {"shell", `{}`, "web1", nil},
			"a field that is none":      {upkeep.JobMkdir, `{"rot":"home"}`, "web1", nil},
			"a path that leads out":     {upkeep.JobMkdir, `{"root":"home","path":"../x","owner":"acme","group":"acme","mode":"0750"}`, "web1", nil},
			"a server without the role": {upkeep.JobMkdir, good, "dns1", nil},
			"a message to a server":     {upkeep.JobNotification, `{"account":"acme","text":"x"}`, "web1", nil},
			"a server that is none":     {upkeep.JobMkdir, good, "web9", upkeep.ErrNotFound},
			"what follows from a site":  {upkeep.JobSiteApply, `{}`, "web1", upkeep.ErrRefused},
		} {
			_, err := c.Run(ctx, test.kind, []byte(test.payload), test.server, "uid 0")
			var invalid *upkeep.InvalidError
			if err == nil || test.want != nil && !errors.Is(err, test.want) || test.want == nil && !errors.As(err, &invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if jobs := c.states(t, web(all)); len(jobs) != 0 {
			t.Errorf("refused jobs are there: %v", jobs)
		}
		first, err := c.Run(ctx, upkeep.JobMkdir, []byte(good), "web1", "uid 0")
		if err != nil || first.Account != "acme" || first.Object != "dir/home/acme/x" {
			t.Fatalf("%+v, %v", first, err)
		}
		if _, err := c.Run(ctx, upkeep.JobUserEnsure, []byte(`{"account":"acme"}`), "dns1", "uid 0"); err != nil {
			t.Error(err)
		}
		if _, err := c.Run(ctx, upkeep.JobNotification, []byte(`{"account":"acme","text":"hello"}`), "", "uid 0"); err != nil {
			t.Error(err)
		}
		a := connect(t, c, "web1", func(j link.Job) link.Outcome {
			return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: []byte(`{"sites":[{"name":"a.test","generation":1,"url":"http://x","document_root":"/x"}]}`)}
		})
		c.until(t, web(all), counts{upkeep.JobDone: 1})
		c.put(t, site("a.test", "web1"), site("b.test", "web2"))
		c.until(t, web(all), counts{upkeep.JobDone: 2})
		verify, err := c.Verify(ctx, "web1", "uid 0")
		if err != nil {
			t.Fatal(err)
		}
		if ended, err := c.Await(ctx, verify.ID); err != nil || ended.State != upkeep.JobDone || len(ended.Result) == 0 {
			t.Errorf("awaited: %+v, %v", ended, err)
		}
		if _, err := c.Regenerate(ctx, "web1", "uid 0"); err != nil {
			t.Fatal(err)
		}
		c.until(t, web(all), counts{upkeep.JobDone: 4})
		var sync task.SiteSync
		last := a.jobs[len(a.jobs)-1]
		if err := json.Unmarshal(last.Payload, &sync); err != nil || len(sync.Sites) != 1 || sync.Sites[0].Site.Name != "a.test" {
			t.Errorf("sent %s, %v", last.Payload, err)
		}
		if shown, err := c.Show(ctx, verify.ID); err != nil || !strings.Contains(string(shown.Result), "a.test") {
			t.Errorf("shown %+v, %v", shown, err)
		}
	})
}

// What takes a site down does not wait behind an older change that waits for its
// server's turn to reload; any other change does.
func TestSuspensionIsUrgent(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		cancelled := make(chan int64, 10)
		var mirror *agent
		ready := make(chan struct{})
		hold := func(j link.Job) link.Outcome { // as an agent that is told to wait
			<-ready
			if j.Generation > 1 {
				return link.Outcome{ID: j.ID, State: upkeep.JobDone}
			}
			for {
				mirror.mu.Lock()
				given := slices.Contains(mirror.cancelled, j.ID)
				mirror.mu.Unlock()
				if given {
					cancelled <- j.ID
					return link.Outcome{ID: j.ID, State: upkeep.JobCancelled}
				}
				<-time.After(time.Millisecond)
			}
		}
		connect(t, c, "web1", nil)
		mirror = connect(t, c, "web2", hold)
		close(ready)
		c.put(t, site("a.test", "web1", "web2"))
		web2 := store.JobFilter{Server: "web2", Kind: upkeep.JobSiteApply}
		testkit.Eventually(t, 20*time.Second, func() (bool, string) { // not only claimed: what is sent is read after that
			sent := mirror.sent()
			return len(sent) == 1, fmt.Sprint(sent)
		})
		changed := site("a.test", "web1", "web2")
		changed.Aliases = []string{"b.test"}
		c.put(t, changed)
		c.until(t, store.JobFilter{Server: "web1", Kind: upkeep.JobSiteApply}, counts{upkeep.JobDone: 2})
		c.until(t, web2, counts{upkeep.JobRunning: 1, upkeep.JobPending: 1})
		if len(cancelled) != 0 {
			t.Error("a change that takes nothing down was urgent")
		}
		changed.Suspended = true
		c.put(t, changed)
		c.until(t, web2, counts{upkeep.JobSuperseded: 1, upkeep.JobDone: 1})
		jobs, err := c.List(context.Background(), store.JobFilter{Server: "web2", States: []upkeep.JobState{upkeep.JobSuperseded}})
		if err != nil || len(jobs) != 1 || !strings.Contains(jobs[0].Error, "could not wait") {
			t.Errorf("%+v, %v", jobs, err)
		}
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status, err := c.SiteStatus(context.Background(), "a.test")
			return err == nil && status.State == upkeep.SiteSuspended, fmt.Sprint(status, err)
		})
	})
}

// A server is not emptied while anything uses it, be it a zone that its agent
// publishes: it could not be removed then.
func TestPurgeOfAServerInUse(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		ctx := context.Background()
		c := start(t, dsn)
		c.put(t, upkeep.Server{Name: "both1", Roles: []string{upkeep.RoleWeb, upkeep.RoleDNS}})
		zone := upkeep.Zone{Name: "example.test", Servers: []string{"192.0.2.53:53"},
			Publishers: []upkeep.Publisher{{Type: upkeep.PublishBind, Agent: "both1", IncludeDir: "/var/lib/bind/upkeep"}}}
		c.put(t, zone)
		for _, used := range []struct{ server, by string }{{"both1", "zone example.test"}, {"web1", "site a.test"}} {
			if used.server == "web1" {
				c.put(t, site("a.test", "web1"))
			}
			if _, err := c.Run(ctx, upkeep.JobServerPurge, nil, used.server, "uid 0"); !errors.Is(err, upkeep.ErrConflict) || !strings.Contains(err.Error(), used.by+" still uses server "+used.server) {
				t.Errorf("emptying %s, which %s uses: %v", used.server, used.by, err)
			}
		}
		if jobs := c.states(t, store.JobFilter{Kind: upkeep.JobServerPurge}); len(jobs) != 0 {
			t.Errorf("refused jobs are there: %v", jobs)
		}
		if _, err := c.Run(ctx, upkeep.JobServerPurge, nil, "web2", "uid 0"); err != nil {
			t.Errorf("emptying a server that nothing uses: %v", err)
		}
	})
}

// A verification leaves out what is being changed: what is on the server and what
// is declared differ until that is done.
func TestVerifyWhileSitesChange(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c, ctx := start(t, dsn), t.Context()
		a := connect(t, c, "web1", func(j link.Job) link.Outcome {
			if j.Kind != upkeep.JobSiteSync && j.Object != "site/still.test" {
				return link.Outcome{} // it goes on and on
			}
			return link.Outcome{ID: j.ID, State: upkeep.JobDone}
		})
		c.put(t, site("still.test", "web1"))
		c.until(t, web(store.JobFilter{Kind: upkeep.JobSiteApply}), counts{upkeep.JobDone: 1})
		c.put(t, site("slow.test", "web1"), site("other.test", "web2"))
		c.until(t, web(store.JobFilter{Kind: upkeep.JobSiteApply}), counts{upkeep.JobDone: 1, upkeep.JobRunning: 1})
		verify, err := c.Verify(ctx, "web1", "uid 0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Await(ctx, verify.ID); err != nil {
			t.Fatal(err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		var sync task.SiteSync
		last := a.jobs[len(a.jobs)-1]
		if err := json.Unmarshal(last.Payload, &sync); err != nil || len(sync.Sites) != 1 || sync.Sites[0].Site.Name != "still.test" ||
			!slices.Equal(sync.Changing, []string{"slow.test"}) || !slices.Equal(sync.Keep, sync.Changing) {
			t.Errorf("sent %s, %v", last.Payload, err)
		}
	})
}

// What was there before is sent after a start, and jobs that control left running
// are sent again.
func TestStart(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		t.Run("before", func(t *testing.T) {
			c := start(t, dsn)
			connect(t, c, "web1", func(link.Job) link.Outcome { return link.Outcome{} })
			c.put(t, site("a.test", "web1"), site("b.test", "web2"))
			c.until(t, web(all), counts{upkeep.JobRunning: 1})
		})
		c := open(t, dsn)
		begin := time.Now()
		connect(t, c, "web1", nil)
		connect(t, c, "web2", nil)
		c.until(t, store.JobFilter{Kind: upkeep.JobSiteApply}, counts{upkeep.JobDone: 2})
		t.Logf("done %s after the start", time.Since(begin))
	})
}

// Connections of the database that are cut hold nothing up for long, and lose
// nothing.
func TestDatabaseCutsConnections(t *testing.T) {
	t.Parallel()
	ctx, dsn := context.Background(), testkit.Postgres(t)
	c := start(t, dsn)
	connect(t, c, "web1", nil)
	raw, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	for i := range 3 {
		if _, err := c.store.Enqueue(ctx, mkdir(2*i)); err != nil {
			t.Fatal(err)
		}
		if _, err := raw.ExecContext(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 10*time.Second, func() (bool, string) {
			_, err := c.store.Enqueue(ctx, mkdir(2*i+1)) // one call may meet the dead connection
			return err == nil, fmt.Sprint(err)
		})
		begin := time.Now()
		testkit.Eventually(t, time.Minute, func() (bool, string) {
			jobs, err := c.List(ctx, web(all))
			open := slices.ContainsFunc(jobs, func(j upkeep.Job) bool { return !j.State.Ended() })
			return err == nil && !open, fmt.Sprint(jobs, err)
		})
		t.Logf("done after %s", time.Since(begin))
	}
}

// A move whose new server never had the site leaves it where it was, and the
// server there has to be told when the site is deleted.
func TestMoveThatFailed(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		old := connect(t, c, "web1", func(j link.Job) link.Outcome {
			result, _ := json.Marshal(task.SiteResult{Generation: j.Generation})
			return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: result}
		})
		c.put(t, site("a.test", "web1"))
		c.until(t, web(all), counts{upkeep.JobDone: 1})
		c.put(t, site("a.test", "web2"))
		waiting, err := c.List(context.Background(), store.JobFilter{Server: "web2"})
		if err != nil || len(waiting) != 1 {
			t.Fatal(waiting, err)
		}
		if _, err := c.Cancel(context.Background(), waiting[0].ID, "uid 0"); err != nil {
			t.Fatal(err)
		}
		c.until(t, web(all), counts{upkeep.JobDone: 1, upkeep.JobCancelled: 1})
		status, err := c.SiteStatus(context.Background(), "a.test")
		if err != nil || len(status.Servers) != 2 || status.Servers[1].Server != "web1" || status.Servers[1].State != upkeep.SiteFailed {
			t.Errorf("status %+v, %v", status, err)
		}
		if _, err := c.store.Apply(context.Background(), "uid 0", store.Change{Delete: []store.Ref{{Kind: upkeep.KindSite, Name: "a.test"}}}); err != nil {
			t.Fatal(err)
		}
		c.until(t, web(all), counts{upkeep.JobDone: 2, upkeep.JobCancelled: 1})
		if diff := cmp.Diff([]string{"site.apply site/a.test 1", "site.remove site/a.test 3"}, old.sent()); diff != "" {
			t.Error(diff)
		}
	})
}
