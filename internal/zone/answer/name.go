package answer

import (
	"fmt"

	"github.com/miekg/dns"
)

// Names are compared in wire form with ASCII letters in lower case (RFC 1035
// section 2.3.3), held in strings: length octets are at most 63 and can never
// be mistaken for the letters "A" (65) to "Z" (90), so lowering a whole name
// octet by octet is safe.

const (
	maxName   = 255 // octets of a name in wire form, RFC 1035 section 2.3.4
	maxLabels = 128 // 127 labels of one octet, and the root
	headerLen = 12
)

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// wireName turns a name in presentation form into a key.
func wireName(name string) (string, error) {
	var buf [maxName + 1]byte
	n, err := dns.PackDomainName(dns.Fqdn(name), buf[:], 0, nil, false)
	if err != nil || n > maxName {
		return "", fmt.Errorf("name %q has no wire form", name)
	}
	for i := range buf[:n] {
		buf[i] = lower(buf[i])
	}
	return string(buf[:n]), nil
}

// presentName turns a key into presentation form, with escapes where needed.
func presentName(key string) string {
	name, _, err := dns.UnpackDomainName([]byte(key), 0)
	if err != nil {
		return "." // keys come from wireName or query.parse and always unpack
	}
	return name
}

// parent drops the first label of a key other than the root.
func parent(key string) string { return key[1+int(key[0]):] }

// within reports whether key is origin or lies below it.
func within(key, origin string) bool {
	for len(key) > len(origin) {
		key = parent(key)
	}
	return key == origin
}
