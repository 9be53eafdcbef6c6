package link

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"upkeep"
)

// Job is what control signs: one piece of work for one server, until a time.
type Job struct {
	ID         int64     `json:"id"`
	Server     string    `json:"server"`
	Kind       string    `json:"kind"`
	Object     string    `json:"object"`
	Generation int64     `json:"generation"`
	Expires    time.Time `json:"expires"` // whole seconds, UTC
	// Payload is a JSON object; its type is known by kind.
	Payload json.RawMessage `json:"payload,omitempty"`
	// Packed is a long payload while it travels, see [Job.packed]: what [Sign] is
	// given, and [Open] returns, has none.
	Packed []byte `json:"packed,omitempty"`
	// Plain has [Sign] leave a long payload as it is, for an agent of [Protocol] 0.
	Plain bool `json:"-"`
}

// Signed is a job as it travels: the signature is Ed25519 (RFC 8032) over a
// prefix that no other use of the key has, and the body.
type Signed struct {
	Body      []byte `json:"body"`
	Signature []byte `json:"signature"`
}

// domain keeps a signature from meaning something in another place, where the
// same key might come to sign something else.
const domain = "upkeep job v1\x00"

// MaxLife is the longest time that a signed job may have to live: a signature
// that somebody recorded must not be worth anything for long. Jobs are signed
// when they are sent, so none needs more.
const MaxLife = 24 * time.Hour

const (
	maxKind   = 64
	maxObject = 400
)

// Sign signs a job, with its expiry cut to whole seconds. A job that [Open]
// would not take is not signed.
func Sign(key ed25519.PrivateKey, job Job) (Signed, error) {
	job.Expires = job.Expires.UTC().Truncate(time.Second)
	if err := job.validate(); err != nil {
		return Signed{}, fmt.Errorf("signing a job: %w", err)
	}
	job, err := job.packed()
	if err != nil {
		return Signed{}, fmt.Errorf("signing job %d: packing its payload: %w", job.ID, err)
	}
	body, err := json.Marshal(job)
	if err != nil {
		return Signed{}, fmt.Errorf("signing job %d: %w", job.ID, err)
	}
	signed := Signed{Body: body, Signature: ed25519.Sign(key, append([]byte(domain), body...))}
	if err := signed.bounds(); err != nil {
		return Signed{}, fmt.Errorf("signing job %d: %w", job.ID, err)
	}
	return signed, nil
}

// Open returns the job inside, if it is control's and for this server and has
// not expired. Nothing of it is parsed before its signature was found to be
// good. Every refusal is an [upkeep.ErrRefused] that says why.
func Open(key ed25519.PublicKey, server string, now time.Time, signed Signed) (Job, error) {
	job, err := open(key, server, now, signed)
	if err != nil {
		return Job{}, fmt.Errorf("%w: %w", upkeep.ErrRefused, err)
	}
	return job, nil
}

func open(key ed25519.PublicKey, server string, now time.Time, signed Signed) (Job, error) {
	if len(key) != ed25519.PublicKeySize {
		return Job{}, errors.New("control's signing key is not known here")
	}
	if err := signed.bounds(); err != nil {
		return Job{}, err
	}
	if !ed25519.Verify(key, append([]byte(domain), signed.Body...), signed.Signature) {
		return Job{}, errors.New("the job is not signed by the control that this server has joined")
	}
	job, err := parseJob(signed.Body)
	if err != nil {
		return Job{}, err
	}
	switch life := job.Expires.Sub(now); {
	case job.Server != server:
		return Job{}, fmt.Errorf("job %d is for the server %s, and this is %s", job.ID, job.Server, server)
	case life <= 0:
		return Job{}, fmt.Errorf("job %d expired at %s, and the clock here says %s",
			job.ID, job.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case life > MaxLife:
		return Job{}, fmt.Errorf("job %d expires at %s, and no job may have more than %s to live; the clock here says %s",
			job.ID, job.Expires.Format(time.RFC3339), MaxLife, now.UTC().Format(time.RFC3339))
	}
	return job, nil
}

// parseJob reads a body in the one form that Sign writes: a second way to write
// the same thing (a field twice, in capitals, with spaces) would be a second
// meaning to somebody.
func parseJob(body []byte) (Job, error) {
	var job Job
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&job); err != nil {
		return Job{}, fmt.Errorf("reading a signed job: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return Job{}, errors.New("reading a signed job: something follows it")
	}
	again, err := json.Marshal(job)
	if err != nil || !bytes.Equal(again, body) {
		return Job{}, fmt.Errorf("reading a signed job: job %d is not written the way jobs are signed", job.ID)
	}
	if job, err = job.unpacked(); err == nil {
		err = job.validate()
	}
	if err != nil {
		return Job{}, fmt.Errorf("reading a signed job: %w", err)
	}
	return job, nil
}

func (j Job) validate() error {
	switch {
	case j.ID <= 0:
		return errors.New("it has no id")
	case !upkeep.ValidObject(j.Server):
		return fmt.Errorf("job %d: %.80q is not the name of a server", j.ID, j.Server)
	case j.Kind == "" || len(j.Kind) > maxKind || !utf8.ValidString(j.Kind):
		return fmt.Errorf("job %d: %.80q is not a kind", j.ID, j.Kind)
	case len(j.Object) > maxObject || !utf8.ValidString(j.Object):
		return fmt.Errorf("job %d: %.80q is not an object", j.ID, j.Object)
	case j.Generation < 0:
		return fmt.Errorf("job %d: generation %d is below 0", j.ID, j.Generation)
	case j.Expires.IsZero() || j.Expires.Nanosecond() != 0 || j.Expires.Location() != time.UTC || j.Expires.Year() > 9999:
		return fmt.Errorf("job %d: it has no time, in whole seconds of UTC, at which it expires", j.ID)
	case !isObject(j.Payload):
		return fmt.Errorf("job %d: its payload is not a JSON object", j.ID)
	}
	return nil
}

// isObject looks at the whole of a short text. Whoever reads a long one does so,
// strictly; it costs too much to do twice.
func isObject(text json.RawMessage) bool {
	trimmed := bytes.Trim(text, " \t\r\n")
	return len(trimmed) > 1 && trimmed[0] == '{' && trimmed[len(trimmed)-1] == '}' && (len(text) >= packFrom || json.Valid(text))
}

func (s Signed) bounds() error {
	switch {
	case len(s.Body) == 0:
		return errors.New("the job is empty")
	case len(s.Body) > MaxJob:
		return fmt.Errorf("the job has %d bytes, and at most %d are possible", len(s.Body), MaxJob)
	case len(s.Signature) != ed25519.SignatureSize:
		return fmt.Errorf("the signature has %d bytes and must have %d", len(s.Signature), ed25519.SignatureSize)
	}
	return nil
}
