package store

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

type certificateRow struct {
	bun.BaseModel `bun:"table:certificates"`
	ID            int64 `bun:",pk,autoincrement"`
	Server        string
	Serial        string
	Issued        int64
	Expires       int64
}

type invitationRow struct {
	bun.BaseModel `bun:"table:invitations"`
	Hash          string `bun:",pk"`
	Server        string
	Expires       int64
	Used          int64
}

func (r invitationRow) invitation() upkeep.Invitation {
	return upkeep.Invitation{Server: r.Server, Hash: r.Hash, Expires: instant(r.Expires), Used: instant(r.Used)}
}

// Roster keeps the certificates of agents that are taken, and the invitations
// that are out. It is what package link asks, and passes its suite.
type Roster struct {
	store *Store
	who   string // makes the changes
}

// Roster is the part of the store that says which agents may connect.
func (s *Store) Roster() Roster { return Roster{s, "upkeep"} }

// By has changes written down as somebody's.
func (r Roster) By(who string) Roster { return Roster{r.store, who} }

// Invite lists an invitation; one of the same server that was not used goes.
func (r Roster) Invite(ctx context.Context, invitation upkeep.Invitation) error {
	return r.store.change(ctx, "keeping an invitation", func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model((*invitationRow)(nil)).Where("server = ?", invitation.Server).Where("used = 0").Exec(ctx); err != nil {
			return err
		}
		row := invitationRow{Hash: invitation.Hash, Server: invitation.Server, Expires: nanos(invitation.Expires), Used: nanos(invitation.Used)}
		if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
			return err
		}
		return addAudit(ctx, tx, r.store.now(), audited{who: r.who, object: "server/" + invitation.Server, what: "a token to join was made", after: joining{invitation.Expires}})
	})
}

// Invitations returns the invitations that are out or were used.
func (r Roster) Invitations(ctx context.Context) ([]upkeep.Invitation, error) {
	var rows []invitationRow
	if err := r.store.read.NewSelect().Model(&rows).Order("server", "expires").Scan(ctx); err != nil {
		return nil, r.store.explain("reading invitations", err)
	}
	all := make([]upkeep.Invitation, len(rows))
	for i, row := range rows {
		all[i] = row.invitation()
	}
	return all, nil
}

// Revoke takes all certificates and invitations of a server off the list.
func (r Roster) Revoke(ctx context.Context, server string) error {
	return r.store.change(ctx, "revoking the certificates of "+server, func(ctx context.Context, tx bun.Tx) error {
		return revoke(ctx, tx, r.store.now(), r.who, server)
	})
}

// joining is what of an invitation is written down.
type joining struct {
	Expires time.Time `json:"expires"`
}

// Revoke does what [Roster.Revoke] does, in the transaction of a change.
func (t Tx) Revoke(ctx context.Context, server string) error {
	return revoke(ctx, t.tx, t.At, t.Who, server)
}

func revoke(ctx context.Context, tx bun.Tx, at time.Time, who, server string) error {
	var gone []certificateRow
	if _, err := tx.NewDelete().Model((*certificateRow)(nil)).Where("server = ?", server).Returning("*").Exec(ctx, &gone); err != nil {
		return err
	}
	result, err := tx.NewDelete().Model((*invitationRow)(nil)).Where("server = ?", server).Exec(ctx)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || len(gone) == 0 && n == 0 {
		return err // there was nothing to revoke
	}
	return addAudit(ctx, tx, at, audited{who: who, object: "server/" + server, what: "its certificates and tokens to join were revoked", before: certificates(gone)})
}

func certificates(rows []certificateRow) []upkeep.Certificate {
	all := make([]upkeep.Certificate, len(rows))
	for i, row := range rows {
		all[i] = upkeep.Certificate{Server: row.Server, Serial: row.Serial, Issued: instant(row.Issued), Expires: instant(row.Expires)}
	}
	return all
}

// Invitation finds an invitation by the hash of its token, used or not.
func (r Roster) Invitation(ctx context.Context, hash string) (upkeep.Invitation, error) {
	invitation, err := selectInvitation(ctx, r.store.read, hash)
	return invitation, r.store.explain("finding an invitation", err)
}

func selectInvitation(ctx context.Context, db bun.IDB, hash string) (upkeep.Invitation, error) {
	row := invitationRow{Hash: clean(hash)}
	found, err := notFound(db.NewSelect().Model(&row).WherePK().Scan(ctx))
	if err == nil && !found {
		err = upkeep.ErrNotFound
	}
	return row.invitation(), err
}

// Redeem uses an invitation up and lists the certificate of who came with it.
func (r Roster) Redeem(ctx context.Context, hash string, certificate upkeep.Certificate) error {
	return r.store.change(ctx, "using an invitation up", func(ctx context.Context, tx bun.Tx) error {
		invitation, err := selectInvitation(ctx, tx, hash)
		switch {
		case err != nil:
			return fmt.Errorf("%w: the invitation is gone", upkeep.ErrRefused)
		case !invitation.Used.IsZero():
			return fmt.Errorf("%w: the invitation was used at %s", upkeep.ErrRefused, invitation.Used.Format(time.RFC3339))
		case !certificate.Issued.Before(invitation.Expires):
			return fmt.Errorf("%w: the invitation expired at %s", upkeep.ErrRefused, invitation.Expires.Format(time.RFC3339))
		case invitation.Server != certificate.Server:
			return fmt.Errorf("%w: the invitation is for %s", upkeep.ErrRefused, invitation.Server)
		}
		_, err = tx.NewUpdate().Model((*invitationRow)(nil)).Set("used = ?", nanos(certificate.Issued)).Where("hash = ?", hash).Exec(ctx)
		if err != nil {
			return err
		}
		if err := listCertificate(ctx, tx, certificate); err != nil {
			return err
		}
		return addAudit(ctx, tx, r.store.now(), audited{who: "agent of " + certificate.Server, object: "server/" + certificate.Server, what: "joined", after: certificate})
	})
}

func listCertificate(ctx context.Context, tx bun.Tx, c upkeep.Certificate) error {
	row := certificateRow{Server: clean(c.Server), Serial: clean(c.Serial), Issued: nanos(c.Issued), Expires: nanos(c.Expires)}
	_, err := tx.NewInsert().Model(&row).Exec(ctx)
	return err
}

// AddCertificate lists a certificate beside the one in use; any third one of the
// server goes.
func (r Roster) AddCertificate(ctx context.Context, inUse string, certificate upkeep.Certificate) error {
	return r.store.change(ctx, "listing a certificate", func(ctx context.Context, tx bun.Tx) error {
		if _, err := listed(ctx, tx, certificate.Server, inUse); err != nil {
			return err
		}
		_, err := tx.NewDelete().Model((*certificateRow)(nil)).Where("server = ?", certificate.Server).Where("serial <> ?", inUse).Exec(ctx)
		if err != nil {
			return err
		}
		return listCertificate(ctx, tx, certificate)
	})
}

// UseCertificate refuses a certificate that is not on the list; else it takes
// those of the same server off it that were issued before.
func (r Roster) UseCertificate(ctx context.Context, server, serial string) error {
	return r.store.change(ctx, "looking a certificate up", func(ctx context.Context, tx bun.Tx) error {
		row, err := listed(ctx, tx, server, serial)
		if err != nil {
			return err
		}
		_, err = tx.NewDelete().Model((*certificateRow)(nil)).Where("server = ?", server).Where("id < ?", row.ID).Exec(ctx)
		return err
	})
}

// listed finds a certificate on the list, or refuses it.
func listed(ctx context.Context, db bun.IDB, server, serial string) (certificateRow, error) {
	var row certificateRow
	found, err := notFound(db.NewSelect().Model(&row).Where("server = ?", clean(server)).Where("serial = ?", clean(serial)).Scan(ctx))
	if err == nil && !found {
		err = fmt.Errorf("%w: certificate %s of %s is not on the list", upkeep.ErrRefused, serial, server)
	}
	return row, err
}

// Certificates is the whole list, in the order of issue.
func (r Roster) Certificates(ctx context.Context) ([]upkeep.Certificate, error) {
	var rows []certificateRow
	if err := r.store.read.NewSelect().Model(&rows).Order("id").Scan(ctx); err != nil {
		return nil, r.store.explain("reading certificates", err)
	}
	return certificates(rows), nil
}
