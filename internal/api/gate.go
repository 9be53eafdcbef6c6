package api

import (
	"fmt"
	"net/http"
	"strings"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api/wire"
)

// Pages are what people see in a browser.
type Pages interface {
	// Routes are the handlers by pattern. Each has a rule in package access.
	Routes() map[string]http.Handler
	// Refused answers in place of a page that the caller may not have.
	Refused(w http.ResponseWriter, r *http.Request, p *wire.Problem)
}

// gate registers routes, each behind its rule.
type gate struct {
	a       *API
	there   []string // patterns that were registered
	unruled []string // patterns without a rule, which were not
}

// HandleFunc and ServeHTTP make it what the API framework registers routes with.
func (g *gate) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	g.handle(pattern, g.a.whole(handler), writeProblem)
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.a.routes.ServeHTTP(w, r) }

// page registers a page, which says no in its own way.
func (g *gate) page(pattern string, handler http.Handler) {
	g.handle(pattern, handler.ServeHTTP, nil)
}

func (g *gate) handle(pattern string, handler http.HandlerFunc, refuse func(http.ResponseWriter, *wire.Problem)) {
	rule, known := access.For(pattern)
	if !known {
		g.unruled = append(g.unruled, pattern)
		return
	}
	g.there = append(g.there, pattern)
	g.a.routes.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		caller := callerOf(r.Context())
		outcome := rule.Check(caller, g.a.o.Private)
		switch {
		case outcome == access.Allowed && rule.Lasts:
			ctx, cancel := g.a.still.whileKnown(r.Context(), g.a.o.Recorder)
			defer cancel()
			handler(w, r.WithContext(ctx))
		case outcome == access.Allowed:
			handler(w, r)
		case refuse == nil:
			g.a.o.Page.Refused(w, r, refusal(outcome, rule, caller))
		default:
			if rule.For == access.Onlookers && !strings.HasPrefix(r.URL.Path, "/api/") {
				w.Header().Set("WWW-Authenticate", Challenge)
			}
			refuse(w, refusal(outcome, rule, caller))
		}
	})
}

// Challenge has a browser ask for the token of the data folder.
const Challenge = `Basic realm="upkeep: any user, the token as password"`

// Routes lists the patterns of all routes.
func (a *API) Routes() []string { return a.gate.there }

// complete refuses routes without a rule.
func (g *gate) complete() error {
	if len(g.unruled) > 0 {
		return fmt.Errorf("nobody has said who may use %s: see internal/access", strings.Join(g.unruled, ", "))
	}
	return nil
}

func refusal(outcome access.Outcome, rule access.Rule, c access.Caller) *wire.Problem {
	switch {
	case outcome == access.Unknown:
		return wire.NewProblem(http.StatusUnauthorized, "this needs a token",
			"send \"Authorization: Bearer TOKEN\", or use the control socket; the token is in the file \"token\" in the data folder")
	case rule.Users && c.Staff && !c.ReadOnly:
		return wire.NewProblem(http.StatusForbidden, "your token may not say who signs in, or how", "make one with scope "+upkeep.ScopeUsers)
	case rule.For <= access.Customers || c.Staff:
		return wire.NewProblem(http.StatusForbidden, "your token may only read", "make one with scope write")
	}
	return wire.NewProblem(http.StatusForbidden, "this is for staff", "")
}
