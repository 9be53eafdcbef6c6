package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// The names of the cookie by which a browser shows who is signed in. Over TLS its
// prefix has browsers refuse one that came without it, or from another host.
const (
	safeCookie  = "__Host-upkeep"
	plainCookie = "upkeep"
)

// OverTLS reports whether the browser speaks TLS: to the proxy before upkeep, which
// says so. A browser that says so itself deceives nobody but itself.
func OverTLS(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// SignedIn is what a browser shows of its sign-in, "" for nothing.
func SignedIn(r *http.Request) string {
	name := plainCookie
	if OverTLS(r) {
		name = safeCookie
	}
	if cookie, err := r.Cookie(name); err == nil {
		return cookie.Value
	}
	return ""
}

// SetSignedIn gives a browser what it shows from now on; an empty one takes it away.
func SetSignedIn(w http.ResponseWriter, r *http.Request, secret string, expires time.Time) {
	cookie := &http.Cookie{Name: plainCookie, Value: secret, Path: "/", Expires: expires, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if OverTLS(r) {
		cookie.Name, cookie.Secure = safeCookie, true
	}
	if secret == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// asPasskey is behind the names of cookies that hold a sealed ceremony.
const asPasskey = "-passkey"

// Ceremony is what a browser shows of a passkey that it was asked for, "" for
// nothing.
func Ceremony(r *http.Request) string {
	name := plainCookie
	if OverTLS(r) {
		name = safeCookie
	}
	if cookie, err := r.Cookie(name + asPasskey); err == nil {
		return cookie.Value
	}
	return ""
}

// SetCeremony has a browser show with a passkey what it was asked for; an empty one
// takes it away. It ends with the browser, and on its own sooner.
func SetCeremony(w http.ResponseWriter, r *http.Request, sealed string) {
	cookie := &http.Cookie{Name: plainCookie + asPasskey, Value: sealed, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if OverTLS(r) {
		cookie.Name, cookie.Secure = safeCookie+asPasskey, true
	}
	if sealed == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// Origin is where a browser says that a page of this request is from (RFC 6454), with
// the host in it. [API.Public] has let none in that upkeep is not known by.
func Origin(r *http.Request) (origin, host string) {
	scheme := "http://"
	if OverTLS(r) {
		scheme = "https://"
	}
	return scheme + strings.ToLower(r.Host), hostOf(r.Host)
}

// Private reports whether what a browser sends is read by nobody on the way: it
// speaks TLS, or is on this machine.
func Private(r *http.Request) bool { return OverTLS(r) || local(r) }

func local(r *http.Request) bool {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// From is the address that a request comes from: behind a proxy on this machine,
// the one that the proxy saw, which it appends to what others claim.
func From(r *http.Request) string {
	if forwarded := r.Header.Values("X-Forwarded-For"); len(forwarded) > 0 && local(r) {
		last := forwarded[len(forwarded)-1]
		last = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
		if a, err := netip.ParseAddr(last); err == nil {
			return a.String()
		}
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}
