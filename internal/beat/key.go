package beat

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"upkeep"
	"upkeep/internal/secret"
)

// Secret is what a member and the receiver share: 32 random bytes. It never
// appears in logs and errors.
type Secret [32]byte

const redacted = "[secret]"

func (Secret) String() string       { return redacted }
func (Secret) GoString() string     { return redacted }
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// NewSecret makes a random secret.
func NewSecret() Secret {
	var s Secret
	_, _ = rand.Read(s[:]) // never fails, see crypto/rand
	return s
}

// Text is the secret as key files hold it: 44 characters of base64.
func (s Secret) Text() string { return base64.StdEncoding.EncodeToString(s[:]) }

// ParseSecret reads what [Secret.Text] wrote. Its errors do not repeat the text.
func ParseSecret(text string) (Secret, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(Secret{}) {
		return Secret{}, errors.New("secret must be 32 bytes in base64 (44 characters), as upkeep beat keygen writes it")
	}
	return Secret(raw), nil
}

// Credential is one line of a key file: who beats, and with which secret.
type Credential struct {
	ID     string
	Secret Secret
}

// ParseID brings a member's identity into its one form: an address as it is
// written canonically, or a host name in lower case.
func ParseID(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return addr.Unmap().String(), nil
	}
	if upkeep.ValidName(s) {
		return strings.ToLower(s), nil
	}
	return "", fmt.Errorf("%.80q is not an address or a host name", s)
}

// maxKeyFile bounds what is read: some 50,000 members.
const maxKeyFile = 4 << 20

// ParseKeys reads the text of a key file: one member on each line, its identity
// and its secret with space between. Empty lines and lines that begin with "#"
// mean nothing. file is for errors, which never show a secret.
func ParseKeys(file string, text []byte) ([]Credential, error) {
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("%s: must be at most %d bytes", file, maxKeyFile)
	}
	var found []Credential
	lines := map[string]int{} // identity to the line it was seen in
	number := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("%s:%d: must be an identity and a secret, but has %d words", file, number, len(fields))
		}
		id, err := ParseID(fields[0])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: identity %w", file, number, err)
		}
		own, err := ParseSecret(fields[1])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", file, number, id, err)
		}
		if first, twice := lines[id]; twice {
			return nil, fmt.Errorf("%s:%d: %s is in line %d already", file, number, id, first)
		}
		lines[id] = number
		found = append(found, Credential{id, own})
	}
	return found, nil
}

// FormatKeys writes credentials as lines of a key file.
func FormatKeys(credentials ...Credential) []byte {
	var b bytes.Buffer
	for _, c := range credentials {
		fmt.Fprintf(&b, "%s %s\n", c.ID, c.Secret.Text())
	}
	return b.Bytes()
}

// ReadKeys reads a key file. A file that others may read is refused: whoever
// reads a member's secret can keep it alive.
func ReadKeys(path string) ([]Credential, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	found, err := ParseKeys(path, text)
	if err != nil {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	if len(found) == 0 {
		return nil, upkeep.WithHint(fmt.Errorf("reading key file: %s holds no key", path), "make one with: upkeep beat keygen --key "+path+" ADDRESS")
	}
	return found, nil
}

func readPrivate(path string) ([]byte, error) {
	text, err := secret.Read(path, maxKeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, upkeep.WithHint(fmt.Errorf("reading key file: %w", err), "make it with: upkeep beat keygen --key "+path+" ADDRESS")
	case err != nil:
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	return text, nil
}

// AddKeys adds credentials to a key file, which comes into being with mode 0600.
// What the file held before is kept byte for byte; an identity that it holds
// already is refused, and then nothing is written.
func AddKeys(path string, added ...Credential) error {
	old, err := readPrivate(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	text := append(old, FormatKeys(added...)...)
	// Reading the result finds duplicates, with their lines, and old mistakes.
	if _, err := ParseKeys(path, text); err != nil {
		return fmt.Errorf("adding keys: %w", err)
	}
	return writeKeys(path, text)
}

// NewCredentials makes a secret for each identity.
func NewCredentials(ids []string) ([]Credential, error) {
	var made []Credential
	for _, given := range ids {
		id, err := ParseID(given)
		if err != nil {
			return nil, err
		}
		made = append(made, Credential{id, NewSecret()})
	}
	return made, nil
}

// WriteKeys writes a new key file with mode 0600; a file that is there already
// is refused.
func WriteKeys(path string, credentials ...Credential) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("writing key file %s: %w", path, fs.ErrExist)
	}
	return writeKeys(path, FormatKeys(credentials...))
}

func writeKeys(path string, text []byte) error {
	if err := secret.Write(path, text); err != nil {
		return fmt.Errorf("writing key file: %w", err)
	}
	return nil
}
