package pack

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/klauspost/compress/zstd"

	"upkeep/internal/image/allocation"
)

// How much of an image is looked at to say how small it would become.
const (
	sampleSize   = 256 << 10
	leastSamples = 32
	mostSamples  = 256
	sampleShare  = 100 // one in so many
)

// Estimate says about how large an image would be when it is packed, by packing
// pieces of it in memory. Used is as in [Options]; nil takes all as used. What it
// does not see is that a piece repeats another one further away than its size.
func Estimate(image *os.File, used []Range) (int64, error) {
	stat, err := image.Stat()
	if err != nil {
		return 0, fmt.Errorf("looking at %s: %w", image.Name(), err)
	}
	if used == nil {
		used = []Range{{0, stat.Size()}}
	}
	data, total, err := withData(image, used, stat.Size())
	if err != nil || total == 0 {
		return 0, err
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(512<<10))
	if err != nil {
		return 0, err
	}
	// One piece from each of as many equal parts, at a place in it that is not
	// chosen by anything in the image; the same each time.
	random := rand.New(rand.NewPCG(1, 1))
	n := min(max(total/sampleSize/sampleShare, leastSamples), mostSamples)
	part := max(total/n, 1)
	var read, packed int64
	raw, out := make([]byte, sampleSize), []byte(nil)
	for at := int64(0); at < total; at += part {
		piece, err := sample(image, raw, data, at+random.Int64N(max(part-sampleSize, 0)+1))
		if err != nil {
			return 0, err
		}
		out = encoder.EncodeAll(piece, out[:0])
		read, packed = read+int64(len(piece)), packed+int64(len(out))
	}
	if read == 0 {
		return 0, nil
	}
	return int64(float64(packed) / float64(read) * float64(total)), nil
}

// withData is what of the used ranges is no hole, and how many bytes that is.
func withData(image *os.File, used []Range, size int64) (data []Range, total int64, err error) {
	for _, r := range used {
		end := min(r.End(), size)
		for at := r.Offset; at < end; {
			from, to, err := allocation.NextData(int(image.Fd()), at, size)
			if err != nil {
				return nil, 0, fmt.Errorf("asking where the data of %s lies: %w", image.Name(), err)
			}
			from, to = min(from, end), min(to, end)
			if to > from {
				data = append(data, Range{from, to - from})
				total += to - from
			}
			at = max(to, at+1)
			if from == end {
				break
			}
		}
	}
	return data, total, nil
}

// sample reads data that begins with the at-th byte of all ranges, into raw, which
// may not become full.
func sample(image io.ReaderAt, raw []byte, data []Range, at int64) ([]byte, error) {
	filled := 0
	for _, r := range data {
		if at >= r.Length {
			at -= r.Length
			continue
		}
		n := int(min(r.Length-at, int64(len(raw)-filled)))
		if _, err := image.ReadAt(raw[filled:filled+n], r.Offset+at); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading at %d: %w", r.Offset+at, err)
		}
		if filled += n; filled == len(raw) {
			break
		}
		at = 0
	}
	return raw[:filled], nil
}
