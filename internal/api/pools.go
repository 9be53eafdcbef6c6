package api

import (
	"context"
	"net/http"
	"net/netip"
	"path"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"upkeep"
	"upkeep/internal/api/wire"
)

// PoolInput names a pool.
type PoolInput struct {
	Name string `path:"name" maxLength:"63" example:"web" doc:"The name of the pool, or of the receiver."`
}

// MemberInput names members of a pool.
type MemberInput struct {
	PoolInput
	Member string `path:"member" maxLength:"100" example:"192.0.2.11" doc:"An address, or a glob such as 192.0.2.* as in path.Match."`
}

type forceInput struct {
	MemberInput
	Body wire.Force
}

type poolsOutput struct {
	Next string `header:"Link" doc:"The next page, if there is one, with rel=next."`
	Body struct {
		Pools []upkeep.PoolStatus `json:"pools" nullable:"false"`
	}
}

type poolOutput struct{ Body upkeep.PoolStatus }
type forcedOutput struct{ Body wire.Forced }
type drainedOutput struct{ Body wire.Drained }
type budgetOutput struct{ Body upkeep.Budget }
type latencyOutput struct{ Body upkeep.Latency }

// oneMemberInput names one member of a pool.
type oneMemberInput struct {
	PoolInput
	Member string `path:"member" maxLength:"100" example:"192.0.2.11" doc:"An address."`
}

func (a *API) poolRoutes(h huma.API) {
	huma.Register(h, huma.Operation{OperationID: "list-pools", Method: http.MethodGet, Path: "/api/v1/pools",
		Summary: "What every pool is doing now"}, func(ctx context.Context, in *NamesInput) (*poolsOutput, error) {
		pools, err := a.o.Observer.Pools(ctx)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &poolsOutput{}
		out.Body.Pools, out.Next = part(in, pools, func(p upkeep.PoolStatus) string { return p.Name })
		return out, nil
	})
	huma.Register(h, huma.Operation{OperationID: "get-pool", Method: http.MethodGet, Path: "/api/v1/pools/{name}",
		Summary: "What a pool is doing now, and why"}, func(ctx context.Context, in *PoolInput) (*poolOutput, error) {
		pool, err := a.o.Observer.Pool(ctx, in.Name)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &poolOutput{pool}, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "get-budget", Method: http.MethodGet, Path: "/api/v1/pools/{name}/budget",
		Summary: "The longest a failover of a pool can take, part by part"}), func(ctx context.Context, in *PoolInput) (*budgetOutput, error) {
		budget, err := a.o.Observer.Budget(ctx, in.Name)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &budgetOutput{budget}, nil
	})
	huma.Register(h, huma.Operation{OperationID: "get-latency", Method: http.MethodGet, Path: "/api/v1/pools/{name}/members/{member}/latency",
		Summary: "The round trips to a member in the last hour"}, func(ctx context.Context, in *oneMemberInput) (*latencyOutput, error) {
		member, err := netip.ParseAddr(in.Member)
		if err != nil {
			return nil, a.problem(ctx, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "member", Value: in.Member, Rule: "must be an address, such as 192.0.2.11"}}})
		}
		all, err := a.o.Observer.Latency(ctx, in.Name, []netip.Addr{member})
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &latencyOutput{all[0]}, nil
	})
	a.forceRoutes(h)
}

func (a *API) forceRoutes(h huma.API) {
	huma.Register(h, secured(huma.Operation{OperationID: "test-receiver", Method: http.MethodPost, Path: "/api/v1/receivers/{name}/test",
		Summary: "Send a receiver a test message now", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *PoolInput) (*struct{}, error) {
		if err := a.o.Notifier.Test(ctx, in.Name); err != nil {
			return nil, a.problem(ctx, err)
		}
		return nil, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "unfreeze", Method: http.MethodPost, Path: "/api/v1/unfreeze",
		Summary: "Say that the mass failure of the moment is real", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		if err := a.o.Forcer.Unfreeze(ctx, callerOf(ctx).Who); err != nil {
			return nil, a.problem(ctx, err)
		}
		return nil, nil
	})
	const at = "/api/v1/pools/{name}/members/{member}"
	huma.Register(h, secured(huma.Operation{OperationID: "force-member", Method: http.MethodPost, Path: at + "/force",
		Summary: "Force members into an admin state"}), func(ctx context.Context, in *forceInput) (*forcedOutput, error) {
		if err := globs(in.Name, in.Member); err != nil {
			return nil, a.problem(ctx, err)
		}
		members, err := a.o.Forcer.Force(ctx, callerOf(ctx).Who, upkeep.Override{Pool: in.Name, Member: in.Member, State: in.Body.State, Why: in.Body.Why}, in.Body.All)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &forcedOutput{wire.Forced{Members: append([]string{}, members...)}}, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "release-member", Method: http.MethodDelete, Path: at + "/force",
		Summary: "Give members back to their verdicts"}), func(ctx context.Context, in *MemberInput) (*forcedOutput, error) {
		if err := globs(in.Name, in.Member); err != nil {
			return nil, a.problem(ctx, err)
		}
		members, err := a.o.Forcer.Release(ctx, callerOf(ctx).Who, in.Name, in.Member)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &forcedOutput{wire.Forced{Members: append([]string{}, members...)}}, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "get-drained", Method: http.MethodGet, Path: at + "/drained",
		Summary: "Whether a member is out of every answer and every cache"}), func(ctx context.Context, in *MemberInput) (*drainedOutput, error) {
		done, waiting, err := a.o.Forcer.Drained(ctx, in.Name, in.Member)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &drainedOutput{wire.Drained{Done: done, Waiting: waiting}}, nil
	})
}

// globs refuses patterns that path.Match cannot read, which would match nothing
// for ever.
func globs(pool, member string) error {
	invalid := &upkeep.InvalidError{}
	for _, glob := range []struct{ field, pattern string }{{"pool", pool}, {"member", member}} {
		if _, err := path.Match(glob.pattern, ""); err != nil {
			invalid.Fields = append(invalid.Fields, upkeep.FieldError{Field: glob.field, Value: glob.pattern,
				Rule: "must be a name or a glob such as 192.0.2.*"})
		}
	}
	if len(invalid.Fields) > 0 {
		return invalid
	}
	return nil
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
