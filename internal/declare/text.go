package declare

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"upkeep"
	"upkeep/internal/lazy"
	"upkeep/internal/names"
)

// Bounds of one input. They are far above what ten thousand members need; what
// lies beyond is a mistake or an attack.
const (
	MaxText = 10 << 20 // bytes
	// maxMarks bounds the characters that can begin a YAML node, and so the
	// memory that parsing takes: about 250 bytes for each.
	maxMarks = 1 << 20
)

// read parses the text and walks its documents.
func (r *reader) read(text []byte) {
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if !r.checkText(text) {
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var node yaml.Node
		err := decode(decoder, &node)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			r.syntax(text, err)
			return // the parser cannot find its way back
		}
		r.document(&node)
	}
}

// decode guards against a panic of the YAML parser: what people hand in must not
// end the process.
func decode(decoder *yaml.Decoder, node *yaml.Node) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("yaml: the parser gave up on this text")
		}
	}()
	return decoder.Decode(node)
}

// checkText refuses what no document may hold, before anything is parsed.
func (r *reader) checkText(text []byte) bool {
	if len(text) > MaxText {
		r.fail(place{1, 1}, "", "", "the text has %d bytes; at most %d are read", len(text), MaxText)
		return false
	}
	at, marks := place{1, 1}, 0
	for rest := text; len(rest) > 0; {
		c, size := utf8.DecodeRune(rest)
		switch {
		case c == utf8.RuneError && size == 1:
			r.fail(at, "", "", "the text must be UTF-8; this is byte 0x%02x", rest[0])
			return false
		case c != '\t' && c != '\n' && c != '\r' && isControl(c):
			r.fail(at, "", "", "control character U+%04X is not allowed", c)
			return false
		case c == '\n':
			at = place{at.line + 1, 0}
			marks++
		case strings.ContainsRune(",:[{-", c):
			marks++
		}
		at.column++
		rest = rest[size:]
	}
	if marks > maxMarks {
		r.fail(place{1, 1}, "", "", "the text has too many entries; split it into several files")
		return false
	}
	return true
}

// isControl reports control characters: C0, DEL and C1.
func isControl(c rune) bool { return c < 0x20 || c >= 0x7f && c < 0xa0 }

var (
	yamlLine = lazy.Regexp(`^yaml: line (\d+): (.*)$`)
	// lineBefore are the problems for which the YAML package gives the number of
	// the line before: those that its parser finds, not its scanner.
	lineBefore    = lazy.Regexp(`^did not find expected (<|node content|'-' indicator|key|',' or)|^found (undefined tag|duplicate %|incompatible)`)
	unknownAnchor = lazy.Regexp(`^unknown anchor '(.*)' referenced$`)
)

// syntax reports an error of the YAML parser.
func (r *reader) syntax(text []byte, err error) {
	at, rule := place{1, 1}, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine().FindStringSubmatch(err.Error()); m != nil {
		at.line, _ = strconv.Atoi(m[1]) // digits
		rule = m[2]
		if lineBefore().MatchString(rule) {
			at.line++
		}
	}
	if m := unknownAnchor().FindStringSubmatch(rule); m != nil {
		before, _, _ := bytes.Cut(text, []byte("*"+m[1]))
		at.line = 1 + bytes.Count(before, []byte("\n"))
		at.column = len(before) - bytes.LastIndexByte(before, '\n')
	}
	lines := bytes.Split(text, []byte("\n"))
	at.line = min(at.line, len(lines))
	line := lines[at.line-1]
	indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
	if tab := bytes.IndexByte(indent, '\t'); tab >= 0 {
		r.fail(place{at.line, tab + 1}, "", "", "a tab cannot indent YAML; use spaces")
		return
	}
	r.fail(at, "", "", "this is not YAML: %s", rule)
}

// document reads one document: an object, or a list of them.
func (r *reader) document(node *yaml.Node) {
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		node = node.Content[0]
	}
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		return // between two separators, or comments alone
	}
	if node.Kind == yaml.SequenceNode {
		// What get -o json prints, and other programs make of several documents.
		for _, element := range node.Content {
			r.single(element)
		}
		return
	}
	r.single(node)
}

// single reads one object.
func (r *reader) single(node *yaml.Node) {
	at := placeOf(node)
	if node.Kind != yaml.MappingNode {
		r.fail(at, "", node.Value, "a document must be a mapping with kind and name, such as: kind: pool")
		return
	}
	kind, known := r.kind(node)
	if !known {
		return
	}
	w := walker{reader: r, places: map[string]place{"": at}}
	object, broken := names.Canonical(w.object(kind, node))
	for _, field := range broken {
		w.reader.fail(w.places[field.Field], field.Field, field.Value, "%s", field.Rule)
		w.spoiled = append(w.spoiled, field.Field)
	}
	document := Document{Object: object, file: r.file, places: w.places}
	for _, broken := range object.Validate() {
		if !w.spoilt(broken.Field) {
			r.errors = append(r.errors, document.Place(broken))
		}
	}
	r.add(document)
}

// add keeps a document unless there is one of its name.
func (r *reader) add(document Document) {
	object := document.Object
	if object.ObjectName() == "" {
		return // which validation has reported
	}
	key := [2]string{object.ObjectKind(), object.ObjectName()}
	if first, twice := r.seen[key]; twice {
		r.fail(document.find("name"), "name", object.ObjectName(), "%s %s is declared twice; the first time in line %d", key[0], key[1], first.line)
		return
	}
	r.seen[key] = document.find("name")
	r.documents = append(r.documents, document)
}

const noTags = "tags have no use here; write the value without one"

// kind finds out what a document declares.
func (r *reader) kind(node *yaml.Node) (string, bool) {
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolve(node.Content[i+1])
		if key.Value != "kind" {
			continue
		}
		if value.Style&yaml.TaggedStyle != 0 {
			r.fail(placeOf(value), "kind", value.Tag, "%s", noTags)
			return "", false
		}
		if value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" {
			r.fail(placeOf(value), "kind", value.Value, "must be one of %s", strings.Join(upkeep.Kinds, ", "))
			return "", false
		}
		if _, known := upkeep.ZeroObject(value.Value); !known {
			r.fail(placeOf(value), "kind", value.Value, "must be one of %s%s", strings.Join(upkeep.Kinds, ", "), suggest(value.Value, upkeep.Kinds))
			return "", false
		}
		return value.Value, true
	}
	r.fail(placeOf(node), "kind", "", "is required: one of %s", strings.Join(upkeep.Kinds, ", "))
	return "", false
}

func placeOf(node *yaml.Node) place { return place{node.Line, node.Column} }

// resolve follows an alias to what it stands for.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode && node.Alias != nil {
		return node.Alias
	}
	return node
}
