package store_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/testkit"
)

// TestMain lets this binary be the process that is killed in mid-write.
func TestMain(m *testing.M) {
	if dsn := os.Getenv("STORE_WRITER"); dsn != "" {
		err := writeForever(dsn)
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForever makes changes of every kind, each of which leaves traces in two
// tables that must agree, and prints the number of each change that is made.
func writeForever(dsn string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, dsn)
	if err != nil {
		return err
	}
	declared, err := s.Objects(ctx)
	if err != nil {
		return err
	}
	n := int64(0)
	if len(declared) > 0 {
		n = declared[0].Generation
	}
	for {
		n++
		z := zone("a.test")
		z.TTL = upkeep.Duration(time.Duration(n) * time.Second)
		text := []byte(fmt.Sprint(n))
		if _, err := s.Apply(ctx, "writer", store.Change{Put: []upkeep.Object{z}, Why: string(text)}); err != nil {
			return err
		}
		if err := s.SaveZone(ctx, "a.test", text, text, 8); err != nil {
			return err
		}
		if err := s.SaveStates(ctx, map[string][]byte{"one": text, "two": text, "three": text}); err != nil {
			return err
		}
		if _, _, err := s.SetOverride(ctx, upkeep.Override{Pool: "web", Member: "*", State: upkeep.AdminUp, Why: string(text)}); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestKill kills the writer at arbitrary instants, again and again. What it had
// said to be done must be there, and nothing by halves.
func TestKill(t *testing.T) {
	t.Parallel()
	const rounds = 12
	onBoth(t, func(t *testing.T, dsn string, _ *sql.DB) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		var promised int64
		for round := range rounds {
			writer := testkit.Command{Argv: []string{self}, Env: append(os.Environ(), "STORE_WRITER="+dsn)}.Start(t)
			enough := promised + int64(round%4) + 1
			testkit.Eventually(t, time.Minute, func() (bool, string) { return lastLine(writer.Log()) >= enough, writer.Log() })
			writer.Kill()
			if strings.Contains(writer.Log(), "error") {
				t.Fatal(writer.Log())
			}
			promised = lastLine(writer.Log())
			checkWhole(t, dsn, promised)
		}
	})
}

// lastLine is the last number in a text whose last line is whole.
func lastLine(log string) (n int64) {
	scanner := bufio.NewScanner(strings.NewReader(log[:strings.LastIndexByte(log, '\n')+1]))
	for scanner.Scan() {
		_, _ = fmt.Sscan(scanner.Text(), &n) // anything else is looked for by the caller
	}
	return n
}

// checkWhole holds that every change up to the promised one is there, that at
// most one more is, and that each is there with all that belongs to it.
func checkWhole(t *testing.T, dsn string, promised int64) {
	t.Helper()
	ctx := context.Background()
	s, err := store.Open(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	declared, err := s.Objects(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := declared[0].Generation
	if n < promised || n > promised+1 {
		t.Errorf("generation %d after %d was promised", n, promised)
	}
	if ttl := declared[0].Object.(upkeep.Zone).TTL; ttl != upkeep.Duration(time.Duration(n)*time.Second) {
		t.Errorf("generation %d has the TTL of %s", n, ttl)
	}
	all, err := s.Events(ctx, store.EventFilter{Kind: upkeep.EventDeclared})
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(all)) != n || all[n-1].Why != fmt.Sprint(n) {
		t.Errorf("%d events of %d changes", len(all), n)
	}
	content, deltas, err := s.LoadZone(ctx, "a.test")
	if err != nil || len(deltas) == 0 || string(deltas[len(deltas)-1]) != string(content) {
		t.Errorf("zone %s with deltas %s, %v", content, deltas, err)
	}
	states, err := s.LoadStates(ctx, "")
	if err != nil || string(states["one"]) != string(states["two"]) || string(states["one"]) != string(states["three"]) {
		t.Errorf("states %s, %v", states, err)
	}
	overrides, err := s.Overrides(ctx)
	if err != nil || len(overrides) > 1 {
		t.Errorf("overrides %v, %v", overrides, err)
	}
	admin, err := s.Events(ctx, store.EventFilter{Kind: upkeep.EventAdmin, Latest: true, Limit: 1})
	if err != nil || len(admin) > 0 && (len(overrides) != 1 || admin[0].Why != overrides[0].Why) {
		t.Errorf("override %v with event %v, %v", overrides, admin, err)
	}
	for name, text := range map[string]string{"zone": string(content), "states": string(states["one"])} {
		if text != fmt.Sprint(promised) && text != fmt.Sprint(promised+1) {
			t.Errorf("%s are of change %s after %d was promised", name, text, promised)
		}
	}
}

// hinted holds that an error says what to do.
func hinted(t *testing.T, err error, words string) {
	t.Helper()
	var hint *upkeep.HintError
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint, words) {
		t.Errorf("error %v has no advice with %q", err, words)
	}
}

func TestDamagedFile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "upkeep.db")
	s, err := store.Open(ctx, "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := s.AddEvents(ctx, upkeep.Event{Why: strings.Repeat("x", 4000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"not a database":     func([]byte) []byte { return []byte(strings.Repeat("not a database\n", 1000)) },
		"cut off":            func(b []byte) []byte { return b[:len(b)/2] },
		"overwritten middle": func(b []byte) []byte { copy(b[len(b)/2:], strings.Repeat("\xff", 20_000)); return b },
		"overwritten schema": func(b []byte) []byte { copy(b[100:], strings.Repeat("\xff", 3000)); return b },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "upkeep.db")
			if err := os.WriteFile(path, damage(append([]byte{}, whole...)), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(ctx, "sqlite:"+path)
			if err == nil {
				_ = s.Close()
				t.Fatal("was opened")
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("error %v does not name the file", err)
			}
			hinted(t, err, "aside")
		})
	}
}

func TestNewerSchema(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string, raw *sql.DB) {
		ctx := context.Background()
		s, err := store.Open(ctx, dsn)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		exec(t, raw, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
		s, err = store.Open(ctx, dsn)
		if err == nil {
			_ = s.Close()
			t.Fatal("was opened")
		}
		if !strings.Contains(err.Error(), "9999") {
			t.Errorf("error %v does not name the version", err)
		}
		hinted(t, err, "newer upkeep")
	})
}

func TestUnusablePlaces(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{"folder": dir, "missing folder": filepath.Join(dir, "none", "x.db")} {
		t.Run(name, func(t *testing.T) {
			s, err := store.Open(context.Background(), "sqlite:"+path)
			if err == nil {
				_ = s.Close()
				t.Fatal("was opened")
			}
			hinted(t, err, "folder")
		})
	}
	for _, dsn := range []string{"", "sqlite", "sqlite:", "mysql://user:secret@host/x", "/path", "postgres://user:secret@127.0.0.1:bad/x"} {
		s, err := store.Open(context.Background(), dsn)
		if err == nil {
			_ = s.Close()
			t.Errorf("%q was opened", dsn)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is shown: %v", err)
		}
	}
}

// mount makes a small file system of the test's own, where only root can.
func mount(t *testing.T, options string) string {
	t.Helper()
	testkit.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		testkit.NeedThat(t, "to mount a tmpfs", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A full disk refuses changes with advice, loses nothing, and is over once there
// is space again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), mount(t, "size=4m")
	s := opener(t, "sqlite:"+filepath.Join(dir, "upkeep.db"))()
	change := store.Change{Put: []upkeep.Object{zone("a.test")}}
	if _, err := s.Apply(ctx, "tester", change); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	file, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(file, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	var failed error
	for range 100 { // the log has some space left
		if _, failed = s.AddEvents(ctx, upkeep.Event{Why: strings.Repeat("x", 4000)}); failed != nil {
			break
		}
	}
	hinted(t, failed, "space")
	before, err := s.Events(ctx, store.EventFilter{})
	if err != nil {
		t.Errorf("reading on a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddEvents(ctx, upkeep.Event{What: "after"}); err != nil {
		t.Errorf("once there is space: %v", err)
	}
	after, err := s.Events(ctx, store.EventFilter{})
	if err != nil || len(after) != len(before)+1 || after[len(after)-1].What != "after" {
		t.Errorf("%d events, then %d, %v", len(before), len(after), err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestReadOnlyFolder(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), mount(t, "size=4m")
	dsn := "sqlite:" + filepath.Join(dir, "upkeep.db")
	s, err := store.Open(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, dsn := range []string{dsn, "sqlite:" + filepath.Join(dir, "new.db")} {
		s, err = store.Open(ctx, dsn)
		if err == nil {
			_ = s.Close()
			t.Fatal("was opened")
		}
		hinted(t, err, "must be able to write")
	}
}

// Another program that keeps the file locked is waited for, then named.
func TestLockedFile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "upkeep.db")
	s := opener(t, "sqlite:"+path)()
	other := rawDB(t, "sqlite", path)
	other.SetMaxOpenConns(1)
	exec(t, other, "BEGIN EXCLUSIVE")
	_, err := s.AddEvents(ctx, upkeep.Event{})
	hinted(t, err, "fuser")
	if _, err := s.Events(ctx, store.EventFilter{}); err != nil {
		t.Errorf("reading beside a writer: %v", err)
	}
	exec(t, other, "ROLLBACK")
	if _, err := s.AddEvents(ctx, upkeep.Event{}); err != nil {
		t.Error(err)
	}
}

// Connections that PostgreSQL cuts are made anew.
func TestPostgresCutsConnections(t *testing.T) {
	t.Parallel()
	ctx, dsn := context.Background(), testkit.Postgres(t)
	s, raw := opener(t, dsn)(), rawDB(t, "pgx", dsn)
	for i := range 3 {
		if _, err := s.AddEvents(ctx, upkeep.Event{}); err != nil {
			t.Fatal(err)
		}
		exec(t, raw, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		// One call may meet the dead connection in mid-way; the next must not.
		if _, err := s.Events(ctx, store.EventFilter{}); err != nil {
			t.Logf("round %d: %v", i, err)
		}
		if all, err := s.Events(ctx, store.EventFilter{}); err != nil || len(all) != i+1 {
			t.Errorf("round %d: %d events, %v", i, len(all), err)
		}
	}
}

func TestPostgresAdvice(t *testing.T) {
	t.Parallel()
	ctx, dsn := context.Background(), testkit.Postgres(t)
	raw := rawDB(t, "pgx", dsn)
	_, place, _ := strings.Cut(dsn, "host=")
	exec(t, raw, "CREATE ROLE weak LOGIN")
	exec(t, raw, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	database, _, _ := strings.Cut(strings.TrimPrefix(dsn, "postgres:///"), "?")
	place, _, _ = strings.Cut(place, "&")
	for address, want := range map[string]string{
		"postgres:///none?user=postgres&host=" + place:                   "createdb",
		"postgres:///" + database + "?user=nobody_here&host=" + place:    "pg_hba.conf",
		"postgres:///" + database + "?user=weak&host=" + place:           "GRANT CREATE",
		"postgres:///" + database + "?host=" + filepath.Join(place, "x"): "--db",
		fmt.Sprintf("postgres://127.0.0.1:%d/x", testkit.FreePort(t)):    "--db",
		dsn + "&default_transaction_read_only=on":                        "read-only",
	} {
		s, err := store.Open(ctx, address)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s was opened", address)
			continue
		}
		hinted(t, err, want)
	}
}
