package probe

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// rootsFile is a PEM bundle of certificate authorities that is read again when
// the file changes.
type rootsFile struct {
	path string

	mu    sync.Mutex
	seen  os.FileInfo
	roots *x509.CertPool
}

func (f *rootsFile) pool() (*x509.CertPool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("reading CA file: %w", err)
	}
	if f.roots != nil && os.SameFile(info, f.seen) && info.ModTime().Equal(f.seen.ModTime()) && info.Size() == f.seen.Size() {
		return f.roots, nil
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("reading CA file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading CA file %s: it holds no certificate in PEM form", f.path)
	}
	f.seen, f.roots = info, roots
	return roots, nil
}

func (h *httpCheck) tlsSettings(host string) (*tls.Config, error) {
	settings := &tls.Config{ServerName: host}
	if h.check.TLSVerify != nil && !*h.check.TLSVerify {
		settings.InsecureSkipVerify = true
		return settings, nil
	}
	if h.roots == nil {
		return settings, nil
	}
	var err error
	settings.RootCAs, err = h.roots.pool()
	return settings, err
}

// tlsReason turns the error of a handshake into a plain sentence. local means
// that it is this machine that cannot verify anything.
func tlsReason(err error, host string) (reason string, local bool) {
	var (
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		roots     x509.SystemRootsError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.As(err, &roots):
		return "", true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if time.Now().Before(invalid.Cert.NotBefore) {
			return "certificate is not valid before " + invalid.Cert.NotBefore.UTC().Format(time.DateTime) + " UTC", false
		}
		return "certificate expired on " + invalid.Cert.NotAfter.UTC().Format(time.DateTime) + " UTC", false
	case errors.As(err, &invalid):
		return clean("certificate is not valid: " + invalid.Error()), false
	case errors.As(err, &authority):
		return "certificate is signed by an unknown authority", false
	case errors.As(err, &hostname):
		return clean("certificate is not for " + host), false
	case errors.As(err, &record):
		return "no TLS is spoken on this port", false
	case errors.As(err, &alert):
		return clean("TLS handshake refused: " + alert.Error()), false
	}
	return "", false
}

// expiryWarning says that the certificate ends within the given span. Of a
// verified one, the whole chain counts: an intermediate that ends is as bad.
func expiryWarning(state tls.ConnectionState, within time.Duration, now time.Time) string {
	if within <= 0 || len(state.PeerCertificates) == 0 {
		return ""
	}
	end := state.PeerCertificates[0].NotAfter
	for i, chain := range state.VerifiedChains {
		first := chain[0].NotAfter
		for _, c := range chain {
			if c.NotAfter.Before(first) {
				first = c.NotAfter
			}
		}
		if i == 0 || first.After(end) {
			end = first
		}
	}
	left := end.Sub(now)
	if left >= within {
		return ""
	}
	on := end.UTC().Format(time.DateTime) + " UTC"
	switch days := int(left / (24 * time.Hour)); {
	case left <= 0:
		return "certificate expired on " + on
	case days == 0:
		return "certificate ends within a day, on " + on
	case days == 1:
		return "certificate ends in 1 day, on " + on
	default:
		return fmt.Sprintf("certificate ends in %d days, on %s", days, on)
	}
}
