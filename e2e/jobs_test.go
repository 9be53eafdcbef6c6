package e2e

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/agent"
	"upkeep/internal/job"
	"upkeep/internal/link"
	"upkeep/internal/policy"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// A thousand folders are made through queue, link and a real agent. How long that
// takes is logged, and judged by nobody here: it depends on the machine.
func TestThousandJobs(t *testing.T) {
	testkit.NeedRoot(t)
	const n = 1000
	ctx, dir, log := context.Background(), t.TempDir(), slog.New(slog.DiscardHandler)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "upkeep.db"))
	check(err)
	public, private, err := ed25519.GenerateKey(nil)
	check(err)
	d, err := job.New(ctx, job.Config{Store: s, Key: private, Log: log})
	check(err)
	check(d.Start(ctx))
	_, err = s.Apply(ctx, "uid 0", store.Change{Put: []upkeep.Object{upkeep.Server{Name: "files1", Roles: []string{upkeep.RoleFiles}}}})
	check(err)

	home, data := filepath.Join(dir, "home"), filepath.Join(dir, "data")
	check(os.Mkdir(home, 0o755))
	check(os.Mkdir(data, 0o755))
	for _, path := range []string{filepath.Dir(dir), dir} {
		check(os.Chmod(path, 0o755))
	}
	rules, err := policy.Read("policy.yaml", []byte("kinds: [mkdir]\nroots: {home: "+home+", data: "+data+"}\nuids: {min: 20000, max: 20999}\n"))
	check(err)
	root, err := agent.New(agent.Options{Server: "files1", Key: public, Policy: rules, State: filepath.Join(dir, "state"), Logger: log, Now: time.Now})
	check(err)
	front := agent.NewFront(root, "test", log)
	control, theirs := link.Pipe()
	var both sync.WaitGroup
	both.Go(func() { front.Serve(theirs) })
	hello, err := control.Receive(ctx)
	check(err)
	both.Go(func() { _ = d.Serve(ctx, "files1", *hello.Hello, control) })

	for round := range 3 {
		jobs := make([]store.NewJob, n)
		for i := range jobs {
			path := fmt.Sprintf("r%d-%d", round, i)
			payload, err := json.Marshal(map[string]string{"root": "data", "path": path, "owner": "root", "group": "root", "mode": "0750"})
			check(err)
			jobs[i] = store.NewJob{Job: upkeep.Job{Server: "files1", Kind: upkeep.JobMkdir, Object: "dir/data/" + path, Who: "uid 0"}, Payload: payload}
		}
		told, stop := d.Watch()
		begin, cpu := time.Now(), usedCPU(t)
		_, err = s.Enqueue(ctx, jobs...)
		check(err)
		for done := 0; done < n; {
			select {
			case j := <-told:
				if j.State == upkeep.JobFailed {
					t.Fatalf("job %d: %s", j.ID, j.Error)
				}
				if j.State == upkeep.JobDone {
					done++
				}
			case <-time.After(time.Minute):
				t.Fatalf("%d of %d are done", done, n)
			}
		}
		stop()
		cost := usedCPU(t) - cpu
		t.Logf("%d folders in %s, with %s of CPU", n, time.Since(begin), cost)
	}
	made, err := os.ReadDir(data)
	check(err)
	if len(made) != 3*n {
		t.Errorf("%d folders are there", len(made))
	}
	check(theirs.Close())
	both.Wait()
	check(d.Close())
	check(front.Close())
	check(root.Close())
	check(s.Close())
}

func usedCPU(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
