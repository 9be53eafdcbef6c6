package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/netlab"
)

// machine is a server of its own for all that an agent can see: a network
// namespace with an address, and a mount namespace with its own /etc, /var, /run
// and /home, so that the paths of the example policy, and /etc/passwd, are this
// server's. It has a real Apache and the agent, which can be killed and started
// again.
type machine struct {
	*netlab.Host
	dir string // has etc, var, run and home of the server
	// hold is a process that keeps the mount namespace.
	hold *testkit.Process

	mu     sync.Mutex
	apache *testkit.Process
	agent  *testkit.Process
}

// ownFolders are the folders of the system that each machine has for itself.
var ownFolders = []string{"etc", "var", "run", "home"}

// frontUser is the user that the unprivileged half of an agent runs as.
const frontUser = "upkeep-agent"

// newMachine makes a machine at a host of the network. Mounts are further folders
// by their place on the machine, which stand for NFS.
func newMachine(t testing.TB, host *netlab.Host, dir string, mounts map[string]string) *machine {
	t.Helper()
	m := &machine{Host: host, dir: dir}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir, 0o755))
	output, err := exec.Command("cp", "-a", "/etc", m.path("etc")).CombinedOutput()
	must(joined(err, output))
	for _, folder := range []string{"var/lib", "var/log/apache2", "run/apache2", "home", "etc/upkeep", "etc/apache2/hosted.d", "etc/apache2/suexec"} {
		must(os.MkdirAll(m.path(folder), 0o755))
	}
	must(m.addUser(frontUser, 990))
	must(os.WriteFile(m.path("etc/apache2/apache2.conf"), []byte(apacheConf()), 0o644))
	must(os.WriteFile(m.path("etc/apache2/suexec/www-data"), []byte("/home\npublic_html/cgi-bin\n"), 0o644))
	must(os.WriteFile(m.path("etc/upkeep/agent-policy.yaml"), []byte(machinePolicy), 0o644))
	script := "set -e\n"
	for _, folder := range ownFolders {
		script += fmt.Sprintf("mount --bind '%s' /%s\n", m.path(folder), folder)
	}
	for place, from := range mounts {
		script += fmt.Sprintf("mkdir -p '%s'\nmount --bind '%s' '%[1]s'\n", place, from)
	}
	m.hold = testkit.Start(t, host.Argv("unshare", "--mount", "--propagation=private", "--", "sh", "-c", script+"echo mounted\nexec sleep infinity")...)
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		if !m.hold.Running() {
			t.Fatalf("making the machine %s: %s", host.Name, m.hold.Log())
		}
		return strings.Contains(m.hold.Log(), "mounted"), m.hold.Log()
	})
	t.Cleanup(func() {
		m.killAgent()
		m.killApache()
		if t.Failed() {
			t.Logf("%s: the end of its agent's log:\n%s\nand of Apache's:\n%s", m.Name, tail(m.agentLog(), 6000), tail(m.read("var/log/apache2/error.log"), 2000))
		}
	})
	return m
}

func joined(err error, output []byte) error {
	if err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	return nil
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) read(name string) string {
	text, err := os.ReadFile(m.path(name))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// addUser adds a system user by hand.
func (m *machine) addUser(name string, id int) error {
	for file, line := range map[string]string{
		"etc/passwd": fmt.Sprintf("%s:x:%d:%[2]d::/nonexistent:/usr/sbin/nologin\n", name, id),
		"etc/group":  fmt.Sprintf("%s:x:%d:\n", name, id),
	} {
		f, err := os.OpenFile(m.path(file), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(line)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Argv is the command line that runs argv on the machine.
func (m *machine) Argv(argv ...string) []string {
	return m.Host.Argv(append([]string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", m.hold.PID()), "--"}, argv...)...)
}

// run runs a program on the machine to its end.
func (m *machine) run(argv ...string) (string, error) {
	argv = m.Argv(argv...)
	output, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(output), joined(err, output)
}

// apacheConf is the main configuration of an Apache as Debian has it, in short. The
// join adds the line that includes upkeep's folder.
func apacheConf() string {
	text := &strings.Builder{}
	for _, name := range []string{
		"mpm_event", "authn_core", "authn_file", "authz_core", "authz_host", "authz_user", "auth_basic",
		"alias", "dir", "mime", "env", "headers", "rewrite", "cgid", "proxy", "proxy_fcgi", "setenvif", "reqtimeout", "suexec",
	} {
		fmt.Fprintf(text, "LoadModule %s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", name)
	}
	text.WriteString(`ServerRoot /etc/apache2
DefaultRuntimeDir /run/apache2
PidFile /run/apache2/apache2.pid
ScriptSock /run/apache2/cgisock
Listen 80
User www-data
Group www-data
ServerName machine.invalid
ErrorLog /var/log/apache2/error.log
LogLevel warn
TypesConfig /dev/null
AddType text/html .html
StartServers 1
ServerLimit 8
ThreadsPerChild 16
MinSpareThreads 16
MaxSpareThreads 48
MaxRequestWorkers 128
<Directory />
	AllowOverride None
	Require all denied
</Directory>
`)
	return text.String()
}

// machinePolicy is the example policy with a larger budget and no name server.
const machinePolicy = `kinds: [mkdir, user.ensure, user.remove, site.files, site.apply, site.remove, site.sync, server.facts, server.purge]
roots: {home: {path: /home, mounts: true}}
uids: {min: 20000, max: 59999}
web: {server: apache, include: /etc/apache2/hosted.d}
delete_budget: 100000
`

// startApache starts Apache, as a service manager does: with a pid file that an
// earlier one may have left. It may run already.
func (m *machine) startApache() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.apache != nil && m.apache.Running() {
		return nil
	}
	if err := os.Remove(m.path("run/apache2/apache2.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	process, err := testkit.Command{Argv: m.Argv("/usr/sbin/apache2", "-f", "/etc/apache2/apache2.conf", "-D", "FOREGROUND")}.Launch()
	if err != nil {
		return err
	}
	m.apache = process
	for end := time.Now().Add(30 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if _, err := os.Stat(m.path("run/apache2/apache2.pid")); err == nil {
			return nil
		}
		if time.Now().After(end) || !process.Running() {
			return fmt.Errorf("Apache on %s does not start: %s%s", m.Name, process.Log(), tail(m.read("var/log/apache2/error.log"), 1000))
		}
	}
}

func (m *machine) killApache() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.apache != nil {
		m.apache.Kill()
	}
}

// startAgent starts the agent of a machine that has joined.
func (m *machine) startAgent(t testing.TB) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	process, err := testkit.Command{Argv: m.Argv(upkeepProgram(t), "agent", "--config", "/etc/upkeep/agent.yaml")}.Launch()
	m.agent = process
	return err
}

// killAgent kills root's side of the agent, and all that it has started.
func (m *machine) killAgent() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agent != nil {
		m.agent.Kill()
	}
}

func (m *machine) agentLog() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agent == nil {
		return ""
	}
	return m.agent.Log()
}

var frontRuns = regexp.MustCompile(`the front runs" pid=(\d+)`)

// killFront kills the unprivileged half of the agent, if it runs.
func (m *machine) killFront() {
	found := frontRuns.FindAllStringSubmatch(m.agentLog(), -1)
	if len(found) == 0 {
		return
	}
	pid, err := strconv.Atoi(found[len(found)-1][1])
	if err == nil && isFront(pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
	}
}

// isFront makes sure that a process is a front: numbers are given out again.
func isFront(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(text), "\x00agent\x00front\x00")
}
