package job_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// Among hundreds of servers whose agents wait, each can be spoken to, and all
// are let go of in order.
func TestManyServers(t *testing.T) {
	const servers = 500
	onBoth(t, func(t *testing.T, dsn string) {
		ctx := context.Background()
		c := open(t, dsn)
		var objects []upkeep.Object
		for i := range servers {
			objects = append(objects, server(fmt.Sprintf("web%d", i)))
		}
		objects = append(objects, upkeep.Account{Name: "acme", UID: 20001})
		c.put(t, objects...)
		begin := time.Now()
		var over sync.WaitGroup
		for i := range servers {
			ours, theirs := link.Pipe()
			over.Go(func() { _ = c.Serve(ctx, fmt.Sprintf("web%d", i), link.Hello{}, ours) })
			t.Cleanup(func() { _ = theirs.Close() })
		}
		testkit.Eventually(t, time.Minute, func() (bool, string) { n := len(c.Links()); return n == servers, fmt.Sprint(n) })
		connect(t, c, "web0", nil) // in place of the first
		done(t, c, func() {
			c.put(t, site("first.test", "web0"))
		}, 1)
		t.Logf("%d servers connected in %s", servers, time.Since(begin))
		for i := range 5 {
			begin = time.Now()
			var made time.Duration
			done(t, c, func() {
				c.put(t, site(fmt.Sprintf("s%d.test", i), "web0"))
				made = time.Since(begin)
			}, 1)
			t.Logf("one job among them: declared in %s, done after %s", made, time.Since(begin))
		}
		begin = time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		over.Wait()
		t.Logf("closed in %s", time.Since(begin))
		if n := c.states(t, store.JobFilter{States: []upkeep.JobState{upkeep.JobRunning}}); len(n) != 0 {
			t.Errorf("still running: %v", n)
		}
	})
}
