package zone

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSpareAfterAKill saves where a kill left what was not finished.
func TestSpareAfterAKill(t *testing.T) {
	s := spares(filepath.Join(t.TempDir(), "spares"))
	const zone = "web.example.com/x"
	for _, content := range []string{"a longer first", "second"} {
		if err := s.save(zone, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(string(s), "~"+filepath.Base(s.path(zone))), []byte("half of what was to be written"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.load(zone); err != nil || string(got) != content {
			t.Errorf("after a kill it is %q, %v, and %q was saved", got, err, content)
		}
	}
	if err := s.save(zone, []byte("third")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(string(s))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}
