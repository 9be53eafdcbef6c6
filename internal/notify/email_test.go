package notify

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http/httptest"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"upkeep"
)

// mailServer is a real SMTP server.
type mailServer struct {
	t    *testing.T
	addr string
	ca   string // path of the certificate to trust

	mu      sync.Mutex
	letters []letter
	logins  []string
	refuse  string // recipients that contain this
	slow    chan struct{}
	busy    bool // answers MAIL with a temporary error
}

type letter struct {
	from string
	to   []string
	text string
}

type mailMode int

const (
	withoutTLS mailMode = iota
	withStartTLS
	withTLS
)

func serveMail(t *testing.T, mode mailMode) *mailServer {
	t.Helper()
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	t.Cleanup(certified.Close)
	settings := &tls.Config{Certificates: certified.TLS.Certificates}

	s := &mailServer{t: t, ca: filepath.Join(t.TempDir(), "ca.pem")}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})
	if err := os.WriteFile(s.ca, text, 0o644); err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mailSession{server: s}, nil }))
	server.Domain = "mail.example.test"
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	switch mode {
	case withStartTLS:
		server.TLSConfig = settings
	case withTLS:
		listener = tls.NewListener(listener, settings)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		_ = listener.Close() // a server that has not begun to serve does not know it
		<-done
	})
	return s
}

type mailSession struct {
	server *mailServer
	letter letter
}

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		s.server.logins = append(s.server.logins, username+":"+password)
		if password != "s3 cret" {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	s.server.mu.Lock()
	slow, busy := s.server.slow, s.server.busy
	s.server.mu.Unlock()
	if slow != nil {
		<-slow
	}
	if busy {
		return &smtp.SMTPError{Code: 451, Message: "try again\x1b later"}
	}
	s.letter = letter{from: from}
	return nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.refuse != "" && strings.Contains(to, s.server.refuse) {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.letter.to = append(s.letter.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.letter.text = string(text)
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.letters = append(s.server.letters, s.letter)
	return nil
}

func (s *mailSession) Reset()        {}
func (s *mailSession) Logout() error { return nil }

func (s *mailServer) got() []letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]letter(nil), s.letters...)
}

// receiver is one that is told by this server.
func (s *mailServer) receiver(mode string) upkeep.Receiver {
	r := upkeep.Receiver{
		Name: "ops", Type: upkeep.ReceiverEmail, To: []string{"ops@example.test"}, From: "upkeep <upkeep@example.test>",
		SMTP: s.addr, TLS: mode, Timeout: upkeep.Duration(10 * time.Second),
	}
	if mode != upkeep.MailPlain {
		r.CAFile = s.ca
	}
	return r
}

func sendMail(t *testing.T, r upkeep.Receiver, m Message) error {
	t.Helper()
	for _, f := range r.Validate() {
		t.Errorf("invalid: %v", f)
	}
	r = r.WithDefaults()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.Timeout))
	defer cancel()
	return newEmail(r, slog.New(slog.DiscardHandler)).send(ctx, m)
}

func trial() Message { return testMessage("ops", "monitor", time.Unix(1000, 0)) }

func TestMail(t *testing.T) {
	for mode, served := range map[string]mailMode{upkeep.MailPlain: withoutTLS, upkeep.MailStartTLS: withStartTLS, upkeep.MailTLS: withTLS} {
		s := serveMail(t, served)
		r := s.receiver(mode)
		r.To = append(r.To, "Night Shift <night@example.test>")
		if mode != upkeep.MailPlain {
			r.Username, r.PasswordFile = "upkeep", private(t, "s3 cret\n")
		}
		if err := sendMail(t, r, trial()); err != nil {
			t.Errorf("%s: %v", mode, err)
			continue
		}
		got := s.got()
		if len(got) != 1 || got[0].from != "upkeep@example.test" || strings.Join(got[0].to, " ") != "ops@example.test night@example.test" {
			t.Fatalf("%s: got %+v", mode, got)
		}
		parsed, err := mail.ReadMessage(strings.NewReader(got[0].text))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"Subject": "upkeep: a test of receiver ops", "Auto-Submitted": "auto-generated", "X-Upkeep-Id": "ops/test-1000000",
		} {
			if value := parsed.Header.Get(name); value != want {
				t.Errorf("%s: %s is %q, want %q", mode, name, value, want)
			}
		}
		if id := parsed.Header.Get("Message-Id"); !strings.HasSuffix(id, "@example.test>") {
			t.Errorf("%s: Message-ID %q", mode, id)
		}
		body, _ := io.ReadAll(parsed.Body)
		if !strings.Contains(string(body), "nothing is wrong") || !strings.Contains(string(body), "upkeep on monitor") {
			t.Errorf("%s: body %s", mode, body)
		}
		if mode != upkeep.MailPlain && strings.Join(s.logins, " ") != "upkeep:s3 cret" {
			t.Errorf("%s: logins %q", mode, s.logins)
		}
	}
}

// TestMailSentAgainIsTheSame holds that a mailbox can tell a repetition.
func TestMailSentAgainIsTheSame(t *testing.T) {
	s := serveMail(t, withoutTLS)
	r := s.receiver(upkeep.MailPlain)
	for _, m := range []Message{trial(), trial(), testMessage("ops", "monitor", time.Unix(2000, 0))} {
		if err := sendMail(t, r, m); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for _, l := range s.got() {
		parsed, err := mail.ReadMessage(strings.NewReader(l.text))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, parsed.Header.Get("Message-Id"))
	}
	if len(ids) != 3 || ids[0] != ids[1] || ids[1] == ids[2] {
		t.Errorf("Message-IDs %q", ids)
	}
}

// TestMailHeaderInjection has a target choose every text that it can.
func TestMailHeaderInjection(t *testing.T) {
	s := serveMail(t, withoutTLS)
	evil := "down\r\nBcc: victim@example.test\r\n\r\nhello\r\n.\r\nMAIL FROM:<x@y.test>\r\n\u2028Cc: z\x00" + strings.Repeat(" long", 300)
	g := group{}
	g.add(upkeep.Event{ID: 1, Kind: upkeep.EventVerdict, Who: evil, Object: evil, What: evil, Why: evil}, time.Unix(0, 0))
	if err := sendMail(t, s.receiver(upkeep.MailPlain), g.message("ops", "host", time.Unix(1000, 0))); err != nil {
		t.Fatal(err)
	}
	got := s.got()
	if len(got) != 1 || len(got[0].to) != 1 {
		t.Fatalf("%d letters: %+v", len(got), got)
	}
	parsed, err := mail.ReadMessage(strings.NewReader(got[0].text))
	if err != nil {
		t.Fatal(err)
	}
	known := []string{"Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To", "X-Upkeep-Id"}
	for name := range parsed.Header {
		if !strings.Contains(strings.Join(known, " ")+" ", name+" ") {
			t.Errorf("a header %s came in: %q", name, parsed.Header[name])
		}
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
	if err != nil || strings.ContainsAny(subject, "\r\n\x00") || !strings.Contains(subject, "Bcc: victim") {
		t.Errorf("subject %q, %v", subject, err)
	}
	for line := range strings.SplitSeq(got[0].text, "\r\n") {
		if len(line) > 998 { // RFC 5322, section 2.1.1
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

func TestMailFailures(t *testing.T) {
	for name, tt := range map[string]struct {
		served mailMode
		mode   string
		change func(*mailServer, *upkeep.Receiver)
		want   string
	}{
		"wrong password":     {withStartTLS, upkeep.MailStartTLS, func(_ *mailServer, r *upkeep.Receiver) { r.Username, r.PasswordFile = "u", private(t, "wrong") }, "535"},
		"password file open": {withStartTLS, upkeep.MailStartTLS, func(s *mailServer, r *upkeep.Receiver) { r.Username, r.PasswordFile = "u", s.ca }, "has mode 0644"},
		// A man in the middle who hides STARTTLS must not get the mail.
		"no STARTTLS":    {withoutTLS, upkeep.MailStartTLS, nil, "does not support STARTTLS"},
		"unknown issuer": {withStartTLS, upkeep.MailStartTLS, func(_ *mailServer, r *upkeep.Receiver) { r.CAFile = "" }, "certificate"},
		"unknown in TLS": {withTLS, upkeep.MailTLS, func(_ *mailServer, r *upkeep.Receiver) { r.CAFile = "" }, "certificate"},
		"busy":           {withoutTLS, upkeep.MailPlain, func(s *mailServer, _ *upkeep.Receiver) { s.busy = true }, "451"},
		"all refused":    {withoutTLS, upkeep.MailPlain, func(s *mailServer, _ *upkeep.Receiver) { s.refuse = "@" }, "550"},
		"nobody there":   {withoutTLS, upkeep.MailPlain, func(_ *mailServer, r *upkeep.Receiver) { r.SMTP = "127.0.0.1:1" }, "connection refused"},
		"no login there": {withStartTLS, upkeep.MailStartTLS, func(_ *mailServer, r *upkeep.Receiver) { r.Username, r.PasswordFile = "u", "/nonexistent" }, "no such file"},
	} {
		s := serveMail(t, tt.served)
		r := s.receiver(tt.mode)
		if tt.change != nil {
			tt.change(s, &r)
		}
		err := sendMail(t, r, trial())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if got := s.got(); len(got) != 0 {
			t.Errorf("%s: a mail was taken: %+v", name, got)
		}
	}
}

// TestMailWithOneBadAddress holds that somebody who left does not silence the
// others.
func TestMailWithOneBadAddress(t *testing.T) {
	s := serveMail(t, withoutTLS)
	s.refuse = "gone@"
	r := s.receiver(upkeep.MailPlain)
	r.To = []string{"a@example.test", "gone@example.test", "b@example.test"}
	if err := sendMail(t, r, trial()); err != nil {
		t.Fatal(err)
	}
	var to []string
	for _, l := range s.got() {
		to = append(to, l.to...)
	}
	if strings.Join(to, " ") != "a@example.test b@example.test" {
		t.Errorf("told %q", to)
	}
}

func TestMailServerThatHangs(t *testing.T) {
	s := serveMail(t, withoutTLS)
	s.slow = make(chan struct{})
	defer close(s.slow)
	r := s.receiver(upkeep.MailPlain)
	r.Timeout = upkeep.Duration(time.Second)
	if err := sendMail(t, r, trial()); err == nil || !strings.Contains(err.Error(), "did not end within 1s") {
		t.Errorf("got %v", err)
	}
}

// TestMailServerThatIsStopped has the sending cancelled, as when upkeep stops.
func TestMailServerThatIsStopped(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := &mailServer{addr: listener.Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "220 hello\r\n")
		_, _ = bufio.NewReader(conn).ReadString('\n')
		cancel() // and says nothing more
		_, _ = io.Copy(io.Discard, conn)
	}()
	r := s.receiver(upkeep.MailPlain).WithDefaults()
	r.Timeout = upkeep.Duration(5 * time.Minute)
	if err := newEmail(r, slog.New(slog.DiscardHandler)).send(ctx, trial()); err == nil {
		t.Error("no error")
	}
}

// TestMailThatWasTakenIsNotSentAgain has the server hang up after it took the mail.
func TestMailThatWasTakenIsNotSentAgain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, "220 hello\r\n")
		for {
			line, err := in.ReadString('\n')
			switch {
			case err != nil:
				return
			case line == ".\r\n":
				_, _ = io.WriteString(conn, "250 taken\r\n")
				return
			case strings.HasPrefix(line, "DATA"):
				_, _ = io.WriteString(conn, "354 go\r\n")
			case strings.HasPrefix(line, "EHLO"), strings.HasPrefix(line, "MAIL"), strings.HasPrefix(line, "RCPT"), strings.HasPrefix(line, "NOOP"):
				_, _ = io.WriteString(conn, "250 ok\r\n")
			}
		}
	}()
	s := &mailServer{addr: listener.Addr().String()}
	if err := sendMail(t, s.receiver(upkeep.MailPlain), trial()); err != nil {
		t.Errorf("got %v", err)
	}
}
