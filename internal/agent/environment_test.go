package agent

import (
	"strings"
	"testing"

	"upkeep/internal/webserver"
)

// Values that programs are handed are passwords of databases more often than not.
func TestEnvironmentIsHidden(t *testing.T) {
	said := driftText(webserver.Drift{
		Path: "/srv/a.test.conf",
		Have: []byte("DocumentRoot /srv\n    SetEnv DB_PASSWORD \"open sesame\"\nsetenv OTHER sesame\n"),
		Want: []byte("DocumentRoot /srv\n    SetEnv DB_PASSWORD \"sesame close\"\n\tfastcgi_param KEY 'sesame';\n\tfastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n"),
	})
	if strings.Contains(said, "sesame") {
		t.Errorf("a value is shown: %s", said)
	}
	for _, want := range []string{"-    SetEnv DB_PASSWORD (hidden hash ", "+    SetEnv DB_PASSWORD (hidden hash ", "-setenv OTHER (hidden", "+\tfastcgi_param KEY (hidden", "SCRIPT_FILENAME $document_root"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in %s", want, said)
		}
	}
	if said := driftText(webserver.Drift{Path: "/x", Want: []byte("a\n")}); !strings.Contains(said, "+a") {
		t.Errorf("a file that is not there: %s", said)
	}
}
