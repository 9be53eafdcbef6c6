package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"upkeep"
)

// SiteState is what a server was last known to serve of a site.
type SiteState struct {
	Server, Site string
	// Generation is the one that it answers with, 0 for none. Where a job failed,
	// the server goes on with the one before: 0 and an empty URL then leave what
	// is known.
	Generation   int64
	URL          string
	DocumentRoot string
	// State is live, suspended or failed; empty when the server serves nothing of
	// the site any more.
	State  string
	Reason string
	At     time.Time
}

type siteStateRow struct {
	bun.BaseModel `bun:"table:site_state"`
	Server        string `bun:",pk"`
	Site          string `bun:",pk"`
	Generation    int64
	URL           string
	DocumentRoot  string
	State         string
	Reason        string
	At            int64
}

func (r siteStateRow) state() SiteState {
	return SiteState{r.Server, r.Site, r.Generation, r.URL, r.DocumentRoot, r.State, r.Reason, instant(r.At)}
}

// SiteStates returns what servers serve: of some sites, of all when none is given,
// and on one server where that is not empty.
func (s *Store) SiteStates(ctx context.Context, server string, sites ...string) ([]SiteState, error) {
	var rows []siteStateRow
	query := s.read.NewSelect().Model(&rows).Order("site", "server")
	if server != "" {
		query.Where("server = ?", clean(server))
	}
	if len(sites) > 0 {
		query.Where("site IN (?)", bun.List(sites))
	}
	if err := query.Scan(ctx); err != nil {
		return nil, s.explain("reading the state of sites", err)
	}
	states := make([]SiteState, len(rows))
	for i, row := range rows {
		states[i] = row.state()
	}
	return states, nil
}

// Serving are the servers that were last known to have something of sites, by
// the name of the site.
func (t Tx) Serving(ctx context.Context, sites []string) (map[string][]string, error) {
	serving := map[string][]string{}
	for part := range slices.Chunk(sites, chunk) {
		var rows []siteStateRow
		err := t.tx.NewSelect().Model(&rows).Column("site", "server").Where("site IN (?)", bun.List(part)).Order("site", "server").Scan(ctx)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			serving[row.Site] = append(serving[row.Site], row.Server)
		}
	}
	return serving, nil
}

// CountSites is how many sites each server answers for.
func (s *Store) CountSites(ctx context.Context) (map[string]int, error) {
	var rows []struct {
		Server string
		Count  int
	}
	err := s.read.NewSelect().Model((*siteStateRow)(nil)).Column("server").ColumnExpr("count(*) AS count").
		Where("generation > 0").Group("server").Scan(ctx, &rows)
	if err != nil {
		return nil, s.explain("counting sites", err)
	}
	counts := make(map[string]int, len(rows))
	for _, row := range rows {
		counts[row.Server] = row.Count
	}
	return counts, nil
}

// LeftSites are the sites that each server goes on answering for though they are
// declared no more, and no job is under way that would change that.
func (s *Store) LeftSites(ctx context.Context) (map[string][]string, error) {
	var rows []siteStateRow
	err := s.read.NewSelect().Model(&rows).ModelTableExpr("site_state AS st").ColumnExpr("st.server, st.site").Where("st.generation > 0").
		Where("NOT EXISTS (SELECT 1 FROM objects AS o WHERE o.kind = ? AND o.name = st.site AND NOT o.deleted)", upkeep.KindSite).
		Where("NOT EXISTS (SELECT 1 FROM jobs AS j WHERE j.object = ? || st.site AND j.server = st.server AND j.state IN (?))",
			upkeep.KindSite+"/", bun.List([]upkeep.JobState{upkeep.JobPending, upkeep.JobRunning})).
		OrderExpr("st.server, st.site").Scan(ctx)
	if err != nil {
		return nil, s.explain("looking for sites that were left", err)
	}
	left := map[string][]string{}
	for _, row := range rows {
		left[row.Server] = append(left[row.Server], row.Site)
	}
	return left, nil
}

// MovingSites are the sites that a server answers for though they are declared for
// others, of which not all answer yet as is declared.
func (s *Store) MovingSites(ctx context.Context, server string) (sites []string, err error) {
	here := s.read.NewSelect().Model((*useRow)(nil)).Column("name").
		Where("used_kind = ?", upkeep.KindServer).Where("used_name = ?", server).Where("role = ?", upkeep.RoleWeb).Where("kind = ?", upkeep.KindSite)
	awaited := s.read.NewSelect().Model((*useRow)(nil)).ModelTableExpr("object_uses AS u").ColumnExpr("1").
		Join("LEFT JOIN site_state AS there ON there.site = u.name AND there.server = u.used_name").
		Where("u.kind = ?", upkeep.KindSite).Where("u.name = st.site").Where("u.role = ?", upkeep.RoleWeb).
		Where("(there.generation IS NULL OR there.generation < o.generation OR there.state <> ?)", upkeep.SiteLive)
	err = s.read.NewSelect().Model((*siteStateRow)(nil)).ModelTableExpr("site_state AS st").Column("st.site").
		Join("JOIN objects AS o ON o.kind = ? AND o.name = st.site AND NOT o.deleted", upkeep.KindSite).
		Where("st.server = ?", server).Where("st.generation > 0").Where("st.site NOT IN (?)", here).Where("EXISTS (?)", awaited).
		Order("st.site").Scan(ctx, &sites)
	return sites, s.explain("looking for sites that are moving", err)
}

// keepSites writes down what the jobs that ended have told of sites.
func (t Tx) keepSites(ctx context.Context, ends []JobEnd, ended []jobRow) error {
	servers := make(map[int64]string, len(ended))
	for _, row := range ended {
		servers[row.ID] = row.Server
	}
	var rows []siteStateRow
	for _, end := range ends {
		server, did := servers[end.ID]
		if !did {
			continue
		}
		if end.AllSites {
			same, err := t.serves(ctx, server, end.Sites)
			if err != nil {
				return err
			}
			if same {
				continue
			}
			if err := t.forgetSites(ctx, server, end.Sites); err != nil {
				return err
			}
		}
		for _, site := range end.Sites {
			row := siteStateRow{
				Server: server, Site: clean(site.Site), Generation: site.Generation, URL: clean(site.URL),
				DocumentRoot: clean(site.DocumentRoot), State: site.State, Reason: clean(site.Reason), At: nanos(t.At),
			}
			if row.State != "" {
				rows = append(rows, row)
				continue
			}
			if _, err := t.tx.NewDelete().Model(&row).WherePK().Exec(ctx); err != nil {
				return err
			}
			t.jobs.Sites = append(t.jobs.Sites, row.Site)
		}
	}
	return t.putSites(ctx, rows)
}

// serves reports whether a server was known to serve exactly these sites before.
// One statement tells, where to write ten thousand rows as they are takes a second.
func (t Tx) serves(ctx context.Context, server string, sites []SiteState) (bool, error) {
	text, err := lines(ctx, t.tx, t.tx.NewSelect().Model((*siteStateRow)(nil)).
		ColumnExpr("site || ' ' || generation || ' ' || state || ' ' || url || ' ' || document_root || ' ' || reason AS line").Where("server = ?", server))
	if err != nil {
		return false, err
	}
	known := make(map[string]int, len(sites))
	for line := range strings.SplitSeq(text, "\n") {
		known[line] = len(known)
	}
	told, left := make([]bool, len(known)), len(known)
	var line []byte
	for _, site := range sites {
		line = append(append(line[:0], site.Site...), ' ')
		line = append(strconv.AppendInt(line, site.Generation, 10), ' ')
		for _, part := range []string{site.State, " ", site.URL, " ", site.DocumentRoot, " ", site.Reason} {
			line = append(line, part...)
		}
		at, is := known[string(line)] // which makes no text of it
		if !is || told[at] {          // one that is told twice is not two
			return false, nil
		}
		told[at] = true
		left--
	}
	return left == 0, nil
}

// putSites writes rows; the last one about a site on a server is what counts.
func (t Tx) putSites(ctx context.Context, rows []siteStateRow) error {
	slices.Reverse(rows)
	seen := map[[2]string]bool{}
	rows = slices.DeleteFunc(rows, func(r siteStateRow) bool {
		key := [2]string{r.Server, r.Site}
		twice := seen[key]
		seen[key] = true
		return twice
	})
	known := func(column, is string) string {
		return fmt.Sprintf("%[1]s = CASE WHEN EXCLUDED.%[1]s <> %[2]s THEN EXCLUDED.%[1]s ELSE site_state_row.%[1]s END", column, is)
	}
	for _, row := range rows {
		t.jobs.Sites = append(t.jobs.Sites, row.Site)
	}
	for part := range slices.Chunk(rows, chunk) {
		_, err := t.tx.NewInsert().Model(&part).On("CONFLICT (server, site) DO UPDATE").
			Set(known("generation", "0")).Set(known("url", "''")).Set(known("document_root", "''")).
			Set("state = EXCLUDED.state").Set("reason = EXCLUDED.reason").Set("at = EXCLUDED.at").Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// forgetSites forgets all sites of a server but those given.
func (t Tx) forgetSites(ctx context.Context, server string, but []SiteState) error {
	keep := make([]string, len(but))
	for i, site := range but {
		keep[i] = site.Site
	}
	slices.Sort(keep)
	var known []string
	err := t.tx.NewSelect().Model((*siteStateRow)(nil)).Column("site").Where("server = ?", server).Scan(ctx, &known)
	if err != nil {
		return err
	}
	known = slices.DeleteFunc(known, func(site string) bool {
		_, found := slices.BinarySearch(keep, site)
		return found
	})
	t.jobs.Sites = append(t.jobs.Sites, known...)
	for part := range slices.Chunk(known, chunk) {
		_, err := t.tx.NewDelete().Model((*siteStateRow)(nil)).Where("server = ?", server).Where("site IN (?)", bun.List(part)).Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// AstraySite is a site that a server does not serve as it was applied there.
type AstraySite struct {
	Site, Account string
	// Generation is the declared one.
	Generation int64
	Reason     string
	// InForce is the generation that the server answers with, 0 for none; nil where
	// that is not known, which leaves what was known before.
	InForce *int64
}

// AstraySites writes down that a server does not serve sites, with an event each,
// and has them applied again.
func (s *Store) AstraySites(ctx context.Context, server string, sites []AstraySite) error {
	if len(sites) == 0 {
		return nil
	}
	return s.changeJobs(ctx, "having sites applied again", func(ctx context.Context, tx Tx) error {
		var rows []siteStateRow
		var events []upkeep.Event
		var jobs []NewJob
		for _, site := range sites {
			object := upkeep.KindSite + "/" + site.Site
			rows = append(rows, siteStateRow{Server: server, Site: clean(site.Site), State: upkeep.SiteFailed, Reason: clean(site.Reason), At: nanos(tx.At)})
			events = append(events, upkeep.Event{
				At: tx.At, Kind: upkeep.EventWarning, Who: "upkeep", Object: object, What: server + " does not serve it as it is declared; it is applied again", Why: site.Reason,
			})
			jobs = append(jobs, NewJob{Job: upkeep.Job{
				Account: site.Account, Server: server, Kind: upkeep.JobSiteApply, Object: object, Generation: site.Generation, Who: "upkeep",
			}})
		}
		if err := tx.putSites(ctx, rows); err != nil {
			return err
		}
		if err := tx.putInForce(ctx, server, sites); err != nil {
			return err
		}
		stored, err := addEvents(ctx, tx.tx, events)
		if err != nil {
			return err
		}
		tx.jobs.Events = append(tx.jobs.Events, stored...)
		_, err = tx.Enqueue(ctx, jobs)
		return err
	})
}

// putInForce writes down which generations a server answers with, where it said so.
func (t Tx) putInForce(ctx context.Context, server string, sites []AstraySite) error {
	names := map[int64][]string{}
	for _, site := range sites {
		if site.InForce != nil {
			names[*site.InForce] = append(names[*site.InForce], clean(site.Site))
		}
	}
	for generation, all := range names {
		for part := range slices.Chunk(all, chunk) {
			_, err := t.tx.NewUpdate().Model((*siteStateRow)(nil)).Set("generation = ?", generation).Where("server = ?", server).Where("site IN (?)", bun.List(part)).Exec(ctx)
			if err != nil {
				return err
			}
		}
	}
	return nil
}
