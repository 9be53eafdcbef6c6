package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

// folder is what is known of a site's folder in the home of its account, by what
// agents told.
type folder int

const (
	noFolder    folder = iota // none was made, or it has none of its own
	maybeFolder               // one may have been made
	ownFolder
)

// lookedAt is how many jobs about a site are looked at.
const lookedAt = 100

// folderOf says whether a site that is being removed, or was, has a folder that is
// moved to the trash. One that lives in another site's folder has none.
func folderOf(ctx context.Context, up *client.Client, site upkeep.Site) (folder, error) {
	if site.SubOf != "" {
		return noFolder, nil
	}
	jobs, err := up.Jobs(ctx, wire.JobFilter{Object: upkeep.KindSite + "/" + site.Name, Limit: lookedAt})
	if err != nil {
		return maybeFolder, err
	}
	// Ended jobs are forgotten in time: where none is left, or not all were looked at,
	// one may have been made.
	made := 0
	has := noFolder
	for _, job := range jobs {
		if job.Kind != upkeep.JobSiteApply && job.Kind != upkeep.JobSiteFiles {
			continue
		}
		made++
		switch {
		case job.State == upkeep.JobDone:
			return ownFolder, nil
		case job.Attempts > 0:
			has = maybeFolder
		}
	}
	if made == 0 || len(jobs) == lookedAt {
		has = maybeFolder
	}
	return has, nil
}

// answered reports whether a server has answered for a site, which it does from a
// folder.
func answered(status upkeep.SiteStatus) bool {
	return slices.ContainsFunc(status.Servers, func(s upkeep.ServedStatus) bool { return s.Generation > 0 })
}

// removedSite is a site as it was when it was removed, and whether a folder of it
// went to the trash; none did where it is there still.
func removedSite(ctx context.Context, up *client.Client, name string, generations []wire.Generation) (upkeep.Site, folder, error) {
	was := upkeep.Site{Name: name}
	if len(generations) == 0 || !generations[0].Deleted {
		return was, noFolder, nil
	}
	if len(generations) > 1 && len(generations[1].Object) > 0 {
		if err := json.Unmarshal(generations[1].Object, &was); err != nil {
			return was, noFolder, fmt.Errorf("reading generation %d: %w", generations[1].Generation, err)
		}
	}
	had, err := folderOf(ctx, up, was)
	return was, had, err
}

// tellTrash says where the files of a site go that is removed.
func (a *app) tellTrash(site upkeep.Site, has folder) {
	on := strings.Join(site.Servers, ", ")
	if site.Files != "" {
		on = site.Files
	}
	place := fmt.Sprintf(".trash in the home of %s on %s, for root to move back", site.Account, on)
	name := upkeep.Printable(site.Name)
	switch {
	case site.SubOf != "":
		fmt.Fprintf(a.err, "note: the pages of %s stay where they are, in the folder of %s\n", name, upkeep.Printable(site.SubOf))
	case has == ownFolder:
		fmt.Fprintf(a.err, "note: the pages of %s go to %s\n", name, place)
	case has == maybeFolder:
		fmt.Fprintf(a.err, "note: if a folder was made for %s, it goes to %s\n", name, place)
	}
}

// tellOldPages says where the pages are of a site that was removed and is declared
// again.
func (a *app) tellOldPages(site upkeep.Site, had folder) {
	place := fmt.Sprintf(".trash in the home of %s, for root to move back", site.Account)
	name := upkeep.Printable(site.Name)
	switch had {
	case ownFolder:
		fmt.Fprintf(a.err, "note: the folder of %s is a new one; the pages from before its removal are in %s\n", name, place)
	case maybeFolder:
		fmt.Fprintf(a.err, "note: the folder of %s is a new one; if there was one before its removal, that is in %s\n", name, place)
	}
}
