package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"upkeep"
	"upkeep/internal/secret"
)

// maxRequest bounds a certificate request in bytes.
const maxRequest = 8 << 10

// Issue makes a certificate, in DER, for the key in a request (PKCS #10 in DER).
// Nothing else that the request asks for is given: the name is the server's, as
// control has it.
func (a *Authority) Issue(server string, request []byte) ([]byte, upkeep.Certificate, error) {
	none := upkeep.Certificate{}
	if !upkeep.ValidObject(server) {
		return nil, none, fmt.Errorf("issuing a certificate: %.80q is not the name of a server", server)
	}
	if len(request) > maxRequest {
		return nil, none, fmt.Errorf("issuing a certificate for %s: the request has %d bytes, and at most %d are possible", server, len(request), maxRequest)
	}
	csr, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = csr.CheckSignature() // whoever asks has the key
	}
	if err == nil {
		err = acceptable(csr.PublicKey)
	}
	if err != nil {
		return nil, none, fmt.Errorf("issuing a certificate for %s: the request: %w", server, err)
	}
	template := a.leaf(AgentName(server), x509.ExtKeyUsageClientAuth)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, csr.PublicKey, a.key)
	if err != nil {
		return nil, none, fmt.Errorf("issuing a certificate for %s: %w", server, err)
	}
	return der, upkeep.Certificate{
		Server: server, Serial: template.SerialNumber.Text(16), Issued: a.now().UTC(), Expires: template.NotAfter,
	}, nil
}

// acceptable refuses keys that agents do not make: weak ones, and large ones that
// cost control time at each handshake.
func acceptable(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return errors.New("its key must be ECDSA P-256 or Ed25519")
}

func (a *Authority) leaf(name string, usage x509.ExtKeyUsage) *x509.Certificate {
	now := a.now()
	end := now.Add(leafLife)
	if end.After(a.certificate.NotAfter) {
		end = a.certificate.NotAfter
	}
	return &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: name[:min(len(name), 64)]}, // ub-common-name
		DNSNames:     []string{name},
		NotBefore:    now.Add(-early),
		NotAfter:     end.UTC().Truncate(time.Second),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}
}

// RenewAt is when a certificate should be replaced: when half of its life is over.
func RenewAt(certificate *x509.Certificate) time.Time {
	return certificate.NotBefore.Add(certificate.NotAfter.Sub(certificate.NotBefore) / 2)
}

// Control is the certificate of control's listener, with the authority's behind
// it, so that an agent that joins can compare that with its token.
func (a *Authority) Control() *tls.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.control
}

// Renew makes control a new certificate when half of the life of the old one is
// over, or when there is none. It is cheap when there is nothing to do. After an
// error the old one stays in use.
func (a *Authority) Renew() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	path := filepath.Join(a.dir, controlFile)
	if a.control == nil {
		// What is in the file is used if it can be; unlike the authority's key, this
		// one is nothing that anybody has to know again.
		found, err := a.readControl(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading control's certificate: %w", err)
		}
		a.control = found
	}
	if a.control != nil && a.now().Before(RenewAt(a.control.Leaf)) {
		return nil
	}
	made, err := a.makeControl(path)
	if err != nil {
		return fmt.Errorf("renewing control's certificate: %w", err)
	}
	a.control = made
	return nil
}

// readControl returns nil without an error for a certificate that is of no use
// any more.
func (a *Authority) readControl(path string) (*tls.Certificate, error) {
	der, key, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	if len(der) == 0 {
		return nil, nil
	}
	leaf, err := x509.ParseCertificate(der[0])
	if err != nil {
		return nil, nil // it is made anew
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: ControlName, CurrentTime: a.now()})
	private, is := key.(*ecdsa.PrivateKey)
	if err != nil || !is || !private.PublicKey.Equal(leaf.PublicKey) {
		return nil, nil // it is made anew
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.certificate.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (a *Authority) makeControl(path string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := a.leaf(ControlName, x509.ExtKeyUsageServerAuth)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	text, err := encode(key, der)
	if err != nil {
		return nil, err
	}
	if err := secret.Write(path, text); err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
