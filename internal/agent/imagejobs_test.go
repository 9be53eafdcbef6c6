package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/link"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

// imageJob is a job on images that goes wrong in tests: it is killed, or cancelled.
type imageJob struct {
	policy string
	job    task.Payload
	// keeps is what is there before, made by prepared, and stays as it is but for the
	// target.
	keeps []string
	// target is what the job makes, or changes from one size to another; 0 is a packed
	// file.
	target   string
	from, to upkeep.Size
}

// imageJobs are one of each way in which jobs change something: a second file that takes
// the place of an image, growth in place by the kernel, and what is made anew.
func imageJobs() map[string]imageJob {
	ext3 := task.FileSystem{Type: "ext3"}
	return map[string]imageJob{
		"grow":            {imagesPolicy, task.ImageGrow{ImagePart: part("a.img"), To: 24 * mib}, []string{"a.img"}, "a.img", 16 * mib, 24 * mib},
		"grow in place":   {trustingPolicy, task.ImageGrow{ImagePart: part("x.img"), To: 400 * mib}, []string{"x.img"}, "x.img", 300 * mib, 400 * mib},
		"shrink":          {imagesPolicy, task.ImageShrink{ImagePart: part("a.img"), To: 12 * mib}, []string{"a.img"}, "a.img", 16 * mib, 12 * mib},
		"copy":            {trustingPolicy, task.ImageCopy{ImageFrom: from("b.img", "a.img"), FileSystem: ext3, Size: 20 * mib, Verify: true}, []string{"a.img"}, "b.img", 0, 20 * mib},
		"clone":           {imagesPolicy, task.ImageClone{ImageFrom: from("b.img", "a.img"), NewIDs: true}, []string{"a.img"}, "b.img", 0, 16 * mib},
		"pack":            {imagesPolicy, task.ImagePack{ImageFrom: from("b.zst", "a.img")}, []string{"a.img"}, "b.zst", 0, 0},
		"unpack":          {imagesPolicy, task.ImageUnpack{ImageFrom: from("b.img", "a.zst")}, []string{"a.zst"}, "b.img", 0, 16 * mib},
		"unpack a stream": {imagesPolicy, task.ImageUnpack{ImageFrom: from("b.img", "a.img.gz")}, []string{"a.img.gz"}, "b.img", 0, 16 * mib},
	}
}

// needed skips where the job cannot be done.
func (j imageJob) needed(t testing.TB) {
	t.Helper()
	if j.policy == trustingPolicy {
		canMount(t)
	}
	switch j.keeps[0] {
	case "x.img":
		testkit.Need(t, "mkfs.xfs", "xfs_repair")
	case "a.img.gz":
		testkit.Need(t, "gzip")
	}
}

// imageJobLab is a server for a job, with the files that it works on beside it, to be
// had anew for each time that it goes wrong.
type imageJobLab struct {
	*lab
	imageJob
	holds map[string][32]byte // the files in a.img
	sums  map[string][32]byte // the files that the job works on
}

func newImageJobLab(t *testing.T, j imageJob) *imageJobLab {
	t.Helper()
	j.needed(t)
	l := &imageJobLab{lab: newImageLab(t, j.policy), imageJob: j, sums: map[string][32]byte{}}
	l.key = killKey()
	l.o.Key = killKey().Public().(ed25519.PublicKey)
	l.must(os.Mkdir(l.path("fresh"), 0o755))
	if j.keeps[0] == "x.img" {
		l.ready(image.Create(l.path("fresh/x.img"), image.Creation{Size: j.from, FS: "xfs"}))
	} else {
		l.made()
	}
	for _, name := range j.keeps {
		l.sums[name] = l.sum("fresh/" + name)
	}
	signed, err := signWith(killKey(), 7, j.job, 1)
	l.must(err)
	text, err := json.Marshal(signed)
	l.must(err)
	l.must(errors.Join(os.WriteFile(l.path("job"), text, 0o600), os.WriteFile(l.path("policy"), []byte(j.policy), 0o600)))
	return l
}

// made makes an image with files, and that packed.
func (l *imageJobLab) made() {
	l.t.Helper()
	l.must(os.MkdirAll(l.path("tree/etc"), 0o755))
	for i := range 40 {
		l.must(os.WriteFile(l.path(fmt.Sprintf("tree/etc/file%d", i)), bytes.Repeat([]byte{byte(i + 1)}, 1<<(i%15)), 0o644))
	}
	l.ready(image.Copy(l.path("tree"), l.path("fresh/a.img"), image.Copying{FS: "ext4", Size: 16 * mib, Untrusted: true}))
	l.ready(image.Pack(l.path("fresh/a.img"), l.path("fresh/a.zst"), image.PackOptions{}))
	packed, err := exec.Command("gzip", "-c", l.path("fresh/a.img")).Output()
	l.must(err)
	l.must(os.WriteFile(l.path("fresh/a.img.gz"), packed, 0o600))
	l.holds = l.filesIn("fresh/a.img")
	if len(l.holds) != 40 {
		l.t.Fatalf("the image has %d files", len(l.holds))
	}
}

func (l *imageJobLab) ready(work *image.Work, err error) {
	l.t.Helper()
	l.must(err)
	l.must(errors.Join(work.Do(context.Background(), nil), work.Close()))
}

// filesIn reads the files in an image, which may be packed.
func (l *imageJobLab) filesIn(name string) map[string][32]byte {
	l.t.Helper()
	files, err := image.OpenFiles(context.Background(), l.path(name), 0)
	l.must(err)
	defer files.Close()
	found := map[string][32]byte{}
	l.must(fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		var content bytes.Buffer
		err = files.Cat(context.Background(), path, &content)
		found[path] = sha256.Sum256(content.Bytes())
		return err
	}))
	return found
}

func (l *imageJobLab) sum(name string) [32]byte {
	l.t.Helper()
	content, err := os.ReadFile(l.path(name))
	l.must(err)
	return sha256.Sum256(content)
}

// prepared is the server before the job, with no agent.
func (l *imageJobLab) prepared() {
	l.t.Helper()
	if l.root != nil {
		l.must(l.root.Close())
		l.root = nil
	}
	l.must(errors.Join(os.RemoveAll(l.path("state")), os.RemoveAll(l.path("images")), os.Mkdir(l.path("images"), 0o755)))
	for _, name := range l.keeps {
		testkit.Run(l.t, "cp", "--sparse=always", l.path("fresh/"+name), l.path("images/"+name))
	}
}

// job is the one that goes wrong, as control has signed it.
func (l *imageJobLab) job() link.Signed {
	l.t.Helper()
	signed, err := signedIn(l.dir)
	l.must(err)
	return signed
}

func signedIn(dir string) (signed link.Signed, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "job"))
	if err == nil {
		err = json.Unmarshal(text, &signed)
	}
	return signed, err
}

// took wants the target to be what it was or what it was to be, and tells which; all else
// to be as it was; and no work to be left.
func (l *imageJobLab) took(where string) bool {
	l.t.Helper()
	for _, name := range l.keeps {
		if name != l.target && l.sum("images/"+name) != l.sums[name] {
			l.t.Errorf("%s: %s has changed", where, name)
		}
	}
	l.settledRecord(append(l.keeps, l.target)...)
	info, err := os.Lstat(l.path("images/" + l.target))
	if errors.Is(err, fs.ErrNotExist) && l.from == 0 {
		return false
	}
	l.must(err)
	if l.to != 0 {
		l.whole(l.target, l.from, l.to)
	}
	if l.holds != nil && !maps.Equal(l.filesIn("images/"+l.target), l.holds) {
		l.t.Errorf("%s: in %s are other files than there were", where, l.target)
	}
	is := l.to == 0 || info.Size() == int64(l.to)
	if !is && l.holds != nil && l.sum("images/"+l.target) != l.sums[l.target] {
		l.t.Errorf("%s: %s is neither what it was nor what it was to be", where, l.target)
	}
	return is
}

// again sends the job twice more: it is done, and was or is done once.
func (l *imageJobLab) again(where string, done bool) {
	l.t.Helper()
	var before unix.Stat_t
	if done {
		l.must(unix.Lstat(l.path("images/"+l.target), &before))
	}
	for range 2 {
		if outcome := l.root.Do(context.Background(), l.job(), nil); outcome.State != upkeep.JobDone {
			l.t.Errorf("%s: sent again it was %+v", where, outcome)
		}
		if !l.took(where) {
			l.t.Errorf("%s: sent again it was not done", where)
		}
		var after unix.Stat_t
		l.must(unix.Lstat(l.path("images/"+l.target), &after))
		if done && (after.Ino != before.Ino || after.Mtim != before.Mtim) {
			l.t.Errorf("%s: it was done twice", where)
		}
		before, done = after, true
	}
}

// letGo waits for the kernel to let go of what the killed had.
func (l *imageJobLab) letGo() {
	l.t.Helper()
	for _, name := range append(l.keeps, l.target) {
		if _, err := os.Lstat(l.path("images/" + name)); err != nil {
			continue
		}
		testkit.Eventually(l.t, time.Minute, func() (bool, string) {
			d := l.described(name)
			return len(d.Holders) == 0, fmt.Sprint(d.Holders)
		})
	}
}

// imageVictim does one job as an agent does.
func imageVictim(dir string) error {
	policy, err := os.ReadFile(filepath.Join(dir, "policy"))
	if err != nil {
		return err
	}
	o, err := optionsIn(dir, string(policy))
	if err != nil {
		return err
	}
	root, err := New(o)
	if err != nil {
		return err
	}
	signed, err := signedIn(dir)
	if err != nil {
		return err
	}
	if outcome := root.Do(context.Background(), signed, nil); outcome.State != upkeep.JobDone {
		return fmt.Errorf("%s: %s", outcome.State, outcome.Error)
	}
	return nil
}

// TestImageCancelled cancels work at everything that is told of it: it ends soon, as
// cancelled or as done, and what was to be changed or made is as it was or as it was to
// be. Sent again it is done.
func TestImageCancelled(t *testing.T) {
	for name, j := range imageJobs() {
		t.Run(name, func(t *testing.T) {
			l := newImageJobLab(t, j)
			cancelled := 0
			for at, told := 1, 1; told >= at; at++ {
				l.prepared()
				l.start()
				ctx, cancel := context.WithCancelCause(t.Context())
				told = 0
				outcome := l.root.Do(ctx, l.job(), func(link.Progress) {
					if told++; told == at {
						cancel(errCancelled)
					}
				})
				cancel(nil)
				where := fmt.Sprintf("cancelled at what was told as number %d", at)
				done := l.took(where)
				switch outcome.State {
				case upkeep.JobCancelled:
					cancelled++
				case upkeep.JobDone:
				default:
					t.Fatalf("%s: %+v", where, outcome)
				}
				if done != (outcome.State == upkeep.JobDone) {
					t.Errorf("%s: it ended as %s, and done is %v", where, outcome.State, done)
				}
				l.again(where, done)
			}
			if cancelled < 1 {
				t.Errorf("it could be cancelled %d times", cancelled)
			}
		})
	}
}

// TestImageAgentKilled has jobs come over the link to an agent of which a process is
// killed while it works: the front, which has no part in the work, or root. The job that
// is sent again then is done, and was done once.
func TestImageAgentKilled(t *testing.T) {
	for _, name := range []string{"shrink", "clone", "pack", "unpack"} {
		for _, what := range []string{"the front", "root"} {
			t.Run(name+" and "+what, func(t *testing.T) {
				l := newImageJobLab(t, imageJobs()[name])
				c := newControlled(t, imagesPolicy+"front: nobody\n")
				c.now = time.Now()
				l.must(errors.Join(os.Mkdir(c.path("images"), 0o755), os.Mkdir(c.path("other"), 0o755)))
				for _, name := range l.keeps {
					testkit.Run(t, "cp", "--sparse=always", l.path("fresh/"+name), c.path("images/"+name))
				}
				c.killedAtWork(l, what)
				l.lab = c.lab
				l.root = nil // was closed before there was an agent in a process of its own
				l.reload(imagesPolicy)
				if !l.took(what + " was killed") {
					t.Error("it was not done")
				}
			})
		}
	}
}

// killedAtWork starts an agent, kills a process of it when it tells that it works on a
// job, and sends the job twice more.
func (c *controlled) killedAtWork(l *imageJobLab, what string) {
	c.t.Helper()
	agent := c.startAgent()
	first := c.link()
	job := l.imageJob.job
	signed := c.sign(job.Kind(), job.Object(), 1, job)
	c.must(first.conn.Send(c.t.Context(), link.Message{Job: &signed}))
	m, err := first.conn.Receive(c.t.Context())
	c.must(err)
	if m.Progress == nil {
		c.t.Fatalf("first it tells %+v", m)
	}
	if what == "root" {
		agent.Kill()
		close(first.gone)
		agent = c.startAgent()
	} else {
		// Programs that work on the image are root's children, too.
		all := slices.DeleteFunc(fronts(agent.PID()), func(pid int) bool { return !strings.HasPrefix(status(pid)["Uid"], "65534 ") })
		if len(all) != 1 {
			c.t.Fatalf("fronts are %v", all)
		}
		c.must(syscall.Kill(all[0], syscall.SIGKILL))
		close(first.gone)
	}
	second := c.link()
	var before unix.Stat_t
	for turn := range 2 {
		c.must(second.conn.Send(c.t.Context(), link.Message{Job: &signed}))
		for m.Outcome = nil; m.Outcome == nil; {
			m, err = second.conn.Receive(c.t.Context())
			c.must(err)
		}
		if m.Outcome.State != upkeep.JobDone {
			c.t.Fatalf("sent again it was %+v", m.Outcome)
		}
		var after unix.Stat_t
		c.must(unix.Lstat(c.path("images/"+l.target), &after))
		if turn > 0 && (after.Ino != before.Ino || after.Mtim != before.Mtim) {
			c.t.Error("it was done twice")
		}
		before = after
	}
	agent.Stop(10 * time.Second)
	close(second.gone)
}
