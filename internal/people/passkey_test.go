package people

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol"

	"upkeep"
)

const here = "https://upkeep.example.test"

// Flags of authenticator data (Web Authentication, section 6.1).
const (
	present  = 1
	verified = 4
	backed   = 8
	hasKey   = 0x40
)

// device is one that does whatever a test wants it to, which real ones do not; those
// are tried in a browser, by the tests of the command. Changed fields are lies.
type device struct {
	key          *ecdsa.PrivateKey
	id, handle   []byte
	count        uint32
	flags        byte
	host, origin string
	kind         string // of the ceremony, as the browser tells it
	signed       func([]byte) []byte
}

func newDevice(t *testing.T) *device {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 16)
	rand.Read(id)
	return &device{key: key, id: id, flags: present | verified, host: "upkeep.example.test", origin: here}
}

func text64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// told is what a browser was asked.
type told struct {
	PublicKey struct {
		Challenge, Attestation, UserVerification, RpID string
		RP                                             struct{ ID string }
		User                                           struct{ ID, Name string }
		AuthenticatorSelection                         struct{ ResidentKey, UserVerification string }
		ExcludeCredentials, AllowCredentials           []struct{ ID string }
	}
}

func readOptions(t *testing.T, options []byte) (o told) {
	t.Helper()
	if err := json.Unmarshal(options, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func (d *device) client(kind, challenge string) []byte {
	if d.kind != "" {
		kind = d.kind
	}
	text, _ := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": d.origin, "crossOrigin": false})
	return text
}

func (d *device) data(more byte) []byte {
	host := sha256.Sum256([]byte(d.host))
	return binary.BigEndian.AppendUint32(append(host[:], d.flags|more), d.count)
}

// make answers the offer of a passkey. CBOR is written by hand: there are five values.
func (d *device) make(t *testing.T, options []byte) []byte {
	t.Helper()
	o := readOptions(t, options)
	handle, err := base64.RawURLEncoding.DecodeString(o.PublicKey.User.ID)
	if err != nil || len(handle) < 16 {
		t.Fatalf("the user is known as %q, %v", o.PublicKey.User.ID, err)
	}
	d.handle = handle
	point, err := d.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	data := append(d.data(hasKey), make([]byte, 16)...) // of no model
	data = binary.BigEndian.AppendUint16(data, uint16(len(d.id)))
	data = append(data, d.id...)
	data = append(data, 0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32) // ES256 on P-256
	data = append(append(append(data, point[1:33]...), 0x22, 0x58, 32), point[33:]...)
	object := append([]byte("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58"), byte(len(data)))
	answer, _ := json.Marshal(map[string]any{"id": text64(d.id), "rawId": text64(d.id), "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]any{"clientDataJSON": text64(d.client("webauthn.create", o.PublicKey.Challenge)), "attestationObject": text64(append(object, data...))}})
	return answer
}

// show answers the question for a passkey.
func (d *device) show(t *testing.T, options []byte) []byte {
	t.Helper()
	d.count++
	client, data := d.client("webauthn.get", readOptions(t, options).PublicKey.Challenge), d.data(0)
	sum := sha256.Sum256(client)
	digest := sha256.Sum256(append(slices.Clone(data), sum[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, d.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if d.signed != nil {
		signature = d.signed(signature)
	}
	answer, _ := json.Marshal(map[string]any{"id": text64(d.id), "rawId": text64(d.id), "type": "public-key", "clientExtensionResults": map[string]any{"credProps": map[string]any{}},
		"response": map[string]any{"clientDataJSON": text64(client), "authenticatorData": text64(data), "signature": text64(signature), "userHandle": text64(d.handle)}})
	return answer
}

// enroll gives ada a passkey in a device.
func (d *desk) enroll(t *testing.T, name string, dev *device) {
	t.Helper()
	options, sealed, err := d.OfferPasskey(t.Context(), name, goodPassword, here, home)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.AddPasskey(t.Context(), name, "laptop", sealed, dev.make(t, options), here); err != nil {
		t.Fatal(err)
	}
}

// enter signs in with a device.
func (d *desk) enter(t *testing.T, dev *device) (string, error) {
	t.Helper()
	options, sealed, err := d.AskPasskey(here)
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := d.SignInByPasskey(t.Context(), sealed, dev.show(t, options), here, home, "browser")
	return secret, err
}

// A passkey stands for the password and the code, says nothing of who is asked for
// one, and is good until it is removed.
func TestPasskey(t *testing.T) {
	d, dev := newDesk(t), newDevice(t)
	ctx := t.Context()
	d.add(t, ada)
	secret := d.NewFactor()
	if _, err := d.SetFactor(ctx, "ada", goodPassword, secret, d.code(t, secret, 0), home); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.OfferPasskey(ctx, "ada", "wrong", here, home); !errors.Is(err, errPresent) {
		t.Errorf("adding one without the password: %v", err)
	}
	options, _, err := d.OfferPasskey(ctx, "ada", goodPassword, here, home)
	if o := readOptions(t, options).PublicKey; err != nil || o.RP.ID != "upkeep.example.test" || o.User.Name != "ada" || o.Attestation != "none" ||
		o.AuthenticatorSelection.ResidentKey != "required" || o.AuthenticatorSelection.UserVerification != "required" || len(o.Challenge) < 22 {
		t.Errorf("asked for is %s, %v", options, err)
	}
	d.enroll(t, "ada", dev)
	options, _, err = d.AskPasskey(here)
	if o := readOptions(t, options).PublicKey; err != nil || o.RpID != "upkeep.example.test" || o.UserVerification != "required" || len(o.AllowCredentials) > 0 {
		t.Errorf("asked for is %s, %v", options, err)
	}
	for range 2 {
		shows, err := d.enter(t, dev)
		if err != nil {
			t.Fatal(err)
		}
		if who, err := d.Browser(ctx, shows); err != nil || who.User != "ada" || !who.Staff || who.SignIn == 0 {
			t.Errorf("signed in is %+v, %v", who, err)
		}
	}
	// The second device gets to know the same user, and is not asked for what is there.
	options, _, err = d.OfferPasskey(ctx, "ada", goodPassword, here, home)
	if o := readOptions(t, options).PublicKey; err != nil || o.User.ID != text64(dev.handle) || len(o.ExcludeCredentials) != 1 || o.ExcludeCredentials[0].ID != text64(dev.id) {
		t.Errorf("for a second one is asked %s, %v", options, err)
	}
	keys, err := d.Passkeys(ctx, "ada")
	if err != nil || len(keys) != 1 || keys[0].Name != "laptop" || keys[0].Host != "upkeep.example.test" || keys[0].Seen.IsZero() || keys[0].Synced {
		t.Fatalf("kept are %+v, %v", keys, err)
	}
	if err := d.RemovePasskey(ctx, "user ada", "ada", keys[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.enter(t, dev); !errors.Is(err, errUnknown) {
		t.Errorf("with one that was removed: %v", err)
	}
	if last := d.told[len(d.told)-1]; last.What != "passkey 1 removed" || last.Who != "user ada" {
		t.Errorf("told is %+v", last)
	}
}

// What a device or a browser says is held to what was asked for; what is wrong counts
// as a wrong password does.
func TestPasskeyThatLies(t *testing.T) {
	for name, lie := range map[string]func(*device){
		"a page of another host":               func(d *device) { d.origin = "https://evil.test" },
		"a page below":                         func(d *device) { d.origin = "https://pages.upkeep.example.test" },
		"another port":                         func(d *device) { d.origin = here + ":8443" },
		"a page that was not encrypted":        func(d *device) { d.origin = "http://upkeep.example.test" },
		"a key for another host":               func(d *device) { d.host = "evil.test" },
		"nobody verified":                      func(d *device) { d.flags = present },
		"nobody there":                         func(d *device) { d.flags = verified },
		"a key that may be copied, now":        func(d *device) { d.flags |= backed },
		"what was asked for to make one":       func(d *device) { d.kind = "webauthn.create" },
		"another user":                         func(d *device) { d.handle = []byte("somebody else, in 32 bytes or so") },
		"no user":                              func(d *device) { d.handle = nil },
		"a signature of zeros":                 func(d *device) { d.signed = func(s []byte) []byte { return make([]byte, len(s)) } },
		"no signature":                         func(d *device) { d.signed = func([]byte) []byte { return nil } },
		"a signature with something behind it": func(d *device) { d.signed = func(s []byte) []byte { return append(s, 0) } },
		"another key": func(d *device) {
			d.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, dev := newDesk(t), newDevice(t)
			d.add(t, ada)
			d.enroll(t, "ada", dev)
			honest := *dev
			lie(dev)
			for range 5 {
				if secret, err := d.enter(t, dev); !errors.Is(err, errPasskey) || secret != "" {
					t.Errorf("it is taken: %q, %v", secret, err)
				}
			}
			if _, _, err := d.SignIn(t.Context(), "ada", goodPassword, "", home, "browser"); !errors.Is(err, errWrong) {
				t.Errorf("the password while locked: %v", err)
			}
			if _, err := d.enter(t, &honest); err != nil {
				t.Errorf("the right one while locked: %v", err)
			}
		})
	}
}

// Making one is held to the same.
func TestNewPasskeyThatLies(t *testing.T) {
	for name, lie := range map[string]func(*device){
		"a page of another host": func(d *device) { d.origin = "https://evil.test" },
		"a key for another host": func(d *device) { d.host = "evil.test" },
		"nobody verified":        func(d *device) { d.flags = present },
		"nobody there":           func(d *device) { d.flags = verified },
		"another ceremony":       func(d *device) { d.kind = "webauthn.get" },
		"no name":                func(d *device) { d.id = nil },
	} {
		d, dev := newDesk(t), newDevice(t)
		d.add(t, ada)
		lie(dev)
		options, sealed, err := d.OfferPasskey(t.Context(), "ada", goodPassword, here, home)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.AddPasskey(t.Context(), "ada", "laptop", sealed, dev.make(t, options), here); !errors.Is(err, errPasskey) {
			t.Errorf("%s is taken: %v", name, err)
		}
		if keys, err := d.Passkeys(t.Context(), "ada"); err != nil || len(keys) > 0 {
			t.Errorf("%s: kept are %+v, %v", name, keys, err)
		}
	}
}

// A ceremony is carried out once, soon, where it was begun, by whom and for what.
func TestCeremoniesEnd(t *testing.T) {
	d, dev := newDesk(t), newDevice(t)
	ctx := t.Context()
	d.add(t, ada)
	d.add(t, upkeep.User{Name: "bob", Role: upkeep.UserStaff})
	options, sealed, err := d.OfferPasskey(ctx, "ada", goodPassword, here, home)
	if err != nil {
		t.Fatal(err)
	}
	made := dev.make(t, options)
	add := func(name, sealed, origin string) error {
		return d.AddPasskey(ctx, name, "laptop", sealed, made, origin)
	}
	_, asked, err := d.AskPasskey(here)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"by somebody else":    add("bob", sealed, here),
		"on another page":     add("ada", sealed, "https://other.example.test"),
		"of another kind":     add("ada", asked, here),
		"without what was":    add("ada", "", here),
		"with what is none":   add("ada", "AAAA"+sealed, here),
		"with half of it":     add("ada", sealed[:len(sealed)/2], here),
		"with what is broken": add("ada", strings.ToLower(sealed), here),
	} {
		if !errors.Is(err, errCeremony) {
			t.Errorf("%s it is ended: %v", name, err)
		}
	}
	if err := add("ada", sealed, here); err != nil {
		t.Fatal(err)
	}
	if err := d.RemovePasskey(ctx, "tester", "ada", 0); err != nil {
		t.Fatal(err)
	}
	if err := add("ada", sealed, here); !errors.Is(err, errCeremony) {
		t.Errorf("a second time: %v", err)
	}
	dev = newDevice(t)
	d.enroll(t, "ada", dev)

	options, asked, err = d.AskPasskey(here)
	if err != nil {
		t.Fatal(err)
	}
	answer := dev.show(t, options)
	enter := func(sealed, origin string) error {
		_, _, err := d.SignInByPasskey(ctx, sealed, answer, origin, home, "browser")
		return err
	}
	if err := enter(sealed, here); !errors.Is(err, errCeremony) {
		t.Errorf("with a ceremony of another kind: %v", err)
	}
	if err := enter(asked, "https://other.example.test"); !errors.Is(err, errCeremony) {
		t.Errorf("on another page: %v", err)
	}
	began := d.now
	d.now = began.Add(ceremonyTime)
	if err := enter(asked, here); !errors.Is(err, errCeremony) {
		t.Errorf("after %s: %v", ceremonyTime, err)
	}
	d.now = began.Add(ceremonyTime - time.Second)
	again, err := New(ctx, d.o) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.SignInByPasskey(ctx, asked, answer, here, home, "browser"); !errors.Is(err, errCeremony) {
		t.Errorf("after a restart: %v", err)
	}
	if err := enter(asked, here); err != nil {
		t.Errorf("in time: %v", err)
	}
	if err := enter(asked, here); !errors.Is(err, errCeremony) {
		t.Errorf("a second time: %v", err)
	}
	// The answer to one question is none to another.
	_, asked, err = d.AskPasskey(here)
	if err != nil {
		t.Fatal(err)
	}
	if err := enter(asked, here); !errors.Is(err, errPasskey) {
		t.Errorf("with the answer to another question: %v", err)
	}
}

// A device that counts backwards may be one of two: it is refused, and staff is told.
func TestPasskeyThatWasCopied(t *testing.T) {
	d, dev := newDesk(t), newDevice(t)
	d.add(t, ada)
	d.enroll(t, "ada", dev)
	for range 3 {
		if _, err := d.enter(t, dev); err != nil {
			t.Fatal(err)
		}
	}
	for _, count := range []uint32{0, 2} { // and one more when it is shown
		dev.count = count
		before := len(d.told)
		if _, err := d.enter(t, dev); !errors.Is(err, errPasskey) {
			t.Errorf("with %d after 3: %v", count+1, err)
		}
		if told := d.told[before:]; len(told) != 1 || told[0].Kind != upkeep.EventWarning || told[0].Object != "user/ada" || !strings.Contains(told[0].What, "may have been copied") {
			t.Errorf("told is %+v", told)
		}
	}
	dev.count = 3
	if _, err := d.enter(t, dev); err != nil {
		t.Errorf("with 4 after 3: %v", err)
	}
}

// Passkeys cannot be tried at will from one place, be they anybody's or not.
func TestGuessingPasskeysIsSlow(t *testing.T) {
	d, dev := newDesk(t), newDevice(t)
	d.add(t, ada)
	d.enroll(t, "ada", dev)
	stranger := newDevice(t)
	stranger.handle = dev.handle
	for i := range burst {
		if _, err := d.enter(t, stranger); !errors.Is(err, errUnknown) {
			t.Errorf("guess %d: %v", i, err)
		}
	}
	if _, err := d.enter(t, dev); !errors.Is(err, errTooMany) {
		t.Errorf("the right one from there: %v", err)
	}
	d.now = d.now.Add(refill)
	if _, err := d.enter(t, dev); err != nil {
		t.Errorf("a while later: %v", err)
	}
}

// FuzzPasskey reads what browsers send.
func FuzzPasskey(f *testing.F) {
	f.Add([]byte(`{"id":"AAAA","rawId":"AAAA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AAAA","signature":"AAAA","userHandle":"AAAA","attestationObject":"o2NmbXRkbm9uZWdhdHRTdG10oGhhdXRoRGF0YUA"}}`))
	f.Add([]byte(`[]`))
	party, err := relying(here)
	if err != nil {
		f.Fatal(err)
	}
	_, session, err := party.BeginDiscoverableLogin()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		if _, err := protocol.ParseCredentialRequestResponseBytes(answer); err != nil && detail(err) == "" {
			t.Error("nothing is said of what is wrong")
		}
		if _, err := created(party, *session, holder{name: "ada"}, answer); err == nil {
			t.Error("it is taken")
		}
	})
}
