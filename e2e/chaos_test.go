package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/declare"
	"upkeep/internal/testkit"
)

// changes is how many changes are made; UPKEEP_E2E_CHANGES asks for more.
func changes(t *testing.T) int {
	t.Helper()
	text := os.Getenv("UPKEEP_E2E_CHANGES")
	if text == "" {
		return 500
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("UPKEEP_E2E_CHANGES=%s is not a number of changes", text)
	}
	return n
}

// Sites are added, changed, moved, suspended, removed and put back at random
// while control, agents, web servers and connections of the database are killed
// at random. Nobody repairs anything afterwards, and yet every site answers as it
// is declared on each of its servers, every job has ended, and the disks equal the
// database.
func TestSitesKilledAtRandom(t *testing.T) {
	t.Parallel()
	h := newHosting(t, 3)
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("UPKEEP_E2E_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("seed %d", seed)
	c := &chaos{
		hosting: h, random: rand.New(rand.NewPCG(seed, 0)), sites: map[string]upkeep.Site{}, suspended: map[string]bool{},
		past: map[string][]string{}, kinds: map[string]int{},
	}
	c.declareAccounts()
	stop := c.trouble(rand.New(rand.NewPCG(seed, 1)))
	begin, n := time.Now(), changes(t)
	for i := range n {
		c.change(i)
		if t.Failed() {
			break
		}
	}
	faults := stop()
	t.Logf("%d changes in %s: %d taken, %d refused, %d tried again; %v", n, time.Since(begin), c.taken, c.refused, c.lost, c.kinds)
	t.Logf("meanwhile: %v", faults)
	if c.taken < n*7/10 {
		t.Errorf("only %d of %d changes were taken", c.taken, n)
	}
	h.awaitControl()
	h.awaitAgents()
	begin = time.Now()
	h.settled(3 * time.Minute)
	t.Logf("%d sites; all jobs had ended %s later", len(c.sites), time.Since(begin))
	c.whole()
}

// chaos makes changes at random, and knows what is declared.
type chaos struct {
	*hosting
	random    *rand.Rand
	sites     map[string]upkeep.Site
	suspended map[string]bool     // accounts
	past      map[string][]string // documents of each site, as they were declared
	made      int                 // sites, ever

	taken, refused, lost int
	kinds                map[string]int
}

var chaosAccounts = []string{"acme", "bob", "carol", sharedAccount}

func (c *chaos) declareAccounts() {
	for _, name := range chaosAccounts {
		c.must(c.apply(context.Background(), upkeep.Account{Name: name}))
	}
}

// step is one change: what is declared after it, and how it is made.
type step struct {
	what string
	// after has the sites that it is about; nil for one that is gone then, or,
	// where any is set, may be as it ever was.
	after   map[string]*upkeep.Site
	any     bool
	account string // that is suspended, or works again
	do      func(context.Context) error
}

// change makes one change, and again where it was lost: nobody was there to take
// it, or it was interrupted and undone.
func (c *chaos) change(i int) {
	c.t.Helper()
	s := c.choose()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		err := s.do(ctx)
		cancel()
		taken := c.look(s)
		if taken || err == nil {
			c.taken++
			c.kinds[s.what]++
		}
		if err == nil && !taken {
			c.t.Errorf("change %d, %s %v: was accepted, and is not declared", i, s.what, slices.Collect(maps.Keys(s.after)))
		}
		if taken || err == nil {
			break
		}
		var problem *wire.Problem
		var failed *verbError
		if errors.As(err, &problem) && problem.Status < 500 || errors.As(err, &failed) && failed.refused() {
			c.t.Logf("change %d, %s %v: refused: %v", i, s.what, slices.Collect(maps.Keys(s.after)), err)
			c.refused++
			break
		}
		c.lost++
		c.awaitControl()
	}
	<-time.After(time.Duration(c.random.Int64N(int64(200 * time.Millisecond))))
}

// look reads what is declared now of what a step is about, which must be as before
// or as after it, and reports which.
func (c *chaos) look(s step) (taken bool) {
	c.t.Helper()
	if s.account != "" {
		found := c.declared(upkeep.KindAccount, s.account)
		var is upkeep.Account
		c.must(json.Unmarshal([]byte(found), &is))
		taken = is.Suspended != c.suspended[s.account]
		c.suspended[s.account] = is.Suspended
		return taken
	}
	first, same := true, 0
	for _, name := range slices.Sorted(maps.Keys(s.after)) {
		before, had := c.sites[name]
		now := c.declared(upkeep.KindSite, name)
		new := ""
		if want := s.after[name]; want != nil {
			new = document(*want)
		}
		old := ""
		if had {
			old = document(before)
		}
		mine := false
		switch {
		case s.any:
			mine = now != old
			if mine && !slices.Contains(c.past[name], now) {
				c.t.Errorf("%s %s: is declared as it never was: %s", s.what, name, now)
			}
		case now == new:
			mine = true
		case now != old:
			c.t.Errorf("%s %s: is declared as\n%s, and was before\n%s, and was to be\n%s", s.what, name, now, old, new)
		}
		c.keep(name, now)
		if !s.any && new == old {
			same++
			continue
		}
		if !first && mine != taken {
			c.t.Errorf("%s %s: was taken by half", s.what, name)
		}
		first, taken = false, mine
	}
	return taken || same == len(s.after)
}

// keep remembers what is declared of a site.
func (c *chaos) keep(name, now string) {
	if now == "" {
		delete(c.sites, name)
		return
	}
	var site upkeep.Site
	c.must(json.Unmarshal([]byte(now), &site))
	c.sites[name] = site
	if !slices.Contains(c.past[name], now) {
		c.past[name] = append(c.past[name], now)
	}
}

// declared is the document of an object, "" when there is none.
func (c *chaos) declared(kind, name string) (text string) {
	c.t.Helper()
	testkit.Eventually(c.t, time.Minute, func() (bool, string) {
		yaml, err := c.api().ObjectsYAML(context.Background(), kind, name)
		if errors.Is(err, upkeep.ErrNotFound) {
			text = ""
			return true, ""
		}
		if err != nil {
			return false, err.Error()
		}
		objects, err := declare.Read(name, yaml)
		c.must(err)
		text = document(objects[0])
		return true, ""
	})
	return text
}

// document is an object as JSON.
func document(o upkeep.Object) string {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// verbError is a verb that failed.
type verbError struct {
	exit   int
	output string
}

func (e *verbError) Error() string { return fmt.Sprintf("exit %d: %s", e.exit, e.output) }

// refused reports whether control was there and did not want to.
func (e *verbError) refused() bool { return e.exit >= 3 && e.exit <= 5 }

func (c *chaos) verb(args ...string) func(context.Context) error {
	return func(context.Context) error {
		if output, exit := c.upkeep(args...); exit != 0 {
			return &verbError{exit, output}
		}
		return nil
	}
}

// choose makes up a change.
func (c *chaos) choose() step {
	r := c.random
	roll := r.IntN(100)
	if len(c.sites) < 20 || roll < 15 && len(c.sites) < 80 {
		return c.add()
	}
	name := pick(r, slices.Sorted(maps.Keys(c.sites))...)
	site := c.sites[name]
	switch {
	case roll < 60:
		e := pick(r, edits...)
		before := document(site)
		for range 5 {
			e.do(r, &site)
			if document(site) != before {
				break
			}
		}
		return c.put(e.field, site)
	case roll < 70:
		return c.move(site)
	case roll < 80:
		verb := "suspend"
		if site.Suspended {
			verb = "resume"
		}
		site.Suspended = !site.Suspended
		return step{what: verb, after: map[string]*upkeep.Site{name: &site}, do: c.verb("site", verb, name)}
	case roll < 83:
		account := pick(r, chaosAccounts...)
		return step{what: "account", account: account, do: func(ctx context.Context) error {
			return c.apply(ctx, upkeep.Account{Name: account, Suspended: !c.suspended[account]})
		}}
	case roll < 90:
		if c.parent(name) {
			return c.put("same", site)
		}
		return step{what: "remove", after: map[string]*upkeep.Site{name: nil}, do: c.verb("site", "remove", name)}
	case roll < 95:
		return c.swap(site)
	}
	return c.undo()
}

func (c *chaos) put(what string, sites ...upkeep.Site) step {
	s := step{what: what, after: map[string]*upkeep.Site{}}
	var objects []upkeep.Object
	for _, site := range sites {
		s.after[site.Name] = &site
		objects = append(objects, site)
	}
	s.do = func(ctx context.Context) error { return c.apply(ctx, objects...) }
	return s
}

// servers are some servers, at least one.
func (c *chaos) servers() []string {
	var all []string
	for _, m := range c.machines {
		all = append(all, m.Name)
	}
	c.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+c.random.IntN(len(all))]
}

func (c *chaos) add() step {
	c.made++
	site := upkeep.Site{Name: fmt.Sprintf("s%d.test", c.made), Account: pick(c.random, chaosAccounts...), Servers: c.servers()}
	if site.Account == sharedAccount {
		site.Files = c.machines[0].Name
	}
	for range c.random.IntN(4) {
		pick(c.random, edits...).do(c.random, &site)
	}
	for _, name := range slices.Sorted(maps.Keys(c.sites)) {
		if parent := c.sites[name]; parent.SubOf == "" && parent.Root == "" && c.random.IntN(100) < 3 {
			site.Name, site.SubOf, site.Root, site.CGI = fmt.Sprintf("sub%d.%s", c.made, name), name, "", false
			site.Account, site.Servers, site.Files, site.Aliases = parent.Account, parent.Servers, parent.Files, nil
			return c.put("sub-site", site)
		}
	}
	return c.put("add", site)
}

// move has other servers answer for a site, and for those that live in its folder.
func (c *chaos) move(site upkeep.Site) step {
	if site.SubOf != "" {
		site = c.sites[site.SubOf]
	}
	site.Servers = c.servers()
	all := []upkeep.Site{site}
	for _, name := range slices.Sorted(maps.Keys(c.sites)) {
		if sub := c.sites[name]; sub.SubOf == site.Name {
			sub.Servers = site.Servers
			all = append(all, sub)
		}
	}
	return c.put("move", all...)
}

// parent reports whether other sites live in the folder of one.
func (c *chaos) parent(name string) bool {
	for _, site := range c.sites {
		if site.SubOf == name {
			return true
		}
	}
	return false
}

// swap gives a name of a site to another one of its account.
func (c *chaos) swap(from upkeep.Site) step {
	alias := "swap." + from.Name
	if !slices.Contains(from.Aliases, alias) {
		from.Aliases = append(slices.Clone(from.Aliases), alias)
		for _, other := range c.sites {
			if slices.Contains(other.Aliases, alias) {
				return c.put("same", other)
			}
		}
		return c.put("swap", from)
	}
	from.Aliases = slices.DeleteFunc(slices.Clone(from.Aliases), func(name string) bool { return name == alias })
	for _, name := range slices.Sorted(maps.Keys(c.sites)) {
		if to := c.sites[name]; to.Account == from.Account && name != from.Name {
			to.Aliases = append(slices.Clone(to.Aliases), alias)
			return c.put("swap", from, to)
		}
	}
	return c.put("swap", from)
}

// undo takes back the last change of a site, also of one that was removed.
func (c *chaos) undo() step {
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(c.past)) {
		if len(c.past[name]) > 1 {
			changed = append(changed, name)
		}
	}
	if len(changed) == 0 {
		return c.add()
	}
	name := pick(c.random, changed...)
	return step{what: "undo", any: true, after: map[string]*upkeep.Site{name: nil}, do: c.verb("site", "undo", name)}
}

// trouble kills and cuts at random until it is stopped, when all is mended, and
// tells how often what happened.
func (c *chaos) trouble(r *rand.Rand) (stop func() map[string]int) {
	ctx, cancel := context.WithCancel(context.Background())
	count := map[string]int{}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(r.Int64N(int64(2500 * time.Millisecond)))):
			}
			what, err := c.fault(r)
			count[what]++
			if err != nil {
				c.t.Errorf("%s: %v", what, err)
				return
			}
		}
	})
	return func() map[string]int { cancel(); done.Wait(); return count }
}

// fault does one bad thing, and starts what ended by it, as a service manager
// does.
func (c *chaos) fault(r *rand.Rand) (what string, err error) {
	m := pick(r, c.machines...)
	pause := func() { <-time.After(time.Duration(r.Int64N(int64(600 * time.Millisecond)))) }
	switch r.IntN(6) {
	case 0:
		c.killControl()
		pause()
		return "control killed", c.startControl()
	case 1:
		m.killAgent()
		pause()
		return "agents killed", m.startAgent(c.t)
	case 2:
		m.killFront()
		return "fronts killed", nil
	case 3:
		m.killApache()
		pause()
		return "Apaches killed", m.startApache()
	case 4:
		return "connections of the database cut", c.cutDatabase()
	}
	err = m.Blackhole()
	pause()
	return "servers cut off", errors.Join(err, m.Heal())
}

// whole asserts what must hold in the end.
func (c *chaos) whole() {
	c.t.Helper()
	status, err := c.api().Sites(context.Background(), "")
	c.must(err)
	if len(status) != len(c.sites) {
		c.t.Errorf("%d sites are declared, and were %d", len(status), len(c.sites))
	}
	others := map[string]string{}
	for _, site := range c.sites {
		for _, name := range site.Names() {
			others[name] = site.Name
		}
	}
	for _, s := range status {
		want := upkeep.SiteLive
		suspended := c.sites[s.Name].Suspended || c.suspended[s.Account]
		if suspended {
			want = upkeep.SiteSuspended
		}
		if s.State != want {
			c.t.Errorf("%s is %s, wanted %s: %s\n%s", s.Name, s.State, want, s.Reason, c.story(s))
			continue
		}
		site := c.sites[s.Name]
		c.must(c.writePages(site, site.Account))
		for _, server := range site.Servers {
			for _, fault := range c.faults(c.machine(server), site, suspended, others) {
				c.t.Error(fault)
			}
		}
	}
	if output, exit := c.upkeep("verify"); exit != 0 {
		c.t.Errorf("verify: exit %d\n%s", exit, output)
	}
	failed, err := c.jobs(upkeep.JobFailed)
	c.must(err)
	for _, j := range failed {
		c.t.Logf("job %d (%s %s on %s, generation %d) failed: %s", j.ID, j.Kind, j.Object, j.Server, j.Generation, j.Error)
	}
}

// story is all that is known of how a site came to be as it is.
func (c *chaos) story(s upkeep.SiteStatus) string {
	text := &strings.Builder{}
	fmt.Fprintf(text, "declared generation %d: %s\n", s.Generation, document(c.sites[s.Name]))
	for _, served := range s.Servers {
		fmt.Fprintf(text, "%+v\n", served)
	}
	jobs, err := c.api().Jobs(context.Background(), wire.JobFilter{Object: upkeep.KindSite + "/" + s.Name, Limit: 30})
	c.must(err)
	for _, j := range jobs {
		fmt.Fprintf(text, "%+v\n", j)
	}
	events, err := c.api().Events(context.Background(), client.EventFilter{Object: upkeep.KindSite + "/" + s.Name, Limit: 60})
	c.must(err)
	for _, e := range events {
		fmt.Fprintf(text, "%s %s %s %s %s\n", e.At.Format(time.StampMilli), e.Kind, e.Who, e.What, e.Why)
	}
	return text.String()
}
