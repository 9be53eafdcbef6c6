package lookup

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// node is a folder by its entries, or a link by its text.
type node struct {
	entries map[string]*node
	text    string
}

func (n *node) in(name string) (*node, error) {
	if n.entries == nil {
		return nil, ErrNoFolder
	}
	if found := n.entries[name]; found != nil {
		return found, nil
	}
	return nil, fs.ErrNotExist
}

func TestWalk(t *testing.T) {
	file, link := &node{}, func(text string) *node { return &node{text: text} }
	etc := &node{entries: map[string]*node{"passwd": file, "up": link("../../../etc/passwd"), "top": link("/etc")}}
	root := &node{entries: map[string]*node{"etc": etc, "round": link("round"), "out": link("/../../etc/up"), "gone": link("none"), "caf\xe9": file, "long": link(strings.Repeat("./", 50) + "etc")}}
	for name, test := range map[string]struct {
		follow bool
		want   *node
		err    error
	}{
		".":              {true, root, nil},
		"etc/passwd":     {true, file, nil},
		"etc/up":         {true, file, nil},
		"out":            {true, file, nil},
		"etc/top/top":    {true, etc, nil},
		"long/passwd":    {true, file, nil},
		"etc/top":        {false, etc.entries["top"], nil},
		"etc/top/passwd": {false, file, nil},
		"gone":           {true, nil, fs.ErrNotExist},
		"etc/passwd/x":   {true, nil, ErrNoFolder},
		"../etc":         {true, nil, fs.ErrInvalid},
		"caf\xe9":        {true, file, nil},
		"\xe9/../etc":    {true, nil, fs.ErrInvalid},
		"/etc":           {true, nil, fs.ErrInvalid},
	} {
		got, err := walk(root, name, test.follow, (*node).in, func(n *node) (string, bool, error) { return n.text, n.text != "", nil })
		if !errors.Is(err, test.err) || err == nil && got != test.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := walk(root, "round", true, (*node).in, func(n *node) (string, bool, error) { return n.text, n.text != "", nil }); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("a link to itself: %v", err)
	}
}
