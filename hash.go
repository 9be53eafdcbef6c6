package upkeep

import (
	"crypto/sha256"
	"encoding/hex"

	"upkeep/internal/lazy"
)

// HiddenHash stands for the hash of a password where people look, and where it
// would be kept for longer than the password: in diffs, results of jobs, events.
// Two hashes are told apart by it, and nothing can be tried on it, since the salt
// is hidden too.
func HiddenHash(hash string) string {
	sum := sha256.Sum256([]byte(hash))
	return "(hidden hash " + hex.EncodeToString(sum[:4]) + ")"
}

// anyBcrypt is a hash somewhere in a text.
var anyBcrypt = lazy.Regexp(`\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}`)

// HideHashes is a text with [HiddenHash] for every hash that a site may have in
// its directory protection.
func HideHashes(text []byte) []byte {
	return anyBcrypt().ReplaceAllFunc(text, func(hash []byte) []byte { return []byte(HiddenHash(string(hash))) })
}
