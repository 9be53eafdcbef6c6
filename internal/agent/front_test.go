package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"upkeep"
	"upkeep/internal/link"
)

// worker is a privileged half that does what a test says.
type worker struct {
	do func(context.Context, link.Signed, func(link.Progress)) link.Outcome
}

func (w worker) Do(ctx context.Context, signed link.Signed, tell func(link.Progress)) link.Outcome {
	return w.do(ctx, signed, tell)
}

func (w worker) Facts(context.Context) upkeep.Facts {
	return upkeep.Facts{Hostname: "web1", Kinds: []string{upkeep.JobMkdir}}
}

// patient does jobs that end when they are cancelled, and all others at once.
var patient = worker{func(ctx context.Context, signed link.Signed, tell func(link.Progress)) link.Outcome {
	id, _ := claimed(signed)
	if bytes.Contains(signed.Body, []byte("wait")) {
		tell(link.Progress{ID: id, Step: "waiting", Percent: 50})
		<-ctx.Done()
		return ended(ctx, id, ctx.Err())
	}
	return link.Outcome{ID: id, State: upkeep.JobDone}
}}

func fakeJob(text string) link.Signed {
	return link.Signed{Body: []byte(text), Signature: bytes.Repeat([]byte("x"), 64)}
}

// conversation has a front with a worker serve a link, and tests what it says.
func conversation(t *testing.T, w Worker) {
	control, agent := link.Pipe()
	front := NewFront(w, "1.0", slog.New(slog.DiscardHandler))
	served := make(chan struct{})
	go func() {
		defer close(served)
		front.Serve(agent)
	}()
	receive := func() link.Message {
		t.Helper()
		m, err := control.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	say := func(m link.Message) {
		t.Helper()
		if err := control.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if hello := receive().Hello; hello == nil || hello.Version != "1.0" || hello.Facts.Hostname != "web1" || len(hello.Kinds) != 1 {
		t.Fatalf("said %+v", hello)
	}
	waiting, quick := fakeJob(`{"id":1,"do":"wait"}`), fakeJob(`{"id":2}`)
	say(link.Message{Job: &waiting})
	if p := receive().Progress; p == nil || p.ID != 1 || p.Percent != 50 {
		t.Errorf("said %+v", p)
	}
	say(link.Message{Job: &quick})
	if o := receive().Outcome; o == nil || o.ID != 2 || o.State != upkeep.JobDone {
		t.Errorf("said %+v", o)
	}
	say(link.Message{Cancel: &link.Cancel{ID: 9}})
	say(link.Message{Cancel: &link.Cancel{ID: 1}})
	if o := receive().Outcome; o == nil || o.ID != 1 || o.State != upkeep.JobCancelled {
		t.Errorf("said %+v", o)
	}
	// A job under way survives the end of the link, and is told of on the next one when
	// it was sent there too.
	say(link.Message{Job: &waiting})
	if p := receive().Progress; p == nil {
		t.Error("it did not begin")
	}
	if err := control.Close(); err != nil {
		t.Error(err)
	}
	<-served
	control, agent = link.Pipe()
	served = make(chan struct{})
	go func() {
		defer close(served)
		front.Serve(agent)
	}()
	receive()
	say(link.Message{Job: &waiting})
	if p := receive().Progress; p == nil {
		t.Error("it did not begin on the next link")
	}
	say(link.Message{Cancel: &link.Cancel{ID: 1}})
	if o := receive().Outcome; o == nil || o.ID != 1 || o.State != upkeep.JobCancelled {
		t.Errorf("said %+v", o)
	}
	say(link.Message{Job: &quick})
	if o := receive().Outcome; o == nil || o.ID != 2 {
		t.Errorf("the end of what came by the link before was told too: %+v", o)
	}
	if err := front.Close(); err != nil {
		t.Error(err)
	}
	<-served
}

// A job is sent, the link breaks, and it is sent again by the next one as a newer
// generation, under the same id. Control must not take the end of the first for
// that of the second.
func TestOutcomeOfAnOlderSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := make(chan struct{}), make(chan struct{})
		front := NewFront(worker{func(_ context.Context, signed link.Signed, tell func(link.Progress)) link.Outcome {
			var of struct{ ID, Generation int64 }
			if err := json.Unmarshal(signed.Body, &of); err != nil {
				t.Error(err)
			}
			until := second
			if of.Generation == 1 {
				until = first
			}
			<-until
			return link.Outcome{ID: of.ID, State: upkeep.JobDone, Result: fmt.Appendf(nil, `{"generation":%d}`, of.Generation)}
		}}, "1.0", slog.New(slog.DiscardHandler))
		defer func() { _ = front.Close() }()
		var links []link.Conn
		for generation := range 2 {
			control, agent := link.Pipe()
			links = append(links, control)
			go front.Serve(agent)
			if _, err := control.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
			job := fakeJob(fmt.Sprintf(`{"id":7,"generation":%d}`, generation+1))
			if err := control.Send(t.Context(), link.Message{Job: &job}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if generation == 0 {
				_ = control.Close()
				synctest.Wait()
			}
		}
		close(first)
		synctest.Wait()
		close(second)
		m, err := links[1].Receive(t.Context())
		if err != nil || m.Outcome == nil || string(m.Outcome.Result) != `{"generation":2}` {
			t.Errorf("control was told %+v, %v", m.Outcome, err)
		}
		_ = links[1].Close()
	})
}

func TestFrontInThisProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { conversation(t, patient) })
}

func TestFrontOverASocket(t *testing.T) {
	far, near := net.Pipe()
	attended := make(chan error, 1)
	go func() { attended <- attend(t.Context(), far, patient, func([]byte) error { return errors.New("no") }) }()
	r := newRemote(near)
	read := make(chan error, 1)
	go func() { read <- r.read() }()
	conversation(t, r)
	if err := r.renew([]byte("identity")); err == nil || err.Error() != "no" {
		t.Errorf("got %v", err)
	}
	if err := near.Close(); err != nil {
		t.Error(err)
	}
	if err := <-attended; err != nil {
		t.Error(err)
	}
	if err := <-read; err == nil {
		t.Error("the reader did not end")
	}
	// Nobody knows what becomes of a job that root was not there for.
	if o := r.Do(t.Context(), fakeJob(`{"id":1}`), nil); o.State != "" {
		t.Errorf("got %+v", o)
	}
}

// TestHostileFront sends root what no front sends: each is the end of that front,
// and no more.
func TestHostileFront(t *testing.T) {
	job := appendFrame(nil, frame{frameJob, 1, []byte(strings.Repeat("x", 64) + `{"id":1,"do":"wait"}`)})
	for name, one := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":        {nil, ""},
		"unknown":        {appendFrame(nil, frame{'X', 1, nil}), "there is no kind 'X'"},
		"an answer":      {appendFrame(nil, frame{frameOutcome, 1, nil}), "there is no kind 'O'"},
		"fat cancel":     {appendFrame(nil, frame{frameCancel, 1, []byte("x")}), "at most 0 are taken"},
		"fat identity":   {appendFrame(nil, frame{frameIdentity, 1, make([]byte, 70_000)}), "at most 65536 are taken"},
		"a lying length": {[]byte("J\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff"), "at most"},
		"cut off":        {job[:len(job)-1], "unexpected EOF"},
		"cut off early":  {job[:5], "unexpected EOF"},
		"a number twice": {append(job[:len(job):len(job)], job...), "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			far, near := net.Pipe()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			attended := make(chan error, 1)
			go func() { attended <- attend(ctx, far, patient, nil) }()
			var drained sync.WaitGroup
			drained.Go(func() { _, _ = io.Copy(io.Discard, near) })
			_, _ = near.Write(one.text) // root may have closed it half-way
			_ = near.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			drained.Wait()
			_ = near.Close()
			err := <-attended
			if one.want == "" && err != nil || one.want != "" && (err == nil || !strings.Contains(err.Error(), one.want)) {
				t.Errorf("got %v, want %q", err, one.want)
			}
		})
	}
}

// slow answers questions for facts when its context ends, and counts them.
type slow struct {
	worker
	asked *atomic.Int32
}

func (s slow) Facts(ctx context.Context) upkeep.Facts {
	s.asked.Add(1)
	<-ctx.Done()
	return upkeep.Facts{}
}

// TestHostileFrontAsksWithoutEnd has a front ask for facts and not wait for answers:
// root answers a few at a time, and reads no more meanwhile.
func TestHostileFrontAsksWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far, near := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var running sync.WaitGroup
		var asked atomic.Int32
		running.Go(func() { _ = attend(ctx, far, slow{patient, &asked}, nil) })
		running.Go(func() { _, _ = io.Copy(io.Discard, near) })
		running.Go(func() {
			for tag := range uint64(1000) {
				if _, err := near.Write(appendFrame(nil, frame{frameFacts, tag, nil})); err != nil {
					return // root has closed it
				}
			}
		})
		synctest.Wait()
		if n := asked.Load(); n != maxAsking {
			t.Errorf("%d questions are answered at a time, want %d", n, maxAsking)
		}
		cancel()
		running.Wait()
	})
}

// FuzzFrames holds that what is read is within its bounds and is written the same
// again.
func FuzzFrames(f *testing.F) {
	f.Add(appendFrame(nil, frame{frameJob, 7, []byte(strings.Repeat("s", 64) + `{"id":1}`)}))
	f.Add(appendFrame(appendFrame(nil, frame{frameCancel, 1, nil}), frame{frameFacts, 2, nil}))
	f.Add([]byte("J\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		reader := bufio.NewReader(bytes.NewReader(text))
		var again []byte
		for {
			one, err := readFrame(reader, toRoot)
			if err != nil {
				break
			}
			if len(one.body) > toRoot[one.kind] {
				t.Fatalf("%d bytes of %q", len(one.body), one.kind)
			}
			if signed := signedOf(one.body); len(signed.Signature)+len(signed.Body) != len(one.body) {
				t.Fatal("bytes were lost")
			}
			again = appendFrame(again, one)
		}
		if !bytes.HasPrefix(text, again) {
			t.Fatalf("%q became %q", text, again)
		}
	})
}

// FuzzHostileFront gives root whatever there is, signed by nobody: it does
// nothing of it, and ends.
func FuzzHostileFront(f *testing.F) {
	f.Add(appendFrame(nil, frame{frameJob, 7, []byte(strings.Repeat("s", 64) + `{"id":1}`)}))
	f.Add(appendFrame(appendFrame(nil, frame{frameCancel, 1, nil}), frame{frameFacts, 2, nil}))
	f.Fuzz(func(t *testing.T, text []byte) {
		far, near := net.Pipe()
		refusing := worker{func(_ context.Context, signed link.Signed, _ func(link.Progress)) link.Outcome {
			if _, err := link.Open(make([]byte, 32), "web1", time.Now(), signed); err == nil {
				t.Error("a job that nobody signed was taken")
			}
			return link.Outcome{State: upkeep.JobFailed, Error: "no"}
		}}
		attended := make(chan error, 1)
		go func() { attended <- attend(t.Context(), far, refusing, func([]byte) error { return errors.New("no") }) }()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_, _ = near.Write(text) // root may have closed it half-way
		_ = near.Close()
		<-attended
	})
}

// stubborn works on a job until it is told to stop, and then says that it failed.
type stubborn struct{ begun chan struct{} }

func (s stubborn) Do(ctx context.Context, _ link.Signed, _ func(link.Progress)) link.Outcome {
	close(s.begun)
	<-ctx.Done()
	return failed(1, ctx.Err())
}

func (stubborn) Facts(context.Context) upkeep.Facts { return upkeep.Facts{} }

// TestStoppedAgentBlamesNoJob stops the agent in the middle of a job: that is no
// failure of the job, which control sends again.
func TestStoppedAgentBlamesNoJob(t *testing.T) {
	for range 50 {
		front, root := net.Pipe()
		ctx, stop := context.WithCancel(context.Background())
		worker := stubborn{make(chan struct{})}
		ended := make(chan struct{})
		go func() {
			_ = attend(ctx, root, worker, nil)
			_ = root.Close()
			close(ended)
		}()
		r := newRemote(front)
		go func() { _ = r.read() }()
		outcome := make(chan link.Outcome, 1)
		go func() {
			outcome <- r.Do(context.Background(), link.Signed{Body: []byte("{}"), Signature: make([]byte, 64)}, nil)
		}()
		<-worker.begun
		stop()
		<-ended
		if got := <-outcome; got.State != "" {
			t.Fatalf("the job of a stopped agent is told to be %+v", got)
		}
		_ = front.Close()
	}
}

// restless is a worker of a web server of which something else is told at each
// look.
type restless struct {
	worker
	facts []upkeep.Facts
	looks *int
}

func (r restless) Facts(context.Context) upkeep.Facts {
	facts := r.facts[min(*r.looks, len(r.facts)-1)]
	*r.looks++
	return facts
}

// What goes wrong with the web server later is told when it does, once.
func TestFrontTellsOfTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fine, looks := upkeep.Facts{URL: "http://web1"}, 0
		astray, down := fine, fine
		astray.Astray, down.WebDown = map[string]string{"a.test": "it was set aside"}, "it does not run"
		front := NewFront(restless{patient, []upkeep.Facts{fine, fine, astray, astray, down, fine}, &looks}, "1.0", slog.New(slog.DiscardHandler))
		control, agent := link.Pipe()
		go front.Serve(agent)
		begin := time.Now()
		for i, want := range []struct {
			after time.Duration
			facts upkeep.Facts
		}{{0, fine}, {2 * watchEvery, astray}, {4 * watchEvery, down}, {5 * watchEvery, fine}} {
			m, err := control.Receive(t.Context())
			if err != nil || m.Hello == nil {
				t.Fatal(m, err)
			}
			if got := m.Hello.Facts; len(got.Astray) != len(want.facts.Astray) || got.WebDown != want.facts.WebDown || time.Since(begin) != want.after {
				t.Errorf("%d: after %s it says %+v", i, time.Since(begin), got)
			}
		}
		if err := control.Close(); err != nil {
			t.Error(err)
		}
		if err := front.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What a job told control in between may be wrong by the next look, which is told
// then though it is what the look before it saw.
func TestFrontTellsAfterJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, looks := upkeep.Facts{URL: "http://web1", WebDown: "it does not run"}, 0
		front := NewFront(restless{patient, []upkeep.Facts{down}, &looks}, "1.0", slog.New(slog.DiscardHandler))
		control, agent := link.Pipe()
		go front.Serve(agent)
		begin := time.Now()
		receive := func(after time.Duration) link.Message {
			t.Helper()
			m, err := control.Receive(t.Context())
			if got := time.Since(begin); err != nil || got != after {
				t.Errorf("after %s: %+v, %v", got, m, err)
			}
			return m
		}
		if m := receive(0); m.Hello == nil {
			t.Fatal(m)
		}
		for i, kind := range []string{upkeep.JobServerFacts, upkeep.JobSiteApply} {
			at := time.Since(begin)
			job := fakeJob(fmt.Sprintf(`{"id":%d,"kind":%q}`, i+1, kind))
			if err := control.Send(t.Context(), link.Message{Job: &job}); err != nil {
				t.Fatal(err)
			}
			if m := receive(at); m.Outcome == nil {
				t.Fatal(m)
			}
			if m := receive(at + watchEvery); m.Hello == nil || m.Hello.Facts.WebDown == "" {
				t.Errorf("after %s it says %+v", kind, m)
			}
		}
		if err := control.Close(); err != nil {
			t.Error(err)
		}
		if err := front.Close(); err != nil {
			t.Error(err)
		}
	})
}
