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
