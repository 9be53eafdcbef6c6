package btrfs

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"

	"upkeep/internal/image/btrfstree"
)

// Compressions of extents.
const (
	packedZlib = 1
	packedLZO  = 2
	packedZstd = 3
)

// unpack decompresses an extent to so many bytes at most. Less than it says that it
// is has zeros behind it.
func unpack(compression uint8, b []byte, whole, sector int) (out []byte, err error) {
	switch compression {
	case packedZlib:
		out, err = inflate(b, whole)
	case packedLZO:
		out, err = unpackLZO(b, whole, sector)
	case packedZstd:
		out, err = unpackZstd(b, whole)
	default:
		return nil, btrfstree.Unsupported(fmt.Sprintf("btrfs: compression %d", compression))
	}
	if err != nil {
		return nil, damaged("what is compressed cannot be decompressed: %v", err)
	}
	return append(out, make([]byte, whole-len(out))...), nil
}

func inflate(b []byte, whole int) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, int64(whole)))
}

// zstds are decompressors, which take a while to make. Windows are what btrfs has.
var zstds = sync.Pool{New: func() any {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxExtent), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // of what is constant above
	}
	return r
}}

func unpackZstd(b []byte, whole int) ([]byte, error) {
	r := zstds.Get().(*zstd.Decoder)
	defer zstds.Put(r)
	if err := r.Reset(bytes.NewReader(b)); err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(whole)))
	if errors.Is(err, zstd.ErrMagicMismatch) && len(out) > 0 {
		err = nil // zeros that fill the sector
	}
	return out, err
}

// unpackLZO reads the length of all, and pieces with theirs before them. No length
// is divided by the end of a sector.
func unpackLZO(b []byte, whole, sector int) ([]byte, error) {
	const header = 4
	if len(b) < header {
		return nil, io.ErrUnexpectedEOF
	}
	all := uint64(binary.LittleEndian.Uint32(b))
	if all > uint64(len(b)) {
		return nil, fmt.Errorf("%d bytes of %d are there", len(b), all)
	}
	var out []byte
	for at := header; at+header <= int(all); {
		length := uint64(binary.LittleEndian.Uint32(b[at:]))
		at += header
		if length == 0 || length > all-uint64(at) {
			return nil, fmt.Errorf("a piece has %d bytes", length)
		}
		var err error
		if out, err = lzo(out, b[at:at+int(length)], whole); err != nil {
			return nil, err
		}
		if at += int(length); sector-at%sector < header {
			at += sector - at%sector
		}
	}
	return out, nil
}
