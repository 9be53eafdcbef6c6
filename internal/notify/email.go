package notify

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	stdmail "net/mail"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"upkeep"
	"upkeep/internal/secret"
)

// email sends mail through a mail server.
type email struct {
	receiver upkeep.Receiver
	log      *slog.Logger
}

func newEmail(r upkeep.Receiver, log *slog.Logger) sender { return &email{r, log} }

// send sends one mail to all. When the server refuses some of the recipients,
// each is tried alone, so that one address that has ceased to exist does not
// silence the others; then it is enough that anybody was told.
func (e *email) send(ctx context.Context, m Message) error {
	err := e.deliver(ctx, m, e.receiver.To)
	var refused *mail.SendError
	if err == nil || len(e.receiver.To) == 1 || !errors.As(err, &refused) || refused.Reason != mail.ErrSMTPRcptTo {
		return err
	}
	var errs []error
	for _, to := range e.receiver.To {
		if err := e.deliver(ctx, m, []string{to}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", to, err))
		}
	}
	err = errors.Join(errs...)
	if err != nil && len(errs) < len(e.receiver.To) {
		e.log.Error("some recipients were refused by the mail server and are not told", "err", err)
		return nil
	}
	return err
}

func (e *email) deliver(ctx context.Context, m Message, to []string) error {
	message, err := e.compose(m, to)
	if err != nil {
		return fmt.Errorf("writing a mail: %w", err)
	}
	dial := &dialer{attempt: ctx}
	defer dial.close()
	client, err := e.client(dial)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, message)
	if message.IsDelivered() {
		return nil // what went wrong after that is no reason to send it again
	}
	if err != nil && (errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)) {
		return fmt.Errorf("sending mail by %s: it did not end within %s", e.receiver.SMTP, e.receiver.Timeout)
	}
	if err != nil {
		return fmt.Errorf("sending mail by %s: %w", e.receiver.SMTP, err)
	}
	return nil
}

func (e *email) compose(m Message, to []string) (*mail.Msg, error) {
	message := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := message.From(e.receiver.From); err != nil {
		return nil, err
	}
	if err := message.To(to...); err != nil {
		return nil, err
	}
	message.Subject("upkeep: " + m.Title)
	message.SetDateWithValue(m.At)
	message.SetMessageIDWithValue(e.messageID(m, to))
	// RFC 3834: no vacation notice answers this.
	message.SetGenHeader("Auto-Submitted", "auto-generated")
	message.SetGenHeader("X-Upkeep-ID", m.ID)
	message.SetBodyString(mail.TypeTextPlain, m.Text())
	return message, nil
}

// messageID is the same when the same is sent again, so that mailboxes can tell.
func (e *email) messageID(m Message, to []string) string {
	domain := upkeep.OwnDomain
	if from, err := stdmail.ParseAddress(e.receiver.From); err == nil {
		domain = from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	}
	sum := sha256.Sum256([]byte(m.Host + "\x00" + m.ID + "\x00" + strings.Join(to, "\x00")))
	return hex.EncodeToString(sum[:16]) + "@" + domain
}

// dialer makes the connection of one attempt. The mail library minds the end of
// the context while it dials only, and leaves connections open when a greeting or
// a login did not succeed.
type dialer struct {
	attempt context.Context
	secure  *tls.Config // handshake before anything is said, if set
	conn    net.Conn
	stop    func() bool
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.conn = conn
	d.stop = context.AfterFunc(d.attempt, func() { _ = conn.Close() }) // whatever the server does, the attempt ends in time
	if d.secure == nil {
		return conn, nil
	}
	secure := tls.Client(conn, d.secure)
	return secure, secure.HandshakeContext(ctx)
}

func (d *dialer) close() {
	if d.conn != nil {
		d.stop()
		_ = d.conn.Close() // closed by the client already when all went well
	}
}

func (e *email) client(dial *dialer) (*mail.Client, error) {
	r := e.receiver
	host, portText, err := net.SplitHostPort(r.SMTP)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	settings, err := tlsConfig(host, r.CAFile)
	if err != nil {
		return nil, err
	}
	options := []mail.Option{
		mail.WithPort(port), mail.WithTimeout(time.Duration(r.Timeout)), mail.WithTLSConfig(settings),
		mail.WithDialContextFunc(dial.dial),
	}
	switch r.TLS {
	case upkeep.MailTLS:
		dial.secure = settings
		options = append(options, mail.WithSSL())
	case upkeep.MailStartTLS:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	case upkeep.MailPlain:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	}
	if r.Username != "" {
		password, err := secret.Word(r.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("reading password file: %w", err)
		}
		options = append(options, mail.WithUsername(r.Username), mail.WithPassword(password),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin, mail.SMTPAuthCramMD5))
	}
	return mail.NewClient(host, options...)
}

// tlsConfig verifies the server's certificate, by caFile alone if there is one.
func tlsConfig(host, caFile string) (*tls.Config, error) {
	settings := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return settings, nil
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("reading CA file: %w", err)
	}
	settings.RootCAs = x509.NewCertPool()
	if !settings.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading CA file: %s holds no PEM certificate", caFile)
	}
	return settings, nil
}
