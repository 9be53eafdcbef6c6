package safefs

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"upkeep/internal/testkit"
)

// own is what TestOpenOwn does as a normal user: each folder, and whether it is
// opened.
func own(dir string) error {
	for path, opened := range map[string]bool{"mine": true, "link": true, "mine/open": false, "betas": false} {
		d, err := OpenOwn(filepath.Join(dir, path))
		if (err == nil) != opened {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err == nil {
			_ = d.Close()
		}
	}
	return nil
}

// TestOpenOwn holds that a process without root works in its user's own folders,
// whatever is above them, and in nobody else's.
func TestOpenOwn(t *testing.T) {
	dir, _ := tree(t)
	shared := mkdir(t, dir, "shared", 0, 0o777)
	mkdir(t, shared, "mine", acme, 0o755)
	mkdir(t, shared, "mine/open", acme, 0o775)
	mkdir(t, shared, "betas", beta, 0o755)
	if err := os.Symlink("mine", filepath.Join(shared, "link")); err != nil {
		t.Fatal(err)
	}
	p := testkit.Command{
		Argv: []string{binary(t), shared}, Env: []string{"SAFEFS_TEST_ROLE=own"}, Dir: "/", User: &syscall.Credential{Uid: acme, Gid: acme},
	}.Start(t)
	if err := p.Wait(); err != nil {
		t.Errorf("%v: %s", err, p.Log())
	}
	if _, err := OpenOwn(filepath.Join(shared, "mine")); err == nil {
		t.Error("root takes what anybody can replace for its own")
	}
}
