package people

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"
)

// ceremonyTime is how long somebody may take to show a passkey or to make one.
const ceremonyTime = 5 * time.Minute

// What a ceremony is for: one cannot be ended as another.
const (
	adding   = "adding a passkey"
	entering = "signing in by a passkey"
)

// ceremony is what has to be known between asking for a passkey and its being shown.
type ceremony struct {
	Origin  string
	User    string // who adds one; empty at a sign-in, where that is not known yet
	Until   time.Time
	Session webauthn.SessionData
}

// ceremonies keeps ceremonies where they cost nothing: with the browser, sealed, so
// that strangers can begin as many as they like and fill nothing up. The key is made
// at each start: a restart ends what is under way, and whoever it hits begins again.
//
// What was carried out is remembered for as long as it could be shown again. Only
// who has shown a passkey gets in there.
type ceremonies struct {
	sealer cipher.AEAD

	mu    sync.Mutex
	spent map[string]time.Time // challenges, and until when they are good
}

// maxSpent bounds what is remembered; beyond it nobody signs in by passkey until some
// have expired.
const maxSpent = 10000

func newCeremonies() (*ceremonies, error) {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &ceremonies{sealer: sealer, spent: map[string]time.Time{}}, nil
}

func (c *ceremonies) seal(kind string, one ceremony) (string, error) {
	text, err := json.Marshal(one)
	if err != nil {
		return "", fmt.Errorf("sealing a ceremony: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(c.sealer.Seal(nil, nil, text, []byte(kind))), nil
}

// open reads a ceremony of a kind that was begun on pages of an origin.
func (c *ceremonies) open(kind, sealed, origin string, now time.Time) (one ceremony, err error) {
	box, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return one, err
	}
	text, err := c.sealer.Open(nil, nil, box, []byte(kind))
	if err != nil {
		return one, err
	}
	if err := json.Unmarshal(text, &one); err != nil {
		return one, err
	}
	if one.Origin != origin || !one.Until.After(now) {
		return one, errCeremony
	}
	return one, nil
}

// spend reports whether a ceremony was not carried out before, and notes that it is.
func (c *ceremonies) spend(one ceremony, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for challenge, until := range c.spent {
		if !until.After(now) {
			delete(c.spent, challenge)
		}
	}
	if _, before := c.spent[one.Session.Challenge]; before || len(c.spent) >= maxSpent {
		return false
	}
	c.spent[one.Session.Challenge] = one.Until
	return true
}
