package webserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// To an Apache without the module that runs them, programs are pages like any other. A
// site with programs fails there, and one that was served shows none of them when the
// module is taken out later.
func TestProgramsWithoutTheirModule(t *testing.T) {
	w, start := newPHPWorld(t)
	w.options.Layout.OneUser = true
	start()
	w.open()
	program := func(in vhost.Input, path, text string) {
		t.Helper()
		path = filepath.Join(w.options.Layout.Home, testAccount, in.Site.Name, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		w.write(path, text, 0o755)
	}
	cgi, php := w.input("cgi.test", 1), w.input("php.test", 1)
	cgi.Site.CGI, php.Site.PHP = true, &upkeep.PHP{}
	program(cgi, "cgi-bin/x", "#!/bin/sh\n# secret\nprintf 'Content-Type: text/plain\\n\\nruns'\n")
	program(php, "htdocs/x.php", "<?php /* secret */ echo 'ru'.'ns';")
	program(cgi, "cgi-bin/x.php", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nruns'\n")
	programs := map[string]string{"cgi.test": "/cgi-bin/x", "php.test": "/x.php"}
	// Who is turned away is not shown another program either.
	cgi.Site.ErrorPages, php.Site.ErrorPages = map[string]string{"403": "/cgi-bin/x"}, map[string]string{"403": "/x.php"}
	w.mustApply(cgi)
	w.mustApply(php)
	for name, path := range programs {
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status, body, _ := w.get(name, path)
			return status == 200 && body == "runs", body
		})
	}
	w.expect("GET", "cgi.test", "/cgi-bin/x.php", 200, "runs")
	text, err := os.ReadFile(w.apache.Config)
	if err != nil {
		t.Fatal(err)
	}
	w.write(w.apache.Config, regexp.MustCompile(`LoadModule (cgid|proxy_fcgi|headers)_module .*\n`).ReplaceAllString(string(text), ""), 0o600)
	if err := errors.Join(w.apache.Close(), w.apache.Start(t.Context())); err != nil {
		t.Fatal(err)
	}
	for name, path := range programs {
		testkit.Eventually(t, 20*time.Second, func() (bool, string) {
			status, body, _ := w.get(name, path)
			if strings.Contains(body, "secret") {
				t.Fatalf("%s shows its program:\n%s", name, body)
			}
			return status == 403, fmt.Sprint(name, status, strings.ReplaceAll(body, "\n", " "))
		})
		w.answers(name)
	}
	refused := func(in vhost.Input, field, words string) {
		t.Helper()
		in.Generation = 2
		if r := w.apply(in); r.State != upkeep.JobFailed || r.Field != field || !strings.Contains(r.Err.Error(), words) {
			t.Errorf("%s: %+v, want %q", field, r, words)
		}
	}
	refused(cgi, "cgi", "no module runs programs there; enable one, for example: a2enmod cgid")
	refused(php, "php", "no module speaks with php-fpm there; enable it, for example: a2enmod proxy_fcgi")
	// What is left without a module is said with the one that has the directive.
	php.Site.PHP, php.Site.Headers = nil, map[string]string{"X-A": "b"}
	refused(php, "headers", "(enable it: a2enmod headers)")
	if got := testError("AH00526: Syntax error on line 3 of /x.conf:\nInvalid command 'SuexecUserGroup', perhaps misspelled or defined by a module not included in the server configuration\n").Error(); !strings.HasSuffix(got, "(enable it: a2enmod suexec)") {
		t.Error(got)
	}
}
