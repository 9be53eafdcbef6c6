package control

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// algorithms of a key: the number that stands in messages, and the hash.
var algorithms = map[string]struct {
	number byte
	hash   func() hash.Hash
}{
	"hmac-sha1": {161, sha1.New}, "hmac-sha224": {162, sha256.New224}, "hmac-sha256": {163, sha256.New},
	"hmac-sha384": {164, sha512.New384}, "hmac-sha512": {165, sha512.New},
}

// Channel is where and with which key a named takes commands.
type Channel struct {
	Address   string // host:port
	Algorithm string // as named.conf spells it, such as hmac-sha256
	Secret    []byte
}

// Say has named carry out a command, such as "reload example.test", and returns
// what it says. An error means that it is not known to have done so.
func (c Channel) Say(ctx context.Context, command string) (string, error) {
	said, err := c.say(ctx, command)
	if err != nil {
		return "", fmt.Errorf("telling named at %s to %s: %w", c.Address, command, err)
	}
	return said, nil
}

func (c Channel) say(ctx context.Context, command string) (string, error) {
	algorithm, known := algorithms[c.Algorithm]
	if !known {
		return "", fmt.Errorf("the key has algorithm %s", c.Algorithm)
	}
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	if deadline, set := ctx.Deadline(); set {
		if err := raw.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Now()) })()
	conn := conversation{raw, algorithm.number, hmac.New(algorithm.hash, c.Secret), rand.Uint32()}
	// named takes no command without a number that it has just given out.
	greeting, err := conn.exchange("null", "")
	if err != nil {
		return "", err
	}
	answer, err := conn.exchange(command, greeting.get("_ctrl", "_nonce"))
	if err != nil {
		return "", err
	}
	if result := answer.get("_data", "result"); result != "0" {
		return "", fmt.Errorf("it answers %s %s", answer.get("_data", "err"), answer.get("_data", "text"))
	}
	return answer.get("_data", "text"), nil
}

// conversation is one connection to named.
type conversation struct {
	conn      net.Conn
	algorithm byte
	mac       hash.Hash
	serial    uint32
}

// validFor is how long named may take to read a command.
const validFor = time.Minute

func (c *conversation) exchange(command, nonce string) (table, error) {
	c.serial++
	now := time.Now()
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	control := table{{name: "_ser", text: number(int64(c.serial))}, {name: "_tim", text: number(now.Unix())}, {name: "_exp", text: number(now.Add(validFor).Unix())}}
	if nonce != "" {
		control = append(control, field{name: "_nonce", text: nonce})
	}
	request := table{{name: "_ctrl", table: control}, {name: "_data", table: table{{name: "type", text: command}}}}
	if _, err := c.conn.Write(request.pack(c.algorithm, c.mac)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(c.conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxMessage {
		return nil, fmt.Errorf("its answer is larger than %d bytes", maxMessage)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(c.conn, text); err != nil {
		return nil, err
	}
	answer, err := unpack(text, c.algorithm, c.mac)
	if err != nil {
		return nil, err
	}
	if answer.get("_ctrl", "_ser") != number(int64(c.serial)) || answer.get("_ctrl", "_rpl") != "1" {
		return nil, errors.New("what it answers is no reply to what was asked")
	}
	return answer, nil
}
