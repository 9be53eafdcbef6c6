package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/declare"
	"upkeep/internal/store"
)

// ApplyInput is exported, as are all structs embedded in an operation's input,
// because huma reads the parameters of exported ones only. It is YAML text with its name and base beside it, or JSON with
// several such texts.
type ApplyInput struct {
	ContentType string `header:"Content-Type" maxLength:"200" example:"application/yaml" doc:"application/yaml for documents, application/json for several texts with their names."`
	File        string `query:"file" maxLength:"4096" doc:"Name of the YAML text in error messages."`
	Base        string `query:"base" maxLength:"4096" doc:"Absolute directory that relative paths in the YAML text are resolved below."`
	RawBody     []byte
}

// DryRunInput adds to what is applied whether to make the change.
type DryRunInput struct {
	ApplyInput
	ConditionInput
	DryRun bool `query:"dry_run" doc:"Check everything, change nothing."`
}

type applyOutput struct{ Body wire.ApplyResult }

// KindInput says of what kind things are wanted. Like the other inputs that
// further ones embed, it is exported because the framework looks into exported
// fields only.
type KindInput struct {
	Kind string `path:"kind" enum:"zone,pool,receiver,server,account,delegation,site" example:"pool" doc:"The kind of thing."`
}

// ObjectInput names one declared thing.
type ObjectInput struct {
	KindInput
	Name string `path:"name" maxLength:"253" example:"web" doc:"The name that it is declared by."`
}

// DeleteInput names what is deleted.
type DeleteInput struct {
	ObjectInput
	IfMatchInput
}

func (a *API) declareRoutes(h huma.API) {
	apply := secured(huma.Operation{OperationID: "apply", Method: http.MethodPost, Path: "/api/v1/apply",
		Summary: "Declare objects, all of them or none", RequestBody: documentsBody(h),
		MaxBodyBytes: wire.MaxBody, BodyReadTimeout: 30 * time.Second, SkipValidateBody: true})
	huma.Register(h, apply, func(ctx context.Context, in *DryRunInput) (*applyOutput, error) {
		result, err := a.apply(ctx, in.ApplyInput, in.ConditionInput, in.DryRun, false)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &applyOutput{result}, nil
	})
	compare := apply
	compare.OperationID, compare.Path, compare.Summary = "diff", "/api/v1/diff", "Compare documents with what is declared"
	compare.RequestBody, compare.Responses = documentsBody(h), nil
	huma.Register(h, compare, func(ctx context.Context, in *ApplyInput) (*applyOutput, error) {
		result, err := a.apply(ctx, *in, ConditionInput{}, true, true)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &applyOutput{result}, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "list-objects", Method: http.MethodGet, Path: "/api/v1/objects/{kind}",
		Summary: "Declared objects of one kind, as JSON or by Accept as YAML", Responses: documentsAnswer(h)}), func(ctx context.Context, in *KindInput) (*huma.StreamResponse, error) {
		return a.objects(ctx, in.Kind, "")
	})
	huma.Register(h, secured(huma.Operation{OperationID: "get-object", Method: http.MethodGet, Path: "/api/v1/objects/{kind}/{name}",
		Summary: "One declared object, as JSON or by Accept as YAML", Responses: documentsAnswer(h)}), func(ctx context.Context, in *ObjectInput) (*huma.StreamResponse, error) {
		return a.objects(ctx, in.Kind, in.Name)
	})
	huma.Register(h, secured(huma.Operation{OperationID: "delete-object", Method: http.MethodDelete, Path: "/api/v1/objects/{kind}/{name}",
		Summary: "Delete an object that no other one names", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *DeleteInput) (*struct{}, error) {
		return nil, a.delete(ctx, in.IfMatchInput, nil, wire.Ref{Kind: in.Kind, Name: in.Name})
	})
	huma.Register(h, secured(huma.Operation{OperationID: "delete-objects", Method: http.MethodPost, Path: "/api/v1/delete",
		Summary: "Delete objects, all of them or none", DefaultStatus: http.StatusNoContent,
		MaxBodyBytes: wire.MaxBody, BodyReadTimeout: 30 * time.Second}), func(ctx context.Context, in *deleteInput) (*struct{}, error) {
		return nil, a.delete(ctx, IfMatchInput{}, in.Body.Still, in.Body.Objects...)
	})
}

// documentsBody describes what [readSources] reads.
func documentsBody(h huma.API) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Description: "Documents as YAML, or several texts as JSON.", Content: map[string]*huma.MediaType{
		"application/yaml": {Schema: &huma.Schema{Type: huma.TypeString}},
		"application/json": {Schema: h.OpenAPI().Components.Schemas.Schema(typeOf[wire.Sources](), true, "Sources")},
	}}
}

// documentsAnswer describes what [API.objects] answers.
func documentsAnswer(h huma.API) map[string]*huma.Response {
	tag := &huma.Header{Description: "Of one object: its generation, for If-Match.", Schema: &huma.Schema{Type: huma.TypeString}}
	return map[string]*huma.Response{"200": {Description: "OK", Headers: map[string]*huma.Param{"ETag": tag}, Content: map[string]*huma.MediaType{
		"application/json": {Schema: h.OpenAPI().Components.Schemas.Schema(typeOf[wire.Objects](), true, "")},
		"application/yaml": {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
}

type deleteInput struct{ Body wire.Refs }

func (a *API) delete(ctx context.Context, match IfMatchInput, listed []wire.Still, objects ...wire.Ref) error {
	refs := make([]store.Ref, len(objects))
	for i, o := range objects {
		refs[i] = store.Ref(o)
	}
	still, err := a.expected(ctx, match.IfMatch, refs)
	if err != nil {
		return err
	}
	if still, err = withListed(still, listed, refs); err == nil {
		err = a.bounds.Delete(ctx, still, refs...)
	}
	return a.done(ctx, err)
}

// apply reads documents and applies them or, with dry, says what would become of them.
func (a *API) apply(ctx context.Context, in ApplyInput, match ConditionInput, dry, diffs bool) (wire.ApplyResult, error) {
	sources, err := readSources(in)
	if err != nil {
		return wire.ApplyResult{}, err
	}
	objects, documents, err := readObjects(sources.Sources)
	if err != nil {
		return wire.ApplyResult{}, err
	}
	refs := make([]store.Ref, len(objects))
	for i, object := range objects {
		refs[i] = store.RefOf(object)
	}
	still, err := a.expectedOr(ctx, match, refs)
	if err != nil {
		return wire.ApplyResult{}, err
	}
	if still, err = withListed(still, sources.Still, refs); err != nil {
		return wire.ApplyResult{}, err
	}
	applied, err := a.bounds.Apply(ctx, still, objects, dry)
	if err != nil {
		return wire.ApplyResult{}, located(err, documents)
	}
	result := wire.ApplyResult{DryRun: dry, Changes: []wire.Change{}, Warnings: applied.Warnings}
	for i, c := range applied.Changes {
		change := wire.Change{Kind: objects[i].ObjectKind(), Name: objects[i].ObjectName(), Action: c.Action, Generation: c.Generation}
		if diffs && c.Action != wire.Unchanged {
			_, change.Diff, _ = strings.Cut(declare.Diff(c.Old, c.New), "\n") // after the line "diff OLD NEW"
		}
		result.Changes = append(result.Changes, change)
	}
	return result, nil
}

// yamlTypes are the media types that YAML travels under: RFC 9512, and what was
// used before it.
var yamlTypes = []string{"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain"}

func readSources(in ApplyInput) (body wire.Sources, err error) {
	media, _, err := mime.ParseMediaType(in.ContentType)
	switch {
	case err == nil && slices.Contains(yamlTypes, media):
		if in.Base != "" && !filepath.IsAbs(in.Base) {
			return body, wire.NewProblem(http.StatusUnprocessableEntity, fmt.Sprintf("base %q must be an absolute path", in.Base), "")
		}
		return wire.Sources{Sources: []wire.Source{{File: in.File, Base: in.Base, Text: string(in.RawBody)}}}, nil
	case err == nil && media == "application/json":
		if in.File != "" || in.Base != "" {
			return body, wire.NewProblem(http.StatusUnprocessableEntity, "file and base stand inside a JSON body", "")
		}
		decoder := json.NewDecoder(bytes.NewReader(in.RawBody))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&body); err != nil {
			return body, wire.NewProblem(http.StatusBadRequest, "the body is no list of sources: "+err.Error(), "")
		}
		for _, source := range body.Sources {
			if source.Base != "" && !filepath.IsAbs(source.Base) {
				return body, wire.NewProblem(http.StatusUnprocessableEntity, fmt.Sprintf("base %q must be an absolute path", source.Base), "")
			}
		}
		return body, nil
	default:
		return body, wire.NewProblem(http.StatusUnsupportedMediaType,
			fmt.Sprintf("content type %q is not application/yaml or application/json", in.ContentType),
			"with curl: -H 'Content-Type: application/yaml' --data-binary @FILE")
	}
}

// readObjects reads every source and reports the faults of all of them at once.
// The documents are returned by object, such as "pool/web", to say later where
// in them something stands.
func readObjects(sources []wire.Source) ([]upkeep.Object, map[string]declare.Document, error) {
	invalid := &upkeep.InvalidError{}
	var objects []upkeep.Object
	documents, from := map[string]declare.Document{}, map[string]string{}
	for _, source := range sources {
		read, err := declare.ReadDocuments(source.File, []byte(source.Text))
		if bad := (*upkeep.InvalidError)(nil); errors.As(err, &bad) {
			invalid.Fields = append(invalid.Fields, bad.Fields...)
			continue
		} else if err != nil {
			return nil, nil, err
		}
		for _, document := range read {
			object := document.Object
			if source.Base != "" {
				object = declare.ResolvePaths(object, source.Base)
			}
			id := object.ObjectKind() + "/" + object.ObjectName()
			if other, twice := from[id]; twice { // within one source the reader has seen to it
				invalid.Fields = append(invalid.Fields, document.Place(upkeep.FieldError{Object: id, Field: "name", Value: object.ObjectName(),
					Rule: "is declared in " + other + " too"}))
			}
			from[id], documents[id] = source.File, document
			objects = append(objects, object)
		}
	}
	if len(invalid.Fields) > 0 {
		return nil, nil, invalid
	}
	if len(objects) == 0 {
		return nil, nil, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Rule: "there is no document to apply"}}}
	}
	return objects, documents, nil
}

// located adds to rules that were found broken between objects where in the
// documents that is. An object that was declared before is in none of them.
func located(err error, documents map[string]declare.Document) error {
	var invalid *upkeep.InvalidError
	if !errors.As(err, &invalid) {
		return err
	}
	placed := &upkeep.InvalidError{}
	for _, field := range invalid.Fields {
		if document, given := documents[field.Object]; given && field.File == "" {
			field = document.Place(field)
		}
		placed.Fields = append(placed.Fields, field)
	}
	return placed
}

// objects answers as the Accept header asks: YAML that can be applied again, or
// JSON with the generations.
func (a *API) objects(ctx context.Context, kind, name string) (*huma.StreamResponse, error) {
	declared, err := a.bounds.Objects(ctx, kind, name)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	body := wire.Objects{Objects: []wire.Declared{}}
	plain := make([]upkeep.Object, 0, len(declared))
	for _, d := range declared {
		document, err := wire.NewDeclared(d)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		body.Objects = append(body.Objects, document)
		plain = append(plain, d.Object)
	}
	return &huma.StreamResponse{Body: func(h huma.Context) {
		if name != "" && len(declared) == 1 {
			h.SetHeader("ETag", entityTag(declared[0].Generation))
		}
		if accepts(h.Header("Accept"), yamlTypes[:4]...) {
			h.SetHeader("Content-Type", "application/yaml")
			if err := declare.Write(h.BodyWriter(), plain...); err != nil {
				a.log.Error("writing objects as YAML", "err", err)
			}
			return
		}
		h.SetHeader("Content-Type", "application/json")
		if err := json.NewEncoder(h.BodyWriter()).Encode(body); err != nil {
			a.log.Debug("writing objects", "err", err)
		}
	}}, nil
}

// accepts reports whether an Accept header names one of the types before JSON.
func accepts(header string, types ...string) bool {
	for part := range strings.SplitSeq(header, ",") {
		media, _, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err == nil && slices.Contains(types, media) {
			return true
		}
		if media == "application/json" {
			return false
		}
	}
	return false
}
