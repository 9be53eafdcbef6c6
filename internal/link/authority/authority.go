// Package authority knows who is who: it holds the keys by which control and its
// agents recognise each other, issues their certificates, and makes and reads the
// tokens with which an agent joins. It opens no connection.
//
// The authority is upkeep's own and for nothing else. Its certificate is
// constrained to names below upkeep.internal (RFC 5280 section 4.2.1.10), so that
// even its key in wrong hands, and its certificate in somebody's browser, would
// stand for no name of the Internet. Names and not addresses are certified:
// control is control wherever it is reached, and moves without new certificates.
package authority

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/secret"
)

// How long certificates last. They are renewed when half of it is over: a server
// may be off for months and find its way back. Whether a certificate is still
// taken is not decided by its age but by the list of those that are, see
// package link.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	leafLife      = 180 * 24 * time.Hour
	// early is by how much clocks of servers may be late.
	early = time.Hour
)

// Files in the authority's folder.
const (
	authorityFile = "authority.pem" // certificate and key
	signingFile   = "signing.pem"   // key by which jobs are signed
	controlFile   = "control.pem"   // certificate and key of control's listener
)

// Authority is the keys of one control.
type Authority struct {
	dir         string
	now         func() time.Time
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	signing     ed25519.PrivateKey

	mu      sync.Mutex
	control *tls.Certificate
}

// Open reads the authority in a folder, and makes it when there is no such
// folder. It is made as a whole or not at all. A folder in which something is
// missing is refused and not fixed: with another key, no agent would know
// control again.
func Open(dir string, now func() time.Time) (*Authority, error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, now()); err != nil {
			return nil, fmt.Errorf("making the authority in %s: %w", dir, err)
		}
	}
	a := &Authority{dir: dir, now: now}
	if err := a.read(); err != nil {
		return nil, upkeep.WithHint(fmt.Errorf("reading the authority: %w", err),
			"restore "+dir+" from a backup; without it, every server has to join again")
	}
	if err := a.Renew(); err != nil {
		return nil, err
	}
	return a, nil
}

// create makes the folder beside its place and then moves it there.
func create(dir string, now time.Time) error {
	parent := filepath.Dir(dir)
	temp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".*") // mode 0700
	if err != nil {
		return err
	}
	if err := fill(temp, now); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	if err := os.Rename(temp, dir); err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return secret.SyncDir(parent)
}

func fill(dir string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := authorityTemplate(now)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	both, err := encode(key, der)
	if err != nil {
		return err
	}
	_, signing, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	alone, err := encode(signing)
	if err != nil {
		return err
	}
	return errors.Join(secret.Write(filepath.Join(dir, authorityFile), both), secret.Write(filepath.Join(dir, signingFile), alone))
}

func authorityTemplate(now time.Time) *x509.Certificate {
	constraint := []string{domain}
	return &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "upkeep authority"},
		NotBefore:             now.Add(-early),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         constraint,
		PermittedEmailAddresses:     constraint,
		PermittedURIDomains:         constraint,
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
	}
}

// serial is random, as RFC 5280 section 4.1.2.2 has it at most 20 octets long.
func serial() *big.Int {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails, see crypto/rand
	raw[0] = raw[0]&0x7f | 0x40
	return new(big.Int).SetBytes(raw[:])
}

func (a *Authority) read() error {
	der, key, err := readPEM(filepath.Join(a.dir, authorityFile))
	if err != nil {
		return err
	}
	private, is := key.(*ecdsa.PrivateKey)
	if !is || len(der) != 1 {
		return fmt.Errorf("%s must hold one certificate and its ECDSA key", filepath.Join(a.dir, authorityFile))
	}
	if a.certificate, err = x509.ParseCertificate(der[0]); err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Join(a.dir, authorityFile), err)
	}
	if !private.PublicKey.Equal(a.certificate.PublicKey) {
		return fmt.Errorf("the key in %s is not that of the certificate in it", filepath.Join(a.dir, authorityFile))
	}
	a.key = private
	if _, key, err = readPEM(filepath.Join(a.dir, signingFile)); err != nil {
		return err
	}
	if a.signing, is = key.(ed25519.PrivateKey); !is {
		return fmt.Errorf("%s must hold an Ed25519 key", filepath.Join(a.dir, signingFile))
	}
	return nil
}

// maxFile bounds what is read of a file of keys.
const maxFile = 64 << 10

// readPEM reads certificates and one key in PKCS #8.
func readPEM(path string) (certificates [][]byte, key any, err error) {
	text, err := secret.Read(path, maxFile)
	if err != nil {
		return nil, nil, err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE":
			certificates = append(certificates, block.Bytes)
		case "PRIVATE KEY":
			if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
				return nil, nil, fmt.Errorf("reading %s: %w", path, err)
			}
		}
	}
	if key == nil {
		return nil, nil, fmt.Errorf("reading %s: there is no private key in it", path)
	}
	return certificates, key, nil
}

func encode(key any, certificates ...[]byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var text []byte
	for _, certificate := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...)
	}
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), nil
}

// Certificate is the authority's own, in DER.
func (a *Authority) Certificate() []byte { return a.certificate.Raw }

// Fingerprint is SHA-256 of [Authority.Certificate]: what a token carries.
func (a *Authority) Fingerprint() [sha256.Size]byte { return sha256.Sum256(a.certificate.Raw) }

// Pool is the authority as the only one that is trusted.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// SigningKey is the key by which jobs are signed. Agents have its public half
// from the join.
func (a *Authority) SigningKey() ed25519.PrivateKey { return a.signing }
