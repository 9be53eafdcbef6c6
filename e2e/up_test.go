package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/testkit"
)

// newcomer tries upkeep up on a machine, as some user.
type newcomer struct {
	t       *testing.T
	dir     string // the user's own
	data    string
	program string
	user    *syscall.Credential
	up      *testkit.Process
}

// newNewcomer is a user, 0 for root, whose home is private.
func newNewcomer(t *testing.T, uid uint32, home string) *newcomer {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "apache2")
	n := &newcomer{t: t, dir: home, data: filepath.Join(home, ".local", "share", "upkeep"), program: filepath.Join(home, "upkeep")}
	text, err := os.ReadFile(upkeepProgram(t))
	if err == nil {
		err = testkit.WriteProgram(n.program, text)
	}
	example, err2 := os.ReadFile("../examples/sites.yaml")
	if err = errors.Join(err, err2); err == nil {
		err = os.WriteFile(filepath.Join(home, "sites.yaml"), example, 0o644)
	}
	if err == nil {
		err = os.Chmod(home, 0o700)
	}
	if err == nil && uid != 0 {
		n.user = &syscall.Credential{Uid: uid, Gid: uid}
		err = os.Chown(home, int(uid), int(uid))
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *newcomer) environment() []string {
	return []string{"HOME=" + n.dir, "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C"}
}

func (n *newcomer) start() {
	n.t.Helper()
	n.up = testkit.Command{
		Argv: []string{n.program, "up", "-f", "sites.yaml", "--dns", "", "--http", "", "--beat", ""}, Dir: n.dir, Env: n.environment(), User: n.user,
	}.Start(n.t)
}

// verb runs a verb as the user, and gives it up after a while.
func (n *newcomer) verb(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.program, args...)
	var both bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = n.dir, n.environment(), &both, &both
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: n.user}
	err := cmd.Run()
	return both.String(), err
}

// ends asks upkeep to end and expects that it does.
func (n *newcomer) ends() {
	n.t.Helper()
	begin := time.Now()
	n.up.Signal(n.t, syscall.SIGTERM)
	select {
	case <-n.up.Done():
		n.t.Logf("ended after %s", time.Since(begin))
	case <-time.After(time.Minute):
		n.up.Signal(n.t, syscall.SIGQUIT) // it then tells what it waits for
		<-time.After(time.Second)
		n.t.Fatalf("upkeep up does not end:\n%s", n.up.Log())
	}
}

// live waits for the example's site, writes a page as the user, and asks for it.
func (n *newcomer) live() {
	n.t.Helper()
	var site upkeep.SiteStatus
	testkit.Eventually(n.t, 2*time.Minute, func() (bool, string) {
		output, err := n.verb("verify") // files are of this start, whose port may be another
		if err != nil {
			return false, output
		}
		site, err = client.OverSocket(n.data).Site(context.Background(), "example.test")
		return err == nil && site.State == upkeep.SiteLive, fmt.Sprintf("%+v, %v\n%s", site, err, n.up.Log())
	})
	page := filepath.Join(site.DocumentRoot, "index.html")
	write := exec.Command("sh", "-c", "umask 022; echo 'the page of a newcomer' > \"$0\"", page)
	write.SysProcAttr = &syscall.SysProcAttr{Credential: n.user}
	if output, err := write.CombinedOutput(); err != nil {
		n.t.Fatalf("writing a page: %v\n%s", err, output)
	}
	for name, want := range map[string]string{"example.test": "the page of a newcomer\n", "shop.example.test": "the page of a newcomer\n", "unknown.test": ""} {
		status, body := n.get(site.Servers[0].URL, name)
		if want != "" && (status != 200 || body != want) || want == "" && status == 200 {
			n.t.Errorf("%s answers %d %q", name, status, body)
		}
	}
	if output, err := n.verb("verify"); err != nil {
		n.t.Errorf("verify: %v\n%s", err, output)
	}
}

func (n *newcomer) get(url, name string) (status int, body string) {
	n.t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	request.Host = name
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// privateHome is a folder that its owner alone may enter, in another that all may.
func privateHome(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	return home
}

// A newcomer's first site is served, whoever it is and however private the home.
func TestUpServesSites(t *testing.T) {
	t.Parallel()
	for name, uid := range map[string]uint32{"as a user": 23456, "as root": 0} {
		t.Run(name, func(t *testing.T) {
			n := newNewcomer(t, uid, privateHome(t))
			for range 2 { // the second start finds what the first has left
				n.start()
				n.live()
				n.ends()
			}
		})
	}
	t.Run("as root in /root", func(t *testing.T) {
		testkit.NeedRoot(t)
		home, err := os.MkdirTemp("/root", "upkeep-e2e-")
		testkit.NeedThat(t, "a folder in /root", err)
		t.Cleanup(func() {
			if err := os.RemoveAll(home); err != nil {
				t.Error(err)
			}
		})
		n := newNewcomer(t, 0, home)
		n.start()
		n.live()
		n.ends()
	})
}

// The port that it had is taken at the next start: the sites are there on another.
func TestUpOnAnotherPort(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t, 23458, privateHome(t))
	n.start()
	n.live()
	site, err := client.OverSocket(n.data).Site(context.Background(), "example.test")
	if err != nil {
		t.Fatal(err)
	}
	n.ends()
	address := strings.TrimPrefix(site.Servers[0].URL, "http://")
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n.start()
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		site, err := client.OverSocket(n.data).Site(context.Background(), "example.test")
		return err == nil && site.Servers[0].URL != "http://"+address && site.State == upkeep.SiteLive, fmt.Sprintf("%+v, %v", site, err)
	})
	n.live()
	n.ends()
}

// Asked to end at any time, also after jobs have failed and while verbs wait, it
// does.
func TestUpEnds(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	n := newNewcomer(t, 23457, privateHome(t))
	broken := "kind: site\nname: broken.test\naccount: acme\nservers: [local]\nphp: {}\n" // there is no PHP
	if err := os.WriteFile(filepath.Join(n.dir, "broken.yaml"), []byte(broken), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		n.start()
		verbs := make(chan struct{})
		go func() {
			defer close(verbs)
			for j := 0; n.up.Running() && j < 100; j++ {
				for _, verb := range [][]string{{"apply", "-f", "broken.yaml"}, {"site", "show", "broken.test"}, {"regenerate"}, {"job", "list"}} {
					_, _ = n.verb(verb...) // it may have no one to speak to
				}
			}
		}()
		if i%2 == 0 {
			testkit.Eventually(t, 2*time.Minute, func() (bool, string) {
				site, err := client.OverSocket(n.data).Site(context.Background(), "broken.test")
				return err == nil && site.State == upkeep.SiteFailed, fmt.Sprintf("%+v, %v\n%s", site, err, n.up.Log())
			})
		}
		<-time.After(time.Duration(random.Int64N(int64(1500 * time.Millisecond))))
		n.ends()
		<-verbs
	}
}
