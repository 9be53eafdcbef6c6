package pack_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep/internal/image/pack"
)

// What is foretold is about what packing makes, for images of different kinds.
func TestEstimate(t *testing.T) {
	const mib = 1 << 20
	random := make([]byte, 8*mib)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	var text []byte
	for words := strings.Fields("the quick brown fox jumps over a lazy dog and runs on to what it was before"); len(text) < 8*mib; {
		text = append(append(text, words[rand.IntN(len(words))]...), ' ')
	}
	put := func(f *os.File, p []byte, at int64) {
		if _, err := f.WriteAt(p, at); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		fill func(f *os.File)
		used []pack.Range
	}{
		"random":         {func(f *os.File) { put(f, random, 3*mib) }, nil},
		"text":           {func(f *os.File) { put(f, text, 0); put(f, text, 30*mib) }, nil},
		"mixed":          {func(f *os.File) { put(f, text, 0); put(f, random, 20*mib); put(f, make([]byte, 8*mib), 40*mib) }, nil},
		"random, unused": {func(f *os.File) { put(f, text, 0); put(f, random, 20*mib) }, []pack.Range{{Offset: 0, Length: 9 * mib}}},
		"empty":          {func(*os.File) {}, nil},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(64 * mib); err != nil {
			t.Fatal(err)
		}
		c.fill(f)
		got, err := pack.Estimate(f, c.used)
		if err != nil {
			t.Fatal(err)
		}
		result, err := pack.Pack(t.Context(), filepath.Join(t.TempDir(), "packed"), f, pack.Options{Used: c.used})
		if err != nil {
			t.Fatal(err)
		}
		const slack = 64 << 10
		if got < result.Packed*3/4-slack || got > result.Packed*5/4+slack {
			t.Errorf("%s: %d were foretold and it became %d", name, got, result.Packed)
		}
	}
}
