package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/policy"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

// killKey is control's key in the tests that kill.
func killKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("kill"))
	return ed25519.NewKeyFromSeed(seed[:])
}

const killPolicy = `
kinds: [mkdir, user.ensure, user.remove, site.files]
roots: {home: DIR/home, data: DIR/data}
uids: {min: 20000, max: 20999}
group: web
delete_budget: 100000
`

// killJobs are what is done over and over while the process is killed. Each turn
// has generations of its own.
func killJobs(turn int64) []task.Payload {
	removes := turn%3 == 2
	var all []task.Payload
	for i := range 3 {
		account := fmt.Sprint("user", i)
		uid := 20001 + i
		if removes && i == 2 {
			all = append(all, removed(account, uid))
			continue
		}
		all = append(all, ensured(account, uid),
			files(account+".test", account, uid, turn),
			task.Mkdir{Root: "data", Path: account, Owner: account, Group: account, Mode: "0750"})
	}
	return all
}

func killOptions(dir string) (Options, error) { return optionsIn(dir, killPolicy) }

func optionsIn(dir, text string) (Options, error) {
	p, err := policy.Read("policy.yaml", []byte(strings.ReplaceAll(text, "DIR", dir)))
	return Options{
		Server: "web1", Key: killKey().Public().(ed25519.PublicKey), Policy: p, State: filepath.Join(dir, "state"), Prefix: dir,
	}, err
}

// turnFile is how far the victim has come, so that generations rise over kills.
const turnFile = "turn"

// victim does jobs until it is killed, and ends by itself when one fails.
func victim(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	o, err := killOptions(dir)
	fail(err)
	root, err := New(o)
	fail(err)
	var turn int64
	if text, err := os.ReadFile(filepath.Join(dir, turnFile)); err == nil {
		_, err = fmt.Sscan(string(text), &turn)
		fail(err)
	}
	for {
		turn++
		fail(os.WriteFile(filepath.Join(dir, turnFile+".new"), []byte(fmt.Sprint(turn)), 0o600))
		fail(os.Rename(filepath.Join(dir, turnFile+".new"), filepath.Join(dir, turnFile)))
		fail(doAll(root, turn))
	}
}

func doAll(root *Root, turn int64) error {
	for i, payload := range killJobs(turn) {
		signed, err := signWith(killKey(), turn*100+int64(i), payload, turn)
		if err != nil {
			return err
		}
		if outcome := root.Do(context.Background(), signed, nil); outcome.State != upkeep.JobDone {
			return fmt.Errorf("turn %d: %s %s: %s, %s", turn, payload.Kind(), payload.Object(), outcome.State, outcome.Error)
		}
	}
	return nil
}

func signWith(key ed25519.PrivateKey, id int64, payload task.Payload, generation int64) (link.Signed, error) {
	text, err := json.Marshal(payload)
	if err != nil {
		return link.Signed{}, err
	}
	return link.Sign(key, link.Job{ID: id, Server: "web1", Kind: payload.Kind(), Object: payload.Object(), Generation: generation, Expires: time.Now().Add(time.Hour), Payload: text})
}

// turnsOf is how many turns the victims of a server have begun.
func turnsOf(l *lab) (turn int64) {
	text, err := os.ReadFile(l.path(turnFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	l.must(err)
	_, err = fmt.Sscan(string(text), &turn)
	l.must(err)
	return turn
}

// TestKillRoot kills root at random instants in the midst of jobs, and holds that
// the same jobs, done again, end as if nothing had happened: no half user, no
// half folder, nothing given to the wrong owner, and no generation forgotten.
func TestKillRoot(t *testing.T) {
	l := newLab(t, killPolicy)
	l.must(l.root.Close())
	l.root = nil
	l.must(os.RemoveAll(l.o.State))
	// On a machine under load a victim may not come to its first turn in this time:
	// then there are more of them, which have longer.
	for n := 0; n < 25 || n < 100 && turnsOf(l) < 3; n++ {
		p := testkit.Command{Argv: []string{"/proc/self/exe", "agent-victim", l.dir}, Env: []string{}, Dir: "/"}.Start(t)
		select {
		case <-p.Done():
			t.Fatalf("it ended by itself: %s", p.Log())
		case <-time.After(time.Duration(50+rand.IntN(250+20*max(n-25, 0))) * time.Millisecond):
		}
		p.Kill()
	}
	turn := turnsOf(l)
	if turn < 3 {
		t.Errorf("it was killed before it did anything: %d turns", turn)
	}
	o, err := killOptions(l.dir)
	l.must(err)
	root, err := New(o)
	l.must(err)
	defer root.Close()
	// What was cut off is asked for again, as control does, and then once more.
	turn += 3 - turn%3
	for range 2 {
		l.must(doAll(root, turn))
	}
	old, err := signWith(killKey(), 1, removed("user1", 20002), 1)
	l.must(err)
	if outcome := root.Do(t.Context(), old, nil); outcome.State != upkeep.JobSuperseded {
		t.Errorf("a job from before the kills was %+v", outcome)
	}
	for i := range 3 {
		account := fmt.Sprint("user", i)
		if line, want := l.passwd(account), fmt.Sprintf("%s:x:%d:%d:%s:", account, 20001+i, 20001+i, accountMark); !strings.HasPrefix(line, want) {
			t.Errorf("the user is %q, want %q", line, want)
		}
		for name, want := range map[string]string{
			"home/" + account: "drwxr-x--x 0:0", "home/" + account + "/" + account + ".test": fmt.Sprintf("drwxr-x--- %d:33", 20001+i),
			"data/" + account: fmt.Sprintf("drwxr-x--- %d:%d", 20001+i, 20001+i),
		} {
			if got := l.like(name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
	}
	group, err := os.ReadFile(l.path("etc/group"))
	l.must(err)
	if n := strings.Count(string(group), "\nuser"); n != 3 {
		t.Errorf("%d groups: %s", n, group)
	}
}
