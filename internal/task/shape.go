package task

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"upkeep"
)

// NoField begins the rule that a field breaks which its kind of job does not have.
const NoField = "is not a field"

// maxMisshapen bounds how many wrong fields are told of one payload.
const maxMisshapen = 20

// misshapen says which fields of a payload cannot be read and why, in the words of
// who wrote it: the JSON package names types of Go. It is empty where the text as a
// whole is at fault.
func misshapen(kind string, of reflect.Type, text []byte) []upkeep.FieldError {
	s := shape{kind: kind}
	s.value(of, text, "")
	return s.broken
}

type shape struct {
	kind   string
	broken broken
}

func (s *shape) value(of reflect.Type, text json.RawMessage, at string) {
	if len(s.broken) == maxMisshapen {
		return
	}
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	var fields map[string]json.RawMessage
	var elements []json.RawMessage
	switch {
	case readsItself(of):
	case of.Kind() == reflect.Struct && json.Unmarshal(text, &fields) == nil:
		s.fields(of, fields, at)
		return
	case of.Kind() == reflect.Slice && json.Unmarshal(text, &elements) == nil:
		for i, element := range elements {
			s.value(of.Elem(), element, fmt.Sprintf("%s[%d]", at, i))
		}
		return
	case of.Kind() == reflect.Map && json.Unmarshal(text, &fields) == nil:
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			s.value(of.Elem(), fields[name], within(at, name))
		}
		return
	}
	if err := json.Unmarshal(text, reflect.New(of).Interface()); err != nil && json.Valid(text) {
		s.broken.add(at, given(text), "%s", strings.TrimPrefix(wanted(of, err), strconv.Quote(given(text))+" "))
	}
}

// fields looks at each field of an object, those that do not exist among them.
func (s *shape) fields(of reflect.Type, given map[string]json.RawMessage, at string) {
	known, names := map[string]reflect.Type{}, []string{}
	for _, field := range reflect.VisibleFields(of) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !field.IsExported() || name == "-" || field.Anonymous && name == "" {
			continue // what is in an embedded one is visible itself
		}
		known[name], names = field.Type, append(names, name)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) // as the JSON package reads them
		switch {
		case i >= 0:
			s.value(known[names[i]], given[name], within(at, name))
		case len(s.broken) == maxMisshapen:
		case len(names) == 0:
			s.broken.add(within(at, upkeep.Printable(name)), "", NoField+" of %s; it has none", s.kind)
		default:
			place := s.kind
			if at != "" {
				place = at + " of " + s.kind
			}
			s.broken.add(within(at, upkeep.Printable(name)), "", NoField+" of %s; it has %s", place, strings.Join(names, ", "))
		}
	}
}

func readsItself(of reflect.Type) bool {
	pointer := reflect.PointerTo(of)
	return pointer.Implements(reflect.TypeFor[json.Unmarshaler]()) || pointer.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// wanted is the rule that a value of a type breaks.
func wanted(of reflect.Type, err error) string {
	var mistyped *json.UnmarshalTypeError // where it is not one of its own rules that is broken
	switch {
	case readsItself(of) && !errors.As(err, &mistyped):
		return err.Error()
	case of == reflect.TypeFor[upkeep.Size]():
		return `must be a number of bytes, or a text such as "8G"`
	}
	switch of.Kind() {
	case reflect.Struct:
		var members []string
		for _, field := range reflect.VisibleFields(of) {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" && len(members) < 3 {
				members = append(members, strconv.Quote(name)+": ...")
			}
		}
		if len(members) == 0 {
			return "must be an object: {}"
		}
		return "must be an object: {" + strings.Join(members, ", ") + "}"
	case reflect.String:
		return "must be text, in quotes"
	case reflect.Bool:
		return "must be true or false, without quotes"
	case reflect.Slice:
		return "must be a list: [...]"
	case reflect.Map:
		return `must be an object: {"NAME": ...}`
	case reflect.Float64:
		return "must be a number, without quotes"
	}
	return "must be a whole number, without quotes"
}

// given is a value as it was written, without the quotes of a text.
func given(text json.RawMessage) string {
	var words string
	if json.Unmarshal(text, &words) == nil {
		return upkeep.Printable(words)
	}
	return upkeep.Printable(string(text))
}

func within(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}
