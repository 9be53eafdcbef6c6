// Package article takes over what the upkeep system of 2010 kept in MySQL: its
// tables virtual_hosts and upkeep, with PHP-serialised arrays in them. What they
// hold becomes accounts, sites and jobs; what cannot be taken over is said, with
// the row and the reason, and nothing is guessed.
package article

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/names"
	"upkeep/internal/task"
)

// The tables, by the names that the article gives them.
const (
	tableHosts = "virtual_hosts"
	tableJobs  = "upkeep"
)

// Tables are the rows of both tables, as they were read.
type Tables struct{ hosts, jobs []row }

// Options say what the tables do not.
type Options struct {
	// Servers are the web servers that the sites are for.
	Servers []string
	// Home is the path at which the old jobs made their folders, "/home" when empty.
	Home string
	// Canonical is whether visitors of www.NAME are sent on to NAME, as the
	// article's script had it for every site.
	Canonical bool
	// Accounts are the accounts of users for whom the script's rule is not to decide.
	Accounts map[string]string
	// CGI is whether programs in cgi-bin are run, as the script had it for every
	// site.
	CGI bool
}

// Plan is what an import makes.
type Plan struct {
	Accounts []upkeep.Account
	Sites    []upkeep.Site
	// Jobs are those that were pending and do not follow from the sites.
	Jobs []task.Payload
	// Notes say what was not taken over, or not as it stood.
	Notes []string
}

// Objects are the accounts and sites, in the order in which they are declared.
func (p Plan) Objects() []upkeep.Object {
	objects := make([]upkeep.Object, 0, len(p.Accounts)+len(p.Sites))
	for _, account := range p.Accounts {
		objects = append(objects, account)
	}
	for _, site := range p.Sites {
		objects = append(objects, site)
	}
	return objects
}

// Convert makes a plan of the tables. It refuses where different users would become one
// account, unless the options say so: one would have the other's sites.
func (t Tables) Convert(o Options) (Plan, error) {
	c := converter{options: o, byID: map[string]string{}, accounts: map[string]bool{}, owners: map[string]string{}, users: map[string]string{}}
	if err := t.mapped(o.Accounts); err != nil {
		return Plan{}, err
	}
	c.options.Home = cmp.Or(strings.TrimSuffix(o.Home, "/"), "/home")
	for _, r := range t.hosts {
		c.byID[r["id"]] = host(r)
	}
	seen := map[string]bool{}
	for _, r := range t.hosts {
		site, ok := c.site(r)
		switch {
		case !ok:
			continue
		case seen[site.Name]:
			c.note(r, "%s stands in the table twice; the first row was taken", site.Name)
			continue
		}
		seen[site.Name] = true
		c.plan.Sites = append(c.plan.Sites, site)
	}
	if err := c.merged(); err != nil {
		return Plan{}, err
	}
	for i, site := range c.plan.Sites {
		if seen["www."+site.Name] {
			c.plan.Notes = append(c.plan.Notes, fmt.Sprintf("%s: does not answer www.%[1]s, which is a row of its own", site.Name))
			c.plan.Sites[i].WWW, c.plan.Sites[i].Canonical, c.plan.Sites[i].CanonicalStatus = new(bool), "", 0
		}
		if site.SubOf != "" && !seen[site.SubOf] {
			c.plan.Notes = append(c.plan.Notes, fmt.Sprintf("%s: is below %s, which was not taken over; it becomes a site of its own", site.Name, site.SubOf))
			c.plan.Sites[i].SubOf = ""
		}
	}
	for _, r := range t.jobs {
		c.job(r)
	}
	return c.plan, nil
}

// mapped holds that users who are given an account are there, and that the account can be.
func (t Tables) mapped(accounts map[string]string) error {
	for _, user := range slices.Sorted(maps.Keys(accounts)) {
		if broken := (upkeep.Account{Name: accounts[user]}).Validate(); len(broken) > 0 {
			return fmt.Errorf("user %q cannot become account %q: the name %s", user, accounts[user], broken[0].Rule)
		}
		if !slices.ContainsFunc(t.hosts, func(r row) bool { return r["user"] == user }) {
			return fmt.Errorf("user %q is to become account %s, and no row of %s has that user", user, accounts[user], tableHosts)
		}
	}
	return nil
}

// merged refuses users who would share an account by no more than the script's rule.
func (c *converter) merged() error {
	users := map[string][]string{}
	for user, account := range c.users {
		users[account] = append(users[account], user)
	}
	var broken []error
	for _, account := range slices.Sorted(maps.Keys(users)) {
		all := users[account]
		slices.Sort(all)
		guessed := slices.ContainsFunc(all, func(user string) bool { return user != account && c.options.Accounts[user] == "" })
		if len(all) < 2 || !guessed {
			continue
		}
		var quoted []string
		for _, user := range all {
			quoted = append(quoted, strconv.Quote(upkeep.Printable(user)))
		}
		broken = append(broken, upkeep.WithHint(fmt.Errorf("the users %s would all become account %s, and have each other's sites and files: %w", strings.Join(quoted, ", "), account, upkeep.ErrRefused),
			"say which account each of them becomes, with --account USER=NAME once a user; those who are one customer are given the same name"))
	}
	return errors.Join(broken...)
}

type converter struct {
	options  Options
	plan     Plan
	byID     map[string]string // server name by id of its row
	accounts map[string]bool
	owners   map[string]string // account by the number of the old front end
	users    map[string]string // account by user, of sites that were taken over
}

func (c *converter) note(r row, format string, args ...any) {
	c.plan.Notes = append(c.plan.Notes, fmt.Sprintf("row %s: ", r["id"])+upkeep.Printable(fmt.Sprintf(format, args...)))
}

// host is the name of a row's site as it is kept; one that has no such form is
// left as it is, for validation to refuse.
func host(r row) string {
	if name, err := names.ASCII(r["server"]); err == nil {
		return name
	}
	return r["server"]
}

// account takes a user over by the rule of the article's script, which drops all
// but letters and digits.
func (c *converter) account(r row, user string) (string, bool) {
	name := strings.ToLower(strings.Map(func(letter rune) rune {
		if letter >= 'a' && letter <= 'z' || letter >= 'A' && letter <= 'Z' || letter >= '0' && letter <= '9' {
			return letter
		}
		return -1
	}, user))
	if given := c.options.Accounts[user]; given != "" {
		name = given
	}
	if broken := (upkeep.Account{Name: name}).Validate(); len(broken) > 0 {
		c.note(r, "user %q: %s", user, broken[0].Rule)
		return "", false
	}
	if name != user {
		c.note(r, "user %q becomes account %s; its files stay under the old name", user, name)
	}
	return name, true
}

// owner takes an account into the plan, for one of its sites.
func (c *converter) owner(r row, name string) {
	c.users[r["user"]] = name
	if !c.accounts[name] {
		c.accounts[name] = true
		c.plan.Accounts = append(c.plan.Accounts, upkeep.Account{Name: name})
	}
	if number := r["yuid"]; number != "" && number != "0" {
		c.owners[number] = name
	}
}

func (c *converter) site(r row) (upkeep.Site, bool) {
	account, ok := c.account(r, r["user"])
	if !ok {
		return upkeep.Site{}, false
	}
	site := upkeep.Site{
		Name: host(r), Account: account, Servers: c.options.Servers,
		CGI: c.options.CGI, ErrorPages: c.errorPages(r), Deny: c.firewall(r), Environment: c.environment(r),
	}
	if c.options.Canonical && site.HasWWW() {
		site.Canonical, site.CanonicalStatus = "bare", 307
	}
	if parent := r["subof"]; parent != "" && parent != "0" {
		if site.SubOf = c.byID[parent]; site.SubOf == "" {
			c.note(r, "subof %s: there is no such row; it becomes a site of its own", parent)
		} else if !strings.HasSuffix(site.Name, "."+site.SubOf) {
			c.note(r, "%s is below %s by its number and not by its name; it becomes a site of its own", site.Name, site.SubOf)
			site.SubOf = ""
		}
	}
	broken := site.Validate()
	for _, field := range broken {
		c.note(r, "site %q is left out: %s", r["server"], field.Error())
	}
	if len(broken) > 0 {
		return upkeep.Site{}, false
	}
	c.owner(r, account)
	return site, true
}

// errorPages takes over those that a site may have; the article wrote any text
// into the configuration.
func (c *converter) errorPages(r row) map[string]string {
	pages := map[string]string{}
	for _, e := range c.array(r, "errorpages") {
		place, is := e.value.(string)
		probe := upkeep.Site{Name: "example.test", Account: "example", Servers: []string{"web"}, ErrorPages: map[string]string{e.key: place}}
		if broken := probe.Validate(); !is || len(broken) > 0 {
			rule := "it is no text"
			if is {
				rule = broken[0].Error()
			}
			c.note(r, "error page %q is left out: %s", e.key, rule)
			continue
		}
		pages[e.key] = place
	}
	if len(pages) == 0 {
		return nil
	}
	return pages
}

func (c *converter) firewall(r row) []upkeep.Network {
	var networks []upkeep.Network
	for _, e := range c.array(r, "firewall") {
		text, _ := e.value.(string)
		network, err := denied(strings.TrimSpace(text))
		if err != nil {
			c.note(r, "firewall entry %q is left out: %v", text, err)
			continue
		}
		if !slices.Contains(networks, network) {
			networks = append(networks, network)
		}
	}
	return networks
}

// denied reads what "Deny from" of Apache 2.2 took: an address, a prefix, a
// prefix with a netmask, or the first bytes of an address. A host name was
// allowed too; it would be looked up for each request and is not taken over.
func denied(text string) (upkeep.Network, error) {
	var n upkeep.Network
	if address, mask, found := strings.Cut(text, "/"); found && strings.Contains(mask, ".") {
		bits, err := maskBits(mask)
		if err != nil {
			return n, err
		}
		text = address + "/" + strconv.Itoa(bits)
	}
	if parts := strings.Split(strings.TrimSuffix(text, "."), "."); len(parts) < 4 && !strings.ContainsAny(text, ":/") {
		bits := 8 * len(parts)
		for len(parts) < 4 {
			parts = append(parts, "0")
		}
		text = strings.Join(parts, ".") + "/" + strconv.Itoa(bits)
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		text = prefix.Masked().String() // Apache ignored what stood behind the length
	}
	if err := n.UnmarshalText([]byte(text)); err != nil {
		return n, fmt.Errorf("it is neither an address nor a prefix")
	}
	return n, nil
}

func maskBits(mask string) (int, error) {
	addr, err := netip.ParseAddr(mask)
	if err != nil || !addr.Is4() {
		return 0, fmt.Errorf("%q is not a netmask", mask)
	}
	bits, ended := 0, false
	for _, b := range addr.As4() {
		for i := 7; i >= 0; i-- {
			set := b>>i&1 == 1
			if set && ended {
				return 0, fmt.Errorf("%q is not a netmask", mask)
			}
			if ended = !set; set {
				bits++
			}
		}
	}
	return bits, nil
}

// environment reads "NAME=value" or "NAME value".
func (c *converter) environment(r row) map[string]string {
	text := strings.TrimSpace(r["environment_variable"])
	if text == "" {
		return nil
	}
	at := strings.IndexAny(text, "= ")
	if at <= 0 {
		c.note(r, "environment variable %q is left out: it has no value", text)
		return nil
	}
	return map[string]string{text[:at]: strings.TrimSpace(text[at+1:])}
}

func (c *converter) array(r row, column string) []entry {
	text := r[column]
	if text == "" {
		return nil
	}
	value, err := unserialize(text)
	if err != nil {
		c.note(r, "%s is left out: %v", column, err)
		return nil
	}
	entries, is := value.([]entry)
	if !is && value != nil && value != false {
		c.note(r, "%s is left out: it is no array", column)
	}
	return entries
}

// job takes over what was still to be done. What the sites themselves bring
// about, their folders and their virtual hosts, needs no job.
func (c *converter) job(r row) {
	if r["status"] != "pending" {
		return
	}
	switch r["type"] {
	case "mkdir":
		c.mkdir(r)
	case "vhost":
		id := r["data"]
		if value, err := unserialize(id); err == nil { // the article serialises even the number
			id = fmt.Sprint(value)
		}
		if c.byID[id] == "" {
			c.note(r, "vhost job for row %q of virtual_hosts, which is not there; left out", id)
		}
	case "notification":
		// Who it was for is the number of the old front end.
		number := r["uid"]
		account, known := c.owners[number]
		if !known {
			c.note(r, "notification for user number %s, who has no site; left out", number)
			return
		}
		text, _ := unserialize(r["data"])
		message, _ := text.(string)
		if date, err := strconv.ParseInt(r["date"], 10, 64); err == nil && date > 0 {
			message += " (since " + time.Unix(date, 0).UTC().Format(time.DateOnly) + ")"
		}
		c.plan.Jobs = append(c.plan.Jobs, task.Notification{Account: account, Text: message})
	default:
		c.note(r, "job of type %q is not one of the article's; left out", r["type"])
	}
}

func (c *converter) mkdir(r row) {
	fields := map[string]string{}
	for _, e := range c.array(r, "data") {
		if text, is := e.value.(string); is {
			fields[e.key] = text
		}
	}
	path, below := strings.CutPrefix(fields["path"], c.options.Home+"/")
	if !below {
		c.note(r, "mkdir %q is left out: it is not below %s", fields["path"], c.options.Home)
		return
	}
	group := fields["group"]
	if group == "hosted" { // the group that the article's web server was in
		group = task.WebGroup
	}
	dir := task.Mkdir{Root: "home", Path: path, Owner: fields["user"], Group: group, Mode: "0750"}
	if broken := dir.Validate(); len(broken) > 0 {
		c.note(r, "mkdir %q is left out: %s", fields["path"], broken[0].Error())
		return
	}
	if account := c.users[dir.Owner]; account != "" && account != dir.Owner {
		c.note(r, "mkdir %q is left out: its user %s became account %s, whose files are elsewhere", fields["path"], dir.Owner, account)
		return
	}
	if dir.Owner != "root" && c.users[dir.Owner] == "" {
		c.note(r, "mkdir %q is left out: no site of its user %s was taken over", fields["path"], dir.Owner)
		return
	}
	for _, site := range c.plan.Sites {
		own := site.Account + "/" + site.Name
		if path == site.Account || path == own || strings.HasPrefix(path, own+"/") {
			return // the site brings it about
		}
	}
	c.plan.Jobs = append(c.plan.Jobs, dir)
}
