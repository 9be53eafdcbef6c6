package main

import (
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// contender is one way of keeping dead members out of DNS.
type contender struct {
	name string
	// deaths that are measured, and how many times each; 0 is the flag's number.
	deaths []string
	n      int
	// start brings everything up on the stage.
	start func(s *stage) error
	// secondary says that the stage has a secondary to be asked as well.
	secondary bool
	// fresh contenders are started anew for each kill, since they would take
	// longer to put a member back than to start; at once, all kills in parallel.
	fresh bool
	// lived is how long members have lived before the first kill, so that a detector
	// that learns knows them; zero where nothing is learned.
	lived time.Duration
	// every is the time between two questions to a name server, 2 ms when zero.
	every time.Duration
	// patience is how long a kill may take to show.
	patience time.Duration
	// period is the time between two checks: a kill comes at a random point of it.
	period time.Duration
	// note goes below the table.
	note string
}

// result is what was measured of a contender.
type result struct {
	contender contender
	kills     map[string][]time.Duration // by death
	missed    map[string]int             // kills that never showed
	lag       []time.Duration            // of the secondary behind the primary
	removals  int                        // at 20 % loss, in a minute, of three members
	lossTime  time.Duration
	open      [3]string // answers with 1, 2, 3 members down
	err       error
}

func (r *result) run(o options) error {
	r.kills, r.missed = map[string][]time.Duration{}, map[string]int{}
	parts := []struct {
		flag, what string
		run        func() error
	}{
		{"kill", "killing members", func() error { return r.runKills(o) }},
		{"loss", "measuring at 20 % loss", func() error {
			return r.onStage(o, func(s *stage, p *poller) error { return r.loss(o, s, p) })
		}},
		{"open", "taking all members down", func() error { return r.onStage(o, r.failOpen) }},
	}
	var wait sync.WaitGroup
	errs := make([]error, len(parts))
	for i, part := range parts {
		if !o.parts[part.flag] {
			continue
		}
		run := func() {
			if err := part.run(); err != nil {
				errs[i] = fmt.Errorf("%s: %w", part.what, err)
			}
		}
		// What takes minutes is not measured less well for what runs beside it.
		if r.contender.fresh {
			wait.Go(run)
		} else {
			run()
		}
	}
	wait.Wait()
	return errors.Join(errs...)
}

// onStage brings the contender up on a stage of its own and calls f once all
// members are answered.
func (r *result) onStage(o options, f func(*stage, *poller) error) error {
	dir, err := os.MkdirTemp(o.work, "") // short: the path of a control socket is limited
	if err != nil {
		return err
	}
	s, err := newStage(dir, o.upkeep)
	if err != nil {
		return err
	}
	defer s.close()
	for _, m := range s.members {
		if err := m.revive(); err != nil {
			return err
		}
	}
	if err := r.contender.start(s); err != nil {
		return fmt.Errorf("%w\n%s", err, s.logs())
	}
	p := poll(s.client, s.dns.Addr.String()+":53", r.contender.pause())
	defer p.stop()
	err = await("all members answered", time.Minute, func() bool { return p.answers(s.addresses()...) || s.ended() })
	if s.ended() {
		err = errors.New("a program of it ended")
	}
	if err != nil {
		return fmt.Errorf("starting: %w\n%s", err, s.logs())
	}
	if r.contender.secondary {
		if err := r.follow(s); err != nil {
			return fmt.Errorf("waiting for the secondary: %w\n%s", err, s.logs())
		}
	}
	if err := f(s, p); err != nil {
		return fmt.Errorf("%w\n%s", err, s.logs())
	}
	return nil
}

// follow waits until the secondary has the zone.
func (r *result) follow(s *stage) error {
	second := poll(s.client, s.secondary.Addr.String()+":53", 20*time.Millisecond)
	defer second.stop()
	return await("all members answered by the secondary", 2*time.Minute, func() bool { return second.answers(s.addresses()...) })
}

// logs is what the contender's programs wrote last.
func (s *stage) logs() string {
	b := &strings.Builder{}
	for _, p := range s.processes {
		text := p.Log()
		fmt.Fprintf(b, "--- %d\n%s\n", p.PID(), text[max(0, len(text)-3000):])
	}
	return b.String()
}

func (r *result) runKills(o options) error {
	n := o.n
	if r.contender.n != 0 {
		n = min(n, r.contender.n)
	}
	if r.contender.fresh {
		for _, death := range r.contender.deaths {
			if err := r.killAtOnce(o, death, n); err != nil {
				return fmt.Errorf("%s: %w", death, err)
			}
		}
		return nil
	}
	return r.onStage(o, func(s *stage, p *poller) error {
		lived := r.contender.lived
		if o.quick {
			lived = 0
		}
		<-time.After(lived)
		for _, death := range r.contender.deaths {
			for i := range n {
				if err := r.kill(s, p, death, s.members[i%len(s.members)]); err != nil {
					return fmt.Errorf("%s: kill %d: %w", death, i+1, err)
				}
			}
		}
		return nil
	})
}

// killAtOnce makes each kill on a stage of its own, all at the same time.
func (r *result) killAtOnce(o options, death string, n int) error {
	errs := make(chan error, n)
	outcomes := make([]result, n)
	for i := range n {
		one := &outcomes[i]
		*one = result{contender: r.contender, kills: map[string][]time.Duration{}, missed: map[string]int{}}
		go func() {
			errs <- one.onStage(o, func(s *stage, p *poller) error {
				return one.kill(s, p, death, s.members[0])
			})
		}()
	}
	var last error
	for range n {
		if err := <-errs; err != nil {
			last = err
		}
	}
	for _, one := range outcomes {
		r.kills[death] = append(r.kills[death], one.kills[death]...)
		r.missed[death] += one.missed[death]
		r.lag = append(r.lag, one.lag...)
	}
	return last
}

// pause is the time between two questions to a name server.
func (c contender) pause() time.Duration {
	if c.every == 0 {
		return 2 * time.Millisecond
	}
	return c.every
}

// quiet is how long the zone is left alone before a kill: longer than BIND's
// notify-delay, so that a secondary hears of the change at once, and long enough
// for an adaptive detector to see the member answer again.
const quiet = 6 * time.Second

// dead is how long a member stays dead once it is gone from the answers: one
// that answers again within moments was removed by mistake, as far as upkeep can
// tell, and it would learn from that.
const dead = time.Second

// rest is quiet for the contender: those without a secondary have no NOTIFY to
// wait for, and learn nothing.
func (c contender) rest() time.Duration {
	if c.secondary {
		return quiet
	}
	return time.Second
}

// kill kills a member at a random point of the contender's period, and measures
// the time until the primary answers without it.
func (r *result) kill(s *stage, p *poller, death string, m *member) error {
	var second *poller
	if r.contender.secondary {
		second = poll(s.client, s.secondary.Addr.String()+":53", r.contender.pause())
		defer second.stop()
	}
	<-time.After(r.contender.rest() + rand.N(max(r.contender.period, time.Millisecond)))
	begin := time.Now() // before the act: what the act takes counts
	if err := deaths[death](m); err != nil {
		return err
	}
	addr := m.host.Addr
	if err := await("gone", r.contender.patience, func() bool { return !p.leftAt(addr, begin).IsZero() }); err != nil {
		r.missed[death]++
	} else {
		gone := p.leftAt(addr, begin)
		r.kills[death] = append(r.kills[death], gone.Sub(begin))
		if second != nil {
			if err := await("gone from the secondary", 10*time.Second, func() bool { return !second.leftAt(addr, begin).IsZero() }); err != nil {
				return err
			}
			r.lag = append(r.lag, second.leftAt(addr, begin).Sub(gone))
		}
		log.Printf("%s, %s: %s", r.contender.name, death, gone.Sub(begin).Round(time.Millisecond))
	}
	if r.contender.fresh {
		return nil
	}
	<-time.After(dead)
	if err := m.revive(); err != nil {
		return err
	}
	return await("the member answered again", 5*time.Minute, func() bool { return p.answers(addr) })
}

// loss counts the removals of living members while a fifth of the packets to
// them, or of the beats from them, is lost.
func (r *result) loss(o options, s *stage, p *poller) error {
	r.lossTime = time.Minute
	if o.quick {
		r.lossTime = 10 * time.Second
	}
	<-time.After(quiet)
	before := p.removals()
	for _, m := range s.members {
		to, from := 0.2, 0.0
		if m.beat != nil {
			to, from = from, to
		}
		if err := m.host.Lose(to, from); err != nil {
			return err
		}
	}
	<-time.After(r.lossTime)
	r.removals = p.removals() - before
	return nil
}

// failOpen takes down one member after the other and notes what is answered
// when nothing has changed for a while.
func (r *result) failOpen(s *stage, p *poller) error {
	death := r.contender.deaths[0]
	for i, m := range s.members {
		<-time.After(quiet)
		if err := deaths[death](m); err != nil {
			return err
		}
		// The last death may change nothing, or change the answer back to all.
		<-time.After(r.contender.patience)
		r.open[i] = s.describe(p.answer(), i+1)
	}
	return nil
}

// describe says which of the members an answer holds.
func (s *stage) describe(answer []netip.Addr, down int) string {
	dead, alive := 0, 0
	for i, m := range s.members {
		for _, addr := range answer {
			if addr != m.host.Addr {
				continue
			}
			if i < down {
				dead++
			} else {
				alive++
			}
		}
	}
	switch {
	case len(answer) == 0:
		return "nothing"
	case dead == 0:
		return fmt.Sprintf("%d alive", alive)
	case alive == 0 && dead < len(s.members):
		return fmt.Sprintf("%d dead", dead)
	case dead+alive == len(s.members):
		return "all"
	}
	return fmt.Sprintf("%d alive, %d dead", alive, dead)
}
