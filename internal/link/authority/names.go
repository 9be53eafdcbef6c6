package authority

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"upkeep"
)

// domain is what everything that is certified lies below: internal is reserved
// for private use (ICANN board resolution of 29 July 2024).
const domain = "upkeep.internal"

// ControlName is the name that control's certificate is for.
const ControlName = "control." + domain

const agents = ".agent." + domain

// AgentName is the name that the certificate of a server's agent is for.
func AgentName(server string) string { return server + agents }

// Server is whose agent a certificate is for.
func Server(certificate *x509.Certificate) (string, error) {
	if len(certificate.DNSNames) != 1 {
		return "", errors.New("the certificate is not that of an agent")
	}
	server, is := strings.CutSuffix(certificate.DNSNames[0], agents)
	if !is || !upkeep.ValidObject(server) {
		return "", fmt.Errorf("the certificate is for %.100q, which is not an agent", certificate.DNSNames[0])
	}
	return server, nil
}

// Serial is a certificate's serial number as it is listed.
func Serial(certificate *x509.Certificate) string { return certificate.SerialNumber.Text(16) }
