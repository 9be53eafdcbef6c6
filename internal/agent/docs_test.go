package agent

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z]+)`")

// TestClaimsHaveTests holds that each test that the page on agents names as a
// proof is there.
func TestClaimsHaveTests(t *testing.T) {
	page, err := os.ReadFile("../../docs/agents.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, room := range []string{"agent", "safefs", "policy", "task", "link", "job", "image", "image/tool", "../e2e", "../cmd/upkeep"} {
		paths, err := filepath.Glob("../" + room + "/*_test.go")
		if err != nil || len(paths) == 0 {
			t.Fatalf("no tests of %s: %v", room, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(text)
		}
	}
	named := testName.FindAllStringSubmatch(string(page), -1)
	if len(named) < 30 {
		t.Errorf("the page names %d tests only", len(named))
	}
	for _, match := range named {
		if !strings.Contains(tests.String(), "\nfunc "+match[1]+"(") {
			t.Errorf("there is no test %s", match[1])
		}
	}
}
