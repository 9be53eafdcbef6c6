package zone

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// What somebody is told is logged by whoever tells it: a line in two places is
// taken for two things.
func TestNoticesAreTellOrLog(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	told := 0
	n := newNotices("example.test", logger, func(zone, what, why string) { told++ })
	n.add("refused a zone transfer", "no key")
	n.add("refused a zone transfer", "no key")
	if told != 1 || log.Len() > 0 {
		t.Errorf("told %d times, and logged %q", told, log.String())
	}
	n = newNotices("example.test", logger, nil)
	n.add("refused a zone transfer", "no key")
	if !strings.Contains(log.String(), "refused a zone transfer") {
		t.Errorf("with nobody to tell, logged %q", log.String())
	}
}
