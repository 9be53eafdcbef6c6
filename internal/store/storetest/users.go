package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/store"
)

var userTests = []test{
	{"the first user is one only", firstUser},
	{"users are kept, and not twice", usersKept},
	{"wrong passwords are counted until a right one", passwordsCounted},
	{"sign-ins are found until they end", signInsEnd},
	{"tokens are found until they end", tokensEnd},
	{"tokens end with those that they were made with", tokensOfTokens},
	{"a code is used once", codesOnce},
	{"passkeys are kept, and go with their user", passkeysKept},
	{"a user has so many passkeys", passkeysBounded},
	{"a passkey signs in while it counts up", passkeysCount},
	{"whose account is deleted is no user any more", usersOfDeletedAccounts},
}

func staff(name string) upkeep.User      { return upkeep.User{Name: name, Role: upkeep.UserStaff} }
func nothing(failures int) time.Duration { return 0 }

func addUser(t *testing.T, u store.Users, user upkeep.User) {
	t.Helper()
	_, err := u.Add(ctx, "tester", user, "hash of "+user.Name, false)
	must(t, err)
}

// firstUser has several try to be the first at once.
func firstUser(t *testing.T, open func() *store.Store) {
	u := open().Users()
	any, err := u.Any(ctx)
	must(t, err)
	if any {
		t.Error("there is a user from the start")
	}
	var wait sync.WaitGroup
	outcomes := make([]error, 8)
	for i := range outcomes {
		wait.Go(func() { _, outcomes[i] = u.Add(ctx, "setup", staff("user-"+string(rune('a'+i))), "hash", true) })
	}
	wait.Wait()
	added := 0
	for _, err := range outcomes {
		if err == nil {
			added++
		} else if !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("who came second: %v", err)
		}
	}
	if any, err := u.Any(ctx); err != nil || !any || added != 1 {
		t.Errorf("%d were the first; any: %v, %v", added, any, err)
	}
}

func usersKept(t *testing.T, open func() *store.Store) {
	s := open()
	u := s.Users()
	put(t, s, upkeep.Account{Name: "acme"})
	eve := upkeep.User{Name: "eve@acme.test", Role: upkeep.UserCustomer, Account: "acme"}
	addUser(t, u, eve)
	addUser(t, u, staff("ada"))
	if _, err := u.Add(ctx, "tester", staff("ada"), "other", false); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("a second ada: %v", err)
	}
	invalid := (*upkeep.InvalidError)(nil)
	for _, bad := range []upkeep.User{staff("Ada"), {Name: "bob", Role: upkeep.UserCustomer, Account: "nobody-yet"}} {
		if _, err := u.Add(ctx, "tester", bad, "hash", false); !errors.As(err, &invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	users, err := open().Users().List(ctx)
	must(t, err)
	if len(users) != 2 || users[0].Name != "ada" || users[1].Name != eve.Name || users[1].Account != "acme" || users[1].Created.IsZero() {
		t.Errorf("kept are %+v", users)
	}
	if known, err := u.Credentials(ctx, "ada"); err != nil || known != (store.Credentials{Password: "hash of ada"}) {
		t.Errorf("ada is known by %+v, %v", known, err)
	}
	for _, name := range []string{"nobody", "", "\x00", "ada'--", "' OR '1'='1"} {
		if _, err := u.Credentials(ctx, name); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("the password of %q: %v", name, err)
		}
	}
	if _, err := u.Remove(ctx, "tester", "ada"); err != nil {
		t.Error(err)
	}
	if _, err := u.Remove(ctx, "tester", "ada"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	var told []string
	for _, e := range events(t, s, store.EventFilter{Object: "user/ada"}) {
		told = append(told, e.Who+": "+e.What)
	}
	if diff := cmp.Diff([]string{"tester: added as staff", "tester: removed"}, told); diff != "" {
		t.Error(diff)
	}
}

func passwordsCounted(t *testing.T, open func() *store.Store) {
	u := open().Users()
	addUser(t, u, staff("ada"))
	wait := func(failures int) time.Duration {
		if failures < 3 {
			return 0
		}
		return time.Hour
	}
	for i := range 3 {
		told, err := u.Failed(ctx, "ada", "192.0.2.1", wait)
		must(t, err)
		if (len(told) > 0) != (i == 2) {
			t.Errorf("after %d wrong passwords is told %v", i+1, told)
		}
	}
	if known, err := u.Credentials(ctx, "ada"); err != nil || time.Until(known.Locked) < 50*time.Minute {
		t.Errorf("ada is known by %+v, %v", known, err)
	}
	// One that was looked at before the lock came is as little taken as one after it.
	now := time.Now()
	_, err := u.SignIn(ctx, "ada", "hash of ada", store.Proof{}, "sign-in", upkeep.SignIn{Created: now, Expires: now.Add(time.Hour)})
	if !errors.Is(err, store.ErrLocked) || !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("while locked: %v", err)
	}
	_, err = u.SetPassword(ctx, "tester", "ada", "new")
	must(t, err)
	if known, err := u.Credentials(ctx, "ada"); err != nil || known != (store.Credentials{Password: "new"}) {
		t.Errorf("with a new password ada is known by %+v, %v", known, err)
	}
	if told, err := u.Failed(ctx, "ada", "192.0.2.1", wait); err != nil || len(told) > 0 {
		t.Errorf("the first wrong one after it: %v, %v", told, err)
	}
	if _, err := u.Failed(ctx, "nobody", "192.0.2.1", nothing); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("nobody's wrong password: %v", err)
	}
}

func signIn(t *testing.T, u store.Users, name, hash string, lasts time.Duration) {
	t.Helper()
	now := time.Now()
	_, err := u.SignIn(ctx, name, "hash of "+name, store.Proof{}, hash, upkeep.SignIn{Created: now, Expires: now.Add(lasts), Address: "192.0.2.1", Agent: "a\x00browser\xff"})
	must(t, err)
}

func signInsEnd(t *testing.T, open func() *store.Store) {
	u := open().Users()
	long := time.Now().Add(-time.Hour)
	addUser(t, u, staff("ada"))
	addUser(t, u, staff("bob"))
	signIn(t, u, "ada", "one", time.Hour)
	signIn(t, u, "ada", "two", time.Hour)
	signIn(t, u, "bob", "three", time.Hour)
	if _, err := u.SignIn(ctx, "ada", "an older password", store.Proof{}, "four", upkeep.SignIn{}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("with a password that was changed meanwhile: %v", err)
	}
	found := func(hash string, since time.Time, want string) {
		t.Helper()
		who, err := u.BySignIn(ctx, hash, since)
		if want == "" && !errors.Is(err, upkeep.ErrNotFound) || want != "" && (err != nil || who.User.Name != want || who.User.Role != upkeep.UserStaff) {
			t.Errorf("%q is %+v, %v; want %q", hash, who, err, want)
		}
	}
	found("one", long, "ada")
	found("three", long, "bob")
	found("", long, "")
	found("four", long, "")
	found("one", time.Now().Add(time.Minute), "") // was not seen for long
	must(t, u.SeeSignIn(ctx, 1))
	list, err := u.SignIns(ctx, "ada")
	must(t, err)
	if len(list) != 2 || list[0].ID <= list[1].ID || list[0].Address != "192.0.2.1" || list[0].Agent != "a\uFFFDbrowser\uFFFD" {
		t.Errorf("ada is signed in with %+v", list)
	}
	// Nobody ends another's.
	if told, err := u.SignOut(ctx, "user bob", "bob", list[0].ID); err != nil || len(told) > 0 {
		t.Errorf("bob ends ada's: %v, %v", told, err)
	}
	found("two", long, "ada")
	_, err = u.SignOut(ctx, "user ada", "ada", list[0].ID)
	must(t, err)
	found("two", long, "")
	found("one", long, "ada")
	_, err = u.SignOut(ctx, "tester", "ada", 0)
	must(t, err)
	found("one", long, "")
	found("three", long, "bob")
	_, err = u.SetPassword(ctx, "tester", "bob", "new")
	must(t, err)
	found("three", long, "") // a new password ends what the old one began
	signIn(t, u, "ada", "five", -time.Second)
	found("five", long, "")
	signIn(t, u, "ada", "six", time.Hour)
	_, err = u.Remove(ctx, "tester", "ada")
	must(t, err)
	found("six", long, "")
}

func tokensEnd(t *testing.T, open func() *store.Store) {
	u := open().Users()
	addUser(t, u, staff("ada"))
	addUser(t, u, staff("bob"))
	give := func(name, hash string) upkeep.AccessToken {
		t.Helper()
		made, _, err := u.AddToken(ctx, "tester", name, hash, upkeep.AccessToken{Name: "backup", Scope: upkeep.ScopeRead, Expires: time.Now().Add(time.Hour)})
		must(t, err)
		return made
	}
	first, second := give("ada", "one"), give("ada", "two")
	invalid := (*upkeep.InvalidError)(nil)
	if _, _, err := u.AddToken(ctx, "tester", "ada", "three", upkeep.AccessToken{Name: "x", Scope: "all", Expires: time.Now().Add(time.Hour)}); !errors.As(err, &invalid) {
		t.Errorf("a scope that is none: %v", err)
	}
	if _, _, err := u.AddToken(ctx, "tester", "nobody", "three", upkeep.AccessToken{Name: "x", Scope: upkeep.ScopeRead, Expires: time.Now().Add(time.Hour)}); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("a token for nobody: %v", err)
	}
	who, err := u.ByToken(ctx, "one")
	if err != nil || who.User.Name != "ada" || who.Scope != upkeep.ScopeRead || who.ID != first.ID || !who.Seen.IsZero() {
		t.Errorf("the first is %+v, %v", who, err)
	}
	must(t, u.SeeToken(ctx, first.ID))
	if who, err := u.ByToken(ctx, "one"); err != nil || who.Seen.IsZero() {
		t.Errorf("after it was shown it is %+v, %v", who, err)
	}
	if _, err := u.RemoveToken(ctx, "tester", "bob", second.ID); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("a token of ada's, as bob's: %v", err)
	}
	_, err = u.RemoveToken(ctx, "tester", "ada", second.ID)
	must(t, err)
	for _, hash := range []string{"two", "three", ""} {
		if who, err := u.ByToken(ctx, hash); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("%q is %+v, %v", hash, who, err)
		}
	}
	left, err := u.Tokens(ctx, "ada")
	if err != nil || len(left) != 1 || left[0].ID != first.ID {
		t.Errorf("left are %+v, %v", left, err)
	}
	_, err = u.Remove(ctx, "tester", "ada")
	must(t, err)
	if who, err := u.ByToken(ctx, "one"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("of a user who was removed: %+v, %v", who, err)
	}
}

// tokensOfTokens has tokens made with others, which end with them.
func tokensOfTokens(t *testing.T, open func() *store.Store) {
	u := open().Users()
	for _, name := range []string{"ada", "bob", "cyd"} {
		addUser(t, u, staff(name))
	}
	until := time.Now().Add(time.Hour)
	give := func(name, hash, scope string, with int64) (upkeep.AccessToken, error) {
		made, _, err := u.AddToken(ctx, "tester", name, hash, upkeep.AccessToken{Name: hash, Scope: scope, Expires: until, MadeWith: with})
		return made, err
	}
	first, err := give("ada", "first", upkeep.ScopeWrite, 0)
	must(t, err)
	second, err := give("bob", "second", upkeep.ScopeWrite, first.ID)
	must(t, err)
	_, err = give("cyd", "third", upkeep.ScopeRead, second.ID)
	must(t, err)
	_, err = give("cyd", "other", upkeep.ScopeRead, 0)
	must(t, err)
	if listed, err := u.Tokens(ctx, "bob"); err != nil || len(listed) != 1 || listed[0].MadeWith != first.ID {
		t.Errorf("bob's are %+v, %v", listed, err)
	}
	invalid := (*upkeep.InvalidError)(nil)
	if _, err := give("ada", "wider", upkeep.ScopeUsers, first.ID); !errors.As(err, &invalid) {
		t.Errorf("one that may do more: %v", err)
	}
	until = until.Add(time.Second)
	if _, err := give("ada", "longer", upkeep.ScopeRead, first.ID); !errors.As(err, &invalid) {
		t.Errorf("one that is good for longer: %v", err)
	}
	_, err = u.RemoveToken(ctx, "tester", "ada", first.ID)
	must(t, err)
	for _, hash := range []string{"first", "second", "third"} {
		if who, err := u.ByToken(ctx, hash); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("%q is %+v, %v", hash, who, err)
		}
	}
	if _, err := u.ByToken(ctx, "other"); err != nil {
		t.Errorf("one that was made in another way: %v", err)
	}
	until = time.Now().Add(time.Hour)
	if _, err := give("ada", "late", upkeep.ScopeRead, first.ID); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("with one that was taken back: %v", err)
	}
	// With a user go tokens of others that were made with one of its.
	first, err = give("ada", "first", upkeep.ScopeWrite, 0)
	must(t, err)
	_, err = give("bob", "second", upkeep.ScopeWrite, first.ID)
	must(t, err)
	_, err = u.Remove(ctx, "tester", "ada")
	must(t, err)
	if who, err := u.ByToken(ctx, "second"); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("of a user who was removed: %+v, %v", who, err)
	}
}

// usersOfDeletedAccounts declares an account of the same name later, which is
// somebody else's.
func usersOfDeletedAccounts(t *testing.T, open func() *store.Store) {
	s := open()
	u := s.Users()
	acme, other := upkeep.Account{Name: "acme"}, upkeep.Account{Name: "other"}
	put(t, s, acme, other)
	for name, account := range map[string]string{"eve": "acme", "eli": "acme", "oda": "other"} {
		addUser(t, u, upkeep.User{Name: name, Role: upkeep.UserCustomer, Account: account})
		signIn(t, u, name, "of "+name, time.Hour)
	}
	addUser(t, u, staff("ada"))
	_, err := s.Apply(ctx, "tester", store.Change{Delete: []store.Ref{store.RefOf(acme)}})
	must(t, err)
	put(t, s, acme)
	users, err := u.List(ctx)
	must(t, err)
	if len(users) != 2 || users[0].Name != "ada" || users[1].Name != "oda" || users[1].SignIns != 1 {
		t.Errorf("left are %+v", users)
	}
	if who, err := u.BySignIn(ctx, "of eve", time.Time{}); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("eve is still %+v, %v", who, err)
	}
}

// codesOnce has several sign in with the same code at once.
func codesOnce(t *testing.T, open func() *store.Store) {
	u := open().Users()
	addUser(t, u, staff("ada"))
	addUser(t, u, staff("bob"))
	_, err := u.SetFactor(ctx, "user ada", "ada", "SECRET", 5, []string{"spare one", "spare two"})
	must(t, err)
	if known, err := u.Credentials(ctx, "ada"); err != nil || known.Factor != "SECRET" || known.Step != 5 {
		t.Errorf("ada is known by %+v, %v", known, err)
	}
	n := 0
	try := func(name string, p store.Proof) error {
		n++
		now := time.Now()
		_, err := u.SignIn(ctx, name, "hash of "+name, p, fmt.Sprint("sign-in ", n), upkeep.SignIn{Created: now, Expires: now.Add(time.Hour)})
		return err
	}
	for _, refused := range []store.Proof{{}, {Step: 5}, {Step: 4}, {Spare: "no spare"}} {
		if err := try("ada", refused); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("with %+v: %v", refused, err)
		}
	}
	must(t, try("bob", store.Proof{}))
	must(t, try("ada", store.Proof{Step: 6}))
	if err := try("ada", store.Proof{Step: 6}); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("the same step again: %v", err)
	}
	var wait sync.WaitGroup
	outcomes := make([]error, 6)
	for i := range outcomes {
		wait.Go(func() {
			now := time.Now()
			_, outcomes[i] = u.SignIn(ctx, "ada", "hash of ada", store.Proof{Spare: "spare one"}, fmt.Sprint("at once ", i), upkeep.SignIn{Created: now, Expires: now.Add(time.Hour)})
		})
	}
	wait.Wait()
	in := 0
	for _, err := range outcomes {
		if err == nil {
			in++
		} else if !errors.Is(err, upkeep.ErrRefused) {
			t.Error(err)
		}
	}
	if in != 1 {
		t.Errorf("%d signed in with one spare code", in)
	}
	users, err := u.List(ctx)
	if err != nil || !users[0].Factor || users[1].Factor {
		t.Errorf("listed are %+v, %v", users, err)
	}
	_, err = u.SetFactor(ctx, "tester", "ada", "", 0, nil)
	must(t, err)
	must(t, try("ada", store.Proof{}))
}
