package api

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api/wire"
	"upkeep/internal/store"
)

// Answers remembers what was answered to requests that their senders gave a key
// (draft-ietf-httpapi-idempotency-key-header). That a request was carried out is
// noted by the store in the transaction of what it does, see [store.WithOnce], and
// its answer afterwards: after a kill between the two it is known that it was done.
type Answers interface {
	RequestFor(ctx context.Context, caller, key string) (store.Requested, error)
	KeepAnswer(ctx context.Context, o store.Once, answer []byte) error
}

// keyHeader is what a sender names a request by.
const keyHeader = "Idempotency-Key"

// maxKey bounds a key, and maxAnswer an answer that is kept, in bytes.
const (
	maxKey    = 255
	maxAnswer = 1 << 20
)

// running are the requests with keys that are being carried out.
type running struct {
	mu  sync.Mutex
	all map[[2]string]bool // caller and key
}

func (r *running) begin(o store.Once) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := [2]string{o.Caller, o.Key}
	if r.all[id] {
		return false
	}
	if r.all == nil {
		r.all = map[[2]string]bool{}
	}
	r.all[id] = true
	return true
}

func (r *running) end(o store.Once) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, [2]string{o.Caller, o.Key})
}

// whole reads the body of a request before its handler is called, and has it called
// once for a key.
func (a *API) whole(handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			handler(w, r)
			return
		}
		// A list may come in several headers, which are one list (RFC 9110, 5.3).
		if tags := r.Header.Values("If-Match"); len(tags) > 1 {
			r.Header.Set("If-Match", strings.Join(tags, ", "))
		}
		body, problem := readBody(w, r)
		if problem != nil {
			writeProblem(w, problem)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		keys := r.Header.Values(keyHeader)
		if r.Method != http.MethodPost || len(keys) == 0 { // the others may be sent again by their nature
			handler(w, r)
			return
		}
		key, err := parseKey(keys)
		if err != nil || a.o.Answers == nil {
			writeProblem(w, badKey(err))
			return
		}
		if problem := a.once(w, r, key, body, handler); problem != nil {
			writeProblem(w, problem)
		}
	}
}

func badKey(err error) *wire.Problem {
	if err == nil {
		return wire.NewProblem(http.StatusBadRequest, "this upkeep remembers no keys of requests", "")
	}
	p := wire.NewProblem(http.StatusBadRequest, "the request breaks rules; nothing was changed", "a UUID will do, in quotes or without")
	p.Errors = []upkeep.FieldError{{Field: "header." + keyHeader, Rule: err.Error()}}
	return p
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *wire.Problem) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wire.MaxBody))
	var large *http.MaxBytesError
	var slow net.Error
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &large):
		return nil, wire.NewProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is too large: it may have %d bytes", large.Limit), "")
	case errors.As(err, &slow) && slow.Timeout():
		return nil, wire.NewProblem(http.StatusRequestTimeout, fmt.Sprintf("the body did not come within %s", bodyTime), "")
	}
	return nil, wire.NewProblem(http.StatusBadRequest, "the body cannot be read to its end", "")
}

// parseKey reads a key: a string in quotes (RFC 8941), or without them as many
// programs send it.
func parseKey(values []string) (string, error) {
	if len(values) != 1 {
		return "", errors.New("must be given once")
	}
	key := strings.TrimSpace(values[0])
	if inner, quoted := strings.CutPrefix(key, `"`); quoted {
		var closed bool
		if key, closed = strings.CutSuffix(inner, `"`); !closed {
			return "", errors.New("must end with a quote as it begins with one")
		}
	}
	bad := func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }
	if key == "" || len(key) > maxKey || strings.ContainsFunc(key, bad) {
		return "", fmt.Errorf("must be 1 to %d printable ASCII characters without spaces, quotes and backslashes", maxKey)
	}
	return key, nil
}

// once carries a request out, or answers as it was answered before. It returns a
// problem where neither can be done.
func (a *API) once(w http.ResponseWriter, r *http.Request, key string, body []byte, handler http.HandlerFunc) *wire.Problem {
	caller := access.From(r.Context())
	o := store.Once{Caller: caller.Who + "\n" + caller.Account, Key: sum(key),
		Request: sum(r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), r.Header.Get("If-Match"), r.Header.Get("If-None-Match"), string(body))}
	if !a.running.begin(o) {
		w.Header().Set("Retry-After", "1")
		return wire.NewProblem(http.StatusConflict, "a request with this key is being carried out", "wait for its end, then send it again for its answer")
	}
	defer a.running.end(o)
	before, err := a.o.Answers.RequestFor(r.Context(), o.Caller, o.Key)
	switch {
	case err == nil:
		return a.repeat(w, o, key, before)
	case !errors.Is(err, upkeep.ErrNotFound):
		a.log.Error("looking a key up", "err", err)
		return wire.NewProblem(http.StatusServiceUnavailable, "whether this was done already cannot be looked up just now", "nothing was done; send it again")
	}
	record := &recorder{under: w, answer: answered{Header: http.Header{}}}
	handler(record, r.WithContext(store.WithOnce(r.Context(), o)))
	record.WriteHeader(http.StatusOK) // where the handler was silent
	answer := record.answer
	if answer.Status/100 == 2 && len(answer.Body) <= maxAnswer {
		// Who sent it may be gone by now; what was done is done.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), bodyTime)
		defer cancel()
		if err := a.keep(ctx, o, key, answer); err != nil {
			a.log.Error("keeping an answer", "err", err)
		}
	}
	answer.send(w)
	return nil
}

// repeat answers as before.
func (a *API) repeat(w http.ResponseWriter, o store.Once, key string, before store.Requested) *wire.Problem {
	if before.Request != o.Request {
		return wire.NewProblem(http.StatusUnprocessableEntity, "this key was given to another request; nothing was done", "give each request a key of its own")
	}
	answer, err := a.unseal(key, o, before.Answer)
	if err != nil {
		return wire.NewProblem(http.StatusConflict, "this was done, and nothing was done again; its answer is not known any more", "look at what there is now")
	}
	w.Header().Set("Idempotency-Replayed", "true")
	answer.send(w)
	return nil
}

func (a *API) keep(ctx context.Context, o store.Once, key string, answer answered) error {
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	sealer, err := a.sealer(key)
	if err != nil {
		return err
	}
	nonce := make([]byte, sealer.NonceSize())
	rand.Read(nonce)
	return a.o.Answers.KeepAnswer(ctx, o, sealer.Seal(nonce, nonce, text, []byte(o.Request)))
}

func (a *API) unseal(key string, o store.Once, sealed []byte) (answer answered, err error) {
	sealer, err := a.sealer(key)
	if err != nil {
		return answer, err
	}
	if len(sealed) < sealer.NonceSize() {
		return answer, errors.New("no answer was kept")
	}
	text, err := sealer.Open(nil, sealed[:sealer.NonceSize()], sealed[sealer.NonceSize():], []byte(o.Request))
	if err != nil {
		return answer, err
	}
	err = json.Unmarshal(text, &answer)
	return answer, err
}

// sealer seals answers: some hold a secret that is told once, of which the database
// has a hash only. Its key is made of the sender's, which is not kept, and of the
// token in the data folder.
func (a *API) sealer(key string) (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, []byte(a.o.Token+"\n"+key), nil, "upkeep answers", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sum is a hash of texts, each with its length.
func sum(texts ...string) string {
	hash := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(hash, "%d:%s", len(text), text)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// recorder keeps an answer back until it is whole.
type recorder struct {
	under  http.ResponseWriter
	answer answered
}

// answered is an answer, as it is kept.
type answered struct {
	Status int
	Header http.Header
	Body   []byte
}

// Header, WriteHeader and Write make it what a handler answers to.
func (r *recorder) Header() http.Header { return r.answer.Header }

// WriteHeader takes the status.
func (r *recorder) WriteHeader(status int) {
	if r.answer.Status == 0 {
		r.answer.Status = status
	}
}

func (r *recorder) Write(text []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.answer.Body = append(r.answer.Body, text...)
	return len(text), nil
}

// Unwrap lets deadlines through to the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.under }

func (a answered) send(w http.ResponseWriter) {
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.Status)
	w.Write(a.Body)
}
