package pack

import (
	"encoding/binary"
	"fmt"
)

const (
	zstdMagic = 0xFD2FB528

	// rleBlock is what one block of zeros stands for: the most that zstd allows, and
	// the window of such a frame, so that a reader needs no more memory than that.
	rleBlock      = 128 << 10
	rleWindow     = (17 - 10) << 3 // window descriptor of 1<<17
	rlePacked     = 4              // bytes that a block of zeros takes
	rleFrameStart = 4 + 1 + 1 + 4  // magic, descriptor, window, content size
)

// zeroFrameSize is how many bytes a frame of zeros takes.
func zeroFrameSize(size uint32) int64 {
	return rleFrameStart + rlePacked*((int64(size)+rleBlock-1)/rleBlock)
}

// zeroFrame is a zstd frame with nothing but zeros. It is written by hand: that
// is a few bytes for each 128 KiB and no work, and the same bytes every time, by
// which a reader knows it.
func zeroFrame(size uint32) []byte {
	const contentSizeOf4 = 2 << 6
	b := make([]byte, 0, zeroFrameSize(size))
	b = binary.LittleEndian.AppendUint32(b, zstdMagic)
	b = append(b, contentSizeOf4, rleWindow)
	b = binary.LittleEndian.AppendUint32(b, size)
	for size > 0 {
		n := min(size, rleBlock)
		size -= n
		header := n<<3 | 1<<1 // a run of one byte
		if size == 0 {
			header |= 1 // the last block
		}
		b = append(b, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return b
}

// skippable wraps bytes that zstd passes over.
func skippable(magic uint32, payload []byte) []byte {
	b := make([]byte, 0, headerSize+len(payload))
	b = binary.LittleEndian.AppendUint32(b, magic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

// unwrap is the payload of a skippable frame.
func unwrap(magic uint32, frame []byte) ([]byte, error) {
	if len(frame) < headerSize || binary.LittleEndian.Uint32(frame) != magic || int64(binary.LittleEndian.Uint32(frame[4:])) != int64(len(frame)-headerSize) {
		return nil, fmt.Errorf("its frame of %d bytes has another header", len(frame))
	}
	return frame[headerSize:], nil
}
