// Package wire holds what the API and its client say to each other, beyond the
// glossary's own types: requests, answers that exist only on the way, and the
// one form of error.
package wire

import (
	"encoding/json"
	"net/http"
	"strings"

	"upkeep"
)

// MaxBody is the largest request body that the API reads, in bytes.
const MaxBody = 10 << 20

// Source is one text of YAML documents to apply or compare.
type Source struct {
	// File names the text in error messages.
	File string `json:"file,omitempty"`
	// Base is the absolute directory that relative paths in the documents are
	// resolved below. Without it they must be absolute.
	Base string `json:"base,omitempty"`
	Text string `json:"text"`
}

// Sources is the JSON body of an apply; all of its documents are applied, or none.
type Sources struct {
	Sources []Source `json:"sources"`
	// Still are generations that things in the documents must have for anything to be
	// changed: what was read before is still what it was.
	Still []Still `json:"still,omitempty"`
}

// Still is a generation that a thing must have, 0 for one that must not be there.
type Still struct {
	Kind       string `json:"kind" enum:"zone,pool,receiver,server,account,delegation,site"`
	Name       string `json:"name" minLength:"1" maxLength:"253" example:"web"`
	Generation int64  `json:"generation" minimum:"0"`
}

// Actions of a [Change].
const (
	Created   = "created"
	Changed   = "changed"
	Unchanged = "unchanged"
	Deleted   = "deleted"
)

// Change is what applying did, or would do, to one object.
type Change struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action" enum:"created,changed,unchanged,deleted"`
	// Generation is the object's after the change; zero in a dry run that would
	// create it.
	Generation int64 `json:"generation,omitempty"`
	// Diff is a unified diff of the document before and after.
	Diff string `json:"diff,omitempty"`
}

// ApplyResult is the outcome of applying a set of objects: all of them, or none.
type ApplyResult struct {
	// DryRun means that nothing was stored.
	DryRun   bool     `json:"dry_run"`
	Changes  []Change `json:"changes" nullable:"false"`
	Warnings []string `json:"warnings,omitempty"`
}

// Changed reports whether any object differs from what was stored.
func (r ApplyResult) Changed() bool {
	for _, c := range r.Changes {
		if c.Action != Unchanged {
			return true
		}
	}
	return false
}

// Ref names a declared object.
type Ref struct {
	Kind string `json:"kind" enum:"zone,pool,receiver,server,account,delegation,site"`
	Name string `json:"name" minLength:"1" maxLength:"253" example:"web"`
}

// Refs is the body of a deletion; all of its objects are deleted, or none.
type Refs struct {
	Objects []Ref `json:"objects" nullable:"false" minItems:"1"`
	// Still are generations that the objects must have for anything to be deleted.
	Still []Still `json:"still,omitempty"`
}

// Declared is an object as it is stored.
type Declared struct {
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Generation int64  `json:"generation"`
	// Object is the whole document, kind and name first, as a JSON object. It
	// can be applied again as it is, JSON being YAML.
	Object json.RawMessage `json:"object"`
}

// Objects are declared objects.
type Objects struct {
	Objects []Declared `json:"objects" nullable:"false"`
}

// NewDeclared makes the document of a stored object.
func NewDeclared(d upkeep.Declared) (Declared, error) {
	kind, name := d.Object.ObjectKind(), d.Object.ObjectName()
	fields, err := json.Marshal(d.Object)
	if err != nil {
		return Declared{}, err
	}
	head, err := json.Marshal(map[string]string{"kind": kind})
	if err != nil {
		return Declared{}, err
	}
	// Both are objects with at least one member, so they join at the braces.
	document := string(head[:len(head)-1]) + "," + string(fields[1:])
	return Declared{Kind: kind, Name: name, Generation: d.Generation, Object: json.RawMessage(document)}, nil
}

// Force is the body of a request that forces members into an admin state.
type Force struct {
	State string `json:"state" enum:"up,down,drain" example:"drain"`
	// Why is shown wherever the member's reason is.
	Why string `json:"why,omitempty" maxLength:"500" example:"a new kernel"`
	// All says that the last members of a pool may be taken out.
	All bool `json:"all,omitempty"`
}

// Forced is the outcome of a force or a release.
type Forced struct {
	// Members are those that the glob matches now, as pool/address.
	Members []string `json:"members" nullable:"false"`
}

// Drained says whether it is safe to stop a member: no listed name server
// answers with it, and the TTL of the last answer that held it has run out.
type Drained struct {
	Done bool `json:"done"`
	// Waiting says in one sentence what is being waited for.
	Waiting string `json:"waiting,omitempty"`
}

// Problem is every error that the API answers with (RFC 9457).
type Problem struct {
	// Type is left out, which stands for "about:blank": the status says the kind.
	Type string `json:"type,omitempty"`
	// Title is the status in words.
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says in a sentence what is wrong this time.
	Detail string `json:"detail,omitempty"`
	// Hint says what a person can do next.
	Hint string `json:"hint,omitempty"`
	// Errors are the rules that were broken, all of them at once: by fields of
	// documents, and by the request itself, whose fields are "body.state",
	// "query.limit", "path.name" and the like.
	Errors []upkeep.FieldError `json:"errors,omitempty"`
}

// NewProblem makes a problem of a status and a sentence.
func NewProblem(status int, detail, hint string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: detail, Hint: hint}
}

// Error lists the details when there are any, one a line, as they say more.
func (p *Problem) Error() string {
	if len(p.Errors) == 0 {
		if p.Detail == "" {
			return p.Title
		}
		return p.Detail
	}
	lines := make([]string, len(p.Errors))
	for i, d := range p.Errors {
		lines[i] = d.Error()
	}
	return strings.Join(lines, "\n")
}

// Is lets errors.Is find the kinds of failure of the glossary in an answer.
func (p *Problem) Is(target error) bool {
	switch target {
	case upkeep.ErrNotFound:
		return p.Status == http.StatusNotFound
	case upkeep.ErrConflict:
		return p.Status == http.StatusConflict || p.Status == http.StatusPreconditionFailed
	case upkeep.ErrChanged:
		return p.Status == http.StatusPreconditionFailed
	case upkeep.ErrRefused:
		return p.Status == http.StatusForbidden || p.Status == http.StatusUnauthorized || p.Status == http.StatusMisdirectedRequest
	}
	return false
}

// Invalid reports whether the problem is bad input, which sending again as it is
// cannot fix.
func (p *Problem) Invalid() bool {
	switch p.Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return true
	}
	return false
}

// GetStatus and ContentType make a problem answer as itself wherever a handler
// returns it as its error.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// Renumbered says how far a zone's serial has come on its way to the clock.
type Renumbered struct {
	Done   bool   `json:"done"`
	Serial uint32 `json:"serial,omitempty"`
	// Waiting says in one sentence what is being done or waited for.
	Waiting string `json:"waiting,omitempty"`
}
