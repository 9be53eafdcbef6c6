package vhost

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Every generated configuration file begins with a line that carries the
// generation of the row and the SHA-256 of all that follows, so that a file can
// be checked where nothing else is known. It has no text of a person: a comment
// that ends in a backslash swallows the next line.

// Seal is what the first line of a generated file says.
type Seal struct {
	Generation int64
	Sum        [sha256.Size]byte
}

// sealed puts the line before a text; mark begins a comment.
func sealed(mark string, generation int64, text []byte) []byte {
	sum := sha256.Sum256(text)
	out := make([]byte, 0, len(text)+160)
	out = append(out, mark...)
	out = append(out, sealText...)
	out = strconv.AppendInt(out, generation, 10)
	out = append(out, " sha256 "...)
	out = hex.AppendEncode(out, sum[:])
	out = append(out, '\n')
	return append(out, text...)
}

const sealText = " made by upkeep, and made again with each change; generation "

// Unseal reads the first line of a generated file and checks that it is true of
// the rest.
func Unseal(text []byte) (Seal, error) {
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	_, values, found := strings.Cut(string(line), sealText)
	number, sum, found2 := strings.Cut(values, " sha256 ")
	if !found || !found2 {
		return Seal{}, fmt.Errorf("the file has no line of upkeep's at its top")
	}
	var s Seal
	var err error
	if s.Generation, err = strconv.ParseInt(number, 10, 64); err != nil {
		return Seal{}, fmt.Errorf("reading its generation: %w", err)
	}
	s.Sum = sha256.Sum256(rest)
	if hex.EncodeToString(s.Sum[:]) != sum {
		return s, fmt.Errorf("the file was changed by hand: its sum is not the one in its first line")
	}
	return s, nil
}

// The token of a file stands in a path that nothing but this version of the file
// answers: it is made of all the rest of the text, so that nobody who does not
// have the file can name it.
const (
	tokenSize   = 32
	noToken     = "00000000000000000000000000000000"
	tokenFolder = "/.well-known/upkeep/"
)

// setTokens replaces each placeholder in the text by the token.
func setTokens(generation int64, text []byte) {
	h := sha256.New()
	fmt.Fprintf(h, "upkeep token v1 %d\n", generation)
	h.Write(text)
	token := hex.EncodeToString(h.Sum(nil))[:tokenSize]
	placeholder := []byte(tokenFolder + noToken)
	for at := 0; ; {
		i := bytes.Index(text[at:], placeholder)
		if i < 0 {
			return
		}
		at += i + len(tokenFolder)
		copy(text[at:], token)
	}
}

// tokenPath finds the path with the token in a text.
func tokenPath(text []byte) string {
	i := bytes.Index(text, []byte(tokenFolder))
	for ; i >= 0; i = nextIndex(text, i) {
		rest := text[i+len(tokenFolder):]
		if len(rest) >= tokenSize && only(string(rest[:tokenSize]), "") && (len(rest) == tokenSize || !only(string(rest[tokenSize:tokenSize+1]), "/-_.")) {
			return tokenFolder + string(rest[:tokenSize])
		}
	}
	return ""
}

func nextIndex(text []byte, i int) int {
	next := bytes.Index(text[i+1:], []byte(tokenFolder))
	if next < 0 {
		return -1
	}
	return i + 1 + next
}

// Made reports whether a first line is one of upkeep's.
func Made(line []byte) bool { return bytes.Contains(line, []byte(sealText)) }
