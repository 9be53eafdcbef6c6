package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sys/unix"

	"upkeep/internal/api/wire"
)

// caller is who sent a request.
type caller struct {
	// who is written into events: "uid 0 (root)", "token", or the address of
	// somebody who may only read.
	who     string
	trusted bool
}

type contextKey int

const (
	callerKey contextKey = iota
	peerKey
)

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey).(caller)
	return c
}

// peer is what the kernel says about the other end of the control socket.
type peer struct {
	uid uint32
	err error
}

// WithPeer is the ConnContext of the control socket's server: it asks the
// kernel once, when the connection is made, whose process connected
// (SO_PEERCRED in unix(7)).
func WithPeer(ctx context.Context, conn net.Conn) context.Context {
	uid, err := peerUID(conn)
	return context.WithValue(ctx, peerKey, peer{uid: uid, err: err})
}

func peerUID(conn net.Conn) (uint32, error) {
	socket, is := conn.(*net.UnixConn)
	if !is {
		return 0, fmt.Errorf("a %T has no peer credentials", conn)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}

// trustedUsers are root and the user that this process runs as.
func trustedUsers() []uint32 { return []uint32{0, uint32(os.Geteuid())} }

func userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return "uid " + number + " (" + u.Username + ")"
	}
	return "uid " + number
}

// Control is the face for the control socket; its server must have [WithPeer].
// Every request is refused unless its user is trusted.
func (a *API) Control() http.Handler {
	return a.face(func(r *http.Request) (caller, *wire.Problem) {
		p, known := r.Context().Value(peerKey).(peer)
		if !known || p.err != nil {
			return caller{}, wire.NewProblem(http.StatusForbidden, "the user of this connection cannot be told", "")
		}
		who := userName(p.uid)
		if !slices.Contains(a.peers(), p.uid) {
			return caller{}, wire.NewProblem(http.StatusForbidden, "you are "+who+", which may not control this upkeep",
				"use it as root or as "+userName(uint32(os.Geteuid())))
		}
		return caller{who: who, trusted: true}, nil
	})
}

// Public is the face for TCP: a token makes a caller trusted, anybody else may
// read the status at most.
func (a *API) Public() http.Handler {
	return a.face(func(r *http.Request) (caller, *wire.Problem) {
		if !a.hosts[hostOf(r.Host)] && !isAddress(hostOf(r.Host)) {
			return caller{}, wire.NewProblem(http.StatusMisdirectedRequest,
				fmt.Sprintf("this upkeep is not known by the name %q", hostOf(r.Host)),
				"address it by IP address or as localhost, or start it with --http-host for that name")
		}
		token, basic := presented(r)
		switch {
		case token == "":
			return caller{who: r.RemoteAddr}, nil
		case a.o.Token == "" || !sameToken(token, a.o.Token):
			p := wire.NewProblem(http.StatusUnauthorized, "the token is wrong", "the token is in the file \"token\" in the data folder of the running upkeep")
			return caller{}, p
		case basic && r.Method != http.MethodGet && r.Method != http.MethodHead:
			// A browser sends a password by itself, whoever made it send the request.
			return caller{}, wire.NewProblem(http.StatusUnauthorized, "changes need the token as a bearer token", "")
		}
		return caller{who: "token", trusted: true}, nil
	})
}

// presented returns the token of a request: a bearer token, or the password of
// basic authentication, which is what a browser can be asked for.
func presented(r *http.Request) (token string, basic bool) {
	header := r.Header.Get("Authorization")
	if scheme, value, found := strings.Cut(header, " "); found && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(value), false
	}
	if _, password, is := r.BasicAuth(); is {
		return password, true
	}
	return "", false
}

// sameToken compares hashes, so that neither content nor length shows in the time.
func sameToken(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

func hostOf(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func allowedHosts(names []string) map[string]bool {
	hosts := map[string]bool{"localhost": true, "": true} // HTTP/1.0 may leave Host out; browsers never do
	if name, err := os.Hostname(); err == nil {
		hosts[strings.ToLower(name)] = true
	}
	for _, name := range names {
		hosts[hostOf(name)] = true
	}
	return hosts
}

// authorise turns away who may not use an operation.
func (a *API) authorise(h huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if len(ctx.Operation().Security) > 0 || a.o.Private {
			if !callerOf(ctx.Context()).trusted {
				_, w := humago.Unwrap(ctx)
				writeProblem(w, unauthorised())
				return
			}
		}
		next(ctx)
	}
}

// readable lets anybody read unless Options.Private.
func (a *API) readable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.o.Private && !callerOf(r.Context()).trusted {
			w.Header().Set("WWW-Authenticate", `Basic realm="upkeep: any user, the token as password"`)
			writeProblem(w, unauthorised())
			return
		}
		next.ServeHTTP(w, r)
	})
}

func unauthorised() *wire.Problem {
	return wire.NewProblem(http.StatusUnauthorized, "this needs a token",
		"send \"Authorization: Bearer TOKEN\", or use the control socket; the token is in the file \"token\" in the data folder")
}
