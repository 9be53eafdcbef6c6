package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/declare"
)

// pages are the texts for people, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	texts := map[string]string{}
	for _, path := range append(paths, "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	return texts
}

var (
	yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")
	pageLink  = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
)

// What a page tells people to apply can be applied.
func TestDocumentsOnPagesAreValid(t *testing.T) {
	for path, text := range pages(t) {
		for _, block := range yamlBlock.FindAllStringSubmatch(text, -1) {
			objects, err := declare.Read(filepath.Base(path), []byte(block[1]))
			if err != nil || len(objects) == 0 {
				t.Errorf("%s: %v in\n%s", path, err, block[1])
			}
			for _, object := range objects {
				if broken := object.Validate(); len(broken) > 0 {
					t.Errorf("%s: %v", path, broken)
				}
			}
		}
	}
}

// A command line that people copy must do something: diff ends with 1 when there
// are differences, so what follows it after && never runs; and documents are
// printed with durations in their shortest form.
func TestCommandsForPeopleWork(t *testing.T) {
	texts := pages(t)
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		texts[c.CommandPath()] = c.Example + "\n" + c.Long
		for _, child := range c.Commands() {
			visit(child)
		}
	}
	visit(newRoot(&app{}))
	never := regexp.MustCompile(`upkeep (\w+ )*diff [^|;\n]*&&|upkeep zone adopt .*--help`)
	for where, text := range texts {
		if line := never.FindString(text); line != "" {
			t.Errorf("%s: %q leads nowhere", where, line)
		}
	}
	if minute := upkeep.Duration(time.Minute).String(); !strings.Contains(texts["upkeep apply"], "s/"+minute+"/") {
		t.Errorf("the example of apply does not replace %q", minute)
	}
}

func TestLinksBetweenPages(t *testing.T) {
	for path, text := range pages(t) {
		for _, link := range pageLink.FindAllStringSubmatch(text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), link[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, link[1], err)
			}
		}
	}
}

func TestExitStatusesArePrinted(t *testing.T) {
	_, list, _ := strings.Cut(exitHelp, "\n")
	page := pages(t)["../../docs/operating.md"]
	for line := range strings.SplitSeq(list, "\n") {
		if !strings.Contains(page, strings.TrimSpace(line)+"\n") {
			t.Errorf("docs/operating.md lacks: %s", line)
		}
	}
}

func TestEveryFieldOfReceiversIsExplained(t *testing.T) {
	page := pages(t)["../../docs/notifications.md"]
	for field := range reflect.TypeFor[upkeep.Receiver]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !regexp.MustCompile("(?m)^\\|[^|]*`" + name + "`").MatchString(page) {
			t.Errorf("docs/notifications.md says nothing of %s", name)
		}
	}
}
