package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"upkeep"
)

func image(t *testing.T) (string, *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.img")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return path, file
}

func TestEntry(t *testing.T) {
	path, file := image(t)
	want := Entry{Verb: "grow", At: time.Date(2026, 11, 26, 1, 2, 3, 4, time.UTC), From: 1 << 20, To: 2 << 20, FSFrom: 1 << 20, Type: "xfs"}
	if err := Begin(path, file, want); err != nil {
		t.Fatal(err)
	}
	got, found, err := Read(path, file)
	want.Version, want.PID, want.Device, want.Inode = got.Version, os.Getpid(), got.Device, got.Inode
	if err != nil || !found || got != want || got.Inode == 0 {
		t.Errorf("read is %+v, %v, %v; want %+v", got, found, err, want)
	}
	if err := Begin(path, file, want); err == nil {
		t.Error("a second thing was begun before the first had ended")
	}
	if got, _, err := Read(path, file); err != nil || got != want {
		t.Errorf("after that the entry is %+v, %v", got, err)
	}
	if err := End(path); err != nil {
		t.Fatal(err)
	}
	if _, found, err := Read(path, file); found || err != nil {
		t.Errorf("after its end it is %v, %v", found, err)
	}
}

// TestEntryOfAnother has an entry beside an image that took the place of its own.
func TestEntryOfAnother(t *testing.T) {
	path, file := image(t)
	if err := Begin(path, file, Entry{Verb: "grow", To: 1}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	other, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, _, err := Read(path, other); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("the entry of another image: %v", err)
	}
}

func TestWhatIsNoEntry(t *testing.T) {
	path, file := image(t)
	for _, text := range []string{"", "{", "[]", `{"version":2}`, `{"version":1,"from":-1}`, `{"version":1,"from":5,"to":4}`, `{"version":1,"from":1e99}`} {
		if err := os.WriteFile(Path(path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if e, _, err := Read(path, file); err == nil {
			t.Errorf("%q is taken for %+v", text, e)
		}
	}
	if err := errors.Join(os.Remove(Path(path)), os.Mkdir(Path(path), 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(path, file); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("a folder: %v", err)
	}
}

func TestSweep(t *testing.T) {
	path, file := image(t)
	if err := os.WriteFile(Path(path)+unwritten, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, found, err := Read(path, file); found || err != nil {
		t.Errorf("an entry that was not written whole is %v, %v", found, err)
	}
	if err := Sweep(path); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("%v is left, %v", list, err)
	}
	if err := Sweep(path); err != nil {
		t.Error(err)
	}
}
