package store

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

type passkeyRow struct {
	bun.BaseModel `bun:"table:passkeys"`
	ID            int64 `bun:",pk,autoincrement"`
	UserID        int64
	Credential    string
	PublicKey     []byte
	Host          string
	Name          string
	Created       int64
	Seen          int64
	SignCount     int64
	Synced        bool
}

func (r passkeyRow) passkey() upkeep.Passkey {
	return upkeep.Passkey{ID: r.ID, Name: r.Name, Host: r.Host, Created: instant(r.Created), Seen: instant(r.Seen), Synced: r.Synced}
}

// Key is a passkey with what proves it.
type Key struct {
	upkeep.Passkey
	Credential []byte // what the device calls it
	Public     []byte // as a COSE_Key
	// Count is how often the device says that it was used; 0 where it does not count.
	Count uint32
}

func (r passkeyRow) key() Key {
	credential, _ := base64.RawURLEncoding.DecodeString(r.Credential) // what is none is nobody's
	return Key{Passkey: r.passkey(), Credential: credential, Public: r.PublicKey, Count: uint32(r.SignCount)}
}

// credentialText is how a credential is kept: both databases compare texts alike.
func credentialText(credential []byte) string {
	return base64.RawURLEncoding.EncodeToString(credential)
}

// Holder is whose a passkey is.
type Holder struct {
	User   string
	Handle string // what devices know the user by
	Key    Key
}

// ByPasskey finds whose a credential is; [upkeep.ErrNotFound] for nobody's.
func (u Users) ByPasskey(ctx context.Context, credential []byte) (Holder, error) {
	var key passkeyRow
	found, err := notFound(u.store.read.NewSelect().Model(&key).Where("credential = ?", credentialText(credential)).Scan(ctx))
	if err != nil || !found {
		return Holder{}, u.store.explain("looking a passkey up", orNotFound(err))
	}
	var row userRow
	found, err = notFound(u.store.read.NewSelect().Model(&row).Where("id = ?", key.UserID).Scan(ctx))
	if err != nil || !found {
		return Holder{}, u.store.explain("looking up whose a passkey is", orNotFound(err))
	}
	return Holder{User: row.Name, Handle: row.Handle, Key: key.key()}, nil
}

func orNotFound(err error) error {
	if err == nil {
		return upkeep.ErrNotFound
	}
	return err
}

// Passkeys returns the passkeys of a user, the newest first.
func (u Users) Passkeys(ctx context.Context, name string) ([]Key, error) {
	row, err := findUser(ctx, u.store.read, name)
	if err != nil {
		return nil, u.store.explain("reading passkeys", err)
	}
	var rows []passkeyRow
	if err := u.store.read.NewSelect().Model(&rows).Where("user_id = ?", row.ID).Order("id DESC").Scan(ctx); err != nil {
		return nil, u.store.explain("reading passkeys", err)
	}
	keys := make([]Key, len(rows))
	for i, row := range rows {
		keys[i] = row.key()
	}
	return keys, nil
}

// MaxPasskeys bounds those of one user.
const MaxPasskeys = 20

// AddPasskey gives a user a passkey. The handle is what its device knows the user
// by: that of the passkeys that are there, if there are.
func (u Users) AddPasskey(ctx context.Context, who, name, handle string, key Key) (made upkeep.Passkey, events []upkeep.Event, err error) {
	events, err = u.change(ctx, "adding a passkey", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		if fields := key.Validate(); len(fields) > 0 {
			return nil, &upkeep.InvalidError{Fields: fields}
		}
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		switch {
		case row.Handle == "":
			row.Handle = handle
			if _, err := tx.NewUpdate().Model(&row).Column("handle").WherePK().Exec(ctx); err != nil {
				return nil, err
			}
		case row.Handle != handle: // two were added at once, of which the device knows the wrong one
			return nil, upkeep.WithHint(fmt.Errorf("%w: another passkey was added meanwhile", upkeep.ErrConflict), "add this one again")
		}
		n, err := tx.NewSelect().Model((*passkeyRow)(nil)).Where("user_id = ?", row.ID).Count(ctx)
		if err != nil {
			return nil, err
		}
		if n >= MaxPasskeys {
			return nil, upkeep.WithHint(fmt.Errorf("%w: user %s has %d passkeys, which is the most", upkeep.ErrRefused, name, n), "remove one that is not used any more")
		}
		taken, err := tx.NewSelect().Model((*passkeyRow)(nil)).Where("credential = ?", credentialText(key.Credential)).Count(ctx)
		if err != nil {
			return nil, err
		}
		if taken > 0 {
			return nil, fmt.Errorf("this passkey is known already: %w", upkeep.ErrConflict)
		}
		entry := passkeyRow{UserID: row.ID, Credential: credentialText(key.Credential), PublicKey: key.Public, Host: key.Host, Name: key.Name,
			Created: nanos(now), SignCount: int64(key.Count), Synced: key.Synced}
		if _, err := tx.NewInsert().Model(&entry).Returning("id").Exec(ctx); err != nil {
			return nil, err
		}
		made = entry.passkey()
		return userChange(ctx, tx, now, who, name, fmt.Sprintf("passkey %d added", entry.ID), entry.Name, nil, made)
	})
	return made, events, err
}

// RemovePasskey removes a passkey of a user, or all with id 0.
func (u Users) RemovePasskey(ctx context.Context, who, name string, id int64) ([]upkeep.Event, error) {
	return u.change(ctx, "removing a passkey", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		row, err := findUser(ctx, tx, name)
		if err != nil {
			return nil, err
		}
		query := tx.NewDelete().Model((*passkeyRow)(nil)).Where("user_id = ?", row.ID)
		if id != 0 {
			query.Where("id = ?", id)
		}
		var gone []passkeyRow
		if _, err := query.Returning("*").Exec(ctx, &gone); err != nil {
			return nil, err
		}
		switch {
		case len(gone) == 0 && id != 0:
			return nil, upkeep.WithHint(fmt.Errorf("passkey %d of user %s: %w", id, name, upkeep.ErrNotFound), "upkeep user passkey list "+name+" shows them")
		case len(gone) == 0:
			return nil, nil
		}
		var events []upkeep.Event
		for _, one := range gone {
			told, err := userChange(ctx, tx, now, who, name, fmt.Sprintf("passkey %d removed", one.ID), one.Name, one.passkey(), nil)
			if err != nil {
				return nil, err
			}
			events = append(events, told...)
		}
		return events, nil
	})
}

// SignInByPasskey is [Users.SignIn] for a passkey that was proven, whose device says
// that it was used so often. A count that does not rise is refused and told of: two
// devices may have the key (Web Authentication, section 6.1.1). Where it was 0 and is
// 0 the device does not count, as those do not that share their keys.
func (u Users) SignInByPasskey(ctx context.Context, id int64, count uint32, hash string, in upkeep.SignIn) ([]upkeep.Event, error) {
	var refused error
	events, err := u.change(ctx, "signing in by a passkey", func(ctx context.Context, tx bun.Tx, now time.Time) ([]upkeep.Event, error) {
		var key passkeyRow
		found, err := notFound(tx.NewSelect().Model(&key).Where("id = ?", id).Scan(ctx))
		if err != nil || !found {
			return nil, orNotFound(err)
		}
		var row userRow
		found, err = notFound(tx.NewSelect().Model(&row).Where("id = ?", key.UserID).Scan(ctx))
		if err != nil || !found {
			return nil, orNotFound(err)
		}
		if (count != 0 || key.SignCount != 0) && int64(count) <= key.SignCount {
			refused = fmt.Errorf("%w: the counter of passkey %d did not rise", upkeep.ErrRefused, id)
			return addEvents(ctx, tx, []upkeep.Event{{At: now, Kind: upkeep.EventWarning, Who: "upkeep", Object: "user/" + row.Name,
				What: fmt.Sprintf("passkey %d may have been copied, and was refused", id),
				Why:  fmt.Sprintf("%s: its counter says %d after %d, from %s; remove it unless that is explained", key.Name, count, key.SignCount, in.Address)}})
		}
		if _, err := tx.NewUpdate().Model((*passkeyRow)(nil)).Set("sign_count = ?", int64(count)).Set("seen = ?", nanos(now)).Where("id = ?", id).Exec(ctx); err != nil {
			return nil, err
		}
		return signedIn(ctx, tx, now, row, hash, in, fmt.Sprintf("signed in by passkey %d", id))
	})
	if err == nil {
		err = refused
	}
	return events, err
}
