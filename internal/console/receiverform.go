package console

import (
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"

	"upkeep"
)

// hidden stands on pages for a value that is not shown.
const hidden = "(not shown)"

// discreetReceiver hides what headers hold: a key of somebody's is usual there. Other
// secrets are in files, of which the names are no secret. That a value is another than
// before is said.
func discreetReceiver(o, before upkeep.Object) upkeep.Object {
	r, is := o.(upkeep.Receiver)
	if !is || r.Header == nil {
		return o
	}
	was, _ := before.(upkeep.Receiver)
	r.Header = maps.Clone(r.Header)
	for name, value := range r.Header {
		r.Header[name] = hidden
		if old, there := was.Header[name]; there && old != value {
			r.Header[name] = hidden + " another one"
		}
	}
	return r
}

func receiverGroups(_ *Console, _ context.Context, o upkeep.Object, isNew bool) ([]group, error) {
	r, _ := o.(upkeep.Receiver)
	var who []field
	if isNew {
		who = append(who, field{Name: "name", Label: "Name", Kind: "text", Value: r.Name, Hint: "Lower-case letters, digits and hyphens."})
	}
	who = append(who, field{Name: "type", Label: "Told by", Kind: "choose", Options: options(upkeep.ReceiverTypes, r.Type)})
	mail := []field{
		{Name: "to", Label: "To", Kind: "area", Value: strings.Join(r.To, "\n"), Hint: "One address a line."},
		{Name: "from", Label: "From", Kind: "text", Value: r.From},
		{Name: "smtp", Label: "Mail server", Kind: "text", Value: r.SMTP, Hint: "Such as mail.example.test:587."},
		{Name: "tls", Label: "TLS", Kind: "choose", Options: []option{{"", "starttls, demanded", r.TLS == "" || r.TLS == upkeep.MailStartTLS}, {upkeep.MailTLS, "from the first byte on", r.TLS == upkeep.MailTLS}, {upkeep.MailPlain, "none", r.TLS == upkeep.MailPlain}}},
		{Name: "username", Label: "User name", Kind: "text", Value: r.Username},
		{Name: "password_file", Label: "File with the password", Kind: "text", Value: r.PasswordFile, Hint: "On this machine, readable by upkeep's user alone. What is in it is never shown."},
	}
	hook := []field{
		{Name: "url", Label: "URL", Kind: "text", Value: r.URL},
		{Name: "url_file", Label: "or a file with it", Kind: "text", Value: r.URLFile, Hint: "Where the URL is itself a secret."},
		{Name: "template", Label: "Body", Kind: "area", Value: r.Template, Hint: "As notifications.md has it; empty for the message itself."},
		{Name: "header", Label: "Headers", Kind: "area", Value: headerNames(r.Header), Hint: "One a line: Name: value. Values are not shown again; a name alone keeps the value that it has."},
		{Name: "token_file", Label: "File with a bearer token", Kind: "text", Value: r.TokenFile},
		{Name: "secret_file", Label: "File with the key that bodies are signed with", Kind: "text", Value: r.SecretFile},
	}
	both := []field{{Name: "ca_file", Label: "File with certificates to trust", Kind: "text", Value: r.CAFile, Hint: "Of mail and webhooks; empty for the system's."}}
	program := []field{{Name: "command", Label: "Program and its arguments", Kind: "area", Value: strings.Join(r.Command, "\n"), Hint: "One a line, the program first. There is no shell. The message is on its input."}}
	var kinds []option
	for _, kind := range upkeep.TellKinds {
		kinds = append(kinds, option{kind, kind, slices.Contains(r.Events, kind)})
	}
	what := []field{
		{Name: "events", Label: "Tell of, and of verdict, decision, publish, proof and warning when none is chosen", Kind: "many", Options: kinds},
		{Name: "pools", Label: "Only of these pools and their zones", Kind: "area", Value: strings.Join(r.Pools, "\n"), Hint: "Names or patterns such as web-*, one a line; empty for all."},
	}
	wait := ""
	if r.GroupWait != nil {
		wait = r.GroupWait.String()
	}
	when := []field{
		{Name: "timeout", Label: "Timeout of one attempt", Kind: "text", Value: duration0(r.Timeout), Hint: "30s when empty."},
		{Name: "group_wait", Label: "Wait for what happens close together", Kind: "text", Value: wait, Hint: "5s when empty, 0s for not at all."},
		{Name: "min_interval", Label: "Least time between two messages", Kind: "text", Value: duration0(r.MinInterval), Hint: "1m when empty."},
		{Name: "repeat", Label: "Remind of what is still wrong after", Kind: "text", Value: duration0(r.Repeat), Hint: "Never when empty."},
		{Name: "max_age", Label: "Do not tell of what is older than", Kind: "text", Value: duration0(r.MaxAge), Hint: "1d when empty."},
	}
	return []group{
		{Title: "Receiver", Fields: who, Open: true},
		{Title: "Mail", Fields: mail, Open: isNew || r.Type == upkeep.ReceiverEmail},
		{Title: "Webhook", Fields: hook, Open: r.Type == upkeep.ReceiverWebhook},
		{Title: "Whom to trust", Fields: both, Open: r.CAFile != ""},
		{Title: "Program", Fields: program, Open: r.Type == upkeep.ReceiverExec},
		{Title: "What it is told", Fields: what, Open: len(r.Events)+len(r.Pools) > 0},
		{Title: "When", Fields: when},
	}, nil
}

func duration0(d upkeep.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// headerNames are headers without their values, a line each.
func headerNames(header map[string]string) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(header)) {
		lines = append(lines, name+":")
	}
	return strings.Join(lines, "\n")
}

// receiverOf puts what a form says over a receiver; all of it is in the form.
func receiverOf(form url.Values, was upkeep.Object, isNew bool) (upkeep.Object, error) {
	old, _ := was.(upkeep.Receiver)
	invalid := &upkeep.InvalidError{}
	wrong := func(name, value, rule string) {
		invalid.Fields = append(invalid.Fields, upkeep.FieldError{Field: name, Value: value, Rule: rule})
	}
	text := func(name string) string { return strings.TrimSpace(form.Get(name)) }
	duration := func(name string) upkeep.Duration {
		if text(name) == "" {
			return 0
		}
		d, err := upkeep.ParseDuration(text(name))
		if err != nil {
			wrong(name, text(name), "must be a duration such as 500ms, 1s, 5m, 12h or 30d")
		}
		return upkeep.Duration(d)
	}
	r := upkeep.Receiver{
		Name: old.Name, Type: form.Get("type"),
		To: trimmed(lines(form, "to")), From: text("from"), SMTP: text("smtp"), TLS: form.Get("tls"), Username: text("username"), PasswordFile: text("password_file"),
		URL: text("url"), URLFile: text("url_file"), Template: strings.TrimRight(strings.ReplaceAll(form.Get("template"), "\r\n", "\n"), "\n"),
		SecretFile: text("secret_file"), TokenFile: text("token_file"), CAFile: text("ca_file"), Command: lines(form, "command"),
		Timeout: duration("timeout"), MinInterval: duration("min_interval"), Repeat: duration("repeat"), MaxAge: duration("max_age"),
		Events: slices.Clone(form["events"]), Pools: words(form, "pools"),
	}
	if isNew {
		r.Name = text("name")
	}
	if old.TLS == upkeep.MailStartTLS && r.TLS == "" {
		r.TLS = old.TLS // it was written out
	}
	if text("group_wait") != "" {
		wait := duration("group_wait")
		r.GroupWait = &wait
	}
	// What no line can hold, such as an empty argument, stays as long as nothing is
	// typed there.
	untouched := func(name, shown string) bool {
		return strings.ReplaceAll(form.Get(name), "\r\n", "\n") == shown
	}
	if untouched("command", strings.Join(old.Command, "\n")) {
		r.Command = old.Command
	}
	if untouched("pools", strings.Join(old.Pools, "\n")) {
		r.Pools = old.Pools
	}
	if untouched("template", old.Template) {
		r.Template = old.Template
	}
	r.Header = pairsOf(lines(form, "header"), "header", ":", "must be Name: value", wrong)
	for name, value := range r.Header {
		if value != "" {
			continue
		}
		before, there := old.Header[name]
		if !there {
			wrong("header", "", "the value of "+upkeep.Printable(name)+" is missing")
		}
		r.Header[name] = before
	}
	if len(invalid.Fields) > 0 {
		return r, invalid
	}
	return r, nil
}

// trimmed are the lines that hold more than blanks, without these.
func trimmed(all []string) []string {
	var kept []string
	for _, one := range all {
		if one = strings.TrimSpace(one); one != "" {
			kept = append(kept, one)
		}
	}
	return kept
}
