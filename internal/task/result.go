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
	// Sites are all that the server serves; where only verified, as it did before.
	Sites []SiteResult `json:"sites"`
	// Failed are the sites that it could not take on.
	Failed []upkeep.FieldError `json:"failed,omitempty"`
	// Drift says how files differ from what is declared, as unified diffs by path:
	// what was put right, or would be.
	Drift map[string]string `json:"drift,omitempty"`
	// Changing are sites that were not compared, since jobs for them are under way.
	Changing []string `json:"changing,omitempty"`
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

// The result of server.facts is an [upkeep.Facts]. Other kinds have none.
