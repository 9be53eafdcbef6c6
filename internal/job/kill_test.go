package job_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/job"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// TestMain lets this binary be the control that is killed.
func TestMain(m *testing.M) {
	if dsn := os.Getenv("JOB_CONTROL"); dsn != "" {
		if err := controlForever(dsn, os.Getenv("JOB_EFFECTS"), os.Getenv("JOB_FINISH") != ""); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// controlForever is a control with two agents of its own. It declares one site
// after the other, each with its files on another server, and prints the number
// of each that is declared; or it has everything done that is left, and ends.
func controlForever(dsn, effects string, finish bool) error {
	ctx := context.Background()
	s, err := store.Open(ctx, dsn)
	if err != nil {
		return err
	}
	d, err := job.New(ctx, job.Config{Store: s, Key: testKey(), Log: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	for _, server := range []string{"web1", "files1"} {
		ours, theirs := link.Pipe()
		go func() { _ = d.Serve(ctx, server, link.Hello{}, ours) }()
		go effectiveAgent(theirs, server, effects)
	}
	for finish {
		jobs, err := d.List(ctx, store.JobFilter{States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}, Kind: upkeep.JobSiteApply})
		if err != nil {
			return err
		}
		if len(jobs) == 0 {
			return errors.Join(d.Close(), s.Close())
		}
		<-time.After(10 * time.Millisecond)
	}
	declared, err := s.All(ctx, upkeep.KindSite)
	if err != nil {
		return err
	}
	if _, err := s.Apply(ctx, "acme", store.Change{Put: []upkeep.Object{server("web1"), server("files1"), upkeep.Account{Name: "acme", UID: 20001}}}); err != nil {
		return err
	}
	for n := len(declared) + 1; ; n++ {
		one := site(fmt.Sprintf("s%d.test", n), "web1")
		one.Files = "files1"
		if _, err := s.Apply(ctx, "acme", store.Change{Put: []upkeep.Object{one}}); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// effectiveAgent has an effect for each job: a file that it makes. Like a real
// one it knows by that what it has done, and does it once. The files of a site
// must be there before it is served.
func effectiveAgent(conn link.Conn, server, effects string) {
	ctx := context.Background()
	for {
		message, err := conn.Receive(ctx)
		if err != nil {
			return
		}
		if message.Job == nil {
			continue
		}
		j, err := link.Open(testKey().Public().(edPublic), server, time.Now(), *message.Job)
		if err != nil {
			fmt.Println("error:", err)
			return
		}
		name := strings.ReplaceAll(j.Object, "/", "_") + "@" + strconv.FormatInt(j.Generation, 10)
		if j.Kind == upkeep.JobSiteApply {
			if _, err := os.Stat(filepath.Join(effects, upkeep.JobSiteFiles+"_"+name)); err != nil {
				fmt.Println("error: served before its files are there:", err)
			}
		}
		file, err := os.OpenFile(filepath.Join(effects, j.Kind+"_"+name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		switch {
		case err == nil:
			err = file.Close()
		case errors.Is(err, fs.ErrExist):
			err = nil
		}
		if err != nil {
			fmt.Println("error:", err)
		}
		if conn.Send(ctx, link.Message{Outcome: &link.Outcome{ID: j.ID, State: upkeep.JobDone}}) != nil {
			return
		}
	}
}

// Control is killed at arbitrary instants, again and again. Every change that was
// made is carried out in the end, its jobs in their order, and none is done that
// nobody asked for.
func TestKill(t *testing.T) {
	t.Parallel()
	const rounds = 10
	onBoth(t, func(t *testing.T, dsn string) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		effects := t.TempDir()
		env := append(os.Environ(), "JOB_CONTROL="+dsn, "JOB_EFFECTS="+effects)
		promised := 0
		for range rounds {
			control := testkit.Command{Argv: []string{self}, Env: env}.Start(t)
			enough := promised + 1 + rand.IntN(12)
			testkit.Eventually(t, time.Minute, func() (bool, string) { return lastNumber(control.Log()) >= enough, control.Log() })
			<-time.After(time.Duration(rand.IntN(30)) * time.Millisecond)
			control.Kill()
			if strings.Contains(control.Log(), "error:") {
				t.Fatal(control.Log())
			}
			promised = lastNumber(control.Log())
		}
		last := testkit.Command{Argv: []string{self}, Env: append(env, "JOB_FINISH=1")}.Start(t)
		select {
		case <-last.Done():
		case <-time.After(time.Minute):
			t.Fatal("what was left is not done")
		}
		if err := last.Wait(); err != nil {
			t.Fatalf("%v: %s", err, last.Log())
		}
		checkEffects(t, dsn, effects, promised)
	})
}

// lastNumber is the last number in a text whose last line is whole.
func lastNumber(log string) (n int) {
	for line := range strings.Lines(log[:strings.LastIndexByte(log, '\n')+1]) {
		if i, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			n = i
		}
	}
	return n
}

// checkEffects holds that each declared site has one job of each kind, done, and
// one effect of each.
func checkEffects(t *testing.T, dsn, effects string, promised int) {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	sites, err := s.All(ctx, upkeep.KindSite)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(sites); n < promised || n > promised+1 {
		t.Errorf("%d sites after %d were promised", n, promised)
	}
	jobs, err := s.Jobs(ctx, store.JobFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(jobs) != 2*len(sites) {
		t.Errorf("%d jobs of %d sites", len(jobs), len(sites))
	}
	for _, job := range jobs {
		if job.State != upkeep.JobDone || job.Attempts != 1 {
			t.Errorf("job %d is %s after %d attempts: %s", job.ID, job.State, job.Attempts, job.Error)
		}
	}
	found, err := os.ReadDir(effects)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(jobs) {
		t.Errorf("%d effects of %d jobs", len(found), len(jobs))
	}
	t.Logf("%d sites, killed 10 times", len(sites))
}
