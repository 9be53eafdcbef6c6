package upkeep

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"text/template/parse"

	"upkeep/internal/lazy"
)

// Bounds of a template. Whoever may declare a receiver may not keep a processor
// busy for ever or fill the memory: a template cannot be stopped from outside.
const (
	maxTemplateText   = 1 << 20 // bytes that a function may return
	maxTemplateNumber = 1000    // the most that a range can be told to count
	maxTemplateNested = 2       // ranges inside each other
)

// ParseTemplate reads the template of a webhook, in the language of text/template
// but for what has no bounds: nested definitions, and functions that write long
// texts. Inside it, json writes any value as JSON, quotes included; join puts a
// list together with a separator.
func ParseTemplate(text string) (*template.Template, error) {
	t, err := template.New("template").Funcs(templateFunctions).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, err
	}
	if t.Tree == nil {
		return t, nil
	}
	if len(t.Templates()) > 1 {
		return nil, errors.New("define and block have no use here")
	}
	return t, checkTemplate(t.Root, 0)
}

var templateFunctions = template.FuncMap{
	"json": func(v any) (string, error) {
		b, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		return boundText(string(b))
	},
	"join": func(separator string, parts []string) (string, error) {
		return boundText(strings.Join(parts, separator))
	},
	"print":    func(v ...any) (string, error) { return boundText(fmt.Sprint(v...)) },
	"printf":   boundPrintf,
	"println":  withoutFunction("println"),
	"html":     withoutFunction("html"),
	"js":       withoutFunction("js"),
	"urlquery": withoutFunction("urlquery"),
}

func boundText(s string) (string, error) {
	if len(s) > maxTemplateText {
		return "", fmt.Errorf("a text is longer than %d bytes", maxTemplateText)
	}
	return s, nil
}

// wideVerb is a verb of printf with a width that can fill the memory.
var wideVerb = lazy.Regexp(`\*|\[|[0-9]{4}`)

func boundPrintf(format string, v ...any) (string, error) {
	if len(format) > 1000 || wideVerb().MatchString(format) {
		return "", fmt.Errorf("the format %.40q is too long, or has too wide a field", format)
	}
	return boundText(fmt.Sprintf(format, v...))
}

func withoutFunction(name string) func(...any) (string, error) {
	return func(...any) (string, error) { return "", fmt.Errorf("there is no function %s; use json", name) }
}

// checkTemplate refuses what could run without end.
func checkTemplate(node parse.Node, nested int) error {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		return checkTemplates(nested, n.Nodes...)
	case *parse.TemplateNode:
		return errors.New("template has no use here")
	case *parse.RangeNode:
		if nested++; nested > maxTemplateNested {
			return fmt.Errorf("must not have more than %d ranges inside each other", maxTemplateNested)
		}
		return checkBranch(&n.BranchNode, nested)
	case *parse.IfNode:
		return checkBranch(&n.BranchNode, nested)
	case *parse.WithNode:
		return checkBranch(&n.BranchNode, nested)
	case *parse.ActionNode:
		return checkTemplate(n.Pipe, nested)
	case *parse.PipeNode:
		if n == nil {
			return nil
		}
		for _, command := range n.Cmds {
			if err := checkTemplates(nested, command.Args...); err != nil {
				return err
			}
		}
	case *parse.ChainNode:
		return checkTemplate(n.Node, nested)
	case *parse.NumberNode:
		if n.IsInt && n.Int64 > maxTemplateNumber || n.IsUint && n.Uint64 > maxTemplateNumber {
			return fmt.Errorf("the number %s must be at most %d", n.Text, maxTemplateNumber)
		}
	}
	return nil
}

func checkTemplates(nested int, nodes ...parse.Node) error {
	for _, node := range nodes {
		if err := checkTemplate(node, nested); err != nil {
			return err
		}
	}
	return nil
}

func checkBranch(b *parse.BranchNode, nested int) error {
	return checkTemplates(nested, b.Pipe, b.List, b.ElseList)
}
