// Package declare reads and writes declared things as YAML documents.
//
// Reading is strict, because a setting that is silently dropped or misread is
// found out when a server dies: every error has the place in the file, the path
// of the field, its value and the rule that it breaks, and all errors of an
// input are reported at once. The types of the root package are the schema; the
// names of their fields are the JSON names.
//
// The general decoder of the YAML package is not used for three reasons: it
// reports types but not fields, it stops being strict inside types that read
// themselves from text, and it follows YAML 1.1 where that surprises people
// (0777 is 511, 1_000 is a number).
package declare

import (
	"fmt"
	"slices"
	"strings"

	"upkeep"
)

// Document is an object with the places of its fields in the text that it was
// read from.
type Document struct {
	Object upkeep.Object
	file   string
	places map[string]place
}

type place struct{ line, column int }

// Place fills in where the field of an error stands in the text: the field
// itself, or the nearest one around it when the field was left out.
func (d Document) Place(e upkeep.FieldError) upkeep.FieldError {
	at := d.find(e.Field)
	e.File, e.Line, e.Column = d.file, at.line, at.column
	return e
}

func (d Document) find(field string) place {
	for {
		if at, known := d.places[field]; known {
			return at
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			return d.places[""]
		}
		field = field[:cut]
	}
}

// Read reads the objects of a YAML text of any number of documents. The name of
// the file is for messages only. The error is an [upkeep.InvalidError].
func Read(file string, text []byte) ([]upkeep.Object, error) {
	documents, err := ReadDocuments(file, text)
	if err != nil {
		return nil, err
	}
	objects := make([]upkeep.Object, len(documents))
	for i, document := range documents {
		objects[i] = document.Object
	}
	return objects, nil
}

// ReadDocuments is [Read] for callers that find further errors later, such as
// rules between objects, and want to say where.
func ReadDocuments(file string, text []byte) ([]Document, error) {
	r := reader{file: file, seen: map[[2]string]place{}}
	r.read(text)
	if len(r.errors) > 0 {
		return nil, r.invalid()
	}
	return r.documents, nil
}

// reader collects the documents and the errors of one text.
type reader struct {
	file      string
	documents []Document
	seen      map[[2]string]place // kind and name of each document so far
	errors    []upkeep.FieldError
}

// exhausted reports that so many errors were found that the rest is not looked
// at: a text with a million of them must not cost a gigabyte.
func (r *reader) exhausted() bool { return len(r.errors) >= 10*maxErrors }

func (r *reader) fail(at place, field, value, rule string, args ...any) {
	if r.exhausted() {
		return
	}
	r.errors = append(r.errors, upkeep.FieldError{
		Field: field, Value: shorten(value), Rule: fmt.Sprintf(rule, args...), File: r.file, Line: at.line, Column: at.column,
	})
}

// maxErrors bounds what is reported of one input: nobody fixes more at once.
const maxErrors = 100

func (r *reader) invalid() error {
	slices.SortStableFunc(r.errors, func(a, b upkeep.FieldError) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Column != b.Column {
			return a.Column - b.Column
		}
		return strings.Compare(a.Field, b.Field)
	})
	fields := r.errors
	if more := len(fields) - maxErrors; more > 0 {
		fields = append(fields[:maxErrors:maxErrors], upkeep.FieldError{
			Rule: fmt.Sprintf("%d more errors, or more still, are not shown", more), File: r.file, Line: fields[maxErrors].Line, Column: fields[maxErrors].Column,
		})
	}
	return &upkeep.InvalidError{Fields: fields}
}

// shorten makes a value fit for a message of one line.
func shorten(value string) string {
	const longest = 80
	runes := []rune(value[:min(len(value), 4*longest)])
	if len(runes) > longest {
		return string(runes[:longest-3]) + "..."
	}
	return string(runes)
}
