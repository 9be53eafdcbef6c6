package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"upkeep/internal/testkit"
)

// apache is a private Apache that includes hosted.d.
type apache struct {
	dir, config, hosted string
	port                int
	process             *testkit.Process
}

const apacheConfig = `ServerRoot %[1]s
PidFile %[1]s/apache.pid
Listen 127.0.0.1:%[2]d
ServerName bench.invalid
User www-data
Group www-data
%[3]sErrorLog %[1]s/error.log
LogLevel notice
LogFormat "%%h %%l %%u %%t \"%%r\" %%>s %%b" common
TransferLog /dev/null
StartServers 2
<Directory />
	Require all granted
	AllowOverride None
</Directory>
IncludeOptional %[1]s/hosted.d/*.conf
`

const defaultHost = `<VirtualHost *:%d>
	ServerName default.invalid
	RedirectMatch 421 ".*"
</VirtualHost>
`

func newApache(dir string) (*apache, error) {
	a := &apache{dir: dir, config: filepath.Join(dir, "apache.conf"), hosted: filepath.Join(dir, "hosted.d"), port: freePort()}
	modules := ""
	for _, name := range []string{"mpm_event", "authz_core", "authz_host", "access_compat", "alias", "dir", "mime", "rewrite"} {
		modules += fmt.Sprintf("LoadModule %s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", name)
	}
	if err := os.MkdirAll(a.hosted, 0o755); err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, apacheConfig, dir, a.port, strings.ReplaceAll(modules, "mod_mod_", "mod_")+"TypesConfig /dev/null\n")
	if err := os.WriteFile(a.config, text, 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(a.hosted, "000-default.conf"), fmt.Appendf(nil, defaultHost, a.port), 0o644); err != nil {
		return nil, err
	}
	return a, a.start()
}

func (a *apache) start() (err error) {
	a.process, err = testkit.Command{Argv: []string{"apache2", "-f", a.config, "-D", "FOREGROUND"}}.Launch()
	if err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", a.port))
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) || !a.process.Running() {
			return fmt.Errorf("apache2 does not start: %s", a.process.Log())
		}
	}
}

func (a *apache) url() string { return fmt.Sprintf("http://127.0.0.1:%d/", a.port) }

func (a *apache) reloads() int {
	text, _ := os.ReadFile(filepath.Join(a.dir, "error.log"))
	return bytes.Count(text, []byte("resuming normal operations"))
}

func (a *apache) stop() { a.process.Kill() }

// graceful is the command that reads the configuration anew.
func (a *apache) graceful() string { return "apache2 -f " + a.config + " -k graceful" }

func freePort() int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// script runs commands of a shell, as an administrator would have them in a file.
func script(text string, env ...string) (*exec.Cmd, error) {
	cmd := exec.Command("/bin/sh", "-c", text)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd, cmd.Start()
}
