package testkit

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // registers the "mysql" driver
)

// MariaDB starts a MariaDB server of the test's own with an empty database
// "hosting", and returns its unix socket. Its user root has no password.
func MariaDB(t testing.TB) (socket string) {
	t.Helper()
	Need(t, "mariadb-install-db", "mariadbd")
	credential, uid, gid, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	// The path of a unix socket is limited to 107 bytes.
	dir, err := os.MkdirTemp("", "upkeep-maria-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // the server is killed before
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	install, err := Find("mariadb-install-db")
	if err != nil {
		t.Fatal(err)
	}
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "sock")
	cmd := exec.Command(install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--datadir="+data)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("running mariadb-install-db: %v\n%s", err, output)
	}
	server := Command{
		// Durability is switched off: these data are thrown away.
		Argv: []string{"mariadbd", "--no-defaults", "--datadir=" + data, "--socket=" + socket, "--pid-file=" + filepath.Join(dir, "pid"),
			"--skip-networking", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=8M"},
		Dir: dir, User: credential,
	}.Start(t)
	db, err := sql.Open("mysql", "root@unix("+socket+")/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for end := time.Now().Add(time.Minute); ; {
		_, err = db.ExecContext(context.Background(), "CREATE DATABASE hosting")
		if err == nil {
			return socket
		}
		if !server.Running() || time.Now().After(end) {
			t.Fatal(fmt.Errorf("waiting for MariaDB: %w\n%s", err, server.Log()))
		}
		<-time.After(50 * time.Millisecond)
	}
}
