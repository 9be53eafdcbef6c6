package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
)

// ours is upkeep as it is run for real: control, an agent as root in two
// processes, the link between them, SQLite, and the system's own Apache program.
type ours struct {
	*apache
	program        string
	control, agent *testkit.Process
	client         *client.Client
	data           string
	account        string
}

const server = "web1"

func startUpkeep(o options, dir string) (stage, error) {
	a, err := newApache(dir)
	if err != nil {
		return nil, err
	}
	// Its own default host is among upkeep's files.
	if err := os.Remove(filepath.Join(a.hosted, "000-default.conf")); err != nil {
		return nil, err
	}
	// Its system user is made for real; a name of its own keeps runs apart.
	s := &ours{apache: a, program: o.upkeep, data: filepath.Join(dir, "control"), account: fmt.Sprintf("bench%d", os.Getpid()+a.port)}
	if err := s.begin(); err != nil {
		log := ""
		for _, p := range []*testkit.Process{s.control, s.agent} {
			if p != nil {
				log += p.Log()
			}
		}
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	return s, nil
}

const policyText = `kinds: [mkdir, user.ensure, site.files, site.apply, site.remove, site.sync, server.facts]
roots: {home: %[1]s/home, data: %[1]s/data}
uids: {min: 20000, max: 59999}
front: nobody
web:
  server: apache
  include: %[1]s/hosted.d
  data: %[1]s/web
  logs: %[1]s/logs
  listen: "*:%[2]d"
  url: "http://127.0.0.1:%[2]d"
  config: %[1]s/apache.conf
  pid_file: %[1]s/apache.pid
`

func (s *ours) begin() error {
	for _, folder := range []string{"home", "data"} {
		if err := os.MkdirAll(filepath.Join(s.dir, folder), 0o755); err != nil {
			return err
		}
	}
	policy := filepath.Join(s.dir, "policy.yaml")
	if err := os.WriteFile(policy, fmt.Appendf(nil, policyText, s.dir, s.port), 0o644); err != nil {
		return err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", freePort())
	var err error
	s.control, err = testkit.Command{Argv: []string{s.program, "serve", "--data", s.data, "--http", "", "--agents", listen}}.Launch()
	if err != nil {
		return err
	}
	s.client = client.OverSocket(s.data)
	var invitation wire.Invitation
	err = retry(30*time.Second, func() error {
		return s.apply("kind: server\nname: " + server + "\nroles: [web, files]\n---\nkind: account\nname: " + s.account + "\n")
	})
	if err == nil {
		invitation, err = s.client.InviteServer(context.Background(), server)
	}
	if err != nil {
		return err
	}
	identity := filepath.Join(s.dir, "agent")
	if output, err := exec.Command(s.program, "join", "https://"+listen, invitation.Token, "--data", identity).CombinedOutput(); err != nil {
		return fmt.Errorf("joining: %w\n%s", err, output)
	}
	return s.startAgent()
}

func (s *ours) startAgent() (err error) {
	s.agent, err = testkit.Command{Argv: []string{s.program, "agent", "--data", filepath.Join(s.dir, "agent"), "--policy", filepath.Join(s.dir, "policy.yaml")}}.Launch()
	if err != nil {
		return err
	}
	return retry(30*time.Second, func() error {
		servers, err := s.client.Servers(context.Background())
		if err == nil && !servers[0].Connected {
			err = fmt.Errorf("the agent is not connected")
		}
		return err
	})
}

func retry(patience time.Duration, f func() error) error {
	return retryEach(20*time.Millisecond, patience, f)
}

func retryEach(pause, patience time.Duration, f func() error) error {
	for end := time.Now().Add(patience); ; <-time.After(pause) {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

func (s *ours) apply(documents string) error {
	_, err := s.client.Apply(context.Background(), []wire.Source{{File: "bench.yaml", Text: documents}}, false)
	return err
}

func (s *ours) add(names []string) error {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "---\nkind: site\nname: %s\naccount: %s\nservers: [%s]\n", name, s.account, server)
	}
	return s.apply(b.String())
}

// fill has sites, and returns when nothing is being done about them any more:
// before the first of them the server answers to every name.
func (s *ours) fill(names []string) error {
	if err := s.add(names); err != nil {
		return err
	}
	return retry(20*time.Minute, func() error {
		servers, err := s.client.Servers(context.Background())
		if err == nil && (servers[0].Pending > 0 || servers[0].Sites < len(names)) {
			err = fmt.Errorf("%d jobs wait, and %d sites are served", servers[0].Pending, servers[0].Sites)
		}
		return err
	})
}

func (s *ours) regenerate(names []string) error {
	// What an administrator would type: rm -rf of the folder, then regenerate.
	entries, err := os.ReadDir(s.hosted)
	if err != nil {
		return err
	}
	before := make(map[string][]byte, len(entries))
	for _, entry := range entries {
		path := filepath.Join(s.hosted, entry.Name())
		if before[path], err = os.ReadFile(path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := s.settle(names); err != nil {
		return err
	}
	for path, text := range before {
		after, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(after, text) {
			return fmt.Errorf("%s is not what it was", path)
		}
	}
	return nil
}

func (s *ours) settle([]string) error {
	job, err := s.client.SyncServer(context.Background(), server, "regenerate")
	if err != nil {
		return err
	}
	return retryEach(250*time.Millisecond, 5*time.Minute, func() error { // to ask costs control something
		now, err := s.client.Job(context.Background(), job.ID)
		if err != nil {
			return err
		}
		if now.State != "done" {
			return fmt.Errorf("the job is %s: %s", now.State, now.Error)
		}
		return nil
	})
}

// mkdirs makes the jobs while the agent is away, and takes the time from its start
// until the first and the last folder is there.
func (s *ours) mkdirs(n int) (first, last time.Duration, err error) {
	s.agent.Kill()
	for i := range n {
		payload, err := json.Marshal(map[string]string{"root": "data", "path": fmt.Sprintf("dir%d", i), "owner": "root", "group": "root", "mode": "0755"})
		if err != nil {
			return 0, 0, err
		}
		if _, err := s.client.RunJob(context.Background(), wire.NewJob{Kind: "mkdir", Server: server, Payload: payload}); err != nil {
			return 0, 0, err
		}
	}
	begin := time.Now()
	if err := s.startAgent(); err != nil {
		return 0, 0, err
	}
	err = retryEach(5*time.Millisecond, time.Minute, func() error {
		entries, err := os.ReadDir(filepath.Join(s.dir, "data"))
		if len(entries) > 0 && first == 0 {
			first = time.Since(begin)
		}
		if err == nil && len(entries) < n {
			err = fmt.Errorf("%d of %d folders are there", len(entries), n)
		}
		return err
	})
	return first, time.Since(begin), err
}

// spent is what control and both halves of the agent have used.
func (s *ours) spent() time.Duration {
	sum := processorTime(s.control.PID()) + processorTime(s.agent.PID())
	for _, child := range children(s.agent.PID()) {
		sum += processorTime(child)
	}
	return sum
}

// tested is the part of that which is of the web server's own program: it is all
// that the agent has started and that has ended, but for what makes users.
func (s *ours) tested() time.Duration { return endedTime(s.agent.PID()) }

func (s *ours) stop() {
	for _, p := range []*testkit.Process{s.agent, s.control} {
		if p != nil {
			p.Kill()
		}
	}
	s.apache.stop()
	_ = exec.Command("userdel", s.account).Run() // there is none where no site was applied
}
