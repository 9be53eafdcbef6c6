package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

func key(name string) store.Key {
	return store.Key{Passkey: upkeep.Passkey{Name: name, Host: "upkeep.example.test", Synced: true}, Credential: []byte("\x00\xff" + name), Public: []byte("key of " + name), Count: 3}
}

func addPasskey(t *testing.T, u store.Users, user, handle, name string) upkeep.Passkey {
	t.Helper()
	made, told, err := u.AddPasskey(ctx, "user "+user, user, handle, key(name))
	must(t, err)
	if len(told) != 1 || told[0].Object != "user/"+user {
		t.Errorf("told is %+v", told)
	}
	return made
}

func passkeysKept(t *testing.T, open func() *store.Store) {
	s := open()
	u := s.Users()
	addUser(t, u, staff("ada"))
	addUser(t, u, staff("bob"))
	first, second := addPasskey(t, u, "ada", "of ada", "laptop"), addPasskey(t, u, "ada", "of ada", "key")
	invalid := (*upkeep.InvalidError)(nil)
	if _, _, err := u.AddPasskey(ctx, "tester", "ada", "of ada", key("two\nlines")); !errors.As(err, &invalid) {
		t.Errorf("with a name of two lines: %v", err)
	}
	if _, _, err := u.AddPasskey(ctx, "tester", "ada", "another", key("other")); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("of a device that knows another user: %v", err)
	}
	if _, _, err := u.AddPasskey(ctx, "tester", "bob", "of bob", key("laptop")); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("ada's for bob: %v", err)
	}
	if _, _, err := u.AddPasskey(ctx, "tester", "nobody", "of nobody", key("other")); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("for nobody: %v", err)
	}
	holder, err := open().Users().ByPasskey(ctx, key("laptop").Credential)
	if k := holder.Key; err != nil || holder.User != "ada" || holder.Handle != "of ada" || k.ID != first.ID || string(k.Public) != "key of laptop" || k.Count != 3 || !k.Synced ||
		k.Created.IsZero() || !k.Seen.IsZero() || !slices.Equal(k.Credential, key("laptop").Credential) {
		t.Errorf("it is %+v, %v", holder, err)
	}
	for _, wrong := range []string{"", "\x00", "\x00\xffLaptop", "laptop", "' OR '1'='1"} {
		if holder, err := u.ByPasskey(ctx, []byte(wrong)); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("%q is %+v, %v", wrong, holder, err)
		}
	}
	if known, err := u.Credentials(ctx, "ada"); err != nil || known.Handle != "of ada" {
		t.Errorf("ada is known by %+v, %v", known, err)
	}
	if keys, err := u.Passkeys(ctx, "ada"); err != nil || len(keys) != 2 || keys[0].ID != second.ID {
		t.Errorf("ada has %+v, %v", keys, err)
	}
	if users, err := u.List(ctx); err != nil || users[0].Passkeys != 2 || users[1].Passkeys != 0 {
		t.Errorf("listed are %+v, %v", users, err)
	}
	if _, err := u.RemovePasskey(ctx, "user bob", "bob", first.ID); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("bob removes ada's: %v", err)
	}
	_, err = u.RemovePasskey(ctx, "tester", "ada", first.ID)
	must(t, err)
	addPasskey(t, u, "ada", "of ada", "laptop")
	if told, err := u.RemovePasskey(ctx, "tester", "ada", 0); err != nil || len(told) != 2 {
		t.Errorf("removing all: %+v, %v", told, err)
	}
	if told, err := u.RemovePasskey(ctx, "tester", "ada", 0); err != nil || len(told) > 0 {
		t.Errorf("removing none: %+v, %v", told, err)
	}
	addPasskey(t, u, "ada", "of ada", "laptop")
	_, err = u.Remove(ctx, "tester", "ada")
	must(t, err)
	if holder, err := u.ByPasskey(ctx, key("laptop").Credential); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("after its user was removed it is %+v, %v", holder, err)
	}
	// Who gets the name later has none of it, and the device knows somebody else.
	addUser(t, u, staff("ada"))
	if known, err := u.Credentials(ctx, "ada"); err != nil || known.Handle != "" {
		t.Errorf("the next ada is known by %+v, %v", known, err)
	}
	addPasskey(t, u, "bob", "of bob", "laptop") // which is nobody's any more
	logged, err := s.Audit(ctx, store.AuditFilter{Object: "user/ada", Limit: 100})
	must(t, err)
	said := ""
	for _, e := range logged {
		said += e.Who + ": " + e.What + " " + e.Why + "; "
	}
	if !strings.Contains(said, fmt.Sprintf("tester: passkey %d removed laptop; ", first.ID)) || !strings.Contains(said, fmt.Sprintf("user ada: passkey %d added key; ", second.ID)) {
		t.Errorf("the audit log says %s", said)
	}
}

func passkeysBounded(t *testing.T, open func() *store.Store) {
	u := open().Users()
	addUser(t, u, staff("ada"))
	for i := range store.MaxPasskeys {
		addPasskey(t, u, "ada", "of ada", fmt.Sprint("number ", i))
	}
	if _, _, err := u.AddPasskey(ctx, "tester", "ada", "of ada", key("one more")); !errors.Is(err, upkeep.ErrRefused) {
		t.Errorf("one more: %v", err)
	}
}

func passkeysCount(t *testing.T, open func() *store.Store) {
	s := open()
	u := s.Users()
	addUser(t, u, staff("ada"))
	made := addPasskey(t, u, "ada", "of ada", "laptop")
	n := 0
	try := func(id int64, count uint32) error {
		n++
		now := time.Now()
		_, err := u.SignInByPasskey(ctx, id, count, fmt.Sprint("sign-in ", n), upkeep.SignIn{Created: now, Expires: now.Add(time.Hour), Address: "192.0.2.1"})
		return err
	}
	for _, count := range []uint32{0, 1, 3} {
		if err := try(made.ID, count); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%d after 3: %v", count, err)
		}
	}
	if told := events(t, s, store.EventFilter{Object: "user/ada", Kind: upkeep.EventWarning}); len(told) != 3 {
		t.Errorf("told is %+v", told)
	}
	must(t, try(made.ID, 4))
	must(t, try(made.ID, 4_000_000_000)) // counters have 32 bits
	if err := try(made.ID+1, 5); !errors.Is(err, upkeep.ErrNotFound) {
		t.Errorf("with one that is not there: %v", err)
	}
	if who, err := u.BySignIn(ctx, "sign-in 5", time.Time{}); err != nil || who.User.Name != "ada" {
		t.Errorf("signed in is %+v, %v", who, err)
	}
	if keys, err := u.Passkeys(ctx, "ada"); err != nil || keys[0].Seen.IsZero() || keys[0].Count != 4_000_000_000 {
		t.Errorf("kept is %+v, %v", keys, err)
	}
	// A lock is not for passkeys, and a right one forgets what was wrong before.
	_, err := u.Failed(ctx, "ada", "192.0.2.1", func(int) time.Duration { return time.Hour })
	must(t, err)
	must(t, try(made.ID, 4_000_000_001))
	if told, err := u.Failed(ctx, "ada", "192.0.2.1", func(failures int) time.Duration {
		if failures != 1 {
			t.Errorf("%d are wrong after a right one", failures)
		}
		return 0
	}); err != nil || len(told) > 0 {
		t.Errorf("%+v, %v", told, err)
	}
	// One that does not count never does.
	plain := key("synced")
	plain.Count = 0
	uncounted, _, err := u.AddPasskey(ctx, "tester", "ada", "of ada", plain)
	must(t, err)
	must(t, try(uncounted.ID, 0))
	must(t, try(uncounted.ID, 0))
	// Of two that say the same at once, one is a copy.
	var wait sync.WaitGroup
	outcomes := make([]error, 6)
	for i := range outcomes {
		wait.Go(func() {
			now := time.Now()
			_, outcomes[i] = u.SignInByPasskey(ctx, made.ID, 4_000_000_002, fmt.Sprint("at once ", i), upkeep.SignIn{Created: now, Expires: now.Add(time.Hour)})
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
		t.Errorf("%d signed in with one count", in)
	}
}
