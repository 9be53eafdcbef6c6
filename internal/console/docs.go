package console

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"upkeep/internal/api"
)

// docsView is the description of the API for people.
type docsView struct {
	Address string // of this upkeep, as the reader calls it
	Parts   []docsPart
	Types   []docsType
}

type docsPart struct {
	Name       string
	Operations []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, Description, Curl string
	Parameters                                   []docsField
	Bodies, Answers                              []docsBody
}

// docsBody is what is sent, or answered with a status, as a media type.
type docsBody struct {
	Status, Media string
	Type          docsRef
}

type docsType struct {
	Name, Description string
	Fields            []docsField
}

type docsField struct {
	Name, In, Description string
	Required              bool
	Type                  docsRef
}

// docsRef is a type in words; with Name, one that the page has.
type docsRef struct{ Before, Name string }

// openAPI is what the page shows of the description.
type openAPI struct {
	Paths map[string]map[string]struct {
		OperationID, Summary, Description string
		Tags                              []string
		Parameters                        []openAPIParameter
		RequestBody                       struct{ Content openAPIContent }
		Responses                         map[string]struct{ Content openAPIContent }
		Samples                           []struct{ Source string } `json:"x-codeSamples"`
	}
	Components struct {
		Schemas    map[string]openAPISchema
		Parameters map[string]openAPIParameter
	}
}

type openAPIContent map[string]struct{ Schema openAPISchema }

type openAPIParameter struct {
	Ref                   string `json:"$ref"`
	Name, In, Description string
	Required              bool
	Schema                openAPISchema
}

type openAPISchema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Format, Description  string
	Enum                 []any
	Properties           map[string]openAPISchema
	Required             []string
	Items                *openAPISchema
	AnyOf, OneOf         []openAPISchema
	AdditionalProperties any
}

// readDocs makes the page's content of the description.
func readDocs(document []byte) (docsView, error) {
	var d openAPI
	if err := json.Unmarshal(document, &d); err != nil {
		return docsView{}, fmt.Errorf("reading the description of the API: %w", err)
	}
	parts := map[string]*docsPart{}
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			op := d.Paths[path][method]
			shown := docsOperation{ID: op.OperationID, Method: strings.ToUpper(method), Path: path, Summary: op.Summary, Description: op.Description}
			for _, p := range op.Parameters {
				if name, is := strings.CutPrefix(p.Ref, "#/components/parameters/"); is {
					p = d.Components.Parameters[name]
				}
				shown.Parameters = append(shown.Parameters, docsField{p.Name, p.In, p.Description, p.Required, p.Schema.words()})
			}
			shown.Bodies = op.RequestBody.Content.bodies("")
			for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
				shown.Answers = append(shown.Answers, op.Responses[status].Content.bodies(status)...)
			}
			for _, sample := range op.Samples {
				shown.Curl = sample.Source
			}
			name := strings.Join(op.Tags, ", ")
			if parts[name] == nil {
				parts[name] = &docsPart{Name: name}
			}
			parts[name].Operations = append(parts[name].Operations, shown)
		}
	}
	v := docsView{}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		v.Parts = append(v.Parts, *parts[name])
	}
	for _, name := range slices.Sorted(maps.Keys(d.Components.Schemas)) {
		v.Types = append(v.Types, d.Components.Schemas[name].shown(name))
	}
	return v, nil
}

func (c openAPIContent) bodies(status string) []docsBody {
	var all []docsBody
	for _, media := range slices.Sorted(maps.Keys(c)) {
		all = append(all, docsBody{status, media, c[media].Schema.words()})
	}
	return all
}

func (s openAPISchema) shown(name string) docsType {
	shown := docsType{Name: name, Description: s.Description}
	for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[field]
		shown.Fields = append(shown.Fields, docsField{Name: field, Description: property.Description, Required: slices.Contains(s.Required, field), Type: property.words()})
	}
	return shown
}

// words is a type as people say it.
func (s openAPISchema) words() docsRef {
	if name, is := strings.CutPrefix(s.Ref, "#/components/schemas/"); is {
		return docsRef{Name: name}
	}
	if s.Items != nil {
		items := s.Items.words()
		items.Before = "list of " + items.Before
		return items
	}
	if all := append(slices.Clone(s.AnyOf), s.OneOf...); len(all) > 0 {
		var names []string
		for _, one := range all {
			words := one.words()
			names = append(names, words.Before+words.Name)
		}
		return docsRef{Before: "one of " + strings.Join(names, ", ")}
	}
	if len(s.Enum) > 0 {
		values := make([]string, len(s.Enum))
		for i, value := range s.Enum {
			values[i] = fmt.Sprint(value)
		}
		return docsRef{Before: strings.Join(values, " | ")}
	}
	switch {
	case s.Format == "date-time":
		return docsRef{Before: "time (RFC 3339)"}
	case s.Type == nil:
		return docsRef{Before: "any JSON"}
	}
	if list, are := s.Type.([]any); are {
		return docsRef{Before: fmt.Sprint(list[0])}
	}
	return docsRef{Before: fmt.Sprint(s.Type)}
}

// apiDocs serves the description of the API, for people and without a word to any
// other host.
func (c *Console) apiDocs() (http.HandlerFunc, error) {
	v, err := readDocs(api.Document())
	if err != nil {
		return nil, err
	}
	return func(w http.ResponseWriter, r *http.Request) {
		shown := v
		shown.Address = "http://" + r.Host
		if api.OverTLS(r) {
			shown.Address = "https://" + r.Host
		}
		c.render(w, r, http.StatusOK, "docs.html", "API", shown)
	}, nil
}

// isForm keeps the page from being loaded anew while somebody reads it.
func (docsView) isForm() bool { return true }
