package webserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"upkeep/internal/testkit"
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
	config := filepath.Join(t.TempDir(), "apache2.conf")
	if err := os.WriteFile(config, []byte("Listen 80\nInclude other.d/*.conf"), 0o640); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(filepath.Dir(config), "hosted.d")
	for _, want := range []bool{true, false} {
		if added, err := AddInclude(config, folder); err != nil || added != want {
			t.Errorf("added %t, %v", added, err)
		}
	}
	text, err := os.ReadFile(config)
	if err != nil || string(text) != "Listen 80\nInclude other.d/*.conf\nIncludeOptional \""+folder+"/*.conf\"\n" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode is %v", info.Mode())
	}
	for _, want := range []bool{true, false} {
		if removed, err := RemoveInclude(config, folder); err != nil || removed != want {
			t.Errorf("removed %t, %v", removed, err)
		}
	}
	if text, err := os.ReadFile(config); err != nil || string(text) != "Listen 80\nInclude other.d/*.conf\n" {
		t.Errorf("%q, %v", text, err)
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

func TestMainConfig(t *testing.T) {
	testkit.Need(t, "apache2", "nginx")
	for _, name := range []string{"apache2", "nginx"} {
		program, err := testkit.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if config, err := MainConfig(t.Context(), program); err != nil || !filepath.IsAbs(config) {
			t.Errorf("%s: %q, %v", name, config, err)
		}
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
