package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"upkeep/internal/link"
)

// RunFront is the unprivileged process of an agent that [Run] has started: it
// holds the link to control, with the identity and the socket to root that it
// was given, until root or the context ends.
func RunFront(ctx context.Context, version string, log *slog.Logger) error {
	if err := confined(); err != nil {
		return fmt.Errorf("starting the front: %w", err)
	}
	// Other processes of the same user could read the key from memory otherwise.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("starting the front: %w", err)
	}
	identity, err := passedIdentity()
	if err != nil {
		return err
	}
	socket := os.NewFile(frontSocket, "root")
	conn, err := net.FileConn(socket)
	if err = errors.Join(err, socket.Close()); err != nil {
		return fmt.Errorf("starting the front: %w", err)
	}
	worker := newRemote(conn)
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(errors.Join(errRootGone, worker.read())) }()
	dial(ctx, worker, identity, worker.renew, version, log)
	_ = conn.Close() // ends the reader
	return context.Cause(ctx)
}

// confined refuses to be a front with any power: it is started by root only, and
// a mistake there must not go unnoticed.
func confined() error {
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	data := [2]unix.CapUserData{}
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return err
	}
	switch {
	case os.Getuid() == 0 || os.Geteuid() == 0 || os.Getgid() == 0 || os.Getegid() == 0:
		return errors.New("it runs as root or in root's group")
	case len(groups) > 1 || len(groups) == 1 && groups[0] != os.Getgid():
		return fmt.Errorf("it is in further groups: %v", groups)
	case data[0].Permitted|data[1].Permitted|data[0].Effective|data[1].Effective != 0:
		return errors.New("it has capabilities")
	case nnp != 1:
		return errors.New("it could gain privileges: no_new_privs is not set")
	}
	return nil
}

// passedIdentity reads the identity from its pipe.
func passedIdentity() (link.Identity, error) {
	pipe := os.NewFile(frontIdentity, "identity")
	text, err := io.ReadAll(io.LimitReader(pipe, maxIdentity+1))
	if err = errors.Join(err, pipe.Close()); err != nil {
		return link.Identity{}, fmt.Errorf("reading the identity from root: %w", err)
	}
	return link.ParseIdentity(text)
}
