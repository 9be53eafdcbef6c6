package hosting

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/link/authority"
	"upkeep/internal/store"
)

// Agents is who lets agents in.
type Agents interface {
	// Link is the link of a server, if it stands; Drop ends it.
	Link(server string) (link.Standing, bool)
	Drop(server, why string)
}

// Inviter makes tokens to join with.
type Inviter interface {
	Invite(server string, life time.Duration) (authority.Token, upkeep.Invitation)
}

// Servers returns what is known of every server.
func (d *Desk) Servers(ctx context.Context) ([]upkeep.AgentStatus, error) {
	servers, err := d.Store.All(ctx, upkeep.KindServer)
	if err != nil {
		return nil, err
	}
	certificates, err := d.Store.Roster().Certificates(ctx)
	if err != nil {
		return nil, err
	}
	invitations, err := d.Store.Roster().Invitations(ctx)
	if err != nil {
		return nil, err
	}
	pending, err := d.Store.CountPending(ctx)
	if err != nil {
		return nil, err
	}
	sites, err := d.Store.CountSites(ctx)
	if err != nil {
		return nil, err
	}
	left, err := d.Store.LeftSites(ctx)
	if err != nil {
		return nil, err
	}
	told, err := latest[upkeep.Facts](ctx, d, upkeep.JobServerFacts)
	if err != nil {
		return nil, err
	}
	links := d.Jobs.Links()
	all := make([]upkeep.AgentStatus, 0, len(servers))
	for _, row := range servers {
		server, is := row.Object.(upkeep.Server)
		if !is {
			continue // reported where it is read
		}
		s := upkeep.AgentStatus{Name: server.Name, Roles: server.Roles, StaffOnly: server.StaffOnly, State: "new", Pending: pending[server.Name], Sites: sites[server.Name]}
		for _, i := range invitations {
			if i.Server == server.Name && i.Used.IsZero() && i.Expires.After(time.Now()) {
				s.State = "waiting"
			}
		}
		for _, c := range certificates {
			if c.Server == server.Name {
				s.State, s.Expires = "joined", c.Expires
			}
		}
		if presence, known := links[server.Name]; known {
			if presence.Connected { // the one in this process has no certificate
				s.State = "joined"
			}
			s.Connected, s.Since = presence.Connected, presence.Since
			s.Facts = &presence.Hello.Facts
		}
		// The agent tells by itself when something changes: what it said last counts.
		if facts := told[server.Name]; facts != nil && (s.Facts == nil || facts.At.After(s.Facts.At)) {
			s.Facts = facts
		}
		if presence, known := links[server.Name]; known && presence.Connected {
			s.Facts = warned(s.Facts, presence.Hello.Age())
		}
		s.Facts = warned(s.Facts, stillServed(server.Name, left[server.Name]))
		all = append(all, s)
	}
	return all, nil
}

// Connected says of every declared server whether its agent is connected.
func (d *Desk) Connected(ctx context.Context) (map[string]bool, error) {
	servers, err := d.Store.All(ctx, upkeep.KindServer)
	if err != nil {
		return nil, err
	}
	links, connected := d.Jobs.Links(), make(map[string]bool, len(servers))
	for _, row := range servers {
		if server, is := row.Object.(upkeep.Server); is {
			connected[server.Name] = links[server.Name].Connected
		}
	}
	return connected, nil
}

// stillServed says that a server answers for sites that were deleted, "" for none.
// Whoever deleted them was told of nothing but that.
func stillServed(server string, sites []string) string {
	if len(sites) == 0 {
		return ""
	}
	names, them := "site "+sites[0]+", which is", "its"
	if len(sites) > 1 {
		names, them = fmt.Sprintf("%d sites that are", len(sites)), "their"
	}
	return fmt.Sprintf("it still answers for %s not declared any more: upkeep job list --state failed says why %s removal failed, upkeep job retry JOB tries that again, and upkeep regenerate %s takes out of the web server what its policy allows", names, them, server)
}

// warned are facts with one more warning, if there is one.
func warned(facts *upkeep.Facts, of string) *upkeep.Facts {
	if of == "" || facts == nil {
		return facts
	}
	with := *facts // the session's own
	with.Warnings = append(slices.Clip(with.Warnings), of)
	return &with
}

// latest are the results of the last job of a kind that was done on each server;
// one that was written by another version and cannot be read is left out.
func latest[T any](ctx context.Context, d *Desk, kind string) (map[string]*T, error) {
	texts, err := d.Store.LastResults(ctx, kind)
	results := make(map[string]*T, len(texts))
	for server, text := range texts {
		result := new(T)
		if json.Unmarshal(text, result) == nil {
			results[server] = result
		}
	}
	return results, err
}

// Images returns what servers last told of their images, of one or of all that have
// the role.
func (d *Desk) Images(ctx context.Context, server string) ([]upkeep.ImageList, error) {
	servers, err := d.Store.All(ctx, upkeep.KindServer)
	if err != nil {
		return nil, err
	}
	told, err := latest[upkeep.ImageList](ctx, d, upkeep.JobImageList)
	if err != nil {
		return nil, err
	}
	var all []upkeep.ImageList
	found := server == ""
	for _, row := range servers {
		is, readable := row.Object.(upkeep.Server)
		if !readable || server != "" && is.Name != server || server == "" && !slices.Contains(is.Roles, upkeep.RoleImages) {
			continue
		}
		found = true
		list := told[is.Name]
		if list == nil {
			list = &upkeep.ImageList{}
		}
		list.Server = is.Name // whatever its agent says
		list.Images = append([]upkeep.ImageFile{}, list.Images...)
		all = append(all, *list)
	}
	if !found {
		return nil, upkeep.WithHint(fmt.Errorf("server %s: %w", server, upkeep.ErrNotFound), "list those that there are with: upkeep server list")
	}
	return all, nil
}

// Invite lets an agent join as the server, once.
func (d *Desk) Invite(ctx context.Context, who, server string) (token string, expires time.Time, err error) {
	if err := d.declared(ctx, server); err != nil {
		return "", expires, err
	}
	if d.Agents == nil {
		return "", expires, upkeep.WithHint(fmt.Errorf("inviting the agent of %s: this upkeep takes no agents from elsewhere: %w", server, upkeep.ErrRefused),
			"start it with --agents ADDRESS, such as --agents :8055")
	}
	made, invitation := d.Inviter.Invite(server, authority.TokenLife)
	if err := d.Store.Roster().By(who).Invite(ctx, invitation); err != nil {
		return "", expires, err
	}
	d.Notice("server/"+server, "a token to join was made", "by "+who)
	return made.Text(), invitation.Expires, nil
}

// declared is nil for a server that is declared. One that was removed has no
// certificate left: [Desk.Follow] takes it back with the declaration.
func (d *Desk) declared(ctx context.Context, server string) error {
	ref := store.Ref{Kind: upkeep.KindServer, Name: server}
	found, err := d.Store.Declared(ctx, []store.Ref{ref})
	if err != nil {
		return err
	}
	if _, declared := found[ref]; !declared {
		return upkeep.WithHint(fmt.Errorf("server %s: %w", server, upkeep.ErrNotFound), "declare it with: upkeep server add "+server+" --role web")
	}
	return nil
}

// Revoke takes the certificates of a server's agent back and ends its link.
func (d *Desk) Revoke(ctx context.Context, who, server string) error {
	if err := d.declared(ctx, server); err != nil {
		return err
	}
	if err := d.Store.Roster().By(who).Revoke(ctx, server); err != nil {
		return err
	}
	d.drop(server, "its certificate was revoked")
	d.Notice("server/"+server, "its certificate was revoked", "by "+who)
	return nil
}

// Follow takes the certificates of servers back that are declared no more, in the
// transaction of that change.
func (d *Desk) Follow(ctx context.Context, tx store.Tx, changes []store.Altered) error {
	for _, change := range changes {
		if change.Ref.Kind == upkeep.KindServer && change.New == nil {
			if err := tx.Revoke(ctx, change.Ref.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Attend ends the links of servers that are declared no more, as it happens, until
// ctx ends. Without it they would last until the next look at all certificates. It
// also tells of delegations that end.
func (d *Desk) Attend(ctx context.Context, subscribe func() (<-chan upkeep.Event, func())) error {
	for ctx.Err() == nil {
		events, cancel := subscribe()
		d.attend(ctx, events)
		cancel()
	}
	return nil
}

// attend returns when the channel is closed, since its reader fell behind.
func (d *Desk) attend(ctx context.Context, events <-chan upkeep.Event) {
	ends := time.NewTimer(0)
	defer ends.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ends.C:
			ends.Reset(d.tellEnds(ctx))
		case e, open := <-events:
			if !open {
				return
			}
			kind, name, _ := strings.Cut(e.Object, "/")
			switch {
			case e.Kind != upkeep.EventDeclared:
			case kind == upkeep.KindServer && e.What == store.Deleted:
				d.drop(name, "the server is declared no more")
			case kind == upkeep.KindDelegation:
				ends.Reset(0) // it may be the next to end
			}
		}
	}
}

// lookAtEnds is the longest time between two looks for delegations that have ended:
// a clock that is set goes past their ends.
const lookAtEnds = time.Minute

// tellEnds tells of delegations that have ended, and returns when to look again.
func (d *Desk) tellEnds(ctx context.Context) time.Duration {
	events, next, err := d.Store.EndedDelegations(ctx)
	if d.Announce != nil && len(events) > 0 {
		d.Announce(events)
	}
	if err != nil || next.IsZero() { // a database that is away says so elsewhere
		return lookAtEnds
	}
	return min(max(time.Until(next), 0), lookAtEnds)
}

func (d *Desk) drop(server, why string) {
	if d.Agents != nil {
		d.Agents.Drop(server, why)
	}
	d.Jobs.Disconnect(server)
}

// Listen is the address at which agents connect, for people to read.
func (d *Desk) Listen() string { return d.Address }
