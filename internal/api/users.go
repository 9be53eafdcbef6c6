package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api/wire"
)

// Users are who may sign in, and the tokens of their programs.
type Users interface {
	List(ctx context.Context) ([]upkeep.User, error)
	Add(ctx context.Context, who string, user upkeep.User, password string) error
	Remove(ctx context.Context, who, name string) error
	// SetPassword ends the sign-ins of the user, too.
	SetPassword(ctx context.Context, who, name, password string) error
	// SignOut ends one sign-in, or all with id 0.
	SignOut(ctx context.Context, who, name string, id int64) error
	Factors
	Tokens
}

// Factors are what users sign in by beside a password, or in place of it.
type Factors interface {
	// RemoveFactor is for who has lost the second factor.
	RemoveFactor(ctx context.Context, who, name string) error
	Passkeys(ctx context.Context, name string) ([]upkeep.Passkey, error)
	// RemovePasskey removes one passkey, or all with id 0.
	RemovePasskey(ctx context.Context, who, name string, id int64) error
}

// Tokens let programs do what their users may.
type Tokens interface {
	Tokens(ctx context.Context, name string) ([]upkeep.AccessToken, error)
	// AddToken returns the secret, which is not kept.
	AddToken(ctx context.Context, who, name string, token upkeep.AccessToken) (made upkeep.AccessToken, secret string, err error)
	RemoveToken(ctx context.Context, who, name string, id int64) error
}

// UserInput names a user.
type UserInput struct {
	Name string `path:"name" maxLength:"63" example:"ada" doc:"The name that the user signs in by."`
}

// TokenInput names a token of a user.
type TokenInput struct {
	UserInput
	ID int64 `path:"id" minimum:"1" example:"2" doc:"The number of the token."`
}

// PasskeyInput names a passkey of a user.
type PasskeyInput struct {
	UserInput
	ID int64 `path:"id" minimum:"1" example:"2" doc:"The number of the passkey."`
}

type newUserInput struct{ Body wire.NewUser }

type passwordInput struct {
	UserInput
	Body wire.Password
}

type newTokenInput struct {
	UserInput
	Body wire.NewToken
}

type usersOutput struct {
	Next string `header:"Link" doc:"The next page, if there is one, with rel=next."`
	Body struct {
		Users []upkeep.User `json:"users" nullable:"false"`
	}
}

type tokensOutput struct {
	Body struct {
		Tokens []upkeep.AccessToken `json:"tokens" nullable:"false"`
	}
}

type passkeysOutput struct {
	Body struct {
		Passkeys []upkeep.Passkey `json:"passkeys" nullable:"false"`
	}
}

type newTokenOutput struct{ Body wire.MadeToken }

func (a *API) userRoutes(h huma.API) {
	huma.Register(h, secured(huma.Operation{OperationID: "list-users", Method: http.MethodGet, Path: "/api/v1/users",
		Summary: "Who may sign in"}), func(ctx context.Context, in *NamesInput) (*usersOutput, error) {
		users, err := a.o.Users.List(ctx)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &usersOutput{}
		out.Body.Users, out.Next = part(in, users, func(u upkeep.User) string { return u.Name })
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "add-user", Method: http.MethodPost, Path: "/api/v1/users",
		Summary: "Let somebody sign in", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *newUserInput) (*struct{}, error) {
		user := upkeep.User{Name: in.Body.Name, Role: in.Body.Role, Account: in.Body.Account}
		return nil, a.done(ctx, a.o.Users.Add(ctx, callerOf(ctx).Who, user, in.Body.Password))
	})
	huma.Register(h, secured(huma.Operation{OperationID: "remove-user", Method: http.MethodDelete, Path: "/api/v1/users/{name}",
		Summary: "Remove a user, its sign-ins, passkeys and tokens", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *UserInput) (*struct{}, error) {
		return nil, a.done(ctx, a.o.Users.Remove(ctx, callerOf(ctx).Who, in.Name))
	})
	huma.Register(h, secured(huma.Operation{OperationID: "set-password", Method: http.MethodPut, Path: "/api/v1/users/{name}/password",
		Summary: "Give a user a new password, and sign it out everywhere", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *passwordInput) (*struct{}, error) {
		return nil, a.done(ctx, a.o.Users.SetPassword(ctx, callerOf(ctx).Who, in.Name, in.Body.Password))
	})
	huma.Register(h, secured(huma.Operation{OperationID: "remove-factor", Method: http.MethodDelete, Path: "/api/v1/users/{name}/factor",
		Summary: "Take a second factor that was lost away", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *UserInput) (*struct{}, error) {
		return nil, a.done(ctx, a.o.Users.RemoveFactor(ctx, callerOf(ctx).Who, in.Name))
	})
	huma.Register(h, secured(huma.Operation{OperationID: "sign-user-out", Method: http.MethodPost, Path: "/api/v1/users/{name}/signout",
		Summary: "Sign a user out everywhere", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *UserInput) (*struct{}, error) {
		return nil, a.done(ctx, a.o.Users.SignOut(ctx, callerOf(ctx).Who, in.Name, 0))
	})
	a.passkeyRoutes(h)
	a.tokenRoutes(h)
}

// passkeyRoutes have none that adds one: that is for who has the device, in a browser.
func (a *API) passkeyRoutes(h huma.API) {
	const at = "/api/v1/users/{name}/passkeys"
	huma.Register(h, secured(huma.Operation{OperationID: "list-passkeys", Method: http.MethodGet, Path: at,
		Summary: "Passkeys that a user signs in with"}), func(ctx context.Context, in *UserInput) (*passkeysOutput, error) {
		keys, err := a.o.Users.Passkeys(ctx, in.Name)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &passkeysOutput{}
		out.Body.Passkeys = append([]upkeep.Passkey{}, keys...)
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "remove-passkeys", Method: http.MethodDelete, Path: at,
		Summary: "Remove all passkeys of a user", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *UserInput) (*struct{}, error) {
		return nil, a.done(ctx, a.o.Users.RemovePasskey(ctx, callerOf(ctx).Who, in.Name, 0))
	})
	huma.Register(h, secured(huma.Operation{OperationID: "remove-passkey", Method: http.MethodDelete, Path: at + "/{id}",
		Summary: "Remove a passkey of a user, whose device is lost", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *PasskeyInput) (*struct{}, error) {
		return nil, a.done(ctx, a.o.Users.RemovePasskey(ctx, callerOf(ctx).Who, in.Name, in.ID))
	})
}

func (a *API) tokenRoutes(h huma.API) {
	const at = "/api/v1/users/{name}/tokens"
	huma.Register(h, secured(huma.Operation{OperationID: "list-tokens", Method: http.MethodGet, Path: at,
		Summary: "Tokens of a user that are good"}), func(ctx context.Context, in *UserInput) (*tokensOutput, error) {
		tokens, err := a.o.Users.Tokens(ctx, in.Name)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &tokensOutput{}
		out.Body.Tokens = append([]upkeep.AccessToken{}, tokens...)
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "add-token", Method: http.MethodPost, Path: at,
		Summary: "Make a token with which a program does what the user may; it is shown this once", DefaultStatus: http.StatusCreated}), func(ctx context.Context, in *newTokenInput) (*newTokenOutput, error) {
		made, err := a.addToken(ctx, in.Name, in.Body)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &newTokenOutput{made}, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "remove-token", Method: http.MethodDelete, Path: at + "/{id}",
		Summary: "Take a token back, and those that were made with it", DefaultStatus: http.StatusNoContent}), func(ctx context.Context, in *TokenInput) (*struct{}, error) {
		err := access.CheckToken(callerOf(ctx), in.Name)
		if err == nil {
			err = a.o.Users.RemoveToken(ctx, callerOf(ctx).Who, in.Name, in.ID)
		}
		return nil, a.done(ctx, err)
	})
}

// addToken makes a token, which ends with the one that asks for it.
func (a *API) addToken(ctx context.Context, user string, wanted wire.NewToken) (wire.MadeToken, error) {
	caller := callerOf(ctx)
	if err := access.CheckToken(caller, user); err != nil {
		return wire.MadeToken{}, err
	}
	made, secret, err := a.o.Users.AddToken(ctx, caller.Who, user,
		upkeep.AccessToken{Name: wanted.Name, Scope: wanted.Scope, Expires: wanted.Expires, MadeWith: caller.Token})
	return wire.MadeToken{AccessToken: made, Token: secret}, err
}

// done is the answer where there is nothing to tell but that it was done.
func (a *API) done(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return a.problem(ctx, err)
}
