package main

import (
	"bytes"
	"database/sql"
	"os"
	"strings"
	"testing"

	"upkeep/internal/testkit"
)

// TestImportOfARunningDatabase holds that --mysql shows what --dump shows of the
// same tables.
func TestImportOfARunningDatabase(t *testing.T) {
	const dump = "../../internal/article/testdata/dump.sql"
	socket := testkit.MariaDB(t)
	text, err := os.ReadFile(dump)
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
	shown := func(args ...string) (string, string) {
		var out, failures bytes.Buffer
		args = append([]string{"import", "article", "--server", "web1"}, args...)
		if status := run(args, strings.NewReader(""), &out, &failures); status != 0 {
			t.Fatalf("%v: status %d\n%s", args, status, failures.String())
		}
		return out.String(), failures.String()
	}
	documents, notes := shown("--dump", dump)
	for _, want := range []string{"name: example.test", "subof: example.test", "# job mkdir "} {
		if !strings.Contains(documents, want) {
			t.Errorf("no %q in\n%s", want, documents)
		}
	}
	fromDatabase, itsNotes := shown("--mysql", "root@unix("+socket+")/hosting")
	if fromDatabase != documents || itsNotes != notes {
		t.Errorf("--mysql shows\n%s%s--dump\n%s%s", fromDatabase, itsNotes, documents, notes)
	}
}

// TestImportOfUsersOfOneAccount holds that users whose names differ in a dot alone are
// not made one account, and that --account says what they become.
func TestImportOfUsersOfOneAccount(t *testing.T) {
	const dump = "INSERT INTO virtual_hosts (id, user, server, subof) VALUES (1, 'c3.imp', 'one.test', 0), (2, 'c3imp', 'two.test', 0);"
	try := func(args ...string) (int, string, string) {
		var out, failures bytes.Buffer
		status := run(append([]string{"import", "article", "--server", "web1", "--dump", "-"}, args...), strings.NewReader(dump), &out, &failures)
		return status, out.String(), failures.String()
	}
	if status, out, failures := try(); status == 0 || out != "" || !strings.Contains(failures, `"c3.imp", "c3imp"`) || !strings.Contains(failures, "--account USER=NAME") {
		t.Errorf("status %d\n%s%s", status, out, failures)
	}
	if status, out, failures := try("--account", "c3.imp=other"); status != 0 || !strings.Contains(out, "account: other") || !strings.Contains(out, "account: c3imp") {
		t.Errorf("status %d\n%s%s", status, out, failures)
	}
	for _, bad := range []string{"c3.imp", "=other", "nobody=other", "c3.imp=Not a name"} {
		if status, out, _ := try("--account", bad); status == 0 || out != "" {
			t.Errorf("--account %s: status %d\n%s", bad, status, out)
		}
	}
}
