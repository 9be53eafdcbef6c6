package authority

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"upkeep"
)

// TokenLife is how long a token can be used unless another time is chosen.
const TokenLife = time.Hour

// Token lets one agent join, once. As text it is a prefix and the base64 (RFC 4648
// section 5) of its secret, the authority's fingerprint, and a checksum by which a
// slip of the mouse is told from a token that is refused.
type Token struct {
	Secret      [16]byte // 128 random bits: not to be guessed, so hashing it once is enough
	Fingerprint [sha256.Size]byte
}

const (
	tokenPrefix = "upkeep-join-"
	checkBytes  = 3 // makes the text end without padding
	tokenBytes  = 16 + sha256.Size + checkBytes
)

const redacted = "[token]"

// String keeps tokens out of logs; [Token.Text] is the token.
func (Token) String() string       { return redacted }
func (Token) GoString() string     { return redacted }
func (Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// Text is the token as people carry it: 80 characters without a space.
func (t Token) Text() string {
	raw := append(t.Secret[:], t.Fingerprint[:]...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(raw, checksum(raw)...))
}

func checksum(raw []byte) []byte {
	sum := sha256.Sum256(raw)
	return sum[:checkBytes]
}

// ParseToken reads what [Token.Text] wrote. Its errors do not repeat the text.
func ParseToken(text string) (Token, error) {
	body, is := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !is {
		return Token{}, errors.New("a join token begins with " + tokenPrefix)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(raw) != tokenBytes {
		return Token{}, fmt.Errorf("the join token is not complete: it must have %d characters, and has %d",
			len(tokenPrefix)+base64.RawURLEncoding.EncodedLen(tokenBytes), len(tokenPrefix)+len(body))
	}
	whole := raw[:tokenBytes-checkBytes]
	if string(checksum(whole)) != string(raw[tokenBytes-checkBytes:]) {
		return Token{}, errors.New("the join token was changed on its way: its checksum is not right")
	}
	var t Token
	copy(t.Secret[:], whole)
	copy(t.Fingerprint[:], whole[len(t.Secret):])
	return t, nil
}

// Hash is what is kept of a token's secret.
func Hash(secret [16]byte) string {
	sum := sha256.Sum256(append([]byte("upkeep join v1\x00"), secret[:]...))
	return hex.EncodeToString(sum[:])
}

// Invite makes a token for a server and what is to be kept of it.
func (a *Authority) Invite(server string, life time.Duration) (Token, upkeep.Invitation) {
	t := Token{Fingerprint: a.Fingerprint()}
	_, _ = rand.Read(t.Secret[:]) // never fails, see crypto/rand
	return t, upkeep.Invitation{Server: server, Hash: Hash(t.Secret), Expires: a.now().Add(life).UTC()}
}
