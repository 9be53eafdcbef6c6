package console

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"upkeep/internal/api"
)

// asked sends a form as a script on a page of a host does.
func asked(h http.Handler, who, host, proto, path string, form url.Values, cookies ...*http.Cookie) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Host, r.RemoteAddr = host, "127.0.0.1:1234"
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Forwarded-Proto", proto)
	if who != "" {
		name := "upkeep"
		if proto == "https" {
			name = "__Host-upkeep"
		}
		r.AddCookie(&http.Cookie{Name: name, Value: who})
	}
	for _, cookie := range cookies {
		r.AddCookie(cookie)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Passkeys are where browsers have them, and the page says why where they do not; what
// a ceremony is bound to is the page's own address.
func TestWherePasskeysAre(t *testing.T) {
	a := house(t, typical(), twoCustomers(), func(o *api.Options) { o.Hosts = []string{"upkeep.example.test"} }).Public()
	for _, tt := range []struct{ host, proto, origin, why string }{
		{"localhost", "", "http://localhost", ""},
		{"LocalHost:8053", "", "http://localhost:8053", ""},
		{"upkeep.example.test", "https", "https://upkeep.example.test", ""},
		{"Upkeep.Example.Test:8443", "https", "https://upkeep.example.test:8443", ""},
		{"upkeep.example.test", "http", "", "over TLS only"},
		{"192.0.2.1", "https", "", "belong to a name"},
		{"127.0.0.1:8053", "", "", "belong to a name"},
		{"[2001:db8::1]:8053", "https", "", "belong to a name"},
	} {
		w := asked(a, "", tt.host, tt.proto, "/signin/passkey/options", nil)
		var told struct {
			Error     string
			PublicKey map[string]any
		}
		if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s answers %s: %v", tt.host, w.Body, err)
		}
		cookies := w.Result().Cookies()
		if tt.why != "" {
			if w.Code != 422 || !strings.Contains(told.Error, tt.why) || len(cookies) > 0 {
				t.Errorf("%s over %q answers %d %s, with %v", tt.host, tt.proto, w.Code, w.Body, cookies)
			}
		} else if w.Code != 200 || len(told.PublicKey) == 0 || len(cookies) != 1 || cookies[0].Value != "sealed-for-"+tt.origin || !cookies[0].HttpOnly ||
			cookies[0].SameSite != http.SameSiteStrictMode || cookies[0].Secure != (tt.proto == "https") || strings.HasPrefix(cookies[0].Name, "__Host-") != cookies[0].Secure {
			t.Errorf("%s over %q answers %d %s, with %v", tt.host, tt.proto, w.Code, w.Body, cookies)
		}
		r := httptest.NewRequest("GET", "/signin", nil)
		r.Host, r.RemoteAddr = tt.host, "127.0.0.1:1234"
		r.Header.Set("X-Forwarded-Proto", tt.proto)
		page := httptest.NewRecorder()
		a.ServeHTTP(page, r)
		if has := strings.Contains(page.Body.String(), "data-passkey"); has != (tt.why == "") || !strings.Contains(page.Body.String(), tt.why) {
			t.Errorf("the page of %s over %q has the button: %v; %s", tt.host, tt.proto, has, page.Body)
		}
	}
	// Who says to be on this machine has to be.
	r := httptest.NewRequest("POST", "/signin/passkey/options", nil)
	r.Host, r.RemoteAddr = "localhost", "198.51.100.7:1234"
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if w.Code != 422 || !strings.Contains(w.Body.String(), "not encrypted") {
		t.Errorf("localhost from elsewhere answers %d: %s", w.Code, w.Body)
	}
	// A name of somebody else's that leads here gets nothing at all.
	if w := asked(a, "", "evil.test", "https", "/signin/passkey/options", nil); w.Code != 421 {
		t.Errorf("evil.test answers %d: %s", w.Code, w.Body)
	}
}

func TestPasskeyPages(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h).Public()
	sealed := &http.Cookie{Name: "upkeep-passkey", Value: "sealed-for-http://localhost"}
	for _, tt := range []struct {
		who, path string
		form      url.Values
		cookie    *http.Cookie
		status    int
		says, did string
	}{
		{"", "/signin/passkey", url.Values{"answer": {"the passkey of eve"}, "next": {"/jobs"}}, sealed, 303, "", "eve signs in by a passkey from 127.0.0.1"},
		{"", "/signin/passkey", url.Values{"answer": {"the passkey of eve"}, "next": {"//evil.test"}}, sealed, 303, "", "eve signs in by a passkey from 127.0.0.1"},
		{"", "/signin/passkey", url.Values{"answer": {"another"}}, sealed, 422, "The passkey was not accepted.", ""},
		{"", "/signin/passkey", url.Values{"answer": {"the passkey of eve"}}, &http.Cookie{Name: "upkeep-passkey", Value: "x"}, 422, "The passkey was not accepted.", ""},
		{"eve", "/me/passkeys/options", url.Values{"label": {"laptop"}, "present": {"right"}}, sealed, 200, `"name":"eve"`, ""},
		{"eve", "/me/passkeys/options", url.Values{"label": {"laptop"}, "present": {"wrong"}}, sealed, 422, "is wrong", ""},
		{"eve", "/me/passkeys/options", url.Values{"present": {"right"}}, sealed, 422, "ust say which device", ""},
		{"eve", "/me/passkeys", url.Values{"label": {"laptop"}, "answer": {"a new passkey"}}, sealed, 303, "", "eve adds passkey laptop"},
		{"eve", "/me/passkeys", url.Values{"label": {"laptop"}, "answer": {"another"}}, sealed, 422, "The passkey was not accepted.", ""},
		{"eve", "/me/passkeys", url.Values{"label": {"two\nlines"}, "answer": {"a new passkey"}}, sealed, 422, "in at most 100 bytes of one line", ""},
	} {
		before := len(h.did())
		w := asked(a, tt.who, "localhost", "", tt.path, tt.form, tt.cookie)
		if did := strings.Join(h.did()[before:], "; "); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) || did != tt.did {
			t.Errorf("%s with %v answers %d, does %q: %s", tt.path, tt.form, w.Code, did, w.Body)
		}
		if to := w.Header().Get("Location"); strings.Contains(to, "evil") {
			t.Errorf("it leads to %s", to)
		}
		if gone := strings.Contains(strings.Join(w.Header().Values("Set-Cookie"), ";"), "upkeep-passkey=;"); gone == strings.HasSuffix(tt.path, "/options") {
			t.Errorf("%s with %v sets %q", tt.path, tt.form, w.Header().Values("Set-Cookie"))
		}
	}
}
