package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/template"
	"time"

	"upkeep"
	"upkeep/internal/secret"
)

const (
	// maxBody bounds what a template may write, maxAnswer what is read of an
	// answer.
	maxBody   = 1 << 20
	maxAnswer = 64 << 10
	maxHops   = 3
)

// webhook posts messages to a URL.
type webhook struct{ receiver upkeep.Receiver }

func newWebhook(r upkeep.Receiver, _ *slog.Logger) sender { return &webhook{r} }

func (h *webhook) send(ctx context.Context, m Message) error {
	body, err := h.body(m)
	if err != nil {
		return err
	}
	address := h.receiver.URL
	if h.receiver.URLFile != "" {
		if address, err = secret.Word(h.receiver.URLFile); err != nil {
			return fmt.Errorf("reading URL file: %w", err)
		}
		if err := upkeep.CheckWebhookURL(address); err != nil {
			return fmt.Errorf("reading URL file: %s %w", h.receiver.URLFile, err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("making a request: the URL cannot be used") // err holds it
	}
	if err := h.fill(request, m, body); err != nil {
		return err
	}
	return h.post(request)
}

// fill sets the header. What the operator sets replaces what would be sent by
// itself, but for the signature.
func (h *webhook) fill(request *http.Request, m Message, body []byte) error {
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "upkeep")
	request.Header.Set("Upkeep-Message", m.ID)
	if h.receiver.TokenFile != "" {
		token, err := secret.Word(h.receiver.TokenFile)
		if err != nil {
			return fmt.Errorf("reading token file: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	for name, value := range h.receiver.Header {
		if strings.EqualFold(name, "Host") {
			request.Host = value
			continue
		}
		request.Header.Set(name, value)
	}
	if h.receiver.SecretFile != "" {
		key, err := secret.Word(h.receiver.SecretFile)
		if err != nil {
			return fmt.Errorf("reading secret file: %w", err)
		}
		request.Header.Set("Upkeep-Signature", Sign(key, time.Now(), body))
	}
	return nil
}

// Sign makes the signature of a body: "t=" with the Unix time, and "v1=" with the
// HMAC-SHA-256 in hexadecimal over that time, a full stop and the body. The time
// lets a receiver refuse what was recorded and sent again.
func Sign(key string, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(stamp + ".")) // never fails
	mac.Write(body)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

func (h *webhook) post(request *http.Request) error {
	settings, err := tlsConfig("", h.receiver.CAFile)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: settings, DisableKeepAlives: true,
		MaxResponseHeaderBytes: maxAnswer, ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, CheckRedirect: checkRedirect}).Do(request)
	if err != nil {
		return fmt.Errorf("posting to %s: %w", request.URL.Host, withoutURL(err))
	}
	defer func() { _ = response.Body.Close() }() // it was read as far as it matters
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode >= 200 && response.StatusCode <= 299 {
		return nil
	}
	err = fmt.Errorf("posting to %s: HTTP %d: %.200s", request.URL.Host, response.StatusCode, clean(string(text)))
	if pause := retryAfter(response.Header.Get("Retry-After"), time.Now()); pause > 0 {
		return &laterError{err, pause}
	}
	return err
}

// checkRedirect follows only what stays on the same host and still posts: a
// message, its token and its signature are for whom the operator named.
func checkRedirect(request *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > maxHops:
		return fmt.Errorf("more than %d redirects", maxHops)
	case request.URL.Host != first.URL.Host || request.URL.Scheme != first.URL.Scheme:
		return errors.New("redirect to another host, which is not followed")
	case request.Method != first.Method:
		return errors.New("redirect that would turn the message into a question, which is not followed")
	}
	return nil
}

// withoutURL takes the URL out of an error: it may hold a secret.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// retryAfter reads the header of that name (RFC 9110, section 10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 86400)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return at.Sub(now)
	}
	return 0
}

// body is what is posted: the message as JSON, or what the template makes of it.
func (h *webhook) body(m Message) ([]byte, error) {
	if h.receiver.Template == "" {
		return encode(m)
	}
	parsed, err := upkeep.ParseTemplate(h.receiver.Template)
	if err != nil {
		return nil, fmt.Errorf("reading the template: %w", err)
	}
	body, err := execute(parsed, m)
	if err != nil {
		return nil, err
	}
	if h.wantsJSON() && !json.Valid(body) {
		return nil, upkeep.WithHint(errors.New("the template does not make valid JSON"),
			"write texts with json, which adds the quotes: {\"text\": {{json .Title}}}")
	}
	return body, nil
}

// wantsJSON reports whether the body must be JSON: unless the operator sets
// another content type.
func (h *webhook) wantsJSON() bool {
	for name, value := range h.receiver.Header {
		if strings.EqualFold(name, "Content-Type") {
			return strings.Contains(strings.ToLower(value), "json")
		}
	}
	return true
}

func execute(t *template.Template, m Message) ([]byte, error) {
	out := &bounded{left: maxBody}
	if err := t.Execute(out, m); err != nil {
		return nil, fmt.Errorf("filling in the template: %w", err)
	}
	return out.text.Bytes(), nil
}

// bounded ends a template that writes without end.
type bounded struct {
	text bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, fmt.Errorf("the body is longer than %d bytes", maxBody)
	}
	b.left -= len(p)
	return b.text.Write(p)
}

// encode is the JSON form of a message, with "<" as people wrote it.
func encode(m Message) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(m); err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	return b.Bytes(), nil
}
