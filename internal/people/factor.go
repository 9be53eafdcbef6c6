package people

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

// Codes of apps, RFC 6238 with what all of them take: SHA-1, six digits, a new one
// each half minute.
const (
	stepTime = 30 * time.Second
	// slack is how many steps a clock may be off, either way.
	slack = 1
	// spareCodes are for who has lost the app.
	spareCodes = 8
)

var unpadded = base32.StdEncoding.WithPadding(base32.NoPadding)

func step(t time.Time) int64 { return t.Unix() / int64(stepTime/time.Second) }

// codeAt is what an app shows in a step of time (RFC 4226, section 5.3).
func codeAt(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, step) // a hash takes everything
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:at+4])&0x7fffffff%1000000)
}

// typed is a code as people type it, with blanks and hyphens in between.
func typed(code string) string {
	return strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(code))
}

// matches finds the step of time of a code, after the last one that was used.
func matches(secret, code string, now time.Time, last int64) (at int64, ok bool) {
	key, err := unpadded.DecodeString(secret)
	if err != nil || len(key) < 16 {
		return 0, false
	}
	for s := step(now) - slack; s <= step(now)+slack; s++ {
		if s > last && subtle.ConstantTimeCompare([]byte(codeAt(key, s)), []byte(code)) == 1 {
			return s, true
		}
	}
	return 0, false
}

// proof is what a second factor shows, nil where it shows nothing that fits. A user
// without one needs none.
func proof(c store.Credentials, code string, now time.Time) *store.Proof {
	code = typed(code)
	if c.Factor == "" {
		return &store.Proof{}
	}
	if at, ok := matches(c.Factor, code, now, c.Step); ok {
		return &store.Proof{Step: at}
	}
	if len(code) > 6 { // one of the spare ones, which the database looks up and uses up
		return &store.Proof{Spare: digest(code)}
	}
	return nil
}

// NewFactor makes the secret that a user shares with an app. It is theirs once they
// have shown with a code that the app has it.
func (p *People) NewFactor() string {
	secret := make([]byte, 20)
	rand.Read(secret)
	return unpadded.EncodeToString(secret)
}

// HasFactor reports whether a user has a second factor.
func (p *People) HasFactor(ctx context.Context, name string) (bool, error) {
	known, err := p.o.Users.Credentials(ctx, name)
	return known.Factor != "", err
}

// SetFactor gives a user a second factor, and returns the spare codes, of which only
// hashes are kept.
func (p *People) SetFactor(ctx context.Context, name, password, secret, code, from string) (spare []string, err error) {
	if _, err := p.present(ctx, name, password, from); err != nil {
		return nil, err
	}
	at, ok := matches(secret, typed(code), p.o.Now(), 0)
	if !ok {
		return nil, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "code", Rule: "is not what the app shows now; is the clock of the device right?"}}}
	}
	hashes := make([]string, spareCodes)
	for i := range hashes {
		text := rand.Text()[:16]
		spare = append(spare, text[:4]+"-"+text[4:8]+"-"+text[8:12]+"-"+text[12:])
		hashes[i] = digest(text)
	}
	return spare, p.announce(p.o.Users.SetFactor(ctx, "user "+name, name, secret, at, hashes))
}

// DropFactor takes the second factor away from a user who knows the password.
func (p *People) DropFactor(ctx context.Context, name, password, from string) error {
	if _, err := p.present(ctx, name, password, from); err != nil {
		return err
	}
	return p.RemoveFactor(ctx, "user "+name, name)
}

// RemoveFactor takes the second factor away from a user, who has lost it.
func (p *People) RemoveFactor(ctx context.Context, who, name string) error {
	return p.announce(p.o.Users.SetFactor(ctx, who, name, "", 0, nil))
}
