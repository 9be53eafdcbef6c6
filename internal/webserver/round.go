package webserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/vhost"
)

// round works off requests together: all files are written beside their places,
// tested, moved into their places, and the server reloads once.
type round struct {
	*Applier
	process Process
	running bool
	changes []*change
	// common are the files that all sites share.
	common *change
	whole  *whole
	// unchanged are sites that are wanted as they are served: they are not among the
	// changes.
	unchanged []*Wanted
	layout    vhost.Layout
	// blocked is why nothing could be changed, in a verification.
	blocked error
	// took is how long each step took, for the log.
	took        []any
	began, last time.Time
}

// step notes the end of a step.
func (r *round) step(name string) {
	now := time.Now()
	r.took = append(r.took, slog.Duration(name, now.Sub(r.last)))
	r.last = now
}

// change is what becomes of one site in a round. Once err is set, nothing more is
// done for it, and what was done is undone.
type change struct {
	site       string
	requests   []*request
	input      *vhost.Input // nil to remove the site
	key        string       // see [entry]
	account    string       // that is said to own a site that is to be removed
	generation int64
	files      []vhost.File
	sums       []string // of the files' texts
	names      []string
	before     *entry

	writes  []write
	removes []string // files that are no longer wanted, as paths of package vhost
	// gone are the texts of these, for who asked about all sites; none where there is
	// no file.
	gone map[string][]byte
	// unproven is true when the site has not answered with these files yet.
	unproven bool
	// moved is true when what is in place is not what was there before.
	moved  bool
	probes []vhost.Probe
	// asked is true once the server was asked for it, waits as long as it has not
	// answered, and told when those who asked for the change were told of it.
	asked, waits, told bool

	result upkeep.JobState
	err    error
	field  string
}

// write is one file that differs from what is on disk.
type write struct {
	file   vhost.File
	place  string
	temp   string
	before []byte // what was there; nil when nothing was
	rights string // what was there, where mode or owner are not as they should be
}

// sumOf is the sum of one of its files.
func (c *change) sumOf(path string) string {
	return c.sums[slices.IndexFunc(c.files, func(f vhost.File) bool { return f.Path == path })]
}

func (c *change) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	var value *vhost.ValueError
	if errors.As(err, &value) {
		c.field = value.Field
	}
}

// live are the changes that nothing speaks against so far.
func (r *round) live() []*change {
	return slices.DeleteFunc(slices.Clone(r.changes), func(c *change) bool { return c.err != nil || c.result != "" })
}

func (a *Applier) round(ctx context.Context, requests []*request) {
	r := &round{Applier: a, layout: a.o.Layout, began: time.Now()}
	r.last = r.began
	r.collect(requests)
	err := r.work(ctx)
	if err != nil {
		for _, c := range r.live() {
			c.fail(err)
		}
	}
	r.answer(err)
	r.step("answer")
	a.o.Logger.Debug("sites were applied", append([]any{"changes", len(r.changes)}, r.took...)...)
}

// weigh finds out what there is to do, and changes nothing. An error is about the
// server as a whole.
func (r *round) weigh(ctx context.Context) error {
	process, err := r.o.Server.Process()
	r.process, r.running = process, err == nil
	if err := r.survey(ctx); err != nil {
		return err
	}
	r.step("survey")
	r.collectWhole()
	r.settleLogs()
	if err := r.render(); err != nil {
		return err
	}
	r.step("render")
	r.claimNames()
	return r.compare()
}

// work takes the steps of a round. An error is about the server as a whole.
func (r *round) work(ctx context.Context) error {
	if err := r.weigh(ctx); err != nil {
		return err
	}
	verify := r.verifies()
	if r.whole != nil {
		r.tend()
	}
	if !verify && r.reloads() { // which is when a bad target would hurt
		r.checkTargets()
	}
	if r.whole != nil {
		if err := r.whole.findStrays(r); err != nil {
			return err
		}
	}
	r.step("compare")
	if verify {
		r.unanswered(ctx)
		return nil
	}
	if !r.rewrites() {
		r.alreadyLive(ctx)
	}
	if !r.touches() {
		return r.finish()
	}
	defer r.discard()
	if err := r.stage(); err != nil {
		return err
	}
	r.step("stage")
	if err := r.testPools(ctx); err != nil {
		return err
	}
	if r.reloads() {
		if err := r.test(ctx); err != nil {
			return err
		}
		r.step("test")
	}
	err := r.commit(ctx)
	if err != nil {
		for _, c := range r.live() { // before anything is remembered as proven
			c.fail(err)
		}
	}
	err = errors.Join(err, r.finish())
	r.step("keep")
	return err
}

// collect makes one change of all requests for one site: the newest counts.
func (r *round) collect(requests []*request) {
	bySite := map[string]*change{}
	for _, req := range requests {
		if req.whole != nil {
			continue
		}
		site := req.site()
		c := bySite[site]
		if c == nil {
			c = &change{site: site, before: r.manifest.Sites[site]}
			bySite[site] = c
			r.changes = append(r.changes, c)
		}
		if len(c.requests) == 0 || req.generation >= c.generation {
			c.generation, c.input, c.account, c.key = req.generation, nil, req.account, r.key(req.Key)
			if req.remove == "" {
				c.input = &req.Input
			}
		}
		c.requests = append(c.requests, req)
	}
	for _, c := range r.changes {
		c.compareRecord()
	}
	for _, req := range requests {
		if req.whole != nil && r.whole != nil {
			r.whole.report <- Report{Err: errors.New("another synchronisation was asked for in the same moment")}
		}
		if req.whole != nil { // of several the last counts
			r.whole = req.whole
		}
	}
}

// compareRecord compares a change with what is known to be there.
func (c *change) compareRecord() {
	switch {
	case c.before == nil:
	case c.before.Generation > c.generation:
		c.result = upkeep.JobSuperseded
	case c.input == nil && c.account != "" && c.before.Account != "" && c.account != c.before.Account:
		c.fail(fmt.Errorf("site %s is another account's than %s on this server: %w", c.site, c.account, upkeep.ErrRefused))
	}
}

// settleLogs decides how logs are taken, which concerns the shared file alone.
func (r *round) settleLogs() {
	sites := len(r.manifest.Sites)
	for _, c := range r.live() {
		switch {
		case c.input == nil && c.before != nil:
			sites--
		case c.input != nil && c.before == nil:
			sites++
		}
	}
	r.layout.Piped = r.logs(sites, r.process)
	if r.layout.Piped || !r.running || fits(sites, len(r.manifest.Sites), r.process) {
		return
	}
	for _, c := range r.live() {
		if c.input != nil && c.before == nil {
			c.fail(upkeep.WithHint(
				fmt.Errorf("two log files for each of %d sites do not fit into the %d files that the web server may open", sites, r.process.MaxFiles),
				"raise LimitNOFILE of the web server's unit, or let one process take all logs"))
		}
	}
}

func (r *round) render() error {
	renderer := r.o.Server.Renderer()
	common, err := renderer.Default(r.layout)
	if err != nil {
		return fmt.Errorf("making the configuration that all sites share: %w", err)
	}
	r.common = &change{site: "", files: common, probes: renderer.Probes(common)}
	for _, c := range r.live() {
		if c.input == nil {
			continue
		}
		c.input.Layout = r.layout
		if c.files, err = renderer.Site(*c.input); err != nil {
			c.fail(err)
			continue
		}
		c.names = c.input.Site.Names()
	}
	return nil
}

// probesOf are what proves that the server answers with the files of a change.
func (r *round) probesOf(c *change) []vhost.Probe {
	if c.probes == nil {
		c.probes = r.o.Server.Renderer().Probes(c.files)
	}
	return c.probes
}

// NameTakenError refuses a name that another site of upkeep's has on this server. It
// may be on its way out, by a change that was declared before and is done later.
type NameTakenError struct{ Name, Site string }

func (e *NameTakenError) Error() string {
	return fmt.Sprintf("the name %s is answered for site %s on this server", e.Name, e.Site)
}

// claimNames refuses names that are answered already: by another site of the
// same server, or by configuration that is not ours. The server would not warn,
// and whichever file it reads first would have the visitors.
func (r *round) claimNames() {
	changed := map[string]*change{}
	for _, c := range r.live() {
		changed[c.site] = c
	}
	owners := r.manifest.owners(func(site string) bool { return changed[site] != nil })
	for _, c := range r.live() {
		for _, name := range c.names {
			switch owner := owners[name]; {
			case owner != "" && owner != c.site:
				c.fail(&NameTakenError{Name: name, Site: owner})
			case r.foreign.has(name) != "":
				c.fail(foreignName(name, r.foreign.has(name)))
			default:
				owners[name] = c.site
				continue
			}
			c.field = "aliases"
			if name == c.site {
				c.field = "name"
			}
			// What it had stays its own.
			if c.before != nil {
				for _, kept := range c.before.Names {
					owners[kept] = c.site
				}
			}
			break
		}
	}
}

// compare finds out which files differ from those on disk.
func (r *round) compare() error {
	for _, c := range append(r.live(), r.common) {
		if err := r.compareOne(c); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) compareOne(c *change) error {
	wanted := make(map[string]bool, len(c.files))
	same := c.before != nil && c.before.Proven && len(c.before.Files) == len(c.files)
	c.sums = make([]string, len(c.files))
	for i, f := range c.files {
		wanted[f.Path] = true
		c.sums[i] = sumOf(f.Text)
		w := write{file: f, place: r.layout.Place(f.Path)}
		holds, err := r.holds(&w, c.sums[i])
		if err != nil {
			return fmt.Errorf("reading what is there: %w", err)
		}
		if !holds {
			c.writes = append(c.writes, w)
		}
		same = same && c.before.Files[f.Path] == c.sums[i]
	}
	c.unproven = c.input != nil && !same || c.input == nil && c.before != nil
	for _, path := range c.before.paths() {
		if !wanted[path] {
			c.removes = append(c.removes, path)
		}
		wanted[path] = true
	}
	if r.whole != nil {
		if err := r.readRemoved(c); err != nil {
			return err
		}
	}
	if r.whole == nil && c != r.common { // else they are among the strays
		left, err := r.leftovers(c.site, wanted)
		if err != nil {
			return err
		}
		c.removes = append(c.removes, left...)
		c.unproven = c.unproven || slices.ContainsFunc(left, isSite)
	}
	return nil
}

// readRemoved reads what a change would remove, so that it can be shown.
func (r *round) readRemoved(c *change) error {
	c.gone = make(map[string][]byte, len(c.removes))
	for _, path := range c.removes {
		text, err := os.ReadFile(r.layout.Place(path))
		if err == nil {
			c.gone[path] = append([]byte{}, text...) // not nil, which is no file
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("reading what is there: %w", err)
		}
	}
	return nil
}

// leftovers are files of a site that are in place and of which nothing is known: a
// kill came before that was written down. A site that was to go would stay, and
// nobody would ever ask for it again.
func (r *round) leftovers(site string, known map[string]bool) ([]string, error) {
	var left []string
	for _, path := range vhost.Files(site) {
		if known[path] || r.layout.Folder(folderOf(path)) == "" {
			continue
		}
		if place := r.layout.Place(path); made(place) {
			left = append(left, path)
		}
	}
	for _, folder := range vhost.Folders(site) {
		found, err := strays(r.layout.Place(folder), folder, known)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		left = append(left, found...)
	}
	return left, nil
}

// folderOf is the first part of a path.
func folderOf(path string) string {
	folder, _, _ := strings.Cut(path, "/")
	return folder
}

// isSite reports whether the web server reads the file at a reload, and not only
// when it is asked for.
func isSite(path string) bool { return strings.HasPrefix(path, vhost.FolderSites+"/") }

// rewrites reports whether files change that the server reads at a reload.
func (r *round) rewrites() bool {
	if slices.ContainsFunc(append(r.live(), r.common), r.rewritesOne) {
		return true
	}
	return r.whole != nil && slices.ContainsFunc(r.whole.strays, isSite)
}

func (r *round) rewritesOne(c *change) bool {
	return slices.ContainsFunc(c.writes, func(w write) bool { return isSite(w.file.Path) }) || slices.ContainsFunc(c.removes, isSite)
}

// reloads reports whether the server has to read its configuration anew.
func (r *round) reloads() bool {
	return r.rewrites() || slices.ContainsFunc(r.live(), func(c *change) bool { return c.unproven })
}

func (r *round) touches() bool {
	if r.reloads() {
		return true
	}
	for _, c := range append(r.live(), r.common) {
		if len(c.writes)+len(c.removes) > 0 {
			return true
		}
	}
	return r.whole != nil && len(r.whole.strays) > 0
}

// alreadyLive asks sites whose files are on disk as they should be, and of which
// it is not known whether the server has read them: after a kill, and when the
// manifest was lost.
func (r *round) alreadyLive(ctx context.Context) {
	var ask []*change
	for _, c := range r.live() {
		if c.unproven && c.input != nil && len(c.writes)+len(c.removes) == 0 {
			ask = append(ask, c)
		}
	}
	each(ask, func(c *change) { c.unproven = r.prove(ctx, c) != nil })
}

func (r *round) prove(ctx context.Context, c *change) error {
	if c.runsPHP() {
		if err := pingPool(ctx, r.layout.Socket(c.site)); err != nil {
			return err
		}
	}
	for _, p := range r.probesOf(c) {
		if err := r.client.answers(ctx, p, false); err != nil {
			return err
		}
	}
	return nil
}

// stage writes every file that differs beside its place.
func (r *round) stage() error {
	all, files := append(r.live(), r.common), 0
	for _, c := range all {
		files += len(c.writes)
	}
	s := newStager(files)
	for _, c := range all {
		for i := range c.writes {
			if err := r.stageOne(s, &c.writes[i]); err != nil {
				c.fail(err)
				break
			}
		}
	}
	return errors.Join(r.common.err, s.close())
}

func (r *round) stageOne(s *stager, w *write) error {
	if strings.Count(w.file.Path, "/") > 1 { // FOLDER/SITE/NAME
		if err := ownFolder(filepath.Dir(w.place), 0o755); err != nil {
			return err
		}
	}
	group := -1
	if w.file.Group {
		group = r.layout.Group
	}
	var err error
	w.temp, err = s.write(w.place, w.file.Text, w.file.Mode, group)
	return err
}

// discard removes what was staged and not moved into its place.
func (r *round) discard() {
	for _, c := range append(slices.Clone(r.changes), r.common) {
		for _, w := range c.writes {
			if w.temp != "" {
				if err := removeAll(w.temp); err != nil {
					r.o.Logger.Warn("a temporary file stays", "err", err)
				}
			}
		}
	}
}

// finish remembers what is known now. Of a change that failed after its files were
// in place it is known that they are there: the server may read them at any time.
func (r *round) finish() error {
	dirty := r.manifest.Piped != r.layout.Piped
	var good []byte
	r.manifest.Piped = r.layout.Piped
	for _, c := range r.changes {
		if c.result == upkeep.JobSuperseded || c.waits || c.told { // told is what was written down
			continue
		}
		if c.err != nil && !c.moved {
			dirty = c.spoken() || dirty
			continue
		}
		if e := c.entry(); e == nil {
			dirty = dirty || c.before != nil
			delete(r.manifest.Sites, c.site)
		} else if !e.equal(c.before) {
			dirty = true
			r.manifest.Sites[c.site] = e
			good = c.appendGood(good)
		}
	}
	r.noteAstray()
	if err := r.good.add(good, r.manifest.paths); err != nil {
		r.o.Logger.Warn("the last good versions of files were not kept", "err", err)
	}
	r.count(func(s *Stats) { s.Sites, s.Piped = len(r.manifest.Sites), r.layout.Piped })
	if !dirty {
		return nil
	}
	return r.manifest.save(r.o.State)
}

// entry is what is to be remembered of a change; nil for a site that is gone.
func (c *change) entry() *entry {
	switch {
	case c.input == nil && c.err == nil:
		return nil
	case c.input == nil && c.before == nil:
		return &entry{Generation: c.generation, Account: c.account}
	case c.input == nil: // the server may still answer for it
		return &entry{Generation: c.before.Generation, Account: c.before.Account, Names: c.before.Names, Files: c.before.Files}
	}
	e := &entry{Generation: c.generation, Account: c.input.Site.Account, Names: c.names, Files: make(map[string]string, len(c.files)), Proven: c.err == nil, Key: c.key}
	if errors.Is(c.err, errNotRunning) {
		e.Astray = waits
	}
	for i, f := range c.files {
		e.Files[f.Path] = c.sums[i]
	}
	return e
}

// appendGood appends what is worth keeping when the site has answered with it.
func (c *change) appendGood(to []byte) []byte {
	for _, f := range c.files {
		if c.err == nil && isSite(f.Path) {
			to = appendGood(to, f.Path, f.Text)
		}
	}
	return to
}

func (e *entry) equal(o *entry) bool {
	return o != nil && e.Generation == o.Generation && e.Account == o.Account && e.Proven == o.Proven && e.Astray == o.Astray && e.InForce == o.InForce && e.Key == o.Key && slices.Equal(e.Names, o.Names) && maps.Equal(e.Files, o.Files)
}

// answer tells those who asked.
func (r *round) answer(cause error) {
	for _, c := range r.changes {
		r.tell(c)
	}
	if r.whole != nil {
		r.whole.done(r, cause)
	}
}

// deadline is until when a site may take to answer after a reload.
func (r *round) deadline() time.Time {
	return time.Now().Add(max(r.o.Patience, 10*r.pace.stall))
}
