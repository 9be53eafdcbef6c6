// Package client speaks to a running upkeep, over its control socket or over
// TCP with a token. It is what the command line is made on.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"upkeep"
	"upkeep/internal/api/wire"
)

// ErrUnreachable is returned when no upkeep answers.
var ErrUnreachable = errors.New("no running upkeep can be reached")

// patience is how long a request may take; streams have none.
const patience = time.Minute

// maxAnswer bounds what is read of an answer, in bytes: 10,000 members with
// everything that is known of them take less than a tenth of it.
const maxAnswer = 256 << 20

// Client sends requests to one upkeep. It may be used by several goroutines.
type Client struct {
	http  *http.Client
	base  string // "http://host:port", without a final slash
	token string
	where string // for messages
	hint  string
}

// OverSocket returns a client of the upkeep that keeps its data in folder.
func OverSocket(folder string) *Client {
	path := filepath.Join(folder, "control.sock")
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
		},
	}
	return &Client{http: &http.Client{Transport: transport}, base: "http://localhost", where: path,
		hint: "start one with: upkeep up --data " + folder + "; or name the data folder of the one that runs with --data"}
}

// OverTCP returns a client of the upkeep at a URL such as
// "http://127.0.0.1:8053", with a token as it stands in the data folder.
func OverTCP(control, token string) (*Client, error) {
	u, err := url.Parse(control)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not a URL such as http://127.0.0.1:8053", control)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("%q must hold no user, query or fragment", control)
	}
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // a token goes where it was meant to
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	return &Client{http: &http.Client{Transport: transport, CheckRedirect: refuse}, base: strings.TrimSuffix(u.String(), "/"), token: token,
		where: u.Redacted(), hint: "check the address, and that upkeep was started with --http"}, nil
}

// EventFilter chooses events; zero fields choose all.
type EventFilter struct {
	// Object is "pool/web" or "zone/example.test", which include what lies
	// below, such as "pool/web/192.0.2.1".
	Object string
	Kind   string
	After  int64 // ids above
	Before int64 // ids below
	Since  time.Time
	Limit  int
}

// request is one exchange; body and answer may be nil.
type request struct {
	method string
	path   []string
	query  url.Values
	body   any
	accept string
	// match makes a change conditional: the generation that what is changed must
	// still have; 0 for none.
	match int64
}

func (c *Client) do(ctx context.Context, r request, answer any) error {
	_, err := c.exchange(ctx, r, answer)
	return err
}

// exchange does what do does, and returns the header of the answer.
func (c *Client) exchange(ctx context.Context, r request, answer any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := c.send(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", c.where, err)
	}
	switch answer := answer.(type) {
	case nil:
		return response.Header, nil
	case *[]byte:
		*answer = text
		return response.Header, nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", c.where, err)
	}
	return response.Header, nil
}

// send returns an answer of success; its body is the caller's to close.
func (c *Client) send(ctx context.Context, r request, header http.Header) (*http.Response, error) {
	var escaped strings.Builder
	for _, part := range append([]string{"api", "v1"}, r.path...) {
		escaped.WriteString("/" + url.PathEscape(part))
	}
	target := c.base + escaped.String()
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	if r.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if r.match != 0 {
		request.Header.Set("If-Match", strconv.Quote(strconv.FormatInt(r.match, 10)))
	}
	if r.accept != "" {
		request.Header.Set("Accept", r.accept)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if response.StatusCode/100 != 2 {
		defer response.Body.Close()
		return nil, c.problem(response)
	}
	return response, nil
}

// unreachable words why no answer came.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return upkeep.WithHint(fmt.Errorf("%w: nothing listens at %s", ErrUnreachable, c.where), c.hint)
	case errors.Is(err, os.ErrPermission):
		return upkeep.WithHint(fmt.Errorf("%w: you may not open %s", ErrUnreachable, c.where), "run this as root, or as the user that upkeep runs as")
	default:
		return upkeep.WithHint(fmt.Errorf("%w at %s: %w", ErrUnreachable, c.where, err), c.hint)
	}
}

// problem reads an answer that is no success.
func (c *Client) problem(response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	problem := &wire.Problem{}
	if media != "application/problem+json" || json.Unmarshal(text, problem) != nil {
		return upkeep.WithHint(fmt.Errorf("%s answers %s, which is not the answer of an upkeep", c.where, response.Status), c.hint)
	}
	if problem.Status == 0 {
		problem.Status = response.StatusCode
	}
	return problem
}

// Apply declares the documents of all sources, or with dryRun checks them.
func (c *Client) Apply(ctx context.Context, sources []wire.Source, dryRun bool) (result wire.ApplyResult, err error) {
	query := url.Values{}
	if dryRun {
		query.Set("dry_run", "true")
	}
	err = c.do(ctx, request{method: "POST", path: []string{"apply"}, query: query, body: wire.Sources{Sources: sources}}, &result)
	return result, err
}

// ApplyIf declares one document if the thing still has a generation, and returns
// [upkeep.ErrChanged] otherwise: what others did since it was read is not undone.
func (c *Client) ApplyIf(ctx context.Context, source wire.Source, generation int64) (result wire.ApplyResult, err error) {
	err = c.do(ctx, request{method: "POST", path: []string{"apply"}, body: wire.Sources{Sources: []wire.Source{source}}, match: generation}, &result)
	return result, err
}

// Diff says what Apply would change, with a diff for each document.
func (c *Client) Diff(ctx context.Context, sources []wire.Source) (result wire.ApplyResult, err error) {
	err = c.do(ctx, request{method: "POST", path: []string{"diff"}, body: wire.Sources{Sources: sources}}, &result)
	return result, err
}

// Objects returns the declared objects of a kind, or the one that name names.
func (c *Client) Objects(ctx context.Context, kind, name string) ([]wire.Declared, error) {
	var answer struct{ Objects []wire.Declared }
	err := c.do(ctx, request{method: "GET", path: objectPath(kind, name)}, &answer)
	return answer.Objects, err
}

// ObjectsYAML returns the same as documents that can be applied again.
func (c *Client) ObjectsYAML(ctx context.Context, kind, name string) (text []byte, err error) {
	err = c.do(ctx, request{method: "GET", path: objectPath(kind, name), accept: "application/yaml"}, &text)
	return text, err
}

func objectPath(kind, name string) []string {
	if name == "" {
		return []string{"objects", kind}
	}
	return []string{"objects", kind, name}
}

// Delete deletes declared objects, all of them or none.
func (c *Client) Delete(ctx context.Context, objects ...wire.Ref) error {
	return c.do(ctx, request{method: "POST", path: []string{"delete"}, body: wire.Refs{Objects: objects}}, nil)
}

// Pools returns what every pool is doing.
func (c *Client) Pools(ctx context.Context) ([]upkeep.PoolStatus, error) {
	return pages(ctx, c, request{method: "GET", path: []string{"pools"}}, 0, func(answer struct{ Pools []upkeep.PoolStatus }) []upkeep.PoolStatus { return answer.Pools })
}

// Pool returns what one pool is doing.
func (c *Client) Pool(ctx context.Context, name string) (pool upkeep.PoolStatus, err error) {
	err = c.do(ctx, request{method: "GET", path: []string{"pools", name}}, &pool)
	return pool, err
}

// Latency returns the round trips to a member of a pool in the last hour.
func (c *Client) Latency(ctx context.Context, pool, member string) (latency upkeep.Latency, err error) {
	err = c.do(ctx, request{method: "GET", path: []string{"pools", pool, "members", member, "latency"}}, &latency)
	return latency, err
}

// Budget returns the longest that a failover of a pool can take.
func (c *Client) Budget(ctx context.Context, pool string) (budget upkeep.Budget, err error) {
	err = c.do(ctx, request{method: "GET", path: []string{"pools", pool, "budget"}}, &budget)
	return budget, err
}

// Force lays an admin state over the members that the globs match and returns
// those that they match now, as pool/address.
func (c *Client) Force(ctx context.Context, pool, member string, f wire.Force) ([]string, error) {
	var answer wire.Forced
	err := c.do(ctx, request{method: "POST", path: []string{"pools", pool, "members", member, "force"}, body: f}, &answer)
	return answer.Members, err
}

// Release gives members back to their verdicts.
func (c *Client) Release(ctx context.Context, pool, member string) ([]string, error) {
	var answer wire.Forced
	err := c.do(ctx, request{method: "DELETE", path: []string{"pools", pool, "members", member, "force"}}, &answer)
	return answer.Members, err
}

// Drained says whether a member is out of every answer and every cache.
func (c *Client) Drained(ctx context.Context, pool, member string) (drained wire.Drained, err error) {
	err = c.do(ctx, request{method: "GET", path: []string{"pools", pool, "members", member, "drained"}}, &drained)
	return drained, err
}

// TestReceiver sends a receiver a test message now.
func (c *Client) TestReceiver(ctx context.Context, name string) error {
	return c.do(ctx, request{method: "POST", path: []string{"receivers", name, "test"}}, nil)
}

// Unfreeze says that the mass failure of the moment is real.
func (c *Client) Unfreeze(ctx context.Context) error {
	return c.do(ctx, request{method: "POST", path: []string{"unfreeze"}}, nil)
}

// Renumber walks a zone's serial towards the clock for a few seconds.
func (c *Client) Renumber(ctx context.Context, zone string) (r wire.Renumbered, err error) {
	err = c.do(ctx, request{method: "POST", path: []string{"zones", zone, "renumber"}}, &r)
	return r, err
}

// Zones returns what the name servers of every zone answer.
func (c *Client) Zones(ctx context.Context) ([]upkeep.ZoneStatus, error) {
	return pages(ctx, c, request{method: "GET", path: []string{"zones"}}, 0, func(answer struct{ Zones []upkeep.ZoneStatus }) []upkeep.ZoneStatus { return answer.Zones })
}

// Events returns stored events, oldest first.
func (c *Client) Events(ctx context.Context, f EventFilter) ([]upkeep.Event, error) {
	query := chosen(f)
	for name, n := range map[string]int64{"after": f.After, "before": f.Before, "limit": int64(f.Limit)} {
		if n != 0 {
			query.Set(name, strconv.FormatInt(n, 10))
		}
	}
	if !f.Since.IsZero() {
		query.Set("since", f.Since.Format(time.RFC3339Nano))
	}
	var answer struct{ Events []upkeep.Event }
	err := c.do(ctx, request{method: "GET", path: []string{"events"}, query: query}, &answer)
	return answer.Events, err
}

func chosen(f EventFilter) url.Values {
	query := url.Values{}
	if f.Object != "" {
		query.Set("object", f.Object)
	}
	if f.Kind != "" {
		query.Set("kind", f.Kind)
	}
	return query
}
