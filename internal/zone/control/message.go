// Package control says one command to a running named over its control channel,
// as rndc does (lib/isccc and bin/rndc of BIND 9). It knows how to speak and not
// what to say.
package control

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// Types of a value.
const (
	binaryValue = 1
	tableValue  = 2
)

const (
	version = 1
	// signatureSize is the room for a signature: one octet that tells the
	// algorithm and the longest digest in base64, filled up with zeros.
	signatureSize = 1 + 88
	// maxMessage bounds an answer in octets.
	maxMessage = 64 << 10
	maxDepth   = 4
)

// table is a message or a part of one: names with values, in order.
type table []field

// field has a text or a table for its value.
type field struct {
	name  string
	text  string
	table table
}

// get returns the text at the end of the path of names.
func (t table) get(path ...string) string {
	for _, f := range t {
		switch {
		case f.name != path[0]:
		case len(path) == 1:
			return f.text
		default:
			return f.table.get(path[1:]...)
		}
	}
	return ""
}

func (t table) append(b []byte) []byte {
	for _, f := range t {
		b = append(b, byte(len(f.name)))
		b = append(b, f.name...)
		kind, value := byte(binaryValue), []byte(f.text)
		if f.table != nil {
			kind, value = tableValue, f.table.append(nil)
		}
		b = append(b, kind)
		b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
		b = append(b, value...)
	}
	return b
}

// pack makes a signed message of t, with its length before it. The signature is
// over all that follows it.
func (t table) pack(algorithm byte, mac hash.Hash) []byte {
	rest := t.append(nil)
	auth := table{{name: "_auth", table: table{{name: "hsha", text: string(signature(algorithm, mac, rest))}}}}
	b := binary.BigEndian.AppendUint32(make([]byte, 4), version)
	b = append(auth.append(b), rest...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func signature(algorithm byte, mac hash.Hash, over []byte) []byte {
	mac.Reset()
	mac.Write(over)
	b := make([]byte, signatureSize)
	b[0] = algorithm
	base64.StdEncoding.Encode(b[1:], mac.Sum(nil))
	return b
}

var errCut = errors.New("the message ends too early")

// unpack reads a message, without its length, and checks its signature.
func unpack(b []byte, algorithm byte, mac hash.Hash) (table, error) {
	if len(b) < 4 || binary.BigEndian.Uint32(b) != version {
		return nil, errors.New("the message has another version")
	}
	auth, rest, err := readField(b[4:], maxDepth)
	if err != nil {
		return nil, err
	}
	signed := table{auth}.get("_auth", "hsha")
	if !hmac.Equal([]byte(signed), signature(algorithm, mac, rest)) {
		return nil, errors.New("the message is not signed with this key")
	}
	return readTable(rest, maxDepth)
}

func readTable(b []byte, depth int) (t table, err error) {
	for len(b) > 0 {
		var f field
		if f, b, err = readField(b, depth); err != nil {
			return nil, err
		}
		t = append(t, f)
	}
	return t, nil
}

func readField(b []byte, depth int) (f field, rest []byte, err error) {
	if len(b) < 1 || len(b) < 1+int(b[0])+5 {
		return f, nil, errCut
	}
	f.name, b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	kind, size := b[0], binary.BigEndian.Uint32(b[1:])
	if b = b[5:]; uint64(size) > uint64(len(b)) {
		return f, nil, errCut
	}
	value, rest := b[:size], b[size:]
	switch {
	case kind == binaryValue:
		f.text = string(value)
		return f, rest, nil
	case kind != tableValue:
		return f, nil, fmt.Errorf("a value of type %d", kind)
	case depth == 0:
		return f, nil, fmt.Errorf("tables nest more than %d deep", maxDepth)
	}
	f.table, err = readTable(value, depth-1)
	return f, rest, err
}
