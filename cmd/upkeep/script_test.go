package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(tidied{m}, map[string]func(){"upkeep": main})
}

// tidied removes what the sessions share when all tests are done.
type tidied struct{ *testing.M }

func (m tidied) Run() int {
	status := m.M.Run()
	if sharedDir != "" {
		_ = os.RemoveAll(sharedDir) // best effort: it is in the temporary folder
	}
	return status
}

var sharedDir string

// verbs is a folder with an upkeep for sessions, made once. What runs for long and
// does many things at a time is this test binary, with the race detector where that
// is on; each other verb is the program as it is shipped, which starts in a third
// of the time, and sessions start hundreds.
var verbs = sync.OnceValues(func() (string, error) {
	self, err := exec.LookPath("upkeep") // testscript.Main put it there
	if err != nil {
		return "", err
	}
	if sharedDir, err = os.MkdirTemp("", "upkeep-sessions-"); err != nil {
		return "", err
	}
	if err := os.Chmod(sharedDir, 0o755); err != nil { // accounts that are not root's run it too
		return "", err
	}
	shipped := filepath.Join(sharedDir, "shipped")
	if output, err := exec.Command("go", "build", "-o", shipped, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building upkeep: %w\n%s", err, output)
	}
	script := fmt.Sprintf("#!/bin/sh\ncase \"$1\" in up|serve|agent) exec '%s' \"$@\" ;; esac\nexec '%s' \"$@\"\n", self, shipped)
	return sharedDir, testkit.WriteProgram(filepath.Join(sharedDir, "upkeep"), []byte(script))
})

// The sessions in testdata run the real program: upkeep up in the background,
// listeners as members, and the verbs against it.
func TestSessions(t *testing.T) {
	testscript.Run(t, sessions("testdata"))
}

// Those that mount images take root.
func TestSessionsOfRoot(t *testing.T) {
	testkit.NeedRoot(t)
	testscript.Run(t, sessions("testdata/root"))
}

// sessions are those in a folder, with the commands that all have.
func sessions(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPKEEP_UPDATE") != "",
		Deadline:            time.Now().Add(10 * time.Minute), // starting a program takes seconds on a machine under load
		Setup:               setupSession,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"answers": cmdAnswers,
			"exits":   cmdExits,
			"expand":  cmdExpand,
			"fill":    cmdFill,
			"invite":  cmdInvite,
			"member":  cmdMember,
			"until":   cmdUntil,
		},
	}
}

type memberKey struct{}

// members are the listeners that a session plays hosts with.
type members struct {
	mu   sync.Mutex
	open map[string]net.Listener
}

// setupSession gives each session addresses of its own: $M1 to $M5 for members
// on $PORT, $DNS and $HTTP for upkeep. Sessions run side by side, and beside
// whatever else the machine does.
func setupSession(env *testscript.Env) error {
	dir, err := verbs()
	if err != nil {
		return err
	}
	env.Setenv("PATH", dir+string(os.PathListSeparator)+env.Getenv("PATH"))
	net127, port, err := freeNetwork()
	if err != nil {
		return err
	}
	for i := 1; i <= 5; i++ {
		env.Setenv(fmt.Sprint("M", i), fmt.Sprintf("%s.%d", net127, i))
	}
	env.Setenv("PORT", port)
	env.Setenv("DNS", net127+".53:"+port)
	env.Setenv("HTTP", net127+".80:"+port)
	env.Setenv("UPKEEP_DATA", filepath.Join(env.WorkDir, "data"))
	env.Setenv("UPKEEP_BEAT", "")
	env.Setenv("UPKEEP_APACHE", "none") // a session about sites says otherwise
	env.Setenv("ESC", "\x1b")
	m := &members{open: map[string]net.Listener{}}
	env.Values[memberKey{}] = m
	env.Defer(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, l := range m.open {
			l.Close()
		}
	})
	return nil
}

// freeNetwork finds a /24 of the loopback range in which a port is free.
func freeNetwork() (net127, port string, err error) {
	for range 50 {
		net127 = fmt.Sprintf("127.%d.%d", 2+rand.IntN(250), rand.IntN(256))
		listener, listenErr := net.Listen("tcp", net127+".1:0")
		if listenErr != nil {
			err = listenErr
			continue
		}
		_, port, err = net.SplitHostPort(listener.Addr().String())
		listener.Close()
		return net127, port, err
	}
	return "", "", err
}

// cmdMember starts or stops hosts: member start $M1 $M2.
func cmdMember(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: member start|stop ADDRESS...")
	}
	m := ts.Value(memberKey{}).(*members)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, address := range args[1:] {
		if args[0] == "stop" {
			m.open[address].Close()
			delete(m.open, address)
			continue
		}
		listener, err := net.Listen("tcp", net.JoinHostPort(address, ts.Getenv("PORT")))
		ts.Check(err)
		m.open[address] = listener
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
	}
}

// patience is how long a session waits for what must come.
const patience = 2 * time.Minute

// eventually polls, as there is no other way to wait for another process.
func eventually(ts *testscript.TestScript, what string, check func() (bool, string)) {
	end := time.Now().Add(patience)
	for {
		ok, seen := check()
		if ok {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s did not come to be; last seen:\n%s", what, seen)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// cmdUntil repeats a command until it succeeds with output that matches:
// until REGEXP COMMAND ARGS...
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND ARGS...")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	eventually(ts, strings.Join(args, " "), func() (bool, string) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		return err == nil && want.MatchString(out), out + ts.ReadFile("stderr")
	})
}

// cmdExits runs a command that must end with a status: exits 3 COMMAND ARGS...
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// cmdExpand replaces $NAME in files by the session's environment.
func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
}

// cmdInvite sets $TOKEN to a new join token of a server: invite web1.
func cmdInvite(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: invite SERVER")
	}
	ts.Check(ts.Exec("upkeep", "server", "token", args[0], "-o", "json"))
	var invitation wire.Invitation
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &invitation))
	ts.Setenv("TOKEN", invitation.Token)
}

// cmdFill writes a file of so many bytes of comment: fill FILE BYTES.
func cmdFill(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("# "+strings.Repeat("x", n-2)), 0o644))
}

// cmdAnswers waits until DNS answers a name with exactly these addresses:
// answers www.example.test $M1 $M2.
func cmdAnswers(ts *testscript.TestScript, neg bool, args []string) {
	want := slices.Sorted(slices.Values(args[1:]))
	eventually(ts, "answers "+strings.Join(args, " "), func() (bool, string) {
		got, err := lookup(ts.Getenv("DNS"), args[0])
		if err != nil {
			return false, err.Error()
		}
		return slices.Equal(got, want), strings.Join(got, " ")
	})
}

func lookup(server, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	answer, _, err := new(dns.Client).ExchangeContext(ctx, query, server)
	if err != nil {
		return nil, err
	}
	var got []string
	for _, record := range answer.Answer {
		if a, is := record.(*dns.A); is {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			got = append(got, addr.String())
		}
	}
	slices.Sort(got)
	return got, nil
}
