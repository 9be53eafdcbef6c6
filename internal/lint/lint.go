// Package lint holds the rules of this code base that no ready-made linter knows:
// which package may import which and why, how long things may get, and habits
// that rot. Its test applies them to the whole tree, so go test is the gate.
package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// File is one parsed Go file.
type File struct {
	Path    string // below the root of the module, with slashes
	Package string // folder below the root, "." for the root itself
	Test    bool
	Lines   int
	Syntax  *ast.File
	fset    *token.FileSet
}

// Finding is one broken rule.
type Finding struct {
	Path string
	Line int
	Rule string
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Rule) }

func (f File) finding(node ast.Node, rule string, args ...any) Finding {
	return Finding{f.Path, f.fset.Position(node.Pos()).Line, fmt.Sprintf(rule, args...)}
}

func (f File) lines(node ast.Node) int {
	return f.fset.Position(node.End()).Line - f.fset.Position(node.Pos()).Line + 1
}

// Load parses every Go file of the module at root. Files for other systems and
// behind build tags are parsed too.
func Load(root string) ([]File, error) {
	var files []File
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != root && (base == "testdata" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := Parse(fset, filepath.ToSlash(rel), text)
		if err == nil {
			files = append(files, file)
		}
		return err
	})
	return files, err
}

// Parse parses one file.
func Parse(fset *token.FileSet, name string, text []byte) (File, error) {
	syntax, err := parser.ParseFile(fset, name, text, parser.ParseComments)
	if err != nil {
		return File{}, fmt.Errorf("parsing: %w", err)
	}
	return File{
		Path: name, Package: path.Dir(name), Test: strings.HasSuffix(name, "_test.go"),
		Lines: fset.File(syntax.Pos()).LineCount(), Syntax: syntax, fset: fset,
	}, nil
}

// Check applies every rule and returns what breaks one, by file and line.
func Check(files []File) []Finding {
	var found []Finding
	for _, file := range files {
		for _, rule := range []func(File) []Finding{layers, sizes, habits, expressions, documentation} {
			found = append(found, rule(file)...)
		}
	}
	found = append(found, packageComments(files)...)
	found = append(found, mutableState(files)...)
	slices.SortFunc(found, func(a, b Finding) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return found
}
