package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"upkeep"
	"upkeep/internal/store"
)

// Audit tells who changed what.
type Audit interface {
	Audit(ctx context.Context, f store.AuditFilter) ([]upkeep.AuditEntry, error)
	AuditEntry(ctx context.Context, id int64) (upkeep.AuditEntry, error)
}

type auditInput struct {
	Paging
	Object string    `query:"object" maxLength:"400" example:"pool/web" doc:"Only changes of this object and what lies below it, or of a kind of objects, such as pool."`
	Who    string    `query:"who" maxLength:"400" example:"user ada" doc:"Only changes that this one made."`
	Since  time.Time `query:"since" doc:"Only changes from this time on."`
	Before int64     `query:"before" minimum:"0" doc:"Only changes with a lower id: that of the last one on the page before."`
	Limit  int       `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many to return at most."`
}

type auditOutput struct {
	Next string `header:"Link" doc:"The next page, if there is one, with rel=next."`
	Body struct {
		Entries []upkeep.AuditEntry `json:"entries" nullable:"false"`
	}
}

type auditEntryInput struct {
	ID int64 `path:"id" minimum:"1" example:"3" doc:"The number of the entry."`
}

type auditEntryOutput struct{ Body upkeep.AuditEntry }

func (a *API) auditRoutes(h huma.API) {
	huma.Register(h, secured(huma.Operation{OperationID: "list-audit", Method: http.MethodGet, Path: "/api/v1/audit",
		Summary: "Who changed what, the newest first"}), func(ctx context.Context, in *auditInput) (*auditOutput, error) {
		entries, err := a.o.Audit.Audit(ctx, store.AuditFilter{Object: in.Object, Who: in.Who, Since: in.Since, Before: in.Before, Limit: in.Limit})
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &auditOutput{Next: in.older(len(entries) == in.Limit, func() int64 { return entries[len(entries)-1].ID })}
		out.Body.Entries = append([]upkeep.AuditEntry{}, entries...)
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "get-audit-entry", Method: http.MethodGet, Path: "/api/v1/audit/{id}",
		Summary: "One change, with what there was before and after"}), func(ctx context.Context, in *auditEntryInput) (*auditEntryOutput, error) {
		entry, err := a.o.Audit.AuditEntry(ctx, in.ID)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &auditEntryOutput{entry}, nil
	})
}
