package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

type signInRow struct {
	bun.BaseModel `bun:"table:sign_ins"`
	ID            int64 `bun:",pk,autoincrement"`
	Hash          string
	UserID        int64
	Created       int64
	Seen          int64
	Expires       int64
	Address       string
	Agent         string
}

type tokenRow struct {
	bun.BaseModel `bun:"table:access_tokens"`
	ID            int64 `bun:",pk,autoincrement"`
	Hash          string
	UserID        int64
	Name          string
	Scope         string
	Created       int64
	Expires       int64
	Seen          int64
	MadeWith      int64 // another of them, or 0
}

// ErrLocked says that no password of a user is taken for a while.
var ErrLocked = fmt.Errorf("%w: the user is locked", upkeep.ErrRefused)

// SignIn notes that a user is signed in with a browser, which shows what has this
// hash, if the password that was looked at is still the user's, and what was shown of
// its second factor was not used before. With [ErrLocked] it is refused where the user was
// locked while the password was looked at: of many that are tried at a time, those count
// that were wrong before. Wrong passwords from before are forgotten,
// and so are sign-ins that have expired.
func (u Users) SignIn(ctx context.Context, name, password string, proof Proof, hash string, in upkeep.SignIn) ([]upkeep.Event, error) {
	return u.change(ctx, "signing in", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if row.Locked > nanos(in.Created) {
			return nil, ErrLocked
		}
		if row.Password != password {
			return nil, fmt.Errorf("%w: the password was changed meanwhile", upkeep.ErrRefused)
		}
		if err := prove(ctx, tx, &row, proof); err != nil {
			return nil, err
		}
		return signedIn(ctx, tx, now, row, hash, in, "signed in")
	})
}

// signedIn is what a sign-in has written, whatever it was by.
func signedIn(ctx context.Context, tx bun.Tx, now time.Time, row userRow, hash string, in upkeep.SignIn, what string) ([]upkeep.Event, error) {
	row.Failures, row.Locked = 0, 0
	if _, err := tx.NewUpdate().Model(&row).Column("failures", "locked", "factor_step").WherePK().Exec(ctx); err != nil {
		return nil, err
	}
	if _, err := tx.NewDelete().Model((*signInRow)(nil)).Where("expires <= ?", nanos(now)).Exec(ctx); err != nil {
		return nil, err
	}
	entry := signInRow{Hash: hash, UserID: row.ID, Created: nanos(in.Created), Seen: nanos(in.Created), Expires: nanos(in.Expires),
		Address: clean(in.Address), Agent: clean(in.Agent)}
	if _, err := tx.NewInsert().Model(&entry).Returning("id").Exec(ctx); err != nil {
		return nil, err
	}
	// In the audit log as well: events are only as many as there is room for, and a pool
	// that flaps has the sign-ins among them gone within a day.
	return userChange(ctx, tx, now, "user "+row.Name, row.Name, what, "from "+in.Address, nil, signIns([]signInRow{entry})[0])
}

// Shown is a user who showed something, a browser's or a token.
type Shown struct {
	User  upkeep.User
	ID    int64  // of the sign-in or the token
	Scope string // of a token
	Seen  time.Time
}

// shownRow is what both have.
type shownRow struct {
	ID, Seen            int64
	Scope               string
	Name, Role, Account string
}

func (r shownRow) shown() Shown {
	return Shown{User: upkeep.User{Name: r.Name, Role: r.Role, Account: r.Account}, ID: r.ID, Scope: r.Scope, Seen: instant(r.Seen)}
}

// BySignIn finds who shows what has a hash: a sign-in that has not expired and was
// seen since. [upkeep.ErrNotFound] for nobody.
func (u Users) BySignIn(ctx context.Context, hash string, since time.Time) (Shown, error) {
	var row shownRow
	found, err := notFound(u.store.read.NewSelect().TableExpr("sign_ins AS s").Join("JOIN users AS u ON u.id = s.user_id").
		ColumnExpr("s.id, s.seen, u.name, u.role, u.account").
		Where("s.hash = ?", hash).Where("s.expires > ?", nanos(u.store.now())).Where("s.seen > ?", nanos(since)).Scan(ctx, &row))
	return shown(u.store, row, found, err)
}

// ByToken finds whose token has a hash. [upkeep.ErrNotFound] for nobody's, or one
// that has expired.
func (u Users) ByToken(ctx context.Context, hash string) (Shown, error) {
	var row shownRow
	found, err := notFound(u.store.read.NewSelect().TableExpr("access_tokens AS t").Join("JOIN users AS u ON u.id = t.user_id").
		ColumnExpr("t.id, t.seen, t.scope, u.name, u.role, u.account").
		Where("t.hash = ?", hash).Where("t.expires > ?", nanos(u.store.now())).Scan(ctx, &row))
	return shown(u.store, row, found, err)
}

func shown(s *Store, row shownRow, found bool, err error) (Shown, error) {
	if err == nil && !found {
		return Shown{}, upkeep.ErrNotFound
	}
	return row.shown(), s.explain("looking up who that is", err)
}

// SeeSignIn and SeeToken note that one was shown now.
func (u Users) SeeSignIn(ctx context.Context, id int64) error {
	return u.see(ctx, (*signInRow)(nil), id)
}

// SeeToken notes that a token was shown now.
func (u Users) SeeToken(ctx context.Context, id int64) error {
	return u.see(ctx, (*tokenRow)(nil), id)
}

func (u Users) see(ctx context.Context, model any, id int64) error {
	return u.store.change(ctx, "noting who was seen", func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.NewUpdate().Model(model).Set("seen = ?", nanos(u.store.now())).Where("id = ?", id).Exec(ctx)
		return err
	})
}

// SignIns returns the browsers that a user is signed in with, the newest first.
func (u Users) SignIns(ctx context.Context, name string) ([]upkeep.SignIn, error) {
	var rows []signInRow
	err := u.store.read.NewSelect().Model(&rows).Where("user_id IN (SELECT id FROM users WHERE name = ?)", clean(name)).
		Where("expires > ?", nanos(u.store.now())).Order("id DESC").Limit(500).Scan(ctx)
	if err != nil {
		return nil, u.store.explain("reading sign-ins", err)
	}
	return signIns(rows), nil
}

func signIns(rows []signInRow) []upkeep.SignIn {
	all := make([]upkeep.SignIn, len(rows))
	for i, row := range rows {
		all[i] = upkeep.SignIn{ID: row.ID, Created: instant(row.Created), Seen: instant(row.Seen), Expires: instant(row.Expires), Address: row.Address, Agent: row.Agent}
	}
	return all
}

// SignOut ends one sign-in of a user, or all with id 0. One that has ended already
// is no error.
func (u Users) SignOut(ctx context.Context, who, name string, id int64) ([]upkeep.Event, error) {
	return u.change(ctx, "signing out", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		var before []signInRow
		shown := tx.NewSelect().Model(&before).Where("user_id = ?", row.ID).Order("id")
		if id != 0 {
			shown.Where("id = ?", id)
		}
		if err := shown.Scan(ctx); err != nil {
			return nil, err
		}
		query, what := tx.NewDelete().Model((*signInRow)(nil)).Where("user_id = ?", row.ID), "signed out everywhere"
		if id != 0 {
			query, what = query.Where("id = ?", id), "signed out"
		}
		result, err := query.Exec(ctx)
		if err != nil {
			return nil, err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return nil, err
		}
		return userChange(ctx, tx, now, who, name, what, "", signIns(before), nil)
	})
}

// maxTokens bounds the tokens of one user.
const maxTokens = 100

// AddToken gives a user a token, which has this hash.
func (u Users) AddToken(ctx context.Context, who, name, hash string, token upkeep.AccessToken) (made upkeep.AccessToken, events []upkeep.Event, err error) {
	events, err = u.change(ctx, "making a token", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		if fields := token.Validate(now); len(fields) > 0 {
			return nil, &upkeep.InvalidError{Fields: fields}
		}
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		if _, err := tx.NewDelete().Model((*tokenRow)(nil)).Where("expires <= ?", nanos(now)).Exec(ctx); err != nil {
			return nil, err
		}
		n, err := tx.NewSelect().Model((*tokenRow)(nil)).Where("user_id = ?", row.ID).Count(ctx)
		if err != nil {
			return nil, err
		}
		if n >= maxTokens {
			return nil, fmt.Errorf("%w: user %s has %d tokens, which is the most", upkeep.ErrRefused, name, n)
		}
		if err := withinMaker(ctx, tx, token); err != nil {
			return nil, err
		}
		entry := tokenRow{Hash: hash, UserID: row.ID, Name: token.Name, Scope: token.Scope, Created: nanos(now), Expires: nanos(token.Expires), MadeWith: token.MadeWith}
		if _, err := tx.NewInsert().Model(&entry).Returning("id").Exec(ctx); err != nil {
			return nil, err
		}
		made = token
		made.ID, made.Created = entry.ID, now
		what := fmt.Sprintf("got token %d with scope %s, until %s", entry.ID, token.Scope, token.Expires.UTC().Format(time.DateOnly))
		return userChange(ctx, tx, now, who, name, what, token.Name, nil, made)
	})
	return made, events, err
}

// withinMaker refuses a token that would exceed the one that it is made with. That
// is looked at in the transaction: it may be taken back just now.
func withinMaker(ctx context.Context, tx bun.Tx, token upkeep.AccessToken) error {
	if token.MadeWith == 0 {
		return nil
	}
	var maker tokenRow
	found, err := notFound(tx.NewSelect().Model(&maker).Where("id = ?", token.MadeWith).Scan(ctx))
	if err == nil && !found {
		err = fmt.Errorf("%w: the token that was to make it is good no more", upkeep.ErrRefused)
	}
	if err != nil {
		return err
	}
	if fields := token.Within(maker.token()); len(fields) > 0 {
		return &upkeep.InvalidError{Fields: fields}
	}
	return nil
}

// endTokens takes tokens back, and those that were made with them, whosever they are.
// It returns the first ones.
func endTokens(ctx context.Context, tx bun.Tx, which string, args ...any) (ended []tokenRow, err error) {
	if err := tx.NewSelect().Model(&ended).Where(which, args...).Scan(ctx); err != nil {
		return nil, err
	}
	next := ended
	for len(next) > 0 {
		ids := make([]int64, len(next))
		for i, row := range next {
			ids[i] = row.ID
		}
		if _, err := tx.NewDelete().Model((*tokenRow)(nil)).Where("id IN (?)", bun.List(ids)).Exec(ctx); err != nil {
			return nil, err
		}
		next = nil
		if err := tx.NewSelect().Model(&next).Where("made_with IN (?)", bun.List(ids)).Scan(ctx); err != nil {
			return nil, err
		}
	}
	return ended, nil
}

// Tokens returns the tokens of a user that are good, the newest first.
func (u Users) Tokens(ctx context.Context, name string) ([]upkeep.AccessToken, error) {
	row, err := findUser(ctx, u.store.read, name)
	if err != nil {
		return nil, u.store.explain("reading tokens", err)
	}
	var rows []tokenRow
	if err := u.store.read.NewSelect().Model(&rows).Where("user_id = ?", row.ID).Where("expires > ?", nanos(u.store.now())).Order("id DESC").Scan(ctx); err != nil {
		return nil, u.store.explain("reading tokens", err)
	}
	all := make([]upkeep.AccessToken, len(rows))
	for i, row := range rows {
		all[i] = row.token()
	}
	return all, nil
}

func (r tokenRow) token() upkeep.AccessToken {
	return upkeep.AccessToken{ID: r.ID, Name: r.Name, Scope: r.Scope, Created: instant(r.Created), Expires: instant(r.Expires), Seen: instant(r.Seen), MadeWith: r.MadeWith}
}

// RemoveToken takes a token back, and those that were made with it.
func (u Users) RemoveToken(ctx context.Context, who, name string, id int64) ([]upkeep.Event, error) {
	return u.change(ctx, "taking a token back", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		gone, err := endTokens(ctx, tx, "user_id = ? AND id = ?", row.ID, id)
		if err != nil {
			return nil, err
		}
		if len(gone) == 0 {
			return nil, fmt.Errorf("token %d of user %s: %w", id, name, upkeep.ErrNotFound)
		}
		return userChange(ctx, tx, now, who, name, fmt.Sprintf("token %d taken back", id), gone[0].Name, gone[0].token(), nil)
	})
}
