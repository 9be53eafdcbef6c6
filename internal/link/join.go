package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/link/authority"
)

// JoinOptions is what a server needs to join.
type JoinOptions struct {
	Control string // https://HOST:PORT
	Token   string
	// Server refuses a token that is for another one; empty takes what it is for.
	Server string
	// Folder is where the identity is kept. One that is there is replaced.
	Folder string
	Now    func() time.Time
}

// joinTime bounds a join.
const joinTime = 30 * time.Second

// Join gets this server an identity from its control and keeps it. The first thing
// that is looked at is whether the other side is the control that made the token;
// the token is not shown to anybody else. Until the identity is complete and on
// disk, the folder holds what it held before.
func Join(ctx context.Context, options JoinOptions) (Identity, error) {
	control, err := controlURL(options.Control)
	if err != nil {
		return Identity{}, fmt.Errorf("joining: %w", err)
	}
	token, err := authority.ParseToken(options.Token)
	if err != nil {
		return Identity{}, upkeep.WithHint(fmt.Errorf("joining: %w", err), "copy the whole token that upkeep server add has printed")
	}
	// The token is used up by the answer, so what can fail here fails first.
	if err := writable(options.Folder); err != nil {
		return Identity{}, fmt.Errorf("joining: %w", err)
	}
	key, request, err := newRequest()
	if err != nil {
		return Identity{}, fmt.Errorf("joining: %w", err)
	}
	ctx, stop := context.WithTimeout(ctx, joinTime)
	defer stop()
	answer, err := post(ctx, control.String(), token, options, request)
	if err != nil {
		return Identity{}, fmt.Errorf("joining %s: %w", control, err)
	}
	identity := Identity{Server: answer.Server, Control: control.String(), SigningKey: ed25519.PublicKey(answer.SigningKey), Key: key}
	if identity.Certificate, err = x509.ParseCertificate(answer.Certificate); err == nil {
		identity.Authority, err = x509.ParseCertificate(answer.Authority)
	}
	if err == nil && sha256.Sum256(answer.Authority) != token.Fingerprint {
		err = errors.New("the authority is not that of the token")
	}
	if err == nil {
		err = identity.Write(options.Folder)
	}
	if err != nil {
		return Identity{}, upkeep.WithHint(fmt.Errorf("joining %s: control has used the token up, but: %w", control, err), "make another token and join again")
	}
	return identity, nil
}

func writable(folder string) error {
	if err := makeFolder(folder); err != nil {
		return err
	}
	probe, err := os.CreateTemp(folder, ".join.*")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func post(ctx context.Context, control string, token authority.Token, options JoinOptions, request []byte) (joinAnswer, error) {
	body, err := json.Marshal(joinRequest{Secret: token.Secret[:], Server: options.Server, Request: request})
	if err != nil {
		return joinAnswer{}, err
	}
	transport := &http.Transport{TLSClientConfig: pinned(token, options.Now), DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: noRedirect}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, control+joinPath, bytes.NewReader(body))
	if err != nil {
		return joinAnswer{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return joinAnswer{}, explainDial(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxJoin))
	if err != nil {
		return joinAnswer{}, err
	}
	if response.StatusCode != http.StatusOK {
		return joinAnswer{}, refusal(response.StatusCode, text)
	}
	var answer joinAnswer
	if err := json.Unmarshal(text, &answer); err != nil {
		return joinAnswer{}, fmt.Errorf("the answer cannot be read: %w", err)
	}
	return answer, nil
}

// pinned knows control by the fingerprint in the token.
func pinned(token authority.Token, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: authority.ControlName,
		NextProtos: []string{"http/1.1"},
		// The authority is not known yet, only its fingerprint; VerifyConnection does
		// the whole verification with the certificate that has it.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			chain := state.PeerCertificates
			for _, candidate := range chain[min(1, len(chain)):] {
				if sha256.Sum256(candidate.Raw) != token.Fingerprint {
					continue
				}
				_, err := chain[0].Verify(x509.VerifyOptions{
					Roots: pool(candidate), DNSName: authority.ControlName, CurrentTime: now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				return err
			}
			return errNotControl
		},
	}
}

var errNotControl = upkeep.WithHint(errors.New("what answers there is not the control that made the token; the token was not sent to it"),
	"check the address; if it is right, somebody is in between")

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// refusal is what control said instead of yes.
func refusal(status int, text []byte) error {
	sentence := strings.TrimSpace(printable(string(text)))
	if sentence == "" {
		sentence = http.StatusText(status)
	}
	err := fmt.Errorf("control says: %s", strings.TrimPrefix(sentence, upkeep.ErrRefused.Error()+": "))
	switch status {
	case http.StatusForbidden, http.StatusConflict, http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", upkeep.ErrRefused, err)
	}
	return err
}

// explainDial adds what a person can do about a connection that did not come about.
func explainDial(err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var op *net.OpError
	switch {
	case errors.As(err, &unknown):
		return upkeep.WithHint(fmt.Errorf("what answers there is not the control that this server has joined: %w", err), "check the address; after a new start of control with other keys, join again")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return upkeep.WithHint(fmt.Errorf("control's certificate is not valid now: %w", err), "check the clocks of this server and of control")
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "expired"):
		return upkeep.WithHint(fmt.Errorf("%w: control does not take this server's certificate: it has expired: %w", upkeep.ErrRefused, err), "join again with a new token")
	case errors.As(err, &op) && op.Op == "remote error":
		return upkeep.WithHint(fmt.Errorf("%w: control does not take this server's certificate: %w", upkeep.ErrRefused, err), "join again with a new token")
	}
	return err
}
