package upkeep

import (
	"slices"
	"strings"
	"time"

	"upkeep/internal/lazy"
)

// What users are to upkeep.
const (
	UserStaff    = "staff"    // sees and does everything
	UserCustomer = "customer" // sees and changes what belongs to its account
)

// UserRoles lists what users can be.
var UserRoles = []string{UserStaff, UserCustomer}

// User is a person who signs in, or a program that shows a token of one. Users
// are kept apart from what is declared: documents hold no passwords.
type User struct {
	Name string `json:"name"`
	Role string `json:"role"`
	// Account is whose things a customer sees; several users may have one.
	Account string    `json:"account,omitempty"`
	Created time.Time `json:"created"`
	// Locked is until when signing in is refused, after too many wrong passwords.
	Locked time.Time `json:"locked,omitzero"`
	// SignIns are how many browsers the user is signed in with.
	SignIns int `json:"sign_ins"`
	// Factor says that a code of an app is asked for beside the password.
	Factor bool `json:"second_factor"`
	// Passkeys are how many the user can sign in with, in place of both.
	Passkeys int `json:"passkeys"`
}

// SignIn is one browser that a user is signed in with.
type SignIn struct {
	ID      int64     `json:"id"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"` // within a minute or so
	Expires time.Time `json:"expires"`
	// Address is where it was signed in from, Agent what the browser calls itself.
	Address string `json:"address"`
	Agent   string `json:"agent"`
}

// Passkey is one that a user signs in with. What is kept of it is the public key;
// the private one is in a device of the user, or with a program that keeps it.
type Passkey struct {
	ID   int64  `json:"id"`
	Name string `json:"name"` // by which the user tells it from others
	// Host is the name of upkeep that it is for: browsers show it to no other.
	Host    string    `json:"host"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen,omitzero"` // when it was last signed in with
	// Synced says that it may be on several devices of the user, or in a backup.
	Synced bool `json:"synced"`
}

// What a token may be used for.
const (
	ScopeRead  = "read"
	ScopeWrite = "write" // and to read
	// ScopeUsers is to write, and to say who may sign in: users, their passwords and
	// second factors outlive the token that they were made with.
	ScopeUsers = "users"
)

// Scopes lists what tokens may be used for; each has those before it in it.
var Scopes = []string{ScopeRead, ScopeWrite, ScopeUsers}

// AccessToken lets a program do what its user may.
type AccessToken struct {
	ID      int64     `json:"id"`
	Name    string    `json:"name"` // what it is for
	Scope   string    `json:"scope"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Seen    time.Time `json:"seen,omitzero"` // when it was last shown, within a minute or so
	// MadeWith is the token that it was made with, and ends with; 0 for one that was
	// made in another way.
	MadeWith int64 `json:"made_with,omitempty"`
}

// signInName is what people sign in with: a name or a mail address, in lower case so
// that no two are told apart by capitals alone.
var signInName = lazy.Regexp(`^[a-z0-9][a-z0-9._@+-]{0,61}[a-z0-9]$`)

// Validate checks what can be checked without the database.
func (u User) Validate() []FieldError {
	var r rules
	if !signInName().MatchString(u.Name) {
		r.add("name", u.Name, "must be 2 to 63 lower-case letters, digits and any of . _ @ + - in between, such as a mail address")
	}
	switch {
	case u.Role != UserStaff && u.Role != UserCustomer:
		r.add("role", u.Role, "must be one of %s", strings.Join(UserRoles, ", "))
	case u.Role == UserStaff && u.Account != "":
		r.add("account", u.Account, "is for customers; staff sees every account")
	case u.Role == UserCustomer && u.Account == "":
		r.add("account", nil, "is required of a customer: whose sites it sees")
	case u.Role == UserCustomer:
		r.account("account", u.Account)
	}
	return r.fields
}

// Validate checks what a user says of a passkey.
func (k Passkey) Validate() []FieldError {
	var r rules
	if k.Name == "" || len(k.Name) > 100 || hasControl(k.Name) {
		r.add("name", k.Name, "must say which device or program has the passkey, in at most 100 bytes of one line")
	}
	return r.fields
}

// LongestToken is how long a token may be good for.
const LongestToken = 400 * 24 * time.Hour

// Validate checks a token that is to be made at a time.
func (t AccessToken) Validate(now time.Time) []FieldError {
	var r rules
	if t.Name == "" || len(t.Name) > 100 || hasControl(t.Name) {
		r.add("name", t.Name, "must say what the token is for, in at most 100 bytes of one line")
	}
	if !slices.Contains(Scopes, t.Scope) {
		r.add("scope", t.Scope, "must be one of %s", strings.Join(Scopes, ", "))
	}
	if !t.Expires.After(now) || t.Expires.After(now.Add(LongestToken)) {
		r.add("expires", t.Expires.Format(time.RFC3339), "must be a time to come, at most %d days away", int(LongestToken.Hours()/24))
	}
	return r.fields
}

// Within checks a token against the one that it is made with: it may do no more, and
// for no longer.
func (t AccessToken) Within(maker AccessToken) []FieldError {
	var r rules
	if slices.Index(Scopes, t.Scope) > slices.Index(Scopes, maker.Scope) {
		r.add("scope", t.Scope, "must not be wider than that of the token that it is made with, which may %s", maker.Scope)
	}
	if t.Expires.After(maker.Expires) {
		r.add("expires", t.Expires.UTC().Format(time.RFC3339), "must not be after the token ends that it is made with, at %s", maker.Expires.UTC().Format(time.RFC3339))
	}
	return r.fields
}
