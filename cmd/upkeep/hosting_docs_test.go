package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"upkeep"
)

// tableUnder are the rows of the first table below a line of a page, by the code
// in their first cell.
func tableUnder(t *testing.T, page, head string) map[string]string {
	t.Helper()
	_, text, found := strings.Cut(page, "\n"+head+"\n")
	if !found {
		t.Fatalf("the page has no %q", head)
	}
	rows := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.HasPrefix(line, "|") {
			break
		}
		if name := regexp.MustCompile("^\\| `([^`]+)` \\|").FindStringSubmatch(line); name != nil {
			rows[name[1]] = line
		}
	}
	return rows
}

// fieldsOf are the names that the fields of a type have in documents.
func fieldsOf(of reflect.Type) []string {
	var names []string
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// constants are the values of the constants in a file of the glossary whose names
// begin with a prefix: what reflection cannot list.
func constants(t *testing.T, file, prefix string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "../../"+file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, is := n.(*ast.ValueSpec)
		if !is || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, prefix) {
			return true
		}
		if literal, is := spec.Values[0].(*ast.BasicLit); is && literal.Kind == token.STRING {
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	if len(values) == 0 {
		t.Fatalf("%s has no constants %s*", file, prefix)
	}
	return values
}

// sameNames compares what a page has with what there is.
func sameNames(t *testing.T, what string, documented, there []string) {
	t.Helper()
	for _, name := range there {
		if !slices.Contains(documented, name) {
			t.Errorf("%s: %s is not on the page", what, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(there, name) {
			t.Errorf("%s: %s is on the page, and there is no such thing", what, name)
		}
	}
}

func TestPageOnSitesHasEveryField(t *testing.T) {
	page := pages(t)["../../docs/sites.md"]
	rows := tableUnder(t, page, "| field | rule | what the web server gets |")
	sameNames(t, "fields of sites", slices.Collect(maps.Keys(rows)), fieldsOf(reflect.TypeFor[upkeep.Site]()))
	for row, of := range map[string]reflect.Type{"php": reflect.TypeFor[upkeep.PHP](), "protect": reflect.TypeFor[upkeep.Protection](), "redirects": reflect.TypeFor[upkeep.Redirect]()} {
		for _, name := range fieldsOf(of) {
			if name != "path" && !strings.Contains(rows[row], "`"+name+"`") {
				t.Errorf("the row of %s says nothing of %s", row, name)
			}
		}
	}
	// The document above the table shows each of them.
	document, _, _ := strings.Cut(page, "\n| field | rule |")
	for name := range rows {
		if !regexp.MustCompile(`(?m)^` + name + `:`).MatchString(document) {
			t.Errorf("the document with every field has no %s", name)
		}
	}
	for _, of := range []reflect.Type{reflect.TypeFor[upkeep.Account](), reflect.TypeFor[upkeep.Delegation]()} {
		for _, name := range fieldsOf(of) {
			if !regexp.MustCompile(`(?m)^(# )?` + name + `:`).MatchString(page) {
				t.Errorf("no document of a %s shows %s", of.Name(), name)
			}
		}
	}
	for _, state := range constants(t, "site.go", "Site") {
		if !strings.Contains(page, "`"+state+"`") {
			t.Errorf("the page says nothing of the state %s", state)
		}
	}
}

func TestPageOnJobsHasEveryKindAndState(t *testing.T) {
	page := pages(t)["../../docs/jobs.md"]
	var kinds, states []string
	for _, value := range constants(t, "job.go", "Job") {
		switch upkeep.JobState(value) {
		case upkeep.JobPending, upkeep.JobRunning, upkeep.JobDone, upkeep.JobFailed, upkeep.JobSuperseded, upkeep.JobCancelled:
			states = append(states, value)
		default:
			kinds = append(kinds, value)
		}
	}
	sameNames(t, "kinds", slices.Collect(maps.Keys(tableUnder(t, page, "| kind | what is done | comes from |"))), kinds)
	sameNames(t, "states", slices.Collect(maps.Keys(tableUnder(t, page, "| state | meaning |"))), states)
	_, list, _ := strings.Cut(page, "`job list -o json` has ")
	list, _, _ = strings.Cut(list, ", which is null")
	for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(list, -1) {
		if !slices.Contains(fieldsOf(reflect.TypeFor[upkeep.Job]()), name[1]) {
			t.Errorf("a job has no %s", name[1])
		}
	}
}
