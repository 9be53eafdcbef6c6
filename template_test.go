package upkeep

import (
	"io"
	"strings"
	"testing"
)

func TestParseTemplateRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{{range 1001}}{{end}}`:                                  "the number 1001 must be at most 1000",
		`{{$n := 0xffffffff}}{{range $n}}{{end}}`:                "must be at most 1000",
		`{{range .}}{{range .}}{{range .}}{{end}}{{end}}{{end}}`: "more than 2 ranges inside each other",
		`{{range .}}{{if .}}{{range .}}{{else}}{{with .}}{{range .}}{{end}}{{end}}{{end}}{{end}}{{end}}`: "more than 2 ranges",
		`{{define "a"}}{{end}}x`:                                  "define and block have no use here",
		`{{block "a" .}}{{end}}`:                                  "define and block have no use here",
		`{{template "template" .}}`:                               "template has no use here",
		`{{if (gt (len (printf "%s" (index . 5000))) 1)}}{{end}}`: "the number 5000",
		`{{.A`:          "unclosed action",
		`{{nothing .}}`: "function \"nothing\" not defined",
	} {
		if _, err := ParseTemplate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestTemplateFunctions(t *testing.T) {
	data := map[string]any{"Text": "a \"b\" <c>", "List": []string{"x", "y"}}
	for text, want := range map[string]string{
		``:                                 "",
		`{{/* comment */}}{{json .Text}}`:  `"a \"b\" \u003cc\u003e"`,
		`{{join ", " .List}}`:              "x, y",
		`{{printf "%5.2f|%-3s|" 1.5 "a"}}`: " 1.50|a  |",
		`{{print "a" 1}}`:                  "a1",
		`{{range $i, $e := .List}}{{$i}}{{$e}}{{end}}`: "0x1y",
		`{{printf "%9999d" 1}}`:                        "error: too wide a field",
		`{{printf "%*d" 900 1}}`:                       "error: too wide a field",
		`{{html .Text}}`:                               "error: there is no function html",
		`{{js .Text}}`:                                 "error: there is no function js",
		`{{.Missing}}`:                                 "error: map has no entry",
		`{{$s := "\""}}{{range 900}}{{$s = json $s}}{{end}}`:             "error: longer than",
		`{{$s := "xx"}}{{range 900}}{{$s = print $s $s}}{{end}}`:         "error: longer than",
		`{{$s := "xx"}}{{range 900}}{{$s = printf "%s%s" $s $s}}{{end}}`: "error: longer than",
	} {
		parsed, err := ParseTemplate(text)
		var b strings.Builder
		if err == nil {
			err = parsed.Execute(&b, data)
		}
		if message, wanted := strings.CutPrefix(want, "error: "); wanted {
			if err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%s: got %q, %v, want an error with %q", text, b.String(), err, message)
			}
		} else if err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v, want %q", text, b.String(), err, want)
		}
	}
}

// FuzzParseTemplate holds that what is accepted ends.
func FuzzParseTemplate(f *testing.F) {
	for _, seed := range []string{`{"text": {{json .Text}}}`, `{{range .List}}{{.}}{{end}}`, `{{$s := "x"}}{{range 100}}{{$s = print $s $s}}{{end}}`, `{{template "template"}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 200 {
			return
		}
		parsed, err := ParseTemplate(text)
		if err == nil {
			_ = parsed.Execute(io.Discard, map[string]any{"Text": "x", "List": []string{"x", "y"}}) // any outcome will do
		}
	})
}
