package hold

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkAgain is what each step of a change pays.
func BenchmarkAgain(b *testing.B) {
	path := filepath.Join(b.TempDir(), "web.img")
	if err := os.WriteFile(path, []byte("image"), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := Open(path, true)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	lock, err := Take(f, Options{Write: true})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := lock.Again(); err != nil {
			b.Fatal(err)
		}
	}
}
