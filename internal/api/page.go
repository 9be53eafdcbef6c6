package api

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// Paging knows the address of a list, to say where the next page of it is: in a
// Link header with rel=next (RFC 8288), which is there as long as there may be more.
type Paging struct{ at url.URL }

// Resolve is called by the framework with each request.
func (p *Paging) Resolve(h huma.Context) []error {
	p.at = h.URL()
	return nil
}

// next is the address of this list from another place on.
func (p *Paging) next(name, value string) string {
	query := p.at.Query()
	query.Set(name, value)
	return "<" + (&url.URL{Path: p.at.Path, RawQuery: query.Encode()}).String() + `>; rel="next"`
}

// older is the next page of a list that begins with the newest.
func (p *Paging) older(more bool, last func() int64) string {
	if !more {
		return ""
	}
	return p.next("before", strconv.FormatInt(last(), 10))
}

// NamesInput chooses a part of a list that is in the order of names.
type NamesInput struct {
	Paging
	Limit int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"How many to return at most."`
	After string `query:"after" maxLength:"253" example:"a" doc:"Only those whose names come after this one: that of the last one on the page before."`
}

// part is the part of all that is asked for, and the address of the next one.
func part[T any](in *NamesInput, all []T, name func(T) string) (some []T, next string) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(x, y T) int { return cmp.Compare(name(x), name(y)) })
	first := 0
	if in.After != "" {
		first, _ = slices.BinarySearchFunc(all, in.After, func(one T, after string) int {
			if name(one) <= after {
				return -1
			}
			return 1
		})
	}
	some = append([]T{}, all[first:min(first+in.Limit, len(all))]...)
	if first+in.Limit < len(all) {
		next = in.next("after", name(some[len(some)-1]))
	}
	return some, next
}
