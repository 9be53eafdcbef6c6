package job

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/task"
)

// plan is what has to be done after a change, in the order in which it is to be
// done.
type plan struct {
	who  string
	jobs []store.NewJob
	// applies are the site.apply jobs of this plan, by site and server.
	applies map[[2]string]int
	around  around
	// messages are for accounts.
	messages []message
}

// message is what an account is told about an object of its.
type message struct{ account, object, text string }

// around is what a plan looks at beside the change.
type around struct {
	// sites are all that are declared after it; those that cannot be read are left
	// out.
	sites []upkeep.Declared
	// serving are the servers that have something of a site, by the name of each of
	// [removable].
	serving map[string][]string
	// users are the servers on which accounts that are deleted had sites.
	users map[string][]string
	// unread is how many messages accounts have that they did not read.
	unread map[string]int
}

// follow says which jobs follow from a change of declared things that who made.
// What is in a job beyond its object follows from what is declared when it is
// sent.
func follow(changes []store.Altered, around around, who string) []store.NewJob {
	p := plan{who: who, applies: map[[2]string]int{}, around: around}
	for _, change := range ordered(changes) {
		switch change.Ref.Kind {
		case upkeep.KindSite:
			p.site(change)
		case upkeep.KindAccount:
			p.account(change, p.around.sites)
		}
	}
	p.foldersLast(changes)
	p.users(changes)
	p.notify()
	return p.jobs
}

// foldersLast has a folder go to the trash after the sites that lived in it have left:
// one that cannot leave, since it does not answer elsewhere, needs its pages still. On
// a files server the web servers are waited for that mount them from there.
func (p *plan) foldersLast(changes []store.Altered) {
	removals, parent, atOnce := map[string][]int{}, map[string]string{}, map[string]bool{}
	for i, job := range p.jobs {
		if job.Job.Kind == upkeep.JobSiteRemove {
			removals[job.Job.Object] = append(removals[job.Job.Object], i)
		}
	}
	for _, change := range changes {
		if was, is := change.Old.(upkeep.Site); is && was.SubOf != "" {
			parent[change.Ref.String()] = upkeep.KindSite + "/" + was.SubOf
		}
		is, put := change.New.(upkeep.Site)
		atOnce[change.Ref.String()] = put && is.Suspended // it is to answer nowhere
	}
	for sub, of := range parent {
		for _, i := range removals[of] {
			if p.keepsFiles(i) || atOnce[of] {
				continue
			}
			for _, j := range removals[sub] {
				if p.jobs[j].Job.Server == p.jobs[i].Job.Server || p.keepsFiles(j) {
					p.jobs[i].Behind = append(p.jobs[i].Behind, j)
				}
			}
			slices.Sort(p.jobs[i].Behind)
		}
	}
}

// keepsFiles reports whether a site.remove of the plan leaves the folder alone.
func (p *plan) keepsFiles(i int) bool {
	var removal task.SiteRemove
	return json.Unmarshal(p.jobs[i].Payload, &removal) == nil && removal.KeepFiles
}

// needsSites reports whether follow looks at its list of sites, which costs the
// reading of them all.
func needsSites(changes []store.Altered) bool {
	return slices.ContainsFunc(changes, func(c store.Altered) bool { return c.Ref.Kind == upkeep.KindAccount && accountMatters(c) })
}

// removable are the names of the sites that a change may take from servers.
func removable(changes []store.Altered, sites []upkeep.Declared) (names []string) {
	accounts := map[string]bool{}
	for _, c := range changes {
		switch {
		case c.Ref.Kind == upkeep.KindSite && c.Old != nil:
			names = append(names, c.Ref.Name)
		case c.Ref.Kind == upkeep.KindAccount && accountMatters(c):
			accounts[c.Ref.Name] = true
		}
	}
	for _, declared := range sites {
		if site := declared.Object.(upkeep.Site); accounts[site.Account] {
			names = append(names, site.Name)
		}
	}
	return names
}

// ordered puts sites whose folders others live in before those, as a person would
// read it.
func ordered(changes []store.Altered) []store.Altered {
	changes = slices.Clone(changes)
	slices.SortStableFunc(changes, func(a, b store.Altered) int { return depth(a.New) - depth(b.New) })
	return changes
}

func depth(o upkeep.Object) int {
	if site, is := o.(upkeep.Site); is && site.SubOf != "" {
		return 1
	}
	return 0
}

func (p *plan) site(c store.Altered) {
	was, _ := c.Old.(upkeep.Site) // the zero site is on no server
	is, put := c.New.(upkeep.Site)
	account := is.Account
	if !put {
		account = was.Account
	}
	var applied []int
	if put {
		applied = p.apply(is, c.Generation)
	}
	if c.Old != nil {
		// A site leaves a server only when it answers everywhere else: if that
		// fails, the old server goes on. One that is suspended is to answer nowhere.
		if put && is.Suspended {
			applied = nil
		}
		p.remove(was, is.Servers, upkeep.Job{Account: account, Object: c.Ref.String(), Generation: c.Generation}, applied)
	}
	p.tell(account, c.Ref.String(), siteNews(c))
}

// remove adds the jobs that take a site from all servers that have something of
// it but those that stay. These are not only the servers of the generation before:
// a move that failed or was cancelled leaves the site where it was before that.
func (p *plan) remove(was upkeep.Site, stay []string, job upkeep.Job, behind []int) {
	job.Kind = upkeep.JobSiteRemove
	servers := slices.Clone(was.Servers)
	for _, server := range p.around.serving[was.Name] {
		if !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	remove := func(server string, keep bool, behind []int) int {
		job.Server = server
		return p.add(job, task.SiteRemove{Name: was.Name, Account: was.Account, Generation: job.Generation, KeepFiles: keep}, behind...)
	}
	gone := len(stay) == 0 && was.Files != "" && was.SubOf == "" // with a folder of its own
	var removed []int
	for _, server := range servers {
		if !slices.Contains(stay, server) && !(gone && server == was.Files) {
			removed = append(removed, remove(server, was.Files != "", behind))
		}
	}
	if gone {
		// Its folder goes to the trash once no server answers with what is in it. The
		// files of a site that moves to another server are left for a person to move.
		remove(was.Files, false, removed)
	}
}

// users adds the jobs that remove the system users of deleted accounts, after all
// else that is to be done for them there.
func (p *plan) users(changes []store.Altered) {
	for _, change := range changes {
		was, is := change.Old.(upkeep.Account)
		if !is || change.New != nil {
			continue
		}
		for _, server := range p.around.users[was.Name] {
			i := p.add(upkeep.Job{Account: was.Name, Server: server, Kind: upkeep.JobUserRemove, Object: change.Ref.String()}, task.UserRemove{Tenant: tenant(was)})
			p.jobs[i].BehindAccount = true
		}
	}
}

// apply adds the jobs that have a site answered for as declared, and returns
// them: first its files, then each of its web servers. A site that lives in the folder
// of another does not wait for that one, which may be waiting for a name that this one
// is to give up: each makes the folder where it is missing.
func (p *plan) apply(site upkeep.Site, generation int64) []int {
	job := upkeep.Job{Account: site.Account, Object: site.ObjectKind() + "/" + site.Name, Generation: generation}
	add := func(server, kind string, behind ...int) int {
		job.Server, job.Kind = server, kind
		i := p.add(job, nil, behind...)
		if site.SubOf != "" {
			p.jobs[i].BehindRemoval = upkeep.KindSite + "/" + site.SubOf // which takes the folder that it lives in
		}
		return i
	}
	var first, applied []int
	if site.Files != "" {
		first = append(first, add(site.Files, upkeep.JobSiteFiles))
	}
	for _, server := range site.Servers {
		i := add(server, upkeep.JobSiteApply, first...)
		p.applies[[2]string{site.Name, server}] = i
		applied = append(applied, i)
	}
	return applied
}

// accountMatters reports whether sites look different after a change of their
// account.
func accountMatters(c store.Altered) bool {
	was, changed := c.Old.(upkeep.Account)
	is, put := c.New.(upkeep.Account)
	return changed && put && (was.Suspended != is.Suspended || was.UID != is.UID)
}

func (p *plan) account(c store.Altered, sites []upkeep.Declared) {
	if !accountMatters(c) {
		return
	}
	is := c.New.(upkeep.Account)
	sites = slices.Clone(sites)
	slices.SortStableFunc(sites, func(a, b upkeep.Declared) int { return depth(a.Object) - depth(b.Object) })
	for _, declared := range sites {
		site := declared.Object.(upkeep.Site)
		if site.Account != is.Name {
			continue
		}
		if len(site.Servers) > 0 && p.planned(site) {
			continue // changed together with its account
		}
		p.apply(site, declared.Generation)
		if is.Suspended {
			p.remove(site, site.Servers, upkeep.Job{Account: site.Account, Object: upkeep.KindSite + "/" + site.Name, Generation: declared.Generation}, nil)
		}
	}
	if was := c.Old.(upkeep.Account); was.Suspended != is.Suspended {
		text := "Your account works again."
		if is.Suspended {
			text = "Your account was suspended: its sites answer 503 and keep everything."
		}
		p.tell(is.Name, c.Ref.String(), text)
	}
}

func (p *plan) planned(site upkeep.Site) bool {
	_, is := p.applies[[2]string{site.Name, site.Servers[0]}]
	return is
}

// tell has an account told of what others did for it.
func (p *plan) tell(account, object, text string) {
	if account != "" && p.who != account {
		p.messages = append(p.messages, message{account, object, text})
	}
}

// mostMessages is how many things an account is told one by one of a change;
// nobody reads a thousand.
const mostMessages = 5

// noRoom is the last message of an account that reads none. Said twice it is one.
const noRoom = "More was done for you than there is room for messages about, until some are read: your sites and your jobs show it."

// concerned are the accounts that may be told of a change.
func concerned(changes []store.Altered) (accounts []string) {
	for _, change := range changes {
		for _, object := range []upkeep.Object{change.Old, change.New} {
			switch o := object.(type) {
			case upkeep.Site:
				accounts = append(accounts, o.Account)
			case upkeep.Account:
				accounts = append(accounts, o.Name)
			}
		}
	}
	slices.Sort(accounts)
	return slices.Compact(accounts)
}

// notify adds the jobs that carry messages.
func (p *plan) notify() {
	many := map[string]int{}
	for _, m := range p.messages {
		many[m.account]++
	}
	told := map[string]bool{}
	for _, m := range p.messages {
		n, full := many[m.account], p.around.unread[m.account] >= store.MaxUnread
		if full || n > mostMessages {
			if told[m.account] {
				continue
			}
			told[m.account] = true
			m.object = upkeep.KindAccount + "/" + m.account
		}
		switch {
		case full:
			m.text = noRoom
		case n > mostMessages:
			m.text = fmt.Sprintf("%s And %d more of your sites were added, changed or removed.", m.text, n-1)
		}
		p.add(upkeep.Job{Account: m.account, Kind: upkeep.JobNotification, Object: m.object}, task.Notification{Account: m.account, Text: m.text})
	}
}

func siteNews(c store.Altered) string {
	was, had := c.Old.(upkeep.Site)
	is, put := c.New.(upkeep.Site)
	switch {
	case !put:
		return c.Ref.Name + " was removed. Files that it has are kept."
	case !had:
		return c.Ref.Name + " was added."
	case was.Suspended != is.Suspended && is.Suspended:
		return c.Ref.Name + " was suspended: it answers 503 and keeps everything."
	case was.Suspended != is.Suspended:
		return c.Ref.Name + " works again."
	case !slices.Equal(was.Servers, is.Servers):
		return fmt.Sprintf("%s moved: it is served by %s.", c.Ref.Name, strings.Join(is.Servers, ", "))
	}
	return c.Ref.Name + " was changed."
}

// add appends a job and returns its index. A payload is only for what does not
// follow from declared things.
func (p *plan) add(job upkeep.Job, payload task.Payload, behind ...int) int {
	job.Who = p.who
	made := store.NewJob{Job: job, Behind: behind}
	if payload != nil {
		made.Payload = encode(payload)
	}
	p.jobs = append(p.jobs, made)
	return len(p.jobs) - 1
}

// encode writes a payload; its types are ours and have nothing that JSON cannot
// carry.
func encode(payload task.Payload) []byte {
	text, err := json.Marshal(payload)
	if err != nil {
		panic(fmt.Sprintf("writing a %s payload: %v", payload.Kind(), err))
	}
	return text
}
