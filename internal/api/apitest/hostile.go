package apitest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// texts are strings that do harm where somebody takes them for more than text.
var texts = map[string]string{
	"huge":          strings.Repeat("a", 100_000),
	"empty":         "",
	"NUL":           "a\x00b",
	"controls":      "a\x1b[2J\x07\tb",
	"header":        "a\r\nX-Injected: yes\r\n\r\n<html>",
	"HTML":          `<script>alert(1)</script><img src=x onerror=alert(1)>`,
	"attribute":     `" autofocus onfocus=alert(1) x="`,
	"path":          "../../../etc/passwd",
	"encoded path":  "..%2f..%2f..%2fetc%2fpasswd",
	"absolute path": "/etc/shadow",
	"SQL":           `'; DROP TABLE objects; --`,
	"template":      "{{.}}${x}%{y}",
	"bidi":          "a\u202eb\u2066c",
	"no UTF-8":      "a\xff\xfeb",
	"JSON":          `{"a":[1,2`,
}

// wrong are values of types, of which a field takes one at most.
var wrong = map[string]any{
	"string": "nonsense", "integer": 7, "number": 1.5, "boolean": true, "array": []any{map[string]any{"a": 1}}, "object": map[string]any{"a": 1},
}

// Hostile are requests of which each has one thing wrong, or unlike what anybody
// expects.
func (s *Spec) Hostile(op *Operation) []Request {
	var all []Request
	for _, p := range op.Parameters {
		all = append(all, s.parameter(op, p)...)
	}
	unknown := s.Sample(op)
	unknown.Name, unknown.Field = op.OperationID+": unknown parameter", "query.nonsense"
	unknown.Target += "?nonsense=1"
	all = append(all, unknown)
	if op.Method == "GET" {
		return all
	}
	if schema := op.body(); schema != nil && s.Sample(op).Header["Content-Type"] == "application/json" {
		all = append(all, s.fields(op, schema)...)
	}
	return append(all, s.bodies(op)...)
}

// parameter makes requests with a parameter that is not what it is to be.
func (s *Spec) parameter(op *Operation, p Parameter) []Request {
	values := maps.Clone(texts)
	if p.Schema.is("integer") {
		maps.Copy(values, map[string]string{"word": "nonsense", "fraction": "1.5", "negative": "-1", "overflow": "99999999999999999999", "exponent": "1e9", "NaN": "NaN", "hex": "0x10"})
	}
	var all []Request
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		r := s.Sample(op)
		r.Name = fmt.Sprintf("%s: %s %s %s", op.OperationID, p.In, p.Name, name)
		if s.breaks(p.Schema, value) {
			r.Field = p.In + "." + p.Name
		}
		switch p.In {
		case "path":
			if value == "" {
				continue // another path
			}
			r.Target = fill(op.Path, p.Name, value)
			for _, other := range op.Parameters {
				if other.In == "path" {
					r.Target = fill(r.Target, other.Name, fmt.Sprint(s.example(other.Schema)))
				}
			}
		case "query":
			r.Target += "?" + url.Values{p.Name: {value}}.Encode()
		case "header":
			if len(value) > 10_000 {
				value = value[:10_000] // longer ones do not come so far
			}
			r.Header[p.Name] = value
			if p.Name == "Idempotency-Key" {
				r.Field = "" // some of the texts are keys
			}
		}
		if value == "" {
			r.Field = "" // as if it were not given
		}
		all = append(all, r)
	}
	return all
}

// breaks reports whether a text surely breaks a rule of a schema.
func (s *Spec) breaks(schema *Schema, value string) bool {
	schema = s.resolve(schema)
	switch {
	case schema.is("integer"):
		var n int64
		err := json.Unmarshal([]byte(value), &n)
		return err != nil || schema.Minimum != nil && float64(n) < *schema.Minimum
	case len(schema.Enum) > 0:
		return !slices.Contains(schema.Enum, any(value))
	case schema.is("array"):
		return s.breaks(schema.Items, value)
	}
	return schema.MaxLength != nil && len(value) > 10_000 && *schema.MaxLength < 10_000 || schema.Format == "date-time"
}

// fields makes requests with a field of the body that is not what it is to be.
func (s *Spec) fields(op *Operation, of *Schema) []Request {
	var all []Request
	add := func(name, field string, body any) {
		r := s.Sample(op)
		r.Name, r.Field, r.Body = op.OperationID+": "+name, field, text(body)
		all = append(all, r)
	}
	s.walk(of, "body", func(path string, schema *Schema, set func(any) any) {
		for _, kind := range slices.Sorted(maps.Keys(wrong)) {
			field := path
			if schema.Type == nil || schema.is(kind) || schema.is("number") && kind == "integer" || kind == "string" && schema.is("string") {
				field = ""
			}
			if len(schema.Enum) > 0 {
				field = path
			}
			if schema.is("object") && kind == "object" {
				continue
			}
			add(path+" as "+kind, field, set(wrong[kind]))
		}
		for _, name := range slices.Sorted(maps.Keys(texts)) {
			field := ""
			if schema.Type != nil && (!schema.is("string") || s.breaks(schema, texts[name])) {
				field = path
			}
			add(path+" "+name, field, set(texts[name]))
		}
		add(path+" null", "", set(nil))
	})
	if value, is := s.example(of).(map[string]any); is {
		value["nonsense"] = 1
		add("unknown field", "body.nonsense", value)
		for _, name := range s.resolve(of).Required {
			lacking := s.example(of).(map[string]any)
			delete(lacking, name)
			add("without "+name, "body."+name, lacking)
		}
	}
	return all
}

// walk calls each for every field of a schema, with a function that makes the body
// with another value in its place.
func (s *Spec) walk(of *Schema, path string, each func(path string, schema *Schema, set func(any) any)) {
	var in func(of *Schema, path string, set func(any) any)
	in = func(of *Schema, path string, set func(any) any) {
		of = s.resolve(of)
		each(path, of, set)
		for _, name := range slices.Sorted(maps.Keys(of.Properties)) {
			in(of.Properties[name], path+"."+name, func(value any) any {
				object, _ := s.example(of).(map[string]any)
				object[name] = value
				return set(object)
			})
		}
		if of.Items != nil {
			in(of.Items, path+"[0]", func(value any) any { return set([]any{value}) })
		}
	}
	in(of, path, func(value any) any { return value })
}

// bodies are bodies that are wrong as a whole.
func (s *Spec) bodies(op *Operation) []Request {
	var all []Request
	for name, body := range map[string]string{
		"no JSON":            "{",
		"two values":         "{}{}",
		"null":               "null",
		"no object":          "7",
		"deep":               strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000),
		"deep list":          strings.Repeat("[", 1_000_000),
		"deep YAML":          strings.Repeat("- ", 50_000),
		"aliases":            "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\nkind: pool\n",
		"too large":          strings.Repeat("x", 10<<20+1),
		"NULs":               strings.Repeat("\x00", 1000),
		"no UTF-8":           "{\"name\":\"\xff\xfe\"}",
		"huge number":        `{"generation":1e999}`,
		"same field twice":   `{"name":"a","name":"b"}`,
		"another case":       `{"NAME":"a","State":"up","KIND":"mkdir"}`,
		"HTML":               "<script>alert(1)</script>",
		"a form":             "name=a&state=up",
		"prototype":          `{"__proto__":{"a":1},"constructor":1}`,
		"number in a string": `{"generation":"7"}`,
	} {
		r := s.Sample(op)
		r.Name, r.Body = op.OperationID+": "+name, body
		if r.Header["Content-Type"] == "" {
			r.Header["Content-Type"] = "application/json" // of a body that is not asked for
		}
		all = append(all, r)
	}
	for _, media := range []string{"text/html", "", "application/json; charset=\"", "multipart/form-data; boundary=x", "application/cbor", "\x00"} {
		r := s.Sample(op)
		r.Name = fmt.Sprintf("%s: as %q", op.OperationID, media)
		r.Header["Content-Type"] = media
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Request) int { return strings.Compare(a.Name, b.Name) })
	return all
}
