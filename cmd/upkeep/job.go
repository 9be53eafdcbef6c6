package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/task"
)

func newJob(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "job",
		Short: "See and steer the work that agents do on servers",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(newJobList(a), newJobShow(a), newJobWatch(a), newJobRun(a),
		newJobAction(a, "retry", "Retry a job that failed or was cancelled"),
		newJobAction(a, "cancel", "Give up a job that has not ended"),
		newJobAction(a, "read", "Say that a notification was read"))
	return c
}

// jobFlags are those that choose jobs.
func jobFlags(c *cobra.Command, f *wire.JobFilter, states *[]string) {
	c.Flags().StringVar(&f.Account, "account", "", "only jobs of this `account`")
	c.Flags().StringVar(&f.Server, "server", "", "only jobs for this `server`")
	c.Flags().StringVar(&f.Kind, "kind", "", "only jobs of this `kind`: "+strings.Join(task.Kinds(), ", "))
	c.Flags().StringVar(&f.Object, "object", "", "only jobs about this `object`, such as site/example.test")
	c.Flags().StringSliceVar(states, "state", nil, "only jobs in these `states`: pending, running, done, failed, superseded, cancelled; of notifications also unread, read")
}

// choose reads the states that jobs are chosen by, and refuses a kind that there
// is not.
func choose(f *wire.JobFilter, names []string) error {
	if f.Kind != "" && !slices.Contains(task.Kinds(), f.Kind) {
		return &usageError{err: fmt.Errorf("--kind %q must be one of %s", f.Kind, strings.Join(task.Kinds(), ", "))}
	}
	f.States = nil
	notes := 0
	for _, name := range names {
		state := upkeep.JobState(name)
		if of, is := map[upkeep.JobState]upkeep.JobState{unread: upkeep.JobPending, read: upkeep.JobDone}[state]; is {
			state = of
			notes++
		}
		switch state {
		case upkeep.JobPending, upkeep.JobRunning, upkeep.JobDone, upkeep.JobFailed, upkeep.JobSuperseded, upkeep.JobCancelled:
			f.States = append(f.States, state)
		default:
			return &usageError{err: fmt.Errorf("--state %q must be pending, running, done, failed, superseded or cancelled; or, of notifications, unread or read", name)}
		}
	}
	if notes > 0 && notes == len(names) && f.Kind == "" {
		f.Kind = upkeep.JobNotification
	}
	if notes > 0 && f.Kind != upkeep.JobNotification {
		// Control would choose by kind and by state apart, which is more than was asked for.
		return &usageError{err: errors.New("--state unread and read are of notifications alone: ask for these without another --kind or other states")}
	}
	return nil
}

func newJobList(a *app) *cobra.Command {
	var f wire.JobFilter
	var states []string
	c := &cobra.Command{
		Use:     "list",
		Short:   "List jobs, the newest first",
		Example: "  upkeep job list --state pending,failed\n  upkeep job list --account acme",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.Limit < 1 || f.Limit > maxListed {
				return &usageError{err: fmt.Errorf("--limit %d must be 1 to %d", f.Limit, maxListed)}
			}
			if err := choose(&f, states); err != nil {
				return err
			}
			return a.jobs(c.Context(), f)
		},
	}
	jobFlags(c, &f, &states)
	c.Flags().Int64Var(&f.Before, "before", 0, "only jobs with an `id` below this one, for the next page")
	c.Flags().IntVarP(&f.Limit, "limit", "n", 50, "how `many` to show at most")
	return c
}

func (a *app) jobs(ctx context.Context, f wire.JobFilter) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	jobs, err := up.Jobs(ctx, f)
	if err != nil {
		return err
	}
	if a.output != "table" {
		documents := make([]jobDocument, len(jobs))
		for i, job := range jobs {
			documents[i] = document(job)
		}
		return a.show(documents)
	}
	if len(jobs) == 0 {
		fmt.Fprintln(a.err, "there are no such jobs")
		return nil
	}
	return jobTable(jobs, time.Now()).write(a.out)
}

// jobDocument is a job for programs, with its end also where there is none yet.
type jobDocument struct {
	upkeep.Job
	Finished *time.Time `json:"finished"`
}

func document(job upkeep.Job) jobDocument {
	if job.Finished.IsZero() {
		return jobDocument{Job: job}
	}
	return jobDocument{job, &job.Finished}
}

func jobTable(jobs []upkeep.Job, now time.Time) *table {
	t := newTable("ID", "STATE", "SERVER", "KIND", "OBJECT", "ACCOUNT", "WHEN", "WHAT")
	for _, job := range jobs {
		t.add(strconv.FormatInt(job.ID, 10), stateOf(job), job.Server, job.Kind, job.Object, job.Account, ago(when(job), now), what(job))
	}
	return t
}

// What people call the states of a notification, which waits for nothing but to be
// read.
const (
	unread upkeep.JobState = "unread"
	read   upkeep.JobState = "read"
)

// stateOf is the state of a job for people.
func stateOf(job upkeep.Job) string {
	switch {
	case job.Kind == upkeep.JobNotification && job.State == upkeep.JobPending:
		return string(unread)
	case job.Kind == upkeep.JobNotification && job.State == upkeep.JobDone:
		return string(read)
	}
	return string(job.State)
}

// when is the latest time of a job.
func when(job upkeep.Job) time.Time {
	switch {
	case !job.Finished.IsZero():
		return job.Finished
	case !job.Started.IsZero():
		return job.Started
	}
	return job.Created
}

// what is the one thing to say of a job.
func what(job upkeep.Job) string {
	switch {
	case job.Error != "" && job.Field != "":
		return job.Field + ": " + strings.TrimPrefix(job.Error, job.Field+": ") // which may say so itself
	case job.Error != "":
		return job.Error
	case job.Kind == upkeep.JobNotification:
		return job.Text
	case job.State == upkeep.JobRunning && job.Percent > 0:
		return fmt.Sprintf("%s (%d %%)", job.Progress, job.Percent)
	case job.State == upkeep.JobRunning:
		return job.Progress
	case job.State == upkeep.JobPending && len(job.After) > 0:
		return "waits for job " + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(job.After)), ", "), "[]")
	case job.Away != "":
		return job.Away
	}
	return ""
}

func newJobShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show one job with its result",
		Args:  exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withJob(args[0], func(up *client.Client, id int64) (upkeep.Job, error) { return up.Job(c.Context(), id) })
		},
	}
}

func newJobAction(a *app, action, short string) *cobra.Command {
	return &cobra.Command{
		Use:   action + " ID",
		Short: short,
		Args:  exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withJob(args[0], func(up *client.Client, id int64) (upkeep.Job, error) { return up.ChangeJob(c.Context(), id, action) })
		},
	}
}

// withJob does something about one job and shows how it then is.
func (a *app) withJob(text string, do func(*client.Client, int64) (upkeep.Job, error)) error {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return &usageError{err: fmt.Errorf("ID %q must be the number of a job", text)}
	}
	up, err := a.client()
	if err != nil {
		return err
	}
	job, err := do(up, id)
	if err != nil {
		return err
	}
	return a.jobDetails(job)
}

func (a *app) jobDetails(job upkeep.Job) error {
	if a.output != "table" {
		return a.show(document(job))
	}
	if err := jobTable([]upkeep.Job{job}, time.Now()).write(a.out); err != nil {
		return err
	}
	if len(job.Result) == 0 {
		return nil
	}
	var result task.SyncResult
	if job.Kind != upkeep.JobSiteSync || json.Unmarshal(job.Result, &result) != nil {
		_, err := fmt.Fprintln(a.out, upkeep.Printable(string(job.Result)))
		return err
	}
	return a.drift(result)
}

func newJobRun(a *app) *cobra.Command {
	var server, payload string
	var wait bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   "run KIND",
		Short: "Have a server do one job",
		Long: `Have a server do one job of a kind. What the job is about is its payload, as
JSON: --payload '{...}', or - for standard input. The agent's policy on the
server has the last word.

Kinds: ` + strings.Join(task.Kinds(), ", "),
		Example: `  upkeep job run server.facts --server web1 --wait
  upkeep job run user.ensure --server web1 --payload '{"account":"acme"}'
  upkeep job run mkdir --server web1 --payload '{"root":"home","path":"acme/backup","owner":"acme","group":"acme","mode":"0750"}'
  upkeep job run image.grow --server vm1 --payload '{"root":"vms","path":"web1.img","to":"8G"}' --wait`,
		Args: exactly("KIND"),
		RunE: func(c *cobra.Command, args []string) error {
			if payload == "-" {
				text, err := io.ReadAll(io.LimitReader(a.in, wire.MaxBody))
				if err != nil {
					return fmt.Errorf("reading the payload: %w", err)
				}
				payload = string(text)
			}
			if payload != "" && !json.Valid([]byte(payload)) {
				return &usageError{err: errors.New("--payload must be JSON, such as {}")}
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			made, err := up.RunJob(c.Context(), wire.NewJob{Kind: args[0], Server: server, Payload: json.RawMessage(payload)})
			if err != nil {
				return err
			}
			if !wait {
				return a.jobDetails(made)
			}
			jobs, err := a.await(c.Context(), up, patience, made.ID)
			if err != nil {
				return err
			}
			done, err := up.Job(c.Context(), made.ID) // the stream leaves results out
			if err != nil {
				return err
			}
			return errors.Join(a.jobDetails(done), unlessDone(jobs))
		},
	}
	c.Flags().StringVar(&server, "server", "", "`name` of the server")
	c.Flags().StringVar(&payload, "payload", "", "what the job is about, as `JSON`")
	waitFlags(c, &wait, &patience)
	return c
}

func waitFlags(c *cobra.Command, wait *bool, patience *time.Duration) {
	c.Flags().BoolVar(wait, "wait", false, "return when the jobs have ended; status 1 when one failed")
	c.Flags().DurationVar(patience, "timeout", 5*time.Minute, "how `long` to wait")
}

func newJobWatch(a *app) *cobra.Command {
	var f wire.JobFilter
	var states []string
	c := &cobra.Command{
		Use:   "watch [ID...]",
		Short: "Show jobs as they change, until they have ended or Ctrl-C",
		Long: `Show jobs as they change. With IDs it ends when these have ended, with status 1
when one of them failed. With -o json each change is one line of JSON.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if err := choose(&f, states); err != nil {
				return err
			}
			var ids []int64
			for _, arg := range args {
				id, err := strconv.ParseInt(arg, 10, 64)
				if err != nil || id < 1 {
					return &usageError{err: fmt.Errorf("ID %q must be the number of a job", arg)}
				}
				ids = append(ids, id)
			}
			up, err := a.client()
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				err = up.FollowJobs(c.Context(), f, func() error { return nil }, a.jobLine)
				if errors.Is(err, context.Canceled) {
					return nil // Ctrl-C is how following ends
				}
				return err
			}
			jobs, err := a.followJobs(c.Context(), up, ids, a.jobLine)
			return errors.Join(err, unlessDone(jobs))
		},
	}
	jobFlags(c, &f, &states)
	return c
}

func (a *app) jobLine(job upkeep.Job) error {
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(document(job))
	}
	line := fmt.Sprintf("%s  job %d  %-10s %s %s on %s", time.Now().Format("15:04:05.000"), job.ID, job.State, job.Kind, job.Object, job.Server)
	if text := what(job); text != "" {
		line += ": " + text
	}
	_, err := fmt.Fprintln(a.out, upkeep.Printable(line))
	return err
}

// errEnded ends following when there is nothing left to wait for.
var errEnded = errors.New("all jobs have ended")

// followJobs calls each with every change of some jobs until all have ended, and
// returns them as they then are.
func (a *app) followJobs(ctx context.Context, up *client.Client, ids []int64, each func(upkeep.Job) error) ([]upkeep.Job, error) {
	latest := map[int64]upkeep.Job{}
	take := func(job upkeep.Job) error {
		if before, known := latest[job.ID]; known && before.State.Ended() {
			return nil
		}
		latest[job.ID] = job
		return each(job)
	}
	finished := func() error {
		for _, id := range ids {
			if !latest[id].State.Ended() || latest[id].ID == 0 {
				return nil
			}
		}
		return errEnded
	}
	wanted := map[int64]bool{}
	for _, id := range ids {
		wanted[id] = true
	}
	for {
		err := up.FollowJobs(ctx, wire.JobFilter{}, func() error {
			for _, id := range ids { // how they are now, after what follows was subscribed to
				job, err := up.Job(ctx, id)
				if err != nil {
					return err
				}
				if err := take(job); err != nil {
					return err
				}
			}
			return finished()
		}, func(job upkeep.Job) error {
			if !wanted[job.ID] {
				return nil
			}
			if err := take(job); err != nil {
				return err
			}
			return finished()
		})
		switch {
		case errors.Is(err, errEnded):
			jobs := make([]upkeep.Job, len(ids))
			for i, id := range ids {
				jobs[i] = latest[id]
			}
			return jobs, nil
		case err != nil:
			return nil, err
		}
		// The stream ended because this reader fell behind: ask anew.
	}
}

// await waits for jobs to end, and says at once what cannot come soon: that the
// agent of a server is not connected.
func (a *app) await(ctx context.Context, up *client.Client, patience time.Duration, ids ...int64) ([]upkeep.Job, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	latest, said := map[int64]upkeep.Job{}, map[string]bool{}
	jobs, err := a.followJobs(waiting, up, ids, func(job upkeep.Job) error {
		latest[job.ID] = job
		if job.Away != "" && !said[job.Away] {
			said[job.Away] = true
			fmt.Fprintf(a.err, "note: job %d %s\n", job.ID, upkeep.Printable(job.Away))
		}
		return nil
	})
	if err != nil && ctx.Err() == nil && errors.Is(waiting.Err(), context.DeadlineExceeded) {
		return nil, upkeep.WithHint(&timeoutError{waiting: notEnded(ctx, up, latest, ids, patience)}, "what is not done yet goes on; see: upkeep job list --state pending,running")
	}
	return jobs, err
}

// notEnded says of jobs that did not end in time what the first of them waits for, as
// it is now: its agent may have gone since.
func notEnded(ctx context.Context, up *client.Client, latest map[int64]upkeep.Job, ids []int64, patience time.Duration) string {
	open := slices.DeleteFunc(slices.Clone(ids), func(id int64) bool { return latest[id].State.Ended() })
	have := "jobs have"
	if len(open) == 1 {
		have = "job has"
	}
	text := fmt.Sprintf("%d %s not ended after %s", len(open), have, patience)
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, id := range open {
		job, err := up.Job(ctx, id)
		if err == nil && job.Away != "" {
			return fmt.Sprintf("%s: job %d %s", text, id, job.Away)
		}
	}
	return text
}

// askTime bounds a question about what is late already.
const askTime = 5 * time.Second

// unlessDone is the error of the first job that did not end well.
func unlessDone(jobs []upkeep.Job) error {
	for _, job := range jobs {
		if job.State == upkeep.JobFailed || job.State == upkeep.JobCancelled {
			return fmt.Errorf("job %d (%s %s on %s) %s: %s", job.ID, job.Kind, job.Object, job.Server, job.State, what(job))
		}
	}
	return nil
}
