package webserver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"upkeep"
)

func TestTestError(t *testing.T) {
	for _, one := range []struct {
		output string
		want   TestError
	}{
		{"AH00526: Syntax error on line 7 of /etc/apache2/hosted.d/50-x.conf:\nInvalid command 'Foo', perhaps misspelled\n", TestError{"50-x.conf", 7, "Invalid command 'Foo', perhaps misspelled"}},
		{"AH00526: Syntax error on line 7 of /x/.50-x.conf.upkeep-tmp:\nNo\n", TestError{"50-x.conf", 7, "No"}},
		{"(2)No such file or directory: AH02291: Cannot access directory '/var/log/x/' for error log of vhost defined at /etc/x/50-y.conf:3\n",
			TestError{"50-y.conf", 3, "(2)No such file or directory: Cannot access directory '' for error log of vhost defined at 50-y.conf:3"}},
		{"nginx: [emerg] unknown directive \"foo\" in /etc/nginx/x.conf:12\nnginx: configuration file /etc/nginx/nginx.conf test failed\n", TestError{"x.conf", 12, "unknown directive \"foo\""}},
		{"2026/11/27 10:41:20 [emerg] 19440#19440: duplicate location \"/p\" in /etc/nginx/50-x.conf:12\n", TestError{"50-x.conf", 12, "duplicate location \"/p\""}},
		{"nginx: [emerg] could not build server_names_hash, you should increase server_names_hash_bucket_size: 64\nnginx: configuration file /etc/nginx/nginx.conf test failed\n",
			TestError{"", 0, "could not build server_names_hash, you should increase server_names_hash_bucket_size: 64"}},
		{"2026/11/27 10:41:20 [emerg] 7#7: could not build server_names_hash\n", TestError{"", 0, "could not build server_names_hash"}},
		{"AH00558: could not\nsomething\x1b[31m else\n", TestError{"", 0, "something?[31m else"}},
	} {
		if got := testError(one.output); *got != one.want {
			t.Errorf("%q: %+v, want %+v", one.output, *got, one.want)
		}
	}
}

func FuzzTestError(f *testing.F) {
	f.Add("AH00526: Syntax error on line 7 of /etc/apache2/hosted.d/50-x.conf:\nInvalid\n")
	f.Fuzz(func(t *testing.T, output string) {
		e := testError(output)
		if len(e.Message) > maxMessage+100 || strings.ContainsFunc(e.Message, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", e.Message)
		}
	})
}

func TestIncludeLine(t *testing.T) {
	config, folder := "/etc/apache2/apache2.conf", "/etc/apache2/hosted.d"
	const before = "Listen 80\nInclude other.d/*.conf"
	with := withApache([]byte(before), folder, config)
	if string(with) != before+"\nIncludeOptional \""+folder+"/*.conf\"\n" {
		t.Errorf("%q", with)
	}
	if again := withApache(with, folder, config); !bytes.Equal(again, with) {
		t.Errorf("added twice: %q", again)
	}
	if without := withoutApache(with, folder, config); string(without) != before+"\n" {
		t.Errorf("%q", without)
	}
	// As people write it.
	for _, line := range []string{"Include hosted.d/*.conf", "  includeoptional " + folder + "/*.conf ", "Include '" + folder + "/*.conf'"} {
		if !includeLine(folder, config).MatchString("x\n" + line + "\ny") {
			t.Errorf("%q is not seen", line)
		}
	}
	for _, line := range []string{"# Include hosted.d/*.conf", "Include hosted.d/*", "Include other/hosted.d/*.conf"} {
		if includeLine(folder, config).MatchString(line) {
			t.Errorf("%q is taken for ours", line)
		}
	}
}

// The line goes to the end of the http block, wherever that ends, and comes out
// without a trace.
func TestNginxIncludeLine(t *testing.T) {
	const folder = "/etc/nginx/hosted.d"
	line := "include " + folder + "/*.conf;"
	for before, after := range map[string]string{
		"events {}\nhttp {\n\tserver {\n\t}\n}\n":                "events {}\nhttp {\n\tserver {\n\t}\n\t" + line + "\n}\n",
		"http { a \"}\"; b '}\\''; # }\n c ${d}; }\nmail {}":     "http { a \"}\"; b '}\\''; # }\n c ${d}; \n\t" + line + "\n}\nmail {}",
		"# http {\nstream { server { http x; } }\nhttp{}":        "# http {\nstream { server { http x; } }\nhttp{\n\t" + line + "\n}",
		"user x; http # here\n{\n  # include other/*.conf;\n}\n": "",
		"events {}\n":        "",
		"http {":             "",
		"http { \"":          "",
		"}}} http { } '\\":   "",
		"stream { http {} }": "",
	} {
		got, err := withNginx([]byte(before), folder)
		if after == "" {
			if err == nil {
				t.Errorf("%q became %q", before, got)
			}
			continue
		}
		if err != nil || string(got) != after {
			t.Errorf("%q became %q, %v", before, got, err)
			continue
		}
		if again, err := withNginx(got, folder); err != nil || !bytes.Equal(again, got) {
			t.Errorf("added twice: %q, %v", again, err)
		}
		if without := string(withoutNginx(got, folder)); strings.Contains(without, folder) || strings.ReplaceAll(without, "\n", "") != strings.ReplaceAll(before, "\n", "") {
			t.Errorf("%q, taken out of %q", without, got)
		}
	}
}

// TestRunNamesItsTrouble: advice on an installation is for who lacks one.
func TestRunNamesItsTrouble(t *testing.T) {
	var hint *upkeep.HintError
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := run(ctx, nil, "/bin/sleep", "60"); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &hint) || !strings.Contains(err.Error(), "was stopped before it ended") {
		t.Errorf("a program that hangs: %v", err)
	}
	if _, _, err := run(t.Context(), nil, "/no/such/program"); !errors.As(err, &hint) {
		t.Errorf("a program that is missing: %v", err)
	}
}

func TestEnvvars(t *testing.T) {
	path := filepath.Join(t.TempDir(), "envvars")
	text := "unset HOME\nexport APACHE_RUN_USER=www-data\nexport APACHE_RUN_DIR=/var/run/apache2$SUFFIX\nexport APACHE_X=$(id)\nexport LANG=C\n# export APACHE_Y=1\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(envvars(path), " "); got != "APACHE_RUN_DIR=/var/run/apache2 APACHE_RUN_USER=www-data" {
		t.Errorf("%q", got)
	}
}
