package safefs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"upkeep"
)

// What lies below is looked at through no link, and a folder is given back in folders
// of root's alone, itself and nothing in it.
func TestLookAndGiveBack(t *testing.T) {
	dir, home := tree(t)
	mkdir(t, dir, "home/acme", acme, 0o777)
	mkdir(t, dir, "home/acme/htdocs", 0, 0o700)
	for name, target := range map[string]string{"home/acme/link": "../../outside", "home/beta": "../outside"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	found, in, err := home.Look("acme", "htdocs", "none", "link")
	if err != nil || len(in) != 3 || found.UID != acme || found.Mode != 0o777 || in[0].UID != 0 || in[0].Mode != 0o700 || !in[1].Missing || in[2].Dir || in[2].Missing {
		t.Errorf("found %+v, %+v, %v", found, in, err)
	}
	for _, path := range []string{"acme/link/inner", "../outside", "beta/inner"} {
		if found, _, err := home.Look(path); err == nil {
			t.Errorf("%s was looked at: %+v", path, found)
		}
	}
	want := Attributes{UID: 0, GID: 0, Mode: 0o751}
	if err := home.GiveBack("beta", want); err == nil {
		t.Error("what is behind a link was given back")
	}
	tenant, err := home.Open("acme")
	if err != nil {
		t.Fatal(err)
	}
	defer tenant.Close()
	if err := tenant.GiveBack("htdocs", Attributes{UID: acme, GID: acme, Mode: 0o755}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("in a customer's folder: %v", err)
	}
	if err := home.GiveBack("acme", want); err != nil {
		t.Fatal(err)
	}
	if found, in, err = home.Look("acme", "htdocs"); err != nil || found.UID != 0 || found.Mode != 0o751 || in[0].Mode != 0o700 {
		t.Errorf("afterwards %+v, %+v, %v", found, in, err)
	}
}
