package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/link"
	"upkeep/internal/policy"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
)

// images is what the agent keeps of the images on its server.
type images struct {
	catalog image.Catalog
	begun   *begun
	// busy has a token for each job that works on an image: each takes all that the
	// disk and a processor have.
	busy chan struct{}
}

// atImages is how many jobs work on images at a time.
const atImages = 2

// imageAt is a file below a root of images, in a folder that is held open: work
// stays in that folder, whatever becomes of its path meanwhile.
type imageAt struct {
	task.ImageAt
	folder *os.File
	path   string // for package image
	shown  string // for people
}

// imageAt opens the folder of an image. It, and every folder above it, must be
// root's: nobody else can give a name in it another meaning.
func (r *Root) imageAt(at task.ImageAt) (*imageAt, error) {
	root, err := r.policy.Images.Root(at.Root)
	if err != nil {
		return nil, err
	}
	dir, err := r.openImages(root)
	if err != nil {
		return nil, fmt.Errorf("root %s of images: %w", at.Root, err)
	}
	defer dir.Close()
	if below := path.Dir(at.Path); below != "." {
		top := dir
		if dir, err = top.Walk(below); errors.Is(err, fs.ErrNotExist) {
			return nil, upkeep.WithHint(fmt.Errorf("the folder %s of the root %s is not there: %w", below, at.Root, err), "folders for images are made by hand")
		} else if err != nil {
			return nil, err
		}
		defer dir.Close()
	}
	folder, err := dir.Handle()
	if err != nil {
		return nil, err
	}
	name := path.Base(at.Path)
	return &imageAt{at, folder, image.In(folder, name), path.Join(dir.Path(), name)}, nil
}

// openImages opens a root of images for one job: what is mounted there may come
// after the agent was started.
func (r *Root) openImages(root policy.Root) (*safefs.Dir, error) {
	if r.policy.OneUser() {
		if err := os.MkdirAll(root.Path, 0o755); err != nil {
			return nil, err
		}
		return safefs.OpenOwn(root.Path)
	}
	return safefs.OpenRoot(root.Path, root.Mounts, nil)
}

func (i *imageAt) close() {
	if i != nil {
		_ = i.folder.Close() // opened for its name only
	}
}

// plain makes an error of package image one for people: paths are those that the
// policy has.
func (i *imageAt) plain(err error) error {
	if err == nil || i == nil {
		return err
	}
	named := namedError{err, strings.ReplaceAll(err.Error(), i.path, i.shown)}
	var hint *upkeep.HintError
	if errors.As(err, &hint) {
		return upkeep.WithHint(named, strings.ReplaceAll(hint.Hint, i.path, i.shown))
	}
	return named
}

// namedError is an error with its text told otherwise.
type namedError struct {
	error
	text string
}

func (e namedError) Error() string { return e.text }
func (e namedError) Unwrap() error { return e.error }

// imageVerb is what a job does to an image.
type imageVerb struct {
	target task.ImageAt
	source *task.ImageAt // that is read, if one is
	// size is what the image is to have, where the job says so.
	size upkeep.Size
	// reads is true for verbs that change nothing.
	reads bool
	// overwrites is true where something that the image holds may go.
	overwrites bool
	ready      func(target, source string) (*image.Work, error)
	// fits refuses a source that the verb is not for.
	fits func(source upkeep.ImageFile) error
	// verdict makes an error of a result that is no success.
	verdict func(result any) error
}

// workOn carries a verb out.
func (r *Root) workOn(ctx context.Context, j job, v imageVerb) (any, error) {
	if err := r.policy.Images.AllowsSize(v.size); err != nil {
		return nil, err
	}
	target, err := r.imageAt(v.target)
	if err != nil {
		return nil, err
	}
	defer target.close()
	var source *imageAt
	if v.source != nil {
		if source, err = r.imageAt(*v.source); err != nil {
			return nil, err
		}
		defer source.close()
	}
	if err := r.imageTurn(ctx, j); err != nil {
		return nil, err
	}
	defer func() { <-r.images.busy }()
	if done, result, err := r.settled(ctx, j, target); done || err != nil {
		return result, err
	}
	w := imageWork{Root: r, imageVerb: v, job: j, target: target, source: source}
	result, err := w.do(ctx)
	return result, source.plain(target.plain(err))
}

// imageTurn waits until few others work on images.
func (r *Root) imageTurn(ctx context.Context, j job) error {
	select {
	case r.images.busy <- struct{}{}:
		return nil
	default:
	}
	j.step(0, "waiting for other work on images")
	select {
	case r.images.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// imageWork is one verb on its way.
type imageWork struct {
	*Root
	imageVerb
	job            job
	target, source *imageAt
}

func (w *imageWork) do(ctx context.Context) (result any, err error) {
	if st, there := w.target.stat(); there && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil, fmt.Errorf("%s is a symbolic link, which is never followed: %w", w.target.shown, upkeep.ErrRefused)
	} else if there && st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is there and is no regular file: %w", w.target.shown, upkeep.ErrRefused)
	}
	from := ""
	if w.source != nil {
		from = w.source.path
		found, err := image.Describe(w.source.folder, path.Base(w.source.Path))
		if err == nil {
			err = w.fits(found)
		}
		if err != nil {
			return nil, fmt.Errorf("the source: %w", err)
		}
	}
	work, err := w.ready(w.target.path, from)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, work.Close()) }()
	if !w.trusts() {
		work.Confine()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.overwrites {
		if err := w.budget.spend(w.target.Object()); err != nil {
			return nil, err
		}
	}
	report := newImageReport(w.job)
	defer report.close()
	if w.reads {
		err = work.Do(ctx, report.event)
	} else {
		err = w.change(ctx, work, report)
	}
	if err == nil && w.verdict != nil {
		err = w.verdict(work.Result)
	}
	if err != nil {
		return nil, err
	}
	return w.result(work, report), nil
}

// change carries out what changes something: that it was begun is kept on the disk
// until it has ended, for whoever comes after a kill.
func (w *imageWork) change(ctx context.Context, work *image.Work, report *imageReport) error {
	entry := w.entry()
	if err := w.images.begun.add(entry); err != nil {
		return err
	}
	err := work.Do(ctx, report.event)
	if err == nil {
		// Remembered before it is forgotten that it was begun: a job that is sent again
		// after a kill in between is not done again.
		if err := w.applied.record(entry.Done); err != nil {
			return err
		}
		return w.images.begun.remove(entry)
	}
	// The locks go first: recovering takes them.
	err = errors.Join(err, work.Close())
	if recovered := w.recoverImage(context.WithoutCancel(ctx), entry, w.target); recovered != nil {
		w.images.begun.stuck(entry, w.target.plain(recovered))
		return errors.Join(err, recovered)
	}
	return errors.Join(err, w.images.begun.remove(entry))
}

func (w *imageWork) result(work *image.Work, report *imageReport) task.ImageResult {
	result := task.ImageResult{Did: work.Result, Notes: report.notes}
	if found, err := image.Describe(w.target.folder, path.Base(w.target.Path)); err == nil {
		found.Root, found.Path = w.target.Root, w.target.Path
		result.Image = &found
	}
	return result
}

// trusts reports whether the kernel may mount images.
func (r *Root) trusts() bool { return r.policy.Images.Trust }

// imageReport tells control how far work on an image has come.
type imageReport struct {
	job  job
	mu   sync.Mutex
	last link.Progress
	end  chan struct{}

	notes []string
}

const (
	// sayAgain is how often a step is told anew of which there is nothing new: control
	// gives up jobs of which it hears nothing.
	sayAgain = time.Minute
	maxNotes = 100
)

func newImageReport(j job) *imageReport {
	r := &imageReport{job: j, last: link.Progress{ID: j.ID, Step: "looking at the image"}, end: make(chan struct{})}
	go r.repeat()
	return r
}

func (r *imageReport) repeat() {
	ticker := time.NewTicker(sayAgain)
	defer ticker.Stop()
	for {
		select {
		case <-r.end:
			return
		case <-ticker.C:
			r.mu.Lock()
			r.job.tell(r.last)
			r.mu.Unlock()
		}
	}
}

func (r *imageReport) close() { close(r.end) }

func (r *imageReport) event(e upkeep.ImageEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Event {
	case upkeep.ImageNote:
		if len(r.notes) < maxNotes {
			r.notes = append(r.notes, plainText(e.Text))
		}
		return
	case upkeep.ImageStep:
		r.last.Step, r.last.Percent = plainText(e.Step), 0
	case upkeep.ImageProgress:
		if e.Total > 0 {
			r.last.Percent = int(min(max(e.Done*100/e.Total, 0), 100))
		}
	default:
		return
	}
	r.job.tell(r.last)
}
