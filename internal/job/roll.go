package job

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

// roll is every site with its state, in memory, so that lists are not made by
// looking at ten thousand sites. What may have changed is told by the store after
// each of its transactions, and looked at again when somebody asks.
type roll struct {
	reading sync.Mutex // one reader at a time brings it up to date
	entries map[string]rollEntry
	names   []string  // of entries, sorted
	order   []string  // the same as lists show them
	asked   time.Time // when somebody last did
	// touched are the sites that were looked at while all are; nil when they are not.
	touched map[string]bool

	mu       sync.Mutex
	sites    map[string]bool // to be looked at again
	accounts map[string]bool // whose sites are
	servers  map[string]bool // on which sites are
}

type rollEntry struct {
	account, state string
	servers        []string
	text           string // what can be searched for
}

// on reports whether the site is on one of some servers.
func (e rollEntry) on(servers map[string]bool) bool {
	return slices.ContainsFunc(e.servers, func(server string) bool { return servers[server] })
}

// rereading is how often all sites are looked at though nothing was told of them:
// somebody may have written past the store.
const rereading = time.Minute

// many is how many sites are looked at one by one; of more, all are.
const many = 2000

// tell notes what a transaction may have changed.
func (r *roll) tell(news store.JobNews) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sites == nil {
		r.sites, r.accounts = map[string]bool{}, map[string]bool{}
	}
	for _, site := range news.Sites {
		r.sites[site] = true
	}
	for _, job := range news.Changed {
		if about := object(job); about.Kind == upkeep.KindSite {
			r.sites[about.Name] = true
		}
	}
	for _, account := range news.Accounts {
		r.accounts[account] = true
	}
}

// tellServer notes that sites on a server may be in another state than before.
func (r *roll) tellServer(server string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers == nil {
		r.servers = map[string]bool{}
	}
	r.servers[server] = true
}

// take returns what is to be looked at again, and notes that it is.
func (r *roll) take() (sites, accounts, servers map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sites, accounts, servers = r.sites, r.accounts, r.servers
	r.sites, r.accounts, r.servers = map[string]bool{}, map[string]bool{}, map[string]bool{}
	return sites, accounts, servers
}

// giveBack is for what could not be looked at.
func (r *roll) giveBack(sites, accounts, servers map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.sites, sites)
	maps.Copy(r.accounts, accounts)
	maps.Copy(r.servers, servers)
}

// refresh brings the roll up to date; r.reading is held.
func (d *Dispatcher) refresh(ctx context.Context, r *roll) error {
	sites, accounts, servers := r.take()
	var names []string
	for name := range sites {
		names = append(names, name)
	}
	for name, entry := range r.entries {
		if (accounts[entry.account] || entry.on(servers)) && !sites[name] {
			names = append(names, name)
		}
	}
	whole := r.entries == nil || len(names) > many
	if !whole && len(names) == 0 {
		return nil
	}
	if whole {
		names = nil
	}
	slices.Sort(names)
	found, err := d.sites(ctx, names)
	if err != nil {
		r.giveBack(sites, accounts, servers)
		return err
	}
	if whole {
		r.entries, r.touched = make(map[string]rollEntry, len(found)), nil
	}
	for _, name := range names { // those that are not found are declared no more
		delete(r.entries, name)
		if r.touched != nil {
			r.touched[name] = true
		}
	}
	for _, site := range found {
		r.entries[site.Name] = entryOf(site)
	}
	r.sort()
	return nil
}

// reread looks at all sites again, if lists of them are asked for. Nobody who asks
// meanwhile waits for it.
func (d *Dispatcher) reread(ctx context.Context) {
	r := &d.roll
	r.reading.Lock()
	idle := r.entries == nil || d.now().Sub(r.asked) > rereading
	if !idle {
		r.touched = map[string]bool{}
	}
	r.reading.Unlock()
	if idle {
		return
	}
	found, err := d.sites(ctx, nil)
	r.reading.Lock()
	defer r.reading.Unlock()
	touched := r.touched
	r.touched = nil
	if touched == nil { // all were looked at in between
		return
	}
	if err != nil {
		d.log.Error("looking at all sites", "err", err)
		return
	}
	entries := make(map[string]rollEntry, len(found))
	for _, site := range found {
		if !touched[site.Name] {
			entries[site.Name] = entryOf(site)
		}
	}
	for name := range touched {
		if entry, still := r.entries[name]; still {
			entries[name] = entry
		}
	}
	r.entries = entries
	r.sort()
}

func entryOf(site upkeep.SiteStatus) rollEntry {
	text := append([]string{site.Account}, site.Names...)
	servers := make([]string, len(site.Servers))
	for i, served := range site.Servers {
		servers[i] = served.Server
	}
	text = append(text, servers...)
	return rollEntry{account: site.Account, state: site.State, servers: servers, text: strings.Join(text, "\n")}
}

// sort puts what needs a look first.
func (r *roll) sort() {
	r.names = slices.AppendSeq(r.names[:0], maps.Keys(r.entries))
	slices.Sort(r.names)
	r.order = append(r.order[:0], r.names...)
	slices.SortStableFunc(r.order, func(a, b string) int {
		return slices.Index(listed, r.entries[a].state) - slices.Index(listed, r.entries[b].state)
	})
}

// listed are the states of sites in the order of lists.
var listed = []string{upkeep.SiteFailed, upkeep.SitePending, upkeep.SiteSuspended, upkeep.SiteLive}

// SitePage returns a part of the list of sites.
func (d *Dispatcher) SitePage(ctx context.Context, f upkeep.SiteFilter) (upkeep.SitePage, error) {
	page, names, err := d.pageOf(ctx, f)
	if err != nil || len(names) == 0 {
		return page, err
	}
	// As they are now: what one waits for depends on more than the store tells.
	wanted := slices.Sorted(slices.Values(names))
	if len(wanted) > many {
		wanted = nil
	}
	found, err := d.sites(ctx, wanted)
	by := make(map[string]upkeep.SiteStatus, len(found))
	for _, site := range found {
		by[site.Name] = site
	}
	for _, name := range names {
		if site, still := by[name]; still {
			page.Sites = append(page.Sites, site)
		}
	}
	return page, err
}

// pageOf counts sites, and names those on a page.
func (d *Dispatcher) pageOf(ctx context.Context, f upkeep.SiteFilter) (upkeep.SitePage, []string, error) {
	r := &d.roll
	r.reading.Lock()
	defer r.reading.Unlock()
	page := upkeep.SitePage{Counts: map[string]int{}, None: true}
	if err := d.refresh(ctx, r); err != nil {
		return page, nil, err
	}
	r.asked = d.now()
	holds := strings.ToLower(strings.TrimSpace(f.Holds))
	order := r.order
	if f.ByName {
		first, is := slices.BinarySearch(r.names, f.After)
		if is {
			first++
		}
		page.None = page.None && first == 0
		order = r.names[first:]
	}
	var names []string
	for _, name := range order {
		entry := r.entries[name]
		if f.Account != "" && entry.account != f.Account {
			continue
		}
		page.None = false
		if !strings.Contains(entry.text, holds) {
			continue
		}
		page.Counts[entry.state]++
		if f.State != "" && entry.state != f.State {
			continue
		}
		if page.Of++; page.Of > f.Skip && len(names) < f.Limit {
			names = append(names, name)
			page.Last = name
		}
	}
	return page, names, nil
}
