// Package people finds out who somebody is: by a password or a passkey at the
// sign-in, by what a browser shows after it, or by a token. What they may do then is package access's.
package people

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/store"
)

// How long a browser is signed in: since it was last seen, and altogether.
const (
	idle   = 12 * time.Hour
	lasts  = 7 * 24 * time.Hour
	noting = time.Minute // how exactly it is kept when something was last seen
)

// Options are what the desk of people is made of.
type Options struct {
	Users store.Users
	Log   *slog.Logger
	// Announce spreads events that were stored; nil for nobody.
	Announce func([]upkeep.Event)
	Now      func() time.Time
}

// People knows users.
type People struct {
	o      Options
	hasher hasher
	// places are where passwords are tried from, own who tries that of the user that it
	// is signed in as.
	places throttle[netip.Prefix]
	own    throttle[string]
	// ceremonies are those by which passkeys are added and shown.
	ceremonies *ceremonies
	even       time.Duration // see [even]; none in tests of something else

	mu    sync.Mutex
	setup string // the token of the first start; empty where there are users
}

// New makes the desk. Where there are no users yet, it makes a token with which
// the first one is made, see [People.Setup].
func New(ctx context.Context, o Options) (*People, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	under, err := newCeremonies()
	if err != nil {
		return nil, err
	}
	p := &People{o: o, hasher: newHasher(), ceremonies: under, even: even,
		places: throttle[netip.Prefix]{burst: burst, refill: refill}, own: throttle[string]{burst: ownBurst, refill: ownRefill}}
	any, err := o.Users.Any(ctx)
	if err != nil {
		return nil, err
	}
	if !any {
		p.setup = rand.Text()
	}
	return p, nil
}

func (p *People) announce(events []upkeep.Event, err error) error {
	if p.o.Announce != nil && len(events) > 0 {
		p.o.Announce(events)
	}
	return err
}

// digest is what is kept of tokens and of what browsers show: they are random, so
// that it cannot be undone by trying.
func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Setup is the token with which the first user is made, empty when there are users.
func (p *People) Setup() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.setup
}

// SetUp makes the first user, of staff, for who has the token.
func (p *People) SetUp(ctx context.Context, token, name, password, from string) error {
	if !p.places.take(place(from), p.o.Now()) {
		return errTooMany
	}
	expected := p.Setup()
	if expected == "" {
		return upkeep.WithHint(fmt.Errorf("%w: there are users already", upkeep.ErrRefused), "sign in, or add others with: upkeep user add")
	}
	given, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(expected))
	if subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "token", Rule: "is not the one that this upkeep printed when it started"}}}
	}
	if err := p.add(ctx, "setup", upkeep.User{Name: name, Role: upkeep.UserStaff}, password, true); err != nil {
		return err
	}
	p.settled()
	return nil
}

// settled forgets the token of the first start.
func (p *People) settled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setup = ""
}

// Add adds a user.
func (p *People) Add(ctx context.Context, who string, user upkeep.User, password string) error {
	err := p.add(ctx, who, user, password, false)
	if err == nil {
		p.settled()
	}
	return err
}

func (p *People) add(ctx context.Context, who string, user upkeep.User, password string, first bool) error {
	if fields := append(user.Validate(), CheckPassword(user.Name, password)...); len(fields) > 0 {
		return &upkeep.InvalidError{Fields: fields}
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return p.announce(p.o.Users.Add(ctx, who, user, hash, first))
}

// SetPassword gives a user another password, and ends its sign-ins.
func (p *People) SetPassword(ctx context.Context, who, name, password string) error {
	if fields := CheckPassword(name, password); len(fields) > 0 {
		return &upkeep.InvalidError{Fields: fields}
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return p.announce(p.o.Users.SetPassword(ctx, who, name, hash))
}

// ChangePassword is SetPassword for who knows the present one.
func (p *People) ChangePassword(ctx context.Context, name, present, password, from string) error {
	if _, err := p.present(ctx, name, present, from); err != nil {
		return err
	}
	return p.SetPassword(ctx, "user "+name, name, password)
}

// Remove removes a user.
func (p *People) Remove(ctx context.Context, who, name string) error {
	return p.announce(p.o.Users.Remove(ctx, who, name))
}

// List returns all users.
func (p *People) List(ctx context.Context) ([]upkeep.User, error) { return p.o.Users.List(ctx) }

var (
	errTooMany  = upkeep.WithHint(fmt.Errorf("%w: too many tries from your address", upkeep.ErrRefused), "wait a minute, then try again")
	errTooOften = upkeep.WithHint(fmt.Errorf("%w: the password was wrong too often", upkeep.ErrRefused), "wait three minutes, then try again")
	// One text for a wrong name and a wrong password: which names there are is not
	// told.
	errWrong   = fmt.Errorf("%w: the name, the password or the code is wrong", upkeep.ErrRefused)
	errPresent = fmt.Errorf("%w: the password is wrong", upkeep.ErrRefused)
)

// pause is for how long no password of a user is looked at after wrong ones.
func pause(failures int) time.Duration {
	switch {
	case failures < 5:
		return 0
	case failures < 10:
		return time.Minute
	}
	return 15 * time.Minute
}

// even is what the time of every refused sign-in is a multiple of. Counting a wrong
// password takes the database a while, and is done only for users that there are: which
// names there are would show in the time.
const even = 250 * time.Millisecond

// evenOut waits until what began then has taken an even time.
func (p *People) evenOut(ctx context.Context, began time.Time) {
	if p.even == 0 {
		return
	}
	timer := time.NewTimer(p.even - time.Since(began)%p.even)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// check looks at a password, and returns what its user is known by. A hash is made
// whether there is such a user or not.
func (p *People) check(ctx context.Context, name, password, from string) (store.Credentials, error) {
	now := p.o.Now()
	if !p.places.take(place(from), now) {
		return store.Credentials{}, errTooMany
	}
	if len(password) > maxPassword || len(name) > maxPassword {
		return store.Credentials{}, errWrong
	}
	known, err := p.o.Users.Credentials(ctx, name)
	absent := errors.Is(err, upkeep.ErrNotFound)
	if err != nil && !absent {
		return store.Credentials{}, err
	}
	same, err := p.hasher.same(ctx, known.Password, password)
	switch {
	case err != nil:
		return store.Credentials{}, err
	case absent:
		return store.Credentials{}, errWrong
	case known.Locked.After(now):
		// Whether it was right is not told: guessing goes on at this pace, and no other.
		return store.Credentials{}, errWrong
	case !same:
		return store.Credentials{}, p.wrong(ctx, name, from)
	}
	p.places.give(place(from))
	return known, nil
}

// present is check for who is signed in as the user. A lock is not for them: whoever
// knows the name can bring one about, and would keep the user from a new password just
// when somebody tries the old one. Tries are slowed down by themselves instead.
func (p *People) present(ctx context.Context, name, password, from string) (store.Credentials, error) {
	now := p.o.Now()
	if !p.places.take(place(from), now) {
		return store.Credentials{}, errTooMany
	}
	if !p.own.take(name, now) {
		return store.Credentials{}, errTooOften
	}
	if len(password) > maxPassword {
		return store.Credentials{}, errPresent
	}
	known, err := p.o.Users.Credentials(ctx, name)
	if err != nil {
		return store.Credentials{}, err
	}
	same, err := p.hasher.same(ctx, known.Password, password)
	if err != nil {
		return store.Credentials{}, err
	}
	if !same {
		if err := p.wrong(ctx, name, from); !errors.Is(err, errWrong) {
			return store.Credentials{}, err
		}
		return store.Credentials{}, errPresent
	}
	p.places.give(place(from))
	p.own.give(name)
	return known, nil
}

// wrong counts something that was wrong, and says no more of it than that.
func (p *People) wrong(ctx context.Context, name, from string) error {
	if err := p.announce(p.o.Users.Failed(ctx, name, from, pause)); err != nil {
		return err
	}
	return errWrong
}

// SignIn returns what a browser shows from now on, if the password is right, and the
// code of a user who has a second factor. agent is what the browser calls itself.
func (p *People) SignIn(ctx context.Context, name, password, code, from, agent string) (secret string, expires time.Time, err error) {
	began := time.Now()
	secret, expires, err = p.signIn(ctx, name, password, code, from, agent)
	if errors.Is(err, errWrong) {
		p.evenOut(ctx, began)
	}
	return secret, expires, err
}

func (p *People) signIn(ctx context.Context, name, password, code, from, agent string) (secret string, expires time.Time, err error) {
	known, err := p.check(ctx, name, password, from)
	if err != nil {
		return "", time.Time{}, err
	}
	now := p.o.Now()
	shown := proof(known, code, now)
	if shown == nil {
		return "", time.Time{}, p.wrong(ctx, name, from)
	}
	secret, in := newSignIn(now, from, agent)
	err = p.announce(p.o.Users.SignIn(ctx, name, known.Password, *shown, digest(secret), in))
	switch {
	case errors.Is(err, store.ErrLocked): // meanwhile; that is counted already
		err = errWrong
	case errors.Is(err, upkeep.ErrRefused): // used before, or no spare code
		err = p.wrong(ctx, name, from)
	}
	if err != nil {
		return "", time.Time{}, err
	}
	return secret, in.Expires, nil
}

// newSignIn is a sign-in that begins now, with what the browser shows from then on.
func newSignIn(now time.Time, from, agent string) (secret string, in upkeep.SignIn) {
	if len(agent) > 200 {
		agent = agent[:200]
	}
	return rand.Text() + rand.Text(), upkeep.SignIn{Created: now, Expires: now.Add(lasts), Address: from, Agent: agent}
}

// Browser finds who shows what [People.SignIn] returned.
func (p *People) Browser(ctx context.Context, secret string) (access.Caller, error) {
	now := p.o.Now()
	shown, err := p.o.Users.BySignIn(ctx, digest(secret), now.Add(-idle))
	if err != nil {
		return access.Caller{}, err
	}
	if now.Sub(shown.Seen) > noting {
		if err := p.o.Users.SeeSignIn(ctx, shown.ID); err != nil {
			p.o.Log.Warn("noting who was seen", "err", err)
		}
	}
	c := caller(shown.User)
	c.SignIn = shown.ID
	return c, nil
}

// TokenPrefix begins every token, so that people and scanners of leaked secrets can
// tell what it is.
const TokenPrefix = "upkeep_"

// Token finds who shows a token.
func (p *People) Token(ctx context.Context, token string) (access.Caller, error) {
	if !strings.HasPrefix(token, TokenPrefix) {
		return access.Caller{}, upkeep.ErrNotFound
	}
	shown, err := p.o.Users.ByToken(ctx, digest(token))
	if err != nil {
		return access.Caller{}, err
	}
	if p.o.Now().Sub(shown.Seen) > noting {
		if err := p.o.Users.SeeToken(ctx, shown.ID); err != nil {
			p.o.Log.Warn("noting who was seen", "err", err)
		}
	}
	c := caller(shown.User)
	c.ReadOnly = shown.Scope != upkeep.ScopeWrite && shown.Scope != upkeep.ScopeUsers
	c.Token, c.WithUsers = shown.ID, shown.Scope == upkeep.ScopeUsers
	c.Who += fmt.Sprintf(" (token %d)", shown.ID)
	return c, nil
}

func caller(u upkeep.User) access.Caller {
	return access.Caller{Who: "user " + u.Name, User: u.Name, Staff: u.Role == upkeep.UserStaff, Account: u.Account}
}

// SignIns returns where a user is signed in.
func (p *People) SignIns(ctx context.Context, name string) ([]upkeep.SignIn, error) {
	return p.o.Users.SignIns(ctx, name)
}

// SignOut ends a sign-in of a user, or all with id 0.
func (p *People) SignOut(ctx context.Context, who, name string, id int64) error {
	return p.announce(p.o.Users.SignOut(ctx, who, name, id))
}

// AddToken gives a user a token. It is returned this once; only its hash is kept.
func (p *People) AddToken(ctx context.Context, who, name string, token upkeep.AccessToken) (upkeep.AccessToken, string, error) {
	secret := TokenPrefix + rand.Text()
	made, events, err := p.o.Users.AddToken(ctx, who, name, digest(secret), token)
	if err = p.announce(events, err); err != nil {
		return upkeep.AccessToken{}, "", err
	}
	return made, secret, nil
}

// Tokens returns the tokens of a user.
func (p *People) Tokens(ctx context.Context, name string) ([]upkeep.AccessToken, error) {
	return p.o.Users.Tokens(ctx, name)
}

// RemoveToken takes a token back.
func (p *People) RemoveToken(ctx context.Context, who, name string, id int64) error {
	return p.announce(p.o.Users.RemoveToken(ctx, who, name, id))
}
