package upkeep

import (
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1000": 1000, "512K": 512 << 10, "4G": 4 << 30, "4g": 4 << 30, "4GiB": 4 << 30, "4GB": 4 << 30, "1.5G": 3 << 29,
		"2T": 2 << 40, "7P": 7 << 50, "10B": 10, "0.5K": 512,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for text, rule := range map[string]string{
		"": "powers of 1024", "G": "powers of 1024", "-1G": "powers of 1024", "4 G": "powers of 1024", "4X": "powers of 1024", "4Gi B": "powers of 1024",
		"1e9": "powers of 1024", "0x10": "powers of 1024", "4I": "powers of 1024", "4.G": "powers of 1024", ".5G": "powers of 1024", "1.2.3G": "powers of 1024",
		"9000P": "more than a file", "99999999999999999999": "more than a file", "0.3": "whole number", "1.0001K": "whole number", "\n4G": "powers of 1024",
	} {
		if got, err := ParseSize(text); err == nil || !strings.Contains(err.Error(), rule) {
			t.Errorf("ParseSize(%q) = %d, %v, want an error with %q", text, got, err, rule)
		}
	}
}

func TestSizeString(t *testing.T) {
	for size, want := range map[Size][2]string{
		0: {"0", "0"}, 1: {"1", "1 byte"}, 2: {"2", "2 bytes"}, 1000: {"1000", "0.98K"}, 1536: {"1536", "1.50K"}, 4 << 30: {"4G", "4G"}, 1536 << 20: {"1536M", "1.50G"}, 300 << 20: {"300M", "300M"},
		math.MaxInt64: {"9223372036854775807", "8192P"},
	} {
		if size.String() != want[0] || size.About() != want[1] {
			t.Errorf("%d: %q and %q, want %q", int64(size), size.String(), size.About(), want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"4G", "1.5T", "0", "10B", "99P"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err != nil {
			return
		}
		if again, err := ParseSize(size.String()); size < 0 || err != nil || again != size {
			t.Errorf("%q is %d, whose text %q is %d, %v", text, size, size.String(), again, err)
		}
	})
}
