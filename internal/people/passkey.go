package people

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"upkeep"
	"upkeep/internal/store"
)

var (
	errPasskey  = upkeep.WithHint(fmt.Errorf("%w: the passkey was not accepted", upkeep.ErrRefused), "try again, or sign in with the password")
	errUnknown  = upkeep.WithHint(fmt.Errorf("%w: this passkey is not one of upkeep's any more", upkeep.ErrRefused), "sign in with the password, and remove it from the device")
	errCeremony = upkeep.WithHint(fmt.Errorf("%w: that took too long, or was sent twice", upkeep.ErrRefused), "begin again")
)

// maxAnswer bounds what a browser sends of a passkey: attestations of hardware, which
// are not asked for, have a few kilobytes.
const maxAnswer = 32 << 10

// relying is the party that a passkey is for: pages of one origin, by the name in it.
//
// Users have to be verified, by a finger, a face or a PIN, and so a passkey is both
// what somebody has and what they are or know: it stands for the password and the
// code together. Who makes the device is not asked for: it would tell devices apart
// and is nothing that a decision here hangs on.
func relying(origin string) (*webauthn.WebAuthn, error) {
	at, err := url.Parse(origin)
	if err != nil {
		return nil, fmt.Errorf("reading the origin %q: %w", origin, err)
	}
	waits := webauthn.TimeoutConfig{Timeout: ceremonyTime, TimeoutUVD: ceremonyTime}
	return webauthn.New(&webauthn.Config{
		RPID: at.Hostname(), RPDisplayName: "upkeep " + at.Hostname(), RPOrigins: []string{origin},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(), UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{Login: waits, Registration: waits},
		// Some programs that keep passkeys tell of extensions unasked. Nothing is made
		// of what they tell.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
}

// holder is a user as the library wants one.
type holder struct {
	name   string
	handle []byte
	keys   []webauthn.Credential
}

func (h holder) WebAuthnID() []byte                         { return h.handle }
func (h holder) WebAuthnName() string                       { return h.name }
func (h holder) WebAuthnDisplayName() string                { return h.name }
func (h holder) WebAuthnCredentials() []webauthn.Credential { return h.keys }

func credential(k store.Key) webauthn.Credential {
	return webauthn.Credential{ID: k.Credential, PublicKey: k.Public, Flags: webauthn.CredentialFlags{BackupEligible: k.Synced}}
}

// Passkeys returns the passkeys of a user.
func (p *People) Passkeys(ctx context.Context, name string) ([]upkeep.Passkey, error) {
	keys, err := p.o.Users.Passkeys(ctx, name)
	all := make([]upkeep.Passkey, len(keys))
	for i, k := range keys {
		all[i] = k.Passkey
	}
	return all, err
}

// RemovePasskey removes a passkey of a user, or all with id 0.
func (p *People) RemovePasskey(ctx context.Context, who, name string, id int64) error {
	return p.announce(p.o.Users.RemovePasskey(ctx, who, name, id))
}

// OfferPasskey begins the adding of a passkey by a user who knows the password. It
// returns what the browser is to make one by, and what is to be shown with it.
func (p *People) OfferPasskey(ctx context.Context, name, password, origin, from string) (options []byte, sealed string, err error) {
	known, err := p.present(ctx, name, password, from)
	if err != nil {
		return nil, "", err
	}
	party, err := relying(origin)
	if err != nil {
		return nil, "", err
	}
	keys, err := p.o.Users.Passkeys(ctx, name)
	if err != nil {
		return nil, "", err
	}
	var there []protocol.CredentialDescriptor // which a device has, it does not make again
	for _, k := range keys {
		there = append(there, protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: k.Credential})
	}
	h := holder{name: name, handle: handleOf(known.Handle)}
	creation, session, err := party.BeginRegistration(h, webauthn.WithExclusions(there),
		webauthn.WithCredentialParameters(webauthn.CredentialParametersRecommendedL3()))
	if err != nil {
		return nil, "", fmt.Errorf("offering a passkey: %w", err)
	}
	return p.begin(adding, ceremony{Origin: origin, User: name, Session: *session}, creation)
}

// handleOf is what devices know a user by, or is to be.
func handleOf(kept string) []byte {
	handle, err := base64.RawURLEncoding.DecodeString(kept)
	if err != nil || len(handle) == 0 {
		handle = make([]byte, 32)
		rand.Read(handle)
	}
	return handle
}

// AddPasskey ends the adding of a passkey: the answer is what the browser made of
// what [People.OfferPasskey] returned, label what the user calls it.
func (p *People) AddPasskey(ctx context.Context, name, label, sealed string, answer []byte, origin string) error {
	if fields := (upkeep.Passkey{Name: label}).Validate(); len(fields) > 0 {
		return &upkeep.InvalidError{Fields: fields}
	}
	c, err := p.ceremonies.open(adding, sealed, origin, p.o.Now())
	if err != nil || c.User != name {
		return errCeremony
	}
	party, err := relying(origin)
	if err != nil {
		return err
	}
	made, err := created(party, c.Session, holder{name: name, handle: c.Session.UserID}, answer)
	if err != nil {
		p.o.Log.Warn("a new passkey was refused", "user", name, "why", detail(err))
		return errPasskey
	}
	if !p.ceremonies.spend(c, p.o.Now()) {
		return errCeremony
	}
	_, events, err := p.o.Users.AddPasskey(ctx, "user "+name, name, base64.RawURLEncoding.EncodeToString(c.Session.UserID), store.Key{
		Passkey:    upkeep.Passkey{Name: label, Host: party.Config.RPID, Synced: made.Flags.BackupEligible},
		Credential: made.ID, Public: made.PublicKey, Count: made.Authenticator.SignCount,
	})
	return p.announce(events, err)
}

func created(party *webauthn.WebAuthn, session webauthn.SessionData, h holder, answer []byte) (*webauthn.Credential, error) {
	if len(answer) > maxAnswer {
		return nil, errors.New("the answer is too large")
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return nil, err
	}
	return party.CreateCredential(h, session, parsed)
}

// AskPasskey begins a sign-in. Whoever comes may begin one; nothing is kept of it
// here. It returns what the browser is to look for a passkey by, and what is to be
// shown with it.
func (p *People) AskPasskey(origin string) (options []byte, sealed string, err error) {
	party, err := relying(origin)
	if err != nil {
		return nil, "", err
	}
	assertion, session, err := party.BeginDiscoverableLogin()
	if err != nil {
		return nil, "", fmt.Errorf("asking for a passkey: %w", err)
	}
	return p.begin(entering, ceremony{Origin: origin, Session: *session}, assertion)
}

func (p *People) begin(kind string, c ceremony, told any) (options []byte, sealed string, err error) {
	c.Until = p.o.Now().Add(ceremonyTime)
	sealed, err = p.ceremonies.seal(kind, c)
	if err != nil {
		return nil, "", err
	}
	options, err = json.Marshal(told)
	return options, sealed, err
}

// SignInByPasskey is [People.SignIn] by what a browser made of what
// [People.AskPasskey] returned. What is wrong counts as a wrong password does, where
// it is known whose passkey it is said to be, and brings a lock of the password about.
func (p *People) SignInByPasskey(ctx context.Context, sealed string, answer []byte, origin, from, agent string) (secret string, expires time.Time, err error) {
	now := p.o.Now()
	if !p.places.take(place(from), now) {
		return "", time.Time{}, errTooMany
	}
	c, err := p.ceremonies.open(entering, sealed, origin, now)
	if err != nil {
		return "", time.Time{}, errCeremony
	}
	key, err := p.shown(ctx, c, answer, from)
	if err != nil {
		return "", time.Time{}, err
	}
	if !p.ceremonies.spend(c, now) {
		return "", time.Time{}, errCeremony
	}
	secret, in := newSignIn(now, from, agent)
	err = p.announce(p.o.Users.SignInByPasskey(ctx, key.id, key.count, digest(secret), in))
	switch {
	case errors.Is(err, upkeep.ErrNotFound): // removed this moment
		return "", time.Time{}, errUnknown
	case errors.Is(err, upkeep.ErrRefused):
		p.o.Log.Warn("a passkey was refused", "user", key.user, "from", from, "why", err)
		return "", time.Time{}, errPasskey
	case err != nil:
		return "", time.Time{}, err
	}
	p.places.give(place(from))
	return secret, in.Expires, nil
}

// proven is a passkey that was shown to be somebody's.
type proven struct {
	user  string
	id    int64
	count uint32
}

// shown finds whose passkey an answer proves to be there. A lock keeps nobody out who has
// one: it slows guessing down, and there is nothing to guess about a key, while strangers
// who know a name can bring locks about without an end.
func (p *People) shown(ctx context.Context, c ceremony, answer []byte, from string) (proven, error) {
	if len(answer) > maxAnswer {
		return proven{}, errPasskey
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		p.o.Log.Warn("a passkey was refused", "from", from, "why", detail(err))
		return proven{}, errPasskey
	}
	known, err := p.o.Users.ByPasskey(ctx, parsed.RawID)
	switch {
	case errors.Is(err, upkeep.ErrNotFound):
		return proven{}, errUnknown
	case err != nil:
		return proven{}, err
	}
	party, err := relying(c.Origin)
	if err != nil {
		return proven{}, err
	}
	handle, _ := base64.RawURLEncoding.DecodeString(known.Handle)
	whose := func(_, _ []byte) (webauthn.User, error) {
		return holder{name: known.User, handle: handle, keys: []webauthn.Credential{credential(known.Key)}}, nil
	}
	if _, _, err := party.ValidatePasskeyLogin(whose, c.Session, parsed); err != nil {
		p.o.Log.Warn("a passkey was refused", "user", known.User, "from", from, "why", detail(err))
		if err := p.wrong(ctx, known.User, from); !errors.Is(err, errWrong) {
			return proven{}, err
		}
		return proven{}, errPasskey
	}
	return proven{known.User, known.Key.ID, parsed.Response.AuthenticatorData.Counter}, nil
}

// detail is all that the library says of an error: who runs upkeep behind a proxy has
// to see which origin was expected.
func detail(err error) string {
	var told *protocol.Error
	if errors.As(err, &told) && told.DevInfo != "" {
		return told.Details + ": " + told.DevInfo
	}
	return err.Error()
}
