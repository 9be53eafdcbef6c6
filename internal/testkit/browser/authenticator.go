package browser

import (
	"context"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
)

// Authenticator is a device that keeps passkeys, as the browser has one built in for
// tests: it makes real keys and real signatures, and is touched by itself.
type Authenticator struct {
	b  *Tab
	id webauthn.AuthenticatorID
}

// Authenticator plugs one into the tab, which verifies who touches it and counts how
// often each of its passkeys is used.
func (b *Tab) Authenticator() *Authenticator {
	b.t.Helper()
	a := &Authenticator{b: b}
	call(b, webauthn.Enable, webauthn.EnableParams{})
	a.id = call(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}}).AuthenticatorID
	return a
}

// Credentials are the passkeys in it.
func (a *Authenticator) Credentials() []*webauthn.Credential {
	a.b.t.Helper()
	return call(a.b, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: a.id}).Credentials
}

// Count has a passkey say that it was used so often before.
func (a *Authenticator) Count(credential []byte, count float64) {
	a.b.t.Helper()
	call(a.b, webauthn.SetCredentialProperties, webauthn.SetCredentialPropertiesParams{AuthenticatorID: a.id, CredentialID: credential, SignCount: &count})
}

// Verified sets whether who touches it is the one whose it is.
func (a *Authenticator) Verified(is bool) {
	a.b.t.Helper()
	call(a.b, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: a.id, IsUserVerified: is})
}

// Unverified has it claim nothing of who touched it, whatever it was asked for.
func (a *Authenticator) Unverified(is bool) {
	a.b.t.Helper()
	call(a.b, webauthn.SetResponseOverrideBits, webauthn.SetResponseOverrideBitsParams{AuthenticatorID: a.id, IsBadUV: &is})
}

// call has the browser carry out a command.
func call[P, R any](b *Tab, command cdp.Command[P, R], params P) (result R) {
	b.t.Helper()
	b.Do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) (err error) {
		result, err = cdp.Call(ctx, t, command, params)
		return err
	}))
	return result
}
