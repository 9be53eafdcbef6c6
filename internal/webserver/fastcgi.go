package webserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"upkeep/internal/vhost"
)

// Record types of FastCGI (https://fastcgi-archives.github.io/FastCGI_Specification.html, section 8).
const (
	fcgiBegin  = 1
	fcgiEnd    = 3
	fcgiParams = 4
	fcgiStdin  = 5
	fcgiStdout = 6
)

// maxPong bounds what is read of an answer, in bytes.
const maxPong = 64 << 10

// pingPool asks a php-fpm pool for its ping page.
func pingPool(ctx context.Context, socket string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if deadline, has := ctx.Deadline(); has {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	} else if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	var params []byte
	for _, p := range [][2]string{{"REQUEST_METHOD", "GET"}, {"SCRIPT_NAME", vhost.PingPath}, {"SCRIPT_FILENAME", vhost.PingPath}, {"SERVER_PROTOCOL", "HTTP/1.1"}} {
		params = append(params, byte(len(p[0])), byte(len(p[1])))
		params = append(append(params, p[0]...), p[1]...)
	}
	request := fcgiRecord(nil, fcgiBegin, []byte{0, 1, 0, 0, 0, 0, 0, 0}) // a responder, and no other request after it
	request = fcgiRecord(fcgiRecord(request, fcgiParams, params), fcgiParams, nil)
	if _, err := conn.Write(fcgiRecord(request, fcgiStdin, nil)); err != nil {
		return err
	}
	answer, err := fcgiAnswer(io.LimitReader(conn, maxPong))
	if err != nil {
		return err
	}
	if !bytes.HasSuffix(answer, []byte(vhost.Pong)) {
		return fmt.Errorf("it answers %.200q", answer)
	}
	return nil
}

func fcgiRecord(to []byte, kind byte, content []byte) []byte {
	to = append(to, 1, kind, 0, 1) // version 1, request 1
	to = binary.BigEndian.AppendUint16(to, uint16(len(content)))
	return append(append(to, 0, 0), content...)
}

// fcgiAnswer reads records up to the end of the request and returns the output.
func fcgiAnswer(r io.Reader) (output []byte, err error) {
	for {
		var header [8]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return nil, fmt.Errorf("reading its answer: %w", err)
		}
		content := make([]byte, int(binary.BigEndian.Uint16(header[4:]))+int(header[6]))
		if _, err := io.ReadFull(r, content); err != nil {
			return nil, fmt.Errorf("reading its answer: %w", err)
		}
		switch {
		case header[0] != 1:
			return nil, errors.New("it does not speak FastCGI")
		case header[1] == fcgiStdout:
			output = append(output, content[:len(content)-int(header[6])]...)
		case header[1] == fcgiEnd:
			return output, nil
		}
	}
}
