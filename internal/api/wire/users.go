package wire

import (
	"time"

	"upkeep"
)

// NewUser lets somebody sign in.
type NewUser struct {
	Name string `json:"name" maxLength:"63" example:"eve"`
	Role string `json:"role" enum:"staff,customer" example:"customer"`
	// Account is whose things a customer sees and changes; staff has none.
	Account string `json:"account,omitempty" maxLength:"63" example:"acme"`
	// Password has 10 characters at least.
	Password string `json:"password" maxLength:"1024" example:"correct horse battery"`
}

// Password is a new one.
type Password struct {
	Password string `json:"password" maxLength:"1024" example:"correct horse battery"`
}

// NewToken asks for a token.
type NewToken struct {
	// Name says what it is for.
	Name string `json:"name" maxLength:"100" example:"nightly backup"`
	// Scope is at most that of the token that asks for it. Users is to write and to
	// say who may sign in.
	Scope string `json:"scope" enum:"read,write,users"`
	// Expires is 400 days away at the most, and not after the token ends that asks
	// for it.
	Expires time.Time `json:"expires"`
}

// MadeToken is a token with what a program shows. That is told this once; only its
// hash is kept.
type MadeToken struct {
	upkeep.AccessToken
	Token string `json:"token"`
}
