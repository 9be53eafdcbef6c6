package hold

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"upkeep/internal/testkit"
)

func TestUsers(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "mount", "umount")
	folder := t.TempDir()
	testkit.Run(t, "mount", "-t", "tmpfs", "tmpfs", folder)
	t.Cleanup(func() { testkit.Run(t, "umount", folder) })
	if users, err := Users(folder); err != nil || len(users) > 0 {
		t.Fatalf("users of an idle mount: %v, %v", users, err)
	}
	file := filepath.Join(folder, "file")
	must(t, os.WriteFile(file, make([]byte, 4096), 0o600))
	for how, text := range map[string]string{"read": "open by pid %d hold.test", "write": "open for writing by pid %d hold.test", "map": "open by pid %d hold.test"} {
		t.Run(how, func(t *testing.T) {
			want := fmt.Sprintf(text, holder(t, how, file))
			if users, err := Users(folder); err != nil || len(users) != 1 || users[0].String() != want {
				t.Errorf("users are %v, %v; want %q", users, err, want)
			}
		})
	}
	t.Run("a folder of it is somebody's", func(t *testing.T) {
		cmd := exec.Command("sh", "-c", `cd "$0" && echo held && exec cat`, folder)
		want := fmt.Sprintf("the working folder of pid %d", testkit.Stranger(t, cmd))
		if users, err := Users(folder); err != nil || len(users) != 1 || !strings.HasPrefix(users[0].String(), want) {
			t.Errorf("users are %v, %v; want %q", users, err, want)
		}
	})
	t.Run("mounted inside", func(t *testing.T) {
		inner := filepath.Join(folder, "inner")
		must(t, os.Mkdir(inner, 0o700))
		testkit.Run(t, "mount", "-t", "tmpfs", "tmpfs", inner)
		defer testkit.Run(t, "umount", inner)
		if users, err := Users(folder); err != nil || len(users) != 1 || users[0].Mount != inner {
			t.Errorf("users are %v, %v", users, err)
		}
	})
}
