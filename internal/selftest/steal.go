package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/link/authority"
)

// thief has control's keys and its place on the network. The agent knows no
// better than to connect to it.
type thief struct {
	authority *authority.Authority
	conn      link.Conn
	close     func() error
}

// steal stops control, copies its keys and waits for the agent at its address.
func (s *System) steal(ctx context.Context) (Thief, error) {
	stolen, err := os.MkdirTemp(s.o.Dir, "stolen-")
	if err != nil {
		return nil, err
	}
	stolen = filepath.Join(stolen, "link")
	if err := errors.Join(s.stop("control"), copyTree(filepath.Join(s.Data, "link"), stolen)); err != nil {
		return nil, err
	}
	keys, err := authority.Open(stolen, time.Now)
	if err != nil {
		return nil, err
	}
	conns := make(chan link.Conn)
	gone := make(chan struct{})
	hub := link.NewHub(link.HubOptions{
		Authority: keys, Roster: &anybody{}, Report: func(string, string) {}, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Connected: func(_ string, _ link.Hello, conn link.Conn) {
			select {
			case conns <- conn:
				<-gone
			case <-gone:
			}
		},
	})
	listener, err := net.Listen("tcp4", s.agents)
	if err != nil {
		return nil, err
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- hub.Serve(serving, listener) }()
	t := &thief{authority: keys}
	t.close = func() error {
		close(gone)
		cancel()
		err := errors.Join(<-served, s.serve(context.WithoutCancel(ctx)))
		return errors.Join(err, s.connected(context.WithoutCancel(ctx)))
	}
	select {
	case t.conn = <-conns:
		return t, nil
	case <-time.After(endless):
		return nil, errors.Join(errors.New("the agent does not connect to who has control's keys"), t.close())
	}
}

// Sign implements [Thief].
func (t *thief) Sign(job link.Job) (link.Signed, error) {
	return link.Sign(t.authority.SigningKey(), job)
}

// Send implements [Thief].
func (t *thief) Send(ctx context.Context, orders ...link.Signed) ([]link.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, endless)
	defer cancel()
	outcomes, places := make([]link.Outcome, len(orders)), map[int64]int{}
	for i, order := range orders {
		var claimed struct{ ID int64 }
		_ = json.Unmarshal(order.Body, &claimed) // forged ones say whose they are, too
		places[claimed.ID] = i
	}
	sent := make(chan error, 1)
	go func() { // beside the outcomes: nobody waits for the other then
		var err error
		for i := 0; i < len(orders) && err == nil; i++ {
			err = t.conn.Send(ctx, link.Message{Job: &orders[i]})
		}
		sent <- err
	}()
	for len(places) > 0 {
		message, err := t.conn.Receive(ctx)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("waiting for %d outcomes: %w", len(places), errors.Join(err, <-sent))
		}
		if message.Outcome == nil {
			continue
		}
		if i, waits := places[message.Outcome.ID]; waits {
			outcomes[i] = *message.Outcome
			delete(places, message.Outcome.ID)
		}
	}
	return outcomes, <-sent
}

// Close implements [Thief].
func (t *thief) Close() error { return t.close() }

// anybody is a roster that takes every certificate of the authority.
type anybody struct {
	mu    sync.Mutex
	taken []upkeep.Certificate
}

// Invitation implements [link.Roster], as all that follow.
func (a *anybody) Invitation(context.Context, string) (upkeep.Invitation, error) {
	return upkeep.Invitation{}, upkeep.ErrNotFound
}

// Redeem lets nobody join.
func (a *anybody) Redeem(context.Context, string, upkeep.Certificate) error { return upkeep.ErrRefused }

// AddCertificate renews nothing.
func (a *anybody) AddCertificate(context.Context, string, upkeep.Certificate) error {
	return upkeep.ErrRefused
}

// UseCertificate takes whatever the authority has signed.
func (a *anybody) UseCertificate(_ context.Context, server, serial string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken = append(a.taken, upkeep.Certificate{Server: server, Serial: serial, Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	return nil
}

// Certificates are those that were used.
func (a *anybody) Certificates(context.Context) ([]upkeep.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.taken), nil
}
