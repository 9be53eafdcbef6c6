package job

import (
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/store"
)

func TestSiteStatus(t *testing.T) {
	site := planned(upkeep.Site{Name: "a.test", Servers: []string{"web1", "web2"}, Files: "files1"})
	state := func(server string, generation int64, state, reason string) store.SiteState {
		return store.SiteState{Server: server, Site: "a.test", Generation: generation, URL: "http://" + server, DocumentRoot: "/home/acme/a.test/htdocs", State: state, Reason: reason}
	}
	live1, live2 := state("web1", 3, upkeep.SiteLive, ""), state("web2", 3, upkeep.SiteLive, "")
	apply := func(server string, s upkeep.JobState) upkeep.Job {
		return upkeep.Job{ID: 7, Server: server, Kind: upkeep.JobSiteApply, Object: "site/a.test", Generation: 3, State: s}
	}
	for name, test := range map[string]struct {
		states    []store.SiteState
		open      []upkeep.Job
		failed    []upkeep.Job
		suspended bool
		away      string
		want      string
		reason    string
		servers   int // 2 where it is 0
	}{
		"live":                    {states: []store.SiteState{live1, live2}, want: upkeep.SiteLive, reason: "web1, web2"},
		"nothing is known of one": {states: []store.SiteState{live1}, want: upkeep.SiteFailed, reason: "upkeep regenerate web2"},
		"one is older":            {states: []store.SiteState{live1, state("web2", 2, upkeep.SiteLive, "")}, want: upkeep.SiteFailed, reason: "generation 3"},
		"one has a job":           {states: []store.SiteState{live1, live2}, open: []upkeep.Job{apply("web2", upkeep.JobRunning)}, want: upkeep.SitePending, reason: "web2: job 7 is being done"},
		"one is away":             {states: []store.SiteState{live1}, open: []upkeep.Job{apply("web2", upkeep.JobPending)}, away: "web2", want: upkeep.SitePending, reason: "not connected"},
		"its files come first": {open: []upkeep.Job{apply("web1", upkeep.JobPending), apply("web2", upkeep.JobPending), apply("files1", upkeep.JobPending)},
			away: "files1", want: upkeep.SitePending, reason: "files come first: job 7 waits for files1"},
		"one failed": {states: []store.SiteState{live1, state("web2", 2, upkeep.SiteFailed, "AH00526")}, want: upkeep.SiteFailed, reason: "web2: AH00526"},
		"what it waited for failed": {failed: []upkeep.Job{{Server: "web1", Object: "site/a.test", Generation: 3, State: upkeep.JobFailed, Error: "job 6 failed: disk full"}},
			states: []store.SiteState{live2}, want: upkeep.SiteFailed, reason: "disk full"},
		"failed and pending": {states: []store.SiteState{state("web1", 2, upkeep.SiteFailed, "AH00526"), live2}, open: []upkeep.Job{apply("web2", upkeep.JobPending)},
			want: upkeep.SiteFailed, reason: "AH00526"},
		"suspended":         {states: []store.SiteState{state("web1", 3, upkeep.SiteSuspended, ""), state("web2", 3, upkeep.SiteSuspended, "")}, suspended: true, want: upkeep.SiteSuspended, reason: "503"},
		"it never left one": {states: []store.SiteState{live1, live2, state("web3", 2, upkeep.SiteLive, "")}, want: upkeep.SiteFailed, reason: "upkeep regenerate web3", servers: 3},
		"it is leaving one": {states: []store.SiteState{live1, live2, state("web3", 2, upkeep.SiteLive, "")}, open: []upkeep.Job{apply("web3", upkeep.JobPending)},
			want: upkeep.SiteLive, reason: "answers on web1, web2", servers: 3},
		"suspended and not so": {states: []store.SiteState{state("web1", 3, upkeep.SiteSuspended, ""), live2}, suspended: true, want: upkeep.SiteFailed, reason: "web2"},
	} {
		t.Run(name, func(t *testing.T) {
			know := knowledge{links: map[string]Presence{}, states: map[string]map[string]store.SiteState{}, jobs: map[[2]string]upkeep.Job{}, failed: map[[2]string]upkeep.Job{}}
			for _, server := range []string{"web1", "web2", "files1"} {
				know.links[server] = Presence{Connected: server != test.away}
			}
			for _, one := range test.states {
				know.learn(one)
			}
			for _, one := range test.open {
				know.jobs[[2]string{"a.test", one.Server}] = one
			}
			for _, one := range test.failed {
				know.failed[[2]string{"a.test", one.Server}] = one
			}
			status := know.site(site, 3, test.suspended)
			if status.State != test.want || !strings.Contains(status.Reason, test.reason) || len(status.Servers) != max(test.servers, 2) {
				t.Errorf("%+v, want %s because of %q", status, test.want, test.reason)
			}
		})
	}
}
