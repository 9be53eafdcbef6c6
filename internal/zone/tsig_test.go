package zone

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodKey = `key "transfer.example" {
	algorithm hmac-sha256;
	secret "h3nVdgB4zyTDlFRbEPZcXpQbDoXNFZpGpTOvbLNUVmQ=";
};
`

func TestParseKey(t *testing.T) {
	for name, text := range map[string]string{
		"as tsig-keygen writes it": goodKey,
		"bare words":               `key Transfer.Example. { secret h3nVdgB4zyTDlFRbEPZcXpQbDoXNFZpGpTOvbLNUVmQ=; algorithm "HMAC-SHA256"; };`,
		"comments":                 "# one\n// two\n/* three\n*/" + goodKey + "# last",
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ParseKey([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if key.Name != "transfer.example." || key.Algorithm != "hmac-sha256." || len(key.secret) != 32 {
				t.Errorf("read %q, %q, %d octets", key.Name, key.Algorithm, len(key.secret))
			}
			if strings.Contains(key.String(), "h3nV") {
				t.Errorf("String gives the secret away: %s", key)
			}
		})
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    `the end of the file where "key" is expected`,
		"options { };":                        `"options" where "key" is expected`,
		`key "a" { algorithm md5; };`:         `must be one of hmac-sha1`,
		`key "a" { secret "x!"; };`:           `not base64`,
		`key "a" { secret ""; };`:             `not base64`,
		`key "a" { algorithm hmac-sha256; };`: `no secret`,
		`key "a" { secret "c2VjcmV0"; };`:     `no algorithm`,
		`key "a" { secret "c2VjcmV0"; secret "c2VjcmV0"; };`: `given twice`,
		`key "a b" { };`:                       `where the name of the key is expected`,
		`key "a" { algorithm hmac-sha256`:      `the end of the file where ";" is expected`,
		goodKey + goodKey:                      `one key is expected`,
		`key "a" { file "/etc/shadow"; };`:     `where "algorithm" or "secret" is expected`,
		`key "a`:                               `not closed`,
		`/* key`:                               `not closed`,
		"key \"a\nb\" { };":                    `not closed on its line`,
		strings.Repeat(" ", maxKeyFile) + "  ": `longer than`,
	} {
		if _, err := ParseKey([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseKey(%.60q) = %v, want an error with %q", text, err, want)
		}
	}
}

func TestReadKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if _, err := ReadKeyFile(path); err == nil {
		t.Error("a file that does not exist was read")
	}
	if err := os.WriteFile(path, []byte(goodKey), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(path); err != nil {
		t.Error(err)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(goodKey))
	f.Add([]byte(`key a { algorithm hmac-sha512; secret aGVsbG8=; };`))
	f.Add([]byte(`/* */ # x`))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParseKey(text)
		if err != nil {
			return
		}
		again := `key "` + key.Name + `" { algorithm ` + key.Algorithm + `; secret "` + key.Secret() + `"; };`
		same, err := ParseKey([]byte(again))
		if err != nil || same.Name != key.Name || same.Algorithm != key.Algorithm ||
			base64.StdEncoding.EncodeToString(same.secret) != key.Secret() {
			t.Errorf("the key of %q, written anew, reads as %v, %v", text, same, err)
		}
	})
}
