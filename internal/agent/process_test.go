package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/link/authority"
	"upkeep/internal/link/rostertest"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

// TestMain lets the test binary be started again as one of the agent's processes.
func TestMain(m *testing.M) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	switch role := os.Args[min(1, len(os.Args)-1)]; role {
	case "agent-front":
		fail(RunFront(context.Background(), "1.0", log))
	case "agent-root":
		dir := os.Args[2]
		fail(Run(context.Background(), RunOptions{
			Identity: filepath.Join(dir, "identity"), State: filepath.Join(dir, "state"), Policy: filepath.Join(dir, "etc/policy.yaml"),
			Front: []string{"upkeep", "agent-front"}, Version: "1.0", Logger: log, Prefix: dir,
		}))
	case "agent-user":
		fail(asUser(os.Args[2]))
	case "agent-images":
		fail(imageVictim(os.Args[2]))
	case "agent-victim":
		victim(os.Args[2])
	default:
		os.Exit(m.Run())
	}
}

// controlled is a server whose agent runs in processes of its own, and a control
// to which they connect over TLS.
type controlled struct {
	*lab
	authority *authority.Authority
	roster    *rostertest.Memory
	links     chan connected
}

type connected struct {
	hello link.Hello
	conn  link.Conn
	gone  chan struct{}
}

func newControlled(t *testing.T, text string) *controlled {
	t.Helper()
	l := newLab(t, labPolicy)
	l.must(os.WriteFile(l.path("etc/policy.yaml"), []byte(strings.ReplaceAll(text, "DIR", l.dir)), 0o600))
	c := &controlled{lab: l, roster: rostertest.NewMemory(), links: make(chan connected, 10)}
	var err error
	c.authority, err = authority.Open(filepath.Join(t.TempDir(), "link"), time.Now)
	l.must(err)
	l.key = c.authority.SigningKey()
	hub := link.NewHub(link.HubOptions{
		Authority: c.authority, Roster: c.roster, Connected: c.connected, Report: func(string, string) {}, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	l.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- hub.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	token, invitation := c.authority.Invite("web1", time.Hour)
	l.must(c.roster.Invite(t.Context(), invitation))
	_, err = link.Join(t.Context(), link.JoinOptions{Control: "https://" + listener.Addr().String(), Token: token.Text(), Folder: l.path("identity"), Now: time.Now})
	l.must(err)
	l.must(l.root.Close())
	return c
}

func (c *controlled) connected(_ string, hello link.Hello, conn link.Conn) {
	one := connected{hello, conn, make(chan struct{})}
	c.links <- one
	<-one.gone
}

// startAgent starts the agent and waits for its link.
func (c *controlled) startAgent() *testkit.Process {
	c.t.Helper()
	return testkit.Command{Argv: []string{"/proc/self/exe", "agent-root", c.dir}, Env: []string{}, Dir: "/"}.Start(c.t)
}

func (c *controlled) link() connected {
	c.t.Helper()
	select {
	case one := <-c.links:
		return one
	case <-time.After(30 * time.Second):
		c.t.Fatal("the agent does not connect")
		return connected{}
	}
}

// ask sends a job and waits for its outcome.
func (c *controlled) ask(conn link.Conn, payload task.Payload, generation int64) link.Outcome {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	signed := c.sign(payload.Kind(), payload.Object(), generation, payload)
	c.must(conn.Send(ctx, link.Message{Job: &signed}))
	for {
		m, err := conn.Receive(ctx)
		c.must(err)
		if m.Outcome != nil {
			return *m.Outcome
		}
	}
}

// fronts lists the processes of fronts below a root process.
func fronts(root int) []int {
	var found []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", root)) // the pattern is well-formed
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil {
				found = append(found, pid)
			}
		}
	}
	return found
}

func status(pid int) map[string]string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		all[key] = strings.Join(strings.Fields(value), " ")
	}
	return all
}

const processPolicy = labPolicy + "front: nobody\n"

// TestTwoProcesses has a job go the whole way: control, TLS, the front, the
// socket, root. It holds what the front is: a process without privileges and
// without a way to any, that ends with root and is replaced when it ends.
func TestTwoProcesses(t *testing.T) {
	c := newControlled(t, processPolicy)
	agent := c.startAgent()
	first := c.link()
	if first.hello.Facts.UID != 0 || len(first.hello.Kinds) != 5 {
		t.Errorf("hello says %+v", first.hello)
	}
	if outcome := c.ask(first.conn, ensured("acme", 20001), 1); outcome.State != upkeep.JobDone {
		t.Errorf("got %+v", outcome)
	}
	if outcome := c.ask(first.conn, ensured("alice", 20500), 1); outcome.State != upkeep.JobFailed || !strings.Contains(outcome.Error, "upkeep did not make") {
		t.Errorf("got %+v", outcome)
	}
	if c.passwd("acme") == "" {
		t.Error("the user was not made")
	}
	all := fronts(agent.PID())
	if len(all) != 1 {
		t.Fatalf("fronts are %v", all)
	}
	front := status(all[0])
	for key, want := range map[string]string{
		"Uid": "65534 65534 65534 65534", "Gid": "65534 65534 65534 65534", "Groups": "", "NoNewPrivs": "1",
		"CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if got := front[key]; got != want {
			t.Errorf("the front's %s is %q, want %q", key, got, want)
		}
	}
	if environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", all[0])); err != nil || len(environment) > 0 {
		t.Errorf("the front's environment is %q, %v", environment, err)
	}
	// Neither it nor anybody of its user can read the key from where it is kept.
	if got := c.like("identity/identity.json"); got != "-rw------- 0:0" {
		t.Errorf("the identity is %s", got)
	}
	close(first.gone)
	c.must(syscall.Kill(all[0], syscall.SIGKILL))
	second := c.link()
	if outcome := c.ask(second.conn, ensured("beta", 20002), 1); outcome.State != upkeep.JobDone {
		t.Errorf("got %+v", outcome)
	}
	all = fronts(agent.PID())
	if len(all) != 1 {
		t.Fatalf("fronts are %v", all)
	}
	agent.Signal(t, syscall.SIGKILL)
	testkit.Eventually(t, 10*time.Second, func() (bool, string) {
		left := status(all[0])
		return left == nil || strings.HasPrefix(left["State"], "Z"), fmt.Sprint(left["State"])
	})
	close(second.gone)
}

// TestFrontRefusesPower starts the front as root does not.
func TestFrontRefusesPower(t *testing.T) {
	testkit.NeedRoot(t)
	p := testkit.Command{Argv: []string{"/proc/self/exe", "agent-front"}, Env: []string{}, Dir: "/"}.Start(t)
	if err := p.Wait(); err == nil || !strings.Contains(p.Log(), "it runs as root") {
		t.Errorf("it ended with %v: %s", err, p.Log())
	}
	p = testkit.Command{Argv: []string{"/proc/self/exe", "agent-front"}, Env: []string{}, Dir: "/", User: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{4}}}.Start(t)
	if err := p.Wait(); err == nil || !strings.Contains(p.Log(), "further groups") {
		t.Errorf("it ended with %v: %s", err, p.Log())
	}
}

// TestRenewal holds that a front can have its own identity renewed and no other
// put in its place.
func TestRenewal(t *testing.T) {
	c := newControlled(t, processPolicy)
	identity, err := link.ReadIdentity(c.path("identity"))
	c.must(err)
	k := &keeper{folder: c.path("identity"), identity: identity}
	text, err := identity.Text()
	c.must(err)
	c.must(k.renew(text))
	for what, change := range map[string]func(map[string]any){
		"another control": func(m map[string]any) { m["control"] = "https://evil.test:1" },
		"another server":  func(m map[string]any) { m["server"] = "web2" },
		"another signer":  func(m map[string]any) { m["signing_key"] = make([]byte, 32) },
		"rubbish":         func(m map[string]any) { m["key"] = "x" },
	} {
		var m map[string]any
		c.must(json.Unmarshal(text, &m))
		change(m)
		changed, err := json.Marshal(m)
		c.must(err)
		if err := k.renew(changed); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}
