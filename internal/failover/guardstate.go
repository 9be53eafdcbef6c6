package failover

import (
	"cmp"
	"slices"
	"time"

	"upkeep"
)

// GuardState is a guard's memory, for keeping across restarts: a monitor that is
// restarted while it is cut off must go on knowing that, and one whose hosts have
// been dead for long must not take them for fresh failures.
type GuardState struct {
	// Failing are the targets that fail, with the time at which their host began
	// to; zero where that is not known.
	Failing  map[string]time.Time `json:"failing,omitempty"`
	Episodes []Episode            `json:"episodes,omitempty"`
}

// Episode is a mass failure as pools with one fraction see it.
type Episode struct {
	Share    float64   `json:"share"`
	From     time.Time `json:"from"`
	Began    time.Time `json:"began"`
	Size     int       `json:"size"`
	Released bool      `json:"released,omitempty"`
	Ended    time.Time `json:"ended,omitzero"`
}

// Revision changes whenever a mass failure begins, ends or is released.
func (g *Guard) Revision() int { return g.revision }

// Snapshot returns what [RestoreGuard] needs.
func (g *Guard) Snapshot() GuardState {
	s := GuardState{Failing: map[string]time.Time{}}
	for target, failing := range g.targets {
		if failing {
			s.Failing[target] = g.hosts[hostOf(target)].since
		}
	}
	for share, e := range g.episodes {
		s.Episodes = append(s.Episodes, Episode{Share: share, From: e.from, Began: e.began, Size: e.size, Released: e.released, Ended: e.ended})
	}
	slices.SortFunc(s.Episodes, func(a, b Episode) int { return cmp.Compare(a.Share, b.Share) })
	return s
}

// RestoreGuard returns a guard with the memory of s. Targets that are declared no
// more must be forgotten, those that are [Guard.Introduce]d. What a clock that was
// set back puts into the future began now.
func RestoreGuard(s GuardState, now time.Time) *Guard {
	g := NewGuard()
	g.latest = now
	past := func(t time.Time) time.Time {
		if t.After(now) {
			return now
		}
		return t
	}
	targets := make([]string, 0, len(s.Failing))
	for target := range s.Failing {
		targets = append(targets, target)
	}
	slices.SortFunc(targets, func(a, b string) int {
		return cmp.Or(past(s.Failing[a]).Compare(past(s.Failing[b])), cmp.Compare(a, b))
	})
	for _, e := range s.Episodes {
		g.episodes[e.Share] = &episode{from: past(e.From), began: past(e.Began), size: e.Size, released: e.Released, ended: past(e.Ended)}
	}
	for _, target := range targets {
		g.targets[target] = true
		name := hostOf(target)
		h := g.hosts[name]
		if h == nil {
			h = &host{}
			g.hosts[name] = h
			h.targets, h.failing = 1, 1
			g.began(name, h, past(s.Failing[target]))
			continue
		}
		h.targets, h.failing = h.targets+1, h.failing+1
	}
	return g
}

// Introduce makes a target known by what was stored of its detector, if the
// guard does not know it: as one that fails, if it was down then, as one that
// answers, if it ever did.
func (g *Guard) Introduce(target string, s State, now time.Time) {
	_, known := g.targets[target]
	switch {
	case known:
	case s.Verdict == upkeep.Down && !s.LastOK.IsZero():
		g.targets[target] = true
		g.change(target, 1, 1, time.Time{})
	case s.Verdict == upkeep.Up || s.Verdict == upkeep.Unknown && !s.LastOK.IsZero():
		g.Observe(target, false, now)
	}
}
