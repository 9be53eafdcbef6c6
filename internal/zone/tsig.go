package zone

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"upkeep"
)

// maxKeyFile bounds the size of a key file in bytes; a real one has about 100.
const maxKeyFile = 64 << 10

// Key is a shared secret that signs DNS messages (TSIG, RFC 8945).
type Key struct {
	Name      string // in lower case with a final dot, as it stands in messages
	Algorithm string // one of KeyAlgorithms with a final dot
	secret    []byte
}

// KeyAlgorithms lists the algorithms that a key may have. MD5 is left out: RFC
// 8945 section 6 forbids new use of it and the DNS library no longer has it.
var KeyAlgorithms = []string{"hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"}

// String names the key without its secret.
func (k Key) String() string {
	return strings.TrimSuffix(k.Name, ".") + " (" + strings.TrimSuffix(k.Algorithm, ".") + ")"
}

// Secret returns the shared secret in base64, as the DNS library takes it.
func (k Key) Secret() string { return base64.StdEncoding.EncodeToString(k.secret) }

// Secrets returns the key in the form of dns.Client.TsigSecret.
func (k Key) Secrets() map[string]string { return map[string]string{k.Name: k.Secret()} }

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.Name == "" }

// ReadKeyFile reads a key file as tsig-keygen writes it:
//
//	key "name" { algorithm hmac-sha256; secret "c2VjcmV0"; };
func ReadKeyFile(path string) (Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return Key{}, upkeep.WithHint(fmt.Errorf("reading key file: %w", err), "make a key file with: tsig-keygen NAME > FILE")
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return Key{}, fmt.Errorf("reading key file %s: %w", path, err)
	}
	key, err := ParseKey(text)
	if err != nil {
		return Key{}, upkeep.WithHint(fmt.Errorf("reading key file %s: %w", path, err), "make a key file with: tsig-keygen NAME > FILE")
	}
	return key, nil
}

// ParseKey reads the text of a key file: exactly one key statement in the
// syntax of named.conf, with its comments.
func ParseKey(text []byte) (Key, error) {
	if len(text) > maxKeyFile {
		return Key{}, fmt.Errorf("longer than %d bytes", maxKeyFile)
	}
	tokens, err := keyTokens(string(text))
	if err != nil {
		return Key{}, err
	}
	p := keyParser{tokens: tokens}
	key, err := p.key()
	if err != nil {
		return Key{}, err
	}
	if len(p.tokens) > 0 {
		return Key{}, fmt.Errorf("%s where the file should end: one key is expected", p.tokens[0])
	}
	return key, nil
}

type keyParser struct{ tokens []keyToken }

func (p *keyParser) next() keyToken {
	if len(p.tokens) == 0 {
		return keyToken{}
	}
	token := p.tokens[0]
	p.tokens = p.tokens[1:]
	return token
}

func (p *keyParser) expect(mark string) error {
	if token := p.next(); token.quoted || token.text != mark {
		return fmt.Errorf("%s where %q is expected", token, mark)
	}
	return nil
}

func (p *keyParser) key() (Key, error) {
	if err := p.expect("key"); err != nil {
		return Key{}, err
	}
	name := p.next()
	if !upkeep.ValidName(strings.TrimSuffix(name.text, ".")) {
		return Key{}, fmt.Errorf("%s where the name of the key is expected", name)
	}
	if err := p.expect("{"); err != nil {
		return Key{}, err
	}
	key := Key{Name: dns.CanonicalName(name.text)}
	for len(p.tokens) > 0 && p.tokens[0].text != "}" {
		if err := p.clause(&key); err != nil {
			return Key{}, err
		}
	}
	for _, mark := range []string{"}", ";"} {
		if err := p.expect(mark); err != nil {
			return Key{}, err
		}
	}
	if key.Algorithm == "" {
		return Key{}, errors.New("the key has no algorithm")
	}
	if key.secret == nil {
		return Key{}, errors.New("the key has no secret")
	}
	return key, nil
}

func (p *keyParser) clause(key *Key) error {
	name, value := p.next(), p.next()
	switch {
	case name.text == "algorithm" && key.Algorithm == "":
		algorithm := strings.ToLower(strings.TrimSuffix(value.text, "."))
		if !slices.Contains(KeyAlgorithms, algorithm) {
			return fmt.Errorf("algorithm %s: must be one of %s", value, strings.Join(KeyAlgorithms, ", "))
		}
		key.Algorithm = algorithm + "."
	case name.text == "secret" && key.secret == nil:
		secret, err := base64.StdEncoding.DecodeString(value.text)
		// The text is not repeated: it may be a secret with a slip in it.
		if err != nil || len(secret) == 0 {
			return errors.New("the secret is not base64")
		}
		key.secret = secret
	case name.text == "algorithm" || name.text == "secret":
		return fmt.Errorf("%s is given twice", name)
	default:
		return fmt.Errorf("%s where \"algorithm\" or \"secret\" is expected", name)
	}
	return p.expect(";")
}

type keyToken struct {
	text   string
	quoted bool
}

func (t keyToken) String() string {
	if t.text == "" && !t.quoted {
		return "the end of the file"
	}
	if len(t.text) > 40 {
		return fmt.Sprintf("%q...", t.text[:37])
	}
	return fmt.Sprintf("%q", t.text)
}

// keyTokens splits text into words, quoted strings and the marks { } ; and
// drops comments: "#" and "//" to the end of the line, "/*" to "*/".
func keyTokens(text string) ([]keyToken, error) {
	var tokens []keyToken
	for text != "" {
		switch c := text[0]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			text = text[1:]
		case c == '#', strings.HasPrefix(text, "//"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			_, rest, closed := strings.Cut(text[2:], "*/")
			if !closed {
				return nil, errors.New("a comment is not closed")
			}
			text = rest
		case c == '"':
			inside, rest, closed := strings.Cut(text[1:], `"`)
			if !closed || strings.ContainsAny(inside, "\\\r\n") {
				return nil, errors.New("a quoted string is not closed on its line, or holds a backslash")
			}
			tokens, text = append(tokens, keyToken{inside, true}), rest
		case strings.IndexByte("{};", c) >= 0:
			tokens, text = append(tokens, keyToken{text: text[:1]}), text[1:]
		default:
			end := strings.IndexAny(text, " \t\r\n{};\"#")
			if end < 0 {
				end = len(text)
			}
			tokens, text = append(tokens, keyToken{text: text[:end]}), text[end:]
		}
	}
	return tokens, nil
}
