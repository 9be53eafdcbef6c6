package hosting

import (
	"context"
	"encoding/json"
	"fmt"
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
	links := d.Jobs.Links()
	all := make([]upkeep.AgentStatus, 0, len(servers))
	for _, row := range servers {
		server, is := row.Object.(upkeep.Server)
		if !is {
			continue // reported where it is read
		}
		s := upkeep.AgentStatus{Name: server.Name, Roles: server.Roles, State: "new", Pending: pending[server.Name], Sites: sites[server.Name]}
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
		if facts, err := d.facts(ctx, server.Name); err != nil {
			return nil, err
		} else if facts != nil {
			s.Facts = facts
		}
		all = append(all, s)
	}
	return all, nil
}

// facts are those of the latest job that asked for them, nil when there was none.
func (d *Desk) facts(ctx context.Context, server string) (*upkeep.Facts, error) {
	jobs, err := d.Jobs.List(ctx, store.JobFilter{Server: server, Kind: upkeep.JobServerFacts, States: []upkeep.JobState{upkeep.JobDone}, Limit: 1})
	if err != nil || len(jobs) == 0 {
		return nil, err
	}
	job, err := d.Jobs.Show(ctx, jobs[0].ID)
	if err != nil {
		return nil, err
	}
	var facts upkeep.Facts
	if json.Unmarshal(job.Result, &facts) != nil {
		return nil, nil // of another version
	}
	return &facts, nil
}

// Invite lets an agent join as a server, once.
func (d *Desk) Invite(ctx context.Context, who, server string) (token string, expires time.Time, err error) {
	if d.Agents == nil {
		return "", expires, upkeep.WithHint(fmt.Errorf("inviting the agent of %s: this upkeep takes no agents from elsewhere: %w", server, upkeep.ErrRefused),
			"start it with --agents ADDRESS, such as --agents :8055")
	}
	ref := store.Ref{Kind: upkeep.KindServer, Name: server}
	found, err := d.Store.Declared(ctx, []store.Ref{ref})
	if err != nil {
		return "", expires, err
	}
	if _, declared := found[ref]; !declared {
		return "", expires, upkeep.WithHint(fmt.Errorf("server %s: %w", server, upkeep.ErrNotFound), "declare it with: upkeep server add "+server+" --role web")
	}
	made, invitation := d.Inviter.Invite(server, authority.TokenLife)
	if err := d.Store.Roster().Invite(ctx, invitation); err != nil {
		return "", expires, err
	}
	d.Notice("server/"+server, "a token to join was made", "by "+who)
	return made.Text(), invitation.Expires, nil
}

// Revoke takes the certificates of a server's agent back and ends its link.
func (d *Desk) Revoke(ctx context.Context, who, server string) error {
	if err := d.Store.Roster().Revoke(ctx, server); err != nil {
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
// ctx ends. Without it they would last until the next look at all certificates.
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
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-events:
			if !open {
				return
			}
			server, is := strings.CutPrefix(e.Object, upkeep.KindServer+"/")
			if is && e.Kind == upkeep.EventDeclared && e.What == store.Deleted {
				d.drop(server, "the server is declared no more")
			}
		}
	}
}

func (d *Desk) drop(server, why string) {
	if d.Agents != nil {
		d.Agents.Drop(server, why)
	}
	d.Jobs.Disconnect(server)
}

// Listen is the address at which agents connect, for people to read.
func (d *Desk) Listen() string { return d.Address }
