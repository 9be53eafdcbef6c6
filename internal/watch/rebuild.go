package watch

import (
	"cmp"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"upkeep"
	"upkeep/internal/failover"
	"upkeep/internal/probe"
)

// rebuild makes what runs agree with what is declared. What did not change goes
// on undisturbed: its detectors keep what they learned, its publishers their
// connections.
//
// States are what was stored of pools and targets, nil but at the start. It
// returns the keys of states that belong to nothing any more.
func (w *Watch) rebuild(objects []upkeep.Declared, states map[string][]byte) (stale []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	stale = slices.Collect(maps.Keys(states))
	for name := range w.pools {
		stale = append(stale, poolKey(name))
	}
	for key := range w.targets {
		stale = append(stale, targetKey(key))
	}
	w.objects = objects
	w.rebuildPools(states)
	w.rebuildTargets(states)
	w.forgetRemembered()
	w.rebuildZones()
	stale = slices.DeleteFunc(stale, func(key string) bool { return w.owned(key) })
	specs := make(map[probe.Key]probe.Spec, len(w.targets))
	for key, t := range w.targets {
		specs[key] = t.spec
	}
	w.cfg.Prober.Set(specs)
	for name := range w.pools {
		w.dirty[name] = true
	}
	for _, z := range w.zones {
		if !w.hasPool(z.spec.Name) {
			z.offer(w.content(z.spec)) // static records only: no decision will bring it
		}
	}
	w.pending.signal()
	return stale
}

// owned reports whether a state belongs to what is declared.
func (w *Watch) owned(key string) bool {
	kind, name, _ := strings.Cut(key, "/")
	switch kind {
	case "pool":
		return w.pools[name] != nil
	case "target":
		return w.targets[probe.Key(name)] != nil
	}
	return true // somebody else's, such as a publisher's memory
}

func (w *Watch) hasPool(zone string) bool {
	for _, p := range w.pools {
		if slices.Contains(p.spec.Zones, zone) {
			return true
		}
	}
	return false
}

func (w *Watch) rebuildPools(states map[string][]byte) {
	pools := map[string]*pool{}
	for _, d := range w.objects {
		spec, is := d.Object.(upkeep.Pool)
		if !is {
			continue
		}
		p := w.pools[spec.Name]
		if p == nil {
			p = &pool{}
			if blob := states[poolKey(spec.Name)]; blob != nil {
				if err := json.Unmarshal(blob, &p.state); err != nil {
					w.log.Error("reading the stored state of a pool; starting it afresh", "pool", spec.Name, "err", err)
					p.state = poolState{}
				}
			}
		}
		p.spec, p.generation = spec.WithDefaults(), d.Generation
		p.keys = make([]probe.Key, len(p.spec.Members))
		for i, m := range p.spec.Members {
			p.keys[i] = probe.KeyOf(m.Target(), memberCheck(p.spec.Check, m))
		}
		p.anchors = make([]probe.Key, len(p.spec.Policy.Anchors))
		for i, anchor := range p.spec.Policy.Anchors {
			p.anchors[i] = probe.KeyOf(anchor.String(), anchorCheck())
		}
		pools[spec.Name] = p
	}
	for name := range w.pools {
		if pools[name] == nil {
			w.guard.ForgetPool(name)
		}
	}
	w.pools = pools
}

func (w *Watch) rebuildTargets(states map[string][]byte) {
	old := w.targets
	w.targets = make(map[probe.Key]*target, len(old))
	defer func() {
		for key := range old {
			if w.targets[key] == nil {
				w.guard.Forget(string(key))
			}
		}
	}()
	for name, p := range w.pools {
		params := map[int]*failover.Params{} // by port: members of a pool share all else
		for i, m := range p.spec.Members {
			check := memberCheck(p.spec.Check, m)
			t := w.ensureTarget(old, states, params, p.keys[i], m.Target(), m.Address.String(), check)
			t.users = append(t.users, member{name, i})
		}
		for i, anchor := range p.spec.Policy.Anchors {
			anchored := map[int]*failover.Params{}
			t := w.ensureTarget(old, states, anchored, p.anchors[i], anchor.String(), anchor.String(), anchorCheck())
			t.users = append(t.users, member{name, -1})
		}
	}
}

// ensureTarget takes the target over from old, or makes it from its stored state.
func (w *Watch) ensureTarget(old map[probe.Key]*target, states map[string][]byte, params map[int]*failover.Params,
	key probe.Key, address, name string, check upkeep.Check) *target {
	if t := w.targets[key]; t != nil {
		return t
	}
	if t := old[key]; t != nil {
		t.users = nil
		w.targets[key] = t
		return t
	}
	if params[check.Port] == nil {
		params[check.Port] = failover.NewParams(check)
	}
	t := &target{key: key, spec: probe.Spec{Target: address, Check: check, Name: name}}
	t.spec.Observe = func(r probe.Result) probe.Next { return t.observe(r, &w.pending) }
	w.restore(t, params[check.Port], states[targetKey(key)])
	w.targets[key] = t
	return t
}

// restore gives t what was stored of it, nil for nothing.
func (w *Watch) restore(t *target, params *failover.Params, blob []byte) {
	t.detector = failover.NewDetector(params)
	if blob == nil {
		return
	}
	var state targetState
	if err := json.Unmarshal(blob, &state); err != nil {
		w.log.Error("reading what was learned of a target; learning afresh", "target", t.key, "err", err)
		return
	}
	t.detector = failover.Restore(params, state.State, w.cfg.Now())
	w.guard.Introduce(string(t.key), state.State, w.cfg.Now())
	t.addr, t.spec.Known = state.Address, state.Address
}

func (w *Watch) rebuildZones() {
	zones, made := map[string]*zoneRun{}, &sync.WaitGroup{}
	made.Add(1) // until all have begun
	defer made.Done()
	for _, d := range w.objects {
		spec, is := d.Object.(upkeep.Zone)
		if !is {
			continue
		}
		spec = spec.WithDefaults()
		spec.Servers = w.servers(spec)
		previous := w.zones[spec.Name]
		if previous != nil && reflect.DeepEqual(previous.spec, spec) {
			zones[spec.Name] = previous
			continue
		}
		zones[spec.Name] = w.startZone(spec, previous, made)
	}
	for name, z := range w.zones {
		if zones[name] != z {
			z.stop()
		}
	}
	w.zones = zones
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// servers are the name servers that prove a zone: those listed, else the ones
// that its publishers write to, and upkeep's own secondaries.
func (w *Watch) servers(z upkeep.Zone) []string {
	if len(z.Servers) > 0 {
		return z.Servers
	}
	var servers []string
	add := func(server string) {
		if server != "" && !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	for _, p := range z.Publishers {
		if p.Agent != "" {
			continue // where its named is asked from here is for the zone to list
		}
		if p.Type != upkeep.PublishTransfer {
			add(cmp.Or(p.Server, "127.0.0.1:53"))
			continue
		}
		add(w.cfg.DNS)
		for _, secondary := range p.Secondaries {
			add(secondary)
		}
	}
	return servers
}
