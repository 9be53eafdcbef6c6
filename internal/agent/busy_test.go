package agent

import (
	"strings"
	"testing"
)

func TestBusyWarning(t *testing.T) {
	for want, sites := range map[string][]string{
		"": nil, "PHP of site a.test takes requests": {"a.test"}, "PHP of 3 sites, a.test among them, takes requests": {"a.test", "b.test", "c.test"},
	} {
		if got := busyWarning(sites); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("of %q it says %q", sites, got)
		}
	}
}
