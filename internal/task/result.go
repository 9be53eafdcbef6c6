package task

import "upkeep"

// Results are what agents tell of a job that is done, beside that it is: the
// Result of an outcome on the link.

// SiteResult is the result of site.apply: what the server answers with now.
type SiteResult struct {
	Name       string `json:"name"`
	Generation int64  `json:"generation"`
	// URL is the address at which the server answers, to be asked with the site's
	// name as Host.
	URL          string `json:"url"`
	DocumentRoot string `json:"document_root"`
	Suspended    bool   `json:"suspended,omitempty"`
}

// SyncResult is the result of site.sync.
type SyncResult struct {
	// Served is how many sites of the job the server serves at the generations that
	// the job has: all but those that Failed names and those that are Newer; where
	// only verified, as it did before.
	Served int `json:"served"`
	// URL is where the server answers, and Home has the folders of accounts, from which
	// document roots follow. There are too many sites to tell this of each.
	URL  string `json:"url"`
	Home string `json:"home"`
	// Failed are the sites that it could not take on.
	Failed []upkeep.FieldError `json:"failed,omitempty"`
	// Newer are sites that were changed there since the job was made.
	Newer []string `json:"newer,omitempty"`
	// Drift says how files differ from what is declared, as unified diffs by path:
	// what was put right, or would be.
	Drift map[string]string `json:"drift,omitempty"`
	// Differ is how many files that are, of which Drift may have some only.
	Differ int `json:"differ,omitempty"`
	// Changing are sites that were not compared, since jobs for them are under way.
	Changing []string `json:"changing,omitempty"`
	// Removed are sites that it served and does not any more, since they are not in the
	// job, and Left those that it goes on with: because its policy allows no more
	// removals in an hour, or because they do not answer yet where they are declared.
	Removed []string `json:"removed,omitempty"`
	Left    []string `json:"left,omitempty"`
	// Strays are files that belong to no declared site.
	Strays []string `json:"strays,omitempty"`
}

// ZoneResult is the result of zone.publish.
type ZoneResult struct {
	// Serial is the one under which named answers the content.
	Serial uint32 `json:"serial"`
	// Notices are things that an operator should know and that are no failure.
	Notices []ZoneNotice `json:"notices,omitempty"`
}

// ZoneNotice is one of them: what was found, and why it matters.
type ZoneNotice struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// ImageResult is the result of work on an image.
type ImageResult struct {
	// Image is the file as it is then.
	Image *upkeep.ImageFile `json:"image,omitempty"`
	// Did is what the verb tells: how much was packed, what could not be carried.
	Did any `json:"did,omitempty"`
	// Notes are things to know that are no failure.
	Notes []string `json:"notes,omitempty"`
}

// The result of server.facts is an [upkeep.Facts], that of image.list an
// [upkeep.ImageList]. Other kinds have none.
