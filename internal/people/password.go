package people

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"upkeep"
)

// What a password costs to try, by the advice of OWASP for argon2id: memory in KiB,
// passes, threads. A hash says what it was made with, so these can be raised.
const (
	memory  = 19 << 10
	passes  = 2
	threads = 1
	keySize = 32
)

// atOnce bounds the passwords that are looked at at a time, and so the memory that
// strangers can have used.
const atOnce = 4

// Bounds of what is read back from the database: somebody who can write there must
// not be able to have memory used up.
const (
	maxMemory = 1 << 20
	maxPasses = 16
)

// Lengths of passwords, the least in characters and the most in bytes. Length is what
// counts (NIST SP 800-63B), so nothing else is asked for but that it is not the name.
const (
	minPassword = 10
	maxPassword = 1024
)

// CheckPassword says what is wrong with a new password.
func CheckPassword(name, password string) []upkeep.FieldError {
	rule := ""
	switch {
	case utf8.RuneCountInString(password) < minPassword:
		rule = fmt.Sprintf("must have at least %d characters", minPassword)
	case len(password) > maxPassword:
		rule = fmt.Sprintf("must have at most %d bytes", maxPassword)
	case strings.EqualFold(password, name), strings.Trim(password, password[:1]) == "":
		rule = "is too easy to guess"
	default:
		return nil
	}
	return []upkeep.FieldError{{Field: "password", Rule: rule}}
}

// hasher makes and compares hashes, a few at a time.
type hasher struct {
	slots  chan struct{}
	memory uint32 // of what it makes; less in tests, where it is not what is tried
}

func newHasher() hasher { return hasher{make(chan struct{}, atOnce), memory} }

// slot waits for one's turn.
func (h hasher) slot(ctx context.Context) (done func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hash makes the text that is kept of a password: the PHC string format.
func (h hasher) hash(ctx context.Context, password string) (string, error) {
	done, err := h.slot(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, passes, h.memory, threads, keySize)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, passes, threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key)), nil
}

// same reports whether a password is the one of a hash. What is no hash is that of
// no password, and takes as long.
func (h hasher) same(ctx context.Context, hash, password string) (bool, error) {
	done, err := h.slot(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	p, valid := parse(hash)
	if !valid {
		p = parsed{memory: h.memory, passes: passes, threads: threads, salt: make([]byte, 16), key: make([]byte, keySize)}
	}
	key := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.threads, uint32(len(p.key)))
	return subtle.ConstantTimeCompare(key, p.key) == 1 && valid, nil
}

type parsed struct {
	memory, passes uint32
	threads        uint8
	salt, key      []byte
}

func parse(hash string) (p parsed, valid bool) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.threads); err != nil {
		return p, false
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	p.key, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	valid = err1 == nil && err2 == nil && len(p.salt) >= 8 && len(p.salt) <= 64 && len(p.key) >= 16 && len(p.key) <= 128 &&
		p.memory >= 8 && p.memory <= maxMemory && p.passes >= 1 && p.passes <= maxPasses && p.threads >= 1 && p.threads <= 16
	return p, valid
}
