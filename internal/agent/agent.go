package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/policy"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
	"upkeep/internal/webserver"
)

// Options are what a [Root] is made of.
type Options struct {
	// Server is the name of this server at control, and Key the public key with
	// which control signs jobs. Both are learned at the join.
	Server string
	Key    ed25519.PublicKey
	Policy *policy.Policy
	// State is the folder of what the agent remembers; it is made when there is
	// none, and is root's alone.
	State   string
	Version string // of upkeep, for facts
	// Web is the web server of this server, nil for none. [OpenWeb] makes that of
	// a policy.
	Web    *Web
	Logger *slog.Logger
	Now    func() time.Time
	// Prefix is a folder that has the system's etc/passwd, for tests.
	Prefix string
}

// Root is the privileged half of an agent.
type Root struct {
	o        Options
	policy   *policy.Policy
	applied  *applied
	budget   *budget
	accounts *accounts
	roots    map[string]*safefs.Dir
	zones    zones
	images   images
	turns    turns
	early    early
	state    *safefs.Dir
	// disk holds a token for each job that works on folders. Each waits in the
	// kernel for the disk, on a thread of its own; more of them make more threads
	// and no more speed.
	disk chan struct{}
}

// mostAtDisk is how many jobs work on folders at a time.
const mostAtDisk = 16

// atDisk waits until a job may work on folders, or is given up.
func (r *Root) atDisk(ctx context.Context) (leave func(), err error) {
	select {
	case r.disk <- struct{}{}:
		return func() { <-r.disk }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// New opens the state and every root of the policy. It refuses to start where a
// root is not what the policy must be able to rely on.
func New(o Options) (_ *Root, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if len(o.Key) != ed25519.PublicKeySize {
		return nil, errors.New("starting the agent: control's signing key is not known")
	}
	r := &Root{o: o, policy: o.Policy, roots: map[string]*safefs.Dir{}, disk: make(chan struct{}, mostAtDisk)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting the agent: %w", err), r.Close())
		}
	}()
	if r.state, err = openState(o.State); err != nil {
		return nil, err
	}
	if r.applied, err = openApplied(r.state); err != nil {
		return nil, err
	}
	if r.budget, err = openBudget(r.state, *o.Policy.DeleteBudget, o.Now); err != nil {
		return nil, err
	}
	if r.accounts, err = openAccounts(r.state, o.Policy, o.Prefix); err != nil {
		return nil, err
	}
	for name, root := range o.Policy.Roots {
		if r.roots[name], err = r.openRoot(root); err != nil {
			return nil, upkeep.WithHint(fmt.Errorf("root %s of the policy: %w", name, err), "roots, and the folders above them, must exist, be root's and be writable by root alone")
		}
	}
	if err := r.openZones(); err != nil {
		return nil, err
	}
	return r, r.openImageRecord()
}

func (r *Root) openRoot(root policy.Root) (*safefs.Dir, error) {
	if !r.policy.OneUser() {
		return safefs.OpenRoot(root.Path, root.Mounts, r.accounts.group)
	}
	if err := os.MkdirAll(root.Path, 0o755); err != nil {
		return nil, err
	}
	return safefs.OpenOwn(root.Path)
}

func openState(path string) (*safefs.Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	return safefs.OpenOwn(path)
}

// Close releases what the agent holds. Jobs that still run fail.
func (r *Root) Close() error {
	var errs []error
	for _, root := range r.roots {
		if root != nil {
			errs = append(errs, root.Close())
		}
	}
	if r.applied != nil {
		errs = append(errs, r.applied.close())
	}
	if r.state != nil {
		errs = append(errs, r.state.Close())
	}
	return errors.Join(errs...)
}

// job is one on its way: verified, allowed and decoded.
type job struct {
	link.Job
	payload task.Payload
	tell    func(link.Progress)
}

// step tells how far the job has come, in plain words.
func (j job) step(percent int, format string, args ...any) {
	j.tell(link.Progress{ID: j.ID, Step: fmt.Sprintf(format, args...), Percent: percent})
}

// Do carries out a signed job and returns what became of it, which is never an
// error of Do's own. The outcome of something that is no job of this server's
// has ID 0. The context ends the job where it can be ended; tell may be nil.
func (r *Root) Do(ctx context.Context, signed link.Signed, tell func(link.Progress)) link.Outcome {
	if tell == nil {
		tell = func(link.Progress) {}
	}
	opened, err := link.Open(r.o.Key, r.o.Server, r.o.Now(), signed)
	if err != nil {
		return failed(0, newer(err))
	}
	j := job{Job: opened, tell: tell}
	outcome := r.carryOut(ctx, j)
	r.o.Logger.Info("job", "id", j.ID, "kind", j.Kind, "object", j.Object, "generation", j.Generation, "state", outcome.State, "error", outcome.Error)
	return outcome
}

func (r *Root) carryOut(ctx context.Context, j job) link.Outcome {
	handler, err := r.admit(&j)
	if err != nil {
		return failed(j.ID, err)
	}
	release, err := r.turns.take(ctx, handler.turn(j))
	if err != nil {
		return ended(ctx, j.ID, err)
	}
	defer release()
	switch verdict, last := r.applied.judge(j); {
	case verdict == superseded:
		return link.Outcome{ID: j.ID, State: upkeep.JobSuperseded,
			Error: fmt.Sprintf("generation %d of %s was carried out here by job %d (%s), which is newer", last.Generation, last.Object, last.Job, last.Kind)}
	case verdict == already && !handler.again && !r.astray(j.Object):
		return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: last.Result}
	}
	result, err := r.guarded(ctx, handler, j)
	if err != nil {
		return ended(ctx, j.ID, err)
	}
	text, err := json.Marshal(result)
	if err != nil {
		return failed(j.ID, err)
	}
	mine := r.doneBy(j)
	if !handler.again && len(text) <= maxKept {
		mine.Result = text // for a job that is sent once more, since its outcome got lost
	}
	if err := r.applied.record(mine); err != nil {
		return ended(ctx, j.ID, err)
	}
	return link.Outcome{ID: j.ID, State: upkeep.JobDone, Result: text}
}

// admit decides whether the job may be done at all and by what.
func (r *Root) admit(j *job) (handler, error) {
	if err := r.policy.Allows(j.Kind); err != nil {
		return handler{}, err
	}
	h, known := handlers[j.Kind]
	if !known {
		return handler{}, upkeep.WithHint(fmt.Errorf("this agent does not know how to do %s jobs: %w", j.Kind, upkeep.ErrRefused), upgrade)
	}
	payload, err := r.decode(j.Job)
	if err != nil {
		return handler{}, newer(err)
	}
	// The object is what the job is compared with others by: a payload that is
	// about something else would slip past that.
	if payload.Object() != j.Object {
		return handler{}, fmt.Errorf("the job says that it is about %q, and its payload is about %q: %w", j.Object, payload.Object(), upkeep.ErrRefused)
	}
	if versioned, is := payload.(interface{ Version() int64 }); is && versioned.Version() != j.Generation {
		return handler{}, fmt.Errorf("the job has generation %d, and its payload %d: %w", j.Generation, versioned.Version(), upkeep.ErrRefused)
	}
	j.payload = payload
	return h, nil
}

// upgrade is what to do about a control that asks for more than this agent knows.
const upgrade = "if control is of a newer upkeep, upgrade upkeep on this server and restart upkeep-agent"

// newer adds to an error what is likely wrong where control says what this agent
// has never heard of.
func newer(err error) error {
	if strings.Contains(err.Error(), "json: unknown field") { // which encoding/json has no type for
		return upkeep.WithHint(err, upgrade)
	}
	var invalid *upkeep.InvalidError
	if errors.As(err, &invalid) && slices.ContainsFunc(invalid.Fields, func(f upkeep.FieldError) bool { return strings.HasPrefix(f.Rule, task.NoField) }) {
		return upkeep.WithHint(err, upgrade)
	}
	return err
}

// decode reads the payload of a job, of a site.sync no more than is new. What is to
// be verified is read as a whole.
func (r *Root) decode(job link.Job) (task.Payload, error) {
	if job.Kind != upkeep.JobSiteSync || r.o.Web == nil || job.Object != (task.SiteSync{}).Object() {
		return task.Decode(job.Kind, job.Payload)
	}
	known, home := r.applied.sites(), r.o.Web.Layout.Home+"/"
	return task.DecodeSync(job.Payload, func(site []byte) (name string, generation int64, is bool) {
		d, is := known[sumOf(site)]
		is = is && (d.Pages == elsewhere || strings.HasPrefix(d.Pages, home))
		return strings.TrimPrefix(d.Object, upkeep.KindSite+"/"), d.Generation, is
	})
}

// doneBy is what is to be kept of a job that was carried out.
func (r *Root) doneBy(j job) done {
	d := doneOf(j)
	if apply, is := j.payload.(task.SiteApply); is && r.o.Web != nil {
		d.Pages = r.pages(apply)
	}
	return d
}

// pages is the folder of a site's pages, if this server has to have it.
func (r *Root) pages(site task.SiteApply) string {
	if site.Site.Files != "" && site.Site.Files != r.o.Server {
		return elsewhere
	}
	return r.input(r.o.Web, site).DocumentRoot()
}

// guarded runs a handler. A panic fails the job it happened in and nothing else:
// one poisoned job must not stop those of everybody.
func (r *Root) guarded(ctx context.Context, h handler, j job) (result any, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			r.o.Logger.Error("a job panicked", "id", j.ID, "kind", j.Kind, "panic", problem, "stack", string(debug.Stack()))
			err = errors.New("the agent has a fault in how it does this; its log on the server has the details")
		}
	}()
	return h.do(ctx, r, j)
}

// errCancelled is why the context of a job ends that control takes back.
var errCancelled = errors.New("it was cancelled")

// errSuperseded is what handlers return when something newer is there already.
var errSuperseded = errors.New("a newer generation is there already")

// fieldError is an error about a field of the job's object.
type fieldError struct {
	error
	field string
}

func (e fieldError) Unwrap() error { return e.error }

// ended is the outcome of a job that was not done.
func ended(ctx context.Context, id int64, err error) link.Outcome {
	// Some work tells why it was given up, and some only that.
	if errors.Is(context.Cause(ctx), errCancelled) && (errors.Is(err, context.Canceled) || errors.Is(err, errCancelled)) {
		return link.Outcome{ID: id, State: upkeep.JobCancelled}
	}
	if errors.Is(err, errSuperseded) {
		return link.Outcome{ID: id, State: upkeep.JobSuperseded, Error: plainText(err.Error())}
	}
	return failed(id, err)
}

// failed is the outcome of a job with an error, in words for whose job it is.
func failed(id int64, err error) link.Outcome {
	outcome := link.Outcome{ID: id, State: upkeep.JobFailed, Error: plainText(err.Error())}
	var invalid *upkeep.InvalidError
	if errors.As(err, &invalid) && len(invalid.Fields) > 0 {
		outcome.Field = plainText(invalid.Fields[0].Field)
	}
	var field fieldError
	if errors.As(err, &field) {
		outcome.Field = plainText(field.field)
	}
	var taken *webserver.NameTakenError
	if errors.As(err, &taken) {
		outcome.Holder = plainText(taken.Site)
	}
	var hint *upkeep.HintError
	if errors.As(err, &hint) {
		outcome.Error += "; " + plainText(hint.Hint)
	}
	return outcome
}

// turns lets jobs that claim the same run one after another.
type turns struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	token *semaphore.Weighted
	users int
}

// claim is what a job needs for itself, or shares with others that say so too.
type claim struct {
	name   string
	shared bool
}

// whole is all there is of a claim; those who share take one part each.
const whole = 1 << 30

// take waits for the turn of each claim, which must be in the order of their names.
func (t *turns) take(ctx context.Context, claims []claim) (release func(), err error) {
	var releases []func()
	release = func() {
		for _, f := range releases {
			f()
		}
	}
	for _, claim := range claims {
		one, err := t.takeOne(ctx, claim)
		if err != nil {
			release()
			return nil, err
		}
		releases = append(releases, one)
	}
	return release, nil
}

func (t *turns) takeOne(ctx context.Context, c claim) (release func(), err error) {
	t.mu.Lock()
	if t.held == nil {
		t.held = map[string]*turn{}
	}
	if t.held[c.name] == nil {
		t.held[c.name] = &turn{token: semaphore.NewWeighted(whole)}
	}
	mine := t.held[c.name]
	mine.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(t.held, c.name)
		}
	}
	part := int64(whole)
	if c.shared {
		part = 1
	}
	if err := mine.token.Acquire(ctx, part); err != nil {
		leave()
		return nil, err
	}
	return func() { mine.token.Release(part); leave() }, nil
}
