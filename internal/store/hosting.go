package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"upkeep"
)

// useRow says that a declared thing names another one, and what for.
type useRow struct {
	bun.BaseModel `bun:"table:object_uses"`
	Kind          string
	Name          string
	Role          string
	UsedKind      string
	UsedName      string
}

func (r useRow) user() Ref { return Ref{r.Kind, r.Name} }

// Roles of uses, beside those of servers.
const (
	useAccount = "account"
	useParent  = "subof"
)

// usesOf are the things that an object names.
func usesOf(object upkeep.Object) []useRow {
	var uses []useRow
	use := func(role, kind, name string) {
		uses = append(uses, useRow{Kind: object.ObjectKind(), Name: object.ObjectName(), Role: role, UsedKind: kind, UsedName: name})
	}
	switch o := object.(type) {
	case upkeep.Site:
		use(useAccount, upkeep.KindAccount, o.Account)
		for _, server := range o.Servers {
			use(upkeep.RoleWeb, upkeep.KindServer, server)
		}
		if o.Files != "" {
			use(upkeep.RoleFiles, upkeep.KindServer, o.Files)
		}
		if o.SubOf != "" {
			use(useParent, upkeep.KindSite, o.SubOf)
		}
	case upkeep.Zone:
		agents := map[string]bool{}
		for _, p := range o.Publishers {
			if p.Agent != "" && !agents[p.Agent] {
				agents[p.Agent] = true
				use(upkeep.RoleDNS, upkeep.KindServer, p.Agent)
			}
		}
	case upkeep.Delegation:
		use(useAccount, upkeep.KindAccount, o.Account)
	}
	return uses
}

// checkHosting holds the change to the rules between things of
// [upkeep.HostingKinds]. What is put as it already is, is not checked again.
func (p *plan) checkHosting(ctx context.Context) error {
	if err := p.checkUnused(ctx); err != nil {
		return err
	}
	changed := p.changedObjects()
	if err := p.checkOwners(); err != nil {
		return err
	}
	around, err := p.around(ctx, changed)
	if err != nil {
		return err
	}
	if err := invalid(upkeep.CheckHosting(changed, around)); err != nil {
		return err
	}
	return p.checkNames(ctx, changed)
}

// checkOwners refuses to give a site away by declaring it under another account.
// Whoever may declare sites could take others' that way, by their names; and the
// files, which are in the home of the account, would not come along.
func (p *plan) checkOwners() error {
	var broken []upkeep.FieldError
	for _, a := range p.altered {
		before, was := a.Old.(upkeep.Site)
		now, is := a.New.(upkeep.Site)
		if was && is && before.Account != now.Account {
			broken = append(broken, upkeep.FieldError{
				Object: a.Ref.String(), Field: "account", Value: now.Account,
				Rule: fmt.Sprintf("cannot be changed: the site belongs to account %s, in whose home its files are; it has to be deleted there first", before.Account),
			})
		}
	}
	if len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	return nil
}

// changedObjects are the hosting things that the change creates or changes.
func (p *plan) changedObjects() []upkeep.Object {
	var changed []upkeep.Object
	for _, a := range p.altered {
		if a.New != nil && hosting(a.Ref.Kind) {
			changed = append(changed, a.New)
		}
	}
	return changed
}

// checkUnused refuses to delete what something that stays still names. What the
// change alters is left to other rules: for these the deleted thing is not there.
func (p *plan) checkUnused(ctx context.Context) error {
	var reasons []string
	for _, kind := range []string{upkeep.KindServer, upkeep.KindAccount, upkeep.KindSite} {
		var names []string
		for _, ref := range p.change.Delete {
			if ref.Kind == kind {
				names = append(names, ref.Name)
			}
		}
		uses, err := p.users(ctx, kind, names)
		if err != nil {
			return err
		}
		for _, use := range uses {
			if !p.rewritten(use.user()) {
				reasons = append(reasons, fmt.Sprintf("%s %s still uses %s %s", use.Kind, use.Name, kind, use.UsedName))
			}
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	slices.Sort(reasons)
	reasons = slices.Compact(reasons)
	if more := len(reasons) - maxReasons; more > 0 {
		reasons = append(reasons[:maxReasons], fmt.Sprintf("and %d more", more))
	}
	return upkeep.WithHint(fmt.Errorf("%s: %w", strings.Join(reasons, ", "), upkeep.ErrConflict),
		"nothing was deleted; change what uses it first, or delete both in one go with: upkeep delete -f FILE")
}

// maxReasons is how many things that stand in the way are named.
const maxReasons = 10

// users reads what names the given things, for any of the roles; for all of them
// when none is given.
func (p *plan) users(ctx context.Context, kind string, names []string, roles ...string) ([]useRow, error) {
	var uses []useRow
	for part := range slices.Chunk(names, chunk) {
		var some []useRow
		query := p.tx.NewSelect().Model(&some).Where("used_kind = ?", kind).Where("used_name IN (?)", bun.List(part))
		if len(roles) > 0 {
			query.Where("role IN (?)", bun.List(roles))
		}
		if err := query.Order("kind", "name").Scan(ctx); err != nil {
			return nil, err
		}
		uses = append(uses, some...)
	}
	return uses, nil
}

// around gathers what changed things name and what names them, as it is after
// the change.
func (p *plan) around(ctx context.Context, changed []upkeep.Object) (upkeep.Hosting, error) {
	h := upkeep.Hosting{Accounts: map[string]upkeep.Account{}, Servers: map[string]upkeep.Server{}, Sites: map[string]upkeep.Site{}, Needs: map[upkeep.Need]string{}}
	wanted := map[Ref]bool{}
	var sites []string
	for _, object := range changed {
		for _, use := range usesOf(object) {
			wanted[Ref{use.UsedKind, use.UsedName}] = true
		}
		if object.ObjectKind() == upkeep.KindSite {
			sites = append(sites, object.ObjectName())
		}
	}
	subs, err := p.users(ctx, upkeep.KindSite, sites, useParent)
	if err != nil {
		return h, err
	}
	for _, sub := range subs {
		wanted[sub.user()] = true
	}
	for _, object := range p.change.Put { // sub-sites that are put beside the site
		wanted[RefOf(object)] = true
	}
	objects, err := p.after(ctx, wanted)
	if err != nil {
		return h, err
	}
	for _, object := range objects {
		switch o := object.(type) {
		case upkeep.Account:
			h.Accounts[o.Name] = o
		case upkeep.Server:
			h.Servers[o.Name] = o
		case upkeep.Site:
			h.Sites[o.Name] = o
		}
	}
	return h, p.needs(ctx, h.Needs)
}

// after returns the wanted things as they are after the change, without those
// that do not exist or cannot be read.
func (p *plan) after(ctx context.Context, wanted map[Ref]bool) ([]upkeep.Object, error) {
	var objects []upkeep.Object
	var refs []Ref
	for ref := range wanted {
		if object := p.put[ref]; object != nil {
			objects = append(objects, object)
		} else if !p.deleted[ref] {
			refs = append(refs, ref)
		}
	}
	rows, err := selectRefs(ctx, p.tx, refs)
	for _, row := range rows {
		if object := row.object(); object != nil && !row.Deleted {
			objects = append(objects, object)
		}
	}
	return objects, err
}

// needs finds, for each role that a server does not have, a site or zone that
// needs it and stays as it is.
func (p *plan) needs(ctx context.Context, needs map[upkeep.Need]string) error {
	for _, a := range p.altered {
		is, put := a.New.(upkeep.Server)
		if !put {
			continue
		}
		var lost []string
		for _, role := range []string{upkeep.RoleWeb, upkeep.RoleFiles, upkeep.RoleDNS} {
			if !slices.Contains(is.Roles, role) {
				lost = append(lost, role)
			}
		}
		if len(lost) == 0 {
			continue
		}
		uses, err := p.users(ctx, upkeep.KindServer, []string{is.Name}, lost...)
		if err != nil {
			return err
		}
		for _, use := range uses {
			if !p.rewritten(use.user()) {
				needs[upkeep.Need{Server: is.Name, Role: use.Role}] = use.Kind + " " + use.Name
			}
		}
	}
	return nil // sites that the change alters are asked whether their servers are right
}

// uidRow is the number of an account's system user.
type uidRow struct {
	bun.BaseModel `bun:"table:uids"`
	UID           int64 `bun:"uid,pk"`
	Account       string
}

// numberAccounts gives accounts the number that they once had, or one that
// nobody ever had, and refuses numbers that are another's.
func (p *plan) numberAccounts(ctx context.Context) error {
	var names []string
	var wanted []int
	for ref, object := range p.put {
		if account, is := object.(upkeep.Account); is {
			names = append(names, ref.Name)
			if account.UID != 0 {
				wanted = append(wanted, account.UID)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	uids, accounts, err := p.knownUIDs(ctx, names, wanted)
	if err != nil {
		return err
	}
	n := numbering{plan: p, uids: uids, accounts: accounts}
	var broken []upkeep.Conflict
	for _, later := range []bool{false, true} { // those that say theirs first
		for _, object := range p.change.Put {
			account, is := object.(upkeep.Account)
			if !is || (account.UID == 0) != later {
				continue
			}
			uid, rule, err := n.number(ctx, account)
			if err != nil {
				return err
			}
			if rule != "" {
				field := upkeep.FieldError{Field: "uid", Rule: rule}
				if account.UID != 0 {
					field.Value = fmt.Sprint(account.UID)
				}
				broken = append(broken, upkeep.Conflict{Object: account, FieldError: field})
			}
			account.UID = uid
			p.put[RefOf(account)] = account
		}
	}
	return invalid(broken)
}

func (p *plan) knownUIDs(ctx context.Context, names []string, numbers []int) (uids map[string]int, accounts map[int]string, err error) {
	uids, accounts = map[string]int{}, map[int]string{}
	keep := func(rows []uidRow) {
		for _, row := range rows {
			uids[row.Account], accounts[int(row.UID)] = int(row.UID), row.Account
		}
	}
	for part := range slices.Chunk(names, chunk) {
		var rows []uidRow
		if err := p.tx.NewSelect().Model(&rows).Where("account IN (?)", bun.List(part)).Scan(ctx); err != nil {
			return nil, nil, err
		}
		keep(rows)
	}
	for part := range slices.Chunk(numbers, chunk) {
		var rows []uidRow
		if err := p.tx.NewSelect().Model(&rows).Where("uid IN (?)", bun.List(part)).Scan(ctx); err != nil {
			return nil, nil, err
		}
		keep(rows)
	}
	return uids, accounts, nil
}

// AccountNumber is the number that an account has or, if it was deleted, had.
func (s *Store) AccountNumber(ctx context.Context, account string) (int, error) {
	var row uidRow
	found, err := notFound(s.read.NewSelect().Model(&row).Where("account = ?", clean(account)).Scan(ctx))
	if err == nil && !found {
		return 0, fmt.Errorf("account %s: %w", account, upkeep.ErrNotFound)
	}
	return int(row.UID), s.explain("finding the number of an account", err)
}

// numbering gives out numbers.
type numbering struct {
	plan     *plan
	uids     map[string]int
	accounts map[int]string
	next     int
}

// number is the number of an account, or the rule that stands in the way.
func (n *numbering) number(ctx context.Context, account upkeep.Account) (uid int, rule string, err error) {
	had, known := n.uids[account.Name]
	switch other := n.accounts[account.UID]; {
	case known && (account.UID == 0 || account.UID == had):
		return had, "", nil
	case known:
		return 0, fmt.Sprintf("must be %d, which %s got for good: files on servers may carry it; only another name gets another number", had, account.Name), nil
	case account.UID != 0 && other != "":
		return 0, fmt.Sprintf("is the number of account %s, whose files on servers carry it even when it was deleted", other), nil
	case account.UID != 0:
		uid = account.UID
	default:
		if uid, err = n.free(ctx); err != nil {
			return 0, "", err
		}
	}
	n.uids[account.Name], n.accounts[uid] = uid, account.Name
	n.plan.uids = append(n.plan.uids, uidRow{UID: int64(uid), Account: account.Name})
	return uid, "", nil
}

// free is a number that nobody ever had: the one after the highest, and when
// that is the end of the range the lowest in a gap.
func (n *numbering) free(ctx context.Context) (int, error) {
	if n.next == 0 {
		var highest int
		err := n.plan.tx.NewSelect().Model((*uidRow)(nil)).ColumnExpr("COALESCE(MAX(uid), 0)").Scan(ctx, &highest)
		if err != nil {
			return 0, err
		}
		n.next = max(highest+1, upkeep.MinUID)
	}
	for n.next <= upkeep.MaxUID {
		uid := n.next
		n.next++
		if n.accounts[uid] == "" {
			return uid, nil
		}
	}
	var all []int
	if err := n.plan.tx.NewSelect().Model((*uidRow)(nil)).Column("uid").Scan(ctx, &all); err != nil {
		return 0, err
	}
	taken := make(map[int]bool, len(all))
	for _, uid := range all {
		taken[uid] = true
	}
	for uid := upkeep.MinUID; uid <= upkeep.MaxUID; uid++ {
		if !taken[uid] && n.accounts[uid] == "" {
			return uid, nil
		}
	}
	return 0, fmt.Errorf("every user number from %d to %d was given away", upkeep.MinUID, upkeep.MaxUID)
}

// accountServerRow says that an account has, or had, a site on a server.
type accountServerRow struct {
	bun.BaseModel `bun:"table:account_servers"`
	Account       string `bun:",pk"`
	Server        string `bun:",pk"`
}

// noteServers writes down on which servers accounts come to be. Nothing is taken
// back with a site: the user of its account stays.
func (p *plan) noteServers(ctx context.Context) error {
	seen := map[accountServerRow]bool{}
	var rows []accountServerRow
	for _, a := range p.altered {
		site, is := a.New.(upkeep.Site)
		if !is {
			continue
		}
		for _, server := range append(slices.Clone(site.Servers), site.Files) {
			row := accountServerRow{Account: site.Account, Server: server}
			if server != "" && !seen[row] {
				seen[row] = true
				rows = append(rows, row)
			}
		}
	}
	for part := range slices.Chunk(rows, chunk) {
		if _, err := p.tx.NewInsert().Model(&part).On("CONFLICT (account, server) DO NOTHING").Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// AccountServers are the servers on which an account has, or had, a site, and
// that are declared still.
func (t Tx) AccountServers(ctx context.Context, account string) (servers []string, err error) {
	err = t.tx.NewSelect().Model((*accountServerRow)(nil)).Column("server").Where("account = ?", account).Order("server").Scan(ctx, &servers)
	return servers, err
}
