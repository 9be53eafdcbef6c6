package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/job"
	"upkeep/internal/task"
	"upkeep/internal/zone"
)

// agentPublishers are the bind publishers that agents carry out on name servers
// elsewhere. They know which zones share include files there.
type agentPublishers struct {
	jobs *job.Dispatcher

	mu   sync.Mutex
	dirs map[agentDir]map[string]int // zones, and how many publishers each has
}

type agentDir struct{ agent, path string }

func newAgentPublishers(jobs *job.Dispatcher) *agentPublishers {
	return &agentPublishers{jobs: jobs, dirs: map[agentDir]map[string]int{}}
}

// agentPublisher publishes a zone by zone.publish jobs. The agent checks, writes,
// reloads, looks at what is served, rolls back, and chooses the serial, just as
// the publisher of this machine would; what the listed name servers answer is
// asked from here all the same.
type agentPublisher struct {
	all      *agentPublishers
	dir      agentDir
	zone     upkeep.Zone // without what the agent has no need of
	declared upkeep.Publisher
	errand   *job.Errand
	notice   func(zone, what, why string)
	now      func() time.Time

	mu     sync.Mutex
	told   int64 // the job whose notices were passed on
	doubt  bool
	look   time.Time // when a doubt is next acted upon
	pause  time.Duration
	closed bool
}

// A doubt costs a job, and a secondary that is off for a day is doubted all day.
const (
	doubtFirst = 30 * time.Second
	doubtMost  = time.Hour
)

func (a *agentPublishers) publisher(z upkeep.Zone, declared upkeep.Publisher, notice func(zone, what, why string), news func()) *agentPublisher {
	dir := agentDir{declared.Agent, declared.IncludeDir}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dirs[dir] == nil {
		a.dirs[dir] = map[string]int{}
	}
	a.dirs[dir][z.Name]++
	return &agentPublisher{
		all: a, dir: dir, declared: declared, errand: a.jobs.Errand(declared.Agent, "upkeep", news), notice: notice, now: time.Now,
		zone: upkeep.Zone{Name: z.Name, Publishers: []upkeep.Publisher{declared}, TTL: z.TTL, SOA: z.SOA},
	}
}

// sharing are the zones that include the files of a publisher.
func (a *agentPublishers) sharing(dir agentDir) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for name := range a.dirs[dir] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Doubt has the agent look the next time, though nothing has changed.
func (p *agentPublisher) Doubt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubt = true
}

// doubted takes a doubt that is due.
func (p *agentPublisher) doubted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	switch {
	case !p.doubt:
		p.look, p.pause = time.Time{}, 0
		return false
	case now.Before(p.look):
		return false
	}
	p.doubt = false
	p.pause = min(max(2*p.pause, doubtFirst), doubtMost)
	p.look = now.Add(p.pause)
	return true
}

// Publish implements [zone.Publisher].
func (p *agentPublisher) Publish(ctx context.Context, c zone.Content) (uint32, error) {
	if _, err := c.Normal(); err != nil {
		return 0, err
	}
	payload := task.ZonePublish{Zone: p.zone, Publisher: p.declared, Sets: []task.Set{}}
	for _, set := range c.Sets {
		one := task.Set{Owner: set.Owner, TTL: int(set.TTL / time.Second), Addresses: []string{}}
		for _, addr := range set.Addresses {
			one.Addresses = append(one.Addresses, addr.String())
		}
		payload.Sets = append(payload.Sets, one)
	}
	want, err := json.Marshal(payload)
	if err != nil {
		return 0, err
	}
	payload.Sharing = p.all.sharing(p.dir) // which other zones there are makes nothing to publish
	done, err := p.errand.Do(ctx, want, payload, p.doubted())
	if err != nil {
		return 0, err
	}
	var result task.ZoneResult
	if err := json.Unmarshal(done.Result, &result); err != nil {
		return 0, fmt.Errorf("job %d on %s: reading what the agent told: %w", done.ID, p.declared.Agent, err)
	}
	p.pass(done.ID, result.Notices)
	return result.Serial, nil
}

// pass tells what an agent noticed, once for each job.
func (p *agentPublisher) pass(id int64, notices []task.ZoneNotice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told == id {
		return
	}
	p.told = id
	for _, n := range notices {
		p.notice(p.zone.Name, n.What, "on "+p.declared.Agent+": "+n.Why)
	}
}

// Close implements [zone.Publisher].
func (p *agentPublisher) Close() error {
	p.all.mu.Lock()
	if zones := p.all.dirs[p.dir]; !p.closed {
		if zones[p.zone.Name]--; zones[p.zone.Name] == 0 {
			delete(zones, p.zone.Name)
		}
		if len(zones) == 0 {
			delete(p.all.dirs, p.dir)
		}
	}
	p.closed = true
	p.all.mu.Unlock()
	return p.errand.Close()
}
