package upkeep

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep/internal/lazy"
)

// Check types.
const (
	CheckPing      = "ping"
	CheckTCP       = "tcp"
	CheckHTTP      = "http"
	CheckHTTPS     = "https"
	CheckDNS       = "dns"
	CheckExec      = "exec"
	CheckHeartbeat = "heartbeat"
)

// CheckTypes lists every check type, in the order in which help shows them.
var CheckTypes = []string{CheckPing, CheckTCP, CheckHTTP, CheckHTTPS, CheckDNS, CheckExec, CheckHeartbeat}

// Bounds of check options.
const (
	MinInterval = 50 * time.Millisecond
	MaxInterval = time.Hour
	MaxBody     = 1 << 20 // bytes of a response body that may be read
)

// Check is what is asked of a member. Which fields a type takes is in
// [checkFields]; a field that its type does not take is refused.
type Check struct {
	Type string `json:"type"`
	// Port is the port asked; 80 for http, 443 for https, 53 for dns when left out.
	Port int `json:"port,omitempty"`
	// Interval between two regular probes, 50ms to 1h; Timeout must be below it.
	Interval Duration `json:"interval,omitempty"`
	Timeout  Duration `json:"timeout,omitempty"`

	// MaxFalse is the rate of false removals of one member that the operator
	// accepts; adaptive detection derives everything else from it.
	MaxFalse Rate `json:"max_false,omitzero"`
	// MinSpan is the least time that the evidence for a removal must span.
	MinSpan Duration `json:"min_span,omitempty"`
	// Fall, OKReset and Rise are gdnsd's three counters. Setting Fall turns
	// adaptive detection off.
	Fall    int `json:"fall,omitempty"`
	OKReset int `json:"ok_reset,omitempty"`
	Rise    int `json:"rise,omitempty"`
	// Burst sends quick confirmations after a first failure; true when left out.
	Burst *bool `json:"burst,omitempty"`

	// http and https.
	Method     string            `json:"method,omitempty"`
	Host       string            `json:"host,omitempty"` // Host header and TLS server name
	Path       string            `json:"path,omitempty"`
	Status     []StatusRange     `json:"status,omitempty"` // accepted; 200-399 when left out
	Body       string            `json:"body,omitempty"`   // RE2 expression the body must match
	Header     map[string]string `json:"header,omitempty"`
	MaxBody    int               `json:"max_body,omitempty"`    // bytes read; 10240 when left out
	Redirects  int               `json:"redirects,omitempty"`   // followed; none when left out
	TLSVerify  *bool             `json:"tls_verify,omitempty"`  // true when left out
	CAFile     string            `json:"ca_file,omitempty"`     // PEM bundle instead of the system's
	ExpiryWarn Duration          `json:"expiry_warn,omitempty"` // warn when the certificate ends sooner; 14d when left out

	// dns.
	Query  string   `json:"query,omitempty"`  // name asked
	QType  string   `json:"qtype,omitempty"`  // A when left out
	RCode  string   `json:"rcode,omitempty"`  // NOERROR when left out
	Answer []string `json:"answer,omitempty"` // record data of which at least one must be answered

	// exec: argv of a Nagios plugin. "{address}" and "{port}" are replaced.
	Command []string `json:"command,omitempty"`

	// heartbeat: file with the keys that beats are signed with.
	KeyFile string `json:"key_file,omitempty"`
}

// checkFields names, for each optional field, the check types that take it.
var checkFields = map[string][]string{
	"port":        {CheckTCP, CheckHTTP, CheckHTTPS, CheckDNS, CheckExec},
	"method":      {CheckHTTP, CheckHTTPS},
	"host":        {CheckHTTP, CheckHTTPS},
	"path":        {CheckHTTP, CheckHTTPS},
	"status":      {CheckHTTP, CheckHTTPS},
	"body":        {CheckHTTP, CheckHTTPS},
	"header":      {CheckHTTP, CheckHTTPS},
	"max_body":    {CheckHTTP, CheckHTTPS},
	"redirects":   {CheckHTTP, CheckHTTPS},
	"tls_verify":  {CheckHTTPS},
	"ca_file":     {CheckHTTPS},
	"expiry_warn": {CheckHTTPS},
	"query":       {CheckDNS},
	"qtype":       {CheckDNS},
	"rcode":       {CheckDNS},
	"answer":      {CheckDNS},
	"command":     {CheckExec},
	"key_file":    {CheckHeartbeat},
}

// StatusRange is an inclusive range of HTTP status codes, written "200" or "200-299".
type StatusRange struct{ From, To int }

// Contains reports whether code lies in the range.
func (r StatusRange) Contains(code int) bool { return r.From <= code && code <= r.To }

// MarshalText implements encoding.TextMarshaler.
func (r StatusRange) MarshalText() ([]byte, error) {
	if r.From == r.To {
		return []byte(strconv.Itoa(r.From)), nil
	}
	return fmt.Appendf(nil, "%d-%d", r.From, r.To), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *StatusRange) UnmarshalText(text []byte) error {
	from, to, ranged := strings.Cut(string(text), "-")
	if !ranged {
		to = from
	}
	a, errA := strconv.Atoi(from)
	b, errB := strconv.Atoi(to)
	if errA != nil || errB != nil || a < 100 || b > 599 || a > b {
		return fmt.Errorf("%q is not a status such as 200 or a range such as 200-299", text)
	}
	*r = StatusRange{a, b}
	return nil
}

// Adaptive reports whether removals are decided by adaptive detection rather
// than by plain counters.
func (c Check) Adaptive() bool { return c.Fall == 0 }

// BurstOn reports whether quick confirmations follow a first failure.
func (c Check) BurstOn() bool { return c.Burst == nil || *c.Burst }

// WithDefaults fills in what was left out. What is stored and shown is what the
// operator wrote; what runs is this.
func (c Check) WithDefaults() Check {
	def := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	def(&c.Interval, time.Second)
	patience := time.Duration(c.Interval) / 2
	if c.Type == CheckHeartbeat { // nobody waits it out in vain: it follows how late beats come
		patience = time.Duration(c.Interval) * 9 / 10
	}
	def(&c.Timeout, min(patience, 2*time.Second))
	if c.Adaptive() && c.MaxFalse.IsZero() {
		c.MaxFalse = Rate{Count: 1, Per: 10 * Year}
	}
	if !c.Adaptive() {
		c.OKReset = orInt(c.OKReset, c.Fall)
		c.Rise = orInt(c.Rise, c.Fall+2) // rise slower than fall
	}
	switch c.Type {
	case CheckHTTP, CheckHTTPS:
		c.Port = orInt(c.Port, map[string]int{CheckHTTP: 80, CheckHTTPS: 443}[c.Type])
		c.Method = orString(c.Method, "GET")
		c.Path = orString(c.Path, "/")
		c.MaxBody = orInt(c.MaxBody, 10240)
		if len(c.Status) == 0 {
			c.Status = []StatusRange{{200, 399}}
		}
		if c.Type == CheckHTTPS {
			def(&c.ExpiryWarn, 14*Day)
		}
	case CheckDNS:
		c.Port = orInt(c.Port, 53)
		c.QType = orString(c.QType, "A")
		c.RCode = orString(c.RCode, "NOERROR")
	}
	return c
}

func orInt(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}

func orString(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

// given names the optional fields that are set.
func (c Check) given() []string {
	set := map[string]bool{
		"port": c.Port != 0, "method": c.Method != "", "host": c.Host != "", "path": c.Path != "",
		"status": len(c.Status) > 0, "body": c.Body != "", "header": len(c.Header) > 0,
		"max_body": c.MaxBody != 0, "redirects": c.Redirects != 0, "tls_verify": c.TLSVerify != nil,
		"ca_file": c.CAFile != "", "expiry_warn": c.ExpiryWarn != 0, "query": c.Query != "",
		"qtype": c.QType != "", "rcode": c.RCode != "", "answer": len(c.Answer) > 0,
		"command": len(c.Command) > 0, "key_file": c.KeyFile != "",
	}
	var names []string
	for name, is := range set {
		if is {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c Check) validate(r *rules, at string) {
	if !slices.Contains(CheckTypes, c.Type) {
		r.add(at+".type", c.Type, "must be one of %s", strings.Join(CheckTypes, ", "))
		return
	}
	for _, field := range c.given() {
		if takers := checkFields[field]; !slices.Contains(takers, c.Type) {
			r.add(at+"."+field, nil, "is taken by checks of type %s, not by %s", strings.Join(takers, ", "), c.Type)
		}
	}
	c.validateTiming(r, at)
	switch c.Type {
	case CheckTCP:
		if c.Port == 0 {
			r.add(at+".port", nil, "is required for a tcp check")
		}
	case CheckHTTP, CheckHTTPS:
		c.validateHTTP(r, at)
	case CheckDNS:
		if c.Query == "" {
			r.add(at+".query", nil, "is required for a dns check: the name to ask for")
		} else if !ValidName(strings.TrimSuffix(c.Query, ".")) {
			r.add(at+".query", c.Query, "must be a domain name")
		}
	case CheckExec:
		if len(c.Command) == 0 || c.Command[0] == "" {
			r.add(at+".command", nil, "is required for an exec check: a list, program first; no shell is involved")
		}
		for i, arg := range c.Command {
			if strings.ContainsRune(arg, 0) {
				r.add(fmt.Sprintf("%s.command[%d]", at, i), nil, "must not hold a NUL byte")
			}
		}
	case CheckHeartbeat:
		if c.KeyFile == "" {
			r.add(at+".key_file", nil, "is required for a heartbeat check; make one with: upkeep beat keygen")
		}
	}
	if c.Port < 0 || c.Port > 65535 {
		r.add(at+".port", c.Port, "must be 1 to 65535")
	}
}

func (c Check) validateTiming(r *rules, at string) {
	full := c.WithDefaults()
	interval, timeout := time.Duration(full.Interval), time.Duration(full.Timeout)
	if interval < MinInterval || interval > MaxInterval {
		r.add(at+".interval", full.Interval, "must be %s to %s", Duration(MinInterval), Duration(MaxInterval))
	}
	if timeout <= 0 {
		r.add(at+".timeout", full.Timeout, "must be above zero")
	} else if timeout >= interval {
		r.add(at+".timeout", full.Timeout, "must be below interval (%s), so that a probe ends before the next one starts", full.Interval)
	}
	if c.MinSpan < 0 || time.Duration(c.MinSpan) > time.Hour {
		r.add(at+".min_span", c.MinSpan, "must be 0s to 1h")
	}
	for name, n := range map[string]int{"fall": c.Fall, "ok_reset": c.OKReset, "rise": c.Rise} {
		if n < 0 || n > 1000 {
			r.add(at+"."+name, n, "must be 1 to 1000")
		}
	}
	if c.Fall == 0 && (c.OKReset != 0 || c.Rise != 0) {
		r.add(at+".fall", nil, "is required with ok_reset or rise; leave all three out for adaptive detection")
	}
	if c.Fall != 0 && !c.MaxFalse.IsZero() {
		r.add(at+".max_false", c.MaxFalse, "belongs to adaptive detection and cannot stand beside fall")
	}
	if every := c.MaxFalse.Every(); every != 0 && every < time.Hour {
		r.add(at+".max_false", c.MaxFalse, "must be at most one an hour")
	}
}

// headerName matches a token (RFC 9110 section 5.6.2) of a length that no real
// header or method exceeds.
var headerName = lazy.Regexp(`^[A-Za-z0-9!#$%&'*+.^_|~-]{1,100}$`)

// maxText bounds what one field adds to each request that is sent to a member.
const maxText = 4096

func (c Check) validateHTTP(r *rules, at string) {
	if c.Method != "" && !headerName().MatchString(c.Method) {
		r.add(at+".method", c.Method, "must be an HTTP method such as GET or HEAD")
	}
	if c.Path != "" && (!strings.HasPrefix(c.Path, "/") || hasControl(c.Path) || strings.Contains(c.Path, " ") || len(c.Path) > maxText) {
		r.add(at+".path", c.Path, "must start with / and hold at most %d bytes, no space and no control character", maxText)
	}
	if c.Host != "" && !ValidName(c.Host) {
		if _, err := netip.ParseAddr(c.Host); err != nil {
			r.add(at+".host", c.Host, "must be a host name or an address")
		}
	}
	for name, value := range c.Header {
		if !headerName().MatchString(name) || hasControl(value) || len(value) > maxText {
			r.add(at+".header."+name, value, "must be a header name with a value of at most %d bytes, free of control characters", maxText)
		}
	}
	if len(c.Body) > maxText {
		r.add(at+".body", c.Body, "must be at most %d bytes long", maxText)
	} else if _, err := regexp.Compile(c.Body); err != nil {
		r.add(at+".body", c.Body, "must be a regular expression (RE2): %v", err)
	}
	if c.MaxBody < 0 || c.MaxBody > MaxBody {
		r.add(at+".max_body", c.MaxBody, "must be 1 to %d bytes", MaxBody)
	}
	if c.Redirects < 0 || c.Redirects > 10 {
		r.add(at+".redirects", c.Redirects, "must be 0 to 10")
	}
	if c.TLSVerify != nil && !*c.TLSVerify && c.CAFile != "" {
		r.add(at+".ca_file", c.CAFile, "has no use with tls_verify: false")
	}
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c == 0x7f })
}
