package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link/authority"
)

func TestJoin(t *testing.T) {
	l := newLab(t)
	options := l.options(l.invite("web1"))
	options.Server = "web1"
	identity, err := Join(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := ReadIdentity(options.Folder)
	if err != nil {
		t.Fatal(err)
	}
	if kept.Server != "web1" || kept.Control != l.url || !kept.Key.Equal(identity.Key) || !kept.SigningKey.Equal(l.authority.SigningKey().Public()) {
		t.Errorf("kept: %s at %s", kept.Server, kept.Control)
	}
	for path, want := range map[string]os.FileMode{options.Folder: 0o700, filepath.Join(options.Folder, identityFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want mode %04o", path, info.Mode(), err, want)
		}
	}
	l.agent(kept)
	if c := take(t, l.connected, "the link"); c.server != "web1" {
		t.Errorf("connected as %s", c.server)
	}
	if l.reported("web1 has joined") != 1 {
		t.Errorf("reports: %q", l.reports)
	}
}

func TestJoinRefuses(t *testing.T) {
	l := newLab(t)
	used := l.invite("used")
	if _, err := Join(t.Context(), l.options(used)); err != nil {
		t.Fatal(err)
	}
	replaced := l.invite("web1")
	good := l.invite("web1")
	withdrawn := l.invite("gone")
	if err := l.roster.Revoke(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	invented := authority.Token{Fingerprint: l.authority.Fingerprint()}.Text()
	for name, test := range map[string]struct {
		token, server, control string
		says                   string
	}{
		"used":         {used, "", "", "this token was used at"},
		"replaced":     {replaced, "", "", "not known here"},
		"withdrawn":    {withdrawn, "", "", "not known here"},
		"invented":     {invented, "", "", "not known here"},
		"wrong name":   {good, "web2", "", "is for the server web1, and not for"},
		"not a token":  {"web1", "", "", "begins with upkeep-join-"},
		"cut off":      {good[:70], "", "", "not complete"},
		"plain http":   {good, "", "http://" + l.addr, "must be https://HOST:PORT"},
		"with a path":  {good, "", l.url + "/x", "must be https://HOST:PORT"},
		"nobody there": {good, "", "https://127.0.0.1:1", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			options := l.options(test.token)
			options.Server = test.server
			if test.control != "" {
				options.Control = test.control
			}
			_, err := Join(t.Context(), options)
			says(t, err, nil, test.says)
			if strings.Contains(err.Error(), test.token) {
				t.Errorf("the error shows the token: %v", err)
			}
			nothingIn(t, options.Folder)
		})
	}
	l.setClock(authority.TokenLife)
	_, err := Join(t.Context(), l.options(good))
	says(t, err, upkeep.ErrRefused, "this token expired at")
	l.setClock(0)
	if _, err := Join(t.Context(), l.options(good)); err != nil {
		t.Errorf("a token that was refused for another reason is of no use any more: %v", err)
	}
}

func TestOneTokenLetsOneIn(t *testing.T) {
	l := newLab(t)
	token := l.invite("web1")
	var all sync.WaitGroup
	results := make(chan error, 8)
	for range cap(results) {
		options := l.options(token)
		all.Go(func() {
			_, err := Join(t.Context(), options)
			results <- err
		})
	}
	all.Wait()
	close(results)
	won := 0
	for err := range results {
		if err == nil {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d joined with one token", won)
	}
}

func TestJoiningOnceMoreReplaces(t *testing.T) {
	l := newLab(t)
	options := l.options(l.invite("web1"))
	first, err := Join(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	old := l.agent(first)
	take(t, old.links, "the first link")
	take(t, l.connected, "the first link at control")
	options.Token = l.invite("web1")
	if _, err := Join(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	kept, err := ReadIdentity(options.Folder)
	if err != nil || kept.Key.Equal(first.Key) {
		t.Fatalf("the old identity is still there, %v", err)
	}
	l.agent(kept)
	take(t, l.connected, "the new link")
	says(t, old.failure(), upkeep.ErrRefused, "replaced")
	a := l.agent(first)
	says(t, a.failure(), upkeep.ErrRefused, "does not take the certificate of web1 any more")
}

// TestManInTheMiddleOfAJoin has somebody answer in control's place who has
// everything that can be had without control's keys, even the authority's
// certificate, and keeps what he is told.
func TestManInTheMiddleOfAJoin(t *testing.T) {
	l := newLab(t)
	evil, err := authority.Open(filepath.Join(t.TempDir(), "link"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	own := *evil.Control()
	withReal := own
	withReal.Certificate = [][]byte{own.Certificate[0], l.authority.Certificate()}
	onlyReal := own
	onlyReal.Certificate = [][]byte{own.Certificate[0], own.Certificate[1], l.authority.Certificate()}
	// An agent's certificate is of the right authority, and for another purpose.
	web2 := l.join("web2")
	asAgent := tls.Certificate{Certificate: [][]byte{web2.Certificate.Raw, l.authority.Certificate()}, PrivateKey: web2.Key}
	for name, certificate := range map[string]tls.Certificate{"own authority": own, "authority's certificate": withReal, "both": onlyReal, "an agent's certificate": asAgent} {
		t.Run(name, func(t *testing.T) {
			address, heard := impostor(t, &tls.Config{Certificates: []tls.Certificate{certificate}})
			options := l.options(l.invite("web1"))
			options.Control = "https://" + address
			_, err := Join(t.Context(), options)
			says(t, err, nil, "joining https://"+address)
			nothingIn(t, options.Folder)
			if told := heard(); told != "" {
				t.Errorf("the impostor was told %q", told)
			}
		})
	}
	t.Run("TLS 1.2", func(t *testing.T) {
		address, heard := impostor(t, &tls.Config{Certificates: []tls.Certificate{*l.authority.Control()}, MaxVersion: tls.VersionTLS12})
		options := l.options(l.invite("web1"))
		options.Control = "https://" + address
		_, err := Join(t.Context(), options)
		says(t, err, nil, "protocol version")
		if told := heard(); told != "" {
			t.Errorf("the impostor was told %q", told)
		}
	})
}

// impostor is a TLS server; heard waits for the end of its one connection and
// returns what it was told.
func impostor(t *testing.T, config *tls.Config) (address string, heard func() string) {
	t.Helper()
	listener, err := tls.Listen("tcp4", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err == nil {
			_, _ = io.Copy(&told, conn)
			_ = conn.Close()
		}
	}()
	heard = func() string {
		_ = listener.Close()
		<-done
		return told.String()
	}
	t.Cleanup(func() { heard() })
	return listener.Addr().String(), heard
}

func TestGuessingTokensIsSlow(t *testing.T) {
	l := newLab(t)
	good := l.invite("web1")
	guess := authority.Token{Fingerprint: l.authority.Fingerprint()}
	var err error
	for n := range 12 {
		guess.Secret[0] = byte(n)
		_, err = Join(t.Context(), l.options(guess.Text()))
	}
	says(t, err, nil, "too many tokens from 127.0.0.1 were refused")
	_, err = Join(t.Context(), l.options(good))
	says(t, err, nil, "too many tokens")
	if n := l.reported("too many join tokens from 127.0.0.1"); n != 1 {
		t.Errorf("it was reported %d times", n)
	}
	l.setClock(11 * time.Minute)
	if _, err := Join(t.Context(), l.options(good)); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

func TestJoinTakesNothingElse(t *testing.T) {
	l := newLab(t)
	token, err := authority.ParseToken(l.invite("web1"))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: pinned(token, time.Now), DisableKeepAlives: true}}
	ask := func(method, path string, body []byte) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, l.url+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	secret := token.Secret[:]
	request := func(j joinRequest) []byte {
		text, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, test := range []struct {
		method, path string
		body         []byte
		status       int
	}{
		{"GET", "/join", nil, http.StatusMethodNotAllowed},
		{"GET", "/", nil, http.StatusNotFound},
		{"GET", "/link", nil, http.StatusUnauthorized},
		{"POST", "/join", nil, http.StatusBadRequest},
		{"POST", "/join", []byte(`{"secret":"AAAA"}`), http.StatusBadRequest},
		{"POST", "/join", bytes.Repeat([]byte("x"), maxJoin+1), http.StatusBadRequest},
		{"POST", "/join", request(joinRequest{Secret: secret}), http.StatusForbidden},
		{"POST", "/join", request(joinRequest{Secret: secret, Request: []byte("garbage")}), http.StatusForbidden},
	} {
		if status, text := ask(test.method, test.path, test.body); status != test.status {
			t.Errorf("%s %s %.40q: %d %s, want %d", test.method, test.path, test.body, status, text, test.status)
		}
	}
}

// TestMain is also the agent of TestKillDuringJoin, and that of the figures.
func TestMain(m *testing.M) {
	if folder := os.Getenv("LINK_TEST_JOIN"); folder != "" {
		_, err := Join(context.Background(), JoinOptions{
			Control: os.Getenv("LINK_TEST_CONTROL"), Token: os.Getenv("LINK_TEST_TOKEN"), Folder: folder, Now: time.Now,
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestKillDuringJoin kills processes that join once more, at all times, and finds
// an identity that is complete after each.
func TestKillDuringJoin(t *testing.T) {
	l := newLab(t)
	options := l.options(l.invite("web1"))
	if _, err := Join(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before, err := ReadIdentity(options.Folder)
	if err != nil {
		t.Fatal(err)
	}
	killed, joined := 0, 0
	for n := range 40 {
		cmd := exec.Command(binary)
		cmd.Env = []string{"LINK_TEST_JOIN=" + options.Folder, "LINK_TEST_CONTROL=" + l.url, "LINK_TEST_TOKEN=" + l.invite("web1")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(n)*2*time.Millisecond, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			killed++
		}
		kill.Stop()
		after, err := ReadIdentity(options.Folder)
		if err != nil {
			t.Fatalf("after kill %d: %v", n, err)
		}
		if !after.Key.Equal(before.Key) {
			joined++
		}
		before = after
	}
	t.Logf("%d of 40 were killed, %d joined", killed, joined)
	if killed == 0 {
		t.Error("nothing was killed")
	}
}

func TestIdentityIsReadStrictly(t *testing.T) {
	l := newLab(t)
	web1, web2 := l.join("web1"), l.join("web2")
	text, err := web1.Text()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseIdentity(text); err != nil || got.Server != "web1" {
		t.Fatalf("%v", err)
	}
	for name, change := range map[string]func(*Identity){
		"another server":        func(i *Identity) { i.Server = "web2" },
		"another key":           func(i *Identity) { i.Key = web2.Key },
		"another certificate":   func(i *Identity) { i.Certificate = web2.Certificate },
		"no authority":          func(i *Identity) { i.Authority = nil },
		"itself as authority":   func(i *Identity) { i.Authority = i.Certificate },
		"control's certificate": func(i *Identity) { i.Certificate = l.authority.Control().Leaf },
		"no signing key":        func(i *Identity) { i.SigningKey = nil },
		"no control":            func(i *Identity) { i.Control = "" },
	} {
		wrong := web1
		change(&wrong)
		if _, err := wrong.Text(); err == nil {
			t.Errorf("%s: it is an identity", name)
		}
		if err := wrong.Renews(web1); err == nil {
			t.Errorf("%s: it is a renewed identity", name)
		}
	}
	if err := web2.Renews(web1); err == nil {
		t.Error("another server's identity is a renewed one")
	}
	for _, bad := range []string{"", "{}", "null", string(text) + "{}", strings.Replace(string(text), `"server"`, `"root": 1, "server"`, 1), strings.Replace(string(text), "PRIVATE KEY", "PUBLIC KEY", 2)} {
		if _, err := ParseIdentity([]byte(bad)); err == nil || strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add([]byte(`{"server":"web1","control":"https://h:1","signing_key":"AAAA","certificate":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n","key":"","authority":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		identity, err := ParseIdentity(text)
		if err != nil {
			return
		}
		if _, err := identity.Text(); err != nil {
			t.Errorf("%q is read, but cannot be written: %v", text, err)
		}
	})
}

func TestNetworkOfASource(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1", "[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "[::ffff:192.0.2.1]:5": "192.0.2.1", "[fe80::1%eth0]:5": "fe80::/64", "@": "@",
	} {
		if got := network(remote); got != want {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	a := newAttempts(3, time.Minute)
	for n := range 3 * maxSources {
		a.add(fmt.Sprint(n), noon)
	}
	if n := len(a.newer) + len(a.older); n > 2*maxSources {
		t.Errorf("%d sources are remembered", n)
	}
	for range 3 {
		a.add("x", noon)
	}
	if !a.blocked("x", noon) || a.blocked("x", noon.Add(time.Minute)) || a.blocked("y", noon) {
		t.Error("the wrong ones are blocked")
	}
}
