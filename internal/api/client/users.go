package client

import (
	"context"
	"strconv"

	"upkeep"
	"upkeep/internal/api/wire"
)

// Users returns who may sign in.
func (c *Client) Users(ctx context.Context) ([]upkeep.User, error) {
	return pages(ctx, c, request{method: "GET", path: []string{"users"}}, 0, func(answer struct{ Users []upkeep.User }) []upkeep.User { return answer.Users })
}

// AddUser lets somebody sign in.
func (c *Client) AddUser(ctx context.Context, user wire.NewUser) error {
	return c.do(ctx, request{method: "POST", path: []string{"users"}, body: user}, nil)
}

// RemoveUser removes a user, its sign-ins, passkeys and tokens.
func (c *Client) RemoveUser(ctx context.Context, name string) error {
	return c.do(ctx, request{method: "DELETE", path: []string{"users", name}}, nil)
}

// SetPassword gives a user a new password.
func (c *Client) SetPassword(ctx context.Context, name, password string) error {
	return c.do(ctx, request{method: "PUT", path: []string{"users", name, "password"}, body: wire.Password{Password: password}}, nil)
}

// RemoveFactor takes a second factor that was lost away.
func (c *Client) RemoveFactor(ctx context.Context, name string) error {
	return c.do(ctx, request{method: "DELETE", path: []string{"users", name, "factor"}}, nil)
}

// Passkeys returns the passkeys of a user.
func (c *Client) Passkeys(ctx context.Context, user string) ([]upkeep.Passkey, error) {
	var answer struct{ Passkeys []upkeep.Passkey }
	err := c.do(ctx, request{method: "GET", path: []string{"users", user, "passkeys"}}, &answer)
	return answer.Passkeys, err
}

// RemovePasskey removes a passkey of a user, or all with id 0.
func (c *Client) RemovePasskey(ctx context.Context, user string, id int64) error {
	path := []string{"users", user, "passkeys"}
	if id != 0 {
		path = append(path, strconv.FormatInt(id, 10))
	}
	return c.do(ctx, request{method: "DELETE", path: path}, nil)
}

// SignUserOut signs a user out everywhere.
func (c *Client) SignUserOut(ctx context.Context, name string) error {
	return c.do(ctx, request{method: "POST", path: []string{"users", name, "signout"}}, nil)
}

// Tokens returns the tokens of a user.
func (c *Client) Tokens(ctx context.Context, user string) ([]upkeep.AccessToken, error) {
	var answer struct{ Tokens []upkeep.AccessToken }
	err := c.do(ctx, request{method: "GET", path: []string{"users", user, "tokens"}}, &answer)
	return answer.Tokens, err
}

// AddToken makes a token of a user.
func (c *Client) AddToken(ctx context.Context, user string, token wire.NewToken) (made wire.MadeToken, err error) {
	err = c.do(ctx, request{method: "POST", path: []string{"users", user, "tokens"}, body: token}, &made)
	return made, err
}

// RemoveToken takes a token back.
func (c *Client) RemoveToken(ctx context.Context, user string, id int64) error {
	return c.do(ctx, request{method: "DELETE", path: []string{"users", user, "tokens", strconv.FormatInt(id, 10)}}, nil)
}
