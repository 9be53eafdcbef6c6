package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api/apitest"
	"upkeep/internal/api/wire"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// TestDocument holds the description of the API, which is in the tree and is
// served, to the routes, the types and the comments.
func TestDocument(t *testing.T) {
	want := documentOf(t)
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(document, want) {
		t.Error("openapi.json is not what the routes say: go test ./internal/api -run TestDocument -update")
	}
	w := answer(newTestAPI(t, &fake{}).Public(), httptestGet("/api/v1/openapi.json"))
	if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), document) || w.Header().Get("Content-Type") != "application/openapi+json" {
		t.Errorf("another one is served: %d, %s", w.Code, w.Header())
	}
}

// documentOf makes the description.
func documentOf(t *testing.T) []byte {
	t.Helper()
	o := newTestAPI(t, &fake{}).describedAnew()
	o.Info.Description = "Declare pools, zones and sites, see what DNS and web servers answer and why, and steer the work on servers. " +
		"Over TCP requests carry \"Authorization: Bearer TOKEN\"; on the control socket the user that connects decides."
	o.Components.Responses = map[string]*huma.Response{"Problem": {
		Description: "Any status of 400 and above: nothing was done, and why (RFC 9457).",
		Content: map[string]*huma.MediaType{"application/problem+json": {
			Schema: o.Components.Schemas.Schema(typeOf[wire.Problem](), true, "")}},
	}}
	o.Components.Parameters = map[string]*huma.Param{"IdempotencyKey": {
		Name: keyHeader, In: "header", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: ptr(maxKey + 2)},
		Description: "Any text that no other request of yours has, such as a UUID. Sent again with the same key within a day, the request does nothing again: it is answered as it was " +
			"(Idempotency-Replayed: true). While it is being carried out the answer is 409; with the key of another request, 422. Only what was done is remembered.",
	}}
	describeDocuments(o)
	for path, item := range o.Paths {
		for method, op := range operations(item) {
			describe(t, path, method, op)
		}
	}
	schemas := o.Components.Schemas.Map()
	delete(schemas, "ErrorModel") // the framework's own, in place of which are problems
	delete(schemas, "ErrorDetail")
	describeTypes(t, o.Components.Schemas)
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return withSamples(t, text)
}

// withSamples adds to each operation a command that uses it. The text that it
// returns has its fields in alphabetical order.
func withSamples(t *testing.T, text []byte) []byte {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	s, err := apitest.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range s.Operations() {
		paths := d["paths"].(map[string]any)[op.Path].(map[string]any)
		paths[strings.ToLower(op.Method)].(map[string]any)["x-codeSamples"] =
			[]map[string]string{{"lang": "Shell", "label": "curl", "source": curl(s.Sample(op))}}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(d); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// describedAnew registers the routes once more, to be described.
func (a *API) describedAnew() *huma.OpenAPI {
	b := &API{o: a.o, log: a.log, routes: http.NewServeMux(), hosts: a.hosts, peers: a.peers}
	b.gate, b.bounds = &gate{a: b}, a.bounds
	return b.described().OpenAPI()
}

func operations(item *huma.PathItem) map[string]*huma.Operation {
	all := map[string]*huma.Operation{}
	for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "DELETE": item.Delete, "PATCH": item.Patch} {
		if op != nil {
			all[method] = op
		}
	}
	return all
}

// nouns are the parts that the description has, by the first word of a path.
var nouns = map[string]string{
	"apply": "Declared things", "diff": "Declared things", "delete": "Declared things", "objects": "Declared things",
	"pools": "Pools and zones", "zones": "Pools and zones", "unfreeze": "Pools and zones", "receivers": "Pools and zones",
	"sites": "Sites", "jobs": "Jobs", "servers": "Servers", "images": "Servers", "users": "Users", "events": "Events and audit", "audit": "Events and audit",
}

// describe adds to an operation what its route has beside the types.
func describe(t *testing.T, path, method string, op *huma.Operation) {
	t.Helper()
	noun, known := nouns[strings.Split(path, "/")[3]]
	if !known {
		t.Errorf("%s belongs to no part of the description", path)
	}
	op.Tags = []string{noun}
	rule, _ := access.For(method + " " + path)
	op.Description = "For " + map[access.Group]string{
		access.Anybody: "everybody.", access.Visitors: "everybody, unless upkeep is private.", access.Onlookers: "everybody, unless upkeep is private; then for staff.",
		access.Customers: "those who signed in; a customer has what its account owns.", access.Staff: "staff.",
	}[rule.For]
	if rule.Changes {
		op.Description += " A token needs the scope write."
	}
	if method == http.MethodPost {
		op.Parameters = append(op.Parameters, &huma.Param{Ref: "#/components/parameters/IdempotencyKey"})
	}
	op.Parameters = slices.DeleteFunc(op.Parameters, func(p *huma.Param) bool {
		return p.Name == "Content-Type" // the body says it
	})
	if op.RequestBody != nil {
		delete(op.RequestBody.Content, "application/octet-stream") // the framework's word for a body that is read by its handler
	}
	for status := range op.Responses {
		if status == "default" {
			op.Responses[status] = &huma.Response{Ref: "#/components/responses/Problem"}
		}
	}
	if _, has := op.Responses["default"]; !has {
		op.Responses["default"] = &huma.Response{Ref: "#/components/responses/Problem"}
	}
}

// memberDocument is a member in its long form.
type memberDocument upkeep.Member

// describeDocuments adds the documents, which the API carries whole.
func describeDocuments(o *huma.OpenAPI) {
	schemas := o.Components.Schemas
	var all []*huma.Schema
	for _, kind := range upkeep.Kinds {
		object := documentTypes[kind]
		all = append(all, schemas.Schema(object, true, ""))
		schemas.SchemaFromRef("#/components/schemas/" + object.Name()).Properties["kind"] = &huma.Schema{Type: huma.TypeString, Enum: []any{kind}, Description: "What it is."}
	}
	long := schemas.Schema(typeOf[memberDocument](), true, "")
	schemas.SchemaFromRef("#/components/schemas/Pool").Properties["members"].Items =
		&huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString, Description: "An address alone."}, long}}
	for _, of := range []string{"Declared", "Generation"} {
		schemas.SchemaFromRef("#/components/schemas/" + of).Properties["object"] = &huma.Schema{AnyOf: all}
	}
}

// documentTypes are the types of declared things.
var documentTypes = map[string]reflect.Type{
	upkeep.KindZone: typeOf[upkeep.Zone](), upkeep.KindPool: typeOf[upkeep.Pool](), upkeep.KindReceiver: typeOf[upkeep.Receiver](),
	upkeep.KindServer: typeOf[upkeep.Server](), upkeep.KindAccount: typeOf[upkeep.Account](), upkeep.KindDelegation: typeOf[upkeep.Delegation](),
	upkeep.KindSite: typeOf[upkeep.Site](),
}

// describeTypes takes the comments of types and their fields over.
func describeTypes(t *testing.T, schemas huma.Registry) {
	t.Helper()
	said := comments(t, "../..", "wire", ".")
	for name, schema := range schemas.Map() {
		of := schemas.TypeFromRef("#/components/schemas/" + name)
		if of == typeOf[memberDocument]() {
			of = typeOf[upkeep.Member]()
		}
		if schema.Description == "" {
			schema.Description = said[of.Name()]
		}
		for _, field := range reflect.VisibleFields(of) {
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			property, is := schema.Properties[key]
			if !is || property.Description != "" {
				continue
			}
			owner := of
			for _, i := range field.Index[:len(field.Index)-1] {
				owner = owner.Field(i).Type
			}
			if text := said[owner.Name()+"."+field.Name]; text != "" && property.Ref == "" {
				property.Description = text
			}
		}
	}
}

func ptr[T any](value T) *T { return &value }

var symbol = regexp.MustCompile(`\[([A-Za-z.]+)\]`)

// comments are what sources say of types and of their fields, by "Type" and
// "Type.Field". The folders have no two types of one name that the API shows.
func comments(t *testing.T, folders ...string) map[string]string {
	t.Helper()
	said := map[string]string{}
	say := func(name string, groups ...*ast.CommentGroup) {
		for _, group := range groups {
			if text := strings.Join(strings.Fields(symbol.ReplaceAllString(group.Text(), "$1")), " "); text != "" {
				said[name] = text
				return
			}
		}
	}
	for _, folder := range folders {
		paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(node ast.Node) bool {
				declaration, is := node.(*ast.GenDecl)
				if !is || declaration.Tok != token.TYPE {
					return true
				}
				for _, spec := range declaration.Specs {
					named := spec.(*ast.TypeSpec)
					say(named.Name.Name, named.Doc, declaration.Doc)
					fields, is := named.Type.(*ast.StructType)
					if !is {
						continue
					}
					for _, field := range fields.Fields.List {
						for _, name := range field.Names {
							say(named.Name.Name+"."+name.Name, field.Doc, field.Comment)
						}
					}
				}
				return true
			})
		}
	}
	return said
}

// curl is a command that sends a request.
func curl(r apitest.Request) string {
	command := "curl"
	if r.Operation.Streams() {
		command += " -N"
	}
	if r.Method != http.MethodGet {
		command += " -X " + r.Method
	}
	if len(r.Operation.Security) > 0 {
		command += ` -H "Authorization: Bearer $TOKEN"`
	}
	switch r.Header["Content-Type"] {
	case "application/yaml":
		command += " -H 'Content-Type: application/yaml' --data-binary @FILE.yaml"
	case "application/json":
		command += " -H 'Content-Type: application/json' \\\n  --data '" + r.Body + "'"
	}
	return command + " \\\n  \"$UPKEEP" + r.Target + "\""
}

// TestDocumentIsWhole wants everything described that somebody who has only the
// description needs.
func TestDocumentIsWhole(t *testing.T) {
	o := newTestAPI(t, &fake{}).describedAnew()
	var d struct {
		OpenAPI    string
		Paths      map[string]map[string]*described
		Components struct {
			Schemas map[string]struct{ Description string }
		}
	}
	if err := json.Unmarshal(document, &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" || len(d.Paths) != len(o.Paths) {
		t.Errorf("version %q, %d paths of %d", d.OpenAPI, len(d.Paths), len(o.Paths))
	}
	for path, methods := range d.Paths {
		for method, op := range methods {
			for _, fault := range op.faults(strings.ToUpper(method)) {
				t.Errorf("%s %s: %s", method, path, fault)
			}
		}
	}
	for name, schema := range d.Components.Schemas {
		if schema.Description == "" && !strings.HasSuffix(name, "OutputBody") && !strings.HasSuffix(name, "InputBody") {
			t.Errorf("the type %s is not described: it has no comment", name)
		}
	}
	// Whatever is registered is described, or is known to be for browsers and machines.
	for _, pattern := range newTestAPI(t, &fake{}).Routes() {
		method, path, _ := strings.Cut(pattern, " ")
		if _, is := d.Paths[path][strings.ToLower(method)]; !is && !slices.Contains([]string{"GET /api/v1/openapi.json", "GET /healthz"}, pattern) {
			t.Errorf("%s is not described", pattern)
		}
	}
}

// described is an operation as the description has it.
type described struct {
	OperationID, Summary, Description string
	Tags                              []string
	Security                          []map[string][]string
	Parameters                        []struct {
		Name, In, Description string
		Ref                   string `json:"$ref"`
	}
	RequestBody *struct {
		Content map[string]struct{ Schema map[string]any }
	}
	Responses map[string]struct {
		Ref         string `json:"$ref"`
		Description string
		Content     map[string]struct{ Schema map[string]any }
	}
}

func (op *described) faults(method string) (faults []string) {
	if op.OperationID == "" || op.Summary == "" || op.Description == "For " || len(op.Tags) != 1 {
		faults = append(faults, "it has no name, summary, rule or part")
	}
	if method != http.MethodGet && len(op.Security) == 0 {
		faults = append(faults, "it changes something and asks for no token")
	}
	for _, p := range op.Parameters {
		if p.Description == "" && p.Ref == "" {
			faults = append(faults, "the parameter "+p.Name+" is not described")
		}
	}
	if op.RequestBody != nil {
		for media, content := range op.RequestBody.Content {
			if len(content.Schema) == 0 {
				faults = append(faults, "the body as "+media+" is not described")
			}
		}
	}
	successes := 0
	for status, response := range op.Responses {
		if status == "default" && response.Ref != "#/components/responses/Problem" {
			faults = append(faults, "its errors are no problems")
		}
		if !strings.HasPrefix(status, "2") {
			continue
		}
		successes++
		if response.Description == "" || status != "204" && len(response.Content) == 0 {
			faults = append(faults, "its answer "+status+" is not described")
		}
		for media, content := range response.Content {
			if len(content.Schema) == 0 {
				faults = append(faults, "its answer as "+media+" is not described")
			}
		}
	}
	if _, has := op.Responses["default"]; successes == 0 || !has {
		faults = append(faults, "it has no answer, or no errors")
	}
	return faults
}
