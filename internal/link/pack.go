package link

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// A long payload travels packed: the thousands of sites of one server say nearly
// the same, and each of the five times that a payload is read, checked, signed or
// copied on its way costs as much as it is long.

// packFrom is the length from which on payloads are packed, in bytes.
const packFrom = 32 << 10

// packed is the job as it is signed: a long payload packed.
func (j Job) packed() (Job, error) {
	if len(j.Payload) < packFrom || j.Plain {
		return j, nil
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return j, err
	}
	j.Packed, j.Payload = w.EncodeAll(j.Payload, nil), nil
	return j, w.Close()
}

// unpacked is the job as it was before. It has a payload of at most [MaxJob] bytes,
// whatever is packed: more is not even unpacked.
func (j Job) unpacked() (Job, error) {
	if len(j.Packed) == 0 {
		return j, nil
	}
	if j.Payload != nil {
		return j, errors.New("its payload is there twice, once packed")
	}
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxJob))
	if err != nil {
		return j, err
	}
	defer r.Close()
	if j.Payload, err = r.DecodeAll(j.Packed, nil); err != nil {
		return j, fmt.Errorf("unpacking its payload: %w", err)
	}
	if len(j.Payload) < packFrom {
		return j, errors.New("its payload is packed without need")
	}
	j.Packed = nil
	return j, nil
}
