package e2e

import (
	"encoding/json"
	"errors"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"upkeep/internal/selftest"
	"upkeep/internal/testkit"
)

// Every attack of the kit is tried on the program as it is shipped, and every
// defence holds.
func TestEvil(t *testing.T) {
	t.Parallel()
	testkit.NeedRoot(t)
	testkit.Need(t, "apache2", "useradd")
	testkit.NeedThat(t, "namespaces of its own", exec.Command("unshare", "--mount", "--pid", "--net", "--fork", "true").Run())
	cmd := exec.Command(upkeepProgram(t), "selftest", "--evil", "-o", "json")
	output, err := cmd.Output()
	var ended *exec.ExitError
	if err != nil && (!errors.As(err, &ended) || ended.ExitCode() != 1) {
		t.Fatalf("it was not tried: %v\n%s", err, ended.Stderr)
	}
	var results []selftest.Result
	if err := json.Unmarshal(output, &results); err != nil {
		t.Fatalf("%v\n%.2000s", err, output)
	}
	tried := map[string]bool{}
	for _, r := range results {
		tried[r.Attack] = true
		if r.State != selftest.Held {
			t.Errorf("%s is %s: %s\n  the tenant %s\n  what must hold: %s", r.Attack, r.State, r.Why, r.Tries, r.Holds)
		}
	}
	for family, attacks := range selftest.Attacks() {
		for _, a := range attacks {
			if !tried[a.Name] {
				t.Errorf("the attack %s of %s was not tried", a.Name, family)
			}
		}
	}
}

// Without root what can be tried is, and the rest is said not to be.
func TestEvilWithoutRoot(t *testing.T) {
	t.Parallel()
	testkit.NeedRoot(t) // to become somebody else
	testkit.Need(t, "apache2")
	entry, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(entry.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(entry.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	who := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	p := testkit.Command{
		Argv: []string{upkeepProgram(t), "selftest", "--evil", "-o", "json", "--only", "newlines,name-theft,headers,swap-race,forged-orders"}, User: who, Dir: "/", Env: []string{"PATH=/usr/bin:/bin", "TMPDIR=/tmp"},
	}.Start(t)
	err = p.Wait()
	text := p.Log()
	start := strings.IndexByte(text, '[')
	var results []selftest.Result
	if start < 0 || err != nil || json.Unmarshal([]byte(text[start:]), &results) != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, r := range results {
		want := selftest.Held
		if r.Attack == "swap-race" || r.Attack == "forged-orders" {
			want = selftest.NotTried
		}
		if r.State != want || r.State == selftest.NotTried && r.Why == "" {
			t.Errorf("%s is %s: %s", r.Attack, r.State, r.Why)
		}
	}
	if len(results) != 5 {
		t.Errorf("%d results", len(results))
	}
}
