package link

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"upkeep"
	"upkeep/internal/link/authority"
)

// joinRequest is what an agent posts to join. It has seen by then that the other
// side is the control of its token.
type joinRequest struct {
	Secret []byte `json:"secret"` // of the token
	// Server is which server the agent takes itself for; empty if it leaves that to
	// the token.
	Server  string `json:"server,omitempty"`
	Request []byte `json:"request"` // PKCS #10, DER
}

// joinAnswer is what it gets.
type joinAnswer struct {
	Server      string `json:"server"`
	Certificate []byte `json:"certificate"` // DER
	Authority   []byte `json:"authority"`   // DER
	SigningKey  []byte `json:"signing_key"` // Ed25519
}

// maxJoin bounds a request and an answer in bytes.
const maxJoin = 32 << 10

// join lets an agent in that has a token.
func (h *Hub) join(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.TLS == nil {
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "an agent joins by POST over TLS")
		return
	}
	source := network(r.RemoteAddr)
	if h.joins.blocked(source, h.Now()) {
		h.report("guess/"+source, "", "too many join tokens from "+source+" were refused; it has to wait")
		w.Header().Set("Retry-After", fmt.Sprint(int(h.joins.window/time.Second)))
		refuse(w, http.StatusTooManyRequests, fmt.Sprintf("too many tokens from %s were refused; wait %s", source, h.joins.window))
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJoin))
	if err != nil {
		refuse(w, http.StatusBadRequest, "the request cannot be read: "+err.Error())
		return
	}
	var request joinRequest
	if err := json.Unmarshal(text, &request); err != nil || len(request.Secret) != len(authority.Token{}.Secret) {
		h.joins.add(source, h.Now())
		refuse(w, http.StatusBadRequest, "the request is not one to join")
		return
	}
	answer, err := h.redeem(r.Context(), request)
	switch {
	case err == nil:
		h.tell(answer.Server, fmt.Sprintf("the server %s has joined from %s", answer.Server, r.RemoteAddr))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // an agent that does not read it has not joined
	case isAnswer(err):
		h.joins.add(source, h.Now())
		h.Log.Warn("a server did not join", "from", r.RemoteAddr, "error", err)
		refuse(w, http.StatusForbidden, err.Error())
	default:
		h.Log.Error("a server did not join", "from", r.RemoteAddr, "error", err)
		refuse(w, http.StatusServiceUnavailable, "control cannot let a server join at the moment; its log says why")
	}
}

// redeem checks a token and uses it up. Its refusals are for whoever has it.
func (h *Hub) redeem(ctx context.Context, request joinRequest) (joinAnswer, error) {
	none := joinAnswer{}
	hash := authority.Hash([16]byte(request.Secret))
	invitation, err := h.Roster.Invitation(ctx, hash)
	switch {
	case errors.Is(err, upkeep.ErrNotFound):
		return none, fmt.Errorf("%w: this token is not known here: it was withdrawn, or a newer one was made for its server", upkeep.ErrRefused)
	case err != nil:
		return none, err
	case !invitation.Used.IsZero():
		return none, fmt.Errorf("%w: this token was used at %s; if it was not you, revoke the certificate of %s",
			upkeep.ErrRefused, invitation.Used.UTC().Format(time.RFC3339), invitation.Server)
	case !h.Now().Before(invitation.Expires):
		return none, fmt.Errorf("%w: this token expired at %s", upkeep.ErrRefused, invitation.Expires.UTC().Format(time.RFC3339))
	case request.Server != "" && request.Server != invitation.Server:
		return none, fmt.Errorf("%w: this token is for the server %s, and not for %.80q", upkeep.ErrRefused, invitation.Server, request.Server)
	}
	der, certificate, err := h.Authority.Issue(invitation.Server, request.Request)
	if err != nil {
		return none, fmt.Errorf("%w: %w", upkeep.ErrRefused, err)
	}
	if err := h.Roster.Redeem(ctx, hash, certificate); err != nil {
		return none, err
	}
	return joinAnswer{
		Server: invitation.Server, Certificate: der, Authority: h.Authority.Certificate(),
		SigningKey: h.Authority.SigningKey().Public().(ed25519.PublicKey),
	}, nil
}

// renewPause is how often an agent may have a new certificate over one link.
const renewPause = time.Hour

// aside answers what agents ask of the link itself.
func (h *Hub) aside(link *held, conn *wire, e envelope) {
	if e.Renew == nil {
		return
	}
	h.mu.Lock()
	early := !link.renewed.IsZero() && h.Now().Sub(link.renewed) < renewPause
	if !early {
		link.renewed = h.Now()
	}
	h.mu.Unlock()
	answer := renewed{Error: "a new certificate was issued a moment ago"}
	ctx, stop := context.WithTimeout(context.Background(), h.patient)
	defer stop()
	if !early {
		answer = h.renew(ctx, link, e.Renew.Request)
	}
	if err := conn.sendAside(ctx, envelope{Renewed: &answer}); err != nil {
		h.Log.Warn("an agent did not get its new certificate", "server", link.server, "error", err)
	}
}

func (h *Hub) renew(ctx context.Context, link *held, request []byte) renewed {
	der, certificate, err := h.Authority.Issue(link.server, request)
	if err == nil {
		err = h.Roster.AddCertificate(ctx, link.serial, certificate)
	}
	if err != nil {
		h.Log.Error("the certificate of an agent is not renewed", "server", link.server, "error", err)
		return renewed{Error: "control cannot issue a certificate; its log says why"}
	}
	h.Log.Info("the certificate of an agent is renewed", "server", link.server, "expires", certificate.Expires)
	return renewed{Certificate: der}
}
