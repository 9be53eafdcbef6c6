package task

import "upkeep"

// Tenant is an account as agents need it: the owner of files and processes.
type Tenant struct {
	Account string `json:"account"`
	UID     int    `json:"uid"`
}

// SiteApply has a web server answer for a site as it is declared: user, folders
// (unless Site.Files names another server), generated files, reload, and the
// question whether it answers.
type SiteApply struct {
	Site       upkeep.Site `json:"site"`
	Generation int64       `json:"generation"`
	Tenant     Tenant      `json:"tenant"`
	// Suspended is true when the site or its account is.
	Suspended bool `json:"suspended,omitempty"`
	// Batch and BatchSize tell which jobs were made by one change, so that one
	// reload serves them all.
	Batch     int64 `json:"batch,omitempty"`
	BatchSize int   `json:"batch_size,omitempty"`
	// Hold is how many milliseconds the server waits with its reload, so that
	// those that serve one site do not stall in the same moment; at most [MaxHold].
	Hold int `json:"hold,omitempty"`
}

// MaxHold is the longest [SiteApply.Hold], in milliseconds.
const MaxHold = 10_000

func (SiteApply) Kind() string     { return upkeep.JobSiteApply }
func (t SiteApply) Object() string { return "site/" + t.Site.Name }

// Version is the generation that the job must have, too.
func (t SiteApply) Version() int64 { return t.Generation }

// SiteFiles makes a site's user and folders on its files server.
type SiteFiles struct {
	Site       upkeep.Site `json:"site"`
	Generation int64       `json:"generation"`
	Tenant     Tenant      `json:"tenant"`
}

func (SiteFiles) Kind() string     { return upkeep.JobSiteFiles }
func (t SiteFiles) Object() string { return "site/" + t.Site.Name }

// Version is the generation that the job must have, too.
func (t SiteFiles) Version() int64 { return t.Generation }

// SiteRemove takes a site out of a web server. Its files stay, moved to the
// account's trash folder, until a person empties that.
type SiteRemove struct {
	Name       string `json:"name"`
	Account    string `json:"account"`
	Generation int64  `json:"generation"`
	// KeepFiles leaves the folders where they are.
	KeepFiles bool `json:"keep_files,omitempty"`
}

func (SiteRemove) Kind() string     { return upkeep.JobSiteRemove }
func (t SiteRemove) Object() string { return "site/" + t.Name }

// Version is the generation that the job must have, too.
func (t SiteRemove) Version() int64 { return t.Generation }

// SiteSync is the whole of what a web server should serve: every file is
// generated anew, what is the same is left alone, strays are removed.
type SiteSync struct {
	Sites []SiteApply `json:"sites"`
	// Keep are names of sites whose rows cannot be read: what is there of them is
	// left as it is.
	Keep []string `json:"keep,omitempty"`
	// Changing are those of Keep that other jobs of this server are about: until
	// these are done, what is there and what is declared differ by design.
	Changing []string `json:"changing,omitempty"`
	// Verify only compares and reports, changing nothing.
	Verify bool `json:"verify,omitempty"`
	// Partial says that there may be more: nothing is a stray. It goes with Verify
	// and answers what a change would write.
	Partial bool `json:"partial,omitempty"`

	texts texts // of one that [DecodeSync] has read
}

// Kind implements [Payload].
func (SiteSync) Kind() string { return upkeep.JobSiteSync }

// Object tells a verification from a regeneration and from a look at one site,
// so that none takes the place of another while it is pending.
func (t SiteSync) Object() string {
	switch {
	case t.Partial && len(t.Sites) > 0:
		return "preview/" + t.Sites[0].Site.Name
	case t.Verify:
		return "sites/verify"
	}
	return "sites"
}
