package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/store"
)

// Jobs tells of jobs and does what people ask for with them.
type Jobs interface {
	List(ctx context.Context, f store.JobFilter) ([]upkeep.Job, error)
	Show(ctx context.Context, id int64) (upkeep.Job, error)
	// Watch returns jobs as they change, from now on. The channel is closed by
	// cancel, and when its reader falls too far behind.
	Watch() (jobs <-chan *upkeep.Job, cancel func())
	Retry(ctx context.Context, id int64, who string) (upkeep.Job, error)
	Cancel(ctx context.Context, id int64, who string) (upkeep.Job, error)
	// Read ends a notification.
	Read(ctx context.Context, id int64, who string) (upkeep.Job, error)
	Run(ctx context.Context, kind string, payload json.RawMessage, server, who string) (upkeep.Job, error)
}

// ChooseJobsInput says which jobs are wanted.
type ChooseJobsInput struct {
	Account string            `query:"account" maxLength:"63" doc:"Only jobs of this account."`
	Server  string            `query:"server" maxLength:"63" doc:"Only jobs for this server."`
	Kind    string            `query:"kind" maxLength:"40" doc:"Only jobs of this kind."`
	Object  string            `query:"object" maxLength:"400" doc:"Only jobs about this object, such as site/example.test."`
	State   []upkeep.JobState `query:"state" enum:"pending,running,done,failed,superseded,cancelled" doc:"Only jobs in one of these states."`
}

type jobsInput struct {
	Paging
	ChooseJobsInput
	Before int64 `query:"before" minimum:"0" doc:"Only jobs with a lower id: that of the last one on the page before."`
	Limit  int   `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"How many to return at most."`
}

func (in jobsInput) filter() store.JobFilter {
	return store.JobFilter{Account: in.Account, Server: in.Server, Kind: in.Kind, Object: in.Object, States: in.State, Before: in.Before, Limit: in.Limit}
}

// JobInput names a job.
type JobInput struct {
	ID int64 `path:"id" minimum:"1" example:"7" doc:"The number of the job."`
}

type runInput struct{ Body wire.NewJob }

type jobOutput struct{ Body upkeep.Job }

type jobsOutput struct {
	Next string `header:"Link" doc:"The next page, if there is one, with rel=next."`
	Body struct {
		Jobs []upkeep.Job `json:"jobs" nullable:"false"`
	}
}

func (a *API) jobRoutes(h huma.API) {
	huma.Register(h, secured(huma.Operation{OperationID: "list-jobs", Method: http.MethodGet, Path: "/api/v1/jobs",
		Summary: "Jobs, the newest first"}), func(ctx context.Context, in *jobsInput) (*jobsOutput, error) {
		jobs, err := a.bounds.Jobs(ctx, in.filter())
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &jobsOutput{Next: in.older(len(jobs) == in.Limit, func() int64 { return jobs[len(jobs)-1].ID })}
		out.Body.Jobs = append([]upkeep.Job{}, jobs...)
		return out, nil
	})
	huma.Register(h, secured(huma.Operation{OperationID: "run-job", Method: http.MethodPost, Path: "/api/v1/jobs",
		Summary: "Have a server do one job", DefaultStatus: http.StatusCreated}), func(ctx context.Context, in *runInput) (*jobOutput, error) {
		return a.job(ctx)(a.o.Jobs.Run(ctx, in.Body.Kind, in.Body.Payload, in.Body.Server, callerOf(ctx).Who))
	})
	huma.Register(h, secured(huma.Operation{OperationID: "get-job", Method: http.MethodGet, Path: "/api/v1/jobs/{id}",
		Summary: "One job, with its result"}), func(ctx context.Context, in *JobInput) (*jobOutput, error) {
		return a.job(ctx)(a.bounds.Job(ctx, in.ID))
	})
	for _, action := range []struct {
		name, summary string
		do            func(ctx context.Context, id int64) (upkeep.Job, error)
	}{
		{"retry", "Retry a job that failed or was cancelled", func(ctx context.Context, id int64) (upkeep.Job, error) {
			return a.bounds.Retry(ctx, id)
		}},
		{"read", "Say that a notification was read", func(ctx context.Context, id int64) (upkeep.Job, error) {
			return a.bounds.Read(ctx, id)
		}},
		{"cancel", "Give a job up that has not ended", func(ctx context.Context, id int64) (upkeep.Job, error) {
			return a.bounds.Cancel(ctx, id)
		}},
	} {
		huma.Register(h, secured(huma.Operation{OperationID: action.name + "-job", Method: http.MethodPost, Path: "/api/v1/jobs/{id}/" + action.name,
			Summary: action.summary}), func(ctx context.Context, in *JobInput) (*jobOutput, error) {
			return a.job(ctx)(action.do(ctx, in.ID))
		})
	}
	stream := secured(huma.Operation{OperationID: "follow-jobs", Method: http.MethodGet, Path: "/api/v1/jobs/stream",
		Summary: "Jobs as they change, as server-sent events whose data is the job as JSON"})
	stream.Responses = map[string]*huma.Response{"200": {Description: "A stream without an end.", Content: map[string]*huma.MediaType{
		"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}}}
	huma.Register(h, stream, func(ctx context.Context, in *ChooseJobsInput) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(h huma.Context) {
			_, w := humago.Unwrap(h)
			if err := a.followJobs(ctx, NewStream(w), *in); ctx.Err() == nil {
				a.log.Debug("a stream of jobs ended", "err", err)
			}
		}}, nil
	})
}

// job makes an answer of what a method of [Jobs] returned.
func (a *API) job(ctx context.Context) func(upkeep.Job, error) (*jobOutput, error) {
	return func(job upkeep.Job, err error) (*jobOutput, error) {
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		return &jobOutput{job}, nil
	}
}

// followJobs sends jobs until the reader leaves or falls behind, when it is to
// ask anew: what counts is how a job stands now, not each step it took.
func (a *API) followJobs(ctx context.Context, s *Stream, in ChooseJobsInput) error {
	caller := callerOf(ctx)
	changes, cancel := a.o.Jobs.Watch()
	defer cancel()
	if err := s.Comment("listening"); err != nil {
		return err
	}
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := s.Comment("alive"); err != nil {
				return err
			}
		case job, open := <-changes:
			if !open {
				return nil
			}
			if !in.matches(*job) || !caller.Owns(job.Account) {
				continue
			}
			text, err := json.Marshal(job)
			if err != nil {
				return err
			}
			if err := s.Send(0, "job", string(text)); err != nil {
				return err
			}
		}
	}
}

func (in ChooseJobsInput) matches(job upkeep.Job) bool {
	for _, one := range [][2]string{{in.Account, job.Account}, {in.Server, job.Server}, {in.Kind, job.Kind}, {in.Object, job.Object}} {
		if one[0] != "" && one[0] != one[1] {
			return false
		}
	}
	for _, state := range in.State {
		if state == job.State {
			return true
		}
	}
	return len(in.State) == 0
}
