package zone

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

// A publish is over when named answers it, which is before rndc has ended.
func TestBindHastened(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	lab.publish(t, "192.0.2.1")
	if !lab.pub.hasten(t.Context()) {
		t.Error("named was not told directly")
	}
	if said := lab.Log(); !strings.Contains(said, "received control channel command 'reload example.test'") {
		t.Errorf("named has not heard it:\n%s", said)
	}
	// Every publish has its rndc too, and none is left behind.
	serial := lab.publish(t, "192.0.2.2")
	lab.proven(t, serial, "192.0.2.2")
	errand := lab.pub.errand
	if errand == nil {
		t.Fatal("rndc was not run")
	}
	if serial = lab.publish(t, "192.0.2.3"); errand.over.Err() == nil {
		t.Error("rndc of the publish before still runs")
	}
	lab.proven(t, serial, "192.0.2.3")
}

// Where it is not plain what rndc would do, rndc alone does it.
func TestBindNotHastened(t *testing.T) {
	for name, command := range map[string]func(n *testkit.Named) []string{
		"a script": func(n *testkit.Named) []string {
			err := errors.Join(os.Mkdir(n.Path("bin"), 0o755), testkit.WriteProgram(n.Path("bin/rndc"), []byte("#!/bin/sh\nexec rndc \"$@\"\n")))
			if err != nil {
				t.Fatal(err)
			}
			return append([]string{n.Path("bin/rndc")}, n.RNDC[1:]...)
		},
		"through another command": func(n *testkit.Named) []string { return append([]string{"env"}, n.RNDC...) },
		"an option of another kind": func(n *testkit.Named) []string {
			return append(n.RNDC, "-b", "127.0.0.1")
		},
		"a file that includes another": func(n *testkit.Named) []string {
			text, err := os.ReadFile(n.Path("rndc.conf"))
			if err != nil {
				t.Fatal(err)
			}
			n.Write(t, "empty.conf", "")
			n.Write(t, "more.conf", string(text)+`include "{dir}/empty.conf";`)
			return []string{"rndc", "-c", n.Path("more.conf")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := newBindLab(t, bindSetup{edit: func(n *testkit.Named, z *upkeep.Zone) { z.Publishers[0].RNDC = command(n) }})
			if lab.pub.hasten(t.Context()) {
				t.Error("named was told directly")
			}
			lab.proven(t, lab.publish(t, "192.0.2.1"), "192.0.2.1")
			if lab.pub.errand.over.Err() == nil {
				t.Error("the publish did not wait for the command")
			}
		})
	}
}

func TestChannelAsRNDC(t *testing.T) {
	const (
		one   = "key one { algorithm HMAC-SHA512; secret \"b25l\"; };\n"
		two   = "key \"two\" { secret \"dHdv\"; algorithm hmac-sha256; };\n"
		plain = one + two + "options { default-server 127.0.0.1; default-port 1953; default-key one; };\n"
		named = "server 192.0.2.53 { key two; port 2953; };\n"
	)
	for name, c := range map[string]struct {
		args  []string
		files map[string]string
		want  string // address, algorithm and secret
		fails string
	}{
		"a key file":           {files: map[string]string{"rndc.key": one}, want: "127.0.0.1:953 hmac-sha512 one"},
		"a key file elsewhere": {args: []string{"-k", "{dir}/my.key"}, files: map[string]string{"my.key": two, "rndc.key": one}, want: "127.0.0.1:953 hmac-sha256 two"},
		"rndc.conf":            {files: map[string]string{"rndc.conf": plain, "rndc.key": two}, want: "127.0.0.1:1953 hmac-sha512 one"},
		"-c":                   {args: []string{"-c{dir}/my.conf"}, files: map[string]string{"my.conf": plain, "rndc.conf": two}, want: "127.0.0.1:1953 hmac-sha512 one"},
		"a server":             {args: []string{"-s", "192.0.2.53"}, files: map[string]string{"rndc.conf": plain + named}, want: "192.0.2.53:2953 hmac-sha256 two"},
		"all options": {
			args: []string{"-s", "::1", "-p", "3", "-y", "two"}, files: map[string]string{"rndc.conf": plain + named}, want: "[::1]:3 hmac-sha256 two",
		},
		"localhost":         {files: map[string]string{"rndc.conf": strings.Replace(plain, "127.0.0.1", "localhost", 1)}, want: "127.0.0.1:1953 hmac-sha512 one"},
		"no file":           {fails: "no such file"},
		"a name":            {args: []string{"-s", "ns1.example.test"}, files: map[string]string{"rndc.conf": plain}, fails: "no address"},
		"addresses":         {files: map[string]string{"rndc.conf": plain + "server 127.0.0.1 { addresses { ::1; }; };"}, fails: "statement of another kind"},
		"a source":          {files: map[string]string{"rndc.conf": strings.Replace(plain, "default-port", "default-source-address 127.0.0.1; default-port", 1)}, fails: "statement of another kind"},
		"no default key":    {files: map[string]string{"rndc.conf": one + two + "options { default-server 127.0.0.1; };"}, fails: "not plain which key"},
		"a block of itself": {files: map[string]string{"rndc.conf": "{ x; };"}, fails: "statement"},
		"no braces":         {files: map[string]string{"rndc.conf": "key one;"}, fails: "no address"},
		"a broken secret":   {files: map[string]string{"rndc.key": strings.Replace(one, "b25l", "b25", 1)}, fails: "not base64"},
		"an option left":    {args: []string{"-V"}, fails: "argument -V"},
		"a value left out":  {args: []string{"-s"}, fails: "no value"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			argv := []string{"rndc"}
			for _, arg := range c.args {
				argv = append(argv, strings.ReplaceAll(arg, "{dir}", dir))
			}
			got, err := rndc{argv: argv}.channelFrom([]string{dir})
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("%v, %v; want an error with %q", got, err, c.fails)
				}
				return
			}
			if text := got.Address + " " + got.Algorithm + " " + string(got.Secret); err != nil || text != c.want {
				t.Errorf("%s, %v; want %s", text, err, c.want)
			}
		})
	}
}

// Closing ends what still runs.
func TestBindCloseEndsRNDC(t *testing.T) {
	lab := newBindLab(t, bindSetup{})
	lab.publish(t, "192.0.2.1")
	lab.publish(t, "192.0.2.2")
	errand := lab.pub.errand
	if err := lab.pub.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-errand.over.Done():
	case <-time.After(30 * time.Second):
		t.Error("rndc still runs")
	}
}
