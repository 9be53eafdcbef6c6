package beat

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"upkeep"
)

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParseKeys(t *testing.T) {
	a, b := credential("192.0.2.1"), credential("2001:db8::1")
	text := fmt.Sprintf("# members\r\n\n  %s\t%s \n2001:DB8:0::1 %s", a.ID, a.Secret.Text(), b.Secret.Text())
	got, err := ParseKeys("keys", []byte(text))
	if err != nil || !slices.Equal(got, []Credential{a, b}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestParseKeysRefuses(t *testing.T) {
	s := NewSecret().Text()
	for _, tt := range []struct{ text, want string }{
		{"192.0.2.1", "keys:1: must be an identity and a secret, but has 1 words"},
		{"192.0.2.1 " + s + " x", "but has 3 words"},
		{"\n-bad- " + s, `keys:2: identity "-bad-" is not an address or a host name`},
		{"fe80::1%eth0 " + s, "is not an address"},
		{"192.0.2.1 " + s[:40], "keys:1: 192.0.2.1: secret must be 32 bytes"},
		{"192.0.2.1 " + strings.Repeat("A", 44), "secret must be"}, // 33 bytes
		{"192.0.2.1 " + s + "\n::ffff:192.0.2.1 " + s, "keys:2: 192.0.2.1 is in line 1 already"},
		{"Web.example.test " + s + "\nweb.EXAMPLE.test " + s, "keys:2: web.example.test is in line 1 already"},
		{strings.Repeat("#\n", maxKeyFile/2+1), "must be at most"},
	} {
		_, err := ParseKeys("keys", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want an error with %q", err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), s[:20]) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	c := credential("192.0.2.1")
	for _, verb := range []string{"%v", "%+v", "%s", "%q", "%#v", "%x"} {
		text := fmt.Sprintf(verb, c)
		if strings.Contains(text, c.Secret.Text()) || strings.Contains(text, fmt.Sprintf("%x", c.Secret[:4])) || strings.Contains(text, fmt.Sprint(c.Secret[0], c.Secret[1], c.Secret[2])) {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestReadKeysDemandsAPrivateFile(t *testing.T) {
	text := string(FormatKeys(credential("192.0.2.1")))
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o640: false, 0o644: false} {
		path := write(t, text, mode)
		_, err := ReadKeys(path)
		if (err == nil) != ok {
			t.Errorf("mode %04o: got %v", mode, err)
		}
		var hint *upkeep.HintError
		if err != nil && (!errors.As(err, &hint) || hint.Hint != "chmod 600 "+path) {
			t.Errorf("mode %04o: no hint in %v", mode, err)
		}
	}
}

func TestReadKeysRefusesWhatIsNoKeyFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, t.TempDir(), write(t, "# nothing\n", 0o600), filepath.Join(t.TempDir(), "gone")} {
		if _, err := ReadKeys(path); err == nil {
			t.Errorf("%s was read", path)
		}
	}
}

func TestAddKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	first, second := credential("192.0.2.1"), credential("192.0.2.2")
	if err := AddKeys(path, first); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("got %v, %v; want mode 0600", info, err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	commented := append([]byte("# by hand, without a final newline\n"), bytes.TrimSuffix(before, []byte("\n"))...)
	if err := os.WriteFile(path, commented, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := AddKeys(path, second); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(after, commented) {
		t.Errorf("the old text was changed: %v\n%s", err, after)
	}
	got, err := ReadKeys(path)
	if err != nil || !slices.Equal(got, []Credential{first, second}) {
		t.Errorf("got %v, %v", got, err)
	}

	if err := AddKeys(path, credential("192.0.2.3"), credential("192.0.2.1")); err == nil {
		t.Error("an identity was given a second secret")
	}
	if unchanged, err := os.ReadFile(path); err != nil || !bytes.Equal(unchanged, after) {
		t.Errorf("a refused change was written: %v", err)
	}
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(names) != 0 {
		t.Errorf("temporary files are left: %v, %v", names, err)
	}
}

func TestWriteKeysNeverReplaces(t *testing.T) {
	path := write(t, "old", 0o600)
	if err := WriteKeys(path, credential("192.0.2.1")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "old" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestNewCredentials(t *testing.T) {
	made, err := NewCredentials([]string{"2001:DB8::1", "Web.example.test"})
	if err != nil || len(made) != 2 || made[0].ID != "2001:db8::1" || made[1].ID != "web.example.test" || made[0].Secret == made[1].Secret {
		t.Errorf("got %v, %v", made, err)
	}
	if _, err := NewCredentials([]string{"192.0.2.1", "no good"}); err == nil {
		t.Error("an identity with a space was taken")
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte("# members\n192.0.2.1 " + Secret{}.Text() + "\n"))
	f.Add(FormatKeys(credential("2001:db8::1"), credential("web.example.test")))
	f.Add([]byte("a b c\n\x00\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := ParseKeys("keys", text)
		if err != nil {
			return
		}
		again, err := ParseKeys("keys", FormatKeys(found...))
		if err != nil || !slices.Equal(again, found) {
			t.Errorf("%q: written and read again: %v, %v", text, again, err)
		}
	})
}
