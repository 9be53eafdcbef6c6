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
