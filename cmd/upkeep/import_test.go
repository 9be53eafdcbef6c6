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
