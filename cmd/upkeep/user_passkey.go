package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func newUserPasskey(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "passkey",
		Short: "Passkeys that a user signs in with in place of a password",
		Long: `Passkeys that a user signs in with in place of a password. Users add them on the
page of their own name, in the browser of the device that is to have them.`,
		Args: cobra.ArbitraryArgs,
		RunE: verbsOnly,
	}
	c.AddCommand(newPasskeyList(a), newPasskeyRemove(a))
	return c
}

func newPasskeyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list NAME",
		Short: "List the passkeys of a user",
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			keys, err := up.Passkeys(c.Context(), args[0])
			if err != nil {
				return err
			}
			if a.output != "table" {
				return a.show(keys)
			}
			if len(keys) == 0 {
				fmt.Fprintf(a.err, "%s has no passkey; the page of one's own name adds them\n", args[0])
				return nil
			}
			now := time.Now()
			t := newTable("PASSKEY", "NAME", "FOR", "SYNCED", "ADDED", "USED")
			for _, k := range keys {
				t.add(strconv.FormatInt(k.ID, 10), k.Name, k.Host, yesNo(k.Synced), k.Created.Local().Format(time.DateOnly), ago(k.Seen, now))
			}
			return t.write(a.out)
		},
	}
}

func newPasskeyRemove(a *app) *cobra.Command {
	all := false
	c := &cobra.Command{
		Use:     "remove NAME {PASSKEY | --all}",
		Short:   "Remove a passkey of a user, by its number in the list; sign-ins stay",
		Example: "  upkeep user passkey remove ada 3\n  upkeep user signout ada          # where she is signed in with the device that is lost",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			id := int64(0)
			switch {
			case all == (len(args) == 2):
				return &usageError{err: errors.New("which passkey to remove has to be said by a number, or by --all"), hint: "upkeep user passkey list " + args[0] + " shows them"}
			case !all:
				var err error
				if id, err = strconv.ParseInt(args[1], 10, 64); err != nil || id < 1 {
					return &usageError{err: fmt.Errorf("%q is no number of a passkey", args[1]), hint: "upkeep user passkey list " + args[0] + " shows them"}
				}
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			return up.RemovePasskey(c.Context(), args[0], id)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "remove all passkeys of the user")
	return c
}
