package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/declare"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/netlab"
)

// hosting is an operator with a control on PostgreSQL, and machines with an agent
// and an Apache each. The homes of sharedAccount are on the first machine alone,
// and mounted by the others.
type hosting struct {
	t        testing.TB
	net      *netlab.Network
	dir      string
	data     string // control's data folder
	db       *testkit.PostgresServer
	machines []*machine
	visitor  *netlab.Host

	mu      sync.Mutex
	control *testkit.Process
}

const (
	// sharedAccount has its files on one server and its sites on several.
	sharedAccount = "shared"
	agentsPort    = "8055"
)

// newHosting makes the world with machines named web1, web2 and so on, all of
// which have joined and run.
func newHosting(t testing.TB, machines int) *hosting {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "ip", "nsenter", "unshare", "setpriv", "nft", "apache2", "useradd")
	_, err := os.Stat("/usr/lib/apache2/suexec-custom")
	testkit.NeedThat(t, "suexec for folders other than /var/www (try: make deps)", err)
	names := []string{"control", "visitor"}
	for i := range machines {
		names = append(names, webName(i))
	}
	network, err := netlab.New(names...)
	testkit.NeedThat(t, "network namespaces", err)
	h := &hosting{t: t, net: network, dir: t.TempDir(), visitor: network.Host("visitor")}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, path := range []string{filepath.Dir(h.dir), h.dir} {
		h.must(os.Chmod(path, 0o755)) // control is no root, and nor is Apache
	}
	h.db = testkit.NewPostgres(t)
	h.data = filepath.Join(h.dir, "control")
	h.must(os.Mkdir(h.data, 0o700))
	uid, gid := h.controlUser()
	h.must(os.Chown(h.data, uid, gid))
	t.Cleanup(func() {
		h.killControl()
		if t.Failed() && h.control != nil {
			t.Logf("the end of control's log:\n%s", tail(h.control.Log(), 10000))
		}
	})
	h.must(h.startControl())
	h.awaitControl()
	shared := filepath.Join(h.dir, webName(0), "home", sharedAccount)
	h.must(os.MkdirAll(shared, 0o751))
	for i := range machines {
		var mounts map[string]string
		if i > 0 {
			mounts = map[string]string{"/home/" + sharedAccount: shared}
		}
		m := newMachine(t, network.Host(webName(i)), filepath.Join(h.dir, webName(i)), mounts)
		h.machines = append(h.machines, m)
		h.must(m.startApache())
		h.join(m)
		h.must(m.startAgent(t))
	}
	h.awaitAgents()
	return h
}

func webName(i int) string { return fmt.Sprintf("web%d", i+1) }

func (h *hosting) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// controlUser is the user that control runs as: PostgreSQL's, whose socket is in
// a folder of its own.
func (h *hosting) controlUser() (uid, gid int) {
	h.t.Helper()
	address, err := url.Parse(h.db.DSN())
	h.must(err)
	info, err := os.Stat(address.Query().Get("host"))
	h.must(err)
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

// startControl starts control as a user without any privilege.
func (h *hosting) startControl() error {
	uid, gid := h.controlUser()
	host := h.net.Host("control")
	argv := host.Argv("setpriv", fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", gid), "--clear-groups", "--pdeathsig=KILL", "--",
		upkeepProgram(h.t), "serve", "--data", h.data, "--db", h.db.DSN(), "--http", "", "--agents", host.Addr.String()+":"+agentsPort)
	process, err := testkit.Command{Argv: argv, Dir: "/"}.Launch()
	h.mu.Lock()
	h.control = process
	h.mu.Unlock()
	return err
}

func (h *hosting) process() *testkit.Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.control
}

func (h *hosting) killControl() {
	if p := h.process(); p != nil {
		p.Kill()
	}
}

// api speaks to control over its socket.
func (h *hosting) api() *client.Client { return client.OverSocket(h.data) }

func (h *hosting) awaitControl() {
	h.t.Helper()
	testkit.Eventually(h.t, 60*time.Second, func() (bool, string) {
		_, err := h.api().Servers(context.Background())
		return err == nil, fmt.Sprint(err, "\n", tail(h.process().Log(), 3000))
	})
}

func (h *hosting) awaitAgents() {
	h.t.Helper()
	testkit.Eventually(h.t, 60*time.Second, func() (bool, string) {
		servers, err := h.api().Servers(context.Background())
		away := ""
		for _, s := range servers {
			if !s.Connected {
				away += " " + s.Name
			}
		}
		return err == nil && away == "", fmt.Sprint("away:", away, " ", err)
	})
}

// upkeep runs a verb of the program as the operator does.
func (h *hosting) upkeep(verb ...string) (output string, exit int) {
	h.t.Helper()
	cmd := exec.Command(upkeepProgram(h.t), append(verb, "--data", h.data)...)
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		h.t.Fatal(err)
	}
	return both.String(), cmd.ProcessState.ExitCode()
}

// says runs a verb that must succeed.
func (h *hosting) says(verb ...string) string {
	h.t.Helper()
	output, exit := h.upkeep(verb...)
	if exit != 0 {
		h.t.Fatalf("upkeep %s: exit %d\n%s", strings.Join(verb, " "), exit, output)
	}
	return output
}

// join declares a machine and has it join.
func (h *hosting) join(m *machine) {
	h.t.Helper()
	if output := h.invite(m, []string{"--include"}, "add", "--role", "web,files"); !strings.Contains(output, "apache2.conf includes /etc/apache2/hosted.d now\n") {
		h.t.Errorf("the join says\n%s", output)
	}
}

// invite has a machine join, with more flags, by the token that a verb of server
// prints.
func (h *hosting) invite(m *machine, how []string, verb string, flags ...string) (output string) {
	h.t.Helper()
	var invitation wire.Invitation
	h.must(json.Unmarshal([]byte(h.says(append([]string{"server", verb, m.Name, "-o", "json"}, flags...)...)), &invitation))
	output, err := m.run(append([]string{upkeepProgram(h.t), "join", "https://" + invitation.Listen, invitation.Token}, how...)...)
	if err != nil {
		h.t.Fatal(err)
	}
	return output
}

// apply declares objects through the API.
func (h *hosting) apply(ctx context.Context, objects ...upkeep.Object) error {
	var text strings.Builder
	if err := declare.Write(&text, objects...); err != nil {
		return err
	}
	_, err := h.api().Apply(ctx, []wire.Source{{File: "change.yaml", Text: text.String()}}, false)
	return err
}

// open are the jobs for servers that have not ended.
func (h *hosting) open() ([]upkeep.Job, error) {
	return h.jobs(upkeep.JobPending, upkeep.JobRunning)
}

// jobs are those for servers in some states. Notifications wait for their
// readers.
func (h *hosting) jobs(states ...upkeep.JobState) ([]upkeep.Job, error) {
	all, err := h.api().Jobs(context.Background(), wire.JobFilter{States: states, Limit: 1000})
	var work []upkeep.Job
	for _, j := range all {
		if j.Kind != upkeep.JobNotification {
			work = append(work, j)
		}
	}
	return work, err
}

// failedJobs are the ids of jobs for servers that failed.
func (h *hosting) failedJobs() (ids []string) {
	h.t.Helper()
	jobs, err := h.jobs(upkeep.JobFailed)
	h.must(err)
	for _, job := range jobs {
		ids = append(ids, fmt.Sprint(job.ID))
	}
	return ids
}

// settled waits until no job waits or runs.
func (h *hosting) settled(patience time.Duration) {
	h.t.Helper()
	testkit.Eventually(h.t, patience, func() (bool, string) {
		open, err := h.open()
		text := &strings.Builder{}
		for _, j := range open[:min(len(open), 20)] {
			fmt.Fprintf(text, "\n%+v", j)
		}
		return err == nil && len(open) == 0, fmt.Sprintf("%d jobs have not ended, %v%s", len(open), err, text)
	})
}

// answer is what a visitor gets.
type answer struct {
	status int
	body   string
	header http.Header
}

// ask is a visitor's request to one machine.
func (h *hosting) ask(m *machine, method, name, path string, password bool) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+name+path, nil)
	if err != nil {
		return answer{}, err
	}
	if password {
		request.SetBasicAuth(knownUser, knownPassword)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return h.visitor.Dial(ctx, "tcp", m.Addr.String()+":80")
	}}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(body), response.Header}, errors.Join(err, response.Body.Close())
}

// machine finds one by its name.
func (h *hosting) machine(name string) *machine {
	for _, m := range h.machines {
		if m.Name == name {
			return m
		}
	}
	panic("no machine " + name)
}

// cutDatabase ends every connection of the database but the one that it does so
// by.
func (h *hosting) cutDatabase() error {
	db, err := sql.Open("pgx", h.db.DSN())
	if err != nil {
		return err
	}
	_, err = db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")
	return errors.Join(err, db.Close())
}
