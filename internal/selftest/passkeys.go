package selftest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// authenticator is a device that makes passkeys (Web Authentication, level 2). It says
// whatever it is made to say, which real ones do not.
type authenticator struct {
	key          *ecdsa.PrivateKey
	id, handle   []byte
	count        uint32
	flags        byte
	host, origin string
	kind         string // of the ceremony, in place of the one that it is
}

// Flags of authenticator data (section 6.1): somebody is there, and was verified; the
// public key comes with it.
const (
	somebodyThere, somebodyVerified, keyIncluded = 0x01, 0x04, 0x40
)

func newAuthenticator(origin string) (*authenticator, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	rand.Read(id)
	return &authenticator{key: key, id: id, flags: somebodyThere | somebodyVerified, host: "localhost", origin: origin}, nil
}

func base64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// askedOfDevice is what a browser hands on to a device.
type askedOfDevice struct {
	PublicKey struct {
		Challenge string
		User      struct{ ID string }
	}
}

func (d *authenticator) data(more byte) []byte {
	host := sha256.Sum256([]byte(d.host))
	return binary.BigEndian.AppendUint32(append(host[:], d.flags|more), d.count)
}

func (d *authenticator) answer(response map[string]string) string {
	text, _ := json.Marshal(map[string]any{"id": base64URL(d.id), "rawId": base64URL(d.id), "type": "public-key", "clientExtensionResults": struct{}{}, "response": response})
	return string(text)
}

func (d *authenticator) client(kind, challenge string) []byte {
	if d.kind != "" {
		kind = d.kind
	}
	text, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": d.origin, "crossOrigin": false})
	return text
}

// made answers an offer of a passkey. Its CBOR is written by hand: there are five values.
func (d *authenticator) made(asked askedOfDevice) (string, error) {
	var err error
	if d.handle, err = base64.RawURLEncoding.DecodeString(asked.PublicKey.User.ID); err != nil {
		return "", err
	}
	point, err := d.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return "", err
	}
	data := append(d.data(keyIncluded), make([]byte, 16)...) // of no model
	data = append(binary.BigEndian.AppendUint16(data, uint16(len(d.id))), d.id...)
	data = append(data, 0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32) // ES256 on P-256
	data = append(append(append(data, point[1:33]...), 0x22, 0x58, 32), point[33:]...)
	object := append([]byte("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58"), byte(len(data)))
	return d.answer(map[string]string{"clientDataJSON": base64URL(d.client("webauthn.create", asked.PublicKey.Challenge)), "attestationObject": base64URL(append(object, data...))}), nil
}

// shown answers the question for a passkey.
func (d *authenticator) shown(asked askedOfDevice) (string, error) {
	d.count++
	client, data := d.client("webauthn.get", asked.PublicKey.Challenge), d.data(0)
	sum := sha256.Sum256(client)
	digest := sha256.Sum256(append(slices.Clone(data), sum[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, d.key, digest[:])
	return d.answer(map[string]string{"clientDataJSON": base64URL(client), "authenticatorData": base64URL(data), "signature": base64URL(signature), "userHandle": base64URL(d.handle)}), err
}

// passkeyDoor is a browser at control's pages, under a name for which there are passkeys.
type passkeyDoor struct {
	w        *World
	headers  []string
	origin   string
	attempts int
}

// ceremony asks for options at a path, and returns them with the cookie that belongs
// to them.
func (p *passkeyDoor) ceremony(ctx context.Context, path string, form url.Values, headers ...string) (asked askedOfDevice, cookie string, err error) {
	got, err := p.w.speak(ctx, "POST", path, form.Encode(), append(headers, p.headers...)...)
	if err != nil {
		return asked, "", err
	}
	cookies := (&http.Response{Header: got.header}).Cookies()
	if got.status != http.StatusOK || len(cookies) != 1 {
		return asked, "", fmt.Errorf("%s is answered with status %d: %.300q", path, got.status, got.body)
	}
	return asked, cookies[0].Name + "=" + cookies[0].Value, json.Unmarshal([]byte(got.body), &asked)
}

// show sends an answer with the cookie of a ceremony, and reports whether that signs in.
func (p *passkeyDoor) show(ctx context.Context, answer, cookie string) (bool, error) {
	p.attempts++
	from := fmt.Sprintf("X-Forwarded-For: 198.51.100.%d", p.attempts) // so that no address is slowed down
	got, err := p.w.speak(ctx, "POST", "/signin/passkey", url.Values{"answer": {answer}}.Encode(), append([]string{from, "Cookie: " + cookie}, p.headers...)...)
	if err != nil {
		return false, err
	}
	for _, one := range (&http.Response{Header: got.header}).Cookies() {
		if one.Value != "" && !strings.Contains(one.Name, "passkey") {
			return true, nil
		}
	}
	return false, nil
}

// honest signs in with a device as it is: without that, a refusal would show nothing.
func (p *passkeyDoor) honest(ctx context.Context, d *authenticator) (answer, cookie string, err error) {
	asked, cookie, err := p.ceremony(ctx, "/signin/passkey/options", nil)
	if err != nil {
		return "", "", err
	}
	if answer, err = d.shown(asked); err != nil {
		return "", "", err
	}
	in, err := p.show(ctx, answer, cookie)
	if err == nil && !in {
		err = errors.New("the user's own passkey does not sign in")
	}
	return answer, cookie, err
}

// enrolled gives a user of the neighbour's a passkey.
func (p *passkeyDoor) enrolled(ctx context.Context) (*authenticator, error) {
	u, err := p.w.customer(ctx, victim)
	if err != nil {
		return nil, err
	}
	in, _, err := p.w.signIn(ctx, u, u.password, nil)
	if err != nil {
		return nil, err
	}
	d, err := newAuthenticator(p.origin)
	if err != nil {
		return nil, err
	}
	asked, cookie, err := p.ceremony(ctx, "/me/passkeys/options", url.Values{"label": {"laptop"}, "present": {u.password}}, "Cookie: "+in)
	if err != nil {
		return nil, err
	}
	answer, err := d.made(asked)
	if err != nil {
		return nil, err
	}
	got, err := p.w.speak(ctx, "POST", "/me/passkeys", url.Values{"label": {"laptop"}, "answer": {answer}}.Encode(), append([]string{"Cookie: " + in + "; " + cookie}, p.headers...)...)
	if err == nil && got.status != http.StatusSeeOther {
		err = fmt.Errorf("the user's own passkey is not taken: status %d", got.status)
	}
	return d, err
}

func forgedPasskeys(ctx context.Context, w *World) error {
	_, port, _ := strings.Cut(w.Closed[0], ":")
	host := "localhost:" + port
	p := &passkeyDoor{w: w, headers: []string{"Host: " + host, formType}, origin: "http://" + host}
	d, err := p.enrolled(ctx)
	if err != nil {
		return err
	}
	stranger, err := newAuthenticator(p.origin)
	if err != nil {
		return err
	}
	for _, lie := range []struct {
		says string
		tell func(d *authenticator)
	}{
		{"signed with another key", func(d *authenticator) { d.key = stranger.key }},
		{"of the tenant's own device, under the neighbour's handle", func(d *authenticator) { d.key, d.id = stranger.key, stranger.id }},
		{"shown to a page of another host", func(d *authenticator) { d.origin = "https://evil.test" }},
		{"for another host", func(d *authenticator) { d.host = "evil.test" }},
		{"of a device that has not verified anybody", func(d *authenticator) { d.flags = somebodyThere }},
		{"of a device at which nobody is", func(d *authenticator) { d.flags = somebodyVerified }},
		{"from another ceremony", func(d *authenticator) { d.kind = "webauthn.create" }},
		{"without a handle", func(d *authenticator) { d.handle = nil }},
	} {
		used, cookie, err := p.honest(ctx, d)
		if err != nil {
			return err
		}
		if in, err := p.show(ctx, used, cookie); err != nil || in {
			return errors.Join(err, fmt.Errorf("an answer that was given before signs in: %v", in))
		}
		_, cookie, err = p.ceremony(ctx, "/signin/passkey/options", nil)
		if err != nil {
			return err
		}
		if in, err := p.show(ctx, used, cookie); err != nil || in {
			return errors.Join(err, fmt.Errorf("an answer to another question signs in: %v", in))
		}
		asked, cookie, err := p.ceremony(ctx, "/signin/passkey/options", nil)
		if err != nil {
			return err
		}
		liar := *d
		lie.tell(&liar)
		answer, err := liar.shown(asked)
		if err != nil {
			return err
		}
		if in, err := p.show(ctx, answer, cookie); err != nil || in {
			return errors.Join(err, fmt.Errorf("a passkey %s signs in: %v", lie.says, in))
		}
	}
	return nil
}
