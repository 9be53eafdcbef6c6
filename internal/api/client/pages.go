package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"upkeep"
	"upkeep/internal/lazy"
)

// mostOnPage is how much of a list that begins with the newest comes at a time.
const mostOnPage = 1000

// link finds where a list goes on (RFC 8288).
var link = lazy.Regexp(`<([^>]*)>; rel="next"`)

// pages reads a list to its end, or until there are so many; 0 stands for all.
func pages[A, T any](ctx context.Context, c *Client, r request, most int, of func(A) []T) ([]T, error) {
	var all []T
	for {
		var answer A
		header, err := c.exchange(ctx, r, &answer)
		if err != nil {
			return nil, err
		}
		all = append(all, of(answer)...)
		if most > 0 && len(all) >= most {
			return all[:most], nil
		}
		next, err := following(header, r.query)
		if err != nil || next == nil {
			return all, err
		}
		r.query = next
	}
}

// following is the query of the next page, nil at the end. Its path is that of the
// list: a token goes where it was meant to.
func following(header http.Header, present url.Values) (url.Values, error) {
	found := link().FindStringSubmatch(header.Get("Link"))
	if found == nil {
		return nil, nil
	}
	to, err := url.Parse(found[1])
	if err != nil {
		return nil, fmt.Errorf("reading where a list goes on: %w", err)
	}
	query := to.Query()
	if query.Encode() == present.Encode() {
		return nil, fmt.Errorf("the list goes on where it is: %q", found[1])
	}
	return query, nil
}

// AuditFilter chooses entries of the audit log; zero fields choose all.
type AuditFilter struct {
	Object, Who string
	Since       time.Time
	Limit       int
}

// Audit returns who changed what, the newest first.
func (c *Client) Audit(ctx context.Context, f AuditFilter) ([]upkeep.AuditEntry, error) {
	query := url.Values{"limit": {strconv.Itoa(min(f.Limit, mostOnPage))}}
	for name, value := range map[string]string{"object": f.Object, "who": f.Who} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if !f.Since.IsZero() {
		query.Set("since", f.Since.Format(time.RFC3339Nano))
	}
	return pages(ctx, c, request{method: "GET", path: []string{"audit"}, query: query}, f.Limit,
		func(answer struct{ Entries []upkeep.AuditEntry }) []upkeep.AuditEntry { return answer.Entries })
}

// AuditEntry returns one change, with what there was before and after.
func (c *Client) AuditEntry(ctx context.Context, id int64) (entry upkeep.AuditEntry, err error) {
	err = c.do(ctx, request{method: "GET", path: []string{"audit", strconv.FormatInt(id, 10)}}, &entry)
	return entry, err
}
