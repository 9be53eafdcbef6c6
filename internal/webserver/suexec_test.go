package webserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// The suexec that is built for one folder, and Debian's that reads a file, tell which
// one that is; of one that is not there nothing is said.
func TestSuexec(t *testing.T) {
	dir := t.TempDir()
	script := func(name, line string) string {
		path := filepath.Join(dir, name)
		if err := replaceFile(path, fmt.Appendf(nil, "#!/bin/sh\necho ' -D %s' >&2\n", line), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bin := filepath.Join(dir, "suexec")
	a := &Applier{o: Options{Server: Apache{Program: script("apache2", `SUEXEC_BIN="`+bin+`"`)}, Layout: vhost.Layout{Home: "/home"}}}
	warns := func(parts ...string) {
		t.Helper()
		err := a.CheckSuexec(t.Context())
		if err == nil != (len(parts) == 0) {
			t.Fatalf("it says %v, want %q", err, parts)
		}
		for _, part := range parts {
			if text := withHint(err).Error(); !strings.Contains(text, part) {
				t.Errorf("it says %q, want %q", text, part)
			}
		}
	}
	warns()
	script("suexec", `AP_DOC_ROOT="/var/www"`)
	warns("programs below /var/www alone", "sites are in /home", "apache2-suexec-custom")
	script("suexec", `AP_DOC_ROOT="/home/"`)
	warns()
	script("suexec", "SUEXEC_CONFIG_DIR="+dir+"/")
	warns() // without a file of settings nothing is known
	for text, parts := range map[string][]string{"/home\nx\n": nil, "/homes\nx\n": {"below /homes alone", "first line of " + dir + "/www-data"}, "/\n": nil} {
		if err := os.WriteFile(filepath.Join(dir, "www-data"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		warns(parts...)
	}
	a.o.Layout.OneUser = true
	warns()
}

// The real one of Debian tells what its file says.
func TestSuexecOfDebian(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.Need(t, "apache2")
	_, err := os.Stat("/usr/lib/apache2/suexec-custom")
	testkit.NeedThat(t, "suexec for folders other than /var/www (try: make deps)", err)
	text, err := os.ReadFile("/etc/apache2/suexec/www-data")
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	a := &Applier{o: Options{Server: Apache{Program: FindApache()}, Layout: vhost.Layout{Home: "/elsewhere"}}}
	var hint *upkeep.HintError
	if err := a.CheckSuexec(t.Context()); !errors.As(err, &hint) || !strings.Contains(err.Error(), "below "+filepath.Clean(first)+" alone") || !strings.Contains(hint.Hint, "/etc/apache2/suexec/www-data") {
		t.Errorf("it says %v", err)
	}
}
