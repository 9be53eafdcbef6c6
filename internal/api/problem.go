package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"upkeep"
	"upkeep/internal/api/wire"
)

// problem is the one place where an error becomes a status.
func (a *API) problem(ctx context.Context, err error) error {
	if ready := (*wire.Problem)(nil); errors.As(err, &ready) {
		return ready
	}
	p := wire.NewProblem(http.StatusInternalServerError, err.Error(), "")
	if hinted := (*upkeep.HintError)(nil); errors.As(err, &hinted) {
		p.Hint = hinted.Hint
	}
	invalid := (*upkeep.InvalidError)(nil)
	switch {
	case errors.As(err, &invalid):
		p.Status, p.Detail = http.StatusUnprocessableEntity, "the input breaks rules; nothing was changed"
		for _, f := range invalid.Fields {
			p.Errors = append(p.Errors, wire.Detail{FieldError: f})
		}
	case errors.Is(err, upkeep.ErrNotFound):
		p.Status = http.StatusNotFound
	case errors.Is(err, upkeep.ErrChanged):
		p.Status = http.StatusPreconditionFailed
	case errors.Is(err, upkeep.ErrConflict):
		p.Status = http.StatusConflict
	case errors.Is(err, upkeep.ErrRefused):
		p.Status = http.StatusForbidden
	case errors.Is(err, context.DeadlineExceeded):
		p.Status = http.StatusGatewayTimeout
	default:
		if !errors.Is(err, context.Canceled) {
			a.log.Error("answering a request", "err", err)
		}
		if !callerOf(ctx).trusted {
			p.Detail = "upkeep is at fault; its log has the details"
		}
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// writeProblem answers with p outside huma's handlers.
func writeProblem(w http.ResponseWriter, p *wire.Problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}
