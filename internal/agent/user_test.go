package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/policy"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

// TestNotRoot has the agent of a normal user, as upkeep up starts it, make a
// site's folders: below the data folder, as that user, with no system user made.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		if err := asUser(t.TempDir()); err != nil {
			t.Error(err)
		}
		return
	}
	testkit.Need(t, "mke2fs", "resize2fs")
	// Unlike t.TempDir, a folder that the user may enter.
	dir, err := os.MkdirTemp("", "upkeep-user-")
	if err != nil {
		t.Fatal(err)
	}
	defer func(dir string) {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}(dir)
	// People's folders are often open to their groups.
	if err := errors.Join(os.Chown(dir, 23456, 23456), os.Chmod(dir, 0o775)); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "data")
	p := testkit.Command{Argv: []string{"/proc/self/exe", "agent-user", dir}, Env: []string{}, Dir: "/", User: &syscall.Credential{Uid: 23456, Gid: 23456}}.Start(t)
	if err := p.Wait(); err != nil {
		t.Fatalf("%v: %s", err, p.Log())
	}
	for _, name := range []string{"home/acme", "home/acme/example.test/htdocs", "images/a.img", "state"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != 23456 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// asUser is what the test does as a normal user.
func asUser(dir string) error {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	root, err := New(Options{Server: "local", Key: public, Policy: policy.ForUser(dir, false), State: filepath.Join(dir, "state"), Version: "1.0"})
	if err != nil {
		return err
	}
	defer root.Close()
	for i, payload := range []task.Payload{
		ensured("acme", 20001), files("example.test", "acme", 20001, 1), files("example.test", "acme", 20001, 2),
		task.Mkdir{Root: "home", Path: "acme/more", Owner: "acme", Group: "acme", Mode: "0755"}, removed("acme", 20001),
		task.ImageCreate{ImageAt: task.ImageAt{Root: "images", Path: "a.img"}, Size: 8 * mib, FileSystem: task.FileSystem{Type: "ext4"}},
		task.ImageGrow{ImagePart: task.ImagePart{ImageAt: task.ImageAt{Root: "images", Path: "a.img"}}, To: 16 * mib},
		task.ImageList{},
	} {
		generation := int64(i + 1)
		if versioned, is := payload.(interface{ Version() int64 }); is {
			generation = versioned.Version()
		}
		text, err := json.Marshal(payload)
		if err != nil {
			return err
		}
		signed, err := link.Sign(private, link.Job{ID: int64(i + 1), Server: "local", Kind: payload.Kind(), Object: payload.Object(), Generation: generation, Expires: time.Now().Add(time.Hour), Payload: text})
		if err != nil {
			return err
		}
		if outcome := root.Do(context.Background(), signed, nil); outcome.State != upkeep.JobDone {
			return fmt.Errorf("%s: %s, %s", payload.Kind(), outcome.State, outcome.Error)
		}
	}
	if warnings := strings.Join(root.Facts(context.Background()).Warnings, "\n"); !strings.Contains(warnings, "accounts have no system users here") {
		return fmt.Errorf("it does not say that it is not root: %q", warnings)
	}
	return nil
}

// BenchmarkMkdir is the privileged half's part of 1,000 mkdir jobs that come at
// once: verified, decoded, compared, made and kept on disk.
func BenchmarkMkdir(b *testing.B) {
	l := newLab(b, labPolicy)
	l.wantDone(ensured("acme", 20001), 1)
	turn := 0
	for b.Loop() {
		turn++
		l.wantDone(task.Mkdir{Root: "data", Path: fmt.Sprint("turn", turn), Owner: "root", Group: "root", Mode: "0755"}, 1)
		var jobs []link.Signed
		for i := range 1000 {
			payload := task.Mkdir{Root: "data", Path: fmt.Sprintf("turn%d/%d", turn, i), Owner: "acme", Group: "acme", Mode: "0755"}
			jobs = append(jobs, l.sign(payload.Kind(), payload.Object(), 1, payload))
		}
		var all sync.WaitGroup
		for _, job := range jobs {
			all.Go(func() {
				if outcome := l.root.Do(context.Background(), job, nil); outcome.State != upkeep.JobDone {
					b.Error(outcome.Error)
				}
			})
		}
		all.Wait()
	}
}

// A server that holds the files of sites, and answers for none, takes the folder
// of a removed site away too.
func TestFilesOnlyServer(t *testing.T) {
	l := newLab(t, strings.Replace(labPolicy, "site.files,", "site.files, site.remove,", 1))
	l.wantDone(ensured("acme", 20001), 1)
	l.wantDone(files("a.test", "acme", 20001, 1), 1)
	l.must(os.WriteFile(l.path("home/acme/a.test/htdocs/index.html"), []byte("hello"), 0o644))
	l.wantFailed(task.SiteRemove{Name: "a.test", Account: "acme", Generation: 2, KeepFiles: true}, 2, "no web server of upkeep's")
	l.wantDone(task.SiteRemove{Name: "a.test", Account: "acme", Generation: 2}, 2)
	if got := l.like("home/acme/a.test"); got != "none" {
		t.Errorf("the folder is still there: %s", got)
	}
	kept, err := filepath.Glob(l.path("home/acme/.trash/a.test.*/htdocs/index.html"))
	if err != nil || len(kept) != 1 {
		t.Errorf("the trash has %v, %v", kept, err)
	}
}
