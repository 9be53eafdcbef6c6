package lint

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

// Bars for sizes. What does not fit wants to be two things.
const (
	maxFunctionLines    = 100
	maxFileLines        = 700
	maxInterfaceMethods = 7
)

func sizes(f File) []Finding {
	var found []Finding
	if f.Lines > maxFileLines {
		found = append(found, f.finding(f.Syntax.Name, "the file has %d lines; at most %d", f.Lines, maxFileLines))
	}
	ast.Inspect(f.Syntax, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncDecl:
			if n := f.lines(node) - tables(f, node); n > maxFunctionLines {
				found = append(found, f.finding(node, "%s has %d lines; at most %d", node.Name.Name, n, maxFunctionLines))
			}
		case *ast.InterfaceType:
			if n := node.Methods.NumFields(); n > maxInterfaceMethods {
				found = append(found, f.finding(node, "the interface has %d methods; at most %d", n, maxInterfaceMethods))
			}
		}
		return true
	})
	return found
}

// tables is the number of lines of a function that are data: tables of cases are
// as long as there are cases.
func tables(f File, function ast.Node) int {
	total := 0
	ast.Inspect(function, func(node ast.Node) bool {
		literal, is := node.(*ast.CompositeLit)
		if is {
			total += f.lines(literal) - 1
		}
		return !is
	})
	return total
}

// vagueNames are names of packages in which anything would fit.
var vagueNames = []string{"util", "utils", "common", "helper", "helpers", "model", "models", "manager", "managers", "misc", "base", "shared", "lib"}

// habits finds what works today and rots.
func habits(f File) []Finding {
	var found []Finding
	if name := strings.TrimSuffix(f.Syntax.Name.Name, "_test"); slices.Contains(vagueNames, name) {
		found = append(found, f.finding(f.Syntax.Name, "a package named %s says nothing of what is in it", name))
	}
	inTestkit := matches(testOnly, f.Package)
	fakeClock := imports(f, "testing/synctest") // sleeping takes no time there
	ast.Inspect(f.Syntax, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.FuncDecl:
			if node.Recv == nil && node.Name.Name == "init" {
				found = append(found, f.finding(node, "init runs behind everybody's back; use an explicit registry or constructor"))
			}
		case *ast.CallExpr:
			selector, is := node.Fun.(*ast.SelectorExpr)
			if !is {
				break
			}
			on, _ := selector.X.(*ast.Ident)
			switch name := selector.Sel.Name; {
			case f.Test && !fakeClock && on != nil && on.Name == "time" && name == "Sleep":
				found = append(found, f.finding(node, "a test that sleeps is slow or flaky or both; use testkit.Eventually or testing/synctest"))
			case strings.HasPrefix(name, "Skip") && on != nil && slices.Contains([]string{"t", "tb", "b", "f"}, on.Name) && !inTestkit &&
				slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, name):
				found = append(found, f.finding(node, "tests are skipped by testkit.Need only, which refuses to in CI"))
			case on != nil && (on.Name == "fmt" && name == "Errorf" || on.Name == "errors" && name == "New") && !f.Test:
				found = append(found, errorText(f, node)...)
			}
		}
		return true
	})
	return found
}

func imports(f File, path string) bool {
	return slices.ContainsFunc(f.Syntax.Imports, func(spec *ast.ImportSpec) bool { return spec.Path.Value == strconv.Quote(path) })
}

// errorText checks the wording of a new error: it is read after a colon, behind
// other words.
func errorText(f File, call *ast.CallExpr) []Finding {
	if len(call.Args) == 0 {
		return nil
	}
	literal, is := call.Args[0].(*ast.BasicLit)
	if !is || literal.Kind != token.STRING {
		return nil
	}
	text, err := strconv.Unquote(literal.Value)
	if err != nil {
		return nil
	}
	var found []Finding
	for _, start := range []string{"failed to ", "unable to ", "could not ", "error "} {
		if strings.HasPrefix(strings.ToLower(text), start) {
			found = append(found, f.finding(call, "that it is an error is known; say what was being done: %q", "doing X: %w"))
		}
	}
	for i, arg := range call.Args[1:] {
		if id, is := arg.(*ast.Ident); is && id.Name == "err" && !strings.Contains(text, "%w") {
			found = append(found, f.finding(call.Args[i+1], "an error is wrapped with %%w, so that callers can tell what it is"))
		}
	}
	return found
}

// documentation wants a comment at each exported thing.
func documentation(f File) []Finding {
	if f.Test || f.Syntax.Name.Name == "main" {
		return nil
	}
	var found []Finding
	for _, declaration := range f.Syntax.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !slices.Contains(selfEvident, d.Name.Name) {
				found = append(found, f.finding(d, "%s is exported and has no comment", d.Name.Name))
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if !groupDocumented(d) {
					found = append(found, undocumented(f, d, spec)...)
				}
			}
		}
	}
	return found
}

// selfEvident are methods whose meaning an interface of the standard library or
// of the root package or of package task has fixed.
var selfEvident = []string{
	"String", "Error", "Unwrap", "Close", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "Read", "Write", "ServeHTTP", "GoString", "LogValue",
	"Len", "Less", "Swap", "ObjectKind", "ObjectName", "Validate", "WithDefaults", "Kind", "Object",
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch inner := t.(type) {
		case *ast.StarExpr:
			t = inner.X
		case *ast.IndexExpr:
			t = inner.X
		case *ast.Ident:
			return inner.IsExported()
		default:
			return true
		}
	}
}

// groupDocumented reports a group of constants in which some have a comment: what
// goes without saying, such as Up beside "Down = 2 // and not on its way back",
// may do so.
func groupDocumented(d *ast.GenDecl) bool {
	return d.Tok == token.CONST && slices.ContainsFunc(d.Specs, func(spec ast.Spec) bool {
		value := spec.(*ast.ValueSpec)
		return value.Doc != nil || value.Comment != nil
	})
}

func undocumented(f File, d *ast.GenDecl, spec ast.Spec) []Finding {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
			return []Finding{f.finding(s, "%s is exported and has no comment", s.Name.Name)}
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && s.Doc == nil && s.Comment == nil && d.Doc == nil {
				return []Finding{f.finding(s, "%s is exported and has no comment", name.Name)}
			}
		}
	}
	return nil
}

// packageComments wants a comment at each package, once at least.
func packageComments(files []File) []Finding {
	commented := map[string]bool{}
	first := map[string]File{}
	for _, f := range files {
		if f.Test {
			continue
		}
		if _, seen := first[f.Package]; !seen {
			first[f.Package] = f
		}
		commented[f.Package] = commented[f.Package] || f.Syntax.Doc != nil && f.Syntax.Doc.Text() != ""
	}
	var found []Finding
	for pkg, f := range first {
		if !commented[pkg] {
			found = append(found, f.finding(f.Syntax.Name, "package %s has no comment", pkg))
		}
	}
	return found
}

// mutableState finds package-level variables that are changed after they were
// declared: state that any code can reach and no test can have to itself.
func mutableState(files []File) []Finding {
	global := map[string]map[string]bool{} // package, name
	for _, f := range files {
		if f.Test {
			continue
		}
		for _, declaration := range f.Syntax.Decls {
			d, is := declaration.(*ast.GenDecl)
			if !is || d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if global[f.Package] == nil {
						global[f.Package] = map[string]bool{}
					}
					global[f.Package][name.Name] = name.Name != "_"
				}
			}
		}
	}
	var found []Finding
	for _, f := range files {
		ast.Inspect(f.Syntax, func(node ast.Node) bool {
			for _, target := range assigned(node) {
				if id := root(target); id != nil && global[f.Package][id.Name] && atPackageLevel(f, id) {
					found = append(found, f.finding(node, "%s belongs to the whole package and is changed here; pass it in instead", id.Name))
				}
			}
			return true
		})
	}
	return found
}

// assigned lists what a statement writes to.
func assigned(node ast.Node) []ast.Expr {
	switch s := node.(type) {
	case *ast.AssignStmt:
		if s.Tok != token.DEFINE {
			return s.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{s.X}
	case *ast.CallExpr:
		if name, is := s.Fun.(*ast.Ident); is && slices.Contains([]string{"delete", "clear"}, name.Name) && len(s.Args) > 0 {
			return s.Args[:1]
		}
	}
	return nil
}

// root is the variable at the bottom of an expression such as a.b[c].d.
func root(x ast.Expr) *ast.Ident {
	for {
		switch inner := x.(type) {
		case *ast.Ident:
			return inner
		case *ast.SelectorExpr:
			x = inner.X
		case *ast.IndexExpr:
			x = inner.X
		case *ast.ParenExpr:
			x = inner.X
		default:
			return nil
		}
	}
}

// atPackageLevel reports whether a name means the package's variable rather than
// a local one that hides it. The parser resolves names within a file.
func atPackageLevel(f File, id *ast.Ident) bool {
	if id.Obj == nil {
		return true // declared in another file
	}
	spec, is := id.Obj.Decl.(*ast.ValueSpec)
	if !is {
		return false
	}
	return slices.ContainsFunc(f.Syntax.Decls, func(declaration ast.Decl) bool {
		d, is := declaration.(*ast.GenDecl)
		return is && slices.Contains(d.Specs, ast.Spec(spec))
	})
}
