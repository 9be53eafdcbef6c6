package job

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upkeep"
	"upkeep/internal/store"
)

func planned(site upkeep.Site) upkeep.Site {
	if site.Account == "" {
		site.Account = "acme"
	}
	return site
}

func named(name string) upkeep.Site {
	return planned(upkeep.Site{Name: name, Servers: []string{"web1"}})
}

func put(generation int64, was, is upkeep.Object) store.Altered {
	return store.Altered{Ref: store.RefOf(is), Old: was, New: is, Generation: generation}
}

func deleted(generation int64, was upkeep.Object) store.Altered {
	return store.Altered{Ref: store.RefOf(was), Old: was, Generation: generation}
}

// told are jobs as texts, such as "2: site.apply site/a.test@3 on web1 after 0,1".
func told(jobs []store.NewJob) (texts []string) {
	for i, job := range jobs {
		text := fmt.Sprintf("%d: %s %s", i, job.Job.Kind, job.Job.Object)
		if job.Job.Generation > 0 {
			text += fmt.Sprintf("@%d", job.Job.Generation)
		}
		if job.Job.Server != "" {
			text += " on " + job.Job.Server
		}
		for j, behind := range job.Behind {
			text += map[bool]string{true: " after ", false: ","}[j == 0] + fmt.Sprint(behind)
		}
		if job.BehindRemoval != "" {
			text += " unless " + job.BehindRemoval + " is being removed"
		}
		if job.Payload != nil {
			text += " " + string(job.Payload)
		}
		texts = append(texts, text)
	}
	return texts
}

func TestFollow(t *testing.T) {
	acme, suspended, numbered := upkeep.Account{Name: "acme", UID: 20001}, upkeep.Account{Name: "acme", UID: 20001, Suspended: true}, upkeep.Account{Name: "acme", UID: 20002}
	a := planned(upkeep.Site{Name: "a.test", Servers: []string{"web1"}})
	two := planned(upkeep.Site{Name: "a.test", Servers: []string{"web1", "web2"}, Files: "files1"})
	moved := planned(upkeep.Site{Name: "a.test", Servers: []string{"web2"}})
	sub := planned(upkeep.Site{Name: "sub.a.test", Servers: []string{"web1"}, SubOf: "a.test"})
	movedSub := planned(upkeep.Site{Name: "sub.a.test", Servers: []string{"web2"}, SubOf: "a.test"})
	filesSub := planned(upkeep.Site{Name: "sub.a.test", Servers: []string{"web1"}, SubOf: "a.test", Files: "files1"})
	off := a
	off.Suspended = true
	off2 := moved
	off2.Suspended = true
	others := planned(upkeep.Site{Name: "z.test", Account: "other", Servers: []string{"web1"}})
	note := func(i int, object, text string) string {
		return fmt.Sprintf(`%d: notification %s {"account":"acme","text":"%s"}`, i, object, text)
	}
	for name, test := range map[string]struct {
		changes []store.Altered
		sites   []upkeep.Site
		serving map[string][]string
		unread  int
		who     string
		want    []string
	}{
		"nothing of ours": {changes: []store.Altered{put(1, nil, upkeep.Zone{Name: "a.test"}), put(2, nil, upkeep.Server{Name: "web1"})}},
		"a new site": {
			changes: []store.Altered{put(1, nil, a)},
			want:    []string{"0: site.apply site/a.test@1 on web1", note(1, "site/a.test", "a.test was added.")},
		},
		"a new site that its owner made": {
			changes: []store.Altered{put(1, nil, a)}, who: "acme",
			want: []string{"0: site.apply site/a.test@1 on web1"},
		},
		"files first, then each web server": {
			changes: []store.Altered{put(4, nil, two)}, who: "acme",
			want: []string{"0: site.files site/a.test@4 on files1", "1: site.apply site/a.test@4 on web1 after 0", "2: site.apply site/a.test@4 on web2 after 0"},
		},
		"a site leaves a server once the new ones answer": {
			changes: []store.Altered{put(5, a, moved)},
			want: []string{"0: site.apply site/a.test@5 on web2",
				`1: site.remove site/a.test@5 on web1 after 0 {"name":"a.test","account":"acme","generation":5}`,
				note(2, "site/a.test", "a.test moved: it is served by web2.")},
		},
		"a site that leaves one of several": {
			changes: []store.Altered{put(5, two, a)}, who: "acme",
			want: []string{"0: site.apply site/a.test@5 on web1",
				`1: site.remove site/a.test@5 on web2 after 0 {"name":"a.test","account":"acme","generation":5,"keep_files":true}`},
		},
		"a deleted site": {
			changes: []store.Altered{deleted(5, two)},
			want: []string{`0: site.remove site/a.test@5 on web1 {"name":"a.test","account":"acme","generation":5,"keep_files":true}`,
				`1: site.remove site/a.test@5 on web2 {"name":"a.test","account":"acme","generation":5,"keep_files":true}`,
				`2: site.remove site/a.test@5 on files1 after 0,1 {"name":"a.test","account":"acme","generation":5}`,
				note(3, "site/a.test", "a.test was removed. Files that it has are kept.")},
		},
		"a deleted site whose files are on one of its web servers": {
			changes: []store.Altered{deleted(5, planned(upkeep.Site{Name: "a.test", Servers: []string{"web1", "web2"}, Files: "web1"}))}, who: "acme",
			want: []string{`0: site.remove site/a.test@5 on web2 {"name":"a.test","account":"acme","generation":5,"keep_files":true}`,
				`1: site.remove site/a.test@5 on web1 after 0 {"name":"a.test","account":"acme","generation":5}`},
		},
		"a deleted site that never left a server": {
			changes: []store.Altered{deleted(5, moved)}, serving: map[string][]string{"a.test": {"web1", "web2"}}, who: "acme",
			want: []string{`0: site.remove site/a.test@5 on web2 {"name":"a.test","account":"acme","generation":5}`,
				`1: site.remove site/a.test@5 on web1 {"name":"a.test","account":"acme","generation":5}`},
		},
		"a site that never left a server is changed": {
			changes: []store.Altered{put(6, moved, moved)}, serving: map[string][]string{"a.test": {"web1", "web2"}}, who: "acme",
			want: []string{"0: site.apply site/a.test@6 on web2", `1: site.remove site/a.test@6 on web1 after 0 {"name":"a.test","account":"acme","generation":6}`},
		},
		"a site that never left a server is suspended, and waits for nothing": {
			changes: []store.Altered{put(6, moved, off2)}, serving: map[string][]string{"a.test": {"web1"}}, who: "acme",
			want: []string{"0: site.apply site/a.test@6 on web2", `1: site.remove site/a.test@6 on web1 {"name":"a.test","account":"acme","generation":6}`},
		},
		"the account of a site that never left a server is suspended": {
			changes: []store.Altered{put(2, acme, suspended)}, sites: []upkeep.Site{moved}, serving: map[string][]string{"a.test": {"web1"}}, who: "acme",
			want: []string{"0: site.apply site/a.test@7 on web2", `1: site.remove site/a.test@7 on web1 {"name":"a.test","account":"acme","generation":7}`},
		},
		"a deleted site whose row could not be read": {changes: []store.Altered{{Ref: store.RefOf(a), Generation: 3}}},
		"a suspended site": {
			changes: []store.Altered{put(2, a, off)},
			want:    []string{"0: site.apply site/a.test@2 on web1", note(1, "site/a.test", "a.test was suspended: it answers 503 and keeps everything.")},
		},
		"a site in another's folder is named after it, and does not wait for it": {
			changes: []store.Altered{put(1, nil, sub), put(1, nil, a)}, who: "acme",
			want: []string{"0: site.apply site/a.test@1 on web1", "1: site.apply site/sub.a.test@1 on web1 unless site/a.test is being removed"},
		},
		"a name goes from a site to the one in whose folder it lives": {
			changes: []store.Altered{put(2, sub, sub), put(2, a, a)}, who: "acme",
			want: []string{"0: site.apply site/a.test@2 on web1", "1: site.apply site/sub.a.test@2 on web1 unless site/a.test is being removed"},
		},
		"a folder goes to the trash after the site that lived in it has left": {
			changes: []store.Altered{put(5, a, moved), put(5, sub, movedSub)}, who: "acme",
			want: []string{"0: site.apply site/a.test@5 on web2",
				`1: site.remove site/a.test@5 on web1 after 0,3 {"name":"a.test","account":"acme","generation":5}`,
				"2: site.apply site/sub.a.test@5 on web2 unless site/a.test is being removed",
				`3: site.remove site/sub.a.test@5 on web1 after 2 {"name":"sub.a.test","account":"acme","generation":5}`},
		},
		"a folder on a files server goes to the trash when no web server has it": {
			changes: []store.Altered{deleted(5, two), deleted(5, filesSub)}, who: "acme",
			want: []string{`0: site.remove site/a.test@5 on web1 {"name":"a.test","account":"acme","generation":5,"keep_files":true}`,
				`1: site.remove site/a.test@5 on web2 {"name":"a.test","account":"acme","generation":5,"keep_files":true}`,
				`2: site.remove site/a.test@5 on files1 after 0,1,3 {"name":"a.test","account":"acme","generation":5}`,
				`3: site.remove site/sub.a.test@5 on web1 {"name":"sub.a.test","account":"acme","generation":5,"keep_files":true}`},
		},
		"a suspended account": {
			changes: []store.Altered{put(2, acme, suspended)}, sites: []upkeep.Site{a, others, sub},
			want: []string{"0: site.apply site/a.test@7 on web1", "1: site.apply site/sub.a.test@7 on web1 unless site/a.test is being removed",
				note(2, "account/acme", "Your account was suspended: its sites answer 503 and keep everything.")},
		},
		"an account that works again": {
			changes: []store.Altered{put(3, suspended, acme)}, sites: []upkeep.Site{others},
			want: []string{note(0, "account/acme", "Your account works again.")},
		},
		"an account with another number": {
			changes: []store.Altered{put(3, acme, numbered)}, sites: []upkeep.Site{a}, who: "acme",
			want: []string{"0: site.apply site/a.test@7 on web1"},
		},
		"many sites": {
			changes: []store.Altered{put(1, nil, named("1.test")), put(1, nil, named("2.test")), put(1, nil, named("3.test")), put(1, nil, named("4.test")),
				put(1, nil, named("5.test")), put(1, nil, named("6.test"))},
			want: []string{"0: site.apply site/1.test@1 on web1", "1: site.apply site/2.test@1 on web1", "2: site.apply site/3.test@1 on web1",
				"3: site.apply site/4.test@1 on web1", "4: site.apply site/5.test@1 on web1", "5: site.apply site/6.test@1 on web1",
				note(6, "account/acme", "1.test was added. And 5 more of your sites were added, changed or removed.")},
		},
		"an account that reads nothing": {
			changes: []store.Altered{put(1, nil, named("1.test")), put(2, nil, named("2.test"))}, unread: store.MaxUnread,
			want: []string{"0: site.apply site/1.test@1 on web1", "1: site.apply site/2.test@2 on web1", note(2, "account/acme", noRoom)},
		},
		"an account that has room for one more": {
			changes: []store.Altered{put(1, nil, a)}, unread: store.MaxUnread - 1,
			want: []string{"0: site.apply site/a.test@1 on web1", note(1, "site/a.test", "a.test was added.")},
		},
		"an account that says the same": {changes: []store.Altered{put(3, acme, upkeep.Account{Name: "acme", UID: 20001, Email: "a@b.test"})}, sites: []upkeep.Site{a}},
		"a new account":                 {changes: []store.Altered{put(1, nil, suspended)}},
		"a deleted account": {
			changes: []store.Altered{deleted(1, suspended), deleted(2, upkeep.Account{Name: "nowhere", UID: 20009})},
			want: []string{`0: user.remove account/acme on web1 {"account":"acme","uid":20001}`,
				`1: user.remove account/acme on web2 {"account":"acme","uid":20001}`},
		},
		"a site and its account together": {
			changes: []store.Altered{put(8, nil, a), put(2, acme, suspended)}, sites: []upkeep.Site{a, sub}, who: "acme",
			want: []string{"0: site.apply site/a.test@8 on web1", "1: site.apply site/sub.a.test@7 on web1 unless site/a.test is being removed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var sites []upkeep.Declared
			for _, site := range test.sites {
				sites = append(sites, upkeep.Declared{Generation: 7, Object: site})
			}
			who := test.who
			if who == "" {
				who = "uid 0"
			}
			jobs := follow(test.changes, around{sites, test.serving, map[string][]string{"acme": {"web1", "web2"}}, map[string]int{"acme": test.unread}}, who)
			if diff := cmp.Diff(test.want, told(jobs)); diff != "" {
				t.Error(diff)
			}
			for _, job := range jobs {
				if job.Job.Who != who || job.Job.Account == "" {
					t.Errorf("%+v is nobody's", job.Job)
				}
			}
		})
	}
}
