package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"upkeep"
	"upkeep/internal/api/wire"
)

// problem is the one place where an error becomes a status.
func (a *API) problem(ctx context.Context, err error) error {
	if ready := (*wire.Problem)(nil); errors.As(err, &ready) {
		return ready
	}
	p := wire.NewProblem(http.StatusInternalServerError, upkeep.Printable(upkeep.Said(err)), "") // names that were asked for are in it
	if hinted := (*upkeep.HintError)(nil); errors.As(err, &hinted) {
		p.Hint = hinted.Hint
	}
	invalid := (*upkeep.InvalidError)(nil)
	switch {
	case errors.As(err, &invalid):
		p.Status, p.Detail = http.StatusUnprocessableEntity, "the input breaks rules; nothing was changed"
		p.Errors = invalid.Fields
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
		if !callerOf(ctx).Staff {
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

// worded makes what the framework answers to requests that it refuses, before any
// handler is called, a problem like all others.
func worded(_ huma.Context, _ string, body any) (any, error) {
	model, is := body.(*huma.ErrorModel)
	if !is {
		return body, nil
	}
	p := wire.NewProblem(model.Status, model.Detail, "")
	if len(model.Errors) > 0 {
		p.Detail = "the request breaks rules; nothing was changed"
	}
	for _, e := range model.Errors {
		p.Errors = append(p.Errors, broken(e))
	}
	return p, nil
}

// broken is a rule that was broken, at its field. That one is missing the framework says
// of what it is missing in.
func broken(e *huma.ErrorDetail) upkeep.FieldError {
	before, after, _ := strings.Cut(validation.MsgExpectedRequiredProperty, "%s")
	if name, missing := strings.CutPrefix(e.Message, before); missing {
		return upkeep.FieldError{Field: shortened(e.Location + "." + strings.TrimSuffix(name, after)), Rule: "is required"}
	}
	return upkeep.FieldError{Field: shortened(e.Location), Value: given(e), Rule: shortened(e.Message)}
}

// given is the value that broke a rule, for people to recognise: no secret, and
// nothing that takes long to read.
func given(e *huma.ErrorDetail) string {
	switch value := e.Value.(type) {
	case nil, map[string]any, []any:
		return ""
	default:
		if strings.HasSuffix(e.Location, "password") || e.Location == "body" {
			return ""
		}
		return shortened(fmt.Sprint(value))
	}
}

// longest is how much of what a request holds is said again, in bytes.
const longest = 200

func shortened(text string) string {
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest-3], "") + "..." // a rune may be cut through
	}
	return upkeep.Printable(text)
}
