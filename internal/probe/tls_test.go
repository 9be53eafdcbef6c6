package probe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
)

// authority is a certificate authority made for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, ends time.Time) authority {
	t.Helper()
	a := authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// file writes the authority's certificate to path.
func (a authority) file(t *testing.T, path string) string {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve runs an HTTPS server with a certificate of the authority for www.example.test
// and 127.0.0.1, and returns its port. named is given the name that the client
// asked for.
func (a authority) serve(t *testing.T, starts, ends time.Time, named chan<- string) int {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: starts, NotAfter: ends,
		DNSNames: []string{"www.example.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if named != nil {
				named <- hello.ServerName
			}
			return nil, nil
		},
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return port(t, server.Listener.Addr())
}

func secure(port int, edit func(*upkeep.Check)) upkeep.Check {
	return web(port, func(c *upkeep.Check) {
		c.Type = upkeep.CheckHTTPS
		if edit != nil {
			edit(c)
		}
	})
}

func TestTLS(t *testing.T) {
	now := time.Now()
	year := now.Add(365 * 24 * time.Hour)
	a := newAuthority(t, year)
	ca := a.file(t, filepath.Join(t.TempDir(), "ca.pem"))
	other := newAuthority(t, year).file(t, filepath.Join(t.TempDir(), "other.pem"))
	expired, soon := now.Add(-time.Hour), now.Add(3*24*time.Hour+time.Hour)
	good := a.serve(t, now.Add(-time.Hour), year, nil)
	plain := serve(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
	trusting := func(c *upkeep.Check) { c.CAFile = ca }
	blind := func(c *upkeep.Check) { no := false; c.TLSVerify = &no }
	date := func(at time.Time) string { return at.UTC().Format(time.DateTime) + " UTC" }
	refused := func(reason string) Result { return Result{Refused: true, Reason: reason} }
	for _, c := range []struct {
		name string
		port int
		edit func(*upkeep.Check)
		want Result
	}{
		{"good", good, trusting, Result{OK: true}},
		{"unknown to the system", good, nil, refused("certificate is signed by an unknown authority")},
		{"unknown to the file", good, func(c *upkeep.Check) { c.CAFile = other }, refused("certificate is signed by an unknown authority")},
		{"not verified", good, blind, Result{OK: true}},
		{"another name", good, func(c *upkeep.Check) { trusting(c); c.Host = "mail.example.test" },
			refused("certificate is not for mail.example.test")},
		{"its name", good, func(c *upkeep.Check) { trusting(c); c.Host = "www.example.test" }, Result{OK: true}},
		{"expired", a.serve(t, now.Add(-2*time.Hour), expired, nil), trusting, refused("certificate expired on " + date(expired))},
		{"expired, not verified", a.serve(t, now.Add(-2*time.Hour), expired, nil), blind,
			Result{OK: true, Warning: "certificate expired on " + date(expired)}},
		{"not yet", a.serve(t, soon, year, nil), trusting, refused("certificate is not valid before " + date(soon))},
		{"ends soon", a.serve(t, expired, soon, nil), trusting,
			Result{OK: true, Warning: "certificate ends in 3 days, on " + date(soon)}},
		{"ends soon, who cares", a.serve(t, expired, soon, nil), func(c *upkeep.Check) { trusting(c); c.ExpiryWarn = every(24 * time.Hour) },
			Result{OK: true}},
		{"no TLS", plain, trusting, refused("no TLS is spoken on this port")},
	} {
		same(t, c.name, once(t, "127.0.0.1", secure(c.port, c.edit)), c.want)
	}
}

// TestTLSChainExpiry has a leaf that outlives its authority.
func TestTLSChainExpiry(t *testing.T) {
	ends := time.Now().Add(5*time.Hour + time.Minute)
	a := newAuthority(t, ends)
	ca := a.file(t, filepath.Join(t.TempDir(), "ca.pem"))
	p := a.serve(t, time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour), nil)
	same(t, "chain", once(t, "127.0.0.1", secure(p, func(c *upkeep.Check) { c.CAFile = ca })),
		Result{OK: true, Warning: "certificate ends within a day, on " + ends.UTC().Format(time.DateTime) + " UTC"})
}

func TestTLSServerName(t *testing.T) {
	named := make(chan string, 1)
	a := newAuthority(t, time.Now().Add(time.Hour*1000))
	p := a.serve(t, time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour), named)
	once(t, "127.0.0.1", secure(p, func(c *upkeep.Check) { c.Host = "www.example.test" }))
	if got := <-named; got != "www.example.test" {
		t.Errorf("SNI %q", got)
	}
}

// TestCAFile changes the file under a running check.
func TestCAFile(t *testing.T) {
	later := time.Now().Add(1000 * time.Hour)
	right, wrong := newAuthority(t, later), newAuthority(t, later)
	path := filepath.Join(t.TempDir(), "ca.pem")
	c := secure(right.serve(t, time.Now().Add(-time.Hour), later, nil), func(c *upkeep.Check) {
		c.CAFile, c.Interval, c.Timeout = path, every(100*time.Millisecond), every(90*time.Millisecond)
	})
	e := newEngine(t, Options{})
	if err := e.Preflight(c); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("without the file, Preflight says %v", err)
	}
	o := newObserver()
	e.Set(map[Key]Spec{"k": {Target: "127.0.0.1", Check: c, Observe: o.observe}})
	fits := func(r Result) bool { return r.Void && strings.Contains(r.Reason, "no such file") }
	until(t, o, "void without the file", fits)
	wrong.file(t, path)
	until(t, o, "refused with the wrong authority", func(r Result) bool { return r.Refused })
	if err := e.Preflight(c); err != nil {
		t.Errorf("with the file, Preflight says %v", err)
	}
	right.file(t, path)
	until(t, o, "well with the right authority", func(r Result) bool { return r.OK })
	if err := os.WriteFile(path, []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	until(t, o, "void with nonsense", func(r Result) bool { return r.Void && strings.Contains(r.Reason, "no certificate in PEM form") })
}
