package job

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/store"
	"upkeep/internal/task"
)

// A site that cannot be read, or whose account cannot, is kept as it is, and stops
// no other.
func TestSyncOfWhatCannotBeRead(t *testing.T) {
	found := func(o upkeep.Object) store.Found {
		return store.Found{Ref: store.RefOf(o), Declared: upkeep.Declared{Object: o, Generation: 1}}
	}
	damaged := func(o upkeep.Object) store.Found { return store.Found{Ref: store.RefOf(o), Err: errors.New("damaged")} }
	good, orphan := named("good.test"), named("orphan.test")
	orphan.Account = "damaged"
	d := declared{
		found: map[store.Ref]store.Found{
			ref(upkeep.KindAccount, "acme"):    found(upkeep.Account{Name: "acme", UID: 20001}),
			ref(upkeep.KindAccount, "damaged"): damaged(upkeep.Account{Name: "damaged"}),
		},
		sites: []store.Found{damaged(named("bad.test")), found(good), found(orphan)},
	}
	job := store.ClaimedJob{Job: upkeep.Job{ID: 1, Server: "web1", Kind: upkeep.JobSiteSync}}
	made, err := d.assemble(job)
	if err != nil {
		t.Fatal(err)
	}
	sync := made.payload.(task.SiteSync)
	if diff := cmp.Diff([]string{"bad.test", "orphan.test"}, sync.Keep); diff != "" || len(sync.Sites) != 1 {
		t.Errorf("%+v\n%s", sync, diff)
	}
	end := parcel{job: job, order: made}.ending(link.Outcome{ID: 1, State: upkeep.JobDone, Result: []byte(`{"sites":[{"name":"good.test","generation":1}]}`)})
	if end.AllSites || len(end.Sites) != 1 {
		t.Errorf("the state of what is kept is forgotten: %+v", end)
	}
}

// Servers that serve one site reload one after the other, the first at once; a
// site that is taken down is so everywhere at once; and one reload for all that
// comes together is that of the first that does not wait.
func TestMirrorsReloadOneAfterTheOther(t *testing.T) {
	site := named("example.test")
	site.Servers = []string{"web1", "web2", "web3"}
	d := declared{found: map[store.Ref]store.Found{
		ref(upkeep.KindAccount, "acme"): {Declared: upkeep.Declared{Object: upkeep.Account{Name: "acme", UID: 20001}, Generation: 1}},
	}}
	made := func(server string) parcel {
		t.Helper()
		d.found[store.RefOf(site)] = store.Found{Ref: store.RefOf(site), Declared: upkeep.Declared{Object: site, Generation: 3}}
		job := store.ClaimedJob{Job: upkeep.Job{ID: 1, Server: server, Kind: upkeep.JobSiteApply, Account: "acme", Object: "site/example.test"}}
		order, err := d.assemble(job)
		if err != nil {
			t.Fatal(err)
		}
		return parcel{job, order}
	}
	held := func(p parcel) int { return p.payload.(task.SiteApply).Hold }
	for i, server := range site.Servers {
		if got := held(made(server)); got != i*stagger {
			t.Errorf("%s waits %d ms", server, got)
		}
	}
	first, mirror := made("web1"), made("web3")
	together := []parcel{mirror, first}
	batch(together)
	if held(together[0]) != 0 || held(together[1]) != 0 {
		t.Errorf("of two that come together one waits: %d, %d", held(together[0]), held(together[1]))
	}
	site.Suspended = true
	if got := held(made("web3")); got != 0 {
		t.Errorf("a site goes down %d ms late", got)
	}
	if got := hold(100, false); got != task.MaxHold {
		t.Errorf("the hundredth waits %d ms", got)
	}
}
