package console

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// takesGzip reports whether who asks can read gzip.
func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, parameter, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		quality, given := strings.CutPrefix(strings.TrimSpace(parameter), "q=")
		q, err := strconv.ParseFloat(quality, 64)
		return !given || err == nil && q > 0
	}
	return false
}

// packed is a text as gzip.
func packed(text []byte, level int) []byte {
	var made bytes.Buffer
	w, err := gzip.NewWriterLevel(&made, level)
	if err != nil {
		panic(err) // of a level that there is not
	}
	w.Write(text) // to memory, which does not fail
	w.Close()
	return made.Bytes()
}

// gzipHeader begins a gzip stream (RFC 1952, 2.3) that has no end.
const gzipHeader = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// packers are kept: to make one costs more than to pack a piece of news.
var packers = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // of a level that there is not
	}
	return w
}}

// piece is a text in the middle of any gzip stream: it refers to nothing before it
// and ends at a byte (RFC 1951, 3.2.4), so that it is made once for all who read it.
func piece(text []byte) []byte {
	var made bytes.Buffer
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(&made)
	w.Write(text) // to memory, which does not fail
	w.Flush()
	return made.Bytes()
}
