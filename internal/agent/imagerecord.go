package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
)

// beginning is work on an image that was begun.
type beginning struct {
	// Done is what is remembered of the job once it is known to be done.
	Done done         `json:"done"`
	At   task.ImageAt `json:"at"`
	// Trust is that the kernel may have had the image.
	Trust bool      `json:"trust"`
	Since time.Time `json:"since"`
	// Inode and Size are those of the file before, 0 where there was none.
	Inode uint64 `json:"inode"`
	Size  int64  `json:"size"`
}

// begun is the work on images that was begun and has not ended, on the disk: after a
// kill it is known by it what to look after.
type begun struct {
	state *safefs.Dir

	mu      sync.Mutex
	entries []beginning
	why     map[string]string // by object, why it could not be ended or undone
}

const begunFile = "images.json"

func openBegun(state *safefs.Dir) (*begun, error) {
	b := &begun{state: state, why: map[string]string{}}
	text, err := state.ReadFile(begunFile, 64<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &b.entries)
	}
	if err != nil {
		return nil, upkeep.WithHint(fmt.Errorf("reading which work on images was begun: %s: %w", begunFile, err),
			"move the file away to begin anew, and have a look at the images with: upkeep image recover FILE")
	}
	return b, nil
}

func (b *begun) add(e beginning) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write(append(b.without(e.At), e))
}

func (b *begun) remove(e beginning) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.why, e.At.Object())
	return b.write(b.without(e.At))
}

func (b *begun) without(at task.ImageAt) []beginning {
	return slices.DeleteFunc(slices.Clone(b.entries), func(e beginning) bool { return e.At == at })
}

func (b *begun) write(entries []beginning) error {
	text, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	if _, err := b.state.WriteFile(begunFile, text, ownFile()); err != nil {
		return fmt.Errorf("keeping which work on images was begun: %w", err)
	}
	b.entries = entries
	return nil
}

// of is the work on an image that was begun.
func (b *begun) of(at task.ImageAt) (beginning, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.entries, func(e beginning) bool { return e.At == at })
	if i < 0 {
		return beginning{}, false
	}
	return b.entries[i], true
}

func (b *begun) all() []beginning {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.entries)
}

func (b *begun) stuck(e beginning, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why[e.At.Object()] = plainText(err.Error())
}

// warnings are about images that were left in the middle.
func (b *begun) warnings() (all []string) {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for object, why := range b.why {
		all = append(all, fmt.Sprintf("%s was left in the middle of work on it, which can neither be ended nor undone now: %s", object, why))
	}
	slices.Sort(all)
	return all
}

// entry is the beginning of a verb.
func (w *imageWork) entry() beginning {
	e := beginning{Done: doneOf(w.job), At: w.target.ImageAt, Trust: w.trusts(), Since: w.o.Now().UTC()}
	if st, there := w.target.stat(); there {
		e.Inode, e.Size = st.Ino, st.Size
	}
	return e
}

func (i *imageAt) stat() (st unix.Stat_t, there bool) {
	err := unix.Fstatat(int(i.folder.Fd()), path.Base(i.Path), &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err == nil
}

// took reports whether what was begun came to its end: another file is in the image's
// place, or one that was grown where it is. Nobody but root could have put it there.
func (e beginning) took(at *imageAt) bool {
	st, there := at.stat()
	return there && (st.Ino != e.Inode || st.Size != e.Size)
}

// openImageRecord reads what was begun before the agent was started, and has it ended
// or undone. What cannot be, since its disk is away or somebody has the image by now,
// is tried again before the next job on it.
func (r *Root) openImageRecord() (err error) {
	r.images.busy = make(chan struct{}, atImages)
	if r.images.begun, err = openBegun(r.state); err != nil || r.policy.Images == nil {
		return err
	}
	for _, e := range r.images.begun.all() {
		at, err := r.imageAt(e.At)
		if err == nil {
			err = at.plain(r.settle(context.Background(), e, at))
			at.close()
		}
		if err != nil {
			r.o.Logger.Warn("an image was left in the middle of work on it", "object", e.At.Object(), "err", err)
			r.images.begun.stuck(e, err)
		}
	}
	return nil
}

// settle ends or undoes what was begun on an image, and remembers what is done.
func (r *Root) settle(ctx context.Context, e beginning, at *imageAt) error {
	if err := r.recoverImage(ctx, e, at); err != nil {
		return err
	}
	if e.took(at) {
		if err := r.applied.record(e.Done); err != nil {
			return err
		}
	}
	return r.images.begun.remove(e)
}

// settled settles what was begun on an image by an earlier job. Where that was this
// very one, or a newer one, done is true.
func (r *Root) settled(ctx context.Context, j job, at *imageAt) (done bool, result any, err error) {
	e, was := r.images.begun.of(at.ImageAt)
	if !was {
		return false, nil, nil
	}
	if err := r.settle(ctx, e, at); err != nil {
		r.images.begun.stuck(e, err)
		return false, nil, at.plain(err)
	}
	switch verdict, last := r.applied.judge(j); verdict {
	case already:
		return true, last.Result, nil
	case superseded:
		return true, nil, errSuperseded
	}
	return false, nil, nil
}

// recoverImage has package image end or undo what a verb left.
func (r *Root) recoverImage(ctx context.Context, e beginning, at *imageAt) error {
	left, err := image.Left(at.path)
	if err != nil || left == "" {
		return err
	}
	if e.Trust && !r.trusts() {
		return upkeep.WithHint(fmt.Errorf("%w: it was begun when the policy of this server trusted images, which it does no more: %s", upkeep.ErrRefused, left), "upkeep image recover "+at.shown)
	}
	work, err := image.Recover(at.path)
	if err != nil {
		return fmt.Errorf("recovering it: %w", err)
	}
	if !r.trusts() {
		work.Confine()
	}
	err = work.Do(ctx, nil)
	if err = errors.Join(err, work.Close()); err != nil {
		return fmt.Errorf("recovering it: %w", err)
	}
	r.o.Logger.Info("an image was recovered", "object", e.At.Object(), "left", plainText(left))
	return nil
}
