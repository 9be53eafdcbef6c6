package api

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"upkeep"
	"upkeep/internal/api/apitest"
)

// world is all that an API asks, in memory.
type world struct {
	control fake
	hosting fakeHosting
	users   fakeUsers
	answers fakeAnswers
	face    http.Handler
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	w.control.pools = append(w.control.pools, webPool())
	w.control.zones = w.control.pools[0].Zones
	w.control.applied = []upkeep.Object{upkeep.Account{Name: "acme"}}
	w.control.events = []upkeep.Event{someEvent(1)}
	w.hosting.jobs = []upkeep.Job{{ID: 7, Kind: upkeep.JobMkdir, State: upkeep.JobPending, Created: time.Unix(1, 0).UTC()}}
	w.face = newTestAPI(t, &w.control, func(o *Options) {
		o.Jobs, o.Sites, o.Servers, o.Users, o.Answers = &w.hosting, &w.hosting, &w.hosting, &w.users, &w.answers
	}).Public()
	return w
}

// did is how much was done.
func (w *world) did() int {
	asked := slices.DeleteFunc(slices.Clone(w.hosting.asked), func(what string) bool { return strings.HasPrefix(what, " ") }) // reads
	return len(w.control.applied) + len(w.control.deleted) + len(w.control.forced) + len(w.control.who) + len(asked) + len(w.users.did)
}

// send sends a request as the operator's.
func (w *world) send(r apitest.Request) *httptest.ResponseRecorder {
	ctx, cancel := context.WithCancel(context.Background())
	if r.Operation != nil && r.Operation.Streams() {
		cancel() // what has no end is looked at as it begins
	}
	defer cancel()
	request := httptest.NewRequestWithContext(ctx, r.Method, r.Target, strings.NewReader(r.Body))
	request.Header.Set("Authorization", "Bearer "+testToken)
	for name, value := range r.Header {
		request.Header[http.CanonicalHeaderKey(name)] = []string{value}
	}
	return answer(w.face, request)
}

// judge holds values to the description with a validator that knows nothing of this
// program: types in OpenAPI 3.1 are JSON Schema.
type judge struct{ compiler *jsonschema.Compiler }

func newJudge(t *testing.T) judge {
	t.Helper()
	j := judge{jsonschema.NewCompiler()}
	described, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	if err := j.compiler.AddResource("https://upkeep.test/openapi.json", described); err != nil {
		t.Fatal(err)
	}
	// As the OpenAPI Initiative publishes it: https://spec.openapis.org/oas/3.1/schema/2022-10-07
	rules, err := j.compiler.Compile("testdata/openapi-3.1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.Validate(described); err != nil {
		t.Errorf("the description is no OpenAPI 3.1: %v", err)
	}
	return j
}

// holds judges a text by the type at a place in the description.
func (j judge) holds(text string, place ...string) error {
	pointer := ""
	for _, part := range place {
		pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(part))
	}
	schema, err := j.compiler.Compile("https://upkeep.test/openapi.json#" + pointer)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// TestSamples sends what the description shows of each operation. It is taken, and
// what is sent and answered is of the types that are described.
func TestSamples(t *testing.T) {
	j := newJudge(t)
	spec, err := apitest.Read(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range spec.Operations() {
		sample := spec.Sample(op)
		at := []string{"paths", op.Path, strings.ToLower(op.Method)}
		if media := sample.Header["Content-Type"]; media == "application/json" {
			if err := j.holds(sample.Body, append(at, "requestBody", "content", media, "schema")...); err != nil {
				t.Errorf("%s: what is sent: %v", op.OperationID, err)
			}
		}
		got := newWorld(t).send(sample)
		media := got.Header().Get("Content-Type")
		place := append(at, "responses", strconv.Itoa(got.Code), "content", media, "schema")
		switch {
		case got.Code == http.StatusNotFound:
			place = []string{"components", "responses", "Problem", "content", media, "schema"}
		case got.Code/100 != 2:
			t.Errorf("%s: the example is answered with %d: %s", op.OperationID, got.Code, got.Body)
			continue
		}
		if got.Code == http.StatusNoContent || op.Streams() {
			continue
		}
		if err := j.holds(got.Body.String(), place...); err != nil {
			t.Errorf("%s: what is answered, %d: %v in %s", op.OperationID, got.Code, err, got.Body)
		}
	}
}
