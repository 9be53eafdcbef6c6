package safefs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep/internal/testkit"
)

// TestDiscard moves a folder and a link into the trash as they are: nothing that is in
// them is opened or followed.
func TestDiscard(t *testing.T) {
	dir, home := tree(t)
	before := snapshot(t, filepath.Join(dir, "outside"))
	trash, _, err := home.Ensure(".trash", Attributes{Mode: 0o700})
	if err != nil {
		t.Fatal(err)
	}
	defer trash.Close()
	mkdir(t, dir, "home/site", acme, 0o755)
	for _, link := range []string{"home/link", "home/site/link"} {
		if err := os.Symlink(filepath.Join(dir, "outside"), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"site", "link"} {
		found, err := home.Discard(name, trash, name)
		if err != nil || !found {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		if found, err := home.Discard(name, trash, name); err != nil || found {
			t.Fatalf("%s again: %v, %v", name, found, err)
		}
	}
	names, err := trash.Names(-1)
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"link", "site"}) {
		t.Errorf("in the trash: %v, %v", names, err)
	}
	if after := snapshot(t, filepath.Join(dir, "outside")); after != before {
		t.Errorf("the outside changed:\n%s\nwas\n%s", after, before)
	}
}

// victim does everything that changes anything, over and over, until it is
// killed.
func victim(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	home, err := OpenRoot(filepath.Join(dir, "home"), false, customers)
	fail(err)
	trash, _, err := home.Ensure(".trash", Attributes{Mode: 0o700})
	fail(err)
	for i := 0; ; i++ {
		_, err := home.WriteFile("file", []byte(strings.Repeat(fmt.Sprintln(i), 5000)), Attributes{Mode: 0o640})
		fail(err)
		name := fmt.Sprint("site", i%3)
		site, _, err := home.Ensure(name, Attributes{UID: acme, GID: acme, Mode: 0o750})
		fail(err)
		pages, _, err := site.Ensure("htdocs", Attributes{UID: acme, GID: acme, Mode: 0o755})
		fail(err)
		fail(pages.Link("log", "/var/log/x"))
		fail(errors.Join(site.Close(), pages.Close()))
		_, err = home.Discard(name, trash, fmt.Sprintf("%d-%x", i, rand.Uint64()))
		fail(err)
	}
}

// TestKill kills a process at work at random instants, and holds that what it
// leaves is the old or the new state, and that the same work done again ends as
// if nothing had happened.
func TestKill(t *testing.T) {
	dir, home := tree(t)
	program := binary(t)
	for range 30 {
		p := testkit.Command{Argv: []string{program, dir}, Env: []string{"SAFEFS_TEST_ROLE=victim"}, Dir: "/"}.Start(t)
		select {
		case <-p.Done():
			t.Fatalf("it ended by itself: %s", p.Log())
		case <-time.After(time.Duration(20+rand.IntN(60)) * time.Millisecond):
		}
		p.Kill()
		for i := range 3 {
			path := filepath.Join(dir, "home", fmt.Sprint("site", i))
			if _, err := os.Lstat(path); err == nil {
				wantLike(t, path, acme, 0o750) // never one without owner or mode
			}
		}
		text, err := os.ReadFile(filepath.Join(dir, "home/file"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if err != nil || string(text) != strings.Repeat(first+"\n", 5000) {
			t.Fatalf("half a file: %d bytes, %v", len(text), err)
		}
	}
	if _, err := home.WriteFile("file", []byte("end"), Attributes{Mode: 0o640}); err != nil {
		t.Error(err)
	}
	for i := range 3 {
		sub, _, err := home.Ensure(fmt.Sprint("site", i), Attributes{UID: acme, GID: acme, Mode: 0o750})
		if err != nil {
			t.Fatal(err)
		}
		_ = sub.Close()
	}
	names, err := home.Names(-1)
	if err != nil || len(names) != 5 {
		t.Errorf("left: %v, %v", names, err)
	}
}
