package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"upkeep"
)

type zonesOutput struct {
	Body struct {
		Zones []upkeep.ZoneStatus `json:"zones" nullable:"false"`
	}
}

func (a *API) zoneRoutes(h huma.API) {
	huma.Register(h, huma.Operation{OperationID: "list-zones", Method: http.MethodGet, Path: "/api/v1/zones",
		Summary: "What the name servers of every zone answer now"}, func(ctx context.Context, _ *struct{}) (*zonesOutput, error) {
		zones, err := a.o.Observer.Zones(ctx)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &zonesOutput{}
		out.Body.Zones = append([]upkeep.ZoneStatus{}, zones...)
		return out, nil
	})
}
