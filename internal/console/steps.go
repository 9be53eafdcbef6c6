package console

import (
	"slices"
	"time"

	"upkeep"
)

// course is the way of the last change of a site to one of its servers.
type course struct {
	Server string
	Steps  []step
}

// step is one of the things that happen on that way, in their order.
type step struct {
	Text  string
	State string // done, now, failed or todo
	Says  string
	Field string // of the form, which is to blame
}

// Mark is the shape that stands for the state.
func (s step) Mark() string {
	switch s.State {
	case "done":
		return upkeep.Up.String()
	case "failed":
		return upkeep.Down.String()
	}
	return upkeep.Unknown.String()
}

// courses are made of the newest job that brings the site to each of its servers; of
// a server without one nothing is known but what it answers.
func courses(site upkeep.SiteStatus, jobs []upkeep.Job, now time.Time) []course {
	var all []course
	for _, server := range site.Servers {
		at := slices.IndexFunc(jobs, func(j upkeep.Job) bool { return j.Kind == upkeep.JobSiteApply && j.Server == server.Server })
		if at >= 0 {
			all = append(all, course{server.Server, steps(jobs[at], now)})
		}
	}
	return all
}

func steps(j upkeep.Job, now time.Time) []step {
	all := []step{{Text: "saved", State: "done", Says: at(j.Created, now).Ago}, {Text: "taken by " + j.Server}, {Text: "written, tested and loaded"}, {Text: "answering"}}
	present, state, says, blamed := 1, "now", "it waits for its turn", ""
	switch j.State {
	case upkeep.JobRunning:
		present, says = 2, j.Progress
	case upkeep.JobDone:
		present = len(all)
		all[3].Says = at(j.Finished, now).Ago
	case upkeep.JobFailed:
		state, says = "failed", j.Error
		blamed = siteField(j.Field)
		if !j.Started.IsZero() { // what waits for another job may fail before it began
			present = 2
		}
	case upkeep.JobSuperseded, upkeep.JobCancelled:
		state, says = "failed", "it was "+string(j.State)
	}
	for i := 1; i < len(all); i++ {
		switch {
		case i < present:
			all[i].State = "done"
		case i == present:
			all[i].State, all[i].Says, all[i].Field = state, says, blamed
		default:
			all[i].State = "todo"
		}
	}
	return all
}
