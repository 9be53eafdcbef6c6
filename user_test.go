package upkeep

import (
	"strings"
	"testing"
	"time"
)

func TestUsers(t *testing.T) {
	for _, tt := range []struct {
		user  User
		wrong string // the field at fault; empty for none
	}{
		{User{Name: "ada", Role: UserStaff}, ""},
		{User{Name: "ada@example.test", Role: UserCustomer, Account: "acme"}, ""},
		{User{Name: "a.b+c_d-e", Role: UserStaff}, ""},
		{User{Name: "", Role: UserStaff}, "name"},
		{User{Name: "a", Role: UserStaff}, "name"},
		{User{Name: "Ada", Role: UserStaff}, "name"},
		{User{Name: "-ada", Role: UserStaff}, "name"},
		{User{Name: "ada\n", Role: UserStaff}, "name"},
		{User{Name: "ada eve", Role: UserStaff}, "name"},
		{User{Name: "аda", Role: UserStaff}, "name"}, // the first letter is Cyrillic
		{User{Name: "<script>", Role: UserStaff}, "name"},
		{User{Name: strings.Repeat("a", 64), Role: UserStaff}, "name"},
		{User{Name: "ada", Role: "root"}, "role"},
		{User{Name: "ada"}, "role"},
		{User{Name: "ada", Role: UserStaff, Account: "acme"}, "account"},
		{User{Name: "ada", Role: UserCustomer}, "account"},
		{User{Name: "ada", Role: UserCustomer, Account: "root"}, "account"},
		{User{Name: "ada", Role: UserCustomer, Account: "../acme"}, "account"},
	} {
		fields := tt.user.Validate()
		if tt.wrong == "" && len(fields) > 0 || tt.wrong != "" && (len(fields) != 1 || fields[0].Field != tt.wrong) {
			t.Errorf("%+v: %v, want a fault in %q", tt.user, fields, tt.wrong)
		}
	}
}

func TestAccessTokens(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	good := AccessToken{Name: "backup", Scope: ScopeRead, Expires: now.Add(time.Hour)}
	if fields := good.Validate(now); len(fields) > 0 {
		t.Errorf("%v", fields)
	}
	for field, change := range map[string]func(*AccessToken){
		"name":    func(t *AccessToken) { t.Name = "a\x1b[2J" },
		"scope":   func(t *AccessToken) { t.Scope = "all" },
		"expires": func(t *AccessToken) { t.Expires = time.Time{} },
	} {
		bad := good
		change(&bad)
		if fields := bad.Validate(now); len(fields) != 1 || fields[0].Field != field {
			t.Errorf("a token with a wrong %s: %v", field, fields)
		}
	}
	for _, expires := range []time.Time{now, now.Add(LongestToken + time.Second)} {
		bad := good
		bad.Expires = expires
		if fields := bad.Validate(now); len(fields) != 1 {
			t.Errorf("a token until %s: %v", expires, fields)
		}
	}
}

// What is made with a token does no more than it, and for no longer.
func TestTokenWithin(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	maker := AccessToken{Scope: ScopeWrite, Expires: now.Add(time.Hour)}
	for _, tt := range []struct {
		scope string
		hours time.Duration
		wrong string // the field at fault; empty for none
	}{{ScopeRead, 1, ""}, {ScopeWrite, 1, ""}, {ScopeWrite, 0, ""}, {ScopeUsers, 1, "scope"}, {ScopeRead, 2, "expires"}} {
		fields := AccessToken{Name: "x", Scope: tt.scope, Expires: now.Add(tt.hours * time.Hour)}.Within(maker)
		if tt.wrong == "" && len(fields) > 0 || tt.wrong != "" && (len(fields) != 1 || fields[0].Field != tt.wrong) {
			t.Errorf("%s for %d hours: %v, want a fault in %q", tt.scope, tt.hours, fields, tt.wrong)
		}
	}
}
