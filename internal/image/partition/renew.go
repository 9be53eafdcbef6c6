package partition

import (
	"bytes"
	"crypto/rand"
	"fmt"
)

// Renew gives the disk in an image of size bytes, and each partition, an identifier that
// no other has: for GPT UUIDs, for MBR the signature from which those of its partitions
// are made. Whenever it is interrupted, the table is the old one or the new one.
func Renew(f File, size int64) error {
	t, err := Read(f, size)
	if err != nil {
		return err
	}
	if t.Kind == GPT {
		if err := t.renewGPT(f); err != nil {
			return err
		}
	}
	return renewSignature(f, t.Kind == MBR)
}

func (t Table) renewGPT(f File) error {
	header := *t.gpt
	header.raw = bytes.Clone(header.raw)
	t.gpt = &header
	newGUID(header.raw[56:72])
	array := bytes.Clone(t.array)
	for _, p := range t.Partitions {
		newGUID(array[int64(p.Number-1)*header.entrySize:][16:32])
	}
	return t.writeGPT(f, array)
}

// newGUID fills in a random UUID (RFC 9562, version 4), whose first half is
// little-endian.
func newGUID(raw []byte) {
	rand.Read(raw) // never fails; crypto/rand
	raw[7], raw[8] = raw[7]&0x0f|0x40, raw[8]&0x3f|0x80
}

// renewSignature changes the signature of the MBR. That of one before a GPT is nobody's
// as long as it is 0.
func renewSignature(f File, always bool) error {
	sector := make([]byte, 512)
	if err := readFull(f, sector, 0); err != nil {
		return err
	}
	signature := sector[440:444]
	if !always && bytes.Equal(signature, make([]byte, 4)) {
		return nil
	}
	rand.Read(signature)
	if _, err := f.WriteAt(sector, 0); err != nil {
		return fmt.Errorf("writing the signature of the MBR: %w", err)
	}
	return f.Sync()
}
