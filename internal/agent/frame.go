package agent

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"

	"upkeep/internal/link"
)

// The front and root speak in frames: a kind, a number by which the front tells
// its requests apart, a length, and that many bytes. Root reads nothing else, and
// nothing of what is inside a job before its signature was found to be good.
//
//	kind     from   bytes
//	job      front  the signature, then the signed body
//	cancel   front  none
//	facts    both   none; the facts as JSON
//	identity both   the renewed identity; why it is refused, none when it is kept
//	progress root   JSON
//	outcome  root   JSON
type frame struct {
	kind byte
	tag  uint64
	body []byte
}

const (
	frameJob      = 'J'
	frameCancel   = 'C'
	frameFacts    = 'F'
	frameIdentity = 'I'
	frameProgress = 'P'
	frameOutcome  = 'O'
)

// toRoot and toFront are the kinds that each side takes, with the most bytes of
// each.
var (
	toRoot = map[byte]int{
		frameJob: ed25519.SignatureSize + link.MaxJob, frameCancel: 0, frameFacts: 0, frameIdentity: 64 << 10,
	}
	toFront = map[byte]int{
		frameProgress: 16 << 10, frameOutcome: 16 << 20, frameFacts: 4 << 20, frameIdentity: 4 << 10,
	}
)

const frameHeader = 1 + 8 + 4

// readFrame reads one frame. Memory is taken as bytes arrive, never because a
// header says so.
func readFrame(r *bufio.Reader, limits map[byte]int) (frame, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err // io.EOF between frames
	}
	f := frame{kind: header[0], tag: binary.BigEndian.Uint64(header[1:])}
	length := int64(binary.BigEndian.Uint32(header[9:]))
	limit, known := limits[f.kind]
	switch {
	case !known:
		return frame{}, fmt.Errorf("reading a frame: there is no kind %q here", f.kind)
	case length > int64(limit):
		return frame{}, fmt.Errorf("reading a frame: %d bytes of kind %q; at most %d are taken", length, f.kind, limit)
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, length); err != nil {
		return frame{}, fmt.Errorf("reading a frame: %w", noEOF(err))
	}
	f.body = body.Bytes()
	return f, nil
}

// noEOF makes an end in the middle of a frame an error of its own.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendFrame writes a frame.
func appendFrame(to []byte, f frame) []byte {
	to = append(to, f.kind)
	to = binary.BigEndian.AppendUint64(to, f.tag)
	to = binary.BigEndian.AppendUint32(to, uint32(len(f.body)))
	return append(to, f.body...)
}

// signedOf takes the body of a job frame apart.
func signedOf(body []byte) link.Signed {
	if len(body) < ed25519.SignatureSize {
		return link.Signed{Body: body} // which is refused for its signature
	}
	return link.Signed{Signature: body[:ed25519.SignatureSize], Body: body[ed25519.SignatureSize:]}
}
