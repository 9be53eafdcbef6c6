package webserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"upkeep"
	"upkeep/internal/vhost"
)

// PrivateApache is an Apache of upkeep's own: a process below this one, with its
// configuration, logs and sites in one folder, on a high port of the loopback
// address. It needs no root and touches nothing of the system's.
type PrivateApache struct {
	Apache
	// Address is where it listens.
	Address string

	dir  string
	cmd  *exec.Cmd
	done chan struct{}
}

// FindApache returns the path of an installed Apache; "" when there is none.
func FindApache() string {
	for _, path := range []string{"/usr/sbin/apache2", "/usr/sbin/httpd", "/usr/local/sbin/httpd", "/usr/local/apache2/bin/httpd"} {
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// PrivateLayout is where a private Apache in dir has what. Homes are below it,
// too.
func PrivateLayout(dir, address string) vhost.Layout {
	at := func(name string) string { return filepath.Join(dir, name) }
	return vhost.Layout{
		Include: at("sites"), Pages: at("pages"), Auth: at("auth"), Logs: at("logs"), Sockets: at("run"), Home: at("home"),
		Listen: address, Group: webGroup(), OneUser: true,
	}
}

// webGroup is the group that the server runs as: of www-data when root starts it,
// of nobody else's concern otherwise.
func webGroup() int {
	if os.Geteuid() != 0 {
		return -1
	}
	if g, err := user.LookupGroup("www-data"); err == nil {
		var id int
		if _, err := fmt.Sscan(g.Gid, &id); err == nil {
			return id
		}
	}
	return -1
}

// privateModules are those that sites may need. Which of them are files and which
// are built into the program differs between systems.
var privateModules = []string{
	"mpm_event", "unixd", "log_config", "authn_core", "authn_file", "authz_core", "authz_host", "authz_user", "auth_basic",
	"alias", "dir", "mime", "env", "headers", "rewrite", "cgid", "proxy", "proxy_fcgi", "setenvif", "reqtimeout",
}

// Private prepares an Apache in dir that is to listen on the address, such as
// "127.0.0.1:8080", and starts it. One that an earlier upkeep left running there
// is ended first.
func Private(ctx context.Context, dir, address string) (*PrivateApache, error) {
	program := FindApache()
	if program == "" {
		return nil, upkeep.WithHint(errors.New("no Apache is installed"), "on Debian: apt-get install apache2")
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("the address of the private Apache: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	layout := PrivateLayout(dir, address)
	p := &PrivateApache{Address: address, dir: dir, Apache: Apache{
		Program: program, Config: filepath.Join(dir, "apache.conf"), Include: layout.Include,
		PIDFile: filepath.Join(dir, "run", "apache.pid"), Scratch: filepath.Join(dir, "scratch"),
	}}
	for _, folder := range []string{dir, layout.Include, layout.Logs, layout.Sockets, layout.Home, p.Scratch} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("making the folder of the private Apache: %w", err)
		}
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	text, err := p.configuration(ctx)
	if err != nil {
		return nil, err
	}
	if err := replaceFile(p.Config, text, 0o600); err != nil {
		return nil, fmt.Errorf("writing the configuration of the private Apache: %w", err)
	}
	return p, p.Start(ctx)
}

func (p *PrivateApache) configuration(ctx context.Context) ([]byte, error) {
	builtIn, _, err := run(ctx, nil, p.Program, "-l")
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	quote := func(path string) string { return `"` + filepath.Join(p.dir, path) + `"` }
	fmt.Fprintf(&b, "# The private Apache of upkeep; made anew at each start.\nServerRoot \"%s\"\n", p.dir)
	for _, name := range privateModules {
		if file := moduleFile(p.Program, name); file != "" && !strings.Contains(builtIn, "mod_"+name+".c") && !strings.Contains(builtIn, name+".c") {
			fmt.Fprintf(&b, "LoadModule %s_module \"%s\"\n", name, file)
		}
	}
	if os.Geteuid() == 0 {
		b.WriteString("User www-data\nGroup www-data\n")
	}
	fmt.Fprintf(&b, "Listen %s\nServerName localhost\nServerTokens Prod\nTraceEnable Off\nPidFile %s\nDefaultRuntimeDir %s\n", p.Address, quote("run/apache.pid"), quote("run"))
	fmt.Fprintf(&b, "<IfModule cgid_module>\nScriptSock %s\n</IfModule>\n", quote("run/cgi.sock"))
	fmt.Fprintf(&b, "ErrorLog %s\nLogLevel warn\n", quote("logs/apache.log"))
	if _, err := os.Stat("/etc/mime.types"); err == nil {
		b.WriteString("TypesConfig /etc/mime.types\n")
	} else {
		b.WriteString("TypesConfig /dev/null\nAddType text/html .html\nAddType text/css .css\nAddType text/javascript .js\nAddType image/png .png\nAddType image/svg+xml .svg\n")
	}
	b.WriteString("ThreadsPerChild 16\nStartServers 1\nMinSpareThreads 16\nMaxSpareThreads 48\nMaxRequestWorkers 64\nServerLimit 8\n")
	b.WriteString("<Directory />\nAllowOverride None\nRequire all denied\n</Directory>\n")
	b.WriteString(IncludeLine(p.Include) + "\n")
	return []byte(b.String()), nil
}

func moduleFile(program, name string) string {
	for _, dir := range []string{"/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules", filepath.Join(filepath.Dir(program), "../modules")} {
		path := filepath.Join(dir, "mod_"+name+".so")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// Start starts the server if it does not run, and waits until it listens.
func (p *PrivateApache) Start(ctx context.Context) error {
	if _, err := p.Process(); err == nil {
		return nil
	}
	if err := os.Remove(p.PIDFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(filepath.Join(p.dir, "logs", "start.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.Program, "-f", p.Config, "-D", "FOREGROUND")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", []string{"PATH=/usr/bin:/bin", "LANG=C"}, log, log
	// A terminal's interrupt is for upkeep, which then ends the server in order.
	// Where upkeep itself is killed, the kernel ends it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	done, err := startBound(cmd)
	if err := errors.Join(err, log.Close()); err != nil {
		return fmt.Errorf("starting the private Apache: %w", err)
	}
	p.cmd, p.done = cmd, done
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if _, err := p.Process(); err == nil && listens(p.Address) {
			return nil
		}
		select {
		case <-done:
			text, _ := os.ReadFile(filepath.Join(p.dir, "logs", "start.log")) // without it, the sentence is shorter
			return upkeep.WithHint(fmt.Errorf("the private Apache ended at once: %s", sanitise(string(text))), "see "+filepath.Join(p.dir, "logs", "apache.log"))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// startBound starts a program from a thread that lives as long as the program:
// the signal at a parent's death comes when the thread that forked ends
// (golang.org/issue/27505). The channel is closed when the program has ended.
func startBound(cmd *exec.Cmd) (done chan struct{}, err error) {
	done = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // why it ended is in its log
			close(done)
		}
	}()
	return done, <-started
}

func listens(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// Close ends the server.
func (p *PrivateApache) Close() error {
	if p.done == nil {
		return p.end()
	}
	// The child is known without its pid file, which may not be there yet, or be
	// another's by now.
	defer func() { p.done = nil }()
	term := func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	return terminate(p.cmd.Process.Pid, term, p.done)
}

// end ends the server of this folder that an earlier upkeep started.
func (p *PrivateApache) end() error {
	process, err := p.Process()
	if err != nil {
		return nil // it does not run
	}
	if !serves(process.PID, p.Config) {
		return nil // a stale file; another server has that number now
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for ctx.Err() == nil && isProgram(process.PID, p.Program) == nil {
			<-time.After(10 * time.Millisecond)
		}
	}()
	return terminate(process.PID, func() error { return signal(p.PIDFile, p.Program, syscall.SIGTERM) }, gone)
}

// How long a private server may take to end, and how often it is asked to.
const (
	endPatience = 10 * time.Second
	endAgain    = 500 * time.Millisecond
)

// terminate asks a server to end until it has, and kills it when it does not. Once
// is not enough: Apache forgets a SIGTERM that comes while it restarts.
func terminate(pid int, ask func() error, ended <-chan struct{}) error {
	deadline := time.After(endPatience)
	for {
		if err := ask(); err != nil && !errors.Is(err, errNotRunning) && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("ending the private Apache: %w", err)
		}
		select {
		case <-ended:
			return killGroup(pid)
		case <-time.After(endAgain):
			continue
		case <-deadline:
		}
		if err := killGroup(pid); err != nil {
			return err
		}
		<-ended
		return nil
	}
}

// killGroup kills what is left of a server, which leads a process group of its
// own with all its children: one that was being started while the server ended is
// forgotten by it, and goes on listening.
func killGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing the private Apache (process %d), which does not end: %w", pid, err)
	}
	return nil
}

// serves reports whether a process was started with the configuration.
func serves(pid int, config string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(text), "\x00"+config+"\x00")
}
