package probe

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
)

// maxHeader bounds the header of an answer, in bytes.
const maxHeader = 64 << 10

// httpCheck sends one request on a connection of its own. It speaks HTTP/1.1
// over a plain socket instead of going through http.Client: nothing is kept alive
// or resolved behind its back, each phase can be named when the time runs out,
// and a probe takes one goroutine in place of three.
type httpCheck struct {
	check  upkeep.Check
	header string // the lines that do not depend on the target
	body   *regexp.Regexp
	roots  *rootsFile // nil without ca_file
	dialer net.Dialer
}

func prepareHTTP(_ *Engine, c upkeep.Check) (asker, error) {
	h := &httpCheck{check: c, dialer: net.Dialer{KeepAlive: -1}}
	if c.Body != "" {
		var err error
		if h.body, err = regexp.Compile(c.Body); err != nil {
			return nil, fmt.Errorf("compiling the expression for the body: %w", err)
		}
	}
	if c.CAFile != "" {
		h.roots = &rootsFile{path: c.CAFile}
	}
	h.header = headerLines(c)
	return h, nil
}

// preflightHTTPS sees that the CA file can be used.
func preflightHTTPS(_ *Engine, c upkeep.Check) error {
	if c.CAFile == "" {
		return nil
	}
	_, err := (&rootsFile{path: c.CAFile}).pool()
	return err
}

// headerLines writes the request's header but for Host. What the operator sets
// replaces what would be sent by itself.
func headerLines(c upkeep.Check) string {
	lines := map[string]string{"User-Agent": "upkeep", "Accept": "*/*", "Connection": "close"}
	if c.Method != http.MethodGet && c.Method != http.MethodHead {
		lines["Content-Length"] = "0"
	}
	for name, value := range c.Header {
		if name = http.CanonicalHeaderKey(name); name != "Host" {
			lines[name] = value
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		b.WriteString(name + ": " + lines[name] + "\r\n")
	}
	return b.String()
}

// request is one step of a probe; redirects make more of them.
type request struct {
	method string
	tls    bool
	port   int
	host   string // name or address, without port or brackets
	path   string // with its query
}

func (h *httpCheck) run(ctx context.Context, t target) (Result, error) {
	began := time.Now()
	q := request{
		method: h.check.Method, tls: h.check.Type == upkeep.CheckHTTPS, port: h.check.Port,
		host: h.hostFor(t), path: h.check.Path,
	}
	var r Result
	for hops := 0; ; hops++ {
		next, err := h.ask(ctx, t, q, &r)
		if err != nil || next == nil {
			r.OK = err == nil && r.Reason == ""
			if r.OK {
				r.RTT = time.Since(began)
			}
			return r, err
		}
		if hops == h.check.Redirects {
			return Result{Refused: true, Reason: fmt.Sprintf("more than %d redirects", hops)}, nil
		}
		q = *next
	}
}

// hostFor is whom the request is for: what the operator says, else the target.
func (h *httpCheck) hostFor(t target) string {
	for name, value := range h.check.Header {
		if h.check.Host == "" && strings.EqualFold(name, "Host") {
			return strings.Trim(value, "[]")
		}
	}
	return cmp.Or(h.check.Host, t.host)
}

// ask sends one request and judges the answer, in r. It returns the request to
// make next when the answer is a redirect that is to be followed.
func (h *httpCheck) ask(ctx context.Context, t target, q request, r *Result) (*request, error) {
	fail := func(phase string, err error) error {
		if isLack(err) {
			return err
		}
		*r = failure(ctx, t, phase, err)
		return nil
	}
	plain, err := h.dialer.DialContext(ctx, "tcp", netip.AddrPortFrom(t.addr, uint16(q.port)).String())
	if err != nil {
		return nil, fail(noConnection, err)
	}
	defer plain.Close()
	stop := context.AfterFunc(ctx, func() { _ = plain.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := plain
	if q.tls {
		settings, err := h.tlsSettings(q.host)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(plain, settings)
		if err := secure.HandshakeContext(ctx); err != nil {
			if reason, local := tlsReason(err, q.host); local {
				return nil, err
			} else if reason != "" && ctx.Err() == nil {
				*r = Result{Refused: true, Reason: reason}
				return nil, nil
			}
			return nil, fail(connected+"no TLS handshake", err)
		}
		r.Warning = expiryWarning(secure.ConnectionState(), time.Duration(h.check.ExpiryWarn), time.Now())
		conn = secure
	}
	if _, err := io.WriteString(conn, h.text(q)); err != nil {
		return nil, fail(connected+"no HTTP answer", err)
	}
	return h.answer(ctx, t, q, conn, r)
}

func (h *httpCheck) text(q request) string {
	host := q.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if q.port != map[bool]int{false: 80, true: 443}[q.tls] {
		host += ":" + strconv.Itoa(q.port)
	}
	return q.method + " " + q.path + " HTTP/1.1\r\nHost: " + host + "\r\n" + h.header + "\r\n"
}

// answer reads and judges what comes back.
func (h *httpCheck) answer(ctx context.Context, t target, q request, conn io.Reader, r *Result) (*request, error) {
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	buffered := bufio.NewReader(limited)
	var response *http.Response
	for interim := 0; ; interim++ {
		var err error
		response, err = http.ReadResponse(buffered, &http.Request{Method: q.method})
		switch {
		case err != nil && limited.N <= 0:
			*r = Result{Refused: true, Reason: fmt.Sprintf("header longer than %d bytes", maxHeader)}
			return nil, nil
		case err != nil:
			*r = failure(ctx, t, connected+"no HTTP answer", err)
			return nil, nil
		}
		defer response.Body.Close()
		// 1xx answers come before the real one (RFC 9110, section 15.2).
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols || interim == 8 {
			break
		}
	}
	if h.check.Redirects > 0 {
		next, reason := redirect(q, response)
		if reason != "" {
			*r = Result{Refused: true, Reason: reason}
		}
		if reason != "" || next != nil {
			return next, nil
		}
	}
	if !slices.ContainsFunc(h.check.Status, func(s upkeep.StatusRange) bool { return s.Contains(response.StatusCode) }) {
		*r = Result{Refused: true, Reason: fmt.Sprintf("HTTP %d, wanted %s", response.StatusCode, statusText(h.check.Status))}
		return nil, nil
	}
	if h.body != nil {
		// Chunks of a byte each take six times their content.
		limited.N = 8*int64(h.check.MaxBody) + maxHeader
		h.match(ctx, t, response, r)
	}
	return nil, nil
}

func (h *httpCheck) match(ctx context.Context, t target, response *http.Response, r *Result) {
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(h.check.MaxBody)))
	if err != nil {
		*r = failure(ctx, t, fmt.Sprintf("HTTP %d, but its body is not complete", response.StatusCode), err)
		return
	}
	if !h.body.Match(body) {
		*r = Result{Refused: true, Reason: clean(fmt.Sprintf("HTTP %d, but the body's first %d bytes do not match %q",
			response.StatusCode, len(body), h.check.Body))}
	}
}

// redirect is the request that a redirect asks for. It goes to the same member
// whatever the new port or scheme; to another host it is not followed, since what
// answers there says nothing about the member (and could be anything that this
// machine can reach).
func redirect(q request, response *http.Response) (next *request, reason string) {
	switch response.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if q.method != http.MethodHead {
			q.method = http.MethodGet
		}
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, ""
	}
	location := response.Header.Get("Location")
	scheme := map[bool]string{false: "http", true: "https"}[q.tls]
	base, err := url.Parse(scheme + "://" + net.JoinHostPort(q.host, strconv.Itoa(q.port)) + q.path)
	if err != nil {
		return nil, clean(fmt.Sprintf("HTTP %d from a path that no redirect can be relative to", response.StatusCode))
	}
	to, err := base.Parse(location)
	if location == "" || err != nil || to.Scheme != "http" && to.Scheme != "https" {
		return nil, clean(fmt.Sprintf("HTTP %d with an unusable location %q", response.StatusCode, location))
	}
	if !strings.EqualFold(strings.TrimSuffix(to.Hostname(), "."), strings.TrimSuffix(q.host, ".")) {
		return nil, clean(fmt.Sprintf("HTTP %d to another host, %s, is not followed", response.StatusCode, to.Hostname()))
	}
	q.tls = to.Scheme == "https"
	q.port = map[bool]int{false: 80, true: 443}[q.tls]
	if port := to.Port(); port != "" {
		if q.port, err = strconv.Atoi(port); err != nil || q.port < 1 || q.port > 65535 {
			return nil, clean(fmt.Sprintf("HTTP %d with an unusable location %q", response.StatusCode, location))
		}
	}
	q.path = to.RequestURI()
	return &q, ""
}

// Phases of a probe, as they are named when the time runs out. Silence in any but
// the first two is silence after contact.
const (
	noConnection = "no connection"
	noDNSAnswer  = "no DNS answer"
	connected    = "connected, but "
)

// failure is the result of a step that went wrong; phase says how far the probe
// got.
func failure(ctx context.Context, t target, phase string, err error) Result {
	var network net.Error
	if ctx.Err() != nil || errors.As(err, &network) && network.Timeout() {
		return Result{Slow: phase != noConnection && phase != noDNSAnswer, Reason: phase + " within " + upkeep.Duration(t.timeout.Round(time.Millisecond)).String()}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Result{Refused: true, Reason: phase + ": connection closed"}
	}
	if isSystem(err) {
		reason, refused := explain(err)
		return Result{Refused: refused, Reason: reason}
	}
	return Result{Refused: true, Reason: clean(phase + ": " + err.Error())}
}

func statusText(ranges []upkeep.StatusRange) string {
	var all []string
	for _, r := range ranges {
		text, _ := r.MarshalText() // has no error to return
		all = append(all, string(text))
	}
	return strings.Join(all, ", ")
}
