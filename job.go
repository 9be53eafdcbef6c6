package upkeep

import (
	"encoding/json"
	"time"
)

// Kinds of jobs. Package internal/task has the type of each.
const (
	JobMkdir        = "mkdir"
	JobUserEnsure   = "user.ensure"
	JobUserRemove   = "user.remove"
	JobSiteFiles    = "site.files"
	JobSiteApply    = "site.apply"
	JobSiteRemove   = "site.remove"
	JobSiteSync     = "site.sync"
	JobZonePublish  = "zone.publish"
	JobNotification = "notification"
	JobServerFacts  = "server.facts"
	JobServerPurge  = "server.purge"

	JobImageList   = "image.list"
	JobImageCreate = "image.create"
	JobImageGrow   = "image.grow"
	JobImageShrink = "image.shrink"
	JobImageMkFS   = "image.mkfs"
	JobImageCheck  = "image.check"
	JobImageCopy   = "image.copy"
	JobImageClone  = "image.clone"
	JobImagePack   = "image.pack"
	JobImageUnpack = "image.unpack"
)

// JobState is how far a job has come.
type JobState string

// States of jobs. A job ends in one of the last four; a failed one stays visible
// and can be retried.
const (
	JobPending    JobState = "pending"
	JobRunning    JobState = "running"
	JobDone       JobState = "done"
	JobFailed     JobState = "failed"
	JobSuperseded JobState = "superseded" // a newer generation made it pointless
	JobCancelled  JobState = "cancelled"
)

// Ended reports whether nothing will be done about the job any more, unless a
// person retries it.
func (s JobState) Ended() bool { return s != JobPending && s != JobRunning }

// Job is one typed, privileged piece of work for one server. It names what it is
// about by kind, object and generation; what is to be done follows from the
// declared rows when it is sent, never from text in the job.
type Job struct {
	ID int64 `json:"id"`
	// Account is whose it is: its people see it. Empty for the operator's own.
	Account string `json:"account"`
	Server  string `json:"server"`
	Kind    string `json:"kind"`
	// Object is what it is about, such as "site/example.test". While a job is
	// pending there is no second one of its server, kind and object, other than of
	// notifications.
	Object     string   `json:"object"`
	Generation int64    `json:"generation"`
	State      JobState `json:"state"`
	// Text is the message of a notification.
	Text string `json:"text,omitempty"`
	// Attempts counts how often the agent took it on. One that was cut short
	// because the link broke does not count.
	Attempts int `json:"attempts"`
	// Progress is the step that it is at, in plain words; Percent is 0 to 100.
	Progress string `json:"progress,omitempty"`
	Percent  int    `json:"percent,omitempty"`
	// Error says why it failed, for the person whose job it is.
	Error string `json:"error"`
	// Field is the field of the object that the error is about, if one is.
	Field string `json:"field,omitempty"`
	// Result is what the agent told of one that is done, for kinds of which there
	// is more to say than that. It is there when one job is shown, not in lists.
	Result json.RawMessage `json:"result,omitempty"`
	// Who asked for it.
	Who string `json:"who"`
	// Away says, while it is pending, that it waits for the agent of its server, which
	// is not connected.
	Away string `json:"away,omitempty"`
	// After are jobs that must be done before this one starts; while it is pending,
	// those that are not done yet. Where one of them fails, this one fails too.
	After    []int64   `json:"after,omitempty"`
	Created  time.Time `json:"created"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}
