package store

import (
	"context"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"upkeep"
	"upkeep/internal/names"
)

// nameRow is a name that a site answers to.
type nameRow struct {
	bun.BaseModel `bun:"table:site_names"`
	Name          string `bun:",pk"`
	Site          string
	Account       string
	Backwards     string
	Skeleton      string
}

func (r nameRow) claim() names.Claim {
	return names.Claim{Name: r.Name, Site: r.Site, Account: r.Account}
}

func nameRows(site upkeep.Site) []nameRow {
	var rows []nameRow
	for _, c := range names.Claims(site) {
		rows = append(rows, nameRow{
			Name: c.Name, Site: c.Site, Account: c.Account, Backwards: names.Backwards(c.Name), Skeleton: names.Skeleton(strings.TrimPrefix(c.Name, "*.")),
		})
	}
	return rows
}

// Reserve keeps names, and all below them, from sites: control's own, for one.
// It is called before the store is shared.
func (s *Store) Reserve(names ...string) {
	for _, name := range names {
		s.reserved = append(s.reserved, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
}

// nameSpace is the part of the name space that a change is about.
type nameSpace struct {
	plan  *plan
	sites []upkeep.Site // that are created or changed
	// held are the names that accounts had before.
	held map[names.Claim]bool // without the site
	// claims are those of others, as they are after the change.
	claims map[string]names.Claim
	// registered has the site of each name before the change.
	registered map[string]string
}

// checkNames holds changed sites to the rules of names.
func (p *plan) checkNames(ctx context.Context, changed []upkeep.Object) error {
	n := nameSpace{plan: p, held: map[names.Claim]bool{}, claims: map[string]names.Claim{}, registered: map[string]string{}}
	for _, object := range changed {
		if site, is := object.(upkeep.Site); is {
			n.sites = append(n.sites, site)
		}
	}
	if len(n.sites) == 0 {
		return nil
	}
	if err := n.load(ctx); err != nil {
		return err
	}
	n.settle()
	delegations, err := n.delegations(ctx)
	if err != nil {
		return err
	}
	claims := make([]names.Claim, 0, len(n.claims)+3*len(n.sites))
	for _, claim := range n.claims {
		claims = append(claims, claim)
	}
	for _, site := range n.sites {
		claims = append(claims, names.Claims(site)...)
	}
	rules := names.Rules{Tree: names.NewTree(claims, delegations), Held: n.had, Reserved: p.reserved, Now: p.now}
	var broken []upkeep.Conflict
	for _, site := range n.sites {
		for _, field := range rules.Check(site) {
			broken = append(broken, upkeep.Conflict{Object: site, FieldError: field})
		}
	}
	if err := invalid(broken); err != nil {
		return err
	}
	return n.lookalikes(ctx)
}

func (n *nameSpace) had(account, name string) bool {
	return n.held[names.Claim{Name: name, Account: account}]
}

// load reads the claims at and above all names of the sites, and below those
// that are new to their accounts.
func (n *nameSpace) load(ctx context.Context) error {
	near := map[string]bool{}
	for _, site := range n.sites {
		for _, name := range site.Names() {
			near[name] = true
			for _, above := range names.Above(name) {
				near[above], near["*."+above] = true, true
			}
		}
	}
	if err := n.read(ctx, sortedKeys(near)); err != nil {
		return err
	}
	var below []string // conditions
	var values []any
	flush := func() error {
		if len(below) == 0 {
			return nil
		}
		var rows []nameRow
		err := n.plan.tx.NewSelect().Model(&rows).Where(strings.Join(below, " OR "), values...).Scan(ctx)
		n.keep(rows)
		below, values = nil, nil
		return err
	}
	for _, site := range n.sites {
		for _, name := range site.Names() {
			if strings.HasPrefix(name, "*.") || n.had(site.Account, name) {
				continue
			}
			backwards := names.Backwards(name)
			below = append(below, "(backwards > ? AND backwards < ? AND account <> ?)")
			values = append(values, backwards, names.Beyond(backwards), site.Account)
			if len(below) == 100 { // within what SQLite takes as one expression
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// read reads the claims of names.
func (n *nameSpace) read(ctx context.Context, wanted []string) error {
	for part := range slices.Chunk(wanted, chunk) {
		var rows []nameRow
		if err := n.plan.tx.NewSelect().Model(&rows).Where("name IN (?)", bun.List(part)).Scan(ctx); err != nil {
			return err
		}
		for _, row := range rows {
			n.held[names.Claim{Name: row.Name, Account: row.Account}] = true
			n.registered[row.Name] = row.Site
		}
		n.keep(rows)
	}
	return nil
}

// settle notes the sites whose names and uses are stored as they will be: most
// changes are of something else.
func (n *nameSpace) settle() {
	n.plan.settled = map[string]bool{}
	for _, a := range n.plan.altered {
		was, wasSite := a.Old.(upkeep.Site)
		is, isSite := a.New.(upkeep.Site)
		if wasSite && isSite && slices.Equal(names.Claims(was), names.Claims(is)) && slices.Equal(usesOf(was), usesOf(is)) &&
			unregistered(is, n.registered) == nil {
			n.plan.settled[is.Name] = true
		}
	}
}

// keep takes claims up that are there after the change. Those of a site that is
// put as it already is stay.
func (n *nameSpace) keep(rows []nameRow) {
	for _, row := range rows {
		if !n.plan.rewritten(Ref{upkeep.KindSite, row.Site}) {
			n.claims[row.Name] = row.claim()
		}
	}
}

// rewritten reports whether the change creates, changes or deletes a thing.
func (p *plan) rewritten(ref Ref) bool {
	if p.rewrites == nil {
		p.rewrites = make(map[Ref]bool, len(p.altered))
		for _, a := range p.altered {
			p.rewrites[a.Ref] = true
		}
	}
	return p.rewrites[ref]
}

// delegations reads those that are at or above any name in question.
func (n *nameSpace) delegations(ctx context.Context) ([]upkeep.Delegation, error) {
	wanted := map[Ref]bool{}
	want := func(name string) {
		for _, at := range append(names.Above(name), name) {
			wanted[Ref{upkeep.KindDelegation, at}] = true
		}
	}
	for _, site := range n.sites {
		for _, name := range site.Names() {
			want(name)
		}
	}
	for name := range n.claims {
		want(name)
	}
	objects, err := n.plan.after(ctx, wanted)
	var found []upkeep.Delegation
	for _, object := range objects {
		if delegation, is := object.(upkeep.Delegation); is {
			found = append(found, delegation)
		}
	}
	return found, err
}

// lookalikes warns of new names that can be taken for one of another account.
func (n *nameSpace) lookalikes(ctx context.Context) error {
	type gained struct {
		site upkeep.Site
		name string
	}
	looks := map[string][]gained{} // by skeleton
	others := map[string][]names.Claim{}
	for _, site := range n.sites {
		for _, name := range append([]string{site.Name}, site.Aliases...) {
			skeleton := names.Skeleton(name)
			others[skeleton] = append(others[skeleton], names.Claim{Name: name, Site: site.Name, Account: site.Account})
			if !n.had(site.Account, name) {
				looks[skeleton] = append(looks[skeleton], gained{site, name})
			}
		}
	}
	for part := range slices.Chunk(sortedKeys(looks), chunk) {
		var rows []nameRow
		if err := n.plan.tx.NewSelect().Model(&rows).Where("skeleton IN (?)", bun.List(part)).Order("name").Scan(ctx); err != nil {
			return err
		}
		for _, row := range rows {
			if !n.plan.rewritten(Ref{upkeep.KindSite, row.Site}) {
				others[row.Skeleton] = append(others[row.Skeleton], row.claim())
			}
		}
	}
	for _, skeleton := range sortedKeys(looks) {
		for _, g := range looks[skeleton] {
			for _, other := range others[skeleton] {
				if other.Account != g.site.Account && other.Name != g.name {
					n.plan.warnings = append(n.plan.warnings, names.Lookalike(g.site, g.name, other))
					break // one is enough to look into it
				}
			}
		}
	}
	return nil
}

// writeHosting saves what belongs to changed rows of [upkeep.HostingKinds]: their
// names, uses, numbers and history. Zones use servers too.
func (p *plan) writeHosting(ctx context.Context) error {
	var sites []string
	users := map[string][]string{}
	var claims []nameRow
	var uses []useRow
	for _, a := range p.altered {
		if !hosting(a.Ref.Kind) && a.Ref.Kind != upkeep.KindZone || a.Ref.Kind == upkeep.KindSite && p.settled[a.Ref.Name] {
			continue
		}
		users[a.Ref.Kind] = append(users[a.Ref.Kind], a.Ref.Name)
		if a.Ref.Kind == upkeep.KindSite {
			sites = append(sites, a.Ref.Name)
		}
		if a.New != nil {
			uses = append(uses, usesOf(a.New)...)
		}
		if site, is := a.New.(upkeep.Site); is {
			claims = append(claims, nameRows(site)...)
		}
	}
	for part := range slices.Chunk(sites, chunk) {
		if _, err := p.tx.NewDelete().Model((*nameRow)(nil)).Where("site IN (?)", bun.List(part)).Exec(ctx); err != nil {
			return err
		}
	}
	for kind, all := range users {
		for part := range slices.Chunk(all, chunk) {
			if _, err := p.tx.NewDelete().Model((*useRow)(nil)).Where("kind = ?", kind).Where("name IN (?)", bun.List(part)).Exec(ctx); err != nil {
				return err
			}
		}
	}
	if err := insertAll(ctx, p.tx, claims); err != nil {
		return err
	}
	if err := insertAll(ctx, p.tx, uses); err != nil {
		return err
	}
	if err := insertAll(ctx, p.tx, p.uids); err != nil {
		return err
	}
	if err := p.noteServers(ctx); err != nil {
		return err
	}
	return p.writeHistory(ctx)
}

// insertAll inserts rows, some at a time.
func insertAll[T any](ctx context.Context, tx bun.Tx, rows []T) error {
	for part := range slices.Chunk(rows, chunk) {
		if _, err := tx.NewInsert().Model(&part).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
