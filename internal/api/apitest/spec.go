// Package apitest makes requests of the description of the API: for each operation
// one that it takes, and many that it must refuse. Tests import it.
package apitest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Spec is what of a description requests are made of.
type Spec struct {
	Paths      map[string]map[string]*Operation
	Components struct {
		Schemas    map[string]*Schema
		Parameters map[string]Parameter
	}
}

// Operation is one of the API.
type Operation struct {
	OperationID string
	Parameters  []Parameter
	RequestBody *struct {
		Content map[string]struct{ Schema *Schema }
	}
	Security []map[string][]string

	Method, Path string // as in its place in the description
}

// Parameter is one of a path, a query or a header.
type Parameter struct {
	Ref      string `json:"$ref"`
	Name, In string
	Schema   *Schema
}

// Schema is the type of a value.
type Schema struct {
	Ref        string `json:"$ref"`
	Type       any    // a name, or a list of them
	Format     string
	Enum       []any
	Examples   []any
	Properties map[string]*Schema
	Required   []string
	Items      *Schema
	MaxLength  *int
	Minimum    *float64
}

// Read reads a description.
func Read(document []byte) (*Spec, error) {
	s := &Spec{}
	if err := json.Unmarshal(document, s); err != nil {
		return nil, fmt.Errorf("reading the description of the API: %w", err)
	}
	for path, methods := range s.Paths {
		for method, op := range methods {
			op.Method, op.Path = strings.ToUpper(method), path
			for i, p := range op.Parameters {
				if name, is := strings.CutPrefix(p.Ref, "#/components/parameters/"); is {
					op.Parameters[i] = s.Components.Parameters[name]
				}
			}
		}
	}
	return s, nil
}

// Operations are all operations, in the order of their paths.
func (s *Spec) Operations() []*Operation {
	var all []*Operation
	for _, path := range slices.Sorted(maps.Keys(s.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(s.Paths[path])) {
			all = append(all, s.Paths[path][method])
		}
	}
	return all
}

// Streams reports an operation whose answer has no end.
func (op *Operation) Streams() bool { return strings.HasSuffix(op.Path, "/stream") }

// Request is one to send.
type Request struct {
	Name           string
	Operation      *Operation
	Method, Target string // the target has its query
	Header         map[string]string
	Body           string
	// Field is to blame, such as "body.state"; empty for a request that may be taken.
	Field string
}

// Sample is a request that an operation takes.
func (s *Spec) Sample(op *Operation) Request {
	r := Request{Name: op.OperationID, Operation: op, Method: op.Method, Target: op.Path, Header: map[string]string{}}
	for _, p := range op.Parameters {
		if p.In == "path" {
			r.Target = fill(r.Target, p.Name, fmt.Sprint(s.example(p.Schema)))
		}
	}
	if op.RequestBody == nil {
		return r
	}
	if _, yaml := op.RequestBody.Content["application/yaml"]; yaml {
		r.Header["Content-Type"], r.Body = "application/yaml", "kind: account\nname: acme\n"
		if strings.HasSuffix(op.Path, "/preview") {
			r.Body = "kind: site\nname: www.example.test\naccount: acme\nservers: [web1]\n"
		}
		return r
	}
	r.Header["Content-Type"], r.Body = "application/json", text(s.example(op.body()))
	return r
}

// body is the type of an operation's body as JSON; nil for none.
func (op *Operation) body() *Schema {
	if op.RequestBody == nil {
		return nil
	}
	return op.RequestBody.Content["application/json"].Schema
}

// fill puts a value into a path.
func fill(path, name, value string) string {
	return strings.ReplaceAll(path, "{"+name+"}", strings.ReplaceAll(url.PathEscape(value), "/", "%2F"))
}

func text(value any) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err.Error() // of what no JSON has; it is refused as such
	}
	return strings.TrimSpace(b.String())
}

func (s *Spec) resolve(schema *Schema) *Schema {
	if name, is := strings.CutPrefix(schema.Ref, "#/components/schemas/"); is {
		return s.Components.Schemas[name]
	}
	return schema
}

// is reports whether a schema takes values of a type.
func (s *Schema) is(name string) bool {
	if list, are := s.Type.([]any); are {
		return slices.Contains(list, any(name))
	}
	return s.Type == name
}

// example is a value that a schema describes.
func (s *Spec) example(schema *Schema) any {
	schema = s.resolve(schema)
	switch {
	case len(schema.Examples) > 0:
		return schema.Examples[0]
	case len(schema.Enum) > 0:
		return schema.Enum[0]
	case schema.Format == "date-time":
		return "2027-01-01T00:00:00Z"
	case schema.is("object"):
		value := map[string]any{}
		for name, property := range schema.Properties {
			if slices.Contains(schema.Required, name) || len(property.Examples) > 0 {
				value[name] = s.example(property)
			}
		}
		return value
	case schema.is("array"):
		return []any{s.example(schema.Items)}
	case schema.is("integer"), schema.is("number"):
		return 1
	case schema.is("boolean"):
		return true
	}
	return "example"
}
