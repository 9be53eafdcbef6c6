package console

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/declare"
	"upkeep/internal/store"
)

func (c *Console) jobRoutes() {
	c.route("GET /jobs", c.jobs)
	c.route("GET /jobs/{id}", c.job)
	c.route("POST /jobs/{id}/retry", c.changeJob("retried", c.o.Hosting.Bounds.Retry))
	c.route("POST /jobs/{id}/read", c.changeJob("read", c.o.Hosting.Bounds.Read))
	c.route("POST /jobs/{id}/cancel", c.changeJob("cancelled", c.o.Hosting.Bounds.Cancel))
}

// jobView is a job as pages show it.
type jobView struct {
	upkeep.Job
	Path, ObjectPath        string
	Made, Began, Ended      moment
	Took                    string
	Retriable, Cancellable  bool
	Unread, Running, Failed bool
	Stands                  string // the state, in the words for its kind
	// FieldLabel is what the form of the site calls the field that is to blame, and
	// Form where that is.
	FieldLabel, Form string
}

func viewJob(j upkeep.Job, now time.Time, staff bool) jobView {
	v := jobView{Job: j, Path: "/jobs/" + strconv.FormatInt(j.ID, 10), ObjectPath: pathOf(j.Object, staff), Made: at(j.Created, now), Began: at(j.Started, now), Ended: at(j.Finished, now)}
	note := j.Kind == upkeep.JobNotification
	v.Unread, v.Stands = note && !j.State.Ended(), string(j.State)
	switch { // nobody works on a message
	case v.Unread:
		v.Stands = "unread"
	case note && j.State == upkeep.JobDone:
		v.Stands = "read"
	}
	v.Running, v.Failed = j.State == upkeep.JobRunning, j.State == upkeep.JobFailed
	v.Retriable = v.Failed || j.State == upkeep.JobCancelled
	v.Cancellable = j.State == upkeep.JobPending && !note
	if root, path, is := strings.Cut(strings.TrimPrefix(j.Object, "image/"), "/"); is && strings.HasPrefix(j.Kind, "image.") {
		v.ObjectPath = imagePath(j.Server, root, path)
		v.Cancellable = v.Cancellable || v.Running // its agent leaves the image as it was
	}
	if site, is := strings.CutPrefix(j.Object, upkeep.KindSite+"/"); is && j.Field != "" {
		v.FieldLabel, v.Form = siteField(j.Field), sitePath(site)+"/edit"
	}
	if !j.Started.IsZero() && j.Finished.After(j.Started) {
		v.Took = roundTime(j.Finished.Sub(j.Started))
	}
	return v
}

func roundTime(d time.Duration) string {
	if d > 10*time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}

func viewJobs(jobs []upkeep.Job, now time.Time, staff bool) []jobView {
	views := make([]jobView, len(jobs))
	for i, j := range jobs {
		views[i] = viewJob(j, now, staff)
	}
	return views
}

// pageJobs is how many jobs a page of the list shows.
const pageJobs = 100

type jobsView struct {
	Jobs                          []jobView
	States                        []option
	Account, Server, Kind, Object string
	Older                         string
	Newest                        bool
	Wrong                         string // with the filter
}

var jobStates = []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning, upkeep.JobDone, upkeep.JobFailed, upkeep.JobSuperseded, upkeep.JobCancelled}

func (c *Console) jobs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := store.JobFilter{Account: q.Get("account"), Server: q.Get("server"), Kind: q.Get("kind"), Object: q.Get("object"), Before: number(r, "before", 0), Limit: pageJobs}
	v := jobsView{Account: f.Account, Server: f.Server, Kind: f.Kind, Object: f.Object, Newest: f.Before == 0}
	keep := url.Values{}
	for _, name := range []string{"account", "server", "kind", "object", "state"} {
		for _, value := range q[name] {
			if value != "" {
				keep.Add(name, value)
			}
		}
	}
	v.Wrong = outside(q, keep, "state", jobStates)
	for _, state := range jobStates {
		on := slices.Contains(q["state"], string(state))
		v.States = append(v.States, option{string(state), string(state), on})
		if on {
			f.States = append(f.States, state)
		}
	}
	jobs, err := c.o.Hosting.Bounds.Jobs(r.Context(), f)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	v.Jobs = viewJobs(jobs, c.o.Now(), access.From(r.Context()).Staff)
	if len(jobs) == pageJobs {
		keep.Set("before", strconv.FormatInt(jobs[len(jobs)-1].ID, 10))
		v.Older = "/jobs?" + keep.Encode()
	}
	c.render(w, r, filtered(v.Wrong), "jobs.html", "Jobs", v)
}

// outside says which values of a filter are none of those that it can have, and takes
// them out of what the next page is asked for by; the rest of the filter stands.
func outside[T ~string](asked, keep url.Values, field string, can []T) string {
	for _, value := range asked[field] {
		if value == "" || slices.Contains(can, T(value)) {
			continue
		}
		keep[field] = slices.DeleteFunc(keep[field], func(one string) bool { return !slices.Contains(can, T(one)) })
		names := make([]string, len(can))
		for i, one := range can {
			names[i] = string(one)
		}
		return fmt.Sprintf("%s %s must be one of %s. What is shown is chosen without it.", upperFirst(field), upkeep.Printable(fmt.Sprintf("%.100q", value)), strings.Join(names, ", "))
	}
	return ""
}

// filtered is the status of a list, with what is wrong with its filter.
func filtered(wrong string) int {
	if wrong != "" {
		return http.StatusUnprocessableEntity
	}
	return http.StatusOK
}

type jobPage struct {
	jobView
	Files  []fileDiff
	Result string // for staff, where there is no better way to show it
	After  []string
}

func (c *Console) job(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		c.fault(w, r, http.StatusNotFound, "There is no such job.")
		return
	}
	job, err := c.o.Hosting.Bounds.Job(r.Context(), id)
	if err != nil {
		c.gone(w, r, err, "job")
		return
	}
	v := jobPage{jobView: viewJob(job, c.o.Now(), access.From(r.Context()).Staff)}
	for _, after := range job.After {
		v.After = append(v.After, strconv.FormatInt(after, 10))
	}
	if v.Files = drift(job); v.Files == nil && access.From(r.Context()).Staff {
		v.Result = indented(job.Result)
	}
	c.render(w, r, http.StatusOK, "job.html", "Job "+r.PathValue("id"), v)
}

func indented(text json.RawMessage) string {
	if len(text) == 0 {
		return ""
	}
	var value any
	if json.Unmarshal(text, &value) != nil {
		return string(text)
	}
	pretty, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return string(text)
	}
	return string(pretty)
}

func (c *Console) changeJob(_ string, do func(context.Context, int64) (upkeep.Job, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if err != nil {
			c.fault(w, r, http.StatusNotFound, "There is no such job.")
			return
		}
		if _, err := do(r.Context(), id); err != nil {
			c.refusedChange(w, r, err, "job")
			return
		}
		http.Redirect(w, r, back(r, "/jobs/"+strconv.FormatInt(id, 10)), http.StatusSeeOther)
	}
}

// back is where a small form sends people when it is done.
func back(r *http.Request, otherwise string) string {
	if to := r.PostForm.Get("back"); to != "" {
		return localPath(to)
	}
	return otherwise
}

// diffLine is a line of a unified diff.
type diffLine struct {
	Kind string // added, removed, place or same
	Text string
}

// maxDiff bounds the lines of a diff on a page.
const maxDiff = 2000

func diffLines(text string) []diffLine {
	var all []diffLine
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "diff ") || strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "+++ ") {
			continue
		}
		if len(all) == maxDiff {
			return append(all, diffLine{"place", "and more"})
		}
		kind := "same"
		switch {
		case strings.HasPrefix(line, "+"):
			kind = "added"
		case strings.HasPrefix(line, "-"):
			kind = "removed"
		case strings.HasPrefix(line, "@"):
			kind = "place"
		}
		all = append(all, diffLine{kind, tabbed(line)})
	}
	return all
}

// tabbed is a line of a file, whose tabs a page can show.
func tabbed(line string) string {
	parts := strings.Split(line, "\t")
	for i, part := range parts {
		parts[i] = upkeep.Printable(part)
	}
	return strings.Join(parts, "\t")
}

func documentDiff(was, is upkeep.Object) []diffLine { return diffLines(declare.Diff(was, is)) }

// drift is how files on a server differ, by what a job found.
func drift(job upkeep.Job) []fileDiff {
	var result struct{ Drift map[string]string }
	if job.Kind != upkeep.JobSiteSync || json.Unmarshal(job.Result, &result) != nil {
		return nil
	}
	var files []fileDiff
	for _, path := range slices.Sorted(maps.Keys(result.Drift)) {
		files = append(files, fileDiff{path, diffLines(result.Drift[path])})
	}
	return files
}

// viewLook is what a server says that a site would change there.
func viewLook(job upkeep.Job, err error) serverPreview {
	v := serverPreview{Server: job.Server, Job: job.ID, Files: drift(job)}
	switch {
	case err != nil:
		v.Says = "It cannot be told what this would change: " + err.Error()
	case job.State == upkeep.JobFailed:
		v.Says = job.Error
	case !job.State.Ended():
		v.Says = "It has not answered yet what this would change there."
	case len(v.Files) == 0:
		v.Says = "No file would change."
	}
	return v
}
