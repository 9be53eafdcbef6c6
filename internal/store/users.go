package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

type userRow struct {
	bun.BaseModel `bun:"table:users"`
	ID            int64 `bun:",pk,autoincrement"`
	Name          string
	Role          string
	Account       string
	Password      string
	Created       int64
	Failures      int
	Locked        int64
	Factor        string
	FactorStep    int64
	Handle        string
}

// Users keeps who may sign in, the browsers that they are signed in with and the
// tokens that were given to programs. It is kept apart from what is declared, and
// knows passwords and tokens by their hashes only, and passkeys by their public keys.
type Users struct{ store *Store }

// Users is the part of the store that knows who may sign in.
func (s *Store) Users() Users { return Users{s} }

// userEvent is what happened to a user. It names no secret.
func userEvent(ctx context.Context, tx bun.Tx, at time.Time, who, user, what, why string) ([]upkeep.Event, error) {
	return addEvents(ctx, tx, []upkeep.Event{{At: at, Kind: upkeep.EventAdmin, Who: who, Object: "user/" + user, What: what, Why: why}})
}

// userChange is what somebody changed of a user: an event, and an entry of the audit
// log.
func userChange(ctx context.Context, tx bun.Tx, at time.Time, who, user, what, why string, before, after any) ([]upkeep.Event, error) {
	if err := addAudit(ctx, tx, at, audited{who, "user/" + user, what, why, before, after}); err != nil {
		return nil, err
	}
	return userEvent(ctx, tx, at, who, user, what, why)
}

func (r userRow) user() upkeep.User {
	return upkeep.User{Name: r.Name, Role: r.Role, Account: r.Account, Created: instant(r.Created), Factor: r.Factor != ""}
}

// change is one change, with its events as they were stored.
func (u Users) change(ctx context.Context, doing string, f func(context.Context, bun.Tx, time.Time) ([]upkeep.Event, error)) (events []upkeep.Event, err error) {
	err = u.store.change(ctx, doing, func(ctx context.Context, tx bun.Tx) (err error) {
		events, err = f(ctx, tx, instant(nanos(u.store.now())))
		return err
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

// Any reports whether there is a user.
func (u Users) Any(ctx context.Context) (bool, error) {
	n, err := u.store.read.NewSelect().Model((*userRow)(nil)).Limit(1).Count(ctx)
	return n > 0, u.store.explain("looking for users", err)
}

// Add adds a user, whose password is given as a hash. With first it is refused
// when there is one already.
func (u Users) Add(ctx context.Context, who string, user upkeep.User, hash string, first bool) ([]upkeep.Event, error) {
	if fields := user.Validate(); len(fields) > 0 {
		return nil, &upkeep.InvalidError{Fields: fields}
	}
	return u.change(ctx, "adding a user", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		var rows []userRow
		if err := tx.NewSelect().Model(&rows).Where("? OR name = ?", first, user.Name).Limit(1).Scan(ctx); err != nil {
			return nil, err
		}
		switch {
		case len(rows) > 0 && first:
			return nil, fmt.Errorf("%w: there are users already", upkeep.ErrRefused)
		case len(rows) > 0:
			return nil, upkeep.WithHint(fmt.Errorf("user %s exists: %w", user.Name, upkeep.ErrConflict), "upkeep user list shows all")
		}
		as := "added as " + user.Role
		if user.Account != "" {
			n, err := tx.NewSelect().Model((*objectRow)(nil)).Where("kind = ?", upkeep.KindAccount).Where("name = ?", user.Account).Where("NOT deleted").Count(ctx)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				return nil, &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "account", Value: user.Account, Rule: "must be a declared account; none of that name exists"}}}
			}
			as += " of account " + user.Account
		}
		row := userRow{Name: user.Name, Role: user.Role, Account: user.Account, Password: hash, Created: nanos(now)}
		if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
			return nil, err
		}
		return userChange(ctx, tx, now, who, user.Name, as, "", nil, row.user())
	})
}

// List returns all users, by name.
func (u Users) List(ctx context.Context) ([]upkeep.User, error) {
	var rows []struct {
		Name, Role, Account string
		Created, Locked     int64
		SignIns, Passkeys   int
		Factor              string
	}
	err := u.store.read.NewSelect().TableExpr("users AS u").ColumnExpr("u.name, u.role, u.account, u.created, u.locked, u.factor").
		ColumnExpr("(SELECT COUNT(*) FROM sign_ins AS s WHERE s.user_id = u.id AND s.expires > ?) AS sign_ins", nanos(u.store.now())).
		ColumnExpr("(SELECT COUNT(*) FROM passkeys AS k WHERE k.user_id = u.id) AS passkeys").
		OrderExpr("u.name").Scan(ctx, &rows)
	if err != nil {
		return nil, u.store.explain("reading users", err)
	}
	users := make([]upkeep.User, len(rows))
	for i, row := range rows {
		users[i] = upkeep.User{Name: row.Name, Role: row.Role, Account: row.Account, Created: instant(row.Created), Locked: instant(row.Locked), SignIns: row.SignIns, Factor: row.Factor != "", Passkeys: row.Passkeys}
	}
	return users, nil
}

// find returns a user's row, or [upkeep.ErrNotFound].
func findUser(ctx context.Context, db bun.IDB, name string) (userRow, error) {
	var row userRow
	found, err := notFound(db.NewSelect().Model(&row).Where("name = ?", clean(name)).Scan(ctx))
	if err == nil && !found {
		err = upkeep.WithHint(fmt.Errorf("user %s: %w", upkeep.Printable(name), upkeep.ErrNotFound), "upkeep user list shows all")
	}
	return row, err
}

// Credentials are what a user is known by.
type Credentials struct {
	Password string    // its hash
	Locked   time.Time // until when it is not to be looked at
	// Factor is the secret of the second factor, empty for none; Step the last one
	// whose code was used.
	Factor string
	Step   int64
	// Handle is what devices know the user by, empty before the first passkey.
	Handle string
}

// Credentials returns what a user is known by; [upkeep.ErrNotFound] without such a
// user.
func (u Users) Credentials(ctx context.Context, name string) (Credentials, error) {
	row, err := findUser(ctx, u.store.read, name)
	return Credentials{row.Password, instant(row.Locked), row.Factor, row.FactorStep, row.Handle}, u.store.explain("looking a user up", err)
}

type spareRow struct {
	bun.BaseModel `bun:"table:spare_codes"`
	UserID        int64  `bun:",pk"`
	Hash          string `bun:",pk"`
}

// SetFactor gives a user a second factor, or takes it away with an empty secret. The
// step is that of the code by which it was proven, spare the hashes of codes for
// when it is lost.
func (u Users) SetFactor(ctx context.Context, who, name, secret string, step int64, spare []string) ([]upkeep.Event, error) {
	return u.change(ctx, "setting a second factor", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		before := row.user()
		row.Factor, row.FactorStep = secret, step
		if _, err := tx.NewUpdate().Model(&row).Column("factor", "factor_step").WherePK().Exec(ctx); err != nil {
			return nil, err
		}
		if _, err := tx.NewDelete().Model((*spareRow)(nil)).Where("user_id = ?", row.ID).Exec(ctx); err != nil {
			return nil, err
		}
		what := "second factor turned off"
		if secret != "" {
			what = "second factor turned on"
		}
		for _, hash := range spare {
			if _, err := tx.NewInsert().Model(&spareRow{UserID: row.ID, Hash: hash}).Exec(ctx); err != nil {
				return nil, err
			}
		}
		return userChange(ctx, tx, now, who, name, what, "", before, row.user())
	})
}

// Proof is what was shown of a second factor: the step of time of a code, or the
// hash of a spare one.
type Proof struct {
	Step  int64
	Spare string
}

// errProof stands for a code that was used before, or is none.
var errProof = fmt.Errorf("%w: the code was used already, or is wrong", upkeep.ErrRefused)

// prove uses a proof up, in the transaction of the sign-in: of two at a time, one
// fails.
func prove(ctx context.Context, tx bun.Tx, row *userRow, p Proof) error {
	switch {
	case row.Factor == "":
		return nil
	case p.Spare != "":
		result, err := tx.NewDelete().Model((*spareRow)(nil)).Where("user_id = ?", row.ID).Where("hash = ?", p.Spare).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, errProof)
		}
		return nil
	case p.Step <= row.FactorStep:
		return errProof
	}
	row.FactorStep = p.Step
	return nil
}

// Failed counts a wrong password. wait says for how long no password is looked at
// after so many.
func (u Users) Failed(ctx context.Context, name, from string, wait func(failures int) time.Duration) ([]upkeep.Event, error) {
	return u.change(ctx, "counting a wrong password", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		row.Failures++
		pause := wait(row.Failures)
		if row.Locked = 0; pause > 0 {
			row.Locked = nanos(now.Add(pause))
		}
		if _, err := tx.NewUpdate().Model(&row).Column("failures", "locked").WherePK().Exec(ctx); err != nil || pause == 0 {
			return nil, err
		}
		return userEvent(ctx, tx, now, "upkeep", name, fmt.Sprintf("cannot sign in for %s", pause), fmt.Sprintf("%d wrong passwords, the last from %s", row.Failures, from))
	})
}

// SetPassword sets a user's password by its hash. Browsers have to sign in again.
func (u Users) SetPassword(ctx context.Context, who, name, hash string) ([]upkeep.Event, error) {
	return u.change(ctx, "setting a password", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		row.Password, row.Failures, row.Locked = hash, 0, 0
		if _, err := tx.NewUpdate().Model(&row).Column("password", "failures", "locked").WherePK().Exec(ctx); err != nil {
			return nil, err
		}
		if _, err := tx.NewDelete().Model((*signInRow)(nil)).Where("user_id = ?", row.ID).Exec(ctx); err != nil {
			return nil, err
		}
		return userChange(ctx, tx, now, who, name, "got a new password", "", nil, nil) // which are secret
	})
}

// Remove removes a user, who is signed out everywhere, and whose tokens and passkeys
// are good no more.
func (u Users) Remove(ctx context.Context, who, name string) ([]upkeep.Event, error) {
	return u.change(ctx, "removing a user", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if err := removeUsers(ctx, tx, []userRow{row}); err != nil {
			return nil, err
		}
		return userChange(ctx, tx, now, who, name, "removed", "", row.user(), nil)
	})
}

func removeUsers(ctx context.Context, tx bun.Tx, rows []userRow) error {
	for _, row := range rows {
		if _, err := endTokens(ctx, tx, "user_id = ?", row.ID); err != nil {
			return err
		}
		for _, of := range []any{(*signInRow)(nil), (*spareRow)(nil), (*passkeyRow)(nil)} {
			if _, err := tx.NewDelete().Model(of).Where("user_id = ?", row.ID).Exec(ctx); err != nil {
				return err
			}
		}
		if _, err := tx.NewDelete().Model(&row).WherePK().Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// removeUsersOf removes the users of an account that is deleted: one that is
// declared under the same name later is not theirs.
func removeUsersOf(ctx context.Context, tx bun.Tx, at time.Time, who, account string) error {
	var rows []userRow
	if err := tx.NewSelect().Model(&rows).Where("account = ?", account).Order("name").Scan(ctx); err != nil {
		return err
	}
	gone := make([]audited, len(rows))
	for i, row := range rows {
		gone[i] = audited{who: who, object: "user/" + row.Name, what: "removed", why: "account " + account + " was deleted", before: row.user()}
	}
	if err := addAudit(ctx, tx, at, gone...); err != nil {
		return err
	}
	return removeUsers(ctx, tx, rows)
}
