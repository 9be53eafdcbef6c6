package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"

	"upkeep"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
)

// done is what is kept of the last job of an object that was carried out.
type done struct {
	Object     string `json:"object"`
	Kind       string `json:"kind"`
	Generation int64  `json:"generation"`
	Job        int64  `json:"job"`
	Sum        string `json:"sum"` // of the payload
	// Kept is true for a site.remove that left the files alone.
	Kept bool `json:"kept,omitempty"`
	// Result is what was told of it, for kinds that are not done again.
	Result json.RawMessage `json:"result,omitempty"`
	// Pages is where the pages are of a site that was applied, or elsewhere.
	Pages string `json:"pages,omitempty"`
}

// elsewhere is in place of a folder that another server has.
const elsewhere = "elsewhere"

// maxKept bounds the results that are kept, in bytes.
const maxKept = 4 << 10

// doneOf is what is to be kept of a job. A site is the same whatever it was sent
// together with.
func doneOf(job job) done {
	text := []byte(job.Payload)
	if apply, is := job.payload.(task.SiteApply); is {
		if alone, err := apply.Text(); err == nil { // else it counts as another each time
			text = alone
		}
	}
	remove, is := job.payload.(task.SiteRemove)
	return done{Object: job.Object, Kind: job.Kind, Generation: job.Generation, Job: job.ID, Sum: sumOf(text), Kept: is && remove.KeepFiles}
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// applied remembers, for each object and kind, what was carried out last, so
// that an older signed job that somebody kept back or plays again does nothing.
//
// It is a log that each job appends a line to, because jobs come by the thousand
// and the whole would have to be written for each. Jobs that end at about the
// same time share one sync. A line that was cut off by a power cut is one that no
// job waited for. The log is written anew, with one line for each object and
// kind, when the agent starts.
type applied struct {
	mu   sync.Mutex
	done map[string]map[string]done // what was done last, by object and kind
	file *os.File
	size int64 // of the file; belongs to whoever syncs
	// next collects the lines of the jobs that wait for the sync after the one
	// that is under way.
	next    *batch
	syncing bool
}

// batch is lines that are made durable together.
type batch struct {
	lines []byte
	done  chan struct{}
	err   error // readable once done is closed
}

const (
	appliedFile = "applied.log"
	maxApplied  = 1 << 30 // bytes: ten thousand sites make 2 MB
)

func openApplied(state *safefs.Dir) (*applied, error) {
	a := &applied{done: map[string]map[string]done{}}
	text, err := state.ReadFile(appliedFile, maxApplied)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading which generations were applied: %w", err)
	}
	for line := range bytes.Lines(text) {
		var d done
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // cut off
		}
		if err := json.Unmarshal(line, &d); err != nil {
			return nil, upkeep.WithHint(fmt.Errorf("reading which generations were applied: %s has a malformed line: %w", filepath.Join(state.Path(), appliedFile), err),
				"move the file away to begin anew; until each object was applied again, an older job could be played again within a day of its being made")
		}
		a.remember(d)
	}
	var whole bytes.Buffer
	for _, kinds := range a.done {
		for _, d := range kinds {
			whole.Write(d.line())
		}
	}
	if _, err := state.WriteFile(appliedFile, whole.Bytes(), ownFile()); err != nil {
		return nil, fmt.Errorf("writing which generations were applied: %w", err)
	}
	// The folder is root's alone, which reading it has proven.
	a.file, err = os.OpenFile(filepath.Join(state.Path(), appliedFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	a.size = int64(whole.Len())
	return a, nil
}

func (d done) line() []byte {
	line, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(line, '\n')
}

func (a *applied) remember(d done) {
	if a.done[d.Object] == nil {
		a.done[d.Object] = map[string]done{}
	}
	a.done[d.Object][d.Kind] = d
}

// verdicts on a job before it is begun.
type verdict int

const (
	fresh      verdict = iota // it is to be done
	already                   // the very same was done
	superseded                // something newer was done
)

// judge compares a job with what was done for its object. Generations count
// first; within one, the ids of jobs, because a site is also applied again when
// its account changes, and removed from a server that it left, without a
// generation of its own. Jobs of generation 0 are about nothing that is declared
// and are always done.
//
// Kinds that make and kinds that remove undo each other, so that a job has to be
// newer than what both did; two kinds that make, such as site.files and
// site.apply, each have their own turn within a generation. A server that goes on
// holding the files of a site and answers for it no more does both in either order.
func (a *applied) judge(job job) (verdict, done) {
	if job.Generation == 0 {
		return fresh, done{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	mine := doneOf(job)
	for kind, last := range a.done[job.Object] {
		switch {
		case mine.apart(last):
		case job.Generation < last.Generation:
			return superseded, last
		case job.Generation > last.Generation:
		case kind == job.Kind && mine.Sum == last.Sum:
			if !a.undone(last) {
				return already, last
			}
		case kind == upkeep.JobSiteRemove && kind == job.Kind && last.Sum == "":
			// A synchronisation took the site out of the web server. A removal of its own
			// that had failed before does what is left to do: it takes its files away.
		case job.ID < last.Job && (kind == job.Kind || removes(kind) != removes(job.Kind)):
			return superseded, last
		}
	}
	return fresh, done{}
}

// undone reports whether a later job of the opposite kind was done.
func (a *applied) undone(d done) bool {
	for kind, other := range a.done[d.Object] {
		if removes(kind) != removes(d.Kind) && !d.apart(other) && (other.Generation > d.Generation || other.Generation == d.Generation && other.Job > d.Job) {
			return true
		}
	}
	return false
}

// apart reports whether two jobs about one object have nothing to do with each other:
// one is about the files of a site, and the other takes it out of the web server alone.
func (d done) apart(other done) bool {
	return d.Kind == upkeep.JobSiteFiles && other.Kind == upkeep.JobSiteRemove && other.Kept ||
		other.Kind == upkeep.JobSiteFiles && d.Kind == upkeep.JobSiteRemove && d.Kept
}

func removes(kind string) bool { return kind == upkeep.JobSiteRemove || kind == upkeep.JobUserRemove }

// eachSite calls f with what was done last about each site that a web server was to
// serve, or to serve no more. It must not call back.
func (a *applied) eachSite(f func(done)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, byKind := range a.done {
		served, is := byKind[upkeep.JobSiteApply]
		gone, removed := byKind[upkeep.JobSiteRemove]
		switch {
		case removed && (!is || gone.newer(served)):
			f(gone)
		case is:
			f(served)
		}
	}
}

// last returns what was done last for an object by jobs of a kind.
func (a *applied) last(object, kind string) done {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done[object][kind]
}

// servedBelow is a site, other than one, that was applied last with its pages below a
// folder; empty for none.
func (a *applied) servedBelow(folder, but string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for object, byKind := range a.done {
		served, is := byKind[upkeep.JobSiteApply]
		if !is || object == but || !strings.HasPrefix(served.Pages, folder) {
			continue
		}
		if gone, is := byKind[upkeep.JobSiteRemove]; !is || served.newer(gone) {
			return strings.TrimPrefix(object, upkeep.KindSite+"/")
		}
	}
	return ""
}

// sites are what site.apply jobs have done and nothing newer has undone, by the sums
// of what they were sent.
func (a *applied) sites() map[string]done {
	all := map[string]done{}
	a.eachSite(func(d done) {
		if d.Kind == upkeep.JobSiteApply {
			all[d.Sum] = d
		}
	})
	return all
}

// same reports whether two are of the same work, whatever was told of it.
func (d done) same(other done) bool {
	d.Result, other.Result = nil, nil
	return reflect.DeepEqual(d, other)
}

func (d done) newer(other done) bool {
	return d.Generation > other.Generation || d.Generation == other.Generation && d.Job > other.Job
}

// record remembers what was done, once that would outlive a power cut. What could not
// be written is not remembered either: its job fails, and is done anew when it is retried.
func (a *applied) record(all ...done) error {
	var lines []byte
	for _, d := range all {
		if d.Generation > 0 {
			lines = append(lines, d.line()...)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	if err := a.append(lines); err != nil {
		return fmt.Errorf("keeping what was applied: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range all {
		if d.Generation > 0 {
			a.remember(d)
		}
	}
	return nil
}

// append writes lines, together with those of others that come meanwhile.
func (a *applied) append(lines []byte) error {
	a.mu.Lock()
	if a.next == nil {
		a.next = &batch{done: make(chan struct{})}
	}
	mine := a.next
	mine.lines = append(mine.lines, lines...)
	if a.syncing {
		a.mu.Unlock()
		<-mine.done
		return mine.err
	}
	a.syncing = true
	for a.next != nil { // others may have joined meanwhile
		batch := a.next
		a.next = nil
		a.mu.Unlock()
		batch.err = a.write(batch.lines)
		close(batch.done)
		a.mu.Lock()
	}
	a.syncing = false
	a.mu.Unlock()
	return mine.err
}

func (a *applied) write(lines []byte) error {
	_, err := a.file.Write(lines)
	if err == nil {
		err = a.file.Sync()
	}
	if err != nil {
		// The next line must not go on where this one was cut off, as by a full disk: the
		// agent could not read the file when it starts.
		return errors.Join(err, a.file.Truncate(a.size))
	}
	a.size += int64(len(lines))
	return nil
}

func (a *applied) close() error { return a.file.Close() }
