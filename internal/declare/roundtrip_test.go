package declare

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"upkeep"
)

// texts that YAML could take for something else, or that break writers.
var traps = []string{
	"@", "*", "www", "*.eu", "no", "on", "Off", "y", "N", "true", "null", "~", "-", "--", "?", ":", "a: b", "a #b", "#b", "- a", "? a", "{a}", "[a]",
	"&a", "*a", "!a", "|", ">", "%a", "`a`", "'", "\"", "it's", `back\slash`, "1", "-1", "0777", "0x1f", "1_000", "1e3", ".5", "1.", ".inf", ".nan", "1:30",
	"2026-01-01", "2001:db8::1", "::1", "192.0.2.1", "192.0.2.1:53", "1m", "500ms", "200", "200-299", "<<", "=", " lead", "trail ", "two  spaces", "a\tb",
	"line\nbreak", "\nlead", "trail\n", "\n\n", "größe 日本", "\U0001F600", "\u2028", "\uFEFF", "\u00a0", "---", "...", "--- a", "kind", "\ttab", "$HOME", "%s",
	strings.Repeat("long ", 60),
}

// arbitrary draws a value of any type of the schema, with no regard to what
// validation makes of it.
func arbitrary(t *rapid.T, typ reflect.Type, at string) reflect.Value {
	v := reflect.New(typ).Elem()
	switch pointer := v.Addr().Interface().(type) {
	case *upkeep.Duration:
		*pointer = upkeep.Duration(rapid.OneOf(rapid.Int64Range(0, int64(upkeep.Year)*20),
			rapid.SampledFrom([]int64{0, 1, int64(time.Second), int64(90 * time.Minute), int64(upkeep.Day)})).Draw(t, at))
		return v
	case *upkeep.Rate:
		*pointer = upkeep.Rate{Count: rapid.IntRange(1, 9).Draw(t, at), Per: rapid.SampledFrom([]time.Duration{
			10 * upkeep.Year, 30 * upkeep.Day, 400 * upkeep.Day, 36 * time.Hour, 1500 * time.Millisecond}).Draw(t, at)}
		return v
	case *netip.Addr:
		*pointer = netip.MustParseAddr(rapid.SampledFrom([]string{"192.0.2.1", "2001:db8::1", "::1", "::ffff:192.0.2.1", "1:2:3:4:5:6:7:8"}).Draw(t, at))
		return v
	case *netip.Prefix:
		*pointer = netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.0.0/8", "192.0.2.1/32", "::/0", "2001:db8::1/64"}).Draw(t, at))
		return v
	case *upkeep.Network:
		pointer.Prefix = netip.MustParsePrefix(rapid.SampledFrom([]string{"192.0.2.0/24", "192.0.2.1/32", "2001:db8::/32", "::/0"}).Draw(t, at))
		return v
	case *upkeep.StatusRange:
		from := rapid.IntRange(100, 599).Draw(t, at)
		*pointer = upkeep.StatusRange{From: from, To: rapid.IntRange(from, 599).Draw(t, at)}
		return v
	}
	if typ.Kind() == reflect.Pointer {
		if rapid.Bool().Draw(t, at+" given") {
			v.Set(reflect.New(typ.Elem()))
			v.Elem().Set(arbitrary(t, typ.Elem(), at))
		}
		return v
	}
	switch typ.Kind() {
	case reflect.String:
		v.SetString(rapid.SampledFrom(append([]string{""}, traps...)).Draw(t, at))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, at))
	case reflect.Int:
		v.SetInt(rapid.Int64Range(-10, 1<<53).Draw(t, at))
	case reflect.Float64:
		v.SetFloat(rapid.OneOf(rapid.Float64Range(0, 1), rapid.SampledFrom([]float64{0, 1, 0.5, 1e-7, 1.0 / 3})).Draw(t, at))
	case reflect.Slice:
		for range rapid.IntRange(0, 3).Draw(t, at+" length") {
			v = reflect.Append(v, arbitrary(t, typ.Elem(), at+"[]"))
		}
	case reflect.Map:
		for range rapid.IntRange(0, 3).Draw(t, at+" length") {
			if v.IsNil() {
				v = reflect.MakeMap(typ)
			}
			v.SetMapIndex(arbitrary(t, typ.Key(), at+" key"), arbitrary(t, typ.Elem(), at+"{}"))
		}
	case reflect.Struct:
		for i := range typ.NumField() {
			v.Field(i).Set(arbitrary(t, typ.Field(i).Type, at+"."+typ.Field(i).Name))
		}
	default:
		t.Fatalf("%s: the schema has a field of type %s, which this test does not know", at, typ)
	}
	return v
}

// Whatever the types of the root package can hold is read back as it was
// written, field for field, and a second time to the same bytes.
func TestWriteReadRoundTrip(t *testing.T) {
	for _, kind := range upkeep.Kinds {
		t.Run(kind, func(t *testing.T) {
			zero, _ := upkeep.ZeroObject(kind)
			rapid.Check(t, func(t *rapid.T) {
				object := arbitrary(t, reflect.TypeOf(zero), kind).Interface().(upkeep.Object)
				var text bytes.Buffer
				if err := Write(&text, object); err != nil {
					t.Fatal(err)
				}
				r := &reader{file: "x"}
				var node yaml.Node
				if !r.checkText(text.Bytes()) {
					t.Fatalf("%s\nis refused: %v", text.Bytes(), r.errors)
				}
				if err := yaml.Unmarshal(text.Bytes(), &node); err != nil {
					t.Fatalf("%s\nis not YAML: %v", text.Bytes(), err)
				}
				w := walker{reader: r, places: map[string]place{}}
				got := reflect.New(reflect.TypeOf(zero)).Elem()
				w.mapping(node.Content[0], got, "")
				if len(r.errors) > 0 {
					t.Fatalf("%s\nis refused: %v", text.Bytes(), r.errors)
				}
				if diff := cmp.Diff(object, got.Interface(), comparable); diff != "" {
					t.Fatalf("%s\nis read as another object: %s", text.Bytes(), diff)
				}
				var again bytes.Buffer
				if err := Write(&again, got.Interface().(upkeep.Object)); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(text.String(), again.String()); diff != "" {
					t.Fatalf("written again: %s", diff)
				}
			})
		})
	}
}

// The written form means the same to a YAML parser that knows nothing of upkeep.
func TestWrittenIsPlainYAML(t *testing.T) {
	for _, text := range traps {
		object := upkeep.Pool{Name: "web", Records: []string{text}, Check: upkeep.Check{Header: map[string]string{text: text}}}
		var out bytes.Buffer
		if err := Write(&out, object); err != nil {
			t.Fatal(err)
		}
		var loose struct {
			Records []any
			Check   struct{ Header map[any]any }
		}
		if err := yaml.Unmarshal(out.Bytes(), &loose); err != nil {
			t.Fatalf("%q: %v in\n%s", text, err, out.Bytes())
		}
		if loose.Records[0] != any(text) || loose.Check.Header[text] != any(text) {
			t.Errorf("%q is written as\n%s", text, out.Bytes())
		}
	}
}

// FuzzRead holds that no input makes the reader panic, and that what it accepts
// is a fixed point: written and read again it is the same.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		example, written, "", "kind: pool\n", "kind: &a zone\nname: *a\n", "{kind: zone, name: a.test, publishers: [{type: transfer}]}", "? a\n: b\n",
		"kind: pool\nname: web\nzones: [a.test]\nrecords: [www]\nmembers: [192.0.2.1]\ncheck: {type: http, header: {A: b}, status: [200, 300-399], body: \"a\\nb\"}\n",
		"kind: zone\nname: a.test\npublishers: [{type: transfer, allow_transfer: [10.0.0.0/8]}]\nsoa: {minimum: 1m30s}\n--- !x\n...\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, err := Read("x", text)
		if err != nil {
			if len(objects) > 0 {
				t.Fatal("objects beside an error")
			}
			return
		}
		var out bytes.Buffer
		if err := Write(&out, objects...); err != nil {
			t.Fatal(err)
		}
		again, err := Read("y", out.Bytes())
		if err != nil {
			t.Fatalf("what was accepted is refused when written:\n%s\n%v", out.Bytes(), err)
		}
		if diff := cmp.Diff(objects, again, comparable); diff != "" {
			t.Fatalf("changed by writing: %s", diff)
		}
		for _, object := range objects {
			text, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			stored, err := upkeep.DecodeObject(object.ObjectKind(), text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(object, stored, comparable); diff != "" {
				t.Fatalf("changed by storing: %s", diff)
			}
		}
	})
}
