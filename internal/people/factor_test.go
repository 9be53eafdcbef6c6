package people

import (
	"errors"
	"testing"
	"time"

	"upkeep"
)

// The values of RFC 6238, appendix B, of which apps show the last six digits.
func TestCodesOfTheStandard(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got := codeAt(secret, step(time.Unix(at, 0))); got != want {
			t.Errorf("at %d the code is %s, want %s", at, got, want)
		}
	}
}

// now is the code that an app with a secret shows.
func (d *desk) code(t *testing.T, secret string, ahead int64) string {
	t.Helper()
	key, err := unpadded.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return codeAt(key, step(d.now)+ahead)
}

// With a second factor a password alone is not enough, a code is good once, and who
// has lost the app has spare codes.
func TestSecondFactor(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.add(t, ada)
	secret := d.NewFactor()
	invalid := (*upkeep.InvalidError)(nil)
	if _, err := d.SetFactor(ctx, "ada", goodPassword, secret, "000000", home); !errors.As(err, &invalid) || invalid.Fields[0].Field != "code" {
		t.Errorf("with a wrong code: %v", err)
	}
	if _, err := d.SetFactor(ctx, "ada", goodPassword, "AAAA", d.code(t, "AAAA", 0), home); !errors.As(err, &invalid) {
		t.Errorf("with a secret that is too short: %v", err)
	}
	if _, err := d.SetFactor(ctx, "ada", "wrong", secret, d.code(t, secret, 0), home); !errors.Is(err, errPresent) {
		t.Errorf("without the password: %v", err)
	}
	used := d.code(t, secret, 0)
	spare, err := d.SetFactor(ctx, "ada", goodPassword, secret, used[:3]+" "+used[3:], home)
	if err != nil || len(spare) != spareCodes {
		t.Fatalf("%q, %v", spare, err)
	}
	in := func(code string) error {
		_, _, err := d.SignIn(ctx, "ada", goodPassword, code, home, "browser")
		return err
	}
	for i, wrong := range []string{"", used, "123", d.code(t, secret, slack+2)} {
		if err := in(wrong); !errors.Is(err, errWrong) {
			t.Errorf("with code %d, %q: %v", i, wrong, err)
		}
	}
	d.now = d.now.Add(2 * time.Minute) // past the lock that these have brought
	next := d.code(t, secret, 1)
	if err := in(next); err != nil {
		t.Errorf("with the next code: %v", err)
	}
	if err := in(next); !errors.Is(err, errWrong) {
		t.Errorf("with the same again: %v", err)
	}
	if err := in(spare[0]); err != nil {
		t.Errorf("with a spare one: %v", err)
	}
	if err := in(spare[0]); !errors.Is(err, errWrong) {
		t.Errorf("with the same spare one again: %v", err)
	}
	if err := d.DropFactor(ctx, "ada", "wrong", home); !errors.Is(err, errPresent) {
		t.Errorf("dropping it without the password: %v", err)
	}
	if err := d.DropFactor(ctx, "ada", goodPassword, home); err != nil {
		t.Fatal(err)
	}
	if err := in(""); err != nil {
		t.Errorf("without one: %v", err)
	}
}

// Codes cannot be tried at will: a wrong one counts as a wrong password does.
func TestGuessingCodesIsSlow(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.add(t, ada)
	secret := d.NewFactor()
	if _, err := d.SetFactor(ctx, "ada", goodPassword, secret, d.code(t, secret, 0), home); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, _, err := d.SignIn(ctx, "ada", goodPassword, "ABCD-EFGH-JKLM-NPQR", home, "browser"); !errors.Is(err, errWrong) {
			t.Errorf("a guess: %v", err)
		}
	}
	if _, _, err := d.SignIn(ctx, "ada", goodPassword, d.code(t, secret, 1), home, "browser"); !errors.Is(err, errWrong) {
		t.Errorf("the right one while locked: %v", err)
	}
}
