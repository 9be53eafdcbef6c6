package declare

import (
	"bytes"
	"errors"
	"io"
	"reflect"

	"go.yaml.in/yaml/v3"

	"upkeep"
)

// Settings reads a text of one document that is no declared thing but the
// settings of a program, as strictly as documents are read. T is a struct with
// JSON names. The name of the file is for messages only. The error is an
// [upkeep.InvalidError] with the place of everything that is wrong.
func Settings[T interface{ Validate() []upkeep.FieldError }](file string, text []byte) (T, error) {
	var settings T
	r := reader{file: file}
	r.settings(text, reflect.ValueOf(&settings).Elem())
	if len(r.errors) > 0 {
		return settings, r.invalid()
	}
	return settings, nil
}

// settings reads the only document of a text into a struct and validates it.
func (r *reader) settings(text []byte, v reflect.Value) {
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if !r.checkText(text) {
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var node, more yaml.Node
	if err := decode(decoder, &node); err != nil && !errors.Is(err, io.EOF) {
		r.syntax(text, err)
		return
	}
	if err := decode(decoder, &more); err == nil {
		r.fail(placeOf(&more), "", "", "there must be one document only")
		return
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Line: 1, Column: 1} // of an empty text
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		root = node.Content[0]
	}
	if root.Kind != yaml.MappingNode {
		r.fail(placeOf(root), "", root.Value, "must be a mapping with fields")
		return
	}
	w := walker{reader: r, places: map[string]place{"": placeOf(root)}, settings: true}
	w.mapping(root, v, "")
	document := Document{file: r.file, places: w.places}
	for _, broken := range v.Interface().(interface{ Validate() []upkeep.FieldError }).Validate() {
		if !w.spoilt(broken.Field) {
			r.errors = append(r.errors, document.Place(broken))
		}
	}
}
