package lint

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
)

// expressions keeps regular expressions of the whole package from being compiled at
// the start of every command, and compiles them here in its place.
func expressions(f File) []Finding {
	if f.Test || matches([]string{"bench/...", "internal/testkit/..."}, f.Package) {
		return nil
	}
	var found []Finding
	for _, declaration := range f.Syntax.Decls {
		d, is := declaration.(*ast.GenDecl)
		if !is || d.Tok != token.VAR {
			continue
		}
		ast.Inspect(d, func(node ast.Node) bool {
			call, is := node.(*ast.CallExpr)
			switch {
			case is && isCall(call, "regexp", "MustCompile"):
				found = append(found, f.finding(call, "the expression is compiled at the start of every command; use lazy.Regexp"))
			case is && isCall(call, "lazy", "Regexp"):
				found = append(found, compiles(f, call)...)
			}
			_, function := node.(*ast.FuncLit) // runs later
			return !function
		})
	}
	return found
}

func isCall(call *ast.CallExpr, pkg, name string) bool {
	selector, is := call.Fun.(*ast.SelectorExpr)
	if !is || selector.Sel.Name != name {
		return false
	}
	on, is := selector.X.(*ast.Ident)
	return is && on.Name == pkg
}

// compiles checks an expression that is written out; one that is put together is left
// to the tests of who uses it.
func compiles(f File, call *ast.CallExpr) []Finding {
	if len(call.Args) != 1 {
		return nil // the compiler says so
	}
	literal, is := call.Args[0].(*ast.BasicLit)
	if !is {
		return nil
	}
	text, err := strconv.Unquote(literal.Value)
	if err != nil {
		return nil // the parser has checked it
	}
	if _, err := regexp.Compile(text); err != nil {
		return []Finding{f.finding(literal, "%v", err)}
	}
	return nil
}
