package link

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"upkeep"
	"upkeep/internal/link/authority"
	"upkeep/internal/secret"
)

// Identity is what an agent has from its join: who it is, where its control is, and
// how it knows it.
type Identity struct {
	Server string
	// Control is the address of control's agents' listener, as https://HOST:PORT.
	Control string
	// SigningKey is what jobs are signed with.
	SigningKey  ed25519.PublicKey
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
	// Authority has issued this certificate, and control's.
	Authority *x509.Certificate
}

// identityFile is all of an identity in one file, so that no two parts of it can be
// from different joins, and a join that was cut off leaves nothing.
const identityFile = "identity.json"

// identityText is the form of that file.
type identityText struct {
	Server      string `json:"server"`
	Control     string `json:"control"`
	SigningKey  []byte `json:"signing_key"`
	Certificate string `json:"certificate"` // PEM
	Key         string `json:"key"`         // PEM of PKCS #8
	Authority   string `json:"authority"`   // PEM
}

const maxIdentity = 64 << 10

// ReadIdentity reads the identity in a folder. Where none is, the error is
// [fs.ErrNotExist]. An identity that has expired is read.
func ReadIdentity(folder string) (Identity, error) {
	path := filepath.Join(folder, identityFile)
	text, err := secret.Read(path, maxIdentity)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, upkeep.WithHint(fmt.Errorf("this server has not joined a control: %w", err), "run upkeep join with a token of: upkeep server add NAME")
	}
	if err != nil {
		return Identity{}, fmt.Errorf("reading the agent's identity: %w", err)
	}
	identity, err := ParseIdentity(text)
	if err != nil {
		return Identity{}, upkeep.WithHint(fmt.Errorf("reading %s: %w", path, err), "join again with a new token")
	}
	return identity, nil
}

// Write keeps an identity in a folder, which it makes if need be, for its owner
// alone. After a crash there is the one before, or this one.
func (i Identity) Write(folder string) error {
	text, err := i.Text()
	if err != nil {
		return fmt.Errorf("writing the agent's identity: %w", err)
	}
	if err := makeFolder(folder); err != nil {
		return fmt.Errorf("writing the agent's identity: %w", err)
	}
	return secret.Write(filepath.Join(folder, identityFile), text)
}

func makeFolder(folder string) error {
	if err := os.Mkdir(folder, 0o700); err == nil {
		return secret.SyncDir(filepath.Dir(folder))
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); !info.IsDir() || mode&0o077 != 0 {
		return upkeep.WithHint(fmt.Errorf("%s must be a folder for its owner alone, and has mode %04o", folder, mode), "chmod 700 "+folder)
	}
	return nil
}

// Text is the identity as it is kept. It holds the key.
func (i Identity) Text() ([]byte, error) {
	if err := i.validate(); err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(identityText{
		Server: i.Server, Control: i.Control, SigningKey: i.SigningKey,
		Certificate: pemText("CERTIFICATE", i.Certificate.Raw), Key: pemText("PRIVATE KEY", key), Authority: pemText("CERTIFICATE", i.Authority.Raw),
	}, "", "  ")
	return append(text, '\n'), err
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// ParseIdentity reads what [Identity.Text] wrote. Its errors do not repeat the key.
func ParseIdentity(text []byte) (Identity, error) {
	var read identityText
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return Identity{}, errors.New("it is not an identity: no such JSON")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Identity{}, errors.New("it is not an identity: something follows it")
	}
	i := Identity{Server: read.Server, Control: read.Control, SigningKey: read.SigningKey}
	var err error
	if i.Certificate, err = certificateOf(read.Certificate); err != nil {
		return Identity{}, fmt.Errorf("the certificate: %w", err)
	}
	if i.Authority, err = certificateOf(read.Authority); err != nil {
		return Identity{}, fmt.Errorf("the authority's certificate: %w", err)
	}
	block, _ := pem.Decode([]byte(read.Key))
	if block == nil || block.Type != "PRIVATE KEY" {
		return Identity{}, errors.New("the key is not a PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Identity{}, errors.New("the key cannot be read")
	}
	i.Key, _ = key.(*ecdsa.PrivateKey)
	return i, i.validate()
}

func certificateOf(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is not a PEM block")
	}
	return x509.ParseCertificate(block.Bytes)
}

// validate holds that the parts belong together. It does not look at the clock.
func (i Identity) validate() error {
	if _, err := controlURL(i.Control); err != nil {
		return err
	}
	switch {
	case i.Certificate == nil || i.Authority == nil || i.Key == nil:
		return errors.New("the identity is not complete")
	case len(i.SigningKey) != ed25519.PublicKeySize:
		return errors.New("control's signing key is not an Ed25519 key")
	case !i.Authority.IsCA:
		return errors.New("the authority's certificate is not one of an authority")
	case !i.Key.PublicKey.Equal(i.Certificate.PublicKey):
		return errors.New("the key is not that of the certificate")
	}
	server, err := authority.Server(i.Certificate)
	if err != nil {
		return err
	}
	if server != i.Server {
		return fmt.Errorf("the certificate is for the server %s, and not for %.80q", server, i.Server)
	}
	_, err = i.Certificate.Verify(x509.VerifyOptions{
		Roots: pool(i.Authority), CurrentTime: i.Certificate.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("the certificate: %w", err)
	}
	return nil
}

func pool(authority *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(authority)
	return p
}

// Renews refuses an identity that is not the old one with a newer certificate.
// Who keeps identities for another, less trusted process asks this before it writes
// one: the process can renew what it has, and cannot choose another control.
func (i Identity) Renews(old Identity) error {
	if err := i.validate(); err != nil {
		return err
	}
	switch {
	case i.Server != old.Server || i.Control != old.Control:
		return errors.New("a renewed identity is for the same server and control")
	case !i.SigningKey.Equal(old.SigningKey) || !i.Authority.Equal(old.Authority):
		return errors.New("a renewed identity has the keys of the same control")
	case i.Certificate.NotAfter.Before(old.Certificate.NotAfter):
		return errors.New("a renewed identity does not end before the old one")
	}
	return nil
}

// renewAt is when a new certificate is asked for.
func (i Identity) renewAt() time.Time { return authority.RenewAt(i.Certificate) }

// tlsConfig is how the agent speaks to control: it trusts the authority of its
// join and nothing else, and expects control's name, wherever control is.
func (i Identity) tlsConfig(now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      pool(i.Authority),
		ServerName:   authority.ControlName,
		Certificates: []tls.Certificate{{Certificate: [][]byte{i.Certificate.Raw}, PrivateKey: i.Key, Leaf: i.Certificate}},
		NextProtos:   []string{"http/1.1"},
		Time:         now,
	}
}

// newRequest makes a key and the request for a certificate of it. It asks for no
// name: control knows whose it is.
func newRequest() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, der, err
}

// controlURL reads the address of control: https://HOST:PORT and nothing behind it.
// CheckControl refuses what is not the address of a control.
func CheckControl(text string) error {
	_, err := controlURL(text)
	return err
}

func controlURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%.200q is not the address of a control: it must be https://HOST:PORT", text)
	}
	u.Path = ""
	return u, nil
}
