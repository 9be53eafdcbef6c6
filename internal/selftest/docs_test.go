package selftest

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func securityPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPageHasEveryAttack holds that the page on security has the attacks that
// there are, in their own words, and no others.
func TestPageHasEveryAttack(t *testing.T) {
	_, section, found := strings.Cut(securityPage(t), "\n## 4.")
	if !found {
		t.Fatal("the page has no section 4")
	}
	for _, f := range families {
		_, table, found := strings.Cut(section, "\n### "+f.name+"\n")
		if !found {
			t.Errorf("the page has no table of %s", f.name)
		}
		table, _, _ = strings.Cut(table, "\n### ")
		var want strings.Builder
		want.WriteString("\n| attack | what is tried | what holds |\n|---|---|---|\n")
		for _, a := range f.attacks {
			want.WriteString("| `" + a.Name + "` | " + cell(a.Tries) + " | " + cell(a.Holds) + " |\n")
		}
		if strings.TrimSpace(table) != strings.TrimSpace(want.String()) {
			t.Errorf("the table of %s should be\n%s", f.name, want.String())
		}
	}
	if got := strings.Count(section, "\n### "); got != len(families) {
		t.Errorf("the page has %d tables, there are %d families", got, len(families))
	}
}

// cell is a text in a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")

// TestSecurityClaimsHaveTests holds that each test that the page names as a proof
// is there.
func TestSecurityClaimsHaveTests(t *testing.T) {
	var tests bytes.Buffer
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		tests.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := testName.FindAllStringSubmatch(securityPage(t), -1)
	if len(named) < 30 {
		t.Errorf("the page names %d tests only", len(named))
	}
	for _, match := range named {
		if !bytes.Contains(tests.Bytes(), []byte("\nfunc "+match[1]+"(")) {
			t.Errorf("there is no test %s", match[1])
		}
	}
}
