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

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api/wire"
)

// People find out who somebody is by what they show.
type People interface {
	// Browser is who shows what a sign-in gave, Token who shows a token of a user;
	// [upkeep.ErrNotFound] for nobody.
	Browser(ctx context.Context, secret string) (access.Caller, error)
	Token(ctx context.Context, token string) (access.Caller, error)
}

type contextKey int

const (
	peerKey contextKey = iota
	askerKey
)

func callerOf(ctx context.Context) access.Caller { return access.From(ctx) }

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
	return a.face(func(r *http.Request) (access.Caller, *wire.Problem) {
		p, known := r.Context().Value(peerKey).(peer)
		if !known || p.err != nil {
			return access.Caller{}, wire.NewProblem(http.StatusForbidden, "the user of this connection cannot be told", "")
		}
		who := userName(p.uid)
		if !slices.Contains(a.peers(), p.uid) {
			return access.Caller{}, wire.NewProblem(http.StatusForbidden, "you are "+who+", which may not control this upkeep",
				"use it as root or as "+userName(uint32(os.Geteuid())))
		}
		return access.Caller{Who: who, Staff: true}, nil
	})
}

// Public is the face for TCP: the token of the data folder is staff's, one of a
// user, or what a browser was given at the sign-in, is that user's, and anybody else
// may read the status at most.
func (a *API) Public() http.Handler {
	return a.face(func(r *http.Request) (access.Caller, *wire.Problem) {
		if !a.hosts[hostOf(r.Host)] && !isAddress(hostOf(r.Host)) {
			return access.Caller{}, wire.NewProblem(http.StatusMisdirectedRequest,
				fmt.Sprintf("this upkeep is not known by the name %q", hostOf(r.Host)),
				"address it by IP address or as localhost, or start it with --http-host for that name")
		}
		token, basic := presented(r)
		if token == "" {
			return a.browser(r), nil
		}
		c, problem := a.token(r.Context(), token)
		if problem == nil && basic && r.Method != http.MethodGet && r.Method != http.MethodHead {
			// A browser sends a password by itself, whoever made it send the request.
			problem = wire.NewProblem(http.StatusUnauthorized, "changes need the token as a bearer token", "")
		}
		return c, problem
	})
}

// token finds who shows a token.
func (a *API) token(ctx context.Context, token string) (access.Caller, *wire.Problem) {
	if a.o.Token != "" && sameToken(token, a.o.Token) {
		return access.Caller{Who: "token", Staff: true}, nil
	}
	if a.o.People != nil {
		c, err := a.o.People.Token(ctx, token)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, upkeep.ErrNotFound) {
			a.log.Error("looking a token up", "err", err)
			return access.Caller{}, wire.NewProblem(http.StatusServiceUnavailable, "whose token that is cannot be looked up just now", "")
		}
	}
	return access.Caller{}, wire.NewProblem(http.StatusUnauthorized, "the token is wrong", "the token is in the file \"token\" in the data folder of the running upkeep")
}

// browser finds who a browser is signed in as. When that cannot be looked up it is a
// stranger's: what pools do is shown when the database is away, for that is when
// people look.
func (a *API) browser(r *http.Request) access.Caller {
	stranger := access.Caller{Who: r.RemoteAddr}
	secret := SignedIn(r)
	if secret == "" || a.o.People == nil {
		return stranger
	}
	c, err := a.o.People.Browser(r.Context(), secret)
	if err == nil {
		return c
	}
	if !errors.Is(err, upkeep.ErrNotFound) && r.Context().Err() == nil { // nobody waits for it any more
		a.log.Error("looking up who is signed in", "err", err)
	}
	return stranger
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
