package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func open(t *testing.T) (*Authority, *clock, string) {
	t.Helper()
	c := &clock{time.Now()}
	dir := filepath.Join(t.TempDir(), "link")
	a, err := Open(dir, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return a, c, dir
}

func request(t *testing.T, key any, template x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func p256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestOpenFindsWhatItMade(t *testing.T) {
	a, c, dir := open(t)
	b, err := Open(dir, c.now)
	if err != nil {
		t.Fatal(err)
	}
	if a.Fingerprint() != b.Fingerprint() || !a.SigningKey().Equal(b.SigningKey()) || !a.Control().Leaf.Equal(b.Control().Leaf) {
		t.Error("the keys are others after opening once more")
	}
	err = filepath.WalkDir(filepath.Dir(dir), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == filepath.Dir(dir) {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		if strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("%s is left over", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOpenNeverMakesOtherKeys(t *testing.T) {
	for _, file := range []string{authorityFile, signingFile} {
		for name, harm := range map[string]func(path string) error{
			"gone":     os.Remove,
			"empty":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
			"readable": func(path string) error { return os.Chmod(path, 0o644) },
			"garbage": func(path string) error {
				return os.WriteFile(path, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), 0o600)
			},
		} {
			_, c, dir := open(t)
			if err := harm(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, c.now); err == nil {
				t.Errorf("%s is %s, and an authority is opened", file, name)
			}
		}
	}
	_, c, dir := open(t)
	other, _, otherDir := open(t)
	text, err := os.ReadFile(filepath.Join(otherDir, controlFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, controlFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Open(dir, c.now)
	if err != nil || a.Control().Leaf.Equal(other.Control().Leaf) {
		t.Errorf("another authority's certificate of control is used, %v", err)
	}
}

func TestControlIsRenewedLongBeforeItEnds(t *testing.T) {
	a, c, dir := open(t)
	first := a.Control()
	c.at = RenewAt(first.Leaf).Add(-time.Minute)
	if err := a.Renew(); err != nil || a.Control() != first {
		t.Errorf("renewed too early, or %v", err)
	}
	c.at = RenewAt(first.Leaf)
	if left := first.Leaf.NotAfter.Sub(c.at); left < 80*24*time.Hour {
		t.Errorf("%s before the end is not long before", left)
	}
	elsewhere := dir + ".elsewhere"
	if err := os.Rename(dir, elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(); err == nil || a.Control() != first {
		t.Errorf("a certificate that cannot be kept is used, %v", err)
	}
	if err := os.Rename(elsewhere, dir); err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(); err != nil || a.Control() == first {
		t.Errorf("not renewed: %v", err)
	}
	if a, err := Open(dir, c.now); err != nil || a.Control().Leaf.Equal(first.Leaf) {
		t.Errorf("the renewed one is not kept: %v", err)
	}
}

func TestIssueGivesTheServersNameAndNothingElse(t *testing.T) {
	a, _, _ := open(t)
	der, listed, err := a.Issue("web1", request(t, p256(t), x509.CertificateRequest{
		Subject: pkix.Name{CommonName: ControlName}, DNSNames: []string{ControlName, "web2.agent.upkeep.internal"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	server, err := Server(certificate)
	if err != nil || server != "web1" || Serial(certificate) != listed.Serial || listed.Server != "web1" || !listed.Expires.Equal(certificate.NotAfter) {
		t.Errorf("got %q, %v, listed as %+v", server, err, listed)
	}
	if len(certificate.IPAddresses) != 0 || certificate.IsCA {
		t.Errorf("the certificate has more than was to be given: %v", certificate)
	}
	options := x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if _, err := certificate.Verify(options); err == nil {
		t.Error("an agent's certificate passes for that of a server of TLS, so it could play control")
	}
	options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := certificate.Verify(options); err != nil {
		t.Error(err)
	}
	if _, err := a.Control().Leaf.Verify(options); err == nil {
		t.Error("control's certificate passes for an agent's")
	}
	if _, err := Server(a.Control().Leaf); err == nil {
		t.Error("control's certificate is that of a server")
	}
}

func TestLongestServerName(t *testing.T) {
	a, _, _ := open(t)
	name := strings.Repeat("x", 63)
	der, _, err := a.Issue(name, request(t, p256(t), x509.CertificateRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if got, err := Server(certificate); err != nil || got != name {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestIssueRefuses(t *testing.T) {
	a, _, _ := open(t)
	good := request(t, p256(t), x509.CertificateRequest{})
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		server  string
		request []byte
	}{
		"no server":     {"", good},
		"wildcard":      {"*", good},
		"dots":          {"a.b", good},
		"no request":    {"web1", nil},
		"garbage":       {"web1", []byte("garbage")},
		"not its key":   {"web1", forged},
		"RSA":           {"web1", request(t, weak, x509.CertificateRequest{})},
		"another curve": {"web1", request(t, p521, x509.CertificateRequest{})},
		"long":          {"web1", request(t, p256(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: strings.Repeat("x", maxRequest)}})},
	} {
		if _, _, err := a.Issue(test.server, test.request); err == nil {
			t.Errorf("%s: a certificate was issued", name)
		}
	}
}

// TestTheAuthorityStandsForNoNameOfTheInternet has the key itself sign what it
// should not.
func TestTheAuthorityStandsForNoNameOfTheInternet(t *testing.T) {
	a, c, _ := open(t)
	for _, template := range []x509.Certificate{
		{DNSNames: []string{"www.example.com"}},
		{DNSNames: []string{"upkeep.internal.example.com"}},
		{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}},
		{IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}},
		{EmailAddresses: []string{"ceo@example.com"}},
	} {
		template.SerialNumber = big.NewInt(1)
		template.NotBefore, template.NotAfter = c.at.Add(-time.Hour), c.at.Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, &template, a.certificate, p256(t).Public(), a.key)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: c.at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
			t.Errorf("a certificate for %v%v%v is good", template.DNSNames, template.IPAddresses, template.EmailAddresses)
		}
	}
}

func TestTokens(t *testing.T) {
	a, c, _ := open(t)
	token, invitation := a.Invite("web1", TokenLife)
	got, err := ParseToken(" " + token.Text() + "\n")
	if err != nil || got != token {
		t.Errorf("got %v", err)
	}
	if got.Fingerprint != a.Fingerprint() || invitation.Hash != Hash(token.Secret) || !invitation.Expires.Equal(c.at.Add(time.Hour)) || invitation.Server != "web1" {
		t.Errorf("invitation is %+v", invitation)
	}
	if other, _ := a.Invite("web1", TokenLife); other.Secret == token.Secret {
		t.Error("two tokens are the same")
	}
	if text := fmt.Sprintf("%v %+v %#v %s", token, token, token, token); strings.Contains(text, token.Text()[20:40]) || !strings.Contains(text, redacted) {
		t.Errorf("printing shows %s", text)
	}
	text := token.Text()
	for i := range text {
		changed := []byte(text)
		if changed[i]++; changed[i] == text[i] {
			continue
		}
		if _, err := ParseToken(string(changed)); err == nil {
			t.Fatalf("character %d was changed, and it is a token", i)
		} else if strings.Contains(err.Error(), text[20:40]) {
			t.Fatalf("the error repeats the token: %v", err)
		}
	}
	for _, bad := range []string{"", "upkeep-join-", text[:len(text)-1], text + "A", strings.ToUpper(text)} {
		if _, err := ParseToken(bad); err == nil {
			t.Errorf("%q is a token", bad)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(Token{}.Text())
	f.Add("upkeep-join-")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil && token.Text() != strings.TrimSpace(text) {
			t.Errorf("%q is read as another token", text)
		}
	})
}
