package upkeep

import (
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Receiver types: how somebody is told.
const (
	ReceiverEmail   = "email"
	ReceiverWebhook = "webhook"
	ReceiverExec    = "exec"
)

// ReceiverTypes lists every receiver type, in the order in which help shows them.
var ReceiverTypes = []string{ReceiverEmail, ReceiverWebhook, ReceiverExec}

// TLS modes of a mail receiver.
const (
	MailStartTLS = "starttls" // demanded, not tried
	MailTLS      = "tls"      // from the first byte on, usually port 465
	MailPlain    = "none"
)

// TellKinds are the event kinds that a receiver may ask for.
var TellKinds = []string{EventVerdict, EventDecision, EventPublish, EventProof, EventWarning, EventAdmin, EventDeclared, EventSystem}

// Receiver is somebody, or some program, that is told what happens. Which
// fields a type takes is in [receiverFields]; a field that its type does not
// take is refused.
type Receiver struct {
	Name string `json:"name"`
	Type string `json:"type"`

	// email. SMTP is host:port of the server that takes the mail.
	To           []string `json:"to,omitempty"`
	From         string   `json:"from,omitempty"`
	SMTP         string   `json:"smtp,omitempty"`
	TLS          string   `json:"tls,omitempty"` // starttls when left out
	Username     string   `json:"username,omitempty"`
	PasswordFile string   `json:"password_file,omitempty"`

	// webhook. URLFile holds the URL where it is itself a secret.
	URL     string `json:"url,omitempty"`
	URLFile string `json:"url_file,omitempty"`
	// Template is a text/template that makes the JSON of the body; the message
	// itself when left out. The function json writes a value as JSON.
	Template string            `json:"template,omitempty"`
	Header   map[string]string `json:"header,omitempty"`
	// SecretFile holds the key that bodies are signed with, TokenFile a bearer
	// token. What is in files is read anew each time.
	SecretFile string `json:"secret_file,omitempty"`
	TokenFile  string `json:"token_file,omitempty"`

	// email and webhook: PEM bundle instead of the system's.
	CAFile string `json:"ca_file,omitempty"`

	// exec: argv of a program that takes the message as JSON on its input.
	Command []string `json:"command,omitempty"`

	// Timeout of one attempt, 30s when left out.
	Timeout Duration `json:"timeout,omitempty"`
	// Events are the kinds to tell of: verdict, decision, publish, proof and
	// warning when left out. Pools are globs as in path.Match; with them, only
	// what concerns these pools and their zones is told.
	Events []string `json:"events,omitempty"`
	Pools  []string `json:"pools,omitempty"`
	// GroupWait is how long a message waits for what happens close together, 5s
	// when left out. MinInterval is the least time between two messages, 1m when
	// left out; what happens meanwhile is held back and told together.
	GroupWait   *Duration `json:"group_wait,omitempty"`
	MinInterval Duration  `json:"min_interval,omitempty"`
	// Repeat reminds of what is still wrong, this long after the last message;
	// never when left out.
	Repeat Duration `json:"repeat,omitempty"`
	// MaxAge is how old an event may get before telling of it is given up, 1d
	// when left out.
	MaxAge Duration `json:"max_age,omitempty"`
}

func (r Receiver) ObjectKind() string { return KindReceiver }
func (r Receiver) ObjectName() string { return r.Name }

// receiverFields names, for each field that is not for all, the types that take it.
var receiverFields = map[string][]string{
	"to":            {ReceiverEmail},
	"from":          {ReceiverEmail},
	"smtp":          {ReceiverEmail},
	"tls":           {ReceiverEmail},
	"username":      {ReceiverEmail},
	"password_file": {ReceiverEmail},
	"url":           {ReceiverWebhook},
	"url_file":      {ReceiverWebhook},
	"template":      {ReceiverWebhook},
	"header":        {ReceiverWebhook},
	"secret_file":   {ReceiverWebhook},
	"token_file":    {ReceiverWebhook},
	"ca_file":       {ReceiverEmail, ReceiverWebhook},
	"command":       {ReceiverExec},
}

// given names the fields that are set, of those that not all types take.
func (r Receiver) given() []string {
	set := map[string]bool{
		"to": len(r.To) > 0, "from": r.From != "", "smtp": r.SMTP != "", "tls": r.TLS != "", "username": r.Username != "",
		"password_file": r.PasswordFile != "", "url": r.URL != "", "url_file": r.URLFile != "", "template": r.Template != "",
		"header": len(r.Header) > 0, "secret_file": r.SecretFile != "", "token_file": r.TokenFile != "", "ca_file": r.CAFile != "",
		"command": len(r.Command) > 0,
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

// WithDefaults fills in what was left out. What is stored and shown is what the
// operator wrote; what runs is this.
func (r Receiver) WithDefaults() Receiver {
	def := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	if r.Type == ReceiverEmail {
		r.TLS = orString(r.TLS, MailStartTLS)
	}
	if len(r.Events) == 0 {
		r.Events = []string{EventVerdict, EventDecision, EventPublish, EventProof, EventWarning}
	}
	if r.GroupWait == nil {
		wait := Duration(5 * time.Second)
		r.GroupWait = &wait
	}
	def(&r.Timeout, 30*time.Second)
	def(&r.MinInterval, time.Minute)
	def(&r.MaxAge, Day)
	return r
}

// Validate returns every rule that the receiver breaks by itself.
func (r Receiver) Validate() []FieldError {
	rs := &rules{}
	if !objectName().MatchString(r.Name) {
		rs.add("name", r.Name, "must be 1 to 63 lower-case letters, digits and hyphens")
	}
	if !slices.Contains(ReceiverTypes, r.Type) {
		rs.add("type", r.Type, "must be one of %s", strings.Join(ReceiverTypes, ", "))
		return rs.fields
	}
	for _, field := range r.given() {
		if takers := receiverFields[field]; !slices.Contains(takers, r.Type) {
			rs.add(field, nil, "is taken by receivers of type %s, not by %s", strings.Join(takers, ", "), r.Type)
		}
	}
	switch r.Type {
	case ReceiverEmail:
		r.validateEmail(rs)
	case ReceiverWebhook:
		r.validateWebhook(rs)
	case ReceiverExec:
		if len(r.Command) == 0 || r.Command[0] == "" {
			rs.add("command", nil, "is required for an exec receiver: a list, program first; no shell is involved")
		}
		for i, arg := range r.Command {
			if strings.ContainsRune(arg, 0) {
				rs.add(fmt.Sprintf("command[%d]", i), nil, "must not hold a NUL byte")
			}
		}
	}
	r.validateChoice(rs)
	r.validateTiming(rs)
	return rs.fields
}

func (r Receiver) validateEmail(rs *rules) {
	if len(r.To) == 0 {
		rs.add("to", nil, "needs at least one mail address")
	}
	if len(r.To) > 100 {
		rs.add("to", len(r.To), "must be at most 100 addresses")
	}
	for i, to := range r.To {
		if !validMail(to) {
			rs.add(fmt.Sprintf("to[%d]", i), to, "must be a mail address such as ops@example.test")
		}
		if slices.Contains(r.To[:i], to) {
			rs.add(fmt.Sprintf("to[%d]", i), to, "is listed twice")
		}
	}
	if !validMail(r.From) {
		rs.mustBe("from", r.From, "a mail address such as upkeep@example.test")
	}
	if !validHostPort(r.SMTP) {
		rs.mustBe("smtp", r.SMTP, "host:port of a mail server, such as mail.example.test:587")
	}
	modes := []string{MailStartTLS, MailTLS, MailPlain}
	if r.TLS != "" && !slices.Contains(modes, r.TLS) {
		rs.add("tls", r.TLS, "must be one of %s", strings.Join(modes, ", "))
	}
	if (r.Username == "") != (r.PasswordFile == "") {
		rs.add("password_file", nil, "and username belong together")
	}
	if hasControl(r.Username) {
		rs.add("username", r.Username, "must hold no control character")
	}
	if r.TLS == MailPlain && r.Username != "" {
		rs.add("tls", r.TLS, "would send the password in the clear; use starttls or tls with username")
	}
	if r.TLS == MailPlain && r.CAFile != "" {
		rs.add("ca_file", r.CAFile, "has no use with tls: none")
	}
}

// validMail accepts an address alone or with a display name, in one line.
func validMail(s string) bool {
	addr, err := mail.ParseAddress(s)
	return err == nil && len(s) <= 320 && !hasControl(s) && !hasControl(addr.Address) && !hasControl(addr.Name)
}

func validHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	_, err = netip.ParseAddr(host)
	return err == nil || ValidName(host)
}

func (r Receiver) validateWebhook(rs *rules) {
	switch {
	case r.URL == "" && r.URLFile == "":
		rs.add("url", nil, "is required for a webhook: url, or url_file with a file that holds it")
	case r.URL != "" && r.URLFile != "":
		rs.add("url_file", r.URLFile, "and url cannot stand beside each other")
	case r.URL != "":
		if err := CheckWebhookURL(r.URL); err != nil {
			rs.add("url", r.URL, "%v", err)
		}
	}
	for name, value := range r.Header {
		if !headerName().MatchString(name) || hasControl(value) {
			rs.add("header."+name, value, "must be a header name with a value free of control characters")
		}
	}
	if len(r.Template) > 64<<10 {
		rs.add("template", nil, "must be at most 64 KiB")
		return
	}
	if _, err := ParseTemplate(r.Template); err != nil {
		rs.add("template", nil, "must be a template as Go's text/template reads it: %v", err)
	}
}

// CheckWebhookURL says what is wrong with the address of a webhook.
func CheckWebhookURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "":
		return fmt.Errorf("must be an http or https URL")
	case u.User != nil:
		return fmt.Errorf("must not hold a password; use token_file or header")
	}
	return nil
}

func (r Receiver) validateChoice(rs *rules) {
	for i, kind := range r.Events {
		at := fmt.Sprintf("events[%d]", i)
		if !slices.Contains(TellKinds, kind) {
			rs.add(at, kind, "must be one of %s", strings.Join(TellKinds, ", "))
		}
		if slices.Contains(r.Events[:i], kind) {
			rs.add(at, kind, "is listed twice")
		}
	}
	for i, glob := range r.Pools {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			rs.add(fmt.Sprintf("pools[%d]", i), glob, "must be the name of a pool, or a pattern such as web-*")
		}
	}
}

func (r Receiver) validateTiming(rs *rules) {
	within := func(field string, d Duration, least, most time.Duration) {
		if d != 0 && (time.Duration(d) < least || time.Duration(d) > most) {
			rs.add(field, d, "must be %s to %s", Duration(least), Duration(most))
		}
	}
	within("timeout", r.Timeout, time.Second, 5*time.Minute)
	within("min_interval", r.MinInterval, time.Second, Day)
	within("repeat", r.Repeat, time.Minute, 30*Day)
	within("max_age", r.MaxAge, time.Minute, 30*Day)
	if r.GroupWait != nil && (*r.GroupWait < 0 || *r.GroupWait > Duration(time.Hour)) {
		rs.add("group_wait", *r.GroupWait, "must be 0s to 1h")
	}
}
