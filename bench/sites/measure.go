package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// result is what was measured of a contender.
type result struct {
	name string
	err  error
	one  []oneResult
	many *manyResult
	// regenerated is what it took to make the files of sites sites anew, and settled
	// what it took, the first time and then, where nothing had changed.
	sites       int
	regenerated *cost
	settled     []cost
	// mkdirs is how long mkdirCount folders took, firstMkdir the first of them.
	mkdirs, firstMkdir time.Duration
	mkdirCount         int
}

// oneResult is one site added to some that are there.
type oneResult struct {
	present int
	// asked is from the call, recorded from the moment at which it was on record.
	asked, recorded []time.Duration
}

// manyResult is many sites added in one go.
type manyResult struct {
	sites, dead, reloads int
	took                 time.Duration
	failed               int           // requests to the steady site
	worst                time.Duration // of its answers
}

type cost struct {
	cpu, tests, took time.Duration // tests are a part of cpu
	reloads          int
}

// tested is the processor time that a stage knows to be of the web server's own
// program; 0 for one that does not tell.
func tested(s stage) time.Duration {
	if t, can := s.(interface{ tested() time.Duration }); can {
		return t.tested()
	}
	return 0
}

func (r *result) measure(o options, c contender) error {
	present, many, sites, jobs, runs := []int{0, 1000, 5000}, 1000, o.sites, 1000, 5
	if o.quick {
		present, many, sites, jobs, runs = []int{0, 50}, 50, 200, 50, 2
	}
	if o.parts["one"] {
		for _, n := range present {
			if err := r.oneSite(o, c, n, runs); err != nil {
				return fmt.Errorf("one site beside %d: %w", n, err)
			}
		}
	}
	if o.parts["many"] {
		if err := r.manySites(o, c, many); err != nil {
			return fmt.Errorf("%d sites in one go: %w", many, err)
		}
	}
	if o.parts["regenerate"] {
		if err := r.regenerate(o, c, sites); err != nil {
			return fmt.Errorf("regenerating %d sites: %w", sites, err)
		}
	}
	if o.parts["jobs"] {
		return r.jobs(o, c, jobs)
	}
	return nil
}

func (r *result) onStage(o options, c contender, f func(stage) error) error {
	dir, err := os.MkdirTemp(o.work, "")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	s, err := c.start(o, dir)
	if err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	defer func() { s.stop(); _ = os.RemoveAll(dir) }()
	return f(s)
}

// names are n names of sites.
func names(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%05d.test", prefix, i)
	}
	return all
}

func (r *result) oneSite(o options, c contender, present, runs int) error {
	return r.onStage(o, c, func(s stage) error {
		if err := fill(s, present); err != nil {
			return err
		}
		one := oneResult{present: present}
		for _, name := range names("one", runs) {
			<-time.After(time.Second) // no reload of the last one under way
			begin := time.Now()
			if err := s.add([]string{name}); err != nil {
				return err
			}
			recorded := time.Now()
			if err := await(s.url(), name, time.Minute); err != nil {
				return err
			}
			one.asked, one.recorded = append(one.asked, time.Since(begin)), append(one.recorded, time.Since(recorded))
		}
		r.one = append(r.one, one)
		return nil
	})
}

// fill has n sites and waits until the last answers.
func fill(s stage, n int) error {
	if n == 0 {
		return nil
	}
	all := names("old", n)
	if f, can := s.(interface{ fill([]string) error }); can { // for those whose own way takes hours
		if err := f.fill(all); err != nil {
			return err
		}
	} else if err := s.add(all); err != nil {
		return err
	}
	return awaitAll(s, all, 10*time.Minute)
}

func (r *result) manySites(o options, c contender, n int) error {
	return r.onStage(o, c, func(s stage) error {
		if err := fill(s, 1); err != nil {
			return err
		}
		<-time.After(time.Second)
		steady := watch(s.url(), names("old", 1)[0])
		reloads, begin := s.reloads(), time.Now()
		all := names("new", n)
		if err := s.add(all); err != nil {
			return err
		}
		m := &manyResult{sites: n}
		if err := awaitAll(s, all, 15*time.Minute); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", r.name, err)
		}
		m.took = time.Since(begin)
		m.reloads = s.reloads() - reloads
		m.failed, m.worst = steady()
		for _, name := range all {
			if !answers(s.url(), name) {
				m.dead++
			}
		}
		r.many = m
		return nil
	})
}

func (r *result) regenerate(o options, c contender, n int) error {
	return r.onStage(o, c, func(s stage) error {
		g, can := s.(regenerator)
		if !can {
			return nil
		}
		if err := fill(s, n); err != nil {
			return err
		}
		r.sites = n
		all := names("old", n)
		costs := func(do func([]string) error) (cost, error) {
			<-time.After(2 * time.Second)
			cpu, tests, reloads, begin := s.spent(), tested(s), s.reloads(), time.Now()
			err := do(all)
			return cost{cpu: s.spent() - cpu, tests: tested(s) - tests, took: time.Since(begin), reloads: s.reloads() - reloads}, err
		}
		for begin := time.Now(); len(r.settled) < 6 && time.Since(begin) < time.Minute; {
			one, err := costs(g.settle)
			if err != nil {
				return err
			}
			r.settled = append(r.settled, one)
		}
		one, err := costs(g.regenerate)
		if err != nil {
			return err
		}
		r.regenerated = &one
		return awaitAll(s, all[len(all)-1:], time.Minute)
	})
}

func (r *result) jobs(o options, c contender, n int) error {
	return r.onStage(o, c, func(s stage) error {
		j, can := s.(jobber)
		if !can {
			return nil
		}
		var err error
		r.firstMkdir, r.mkdirs, err = j.mkdirs(n)
		r.mkdirCount = n
		return err
	})
}

// browser asks over a new connection each time: during a graceful reload these are
// the ones that wait.
var browser = &http.Client{
	Timeout: 60 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{
		// Many connections come and go; their ports are free again at once.
		Timeout: 60 * time.Second,
	}).DialContext},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// answers reports whether a site answers. Every stage has a default host that
// says 421 to names it does not know.
func answers(url, name string) bool {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	request.Host = name
	response, err := browser.Do(request)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode != http.StatusMisdirectedRequest
}

func await(url, name string, patience time.Duration) error {
	for end := time.Now().Add(patience); !answers(url, name); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer after %s", name, patience)
		}
	}
	return nil
}

// awaitAll waits for the last of several, then for each. It gives up when within a
// minute none has begun to answer and the contender is not at work any more: what is
// dead then stays so.
func awaitAll(s stage, all []string, patience time.Duration) error {
	w, tells := s.(interface{ working() bool })
	begin := time.Now()
	missing := slices.Clone(all)
	for len(missing) > 0 {
		last := len(missing) - 1
		if await(s.url(), missing[last], min(time.Minute, patience-time.Since(begin))) == nil {
			missing = missing[:last]
			continue
		}
		before := len(missing)
		missing = slices.DeleteFunc(missing, func(name string) bool { return answers(s.url(), name) })
		if len(missing) == before && !(tells && w.working()) || time.Since(begin) > patience {
			return fmt.Errorf("%d of %d do not answer after %s", len(missing), len(all), time.Since(begin).Round(time.Second))
		}
	}
	return nil
}

// watch asks a site every two milliseconds until the function that it returns is
// called, which says how many requests failed and how long the slowest took.
func watch(url, name string) func() (failed int, worst time.Duration) {
	var stop atomic.Bool
	var failed int
	var worst time.Duration
	var asking sync.WaitGroup
	asking.Go(func() {
		for !stop.Load() {
			begin := time.Now()
			if !answers(url, name) {
				failed++
			}
			worst = max(worst, time.Since(begin))
			<-time.After(2 * time.Millisecond)
		}
	})
	return func() (int, time.Duration) {
		stop.Store(true)
		asking.Wait()
		return failed, worst
	}
}
