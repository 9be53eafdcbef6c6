package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/policy"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
	"upkeep/internal/webserver"
)

// lab is a server in a folder: its homes, its /etc with users, the state of its
// agent, and a control that signs whatever it is told to.
type lab struct {
	t    testing.TB
	dir  string
	root *Root
	o    Options
	key  ed25519.PrivateKey
	now  time.Time
	ids  atomic.Int64

	webOptions webserver.Options // of a lab with a web server
}

// labPolicy allows everything that needs no server.
const labPolicy = `
kinds: [mkdir, user.ensure, user.remove, site.files, server.facts]
roots: {home: DIR/home, data: DIR/data}
uids: {min: 20000, max: 20999}
group: web
delete_budget: 3
`

// newLab makes a server with a policy, in which DIR stands for its folder.
func newLab(t testing.TB, text string) *lab {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "useradd", "groupadd", "userdel")
	dir := t.TempDir()
	l := &lab{t: t, dir: dir, now: time.Now().Truncate(time.Second)}
	for _, path := range []string{filepath.Dir(dir), dir} {
		l.must(os.Chmod(path, 0o755))
	}
	for name, mode := range map[string]fs.FileMode{"home": 0o755, "data": 0o755, "etc": 0o755, "outside": 0o755, "outside/inner": 0o700} {
		l.must(os.MkdirAll(filepath.Join(dir, name), mode))
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nalice:x:20500:20500:Alice:/home/alice:/bin/bash\n", "etc/group": "root:x:0:\nweb:x:33:\nalice:x:20500:\nclients:x:20600:\n",
		"etc/shadow": "root:*:19000:0:99999:7:::\n", "etc/gshadow": "root:*::\n", "outside/secret": "secret\n",
	} {
		l.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	public, private, err := ed25519.GenerateKey(nil)
	l.must(err)
	l.key = private
	p, err := policy.Read("policy.yaml", []byte(strings.ReplaceAll(text, "DIR", dir)))
	l.must(err)
	l.o = Options{
		Server: "web1", Key: public, Policy: p, State: filepath.Join(dir, "state"), Prefix: dir, Version: "1.0",
		Now: func() time.Time { return l.now }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	l.start()
	t.Cleanup(func() {
		if l.root != nil {
			_ = l.root.Close() // a test may have closed it
		}
	})
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// start starts the agent, again if it runs.
func (l *lab) start() {
	l.t.Helper()
	if l.root != nil {
		l.must(l.root.Close())
	}
	root, err := New(l.o)
	l.must(err)
	l.root = root
}

// reload starts the agent with another policy.
func (l *lab) reload(text string) {
	l.t.Helper()
	p, err := policy.Read("policy.yaml", []byte(strings.ReplaceAll(text, "DIR", l.dir)))
	l.must(err)
	l.o.Policy = p
	l.start()
}

// sign makes a job with an id of its own.
func (l *lab) sign(kind, object string, generation int64, payload any) link.Signed {
	l.t.Helper()
	text, err := json.Marshal(payload)
	l.must(err)
	signed, err := link.Sign(l.key, link.Job{
		ID: l.ids.Add(1), Server: "web1", Kind: kind, Object: object, Generation: generation, Expires: l.now.Add(time.Hour), Payload: text,
	})
	l.must(err)
	return signed
}

// do signs a job with a payload and has it done.
func (l *lab) do(payload task.Payload, generation int64) link.Outcome {
	l.t.Helper()
	return l.root.Do(context.Background(), l.sign(payload.Kind(), payload.Object(), generation, payload), nil)
}

func (l *lab) wantDone(payload task.Payload, generation int64) link.Outcome {
	l.t.Helper()
	outcome := l.do(payload, generation)
	if outcome.State != upkeep.JobDone {
		l.t.Errorf("%s %s: %s, %s", payload.Kind(), payload.Object(), outcome.State, outcome.Error)
	}
	return outcome
}

func (l *lab) wantFailed(payload task.Payload, generation int64, words string) {
	l.t.Helper()
	outcome := l.do(payload, generation)
	if outcome.State != upkeep.JobFailed || !strings.Contains(outcome.Error, words) {
		l.t.Errorf("%s %s: %s, %q, want it failed with %q", payload.Kind(), payload.Object(), outcome.State, outcome.Error, words)
	}
}

// path is a path of the server.
func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// like describes a file: type, mode and owner.
func (l *lab) like(name string) string {
	info, err := os.Lstat(l.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "none"
	}
	l.must(err)
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%s %d:%d", info.Mode(), st.Uid, st.Gid)
}

// snapshot describes everything on the server but the state of the agent.
func (l *lab) snapshot() string {
	l.t.Helper()
	var all strings.Builder
	l.must(filepath.WalkDir(l.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == l.o.State {
			return filepath.SkipDir
		}
		name, err := filepath.Rel(l.dir, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&all, "%s %s", name, l.like(name))
		if entry.Type().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&all, " %q", text)
		}
		all.WriteByte('\n')
		return nil
	}))
	return all.String()
}

// passwd is the line of a user, "" for none.
func (l *lab) passwd(name string) string {
	l.t.Helper()
	text, err := os.ReadFile(l.path("etc/passwd"))
	l.must(err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, name+":") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func ensured(account string, uid int) task.UserEnsure {
	return task.UserEnsure{Tenant: task.Tenant{Account: account, UID: uid}}
}

func removed(account string, uid int) task.UserRemove {
	return task.UserRemove{Tenant: task.Tenant{Account: account, UID: uid}}
}

func files(name, account string, uid int, generation int64) task.SiteFiles {
	return task.SiteFiles{
		Site:       upkeep.Site{Name: name, Account: account, Servers: []string{"web1"}},
		Generation: generation, Tenant: task.Tenant{Account: account, UID: uid},
	}
}
