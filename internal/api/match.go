package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/store"
)

// IfMatchInput makes a change to one thing conditional (RFC 9110, 13.1.1).
type IfMatchInput struct {
	IfMatch string `header:"If-Match" maxLength:"1000" example:"\"7\"" doc:"The ETag with which the thing was read, or several, of which it must have one; * for whatever it has, if it is there. Where it has changed since, nothing is done and the answer is 412."`
}

// ConditionInput makes an apply conditional.
type ConditionInput struct {
	IfMatchInput
	IfNoneMatch string `header:"If-None-Match" maxLength:"64" example:"*" doc:"* for something that must not be there yet. Where it is, nothing is done and the answer is 412."`
}

// entityTag is the ETag of a thing: its generation.
func entityTag(generation int64) string { return strconv.Quote(strconv.FormatInt(generation, 10)) }

// entityTags reads a list of ETags (RFC 9110, 8.8.3), and returns the generations that
// they stand for. A weak one stands for none, since it never matches for a change, and
// neither does one that is not of upkeep's making.
func entityTags(list string) (generations []int64, err error) {
	for rest := list; ; {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			return generations, nil
		}
		opaque, weak := strings.CutPrefix(rest, "W/")
		if !strings.HasPrefix(opaque, `"`) {
			return nil, errors.New("an ETag begins with a quote")
		}
		end := strings.IndexByte(opaque[1:], '"')
		if end < 0 {
			return nil, errors.New("an ETag ends with a quote")
		}
		tag := opaque[:end+2]
		if strings.ContainsFunc(tag, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			return nil, errors.New("an ETag has no spaces in it")
		}
		rest = strings.TrimLeft(opaque[end+2:], " \t")
		if rest != "" && rest[0] != ',' {
			return nil, errors.New("commas stand between ETags")
		}
		generation, err := strconv.ParseInt(tag[1:len(tag)-1], 10, 64)
		if err == nil && generation > 0 && !weak && tag == entityTag(generation) {
			generations = append(generations, generation)
		}
	}
}

// expected are the generations that things must have for a change to be made; nil
// without a condition.
func (a *API) expected(ctx context.Context, match string, refs []store.Ref) (map[store.Ref]int64, error) {
	if match == "" {
		return nil, nil
	}
	generations, err := entityTags(match)
	if match == "*" {
		generations, err = []int64{store.Exists}, nil
	}
	if err == nil && len(refs) != 1 {
		err = errors.New("the request is about several things")
	}
	if err != nil {
		return nil, wire.NewProblem(http.StatusBadRequest, fmt.Sprintf("If-Match %q is for a change to one thing, with the ETag that it was read with: %s", shortened(match), err),
			`an ETag is a generation in quotes, such as "7"; there may be several between commas, or one * for any`)
	}
	if len(generations) == 1 {
		return map[store.Ref]int64{refs[0]: generations[0]}, nil
	}
	return a.oneOf(ctx, refs[0], match, generations)
}

// oneOf is the one of several generations that a thing has. What changes between this
// and the change itself is noticed there.
func (a *API) oneOf(ctx context.Context, ref store.Ref, match string, generations []int64) (map[store.Ref]int64, error) {
	found, err := a.bounds.Objects(ctx, ref.Kind, ref.Name)
	switch {
	case errors.Is(err, upkeep.ErrNotFound) || err == nil && len(found) == 0:
		return map[store.Ref]int64{ref: store.Exists}, nil // which it does not
	case err != nil:
		return nil, a.problem(ctx, err)
	case slices.Contains(generations, found[0].Generation):
		return map[store.Ref]int64{ref: found[0].Generation}, nil
	}
	hint := "somebody else changed it, or the ETags are of something else; read it again"
	if strings.Contains(match, "W/") {
		hint = `an ETag with W/ is weak, as proxies that compress make it, and no change goes by such (RFC 9110, 13.1.1); send it without the W/`
	}
	return nil, wire.NewProblem(http.StatusPreconditionFailed, fmt.Sprintf("%s has generation %d, which is not among those in If-Match", ref, found[0].Generation), hint)
}

// expectedOr are the same with what must not be there.
func (a *API) expectedOr(ctx context.Context, in ConditionInput, refs []store.Ref) (map[store.Ref]int64, error) {
	switch {
	case in.IfNoneMatch == "":
		return a.expected(ctx, in.IfMatch, refs)
	case in.IfNoneMatch == "*" && in.IfMatch == "" && len(refs) == 1:
		return map[store.Ref]int64{refs[0]: 0}, nil
	}
	return nil, wire.NewProblem(http.StatusBadRequest, fmt.Sprintf("If-None-Match %q is for one thing that is not there yet, without If-Match", shortened(in.IfNoneMatch)), `it can only be "*"`)
}

// withListed adds the generations that a body names of what it changes.
func withListed(still map[store.Ref]int64, listed []wire.Still, refs []store.Ref) (map[store.Ref]int64, error) {
	for i, as := range listed {
		ref := store.Ref{Kind: as.Kind, Name: as.Name}
		if !slices.Contains(refs, ref) {
			return nil, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: fmt.Sprintf("body.still[%d]", i), Value: shortened(ref.String()), Rule: "must be a thing that the request changes"}}}
		}
		if still == nil {
			still = map[store.Ref]int64{}
		}
		still[ref] = as.Generation
	}
	return still, nil
}
