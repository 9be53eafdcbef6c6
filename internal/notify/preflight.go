package notify

import (
	"errors"
	"os/exec"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/secret"
)

// Preflight says what this machine lacks to tell a receiver, and whether the
// template of a webhook copes with whatever text it may be given. Nobody is told
// anything. Of a receiver that breaks a rule it says nothing: see
// [upkeep.Receiver.Validate].
func Preflight(r upkeep.Receiver) []upkeep.FieldError {
	if len(r.Validate()) > 0 {
		return nil
	}
	r = r.WithDefaults()
	var found []upkeep.FieldError
	add := func(field, value string, err error) {
		rule := err.Error()
		var hint *upkeep.HintError
		if errors.As(err, &hint) {
			rule += "; " + hint.Hint
		}
		found = append(found, upkeep.FieldError{Field: field, Value: value, Rule: rule})
	}
	for _, f := range []struct{ field, path string }{
		{"password_file", r.PasswordFile}, {"url_file", r.URLFile}, {"secret_file", r.SecretFile}, {"token_file", r.TokenFile},
	} {
		if f.path == "" {
			continue
		}
		word, err := secret.Word(f.path)
		if err == nil && f.field == "url_file" {
			err = upkeep.CheckWebhookURL(word)
		}
		if err != nil {
			add(f.field, f.path, err)
		}
	}
	if r.CAFile != "" {
		if _, err := tlsConfig("", r.CAFile); err != nil {
			add("ca_file", r.CAFile, err)
		}
	}
	if r.Type == upkeep.ReceiverExec {
		if _, err := exec.LookPath(r.Command[0]); err != nil {
			add("command", r.Command[0], err)
		}
	}
	if r.Type == upkeep.ReceiverWebhook && r.Template != "" {
		if err := tryTemplate(r); err != nil {
			add("template", "", err)
		}
	}
	return found
}

// tryTemplate fills in the template with texts that break JSON when they are
// written without care.
func tryTemplate(r upkeep.Receiver) error {
	for _, m := range samples(r.Name) {
		if _, err := (&webhook{r}).body(m); err != nil {
			return err
		}
	}
	return nil
}

// samples are messages of every form, with texts such as hostile targets answer.
func samples(receiver string) []Message {
	nasty := clean("quote \" backslash \\ brace } comma , tag </script> \u2028 \U0001F525 %s " + strings.Repeat("x", 300))
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e := upkeep.Event{ID: 7, At: now, Kind: upkeep.EventVerdict, Who: "upkeep", Object: "pool/web/192.0.2.1", What: "down", Why: nasty}
	bare := e
	bare.Why = ""
	g := group{}
	g.add(e, now)
	g.add(bare, now)
	grouped := g.message(receiver, nasty, now)
	grouped.Title, grouped.Omitted, grouped.Expired = nasty, 3, 4
	return []Message{grouped, testMessage(receiver, nasty, now), reminder(receiver, nasty, now, []string{nasty, nasty})}
}
