// Package rostertest has the suite that every roster of certificates and
// invitations passes, and one in memory for tests of the link.
package rostertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"upkeep"
)

// Memory is a roster in memory.
type Memory struct {
	mu           sync.Mutex
	certificates []upkeep.Certificate
	invitations  map[string]upkeep.Invitation
}

// NewMemory returns an empty roster.
func NewMemory() *Memory { return &Memory{invitations: map[string]upkeep.Invitation{}} }

// Invite lists an invitation; one of the same server that was not used goes.
func (m *Memory) Invite(_ context.Context, invitation upkeep.Invitation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for hash, other := range m.invitations {
		if other.Server == invitation.Server && other.Used.IsZero() {
			delete(m.invitations, hash)
		}
	}
	m.invitations[invitation.Hash] = invitation
	return nil
}

// Revoke takes everything of a server off the list.
func (m *Memory) Revoke(_ context.Context, server string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.certificates = slices.DeleteFunc(m.certificates, func(c upkeep.Certificate) bool { return c.Server == server })
	for hash, invitation := range m.invitations {
		if invitation.Server == server {
			delete(m.invitations, hash)
		}
	}
	return nil
}

// Invitation implements link.Roster.
func (m *Memory) Invitation(_ context.Context, hash string) (upkeep.Invitation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, is := m.invitations[hash]
	if !is {
		return upkeep.Invitation{}, fmt.Errorf("finding an invitation: %w", upkeep.ErrNotFound)
	}
	return found, nil
}

// Redeem implements link.Roster.
func (m *Memory) Redeem(_ context.Context, hash string, certificate upkeep.Certificate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	invitation, is := m.invitations[hash]
	switch {
	case !is:
		return fmt.Errorf("%w: the invitation is gone", upkeep.ErrRefused)
	case !invitation.Used.IsZero():
		return fmt.Errorf("%w: the invitation was used at %s", upkeep.ErrRefused, invitation.Used.Format(time.RFC3339))
	case !certificate.Issued.Before(invitation.Expires):
		return fmt.Errorf("%w: the invitation expired at %s", upkeep.ErrRefused, invitation.Expires.Format(time.RFC3339))
	case invitation.Server != certificate.Server:
		return fmt.Errorf("%w: the invitation is for %s", upkeep.ErrRefused, invitation.Server)
	}
	invitation.Used = certificate.Issued
	m.invitations[hash] = invitation
	m.certificates = append(m.certificates, certificate)
	return nil
}

// AddCertificate implements link.Roster.
func (m *Memory) AddCertificate(_ context.Context, inUse string, certificate upkeep.Certificate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.lists(certificate.Server, inUse) {
		return fmt.Errorf("%w: certificate %s of %s is not on the list", upkeep.ErrRefused, inUse, certificate.Server)
	}
	m.certificates = slices.DeleteFunc(m.certificates, func(c upkeep.Certificate) bool {
		return c.Server == certificate.Server && c.Serial != inUse
	})
	m.certificates = append(m.certificates, certificate)
	return nil
}

func (m *Memory) lists(server, serial string) bool {
	return slices.ContainsFunc(m.certificates, func(c upkeep.Certificate) bool { return c.Server == server && c.Serial == serial })
}

// UseCertificate implements link.Roster.
func (m *Memory) UseCertificate(_ context.Context, server, serial string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.lists(server, serial) {
		return fmt.Errorf("%w: certificate %s of %s is not on the list", upkeep.ErrRefused, serial, server)
	}
	// The list is in the order of issue.
	before := true
	m.certificates = slices.DeleteFunc(m.certificates, func(c upkeep.Certificate) bool {
		if c.Server == server && c.Serial == serial {
			before = false
		}
		return c.Server == server && before
	})
	return nil
}

// Certificates implements link.Roster.
func (m *Memory) Certificates(context.Context) ([]upkeep.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.certificates), nil
}
