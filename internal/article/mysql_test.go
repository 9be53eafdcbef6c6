package article

import (
	"bytes"
	"database/sql"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"upkeep/internal/testkit"
)

// TestMySQL holds that a running MariaDB is read as the dump that it was filled
// from, and as the dump that it makes itself.
func TestMySQL(t *testing.T) {
	testkit.Need(t, "mariadb-dump")
	socket := testkit.MariaDB(t)
	text, err := os.ReadFile("testdata/dump.sql")
	if err != nil {
		t.Fatal(err)
	}
	want, err := ReadDump(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", "root@unix("+socket+")/hosting?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), string(text)); err != nil {
		t.Fatal(err)
	}

	got, err := ReadMySQL(t.Context(), "root@unix("+socket+")/hosting")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the database is read as\n%+v, its dump as\n%+v", got, want)
	}

	program, err := testkit.Find("mariadb-dump")
	if err != nil {
		t.Fatal(err)
	}
	for _, options := range [][]string{nil, {"--complete-insert", "--skip-extended-insert"}, {"--hex-blob", "--compact"}} {
		argv := append([]string{"--no-defaults", "--user=root", "--socket=" + socket}, options...)
		made, err := exec.Command(program, append(argv, "hosting", "virtual_hosts", "upkeep")...).Output()
		if err != nil {
			t.Fatalf("mariadb-dump %v: %v", options, err)
		}
		got, err := ReadDump(bytes.NewReader(made))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("mariadb-dump %v is read as\n%+v, %v; want\n%+v", options, got, err, want)
		}
	}

	for dsn, want := range map[string]string{
		"hosting":                             "cannot be read: write USER:PASSWORD@tcp(HOST:3306)/DATABASE",
		"root@unix(" + socket + ")/elsewhere": "connecting to " + socket,
		"root@unix(" + socket + ")/mysql":     "reading table",
		"root:secret@unix(/nowhere/sock)/x":   "connecting to /nowhere/sock",
	} {
		if _, err := ReadMySQL(t.Context(), dsn); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want %q", dsn, err, want)
		}
	}
}
