package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"upkeep"
	"upkeep/internal/api/wire"
)

func newUser(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "user",
		Short: "Users who may sign in to the pages, and tokens for programs",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(newUserAdd(a), newUserList(a), newUserPasswd(a), newUserNofactor(a), newUserSignout(a), newUserRemove(a), newUserPasskey(a), newUserToken(a))
	return c
}

const passwordHelp = "The password is asked for, or read from the first line of the input."

func newUserAdd(a *app) *cobra.Command {
	user := wire.NewUser{}
	c := &cobra.Command{
		Use:   "add NAME --role ROLE [--account ACCOUNT]",
		Short: "Let somebody sign in",
		Long: `Let somebody sign in: staff, who see and do everything, or a customer, who sees
and changes what belongs to an account. ` + passwordHelp,
		Example: "  upkeep user add ada --role staff\n  upkeep user add eve@acme.example --role customer --account acme",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			user.Name = args[0]
			if user.Role != "" && !slices.Contains(upkeep.UserRoles, user.Role) {
				return &usageError{err: fmt.Errorf("--role %q must be %s", user.Role, strings.Join(upkeep.UserRoles, " or "))}
			}
			if user.Password, err = a.password(user.Name); err != nil {
				return err
			}
			if err := up.AddUser(c.Context(), user); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "user %s can sign in\n", user.Name)
			return nil
		},
	}
	c.Flags().StringVar(&user.Role, "role", "", "what the user is: `staff` or customer")
	c.Flags().StringVar(&user.Account, "account", "", "the `account` of a customer")
	return c
}

// password asks for a new password twice on a terminal, and reads it from the
// first line of anything else.
func (a *app) password(name string) (string, error) {
	file, is := a.in.(*os.File)
	if !is || !term.IsTerminal(int(file.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(a.in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(a.err, prompt)
		text, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(a.err)
		return string(text), err
	}
	first, err := ask("Password for " + upkeep.Printable(name) + ": ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	second, err := ask("Once more: ")
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	if first != second {
		return "", &usageError{err: errors.New("the two are not the same")}
	}
	return first, nil
}

func newUserList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List users, and with how many browsers each is signed in",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			users, err := up.Users(c.Context())
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(users)
			}
			if len(users) == 0 {
				fmt.Fprintln(a.err, "there is no user; upkeep user add NAME --role staff adds one")
				return nil
			}
			now := time.Now()
			t := newTable("USER", "ROLE", "ACCOUNT", "2ND FACTOR", "PASSKEYS", "SIGNED IN", "SINCE", "LOCKED")
			for _, u := range users {
				locked := ""
				if u.Locked.After(now) {
					locked = "for " + short(u.Locked.Sub(now))
				}
				t.add(u.Name, u.Role, u.Account, yesNo(u.Factor), strconv.Itoa(u.Passkeys), strconv.Itoa(u.SignIns), u.Created.Local().Format(time.DateOnly), locked)
			}
			return t.write(a.out)
		},
	}
}

func newUserPasswd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "passwd NAME",
		Short: "Give a user a new password, lift a lock, and sign it out everywhere",
		Long:  passwordHelp,
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			password, err := a.password(args[0])
			if err != nil {
				return err
			}
			return up.SetPassword(c.Context(), args[0], password)
		},
	}
}

func newUserNofactor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "nofactor NAME",
		Short: "Take the second factor away from a user who has lost it",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			return up.RemoveFactor(c.Context(), args[0])
		},
	}
}

func newUserSignout(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "signout NAME",
		Short: "Sign a user out everywhere; tokens stay",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			return up.SignUserOut(c.Context(), args[0])
		},
	}
}

func newUserRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a user, with its sign-ins, passkeys and tokens; what it declared stays",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			return up.RemoveUser(c.Context(), args[0])
		},
	}
}

func newUserToken(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Tokens with which programs do what a user may",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(newTokenAdd(a), newTokenList(a), newTokenRemove(a))
	return c
}

func newTokenAdd(a *app) *cobra.Command {
	token, days := wire.NewToken{}, 0
	c := &cobra.Command{
		Use:   "add NAME --for TEXT [--scope read|write|users] [--days N]",
		Short: "Make a token of a user, and print it this once",
		Long: `Make a token of a user, and print it this once. With scope users it may also make
users, set passwords, and take second factors and passkeys away: what it makes so
outlives it. Made with a token (--token), one ends with that token at the latest,
and may do no more.`,
		Example: "  upkeep user token add ada --for 'nightly backup' --days 365\n  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8053/api/v1/sites",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			token.Expires = time.Now().AddDate(0, 0, days)
			made, err := up.AddToken(c.Context(), args[0], token)
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(made)
			}
			fmt.Fprintln(a.err, "This is the token. It is not shown again.")
			fmt.Fprintln(a.out, made.Token)
			return nil
		},
	}
	c.Flags().StringVar(&token.Name, "for", "", "what it is for, as a `text` for people")
	c.Flags().StringVar(&token.Scope, "scope", upkeep.ScopeRead, "what it may be used for: `read`, write, or users, which is to write and to manage users")
	c.Flags().IntVar(&days, "days", 90, "for how many `days` it is good, at most 400")
	return c
}

func newTokenList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list NAME",
		Short: "List the tokens of a user that are good",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			tokens, err := up.Tokens(c.Context(), args[0])
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(tokens)
			}
			now := time.Now()
			t := newTable("TOKEN", "FOR", "SCOPE", "UNTIL", "USED", "MADE WITH")
			for _, token := range tokens {
				maker := ""
				if token.MadeWith != 0 {
					maker = "token " + strconv.FormatInt(token.MadeWith, 10)
				}
				t.add(strconv.FormatInt(token.ID, 10), token.Name, token.Scope, token.Expires.Local().Format(time.DateOnly), ago(token.Seen, now), maker)
			}
			return t.write(a.out)
		},
	}
}

func newTokenRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME TOKEN",
		Short: "Revoke a token of a user, and those made with it, by its number in the list",
		Args:  exactly("NAME", "TOKEN"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil || id < 1 {
				return &usageError{err: fmt.Errorf("%q is no number of a token", args[1]), hint: "upkeep user token list " + args[0] + " shows them"}
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			return up.RemoveToken(c.Context(), args[0], id)
		},
	}
}
