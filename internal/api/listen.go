package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"upkeep"
)

// SocketName is the control socket's name in the data folder.
const SocketName = "control.sock"

// maxConnections bounds what strangers can hold open at the TCP side, each at
// the price of a few tens of kilobytes.
const maxConnections = 2048

// ListenControl makes the control socket at path, for its owner and root only.
// A socket that a dead process left behind is replaced; one that is answered
// is not.
func ListenControl(path string) (net.Listener, error) {
	if err := removeDead(path); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	// The mode is right from the first moment on only by way of the umask, which
	// belongs to the whole process; the peer's credentials are checked anyway.
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return listener, nil
}

// removeDead removes a socket that nobody answers, and nothing else.
func removeDead(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("something that is no socket is in its place: %w", upkeep.ErrConflict)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another upkeep listens there: %w", upkeep.ErrConflict)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// Serve answers on listener until ctx ends, then gives running requests a
// moment to finish.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		ConnContext:       WithPeer,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends event streams
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err := server.Shutdown(grace)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		stopped <- err
	})
	if listener.Addr().Network() != "unix" { // a limited connection hides its peer
		listener = netutil.LimitListener(listener, maxConnections)
	}
	err := server.Serve(listener)
	if stop() { // ctx has not ended: Serve failed by itself
		return err
	}
	return <-stopped
}
