package main

import (
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
)

// Every line by which two files differ is seen, whatever it looks like; only what says
// which version a file is may differ.
func TestEditedLines(t *testing.T) {
	const seal, token = "# made by upkeep, and made again with each change; generation ", "\tRedirect 204 /.well-known/upkeep/"
	const one, two = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	want := seal + "7 sha256 00\n<VirtualHost *:80>\n" + token + one + "\n</VirtualHost>\n"
	for disk, differs := range map[string]string{
		seal + "8 sha256 11\n<VirtualHost *:80>\n" + token + two + "\n</VirtualHost>\n":             "",
		seal + "8 sha256 11\n-- by hand\n<VirtualHost *:80>\n" + token + two + "\n</VirtualHost>\n": "-- by hand",
		seal + "8 sha256 11\n++ by hand\n<VirtualHost *:80>\n" + token + two + "\n</VirtualHost>\n": "++ by hand",
		seal + "8 sha256 11\n@@ by hand\n<VirtualHost *:80>\n" + token + two + "\n</VirtualHost>\n": "@@ by hand",
		seal + "7 sha256 00\n<VirtualHost *:80>\n" + token + one + "x\n</VirtualHost>\n":            "Redirect 204 /.well-known/upkeep/" + one + "x",
		"": "its file is not there: refused",
	} {
		text := string(diff.Diff("file (on disk)", []byte(disk), "file (declared)", []byte(want)))
		got, how, err := differing(text)
		if err != nil {
			got = err.Error()
		}
		if got != differs || how != written {
			t.Errorf("of %q it says %q, how %v, want %q", text, got, how, differs)
		}
	}
	for disk, want := range map[string]int{"one\nthree\n": missing, "\ttwo\none\nthree\n": elsewhere, "one\ntwo\nthree\n": elsewhere} {
		if line, how, err := differing(string(diff.Diff("a", []byte(disk), "b", []byte("one\n\ttwo\nthree\n")))); line != "two" || how != want || err != nil {
			t.Errorf("of %q it says %q, how %v, %v, want %v", disk, line, how, err, want)
		}
	}
	gone, came, err := editedLines(string(diff.Diff("a", []byte("one\n--- two\n"), "b", []byte("one\n+++ three\n"))))
	if err != nil || !slices.Equal(gone, []string{"+++ three"}) || !slices.Equal(came, []string{"--- two"}) {
		t.Errorf("%q are gone and %q came, %v", gone, came, err)
	}
}

// What is not adopted is named as what it is.
func TestNotAdopted(t *testing.T) {
	d := adoption{sites: map[string]string{"50-a.test.conf": "a.test"}, texts: map[string]string{"a.test": "a.test"}}
	for _, c := range []struct{ file, site, want string }{
		{"/etc/nginx/hosted.d/50-a.test.conf", "a.test", "is not an Apache file; only those can be adopted"},
		{"/var/lib/upkeep/pages/a.test/404.txt", "", "has a text of error_pages or of another field of site/a.test, which is not read back from there"},
		{"/etc/apache2/hosted.d/000-default.conf", "", "is not the Apache file of a site"},
	} {
		if got := d.unlike(c.file, c.site); got != c.want {
			t.Errorf("%s %s, want %s", c.file, got, c.want)
		}
	}
}
