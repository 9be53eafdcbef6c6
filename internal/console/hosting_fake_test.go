package console

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/store"
	"upkeep/internal/task"
	"upkeep/internal/watch"
)

// hosting is sites, jobs, servers and users in memory, of two customers: acme and
// other. What is done is noted.
type hosting struct {
	mu      sync.Mutex
	sites   []upkeep.Site
	jobs    []upkeep.Job
	servers []upkeep.AgentStatus
	images  []upkeep.ImageList
	audits  []upkeep.AuditEntry // the newest first
	things  []upkeep.Declared   // beside sites and accounts
	done    []string
	setup   string
	changes []chan *upkeep.Job
	history map[string][]store.Version
	fail    error
	bare    bool // without the two accounts
	// What follows replaces what there is of it for all.
	users    []upkeep.User
	signIns  []upkeep.SignIn
	tokens   []upkeep.AccessToken
	passkeys []upkeep.Passkey
	status   func(upkeep.SiteStatus) upkeep.SiteStatus
}

// secretOfOther is in everything that is other's.
const secretOfOther = "only-other-may-read-this"

func twoCustomers() *hosting {
	other := upkeep.Site{Name: "other.test", Account: "other", Servers: []string{"web1"}, Aliases: []string{secretOfOther + ".test"}}
	own := upkeep.Site{Name: "acme.test", Account: "acme", Servers: []string{"web1"}}
	before := own
	before.Aliases = []string{"older.test"}
	made := past(time.Hour)
	return &hosting{
		sites: []upkeep.Site{own, other},
		jobs: []upkeep.Job{
			{ID: 1, Account: "acme", Server: "web1", Kind: upkeep.JobSiteApply, Object: "site/acme.test", State: upkeep.JobFailed, Error: "the disk is full", Created: made},
			{ID: 2, Account: "other", Server: "web1", Kind: upkeep.JobSiteApply, Object: "site/other.test", State: upkeep.JobFailed, Error: secretOfOther, Created: made},
			{ID: 3, Server: "web1", Kind: upkeep.JobServerFacts, Object: "server/web1", State: upkeep.JobPending, Text: secretOfOther, Created: made},
		},
		servers: []upkeep.AgentStatus{{Name: "web1", Roles: []string{upkeep.RoleWeb}, State: "joined", Connected: true}, {Name: "vm1", Roles: []string{upkeep.RoleImages}, State: "joined", Connected: true}},
		images: []upkeep.ImageList{{Server: "vm1", At: made, Images: []upkeep.ImageFile{
			{Root: "vms", Path: "web1.img", Size: 4 << 30, Allocated: 1 << 30, Kind: upkeep.ImageSparse, Changed: made, Format: "raw", Type: "ext4", Label: "web1", State: "clean", Used: 900 << 20, Free: 3 << 30},
			{Root: "vms", Path: "old/mail.img", Size: 8 << 30, Allocated: 8 << 30, Kind: upkeep.ImageFull, Changed: made, Format: "raw", Type: "xfs", Holders: []string{"qemu (pid 4711) has it open"}, Unfinished: "shrink"},
			{Root: "vms", Path: "web1.upkeep", Size: 300 << 20, Allocated: 300 << 20, Kind: upkeep.ImageFull, Changed: made, Format: "packed", Holds: 4 << 30},
		}}},
		history: map[string][]store.Version{
			"acme.test": {{Generation: 3, Object: own, At: made, Who: "user eve"}, {Generation: 2, Object: before, At: made, Who: "user eve"},
				{Generation: 1, Object: upkeep.Site{Name: "acme.test", Account: "other", Servers: []string{"web1"}, Aliases: []string{secretOfOther + ".test"}}, At: made, Who: secretOfOther}},
			"other.test": {{Generation: 1, Object: other, At: made, Who: secretOfOther}},
		},
	}
}

func (h *hosting) note(format string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = append(h.done, fmt.Sprintf(format, args...))
	return h.fail
}

func (h *hosting) did() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.done)
}

func (h *hosting) generation(name string) int64 {
	if v := h.history[name]; len(v) > 0 {
		return v[0].Generation
	}
	return 0
}

func (h *hosting) ApplyIf(_ context.Context, who string, still map[store.Ref]int64, objects []upkeep.Object, dry bool) (watch.Applied, error) {
	var applied watch.Applied
	for _, o := range objects {
		if bad := o.Validate(); len(bad) > 0 {
			return applied, &upkeep.InvalidError{Fields: bad}
		}
		present := upkeep.Declared{Generation: h.generation(o.ObjectName())}
		for _, d := range h.things {
			if store.RefOf(d.Object) == store.RefOf(o) {
				present = d
			}
		}
		if want, asked := still[store.RefOf(o)]; asked && want != present.Generation {
			return applied, fmt.Errorf("%s: %w", o.ObjectName(), upkeep.ErrChanged)
		}
		change := watch.AppliedChange{Action: "changed", New: o, Old: present.Object}
		for _, s := range h.sites {
			if s.Name == o.ObjectName() {
				change.Old = s
			}
		}
		applied.Changes = append(applied.Changes, change)
		if !dry {
			text, _ := json.Marshal(o)
			h.note("%s applies %s", who, text)
		}
	}
	return applied, h.fail
}

func (h *hosting) DeleteIf(_ context.Context, who string, still map[store.Ref]int64, refs ...store.Ref) error {
	return h.note("%s deletes %v", who, refs)
}

func (h *hosting) Objects(_ context.Context, kind, name string) ([]upkeep.Declared, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []upkeep.Declared
	add := func(o upkeep.Object, generation int64) {
		if o.ObjectKind() == kind && (name == "" || o.ObjectName() == name) {
			found = append(found, upkeep.Declared{Generation: generation, Object: o})
		}
	}
	for _, s := range h.sites {
		add(s, h.generation(s.Name))
	}
	for _, d := range h.things {
		add(d.Object, d.Generation)
	}
	if !h.bare {
		add(upkeep.Account{Name: "acme"}, 1)
		add(upkeep.Account{Name: "other", Email: secretOfOther + "@other.test"}, 1)
	}
	if name != "" && len(found) == 0 {
		return nil, fmt.Errorf("%s %s: %w", kind, name, upkeep.ErrNotFound)
	}
	return found, nil
}

func (h *hosting) allSites(account string) []upkeep.SiteStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []upkeep.SiteStatus
	for _, s := range h.sites {
		if account == "" || s.Account == account {
			one := upkeep.SiteStatus{Name: s.Name, Account: s.Account, Generation: h.generation(s.Name), State: upkeep.SiteLive, Reason: "answers on web1", Names: s.Names(),
				DocumentRoot: "/srv/" + s.Name, Servers: []upkeep.ServedStatus{{Server: "web1", Generation: 1, State: upkeep.SiteLive}}}
			if h.status != nil {
				one = h.status(one)
			}
			all = append(all, one)
		}
	}
	return all
}

func (h *hosting) SitePage(_ context.Context, f upkeep.SiteFilter) (upkeep.SitePage, error) {
	all := h.allSites(f.Account)
	page := upkeep.SitePage{Counts: map[string]int{}, None: len(all) == 0}
	for _, s := range all {
		if !strings.Contains(strings.Join(append(s.Names, s.Account), " "), strings.ToLower(f.Holds)) {
			continue
		}
		page.Counts[s.State]++
		if f.State != "" && s.State != f.State {
			continue
		}
		if page.Of++; page.Of > f.Skip && len(page.Sites) < f.Limit {
			page.Sites = append(page.Sites, s)
		}
	}
	return page, nil
}

func (h *hosting) Site(_ context.Context, name string) (upkeep.SiteStatus, error) {
	for _, s := range h.allSites("") {
		if s.Name == name {
			return s, nil
		}
	}
	return upkeep.SiteStatus{}, fmt.Errorf("site %s: %w", name, upkeep.ErrNotFound)
}

func (h *hosting) History(_ context.Context, name string) ([]store.Version, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, there := h.history[name]; there {
		return v, nil
	}
	return nil, fmt.Errorf("site %s: %w", name, upkeep.ErrNotFound)
}

func (h *hosting) Undo(ctx context.Context, who, name string, generation, still int64) (upkeep.SiteStatus, error) {
	h.note("%s takes %s back to %d from %d", who, name, generation, still)
	return h.Site(ctx, name)
}

func (h *hosting) Preview(_ context.Context, who string, objects []upkeep.Object) ([]upkeep.Job, error) {
	site := objects[0].(upkeep.Site)
	h.note("%s looks at %s", who, site.Name)
	job := upkeep.Job{ID: 100, Account: site.Account, Server: "web1", Kind: upkeep.JobSiteSync, Object: "preview/" + site.Name, State: upkeep.JobDone,
		Result: json.RawMessage(`{"sites":[{"site":"` + secretOfOther + `"}],"drift":{"/etc/x.conf":"--- a\n+++ b\n@@ -1 +1 @@\n-old\n+ServerAlias new.test\n"}}`)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.jobs = append(h.jobs, job)
	return []upkeep.Job{job}, nil
}

func (h *hosting) List(_ context.Context, f store.JobFilter) ([]upkeep.Job, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []upkeep.Job
	for _, j := range slices.Backward(h.jobs) {
		if (f.Account == "" || j.Account == f.Account) && (f.Object == "" || j.Object == f.Object) && (f.Server == "" || j.Server == f.Server) && (len(f.Kinds) == 0 || slices.Contains(f.Kinds, j.Kind)) && (len(f.States) == 0 || slices.Contains(f.States, j.State)) {
			found = append(found, j)
		}
	}
	return found, nil
}

func (h *hosting) Show(_ context.Context, id int64) (upkeep.Job, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, j := range h.jobs {
		if j.ID == id {
			return j, nil
		}
	}
	return upkeep.Job{}, fmt.Errorf("job %d: %w", id, upkeep.ErrNotFound)
}

func (h *hosting) Watch() (<-chan *upkeep.Job, func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan *upkeep.Job, 8)
	h.changes = append(h.changes, c)
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.changes = slices.DeleteFunc(h.changes, func(one chan *upkeep.Job) bool { return one == c })
	}
}

func (h *hosting) Retry(ctx context.Context, id int64, _ string) (upkeep.Job, error) {
	h.note("job %d is retried", id)
	return h.Show(ctx, id)
}

func (h *hosting) Cancel(ctx context.Context, id int64, who string) (upkeep.Job, error) {
	h.note("job %d is cancelled by %s", id, who)
	return h.Show(ctx, id)
}

func (h *hosting) Read(ctx context.Context, id int64, _ string) (upkeep.Job, error) {
	h.note("job %d is read", id)
	return h.Show(ctx, id)
}

func (h *hosting) Run(_ context.Context, kind string, payload json.RawMessage, server, who string) (upkeep.Job, error) {
	if len(payload) > 0 { // as control does
		if _, err := task.Decode(kind, payload); err != nil {
			return upkeep.Job{}, err
		}
	}
	return upkeep.Job{ID: 3}, h.note("%s runs %s on %s %s", who, kind, server, payload)
}

func (h *hosting) Servers(context.Context) ([]upkeep.AgentStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.servers, nil
}

func (h *hosting) Connected(context.Context) (map[string]bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	connected := map[string]bool{}
	for _, s := range h.servers {
		connected[s.Name] = s.Connected
	}
	return connected, nil
}

func (h *hosting) Images(context.Context, string) ([]upkeep.ImageList, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.images, nil
}

func (h *hosting) Invite(_ context.Context, who, server string) (string, time.Time, error) {
	return "join-token", time.Now().Add(time.Hour), h.note("%s invites %s", who, server)
}

func (h *hosting) Listen() string { return "192.0.2.1:8055" }

func (h *hosting) Revoke(_ context.Context, who, server string) error {
	return h.note("%s revokes %s", who, server)
}

func (h *hosting) Regenerate(_ context.Context, server, who string) (upkeep.Job, error) {
	return upkeep.Job{}, h.note("%s regenerates %s", who, server)
}

func (h *hosting) Verify(_ context.Context, server, who string) (upkeep.Job, error) {
	return upkeep.Job{}, h.note("%s verifies %s", who, server)
}

// people are those who may sign in: ada of staff, eve of acme, and rob, who may
// only read. Each shows its name, in a cookie or as a token.
type people struct{ *hosting }

func (p people) who(name string) (access.Caller, error) {
	c, known := map[string]access.Caller{
		"ada": {Who: "user ada", User: "ada", Staff: true, SignIn: 1},
		"eve": {Who: "user eve", User: "eve", Account: "acme", SignIn: 2},
		"rob": {Who: "user rob", User: "rob", Staff: true, ReadOnly: true, SignIn: 3},
		// A program of ada's, which may write and not see to users.
		"pat": {Who: "user ada (token 5)", User: "ada", Staff: true, Token: 5},
		// rob on a day on which he may write: he has a second factor.
		"rob-writes": {Who: "user rob", User: "rob", Staff: true, SignIn: 4},
	}[name]
	if !known {
		return c, upkeep.ErrNotFound
	}
	return c, nil
}

func (p people) Browser(_ context.Context, secret string) (access.Caller, error) {
	return p.who(secret)
}

func (p people) Token(_ context.Context, token string) (access.Caller, error) {
	c, err := p.who(token)
	c.SignIn = 0
	return c, err
}

func (p people) Setup() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.setup
}

// unset has no user be there, or users.
func (h *hosting) unset(is bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.setup = map[bool]string{true: "token"}[is]
}

func (p people) SetUp(_ context.Context, token, name, password, from string) error {
	return p.note("%s is the first, from %s", name, from)
}

func (p people) SignIn(_ context.Context, name, password, code, from, agent string) (string, time.Time, error) {
	if _, err := p.who(name); err != nil || password != "right" {
		return "", time.Time{}, fmt.Errorf("%w: the name or the password is wrong", upkeep.ErrRefused)
	}
	p.note("%s signs in from %s", name, from)
	return name, time.Now().Add(time.Hour), nil
}

func (p people) SignIns(_ context.Context, name string) ([]upkeep.SignIn, error) {
	if p.signIns != nil {
		return p.signIns, nil
	}
	return []upkeep.SignIn{{ID: 1, Created: past(time.Hour), Seen: past(time.Minute), Address: "192.0.2.1", Agent: "browser of " + name}}, nil
}

func (p people) SignOut(_ context.Context, who, name string, id int64) error {
	return p.note("%s signs %s out of %d", who, name, id)
}

func (p people) ChangePassword(_ context.Context, name, present, password, from string) error {
	if present != "right" {
		return fmt.Errorf("%w: the name or the password is wrong", upkeep.ErrRefused)
	}
	return p.note("%s has another password", name)
}

func (p people) HasFactor(_ context.Context, name string) (bool, error) { return name == "rob", nil }

func (p people) NewFactor() string { return "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" }

func (p people) SetFactor(_ context.Context, name, password, secret, code, from string) ([]string, error) {
	if code != "123456" {
		return nil, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "code", Rule: "is not what the app shows now; is the clock of the device right?"}}}
	}
	return []string{"AAAA-BBBB"}, p.note("%s has the second factor %s", name, secret)
}

func (p people) DropFactor(_ context.Context, name, password, from string) error {
	return p.note("%s drops the second factor", name)
}

func (p people) RemoveFactor(_ context.Context, who, name string) error {
	return p.note("%s takes the second factor of %s away", who, name)
}

func (p people) AskPasskey(origin string) ([]byte, string, error) {
	return []byte(`{"publicKey":{"challenge":"AAAA"}}`), "sealed-for-" + origin, nil
}

func (p people) SignInByPasskey(_ context.Context, sealed string, answer []byte, origin, from, agent string) (string, time.Time, error) {
	if sealed != "sealed-for-"+origin || string(answer) != "the passkey of eve" {
		return "", time.Time{}, fmt.Errorf("%w: the passkey was not accepted", upkeep.ErrRefused)
	}
	p.note("eve signs in by a passkey from %s", from)
	return "eve", time.Now().Add(time.Hour), nil
}

func (p people) OfferPasskey(_ context.Context, name, password, origin, from string) ([]byte, string, error) {
	if password != "right" {
		return nil, "", fmt.Errorf("%w: the name or the password is wrong", upkeep.ErrRefused)
	}
	return []byte(`{"publicKey":{"user":{"name":"` + name + `"}}}`), "sealed-for-" + origin, nil
}

func (p people) AddPasskey(_ context.Context, name, label, sealed string, answer []byte, origin string) error {
	if sealed != "sealed-for-"+origin || string(answer) != "a new passkey" {
		return fmt.Errorf("%w: the passkey was not accepted", upkeep.ErrRefused)
	}
	return p.note("%s adds passkey %s", name, label)
}

func (p people) Passkeys(_ context.Context, name string) ([]upkeep.Passkey, error) {
	if p.passkeys != nil {
		return p.passkeys, nil
	}
	return []upkeep.Passkey{{ID: 4, Name: "laptop of " + name, Host: "localhost", Created: past(time.Hour)}}, nil
}

func (p people) RemovePasskey(_ context.Context, who, name string, id int64) error {
	return p.note("%s removes passkey %d of %s", who, id, name)
}

func (p people) Tokens(context.Context, string) ([]upkeep.AccessToken, error) {
	if p.tokens != nil {
		return p.tokens, nil
	}
	return []upkeep.AccessToken{{ID: 7, Name: "backup", Scope: upkeep.ScopeRead, Expires: time.Now().Add(time.Hour)}}, nil
}

func (p people) AddToken(_ context.Context, who, name string, token upkeep.AccessToken) (upkeep.AccessToken, string, error) {
	with := ""
	if token.MadeWith != 0 {
		with = fmt.Sprintf(", made with %d", token.MadeWith)
	}
	return token, "upkeep_SECRET", p.note("%s gives %s a token to %s%s", who, name, token.Scope, with)
}

func (p people) RemoveToken(_ context.Context, who, name string, id int64) error {
	return p.note("%s takes token %d of %s back", who, id, name)
}

func (p people) List(context.Context) ([]upkeep.User, error) {
	if p.users != nil {
		return p.users, nil
	}
	return []upkeep.User{{Name: "ada", Role: upkeep.UserStaff, Created: past(time.Hour)}, {Name: "oda", Role: upkeep.UserCustomer, Account: secretOfOther, Created: past(time.Hour)}}, nil
}

// weak says what package people says of a password that is too short.
func weak(password string) []upkeep.FieldError {
	if len(password) >= 10 {
		return nil
	}
	return []upkeep.FieldError{{Field: "password", Rule: "must have at least 10 characters"}}
}

func (p people) Add(_ context.Context, who string, user upkeep.User, password string) error {
	if broken := append(user.Validate(), weak(password)...); len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	return p.note("%s adds %s", who, user.Name)
}

func (p people) Remove(_ context.Context, who, name string) error {
	return p.note("%s removes %s", who, name)
}

func (p people) SetPassword(_ context.Context, who, name, password string) error {
	if broken := weak(password); len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	return p.note("%s gives %s another password", who, name)
}

func (h *hosting) Audit(_ context.Context, f store.AuditFilter) ([]upkeep.AuditEntry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []upkeep.AuditEntry
	for _, e := range h.audits {
		if (f.Object == "" || f.Object == e.Object) && (f.Who == "" || f.Who == e.Who) && (f.Before == 0 || e.ID < f.Before) && len(found) < f.Limit {
			e.Before, e.After = nil, nil
			found = append(found, e)
		}
	}
	return found, nil
}

func (h *hosting) AuditEntry(_ context.Context, id int64) (upkeep.AuditEntry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.audits {
		if e.ID == id {
			return e, nil
		}
	}
	return upkeep.AuditEntry{}, fmt.Errorf("audit entry %d: %w", id, upkeep.ErrNotFound)
}
