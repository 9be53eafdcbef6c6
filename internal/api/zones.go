package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"upkeep"
	"upkeep/internal/api/wire"
)

type zonesOutput struct {
	Next string `header:"Link" doc:"The next page, if there is one, with rel=next."`
	Body struct {
		Zones []upkeep.ZoneStatus `json:"zones" nullable:"false"`
	}
}

type zoneInput struct {
	Name string `path:"name" maxLength:"253" example:"example.test" doc:"The name of the zone."`
}

type renumberedOutput struct{ Body wire.Renumbered }

func (a *API) zoneRoutes(h huma.API) {
	huma.Register(h, huma.Operation{OperationID: "list-zones", Method: http.MethodGet, Path: "/api/v1/zones",
		Summary: "What the name servers of every zone answer now"}, func(ctx context.Context, in *NamesInput) (*zonesOutput, error) {
		zones, err := a.o.Observer.Zones(ctx)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &zonesOutput{}
		out.Body.Zones, out.Next = part(in, zones, func(z upkeep.ZoneStatus) string { return z.Name })
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "renumber-zone", Method: http.MethodPost, Path: "/api/v1/zones/{name}/renumber",
		Summary: "Walk a serial that is ahead of the clock back to it, for a few seconds a call"}), func(ctx context.Context, in *zoneInput) (*renumberedOutput, error) {
		ctx, cancel := context.WithTimeout(ctx, renumberFor)
		defer cancel()
		serial, done, waiting, err := a.o.Forcer.Renumber(ctx, callerOf(ctx).Who, in.Name)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &renumberedOutput{wire.Renumbered{Serial: serial, Done: done, Waiting: waiting}}, nil
	})
}

// renumberFor bounds one call: a name server may be away for days.
const renumberFor = 5 * time.Second
