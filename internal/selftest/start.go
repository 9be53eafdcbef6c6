package selftest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/webserver"
)

// Options are what is started for the attacks.
type Options struct {
	// Program is how upkeep is started, its path first.
	Program []string
	// Dir is an empty folder, root's where this is root, that everything is in.
	Dir string
	// Database is the URL of a PostgreSQL for control; SQLite without it.
	Database string
}

// System is upkeep with all that belongs to it, running.
type System struct {
	World
	// Client speaks to control.
	Client *client.Client
	// Data is control's data folder.
	Data string

	o         Options
	processes []*process
	apache    *webserver.PrivateApache
	serve     func(context.Context) error // starts control, again where it was stopped
	agents    string
}

// webServer is the name of the server that is attacked.
const webServer = "web1"

// Start starts control, an agent of two processes and an Apache, as they run on
// servers. It must run as root in namespaces of its own; see [Isolated].
func Start(ctx context.Context, o Options) (_ *System, err error) {
	s := &System{o: o, Data: filepath.Join(o.Dir, "control")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.furnish(ctx); err != nil {
		return nil, err
	}
	http := freeAddress()
	s.agents = freeAddress()
	s.serve = func(ctx context.Context) error {
		argv := []string{"serve", "--data", s.Data, "--http", http, "--agents", s.agents, "--dns", "", "--beat", "", "--log", "debug"}
		if o.Database != "" {
			argv = append(argv, "--db", o.Database)
		}
		return s.launch(ctx, "control", &syscall.Credential{Uid: controlID, Gid: controlID}, argv...)
	}
	if err := s.serve(ctx); err != nil {
		return nil, err
	}
	s.Client = client.OverSocket(s.Data)
	if err := s.await(ctx, func() error { _, err := s.Client.Servers(ctx); return err }); err != nil {
		return nil, err
	}
	s.world(http)
	return s, s.join(ctx)
}

// furnish makes folders, users and the Apache.
func (s *System) furnish(ctx context.Context) (err error) {
	if err := addUsers("/etc"); err != nil {
		return err
	}
	for _, dir := range []string{"home", "data", "apache", "outside", "agent", "log", "control"} {
		if err := os.Mkdir(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(s.o.Dir, 0o755), os.Chmod(s.path("agent"), 0o700), os.Chmod(s.path("log"), 0o700),
		os.Chmod(s.Data, 0o700), os.Chown(s.Data, controlID, controlID)); err != nil {
		return err
	}
	s.Address = freeAddress()
	if s.apache, err = webserver.Private(ctx, s.path("apache"), s.Address); err != nil {
		return err
	}
	// What was there before upkeep: a virtual host that somebody made by hand, and
	// a definition that only root is to know.
	config, err := os.OpenFile(s.apache.Config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(config, "Define EVIL_SECRET /usr/bin:/bin\n<VirtualHost %s>\nServerName %s\nRedirect 204 /\n</VirtualHost>\n", s.Address, foreignSite)
	if err := errors.Join(err, config.Close()); err != nil {
		return err
	}
	return os.WriteFile(s.path("policy.yaml"), fmt.Appendf(nil, policyText, s.o.Dir, s.Address, s.apache.Program, frontUser), 0o600)
}

// deleteBudget is how many removals an hour the policy allows: as few as a test
// needs to come to its end.
const deleteBudget = 6

const policyText = `
kinds: [mkdir, user.ensure, user.remove, site.files, site.apply, site.remove, site.sync, server.facts]
roots: {home: %[1]s/home, data: %[1]s/data}
uids: {min: 20000, max: 29999}
front: %[4]s
delete_budget: 6
web:
  server: apache
  include: %[1]s/apache/sites
  data: %[1]s/apache
  logs: %[1]s/apache/logs
  listen: "%[2]s"
  url: http://%[2]s
  program: %[3]s
  config: %[1]s/apache/apache.conf
  pid_file: %[1]s/apache/run/apache.pid
`

// world says what there is to attack.
func (s *System) world(http string) {
	layout := webserver.PrivateLayout(s.path("apache"), s.Address)
	layout.Home = s.path("home")
	panel := &control{client: s.Client, server: webServer}
	s.World = World{
		Panel: panel, Server: webServer, Address: s.Address, Layout: layout, Outside: s.path("outside"), Users: true, Foreign: true,
		Watched: []string{"/etc", s.path("data"), s.path("policy.yaml"), s.apache.Config},
		Secrets: []string{
			filepath.Join(s.Data, "upkeep.db"), filepath.Join(s.Data, "token"), filepath.Join(s.Data, "link", "signing.pem"),
			s.path("agent/identity/identity.json"), s.path("policy.yaml"), "/etc/shadow",
		},
		Sockets: []string{filepath.Join(s.Data, "control.sock")}, Closed: []string{http, s.agents},
		Verify: panel.verify, Stolen: s.steal, Admit: panel.admit,
	}
}

// join has the agent's server become one of control's, and the agent connect.
func (s *System) join(ctx context.Context) error {
	server := map[string]any{"kind": upkeep.KindServer, "name": webServer, "roles": []string{upkeep.RoleWeb, upkeep.RoleFiles}}
	if _, err := s.Declare(ctx, server); err != nil {
		return err
	}
	invitation, err := s.Client.InviteServer(ctx, webServer)
	if err != nil {
		return err
	}
	if err := s.run(ctx, "join", "https://"+s.agents, invitation.Token, "--data", s.path("agent")); err != nil {
		return err
	}
	if err := s.launch(ctx, "agent", nil, "agent", "--data", s.path("agent"), "--policy", s.path("policy.yaml")); err != nil {
		return err
	}
	return s.connected(ctx)
}

// connected waits until control has the agent's link.
func (s *System) connected(ctx context.Context) error {
	return s.await(ctx, func() error {
		servers, err := s.Client.Servers(ctx)
		if err == nil && (len(servers) != 1 || !servers[0].Connected) {
			err = fmt.Errorf("the agent does not connect: %+v", servers)
		}
		return err
	})
}

// StartAlone starts upkeep up, for who is not root: control, agent and an Apache
// that all run as this user.
func StartAlone(ctx context.Context, o Options) (_ *System, err error) {
	s := &System{o: o, Data: filepath.Join(o.Dir, "data")}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, dir := range []string{"outside", "log"} {
		if err := os.Mkdir(s.path(dir), 0o755); err != nil {
			return nil, err
		}
	}
	s.Address = freeAddress()
	http := freeAddress()
	if err := s.launch(ctx, "upkeep", nil, "up", "--data", s.Data, "--apache", s.Address, "--http", http, "--dns", "", "--beat", ""); err != nil {
		return nil, err
	}
	s.Client = client.OverSocket(s.Data)
	if err := s.connected(ctx); err != nil {
		return nil, err
	}
	panel := &control{client: s.Client, server: "local"}
	local := filepath.Join(s.Data, "local")
	s.World = World{
		Panel: panel, Server: panel.server, Address: s.Address, Layout: webserver.PrivateLayout(local, s.Address), Outside: s.path("outside"),
		Watched: []string{filepath.Join(local, "apache.conf")}, Closed: []string{http}, Verify: panel.verify, Admit: panel.admit,
	}
	return s, nil
}

func (s *System) path(name string) string { return filepath.Join(s.o.Dir, filepath.FromSlash(name)) }

// await asks until there is no error, or one of the processes has ended.
func (s *System) await(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, endless)
	defer cancel()
	var last error
	err := until(ctx, func() (bool, error) {
		for _, p := range s.processes {
			select {
			case <-p.done:
				return false, fmt.Errorf("%s has ended: %s", p.name, p.log())
			default:
			}
		}
		last = ask()
		return last == nil, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return last
	}
	return err
}

// Close ends everything.
func (s *System) Close() error {
	var errs []error
	for i := len(s.processes) - 1; i >= 0; i-- {
		errs = append(errs, s.processes[i].end())
	}
	if s.apache != nil {
		errs = append(errs, s.apache.Close())
	}
	return errors.Join(errs...)
}

// freeAddress is an address of the loopback interface that nobody listens on.
func freeAddress() string {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0" // which says so where it is used
	}
	defer listener.Close()
	return listener.Addr().String()
}

// process is a program that was started.
type process struct {
	name, logFile string
	cmd           *exec.Cmd
	done          chan struct{}
	err           error // once done is closed
}

// command is a run of upkeep with an empty environment.
func (s *System) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.o.Program[0], append(s.o.Program[1:len(s.o.Program):len(s.o.Program)], args...)...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent"}
	return cmd
}

// run runs upkeep to its end.
func (s *System) run(ctx context.Context, args ...string) error {
	output, err := s.command(ctx, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("upkeep %s: %w: %s", args[0], err, output)
	}
	return nil
}

// launch starts upkeep as somebody; nil is who this is.
func (s *System) launch(ctx context.Context, name string, who *syscall.Credential, args ...string) error {
	p := &process{name: name, logFile: s.path("log/" + name), done: make(chan struct{})}
	out, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	p.cmd = s.command(context.WithoutCancel(ctx), args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	s.processes = append(s.processes, p)
	return nil
}

// stop ends a process by its name.
func (s *System) stop(name string) error {
	for i, p := range s.processes {
		if p.name == name {
			s.processes = append(s.processes[:i], s.processes[i+1:]...)
			return p.end()
		}
	}
	return fmt.Errorf("%s does not run", name)
}

// end ends the process in order, or kills it where it does not.
func (p *process) end() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(20 * time.Second):
	}
	err := p.cmd.Process.Kill()
	<-p.done
	return errors.Join(fmt.Errorf("%s does not end when it is asked to", p.name), err)
}

// log is the end of what the process has said.
func (p *process) log() string {
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "; ")
}
