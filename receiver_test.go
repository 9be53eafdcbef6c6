package upkeep

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReceiverValidate(t *testing.T) {
	mail := Receiver{Name: "ops", Type: ReceiverEmail, To: []string{"Ops <ops@example.test>"}, From: "upkeep@example.test", SMTP: "mail.example.test:587"}
	hook := Receiver{Name: "chat", Type: ReceiverWebhook, URL: "https://chat.example.test/hook"}
	run := Receiver{Name: "run", Type: ReceiverExec, Command: []string{"/usr/local/bin/tell"}}
	negative := Duration(-1)
	for name, tt := range map[string]struct {
		base   Receiver
		change func(*Receiver)
		want   string // "field: rule", "" for none
	}{
		"mail":              {base: mail},
		"hook":              {base: hook},
		"exec":              {base: run},
		"IPv6 mail server":  {base: mail, change: func(r *Receiver) { r.SMTP = "[2001:db8::25]:25" }},
		"hook with file":    {base: hook, change: func(r *Receiver) { r.URL, r.URLFile = "", "/etc/upkeep/url" }},
		"name":              {mail, func(r *Receiver) { r.Name = "Ops" }, "name: must be 1 to 63"},
		"type":              {mail, func(r *Receiver) { r.Type = "pigeon" }, "type: must be one of email, webhook, exec"},
		"foreign field":     {run, func(r *Receiver) { r.URL = "https://x.test" }, "url: is taken by receivers of type webhook, not by exec"},
		"no recipient":      {mail, func(r *Receiver) { r.To = nil }, "to: needs at least one"},
		"header injection":  {mail, func(r *Receiver) { r.To = []string{"a@b.test\r\nBcc: c@d.test"} }, "to[0]: must be a mail address"},
		"name injection":    {mail, func(r *Receiver) { r.From = "\"a\r\nBcc: x\" <a@b.test>" }, "from: must be a mail address"},
		"encoded injection": {mail, func(r *Receiver) { r.From = "=?utf-8?q?a=0D=0ABcc:_x?= <a@b.test>" }, "from: must be a mail address"},
		"twice":             {mail, func(r *Receiver) { r.To = []string{"a@b.test", "a@b.test"} }, "to[1]: is listed twice"},
		"no from":           {mail, func(r *Receiver) { r.From = "" }, "from: is required"},
		"no port":           {mail, func(r *Receiver) { r.SMTP = "mail.example.test" }, "smtp: must be host:port"},
		"port 0":            {mail, func(r *Receiver) { r.SMTP = "mail.example.test:0" }, "smtp: must be host:port"},
		"tls":               {mail, func(r *Receiver) { r.TLS = "maybe" }, "tls: must be one of"},
		"half a login":      {mail, func(r *Receiver) { r.Username = "u" }, "password_file: and username belong together"},
		"login in clear":    {mail, func(r *Receiver) { r.Username, r.PasswordFile, r.TLS = "u", "/p", MailPlain }, "tls: would send the password"},
		"no url":            {hook, func(r *Receiver) { r.URL = "" }, "url: is required"},
		"two urls":          {hook, func(r *Receiver) { r.URLFile = "/x" }, "url_file: and url"},
		"scheme":            {hook, func(r *Receiver) { r.URL = "file:///etc/passwd" }, "url: must be an http or https URL"},
		"password":          {hook, func(r *Receiver) { r.URL = "https://u:p@x.test/" }, "url: must not hold a password"},
		"header":            {hook, func(r *Receiver) { r.Header = map[string]string{"X": "a\r\nY: b"} }, "header.X: must be a header name"},
		"template":          {hook, func(r *Receiver) { r.Template = "{{.Title" }, "template: must be a template"},
		"function":          {hook, func(r *Receiver) { r.Template = "{{exec .Title}}" }, "template: must be a template"},
		"command":           {run, func(r *Receiver) { r.Command = nil }, "command: is required"},
		"NUL":               {run, func(r *Receiver) { r.Command = []string{"a", "b\x00"} }, "command[1]: must not hold a NUL"},
		"kind":              {run, func(r *Receiver) { r.Events = []string{"all"} }, "events[0]: must be one of"},
		"pool":              {run, func(r *Receiver) { r.Pools = []string{"[a"} }, "pools[0]: must be the name of a pool"},
		"timeout":           {run, func(r *Receiver) { r.Timeout = 1 }, "timeout: must be 1s to 5m"},
		"min_interval":      {run, func(r *Receiver) { r.MinInterval = Duration(time.Millisecond) }, "min_interval: must be 1s to 24h"},
		"repeat":            {run, func(r *Receiver) { r.Repeat = Duration(time.Second) }, "repeat: must be 1m to 720h"},
		"group_wait":        {run, func(r *Receiver) { r.GroupWait = &negative }, "group_wait: must be 0s to 1h"},
	} {
		r := tt.base
		if tt.change != nil {
			tt.change(&r)
		}
		var got []string
		for _, f := range r.Validate() {
			got = append(got, f.Field+": "+f.Rule)
		}
		hit := slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, tt.want) })
		if tt.want == "" && len(got) > 0 || tt.want != "" && !hit {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
