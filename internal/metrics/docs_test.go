package metrics

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/notify"
)

// docs/metrics.md lists exactly what is exposed, with its labels.
func TestPageListsAllMetrics(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(upkeep_[a-z_]+(?:{[a-z,]*})?)` \\| [^|]").FindAllStringSubmatch(string(page), -1) {
		if !slices.Contains(listed, row[1]) {
			listed = append(listed, row[1])
		}
	}
	m := New("test", slog.New(slog.DiscardHandler))
	s := source{members: 1}
	m.Collect(s, s)
	m.CollectNotifier(tellings{"ops": notify.Stats{}})
	m.Publish("bind", nil)
	m.Event(upkeep.Event{Kind: upkeep.EventVerdict})
	m.Failover(time.Second)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var exposed []string
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "upkeep_") {
			continue
		}
		var labels []string
		for _, label := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, label.GetName())
		}
		name := family.GetName()
		if len(labels) > 0 {
			name += "{" + strings.Join(labels, ",") + "}"
		}
		exposed = append(exposed, name)
	}
	for _, name := range exposed {
		if !slices.Contains(listed, name) {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}
	for _, name := range listed {
		if !slices.Contains(exposed, name) && !strings.Contains(name, `"`) {
			t.Errorf("docs/metrics.md lists %s, which is not exposed", name)
		}
	}
}
