package link

import (
	"context"

	"upkeep"
)

// Roster is the list of the certificates that are taken, and of the invitations
// that are out. It decides who may connect: a certificate that is valid but not on
// it is refused, so taking it off is all that revocation is. Package rostertest
// has the suite that every implementation passes.
//
// Errors that are [upkeep.ErrRefused] or [upkeep.ErrNotFound] are answers; all others mean
// that nobody knows, and agents come back later.
type Roster interface {
	// Invitation finds an invitation by the hash of its token, used or not.
	Invitation(ctx context.Context, hash string) (upkeep.Invitation, error)
	// Redeem uses an invitation up and lists the certificate of who came with it, in
	// one transaction. It refuses an invitation that is gone, has expired by
	// certificate.Issued or was used, or whose server is not certificate.Server.
	// Certificates that the server has stay, until the new one is used.
	Redeem(ctx context.Context, hash string, certificate upkeep.Certificate) error
	// AddCertificate lists a certificate beside the one in use, which it refuses to do
	// when that is not on the list. Any third one of the server goes, so that there are
	// two at the most.
	AddCertificate(ctx context.Context, inUse string, certificate upkeep.Certificate) error
	// UseCertificate refuses a certificate that is not on the list; else it takes those
	// of the same server off it that were issued before.
	UseCertificate(ctx context.Context, server, serial string) error
	// Certificates is the whole list.
	Certificates(ctx context.Context) ([]upkeep.Certificate, error)
}
