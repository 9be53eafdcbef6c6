package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

func TestWhoMayDoWhatOverTCP(t *testing.T) {
	bearer, basic := "Bearer "+testToken, "Basic "+basicAuth(testToken)
	for _, tt := range []struct {
		name, method, path, auth string
		private                  bool
		want                     int
	}{
		{"anybody reads pools", "GET", "/api/v1/pools", "", false, 200},
		{"anybody reads a pool", "GET", "/api/v1/pools/web", "", false, 200},
		{"anybody reads zones", "GET", "/api/v1/zones", "", false, 200},
		{"anybody reads the page", "GET", "/", "", false, 200},
		{"anybody reads metrics", "GET", "/metrics", "", false, 200},
		{"anybody asks for health", "GET", "/healthz", "", true, 200},
		{"nobody reads documents", "GET", "/api/v1/objects/pool", "", false, 401},
		{"anybody reads events of pools", "GET", "/api/v1/events", "", false, 200},
		{"nobody follows events", "GET", "/api/v1/events/stream", "", false, 401},
		{"nobody applies", "POST", "/api/v1/apply", "", false, 401},
		{"nobody compares", "POST", "/api/v1/diff", "", false, 401},
		{"nobody deletes", "DELETE", "/api/v1/objects/pool/web", "", false, 401},
		{"nobody deletes several", "POST", "/api/v1/delete", "", false, 401},
		{"nobody forces", "POST", "/api/v1/pools/web/members/192.0.2.1/force", "", false, 401},
		{"nobody releases", "DELETE", "/api/v1/pools/web/members/192.0.2.1/force", "", false, 401},
		{"a token reads documents", "GET", "/api/v1/objects/pool", bearer, false, 200},
		{"a token deletes", "DELETE", "/api/v1/objects/pool/web", bearer, false, 204},
		{"a token's case of scheme", "GET", "/api/v1/events", "bearer " + testToken, false, 200},
		{"a wrong token", "GET", "/api/v1/pools", "Bearer wrong", false, 401},
		{"an empty bearer is nobody", "GET", "/api/v1/objects/pool", "Bearer ", false, 401},
		{"a password reads", "GET", "/api/v1/events", basic, false, 200},
		{"a password changes nothing", "DELETE", "/api/v1/objects/pool/web", basic, false, 401},
		{"private pools", "GET", "/api/v1/pools", "", true, 401},
		{"private page", "GET", "/", "", true, 401},
		{"private events", "GET", "/api/v1/events", "", true, 401},
		{"private metrics", "GET", "/metrics", "", true, 401},
		{"private page with a password", "GET", "/", basic, true, 200},
		{"private pools with a token", "GET", "/api/v1/pools", bearer, true, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") })
			f := &fake{}
			f.pools = append(f.pools, webPool())
			a := newTestAPI(t, f, func(o *Options) { o.Private, o.Page, o.Metrics = tt.private, fakePages{page}, page })
			r := httptest.NewRequest(tt.method, tt.path, nil)
			if tt.auth != "" {
				r.Header.Set("Authorization", tt.auth)
			}
			w := answer(a.Public(), r)
			if w.Code != tt.want {
				t.Errorf("%s %s answers %d, want %d: %s", tt.method, tt.path, w.Code, tt.want, w.Body)
			}
			if tt.want == 401 && len(f.who) > 0 {
				t.Errorf("it was done nevertheless, by %v", f.who)
			}
		})
	}
}

func basicAuth(password string) string {
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth("any", password)
	_, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return value
}

// Without a token of its own an upkeep takes none, not even an empty one.
func TestNoTokenIsNoWayIn(t *testing.T) {
	a := newTestAPI(t, &fake{}, func(o *Options) { o.Token = "" })
	for _, auth := range []string{"", "Bearer", "Bearer ", "Bearer x", "Basic Og=="} {
		w := answer(a.Public(), httptest.NewRequest("GET", "/api/v1/objects/pool", nil), "Authorization", auth)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("Authorization %q answers %d", auth, w.Code)
		}
	}
}

func TestForeignNamesAreRefused(t *testing.T) {
	a := newTestAPI(t, &fake{}, func(o *Options) { o.Hosts = []string{"Status.Example.net"} })
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"127.0.0.1:8053": 200, "[::1]:8053": 200, "192.0.2.7": 200, "localhost:8053": 200, "localhost.": 200, own + ":80": 200,
		"status.example.net": 200, "STATUS.example.NET:443": 200,
		"rebound.attacker.example": 421, "rebound.attacker.example:8053": 421, "localhost.attacker.example": 421,
		"127.0.0.1.nip.example:8053": 421, "status.example.net.attacker.example": 421,
	} {
		r := httptest.NewRequest("GET", "/api/v1/pools", nil)
		r.Host = host
		if w := answer(a.Public(), r); w.Code != want {
			t.Errorf("Host %q answers %d, want %d", host, w.Code, want)
		}
	}
}

// A page of another site can make a browser send requests; it cannot make it
// leave out where they come from.
func TestOtherSitesCannotChangeAnything(t *testing.T) {
	for name, header := range map[string][]string{
		"fetch metadata": {"Sec-Fetch-Site", "cross-site"},
		"same site only": {"Sec-Fetch-Site", "same-site"},
		"origin":         {"Origin", "https://attacker.example"},
	} {
		f := &fake{}
		a := newTestAPI(t, f)
		r := httptest.NewRequest("DELETE", "/api/v1/objects/pool/web", nil)
		r.Header.Set("Authorization", "Bearer "+testToken)
		if w := answer(a.Public(), r, header...); w.Code != http.StatusForbidden || len(f.who) > 0 {
			t.Errorf("%s: answers %d, done by %v", name, w.Code, f.who)
		}
	}
}

// listenControl serves an API's control side on a socket of its own.
func listenControl(t *testing.T, a *API) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), SocketName)
	listener, err := ListenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, a.Control(), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving the control socket: %v", err)
		}
	})
	return path
}

// overSocket returns a client whose connections are made by dial.
func overSocket(dial func() (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dial() },
	}}
}

func TestControlSocketKnowsItsUsers(t *testing.T) {
	f := &fake{}
	path := listenControl(t, newTestAPI(t, f))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket's mode is %v, want 0600 (%v)", info.Mode(), err)
	}
	request, _ := http.NewRequest("DELETE", "http://localhost/api/v1/objects/pool/web", nil)
	response, err := overSocket(func() (net.Conn, error) { return net.Dial("unix", path) }).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if want := userName(uint32(os.Geteuid())); response.StatusCode != 204 || len(f.who) != 1 || f.who[0] != want {
		t.Errorf("answers %d, done by %v; want it done by %q", response.StatusCode, f.who, want)
	}
}

// Another user is told who they are, and nothing else.
func TestControlSocketRefusesOtherUsers(t *testing.T) {
	testkit.NeedRoot(t) // to become somebody else
	f := &fake{}
	path := listenControl(t, newTestAPI(t, f))
	nobody := func() (net.Conn, error) { return dialAs(t, path, 65534) }
	if conn, err := nobody(); err == nil {
		conn.Close()
		t.Error("nobody could open the socket")
	}
	// Behind a wider mode, as somebody's chmod would make, the kernel's word still holds.
	os.Chmod(filepath.Dir(path), 0o755)
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"/api/v1/pools", "/api/v1/objects/pool", "/healthz"} {
		response, err := overSocket(nobody).Get("http://localhost" + at)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden || !strings.Contains(string(text), "uid 65534") {
			t.Errorf("%s answers %d to nobody: %s", at, response.StatusCode, text)
		}
	}
}

// dialAs connects with another effective user id. The id is changed for this
// thread alone, which the raw system call does; Go's own would change them all.
func dialAs(t *testing.T, path string, uid int) (net.Conn, error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	keep := ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		t.Fatal(errno)
	}
	conn, err := net.Dial("unix", path)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); errno != 0 {
		panic("cannot become root again: " + errno.Error())
	}
	return conn, err
}

func TestControlSocketOfTheDeadAndTheLiving(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	listener, err := ListenControl(path)
	if err != nil {
		t.Fatalf("a dead one's socket is in the way: %v", err)
	}
	defer listener.Close()
	if second, err := ListenControl(path); err == nil {
		second.Close()
		t.Error("a living one's socket was taken")
	}
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if second, err := ListenControl(plain); err == nil {
		second.Close()
	}
	if text, _ := os.ReadFile(plain); string(text) != "kept" {
		t.Error("a file that is no socket was replaced")
	}
}
