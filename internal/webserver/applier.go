package webserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/vhost"
)

// Options are what an [Applier] works with. All folders are root's, or of the
// user that upkeep runs as, and nobody else writes to them.
type Options struct {
	Server Server
	Layout vhost.Layout
	// State keeps the manifest, the last good files, and what tests read.
	State string
	// Address is where the server is asked, such as "127.0.0.1:80"; URL is how
	// others are told to ask it.
	Address, URL string
	// PipeAbove is the number of sites above which one process takes all logs;
	// 2,000 when zero, never when Layout.Pipe is empty.
	PipeAbove int
	// PHP is the php-fpm that has the pools; nil when there is none.
	PHP *FPM
	// Patience is how long a site may take to answer after a reload; 20 s when
	// zero, and never less than ten times what the last reload took.
	Patience time.Duration
	Logger   *slog.Logger
}

// Applier makes one web server serve sites. Many changes that are asked for at a
// time share one test and one reload.
type Applier struct {
	o       Options
	queue   chan *request
	ctx     context.Context // until Close
	stop    context.CancelFunc
	stopped chan struct{}
	client  *asker

	// Of the loop alone.
	manifest *manifest
	good     *goodTexts
	tested   fingerprint      // of the server's own files, under which every file in place has passed a test
	survived fingerprint      // the same, of the test that is under way
	included included         // the include folder as of the test, and as of what was done there since
	found    map[string]found // by path, what files of ours were read to hold
	foreign  foreign
	pace     pace
	away     bool // the server was waited for in vain
	phpAway  bool // php-fpm was

	version version
	suexec  suexec
	busy    busyPools
	// maker stands for all that files are made from beside what is wanted of a site:
	// this program, the kind of server and where things are.
	maker string

	mu     sync.Mutex
	stats  Stats
	astray map[string]Astray // of the manifest's
}

// Stats count what was done, since the start.
type Stats struct {
	Writes, Tests, FullTests, Reloads int
	// Stall is how long the last reload kept a new connection waiting.
	Stall time.Duration
	Sites int
	Piped bool
	// Foreign are the names that the server's own configuration answers.
	Foreign []string
}

// Request asks for one site.
type Request struct {
	Input vhost.Input
	// Key stands for the input, see [Wanted]; "" for none.
	Key string
	// Batch and BatchSize tell which requests were made by one change: they are
	// waited for, so that one reload serves them all.
	Batch     int64
	BatchSize int
}

// Result is what became of a request.
type Result struct {
	State      upkeep.JobState // done, failed or superseded
	Generation int64
	// URL is where this server answers for the site.
	URL string
	// Changed is true when a file was written or removed.
	Changed bool
	Err     error
	// Field of the site that the error is about, if one is.
	Field string
}

// request is what waits in the queue.
type request struct {
	Request
	remove     string // the site to remove, which is the account's, or
	account    string
	whole      *whole // all sites
	purge      bool
	generation int64
	result     chan Result
}

// site is the name of the site that is asked for.
func (r *request) site() string {
	if r.remove != "" {
		return r.remove
	}
	return r.Input.Site.Name
}

// Open makes an applier. What a kill left half done is cleared away; files that
// the server's program does not accept any more are put back to what it last
// accepted, or out of its way, before a start of the server can trip over them.
func Open(ctx context.Context, o Options) (*Applier, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.PipeAbove = cmp.Or(o.PipeAbove, 2000)
	o.Patience = cmp.Or(o.Patience, 20*time.Second)
	a := &Applier{o: o, queue: make(chan *request, 64), stopped: make(chan struct{}), client: newAsker(o.Address), found: map[string]found{}}
	a.maker = makerOf(o)
	for _, dir := range a.folders() {
		if err := ownFolder(dir, 0o755); err != nil {
			return nil, fmt.Errorf("opening the web server's folders: %w", err)
		}
		if err := sweep(dir); err != nil {
			return nil, fmt.Errorf("clearing %s: %w", dir, err)
		}
	}
	var err error
	if a.manifest, err = loadManifest(o.State); err != nil {
		return nil, fmt.Errorf("reading what is known of sites: %w", err)
	}
	a.noteAstray()
	if a.good, err = openGoodTexts(o.State, a.manifest.paths()); err != nil {
		return nil, err
	}
	if err := a.quarantine(ctx); err != nil {
		o.Logger.Error("the web server's configuration does not pass its test", "err", withHint(err))
	}
	if o.PHP != nil { // before a php-fpm that is started later trips over pools that are there
		if err := a.openSockets(); err != nil {
			o.Logger.Error("sites cannot have PHP", "err", withHint(err))
		}
	}
	a.ctx, a.stop = context.WithCancel(context.WithoutCancel(ctx))
	go a.loop(a.ctx)
	return a, nil
}

// withHint is an error as a log has it: what to do is part of its text.
func withHint(err error) error {
	var hint *upkeep.HintError
	if errors.As(err, &hint) {
		return fmt.Errorf("%w; %s", err, hint.Hint)
	}
	return err
}

// folders are all that files are written into.
func (a *Applier) folders() []string {
	l := a.o.Layout
	dirs := []string{a.o.State, l.Include, l.Pages, l.Auth, l.Logs}
	if l.FPM != "" {
		dirs = append(dirs, l.FPM)
	}
	return dirs
}

// quarantineDir has the files that were taken out of the server's way.
func (a *Applier) quarantineDir() string { return filepath.Join(a.o.State, "quarantine") }

// Close ends the applier after the round that it is in. Requests that wait fail.
func (a *Applier) Close() error {
	a.stop()
	<-a.stopped
	a.busy.end()
	return nil
}

// Stats returns the counters.
func (a *Applier) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

func (a *Applier) count(f func(*Stats)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.stats)
}

// Apply has the server serve a site as it is declared, and returns when the site
// itself has answered with it, or why it does not.
func (a *Applier) Apply(ctx context.Context, r Request) Result {
	return a.ask(ctx, &request{Request: r, generation: r.Input.Generation})
}

// Remove has the server no longer serve a site, which must be the account's where
// one is given.
func (a *Applier) Remove(ctx context.Context, site, account string, generation int64) Result {
	return a.ask(ctx, &request{remove: site, account: account, generation: generation})
}

func (a *Applier) ask(ctx context.Context, r *request) Result {
	r.result = make(chan Result, 1)
	select {
	case a.queue <- r:
	case <-a.stopped:
		return failed(errClosed)
	case <-ctx.Done():
		return failed(ctx.Err())
	}
	select {
	case result := <-r.result:
		return result
	case <-a.stopped:
		return failed(errClosed)
	case <-ctx.Done():
		return failed(ctx.Err())
	}
}

var errClosed = errors.New("upkeep is stopping")

func failed(err error) Result {
	r := Result{State: upkeep.JobFailed, Err: err}
	var value *vhost.ValueError
	if errors.As(err, &value) {
		r.Field = value.Field
	}
	return r
}

// loop takes requests, waits for those that belong together, and works them off
// in rounds, one after the other.
func (a *Applier) loop(ctx context.Context) {
	defer close(a.stopped)
	var waiting []*request
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if len(waiting) > 0 {
			timer.Reset(a.pace.wait(time.Now()))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return // which tells those who wait
		case r := <-a.queue:
			waiting = append(waiting, r)
			a.pace.arrived(time.Now(), r)
		case <-due:
			began := time.Now()
			if waiting = a.due(ctx, waiting); len(waiting) > 0 {
				a.pace.sifted(time.Now(), time.Since(began))
			} else {
				a.pace.emptied()
			}
		}
	}
}

// due works off what waits, and returns what has to wait for the budget of
// reloads.
func (a *Applier) due(ctx context.Context, waiting []*request) (rest []*request) {
	if a.pace.allowed(time.Now()) > 0 {
		waiting, rest = a.sift(ctx, waiting)
	}
	for _, together := range rounds(waiting) {
		if together[0].purge {
			together[0].result <- Result{Err: a.purge(ctx)}
			continue
		}
		a.round(ctx, together)
	}
	return rest
}

// rounds parts what waits: all that changes sites goes together, and each
// request that only compares has a round to itself, which writes nothing.
func rounds(waiting []*request) (parts [][]*request) {
	var changes []*request
	for _, r := range waiting {
		if r.purge || r.whole != nil && r.whole.verify {
			parts = append(parts, []*request{r})
		} else {
			changes = append(changes, r)
		}
	}
	if len(changes) > 0 {
		parts = slices.Insert(parts, 0, changes)
	}
	return parts
}

// logs says whether one process takes the logs: when there are many sites, or
// more than the server has descriptors for.
func (a *Applier) logs(sites int, process Process) bool {
	if len(a.o.Layout.Pipe) == 0 {
		return false
	}
	if a.manifest.Piped {
		return sites > a.o.PipeAbove/2
	}
	return sites > a.o.PipeAbove || process.MaxFiles > 0 && !fits(sites, len(a.manifest.Sites), process)
}

// spareFiles are descriptors that the server needs for all else: connections of
// one of its children, sockets, programs.
const spareFiles = 512

// fits reports whether two log files for each site fit into the server's limit
// of descriptors. A server over it does not start any more, and its test says
// that all is well.
func fits(sites, before int, p Process) bool {
	return p.MaxFiles == 0 || p.Files+2*(sites-before)+min(spareFiles, p.MaxFiles/4) <= p.MaxFiles
}

// removeAll removes files, where they are there.
func removeAll(paths ...string) error {
	var all error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}
