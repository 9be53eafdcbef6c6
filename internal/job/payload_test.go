package job

import (
	"errors"
	"fmt"
	"strings"
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
	end := parcel{job: job, order: made}.ending(link.Outcome{ID: 1, State: upkeep.JobDone, Result: []byte(`{"served":1,"url":"http://web1","home":"/srv/home"}`)})
	if end.AllSites || len(end.Sites) != 1 {
		t.Errorf("the state of what is kept is forgotten: %+v", end)
	}
	want := store.SiteState{Site: "good.test", Generation: 1, URL: "http://web1", DocumentRoot: "/srv/home/acme/good.test/htdocs", State: upkeep.SiteLive}
	if diff := cmp.Diff([]store.SiteState{want}, end.Sites); diff != "" {
		t.Error(diff)
	}
}

// A site that was deleted and declared again before its removal was done keeps what it
// had: the removal has nothing to do any more, on its web servers and on the server that
// holds its files. What was another account's goes.
func TestRemovalOfASiteThatIsBack(t *testing.T) {
	site := named("a.test")
	site.Files = "files1"
	d := declared{found: map[store.Ref]store.Found{
		store.RefOf(site): {Ref: store.RefOf(site), Declared: upkeep.Declared{Object: site, Generation: 3}},
	}}
	for _, test := range []struct {
		server, payload string
		pointless       bool
	}{
		{"web1", `{"name":"a.test","account":"acme","generation":2,"keep_files":true}`, true},
		{"files1", `{"name":"a.test","account":"acme","generation":2}`, true},
		{"files1", `{"name":"a.test","account":"acme","generation":2,"keep_files":true}`, false},
		{"files1", `{"name":"a.test","account":"other","generation":2}`, false},
		{"files2", `{"name":"a.test","account":"acme","generation":2}`, false},
	} {
		job := store.ClaimedJob{Job: upkeep.Job{ID: 1, Server: test.server, Kind: upkeep.JobSiteRemove, Account: "acme", Object: "site/a.test", Generation: 2}, Payload: []byte(test.payload)}
		made, err := d.assemble(job)
		var why *pointless
		if errors.As(err, &why) != test.pointless || !test.pointless && (err != nil || made.payload == nil) {
			t.Errorf("%s, %s: %+v, %v", test.server, test.payload, made, err)
		}
	}
}

// What an agent says of a whole server is taken site by site: what failed says why,
// what is newer there is left to its own job, and one that does not say where its
// sites are has said nothing.
func TestSyncStates(t *testing.T) {
	var sites []task.SiteApply
	for _, name := range []string{"a.test", "b.test", "c.test", "d.test"} {
		sites = append(sites, task.SiteApply{Site: named(name), Generation: 3, Suspended: name == "d.test"})
	}
	const failed = `"failed":[{"object":"site/b.test","field":"root","rule":"is a link"},{"object":"site/other.test","rule":"x"},{"object":"server/web1","rule":"down"}]`
	states, all := syncStates(sites, []byte(`{"served":2,"url":"http://web1","home":"/home",`+failed+`}`))
	got := ""
	for _, s := range states {
		got += fmt.Sprintf("%s %s %d %s %s;", s.Site, s.State, s.Generation, s.DocumentRoot, s.Reason)
	}
	if want := "a.test live 3 /home/acme/a.test/htdocs ;b.test failed 0  root: is a link;c.test live 3 /home/acme/c.test/htdocs ;d.test suspended 3 /home/acme/d.test/htdocs ;"; got != want || !all {
		t.Errorf("%t, %s\nwant %s", all, got, want)
	}
	if states, all := syncStates(sites, []byte(`{"url":"http://web1","home":"/home","newer":["a.test"]}`)); all || len(states) != 3 || states[0].Site != "b.test" {
		t.Errorf("with a newer one: %t, %+v", all, states)
	}
	for _, text := range []string{``, `{}`, `{"home":"relative"}`, `{"home":"/` + strings.Repeat("x", 2000) + `"}`, `{"sites":[{"name":"a.test"}]}`} {
		if states, all := syncStates(sites, []byte(text)); all || states != nil {
			t.Errorf("%.40s: %t, %+v", text, all, states)
		}
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

// What agents tell of images stays with the job, and work on one goes out as it was
// asked for.
func TestImageJobsTellMore(t *testing.T) {
	const payload = `{"root":"vms","path":"a.img","to":8589934592}`
	job := store.ClaimedJob{Job: upkeep.Job{ID: 1, Server: "vm1", Kind: upkeep.JobImageGrow, Object: "image/vms/a.img", Generation: 7}, Payload: []byte(payload)}
	made, err := declared{}.assemble(job)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(encode(made.payload)); got != payload || made.generation != 7 {
		t.Errorf("what is sent is %s of generation %d", got, made.generation)
	}
	end := parcel{job: job, order: made}.ending(link.Outcome{ID: 1, State: upkeep.JobDone, Result: []byte(`{"notes":["x"]}`)})
	if string(end.Result) != `{"notes":["x"]}` {
		t.Errorf("the end is %+v", end)
	}
}
