package testkit

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the "pgx" driver
)

// Postgres returns the address of a fresh, empty database of a real PostgreSQL
// server, as postgres://... The server is started once per test binary, on a
// unix socket in a folder of its own, and vanishes with the test binary.
func Postgres(t testing.TB) string {
	t.Helper()
	Need(t, "initdb", "postgres")
	server, err := postgresOnce()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("test%d", server.last.Add(1))
	server.admin(t, "CREATE DATABASE "+name)
	t.Cleanup(func() { server.admin(t, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	return server.dsn(name)
}

// NewPostgres starts a PostgreSQL server of the test's own, which the test may
// stop and start.
func NewPostgres(t testing.TB) *PostgresServer {
	t.Helper()
	Need(t, "initdb", "postgres")
	server, err := startPostgres()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if server.process.Running() {
			server.Thaw(t)
			server.Stop(t)
		}
		if t.Failed() {
			t.Logf("output of PostgreSQL:\n%s", server.process.Log())
		}
		if err := os.RemoveAll(server.dir); err != nil {
			t.Error(err)
		}
	})
	return server
}

// LaunchPostgres is [NewPostgres] for what is no test.
func LaunchPostgres() (server *PostgresServer, stop func(), err error) {
	if server, err = startPostgres(); err != nil {
		return nil, nil, err
	}
	return server, func() {
		server.process.Kill()
		_ = os.RemoveAll(server.dir) // nothing of value is in it
	}, nil
}

// PostgresServer is a running PostgreSQL.
type PostgresServer struct {
	dir     string
	user    *syscall.Credential
	process *Process
	alive   *os.File     // of a server for all tests: closed by the kernel when this process ends
	last    atomic.Int64 // number of the last database made
}

var postgresOnce = sync.OnceValues(func() (*PostgresServer, error) {
	server, err := startPostgres()
	if err != nil {
		return nil, err
	}
	server.alive, err = removeAfter(server.dir, server.process.PID())
	return server, err
})

// DSN is the address of the server's database "postgres".
func (s *PostgresServer) DSN() string { return s.dsn("postgres") }

// Freeze stops every process of the server where it is: connections stay open,
// new ones are taken by the kernel, and nothing is answered.
func (s *PostgresServer) Freeze(t testing.TB) { s.signalAll(t, syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *PostgresServer) Thaw(t testing.TB) { s.signalAll(t, syscall.SIGCONT) }

// Stop ends the server at once, as a crash would, and waits until it is gone.
func (s *PostgresServer) Stop(t testing.TB) {
	t.Helper()
	s.process.Signal(t, syscall.SIGQUIT) // "immediate shutdown"; a killed postmaster would leave its children
	<-s.process.Done()
}

// Start starts a server that was stopped, on the same data.
func (s *PostgresServer) Start(t testing.TB) {
	t.Helper()
	if err := s.serve(); err != nil {
		t.Fatal(err)
	}
}

// signalAll signals the server and its children, which are process groups of
// their own. The parent comes first: it then makes no more of them.
func (s *PostgresServer) signalAll(t testing.TB, signal syscall.Signal) {
	t.Helper()
	s.process.Signal(t, signal)
	children, err := childrenOf(s.process.PID())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, signal); err != nil && err != syscall.ESRCH {
			t.Fatalf("sending %s to %d: %v", signal, pid, err)
		}
	}
}

// childrenOf finds the children of a process by the fourth field of their stat
// files (proc(5)).
func childrenOf(parent int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name before it stands in parentheses and may hold anything.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				return nil, err
			}
			children = append(children, pid)
		}
	}
	return children, nil
}

func (s *PostgresServer) dsn(database string) string {
	return fmt.Sprintf("postgres:///%s?host=%s&user=postgres", database, s.dir)
}

func (s *PostgresServer) admin(t testing.TB, statement string) {
	t.Helper()
	db, err := sql.Open("pgx", s.dsn("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }() // nothing to lose
	if _, err := db.ExecContext(context.Background(), statement); err != nil {
		t.Errorf("%s: %v", statement, err)
	}
}

// startPostgres makes a database cluster and serves it. PostgreSQL refuses to
// run as root, so for root it runs as the user postgres, or nobody.
func startPostgres() (*PostgresServer, error) {
	credential, uid, gid, err := unprivileged()
	if err != nil {
		return nil, err
	}
	// The path of a unix socket is limited to 107 bytes, which rules out the
	// long names that testing.T.TempDir makes.
	dir, err := os.MkdirTemp("", "upkeep-pg-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for PostgreSQL: %w", err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return nil, fmt.Errorf("giving away %s: %w", dir, err)
	}
	initdb, err := Find("initdb")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	cmd := exec.Command(initdb, "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D", data)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	if output, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("running initdb: %w\n%s", err, output)
	}
	server := &PostgresServer{dir: dir, user: credential}
	return server, server.serve()
}

// serve starts the server on its data.
func (s *PostgresServer) serve() (err error) {
	s.process, err = Command{
		// Durability is switched off: these data are thrown away.
		Argv: []string{"postgres", "-D", filepath.Join(s.dir, "data"), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off",
			"-c", "full_page_writes=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB"},
		Dir: s.dir, User: s.user,
	}.Launch()
	if err != nil {
		return err
	}
	return s.await(s.process)
}

// await waits until the server takes connections.
func (s *PostgresServer) await(process *Process) error {
	db, err := sql.Open("pgx", s.dsn("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for end := time.Now().Add(60 * time.Second); ; {
		err = db.PingContext(context.Background())
		if err == nil {
			return nil
		}
		if !process.Running() || time.Now().After(end) {
			return fmt.Errorf("waiting for PostgreSQL: %w\n%s", err, process.Log())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// unprivileged picks the user that PostgreSQL runs as; a nil credential means
// the caller itself.
func unprivileged() (credential *syscall.Credential, uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return nil, os.Getuid(), os.Getgid(), nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		entry, lookupErr := user.Lookup(name)
		if lookupErr != nil {
			err = lookupErr
			continue
		}
		u, errU := strconv.ParseUint(entry.Uid, 10, 31)
		g, errG := strconv.ParseUint(entry.Gid, 10, 31)
		if errU == nil && errG == nil {
			return &syscall.Credential{Uid: uint32(u), Gid: uint32(g)}, int(u), int(g), nil
		}
	}
	return nil, 0, 0, fmt.Errorf("finding a user for PostgreSQL to run as: %w", err)
}

// removeAfter has a shell remove dir once this test binary is gone: the shell
// reads from a pipe whose other end only this process holds. A server shared by
// all tests of a binary has no test at whose end it could be removed.
// It returns that end, which must stay referenced lest a finalizer close it.
func removeAfter(dir string, pid int) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	cmd := exec.Command("/bin/sh", "-c", `read -r _; kill -9 "$1" 2>/dev/null; n=0
while [ $n -lt 10 ]; do rm -rf -- "$2" 2>/dev/null && exit; n=$((n + 1)); sleep 0.2; done`, "sh", strconv.Itoa(pid), dir)
	cmd.Stdin = read
	// Not in our session: an interrupt typed at the terminal must not reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = read.Close()
	if err != nil {
		return nil, fmt.Errorf("starting the remover of %s: %w", dir, err)
	}
	return write, cmd.Process.Release() // it ends after us
}
