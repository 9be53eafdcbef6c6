package declare

import (
	"bytes"
	"encoding"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"upkeep"
	"upkeep/internal/lazy"
)

// Write writes objects as YAML documents that [Read] reads back as the same
// objects: fields in a fixed order, none that was left out.
func Write(w io.Writer, objects ...upkeep.Object) error {
	if len(objects) == 0 {
		return nil // the encoder cannot close what it has not begun
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	for _, object := range objects {
		if err := encoder.Encode(documentOf(object)); err != nil {
			return fmt.Errorf("writing %s %s as YAML: %w", object.ObjectKind(), object.ObjectName(), err)
		}
	}
	if err := encoder.Close(); err != nil {
		return fmt.Errorf("writing YAML: %w", err)
	}
	_, err := w.Write(text.Bytes())
	return err
}

func documentOf(object upkeep.Object) *yaml.Node {
	node := nodeOf(reflect.ValueOf(object))
	node.Content = append([]*yaml.Node{scalarOf("kind"), scalarOf(object.ObjectKind())}, node.Content...)
	return node
}

// nodeOf turns a value into a node.
func nodeOf(v reflect.Value) *yaml.Node {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if member, is := v.Interface().(upkeep.Member); is && member == (upkeep.Member{Address: member.Address}) {
		return scalarOf(member.Address.String())
	}
	if writer, is := v.Interface().(encoding.TextMarshaler); is {
		text, err := writer.MarshalText()
		if err != nil { // no type of the root package has such a value
			return scalarOf("")
		}
		return plainOf(string(text))
	}
	switch v.Kind() {
	case reflect.Struct:
		return mappingOf(v)
	case reflect.Slice:
		return listOf(v)
	case reflect.Map:
		return tableOf(v)
	}
	if v.Kind() == reflect.String {
		return scalarOf(v.String())
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: plain(v)}
}

func mappingOf(v reflect.Value) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fieldsOf(v.Type()) {
		inner := v.Field(f.index)
		if f.omitEmpty && inner.IsZero() || inner.Kind() == reflect.Slice && inner.Len() == 0 || inner.Kind() == reflect.Map && inner.Len() == 0 {
			continue
		}
		node.Content = append(node.Content, scalarOf(f.name), nodeOf(inner))
	}
	return node
}

// maxLine is how long a list may be to stand on one line.
const maxLine = 60

func listOf(v reflect.Value) *yaml.Node {
	node := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	length := 0
	for i := range v.Len() {
		element := nodeOf(v.Index(i))
		if length += len(element.Value) + 4; element.Kind != yaml.ScalarNode || length > maxLine {
			node.Style = 0
		}
		node.Content = append(node.Content, element)
	}
	return node
}

func tableOf(v reflect.Value) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, key := range keys {
		node.Content = append(node.Content, scalarOf(key.String()), nodeOf(v.MapIndex(key)))
	}
	return node
}

var (
	// bare is text that no YAML parser takes for anything but text, if it does
	// not look like a number either.
	bare    = lazy.Regexp(`^[A-Za-z_/][A-Za-z0-9_./-]*$|^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$`)
	special = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}
)

// scalarOf is a scalar of text, in quotes unless it can do without: parsers of
// YAML 1.1 take "no" for false.
func scalarOf(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	if !bare().MatchString(text) || slices.Contains(special, strings.ToLower(text)) {
		node.Style = yaml.DoubleQuotedStyle
	}
	return node
}

// typed is text of types that read themselves from text, such as 500ms and
// 1/10y, that no parser takes for a number.
var typed = lazy.Regexp(`^-?[0-9]+(\.[0-9]+)?[a-zµ]+([0-9.]+[a-zµ]+)*$|^[0-9]+/[0-9a-z]+$|^[0-9]{3}(-[0-9]{3})?$`)

// plainOf is a scalar whose reader takes it as text whether quoted or not.
func plainOf(text string) *yaml.Node {
	if typed().MatchString(text) {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: text}
	}
	return scalarOf(text)
}

// plain is a value as a document has it on one line, without quotes.
func plain(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if writer, is := v.Interface().(encoding.TextMarshaler); is {
		if text, err := writer.MarshalText(); err == nil {
			return string(text)
		}
	}
	switch v.Kind() {
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = plain(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}
