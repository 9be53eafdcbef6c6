package job_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/job"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

var published = store.JobFilter{Kind: upkeep.JobZonePublish}

// zoneWith is the order to publish one address.
func zoneWith(address string) task.ZonePublish {
	p := upkeep.Publisher{Type: upkeep.PublishBind, Agent: "dns1", IncludeDir: "/etc/bind/upkeep"}
	return task.ZonePublish{
		Zone: upkeep.Zone{Name: "a.test", Publishers: []upkeep.Publisher{p}}, Publisher: p,
		Sets: []task.Set{{Owner: "@", TTL: 60, Addresses: []string{address}}},
	}
}

// errand is one whose news are counted.
type errand struct {
	*testing.T
	made *job.Errand
	news atomic.Int64
}

func startErrand(t *testing.T, c *control) *errand {
	t.Helper()
	e := &errand{T: t}
	e.made = c.Errand("dns1", "upkeep", func() { e.news.Add(1) })
	t.Cleanup(func() {
		if err := e.made.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func (e *errand) publish(address string, again bool) (upkeep.Job, error) {
	e.Helper()
	return e.made.Do(context.Background(), []byte(address), zoneWith(address), again)
}

func (e *errand) done(address string, again bool) upkeep.Job {
	e.Helper()
	got, err := e.publish(address, again)
	if err != nil || got.State != upkeep.JobDone {
		e.Fatalf("%s: %+v, %v", address, got, err)
	}
	return got
}

func (e *errand) fails(address, words string) {
	e.Helper()
	if got, err := e.publish(address, false); err == nil || !strings.Contains(err.Error(), words) {
		e.Fatalf("%s: %+v, %v, want ...%s...", address, got, err, words)
	}
}

func (e *errand) hears(n int64) {
	e.Helper()
	testkit.Eventually(e.T, 20*time.Second, func() (bool, string) { got := e.news.Load(); return got >= n, fmt.Sprint(got) })
}

func serial(n int) func(link.Job) link.Outcome {
	return func(j link.Job) link.Outcome {
		result, _ := json.Marshal(task.ZoneResult{Serial: uint32(n)}) // numbers and strings
		return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: result}
	}
}

// The newest of what is asked for is done, once; what failed is tried again as
// the same job.
func TestErrand(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		c.put(t, upkeep.Server{Name: "dns1", Roles: []string{upkeep.RoleDNS}})
		e := startErrand(t, c)

		// While the agent is away only the newest waits.
		e.fails("192.0.2.1", "the agent on dns1 is not connected: what is to be published waits for it as job")
		e.fails("192.0.2.1", "not connected")
		e.fails("192.0.2.2", "not connected")
		c.until(t, published, counts{upkeep.JobPending: 1})
		a := connect(t, c, "dns1", serial(7))
		e.hears(1)
		first := e.done("192.0.2.2", false)
		if !strings.Contains(string(first.Result), "7") || len(a.sent()) != 1 || !strings.Contains(string(a.jobs[0].Payload), "192.0.2.2") {
			t.Errorf("result %s, sent %v", first.Result, a.sent())
		}

		// What is done is done, unless it is doubted.
		if again := e.done("192.0.2.2", false); again.ID != first.ID || len(a.sent()) != 1 {
			t.Errorf("job %d was done again as %d", first.ID, again.ID)
		}
		if again := e.done("192.0.2.2", true); again.ID == first.ID || again.Generation <= first.Generation || len(a.sent()) != 2 {
			t.Errorf("job %d was not done again: %+v", first.ID, again)
		}

		// Another control, after a restart, goes on with later generations.
		other := startErrand(t, c)
		if later := other.done("192.0.2.2", false); later.Generation <= first.Generation {
			t.Errorf("generation %d came after %d", later.Generation, first.Generation)
		}
	})
}

func TestErrandThatFails(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		c.put(t, upkeep.Server{Name: "dns1", Roles: []string{upkeep.RoleDNS}})
		e := startErrand(t, c)
		var mends atomic.Bool
		connect(t, c, "dns1", func(j link.Job) link.Outcome {
			if mends.Load() {
				return serial(8)(j)
			}
			return link.Outcome{ID: j.ID, State: upkeep.JobFailed, Error: "rndc: connection refused; is named running?"}
		})
		testkit.Eventually(t, 10*time.Second, func() (bool, string) { return c.Links()["dns1"].Connected, "not connected" })
		for range 3 {
			e.fails("192.0.2.1", "rndc: connection refused; is named running?")
		}
		c.until(t, published, counts{upkeep.JobFailed: 1})
		mends.Store(true)
		if got := e.done("192.0.2.1", false); got.Attempts != 4 {
			t.Errorf("%d attempts", got.Attempts)
		}
		// Other content that fails is another job: what failed stays to be seen.
		mends.Store(false)
		e.fails("192.0.2.2", "refused")
		e.fails("192.0.2.3", "refused")
		c.until(t, published, counts{upkeep.JobDone: 1, upkeep.JobFailed: 2})
		// The server may not be there any more, or not for zones.
		c.put(t, upkeep.Server{Name: "dns1", Roles: []string{upkeep.RoleWeb}})
		e.fails("192.0.2.4", "must have the role dns")
	})
}

// An agent that takes its time holds nobody up, and is heard of when it is done.
func TestErrandThatTakesLong(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		c.put(t, upkeep.Server{Name: "dns1", Roles: []string{upkeep.RoleDNS}})
		e := startErrand(t, c)
		goOn := make(chan struct{})
		connect(t, c, "dns1", func(j link.Job) link.Outcome {
			<-goOn
			return serial(9)(j)
		})
		testkit.Eventually(t, 10*time.Second, func() (bool, string) { return c.Links()["dns1"].Connected, "not connected" })
		before := e.news.Load()
		e.fails("192.0.2.1", "is being done for more than 5s")
		close(goOn)
		e.hears(before + 1)
		e.done("192.0.2.1", false)
		c.until(t, published, counts{upkeep.JobDone: 1})
	})
}

// People do not make jobs whose content is decided by checks.
func TestZonePublishIsNotForPeople(t *testing.T) {
	c := start(t, "sqlite:"+t.TempDir()+"/upkeep.db")
	c.put(t, upkeep.Server{Name: "dns1", Roles: []string{upkeep.RoleDNS}})
	text, err := json.Marshal(zoneWith("192.0.2.66"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Run(context.Background(), upkeep.JobZonePublish, text, "dns1", "uid 0"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}
