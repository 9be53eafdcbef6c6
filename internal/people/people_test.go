package people

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/store"
)

// desk is one on a database of its own, at a time that can be changed.
type desk struct {
	*People
	store *store.Store
	now   time.Time
	told  []upkeep.Event
}

const (
	goodPassword = "correct horse battery"
	home         = "192.0.2.1"
)

func newDesk(t *testing.T) *desk {
	t.Helper()
	s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "upkeep.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	d := &desk{store: s, now: time.Now()}
	d.People, err = New(t.Context(), Options{Users: s.Users(), Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return d.now },
		Announce: func(e []upkeep.Event) { d.told = append(d.told, e...) }})
	if err != nil {
		t.Fatal(err)
	}
	d.hasher.memory = 64
	d.even = 0
	return d
}

func (d *desk) add(t *testing.T, user upkeep.User) {
	t.Helper()
	if user.Account != "" {
		if _, err := d.store.Apply(t.Context(), "tester", store.Change{Put: []upkeep.Object{upkeep.Account{Name: user.Account}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Add(t.Context(), "tester", user, goodPassword); err != nil {
		t.Fatal(err)
	}
}

var ada = upkeep.User{Name: "ada", Role: upkeep.UserStaff}

// The first user is made by who has seen the terminal, and by nobody after that.
func TestSetup(t *testing.T) {
	d := newDesk(t)
	ctx, token := t.Context(), d.Setup()
	if len(token) < 20 {
		t.Fatalf("the token is %q", token)
	}
	invalid := (*upkeep.InvalidError)(nil)
	for _, wrong := range []string{"", "guess", token[1:], token + "A", strings.ToLower(token)} {
		if err := d.SetUp(ctx, wrong, "ada", goodPassword, home); !errors.As(err, &invalid) || invalid.Fields[0].Field != "token" {
			t.Errorf("with the token %q: %v", wrong, err)
		}
	}
	for name, password := range map[string]string{"Ada": goodPassword, "ada": "short", "abcdefghijkl": "abcdefghijkl", "bob": strings.Repeat("a", 20), "eve": strings.Repeat("ab", 600)} {
		if err := d.SetUp(ctx, token, name, password, home); !errors.As(err, &invalid) {
			t.Errorf("%s with the password %.20q: %v", name, password, err)
		}
	}
	if users, err := d.List(ctx); err != nil || len(users) != 0 {
		t.Fatalf("there are %+v, %v", users, err)
	}
	if err := d.SetUp(ctx, " "+token+"\n", "ada", goodPassword, home); err != nil {
		t.Fatal(err)
	}
	if err := d.SetUp(ctx, token, "eve", goodPassword, home); !errors.Is(err, upkeep.ErrRefused) || d.Setup() != "" {
		t.Errorf("the token again: %v; it is %q now", err, d.Setup())
	}
	again, err := New(ctx, d.o)
	if err != nil || again.Setup() != "" {
		t.Errorf("after a start with users there is the token %q, %v", again.Setup(), err)
	}
}

// Which names there are does not show in how long a refusal takes: the database has
// something to count for some of them only.
func TestRefusalsTakeEvenTimes(t *testing.T) {
	d := newDesk(t)
	d.add(t, ada)
	if fresh, err := New(t.Context(), d.o); err != nil || fresh.even < 100*time.Millisecond {
		t.Fatalf("refusals take multiples of %s, %v", fresh.even, err)
	}
	d.even = 300 * time.Millisecond
	for name, password := range map[string]string{"ada": "wrong password", "nobody": goodPassword, "eve": strings.Repeat("x", 2*maxPassword)} {
		began := time.Now()
		if _, _, err := d.SignIn(t.Context(), name, password, "", home, ""); !errors.Is(err, errWrong) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took < d.even {
			t.Errorf("%s is refused after %s already", name, took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.even = time.Hour
	d.evenOut(ctx, time.Now()) // who has gone is not waited for
}

// Tokens of the first start are not found by trying.
func TestSetupIsSlowToGuess(t *testing.T) {
	d := newDesk(t)
	token := d.Setup()
	for range burst {
		d.SetUp(t.Context(), "guess", "ada", goodPassword, home)
	}
	if err := d.SetUp(t.Context(), token, "ada", goodPassword, home); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("after %d guesses: %v", burst, err)
	}
	d.now = d.now.Add(refill)
	if err := d.SetUp(t.Context(), token, "ada", goodPassword, home); err != nil {
		t.Errorf("a while later: %v", err)
	}
}

func TestSignIn(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.add(t, ada)
	d.add(t, upkeep.User{Name: "eve", Role: upkeep.UserCustomer, Account: "acme"})
	for name, password := range map[string]string{"ada": "wrong", "nobody": goodPassword, "": "", "eve": strings.Repeat("x", maxPassword+1), "ada'--": goodPassword} {
		if _, _, err := d.SignIn(ctx, name, password, "", home, "browser"); !errors.Is(err, errWrong) {
			t.Errorf("%q with %.20q: %v", name, password, err)
		}
	}
	secret, expires, err := d.SignIn(ctx, "ada", goodPassword, "", home, strings.Repeat("browser", 100))
	if err != nil || !expires.Equal(d.now.Add(lasts)) {
		t.Fatalf("until %s, %v", expires, err)
	}
	who, err := d.Browser(ctx, secret)
	if want := (access.Caller{Who: "user ada", User: "ada", Staff: true, SignIn: who.SignIn}); err != nil || who != want || who.SignIn == 0 {
		t.Errorf("ada is %+v, %v", who, err)
	}
	secret2, _, err := d.SignIn(ctx, "eve", goodPassword, "", home, "browser")
	if err != nil {
		t.Fatal(err)
	}
	who, err = d.Browser(ctx, secret2)
	if want := (access.Caller{Who: "user eve", User: "eve", Account: "acme", SignIn: who.SignIn}); err != nil || who != want {
		t.Errorf("eve is %+v, %v", who, err)
	}
	for _, wrong := range []string{"", "guess", digest(secret), secret + "A"} {
		if who, err := d.Browser(ctx, wrong); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("%q is %+v, %v", wrong, who, err)
		}
	}
	if err := d.SignOut(ctx, "user ada", "ada", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Browser(ctx, secret); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("after signing out: %v", err)
	}
	if _, err := d.Browser(ctx, secret2); err != nil {
		t.Errorf("eve after ada signed out: %v", err)
	}
}

// A browser that was left alone for long has to sign in again, and every one after
// a week.
func TestSignInsEndByThemselves(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.add(t, ada)
	secret, _, err := d.SignIn(ctx, "ada", goodPassword, "", home, "browser")
	if err != nil {
		t.Fatal(err)
	}
	d.now = d.now.Add(idle + time.Second)
	if who, err := d.Browser(ctx, secret); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("after %s alone: %+v, %v", idle, who, err)
	}
}

// Passwords cannot be tried at will, neither for one user nor from one place, and a
// right one is not told from a wrong one meanwhile.
func TestGuessingPasswordsIsSlow(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.add(t, ada)
	for i := range 5 {
		if _, _, err := d.SignIn(ctx, "ada", "guess", "", "198.51.100."+string(rune('1'+i)), "browser"); !errors.Is(err, errWrong) {
			t.Errorf("guess %d: %v", i, err)
		}
	}
	if _, _, err := d.SignIn(ctx, "ada", goodPassword, "", home, "browser"); !errors.Is(err, errWrong) {
		t.Errorf("the right one while locked: %v", err)
	}
	if len(d.told) == 0 || !strings.Contains(d.told[len(d.told)-1].What, "cannot sign in for 1m") {
		t.Errorf("nobody is told: %+v", d.told)
	}
	d.now = d.now.Add(2 * time.Minute)
	if _, _, err := d.SignIn(ctx, "ada", goodPassword, "", home, "browser"); err != nil {
		t.Errorf("after the lock: %v", err)
	}
	for i := range burst + 5 {
		_, _, err := d.SignIn(ctx, "nobody-"+string(rune('a'+i)), "guess", "", "2001:db8::"+string(rune('1'+i%9)), "browser")
		if (i < burst) != errors.Is(err, errWrong) {
			t.Errorf("guess %d from one network: %v", i, err)
		}
	}
	if _, _, err := d.SignIn(ctx, "ada", goodPassword, "", home, "browser"); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
}

// Strangers who know a name can lock it as often as they like. Who is signed in is not
// kept from a new password, and who has a passkey not from signing in; the password is
// not guessed there any faster.
func TestLocksKeepNobodyOutWhoIsIn(t *testing.T) {
	d, dev := newDesk(t), newDevice(t)
	ctx, next := t.Context(), "another good one"
	d.add(t, ada)
	d.enroll(t, "ada", dev)
	lock := func() {
		t.Helper()
		for i := range 5 {
			d.SignIn(ctx, "ada", "guess", "", "198.51.100."+string(rune('0'+i)), "browser")
		}
		if _, _, err := d.SignIn(ctx, "ada", goodPassword, "", home, "browser"); !errors.Is(err, errWrong) {
			t.Fatalf("it is not locked: %v", err)
		}
	}
	lock()
	if err := d.ChangePassword(ctx, "ada", goodPassword, next, home); err != nil {
		t.Errorf("a new password while locked: %v", err)
	}
	if _, _, err := d.SignIn(ctx, "ada", next, "", home, "browser"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	lock()
	if secret, err := d.enter(t, dev); err != nil || secret == "" {
		t.Errorf("a passkey while locked: %v", err)
	}
	for i := range ownBurst {
		if err := d.ChangePassword(ctx, "ada", "guess", goodPassword, "203.0.113."+string(rune('1'+i))); !errors.Is(err, errPresent) {
			t.Errorf("guess %d of who is signed in: %v", i, err)
		}
	}
	if err := d.ChangePassword(ctx, "ada", next, goodPassword, home); !errors.Is(err, errTooOften) {
		t.Errorf("after %d guesses: %v", ownBurst, err)
	}
	d.now = d.now.Add(ownRefill)
	if err := d.ChangePassword(ctx, "ada", next, goodPassword, home); err != nil {
		t.Errorf("a while later: %v", err)
	}
}

// A new password ends what the old one began, and lifts a lock.
func TestNewPassword(t *testing.T) {
	d := newDesk(t)
	ctx, next := t.Context(), "another good one"
	d.add(t, ada)
	secret, _, err := d.SignIn(ctx, "ada", goodPassword, "", home, "browser")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.ChangePassword(ctx, "ada", "wrong", next, home); !errors.Is(err, errPresent) {
		t.Errorf("without the present one: %v", err)
	}
	invalid := (*upkeep.InvalidError)(nil)
	if err := d.ChangePassword(ctx, "ada", goodPassword, "short", home); !errors.As(err, &invalid) {
		t.Errorf("a short one: %v", err)
	}
	if _, err := d.Browser(ctx, secret); err != nil {
		t.Errorf("before the change: %v", err)
	}
	for range 5 {
		d.SignIn(ctx, "ada", "guess", "", home, "browser")
	}
	if err := d.SetPassword(ctx, "tester", "ada", next); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Browser(ctx, secret); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("what the old one began: %v", err)
	}
	if _, _, err := d.SignIn(ctx, "ada", goodPassword, "", home, "browser"); !errors.Is(err, errWrong) {
		t.Errorf("the old one: %v", err)
	}
	if _, _, err := d.SignIn(ctx, "ada", next, "", home, "browser"); err != nil {
		t.Errorf("the new one: %v", err)
	}
}

func TestTokens(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.add(t, upkeep.User{Name: "eve", Role: upkeep.UserCustomer, Account: "acme"})
	give := func(scope string) (upkeep.AccessToken, string) {
		t.Helper()
		made, secret, err := d.AddToken(ctx, "tester", "eve", upkeep.AccessToken{Name: "backup", Scope: scope, Expires: d.now.Add(time.Hour)})
		if err != nil || !strings.HasPrefix(secret, TokenPrefix) {
			t.Fatalf("%q, %v", secret, err)
		}
		return made, secret
	}
	_, read := give(upkeep.ScopeRead)
	made, write := give(upkeep.ScopeWrite)
	for secret, readOnly := range map[string]bool{read: true, write: false} {
		who, err := d.Token(ctx, secret)
		if err != nil || who.Account != "acme" || who.Staff || who.ReadOnly != readOnly || !strings.Contains(who.Who, "eve (token ") {
			t.Errorf("it is %+v, %v", who, err)
		}
	}
	if err := d.RemoveToken(ctx, "tester", "eve", made.ID); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"", TokenPrefix, write, read + "A", digest(read), TokenPrefix + digest(read)} {
		if who, err := d.Token(ctx, wrong); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("%q is %+v, %v", wrong, who, err)
		}
	}
	// What is shown to people and what lies in the database has no secret in it.
	for _, e := range d.told {
		if text := e.What + e.Why + e.Who; strings.Contains(text, read) || strings.Contains(text, write) || strings.Contains(text, goodPassword) {
			t.Errorf("an event tells a secret: %+v", e)
		}
	}
}

func TestHashes(t *testing.T) {
	if newHasher().memory != 19456 { // by OWASP, with two passes
		t.Errorf("passwords cost %d KiB to try", newHasher().memory)
	}
	h := hasher{make(chan struct{}, 1), 64} // which takes no time
	ctx := t.Context()
	hash, err := h.hash(ctx, goodPassword)
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=64,t=2,p=1$") {
		t.Fatalf("%q, %v", hash, err)
	}
	other, _ := h.hash(ctx, goodPassword)
	if other == hash {
		t.Error("two hashes of one password are the same")
	}
	for _, tt := range []struct {
		hash, password string
		want           bool
	}{
		{hash, goodPassword, true}, {hash, goodPassword + "x", false}, {hash, "", false},
		// Made elsewhere, with other parameters, by the reference of RFC 9106.
		{"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password", true},
		{"", "", false}, {"$", "", false}, {"x", "x", false},
		{strings.Replace(hash, "m=64", "m=4000000000", 1), goodPassword, false},
		{strings.Replace(hash, "t=2", "t=100000", 1), goodPassword, false},
		{strings.Replace(hash, "t=2", "t=0", 1), goodPassword, false},
		{strings.Replace(hash, "p=1", "p=0", 1), goodPassword, false},
		{strings.Replace(hash, "argon2id", "argon2i", 1), goodPassword, false},
		{hash[:len(hash)-40], goodPassword, false},
		{strings.Repeat("0", 32), strings.Repeat("0", 32), false},
	} {
		if got, err := h.same(ctx, tt.hash, tt.password); err != nil || got != tt.want {
			t.Errorf("%q is the password of %q: %v, %v", tt.password, tt.hash, got, err)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	h.slots <- struct{}{}
	if _, err := h.hash(gone, goodPassword); !errors.Is(err, context.Canceled) {
		t.Errorf("who left is still served: %v", err)
	}
}

// FuzzHash reads hashes that somebody wrote into the database.
func FuzzHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, hash string) {
		if p, valid := parse(hash); valid && (p.memory > maxMemory || p.passes > maxPasses || p.passes == 0 || p.threads == 0 || len(p.key) < 16) {
			t.Errorf("%q costs %+v", hash, p)
		}
	})
}

func TestThrottle(t *testing.T) {
	th := throttle[netip.Prefix]{burst: burst, refill: refill}
	now := time.Now()
	for range burst {
		if !th.take(place("192.0.2.1"), now) {
			t.Fatal("slowed down at once")
		}
	}
	if th.take(place("192.0.2.1"), now) || th.take(place("::ffff:192.0.2.1"), now) || !th.take(place("192.0.2.2"), now) {
		t.Error("it goes by something else than the place")
	}
	if th.take(place("192.0.2.1"), now.Add(refill-1)) || !th.take(place("192.0.2.1"), now.Add(refill)) || th.take(place("192.0.2.1"), now.Add(refill)) {
		t.Error("it does not fill up one by one")
	}
	if !th.take(place("no address"), now) || !th.take(place(""), now) {
		t.Error("what is no address is refused")
	}
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for j := range maxKnown / 3 {
				th.take(place(addr(i*maxKnown+j)), now)
				th.give(place("192.0.2.2"))
			}
		})
	}
	wait.Wait()
	if len(th.known) > maxKnown {
		t.Errorf("%d places are remembered", len(th.known))
	}
}

func addr(i int) string {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
}

// Length is counted in characters, as the rule says, whatever script they are of.
func TestLengthOfPasswords(t *testing.T) {
	for password, good := range map[string]bool{"ninechars": false, "ten chars!": true, "ßßßßßäääö": false, "ßßßßßäääöü": true, "": false} {
		if broken := CheckPassword("ada", password); (len(broken) == 0) != good {
			t.Errorf("%q: %v", password, broken)
		}
	}
}
