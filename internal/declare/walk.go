package declare

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"upkeep"
	"upkeep/internal/lazy"
)

// maxNodes bounds how many nodes of one document are visited. A text within its
// own bounds can exceed it only by using aliases many times over.
const maxNodes = 1 << 19

// maxList bounds the elements of one list; what a list may hold in truth is the
// matter of validation.
const maxList = 100_000

// walker fills one object from its node.
type walker struct {
	reader *reader
	places map[string]place
	nodes  int
	// settings have no kind.
	settings bool
	// spoiled are the paths at which reading failed: what validation says of
	// them, and of what lies below, follows from that and is not reported.
	spoiled []string
	// zeros are the fields that were given as what stands for left out.
	zeros []zero
}

type zero struct {
	path  string
	text  string
	value reflect.Value // the field, inside the object
}

func (w *walker) fail(node *yaml.Node, path, value, rule string, args ...any) {
	w.reader.fail(placeOf(node), path, value, rule, args...)
	w.spoiled = append(w.spoiled, path)
}

// spoilt reports whether an error of validation is only the echo of one that was
// reported already.
func (w *walker) spoilt(field string) bool {
	return slices.ContainsFunc(w.spoiled, func(path string) bool {
		return path == "" || field == path || below(field, path) || below(path, field)
	})
}

func below(path, parent string) bool {
	rest, found := strings.CutPrefix(path, parent)
	return found && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// object reads an object of a known kind.
func (w *walker) object(kind string, node *yaml.Node) upkeep.Object {
	empty, _ := upkeep.ZeroObject(kind) // looked up before
	value := reflect.New(reflect.TypeOf(empty)).Elem()
	w.mapping(node, value, "")
	object := value.Interface().(upkeep.Object)
	w.checkZeros(value)
	return object
}

// value reads a node into v.
func (w *walker) value(node *yaml.Node, v reflect.Value, path string) {
	w.places[path] = placeOf(node) // of the alias, where there is one: that is where a person looks
	if w.nodes++; w.nodes > maxNodes {
		if w.nodes == maxNodes+1 {
			w.fail(node, path, "", "the document is too large once its aliases are replaced by what they stand for")
		}
		return
	}
	at := node
	node = resolve(node)
	if node.Style&yaml.TaggedStyle != 0 {
		w.fail(at, path, node.Tag, noTags)
		return
	}
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		w.fail(at, path, "", "has no value; give it one or leave the field out")
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		w.nonNil(at, node, v.Elem(), path)
		return
	}
	w.nonNil(at, node, v, path)
	if v.IsZero() && v.Kind() != reflect.Bool {
		w.zeros = append(w.zeros, zero{path, node.Value, v})
	}
}

// nonNil reads a node that has a value. Messages point at the node at.
func (w *walker) nonNil(at, node *yaml.Node, v reflect.Value, path string) {
	if reader, is := v.Addr().Interface().(encoding.TextUnmarshaler); is && node.Kind == yaml.ScalarNode {
		w.text(at, node, reader, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if node.Kind != yaml.MappingNode {
			w.fail(at, path, node.Value, "must be a mapping with fields such as %s%s", strings.Join(firstNames(v.Type()), ", "), switched(v, path, node.Value))
			return
		}
		w.mapping(node, v, path)
	case reflect.Slice:
		w.list(at, node, v, path)
	case reflect.Map:
		w.table(at, node, v, path)
	default:
		w.scalar(at, node, v, path)
	}
}

// switched says how a part that may be empty is turned on and off, to who wrote so.
func switched(v reflect.Value, path, word string) string {
	name := path[strings.LastIndexByte(path, '.')+1:]
	switch strings.ToLower(word) {
	case "on", "yes", "true":
		if validEmpty(v.Type()) {
			return fmt.Sprintf("; %s: {} is enough", name)
		}
	case "off", "no", "false":
		return "; leave it out to have none"
	}
	return ""
}

// validEmpty reports whether every field of a struct may be left out.
func validEmpty(of reflect.Type) bool {
	return !slices.ContainsFunc(fieldsOf(of), func(f field) bool { return !f.omitEmpty })
}

// mapping reads the fields of a struct.
func (w *walker) mapping(node *yaml.Node, v reflect.Value, path string) {
	names := fieldsOf(v.Type())
	w.keys(node, path, func(key, value *yaml.Node) {
		if path == "" && key.Value == "kind" && !w.settings {
			return // told apart before
		}
		at := join(path, key.Value)
		i := slices.IndexFunc(names, func(f field) bool { return f.name == key.Value })
		if i < 0 {
			w.unknown(key, v.Type(), names, path)
			return
		}
		w.value(value, v.Field(names[i].index), at)
	})
}

// keys calls f for each entry of a mapping, but for those whose key cannot be
// one.
func (w *walker) keys(node *yaml.Node, path string, f func(key, value *yaml.Node)) {
	first := make(map[string]int, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := resolve(node.Content[i]), node.Content[i+1]
		if w.nodes++; w.nodes > maxNodes {
			return // reported where the next value is read
		}
		switch line, twice := first[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			w.fail(node.Content[i], path, "", "the name of a field must be a word")
			continue
		case key.ShortTag() == "!!merge":
			w.fail(key, path, key.Value, "merging is not done; write the fields out, or use an alias for a whole value")
			continue
		case twice:
			w.fail(key, join(path, key.Value), "", "is given twice; the first time in line %d", line)
			continue
		}
		first[key.Value] = key.Line
		f(key, value)
	}
}

// unknown reports a field that does not exist, with what was probably meant.
func (w *walker) unknown(key *yaml.Node, t reflect.Type, names []field, path string) {
	var known []string
	for _, f := range names {
		known = append(known, f.name)
	}
	advice := suggest(key.Value, known)
	if advice == "" {
		for _, f := range names {
			inner := t.Field(f.index).Type
			if inner.Kind() == reflect.Struct && slices.ContainsFunc(fieldsOf(inner), func(g field) bool { return g.name == key.Value }) {
				advice = "; it belongs into " + join(path, f.name)
			}
		}
	}
	if advice == "" {
		advice = "; the fields here are " + strings.Join(known, ", ")
	}
	w.reader.fail(placeOf(key), join(path, key.Value), "", "is not a field%s", advice)
	w.spoiled = append(w.spoiled, path)
}

func (w *walker) list(at, node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.SequenceNode {
		w.fail(at, path, node.Value, "must be a list, such as [a, b]")
		return
	}
	if len(node.Content) == 0 {
		return // as if left out
	}
	if n := len(node.Content); n > maxList {
		w.fail(at, path, "", "has %d elements; at most %d are read", n, maxList)
		return
	}
	list := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
	for i, element := range node.Content {
		if w.nodes > maxNodes || w.reader.exhausted() {
			return
		}
		w.value(element, list.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
	v.Set(list)
}

// table reads a map from text to text.
func (w *walker) table(at, node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.MappingNode {
		w.fail(at, path, node.Value, "must be a mapping, such as {Name: value}")
		return
	}
	if len(node.Content) == 0 {
		return
	}
	table := reflect.MakeMapWithSize(v.Type(), len(node.Content)/2)
	w.keys(node, path, func(key, value *yaml.Node) {
		entry := reflect.New(v.Type().Elem()).Elem()
		w.value(value, entry, join(path, key.Value))
		table.SetMapIndex(reflect.ValueOf(key.Value), entry)
	})
	v.Set(table)
}

// text reads a scalar into a type that reads itself from text.
func (w *walker) text(at, node *yaml.Node, reader encoding.TextUnmarshaler, path string) {
	if node.Value == "" { // which some types take for their zero value
		w.fail(at, path, "", "must not be empty")
		return
	}
	err := reader.UnmarshalText([]byte(node.Value))
	if err == nil {
		return
	}
	rule := strings.TrimPrefix(err.Error(), strconv.Quote(node.Value)+" ") // the value is shown anyway
	switch reader.(type) {
	case *netip.Addr:
		rule = "must be an IPv4 or IPv6 address"
	case *netip.Prefix:
		rule = "must be a prefix such as 192.0.2.0/24 or 2001:db8::/32"
	}
	w.fail(at, path, node.Value, "%s", rule)
}

var (
	decimal  = lazy.Regexp(`^-?(0|[1-9][0-9]{0,17})$`)
	fraction = lazy.Regexp(`^-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?$`)
)

func (w *walker) scalar(at, node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.ScalarNode {
		w.fail(at, path, "", "must be a single value, not a list or a mapping")
		return
	}
	quoted := node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	text := node.Value
	switch v.Kind() {
	case reflect.String:
		w.words(at, node, v, path)
	case reflect.Bool:
		switch {
		case quoted:
			w.fail(at, path, text, "must be true or false, without quotes")
			return
		case text != "true" && text != "false":
			w.fail(at, path, text, "must be true or false")
			return
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if quoted || err != nil || !decimal().MatchString(text) {
			w.fail(at, path, text, "must be a whole number in decimal digits, without quotes")
			return
		}
		v.SetInt(int64(n))
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if quoted || err != nil || !fraction().MatchString(text) {
			w.fail(at, path, text, "must be a number such as 0.5, without quotes")
			return
		}
		v.SetFloat(f)
	default:
		// A programmer's error, found by the test that reads every field.
		w.fail(at, path, text, "cannot be read: type %s is not known to the reader", v.Type())
	}
}

// words reads plain text.
func (w *walker) words(at, node *yaml.Node, v reflect.Value, path string) {
	if tag := node.ShortTag(); tag != "!!str" {
		what := map[string]string{"!!int": "a number", "!!float": "a number", "!!bool": "true or false", "!!timestamp": "a date"}[tag]
		if what == "" {
			what = "something else"
		}
		w.fail(at, path, node.Value, "must be text, and without quotes this is %s in YAML: write it in quotes", what)
		return
	}
	for _, c := range node.Value {
		if c != '\t' && c != '\n' && isControl(c) {
			w.fail(at, path, node.Value, "must not hold the control character U+%04X", c)
			return
		}
	}
	v.SetString(node.Value)
}

// checkZeros refuses a field that was given as zero where zero means left out
// and something else is the default: "ttl: 0s" must not silently become a minute.
func (w *walker) checkZeros(object reflect.Value) {
	if len(w.zeros) == 0 {
		return
	}
	method := object.MethodByName("WithDefaults")
	if !method.IsValid() {
		return
	}
	full := method.Call(nil)[0]
	for _, z := range w.zeros {
		filled, found := lookup(full, z.path)
		if !found || filled.IsZero() || w.spoilt(z.path) {
			continue
		}
		at := w.places[z.path]
		w.reader.fail(at, z.path, z.text, "cannot be empty or zero; leave it out for the default, %s", plain(filled))
	}
}

// lookup finds a field by its path.
func lookup(v reflect.Value, path string) (reflect.Value, bool) {
	for step := range strings.FieldsFuncSeq(path, func(c rune) bool { return c == '.' || c == '[' || c == ']' }) {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		switch v.Kind() {
		case reflect.Struct:
			names := fieldsOf(v.Type())
			i := slices.IndexFunc(names, func(f field) bool { return f.name == step })
			if i < 0 {
				return v, false
			}
			v = v.Field(names[i].index)
		case reflect.Slice:
			i, err := strconv.Atoi(step)
			if err != nil || i >= v.Len() {
				return v, false
			}
			v = v.Index(i)
		default:
			return v, false // entries of maps have no defaults
		}
	}
	return v, true
}

// field is a field of a struct as documents name it.
type field struct {
	name      string
	index     int
	omitEmpty bool
}

// fieldsOf lists the fields of a struct type in their order, by their JSON names.
func fieldsOf(t reflect.Type) []field {
	fields := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		fields = append(fields, field{name, i, strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")})
	}
	return fields
}

func firstNames(t reflect.Type) []string {
	var names []string
	for _, f := range fieldsOf(t)[:min(3, len(fieldsOf(t)))] {
		names = append(names, f.name)
	}
	return names
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
