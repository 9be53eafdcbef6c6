package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/store"
)

// Sites tells what servers serve, and goes back.
type Sites interface {
	// SitePage returns a part of the list of sites.
	SitePage(ctx context.Context, f upkeep.SiteFilter) (upkeep.SitePage, error)
	// Site returns one, or [upkeep.ErrNotFound].
	Site(ctx context.Context, name string) (upkeep.SiteStatus, error)
	// History returns the generations that are remembered, the newest first.
	History(ctx context.Context, name string) ([]store.Version, error)
	// Undo declares a site as it was at a generation, under a new one.
	Undo(ctx context.Context, who, name string, generation, still int64) (upkeep.SiteStatus, error)
	// Preview asks the web servers what the sites among objects, as they would be,
	// change there.
	Preview(ctx context.Context, who string, objects []upkeep.Object) ([]upkeep.Job, error)
}

// Servers are the machines with agents.
type Servers interface {
	Servers(ctx context.Context) ([]upkeep.AgentStatus, error)
	// Invite lets an agent join as the server, once.
	Invite(ctx context.Context, who, server string) (token string, expires time.Time, err error)
	// Listen is the address at which agents connect, empty when nobody can.
	Listen() string
	// Revoke ends what an agent may do, and its connection.
	Revoke(ctx context.Context, who, server string) error
	// Regenerate has a web server's files made anew; Verify only compares.
	Regenerate(ctx context.Context, server, who string) (upkeep.Job, error)
	Verify(ctx context.Context, server, who string) (upkeep.Job, error)
	// Images returns what servers last told of their images: of one, or of all that
	// have the role with an empty name.
	Images(ctx context.Context, server string) ([]upkeep.ImageList, error)
}

// SiteInput names a site.
type SiteInput struct {
	Name string `path:"name" maxLength:"253" example:"www.example.test" doc:"The name of the site."`
}

// ServerInput names a server.
type ServerInput struct {
	Name string `path:"name" maxLength:"63" example:"web1" doc:"The name of the server."`
}

type sitesInput struct {
	NamesInput
	Account string `query:"account" maxLength:"63" doc:"Only sites of this account."`
}

type undoInput struct {
	SiteInput
	IfMatchInput
	Body struct {
		Generation int64 `json:"generation" minimum:"0" example:"3" doc:"The one to go back to; 0 for the one before the present."`
	}
}

type siteOutput struct{ Body upkeep.SiteStatus }

type sitesOutput struct {
	Next string `header:"Link" doc:"The next page, if there is one, with rel=next."`
	Body struct {
		Sites []upkeep.SiteStatus `json:"sites" nullable:"false"`
	}
}

type historyOutput struct {
	Body struct {
		Generations []wire.Generation `json:"generations" nullable:"false"`
	}
}

type serversOutput struct {
	Next string `header:"Link" doc:"The next page, if there is one, with rel=next."`
	Body struct {
		Servers []upkeep.AgentStatus `json:"servers" nullable:"false"`
	}
}

type imagesInput struct {
	Server string `query:"server" maxLength:"63" doc:"Only those of this server."`
}

type imagesOutput struct {
	Body struct {
		Servers []upkeep.ImageList `json:"servers" nullable:"false"`
	}
}

type invitationOutput struct{ Body wire.Invitation }

func (a *API) siteRoutes(h huma.API) {
	huma.Register(h, secured(huma.Operation{OperationID: "list-sites", Method: http.MethodGet, Path: "/api/v1/sites",
		Summary: "What servers serve of every site"}), func(ctx context.Context, in *sitesInput) (*sitesOutput, error) {
		// The store is asked about those on the page alone: all are many.
		page, err := a.bounds.SitePage(ctx, upkeep.SiteFilter{Account: in.Account, ByName: true, After: in.After, Limit: in.Limit})
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &sitesOutput{}
		out.Body.Sites = append([]upkeep.SiteStatus{}, page.Sites...)
		if page.Of > in.Limit {
			out.Next = in.next("after", page.Last)
		}
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "get-site", Method: http.MethodGet, Path: "/api/v1/sites/{name}",
		Summary: "What servers serve of a site, and why"}), func(ctx context.Context, in *SiteInput) (*siteOutput, error) {
		site, err := a.bounds.Site(ctx, in.Name)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &siteOutput{site}, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "get-site-history", Method: http.MethodGet, Path: "/api/v1/sites/{name}/history",
		Summary: "What a site was before, the newest first"}), func(ctx context.Context, in *SiteInput) (*historyOutput, error) {
		versions, err := a.bounds.History(ctx, in.Name)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &historyOutput{}
		out.Body.Generations = []wire.Generation{}
		for _, v := range versions {
			g := wire.Generation{Generation: v.Generation, At: v.At, Who: v.Who, Deleted: v.Object == nil}
			if v.Object != nil {
				if g.Object, err = json.Marshal(v.Object); err != nil {
					return nil, a.problem(ctx, err)
				}
			}
			out.Body.Generations = append(out.Body.Generations, g)
		}
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "undo-site", Method: http.MethodPost, Path: "/api/v1/sites/{name}/undo",
		Summary: "Declare a site as it was at an earlier generation"}), func(ctx context.Context, in *undoInput) (*siteOutput, error) {
		ref := store.Ref{Kind: upkeep.KindSite, Name: in.Name}
		still, err := a.expected(ctx, in.IfMatch, []store.Ref{ref})
		if err != nil {
			return nil, err
		}
		site, err := a.bounds.Undo(ctx, in.Name, in.Body.Generation, still[ref])
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &siteOutput{site}, nil
	})
	preview := secured(huma.Operation{OperationID: "preview-sites", Method: http.MethodPost, Path: "/api/v1/sites/preview",
		Summary: "Have web servers say what documents would change there", RequestBody: documentsBody(h), MaxBodyBytes: wire.MaxBody, SkipValidateBody: true})
	huma.Register(h, preview, func(ctx context.Context, in *ApplyInput) (*jobsOutput, error) {
		jobs, err := a.preview(ctx, *in)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &jobsOutput{}
		out.Body.Jobs = append([]upkeep.Job{}, jobs...)
		return out, nil
	})
}

// preview checks documents as an apply would, and has the sites among them
// compared with what is on their servers.
func (a *API) preview(ctx context.Context, in ApplyInput) ([]upkeep.Job, error) {
	if _, err := a.apply(ctx, in, ConditionInput{}, true, false); err != nil {
		return nil, err
	}
	sources, err := readSources(in)
	if err != nil {
		return nil, err
	}
	objects, _, err := readObjects(sources.Sources)
	if err != nil {
		return nil, err
	}
	return a.bounds.Preview(ctx, objects)
}

func (a *API) serverRoutes(h huma.API) {
	huma.Register(h, secured(huma.Operation{OperationID: "list-servers", Method: http.MethodGet, Path: "/api/v1/servers",
		Summary: "Servers and their agents"}), func(ctx context.Context, in *NamesInput) (*serversOutput, error) {
		servers, err := a.o.Servers.Servers(ctx)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &serversOutput{}
		out.Body.Servers, out.Next = part(in, servers, func(s upkeep.AgentStatus) string { return s.Name })
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "invite-server", Method: http.MethodPost, Path: "/api/v1/servers/{name}/invitation",
		Summary: "Make a token with which the server's agent joins, once"}), func(ctx context.Context, in *ServerInput) (*invitationOutput, error) {
		token, expires, err := a.o.Servers.Invite(ctx, callerOf(ctx).Who, in.Name)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &invitationOutput{wire.Invitation{Server: in.Name, Token: token, Expires: expires, Listen: a.o.Servers.Listen()}}, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "revoke-server", Method: http.MethodPost, Path: "/api/v1/servers/{name}/revoke",
		Summary: "Take the certificate of a server's agent back", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *ServerInput) (*struct{}, error) {
		if err := a.o.Servers.Revoke(ctx, callerOf(ctx).Who, in.Name); err != nil {
			return nil, a.problem(ctx, err)
		}
		return nil, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "list-images", Method: http.MethodGet, Path: "/api/v1/images",
		Summary: "The images of servers, as each told them last; a job of the kind image.list has them told anew"}), func(ctx context.Context, in *imagesInput) (*imagesOutput, error) {
		lists, err := a.o.Servers.Images(ctx, in.Server)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &imagesOutput{}
		out.Body.Servers = append([]upkeep.ImageList{}, lists...)
		return out, nil
	})
	for _, action := range []struct {
		name, summary string
		do            func(ctx context.Context, server, who string) (upkeep.Job, error)
	}{
		{"regenerate", "Have every file of a web server generated anew", func(ctx context.Context, server, who string) (upkeep.Job, error) {
			return a.o.Servers.Regenerate(ctx, server, who)
		}},
		{"verify", "Have a web server's files compared with what is declared", func(ctx context.Context, server, who string) (upkeep.Job, error) {
			return a.o.Servers.Verify(ctx, server, who)
		}},
	} {
		huma.Register(h, secured(huma.Operation{OperationID: action.name + "-server", Method: http.MethodPost, Path: "/api/v1/servers/{name}/" + action.name,
			Summary: action.summary, DefaultStatus: http.StatusCreated}), func(ctx context.Context, in *ServerInput) (*jobOutput, error) {
			return a.job(ctx)(action.do(ctx, in.Name, callerOf(ctx).Who))
		})
	}
}
