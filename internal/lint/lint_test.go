package lint

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTree applies the rules to this repository.
func TestTree(t *testing.T) {
	files, err := Load(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 30 {
		t.Fatalf("only %d files were found", len(files))
	}
	for _, finding := range Check(files) {
		t.Error(finding)
	}
}

// TestRules breaks every rule once: a rule that finds nothing guards nothing.
func TestRules(t *testing.T) {
	long := "package x\nfunc f() {\n" + strings.Repeat("\t_ = 1\n", maxFunctionLines) + "}\n"
	for _, one := range []struct{ name, path, text, want string }{
		{"upward import", "internal/failover/x.go", "package failover\nimport _ \"upkeep/internal/store\"\n", "internal/failover must not import internal/store"},
		{"sideways import", "internal/probe/x.go", "package probe\nimport _ \"upkeep/internal/zone\"\n", "must not import"},
		{"in a test too", "internal/probe/x_test.go", "package probe\nimport _ \"upkeep/internal/watch\"\n", "must not import"},
		{"testkit in the program", "internal/watch/x.go", "package watch\nimport _ \"upkeep/internal/testkit/netlab\"\n", "tests only"},
		{"purity", "internal/failover/x.go", "package failover\nimport _ \"example.org/x\"\n", "standard library only"},
		{"a second place with queries", "internal/watch/x.go", "package watch\nimport _ \"database/sql\"\n", "one place with queries"},
		{"unknown room", "internal/attic/x.go", "package attic\n", "not in the table of layers"},
		{"vague name", "internal/api/x.go", "package utils\n", "says nothing"},
		{"long function", "internal/api/x.go", long, "f has 102 lines"},
		{"long file", "internal/api/x.go", "package x\n" + strings.Repeat("//\n", maxFileLines), "the file has"},
		{"wide interface", "internal/api/x.go", "package x\ntype i interface { a(); b(); c(); d(); e(); f(); g(); h() }\n", "8 methods"},
		{"init", "internal/api/x.go", "package x\nfunc init() {}\n", "init"},
		{"sleep", "internal/api/x_test.go", "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", "sleeps"},
		{"skip", "internal/api/x_test.go", "package x\nfunc f(t T) { t.Skipf(\"\") }\n", "testkit.Need"},
		{"error wording", "internal/api/x.go", "package x\nfunc f() { fmt.Errorf(\"failed to x\") }\n", "say what was being done"},
		{"error wrapping", "internal/api/x.go", "package x\nfunc f() { fmt.Errorf(\"x: %v\", err) }\n", "wrapped"},
		{"undocumented function", "internal/api/x.go", "package x\nfunc F() {}\n", "F is exported"},
		{"undocumented type", "internal/api/x.go", "package x\ntype T int\n", "T is exported"},
		{"undocumented constant", "internal/api/x.go", "package x\nconst C = 1\n", "C is exported"},
		{"package comment", "internal/api/x.go", "package x\n", "has no comment"},
		{"compiled at each start", "internal/api/x.go", "package x\nimport \"regexp\"\nvar v = regexp.MustCompile(`x`)\n", "compiled at the start of every command"},
		{"what does not compile", "internal/api/x.go", "package x\nimport \"upkeep/internal/lazy\"\nvar v = lazy.Regexp(`(`)\n", "missing closing )"},
		{"state", "internal/api/x.go", "package x\nvar v int\nfunc f() { v = 1 }\n", "v belongs to the whole package"},
		{"state in a map", "internal/api/x.go", "package x\nvar v = map[int]T{}\nfunc f() { v[1].x++; delete(v, 1) }\n", "v belongs to the whole package"},
	} {
		t.Run(one.name, func(t *testing.T) {
			file, err := Parse(token.NewFileSet(), one.path, []byte(one.text))
			if err != nil {
				t.Fatal(err)
			}
			found := Check([]File{file})
			if !slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.Rule, one.want) }) {
				t.Errorf("found %v, want a finding with %q", found, one.want)
			}
		})
	}
}

func TestRulesLeaveGoodCodeAlone(t *testing.T) {
	text := `// Package watch is fine.
package watch

import (
	_ "upkeep"
	"upkeep/internal/lazy"
	_ "upkeep/internal/store"
)

// V is fine.
var V = []int{1}

var expression = lazy.Regexp("^x$")

// F hides V, which is fine.
func F(V []int) error {
	V[0] = 1
	local := 2
	local++
	local += len(regexp.MustCompile("x").String())
	if err := F(nil); err != nil {
		return fmt.Errorf("doing %d: %w", local, err)
	}
	return nil
}

type t struct{}

func (t) String() string { return "" }
func (t) Exported()      {}
`
	file, err := Parse(token.NewFileSet(), "internal/watch/x.go", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if found := Check([]File{file}); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}

// TestDependenciesAreInstalled holds that make deps knows every program that a
// test says it needs.
func TestDependenciesAreInstalled(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("..", "..", "packaging", "test-deps"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"sh": true, "go": true, "no-such-program": true}
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) == 2 {
			known[fields[0]] = true
		}
	}
	files, err := Load(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	needs := 0
	for _, f := range files {
		ast.Inspect(f.Syntax, func(node ast.Node) bool {
			call, is := node.(*ast.CallExpr)
			if !is || !calls(call, "Need") {
				return true
			}
			needs++
			for _, arg := range call.Args {
				literal, is := arg.(*ast.BasicLit)
				if is && !known[strings.Trim(literal.Value, `"`)] {
					t.Errorf("%s: packaging/test-deps does not install %s", f.finding(arg, ""), literal.Value)
				}
			}
			return true
		})
	}
	if needs == 0 {
		t.Error("no test needs anything")
	}
}

// calls reports a call of a function of that name, with or without its package.
func calls(call *ast.CallExpr, name string) bool {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name == name
	case *ast.SelectorExpr:
		return f.Sel.Name == name
	}
	return false
}

// TestTextsStandAlone finds paths of one machine in what is published: they help
// nobody else.
func TestTextsStandAlone(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() && name != root && (base == ".git" || base == "testdata") {
			return filepath.SkipDir
		}
		if !entry.Type().IsRegular() || !slices.Contains([]string{".md", ".go", ".yaml", ".yml", ".sh", ".html", ".css", ".js", ".service"}, filepath.Ext(base)) {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, word := range []string{"/wo" + "rk/", ".libr" + "ary/", "sha" + "red/research"} {
				if strings.Contains(line, word) {
					t.Errorf("%s:%d: %s is a place on one machine", name, i+1, word)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
