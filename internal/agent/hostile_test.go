package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
	"upkeep/internal/zone"
)

const hostilePolicy = `
kinds: [mkdir, user.ensure, user.remove, site.files, site.apply, site.remove, site.sync, zone.publish, server.facts, server.purge, image.list, image.create, image.grow, image.shrink, image.mkfs, image.check, image.copy, image.clone, image.pack, image.unpack]
roots: {home: DIR/home, data: DIR/data}
uids: {min: 20000, max: 20999}
group: web
web: {server: apache, include: /etc/apache2/hosted.d}
zones: {include_dirs: [DIR/zones/inc], zone_dirs: [DIR/zones], rndc: [/bin/false], checkzone: [/bin/false], server: "127.0.0.1:1"}
images: {roots: {vms: DIR/images}, max_size: 1M}
delete_budget: 0
`

// raw is a payload as somebody writes it who has control's key and its database,
// and is bound by no check of control's.
type raw struct{ kind, object, text string }

// hostile are jobs of every kind that ask for more than the policy allows. DIR
// stands for the server's folder.
var hostile = []raw{
	{"shell", "x", `{"command":"touch DIR/pwned"}`},
	{upkeep.JobNotification, "account/acme", `{"account":"acme","text":"x"}`},

	{upkeep.JobMkdir, "dir/etc/x", `{"root":"etc","path":"x","owner":"root","group":"root","mode":"0755"}`},
	{upkeep.JobMkdir, "dir/data/../outside/x", `{"root":"data","path":"../outside/x","owner":"acme","group":"acme","mode":"0755"}`},
	{upkeep.JobMkdir, "dir/data//outside", `{"root":"data","path":"/outside","owner":"acme","group":"acme","mode":"0755"}`},
	{upkeep.JobMkdir, "dir/data/link/x", `{"root":"data","path":"link/x","owner":"acme","group":"acme","mode":"0755"}`},
	{upkeep.JobMkdir, "dir/data/roots", `{"root":"data","path":"roots","owner":"acme","group":"acme","mode":"0755"}`},
	{upkeep.JobMkdir, "dir/data/x", `{"root":"data","path":"x","owner":"alice","group":"alice","mode":"0755"}`},
	{upkeep.JobMkdir, "dir/data/x", `{"root":"data","path":"x","owner":"acme","group":"acme","mode":"6755"}`},
	{upkeep.JobMkdir, "dir/home/acme", `{"root":"home","path":"acme","owner":"acme","group":"acme","mode":"0755"}`},
	{upkeep.JobMkdir, "dir/home/new", `{"root":"home","path":"new","owner":"acme","group":"acme","mode":"0755"}`},

	{upkeep.JobUserEnsure, "account/evil", `{"account":"evil","uid":0}`},
	{upkeep.JobUserEnsure, "account/evil", `{"account":"evil","uid":33}`},
	{upkeep.JobUserEnsure, "account/evil", `{"account":"evil","uid":59999}`},
	{upkeep.JobUserEnsure, "account/evil", `{"account":"evil","uid":20001}`},
	{upkeep.JobUserEnsure, "account/evil", `{"account":"evil","uid":20500}`},
	{upkeep.JobUserEnsure, "account/alice", `{"account":"alice","uid":20500}`},
	{upkeep.JobUserEnsure, "account/acme", `{"account":"acme","uid":20777}`},
	{upkeep.JobUserEnsure, "account/root", `{"account":"root","uid":20777}`},
	{upkeep.JobUserEnsure, "account/x:0:0::/:/bin/sh\n", `{"account":"x:0:0::/:/bin/sh\n","uid":20777}`},
	{upkeep.JobUserEnsure, "account/--help", `{"account":"--help","uid":20777}`},
	{upkeep.JobUserRemove, "account/alice", `{"account":"alice","uid":20500}`},
	{upkeep.JobUserRemove, "account/root", `{"account":"root","uid":20001}`},
	{upkeep.JobUserRemove, "account/acme", `{"account":"acme","uid":20001}`}, // the budget is 0

	{upkeep.JobSiteFiles, "site/../../outside", `{"site":{"name":"../../outside","account":"acme","servers":["web1"]},"generation":7,"tenant":{"account":"acme","uid":20001}}`},
	{upkeep.JobSiteFiles, "site/x.test", `{"site":{"name":"x.test","account":"alice","servers":["web1"]},"generation":7,"tenant":{"account":"alice","uid":20500}}`},
	{upkeep.JobSiteFiles, "site/x.test", `{"site":{"name":"x.test","account":"acme","servers":["web1"]},"generation":7,"tenant":{"account":"acme","uid":20002}}`},
	{upkeep.JobSiteFiles, "site/x.test", `{"site":{"name":"x.test","account":"../outside","servers":["web1"]},"generation":7,"tenant":{"account":"../outside","uid":20001}}`},
	{upkeep.JobSiteFiles, "site/x.test", `{"site":{"name":"x.test","account":"acme","servers":["web1"],"root":"../../.."},"generation":7,"tenant":{"account":"acme","uid":20001}}`},
	{upkeep.JobSiteFiles, "site/x.test", `{"site":{"name":"x.test","account":"evil","subof":"example.test","servers":["web1"]},"generation":7,"tenant":{"account":"acme","uid":20001}}`},
	{upkeep.JobSiteApply, "site/x.test", `{"site":{"name":"x.test","account":"acme","servers":["web1"],"aliases":["a\" /etc\nInclude /etc/shadow"]},"generation":7,"tenant":{"account":"acme","uid":20001}}`},
	{upkeep.JobSiteApply, "site/x.test", `{"site":{"name":"x.test","account":"acme","servers":["web1"],"error_pages":{"404":"%{file:/etc/shadow}"},"directives":"Include /etc/shadow"},"generation":7,"tenant":{"account":"acme","uid":20001}}`},
	{upkeep.JobSiteApply, "site/x.test", `{"site":{"name":"x.test","account":"acme","servers":["web1"],"redirects":[{"from":"/a","to":"http://${HOME}/"}]},"generation":7,"tenant":{"account":"acme","uid":20001}}`},
	{upkeep.JobSiteApply, "site/x.test", `{"site":{"name":"x.test","account":"acme","servers":["web1"],"environment":{"A":"b\\"}},"generation":7,"tenant":{"account":"root","uid":20001}}`},
	{upkeep.JobSiteRemove, "site/example.test", `{"name":"example.test","account":"acme","generation":9}`}, // the budget is 0
	{upkeep.JobSiteRemove, "site/..", `{"name":"..","account":"acme","generation":9}`},
	{upkeep.JobSiteRemove, "site/example.test", `{"name":"example.test","account":"..","generation":9}`},
	{upkeep.JobSiteSync, "sites", `{"sites":[]}`}, // which would remove all, and the budget is 0
	{upkeep.JobServerPurge, "web", `{}`},          // with a site that is served
	{upkeep.JobServerPurge, "web", `{"force":true}`},

	{upkeep.JobImageList, "images", `{"root":"../outside"}`},
	{upkeep.JobImageCreate, "image/vms/../outside/x", `{"root":"vms","path":"../outside/x","size":"4K"}`},
	{upkeep.JobImageCreate, "image/vms/link/x", `{"root":"vms","path":"link/x","size":"4K"}`},
	{upkeep.JobImageCreate, "image/vms/large.img", `{"root":"vms","path":"large.img","size":"1T","full":true}`},
	{upkeep.JobImageCreate, "image/vms/x.img", `{"root":"vms","path":"x.img","size":"64K","fs":"ext2","label":"-E,root_owner=1:1"}`},
	{upkeep.JobImageCreate, "image/vms/x.img", `{"root":"vms","path":"x.img","size":"64K","fs":"ext2 /etc/passwd"}`},
	{upkeep.JobImageCreate, "image/vms/a.img", `{"root":"vms","path":"a.img","size":"4K"}`},
	{upkeep.JobImageGrow, "image/etc/passwd", `{"root":"etc","path":"passwd","to":"1M"}`},
	{upkeep.JobImageGrow, "image/vms/odd.img", `{"root":"vms","path":"odd.img","to":"1M"}`},
	{upkeep.JobImageGrow, "image/vms/a.img", `{"root":"vms","path":"../outside/x","to":"1M"}`},
	{upkeep.JobImageGrow, "image/vms/a.img", `{"root":"vms","path":"a.img","to":"1G"}`},
	{upkeep.JobImageShrink, "image/vms/odd.img", `{"root":"vms","path":"odd.img","min":true}`},
	{upkeep.JobImageMkFS, "image/vms/odd.img", `{"root":"vms","path":"odd.img","fs":"ext2","force":true}`},
	{upkeep.JobImageMkFS, "image/vms/a.img", `{"root":"vms","path":"a.img","fs":"ext2","force":true}`}, // the budget is 0
	{upkeep.JobImageCheck, "image/vms/odd.img", `{"root":"vms","path":"odd.img","repair":true}`},
	{upkeep.JobImageCopy, "image/vms/x.img", `{"root":"vms","path":"x.img","source":{"root":"vms","path":"a.img"},"fs":"ext4","size":"1M"}`},
	{upkeep.JobImageClone, "image/vms/x.img", `{"root":"vms","path":"x.img","source":{"root":"vms","path":"odd.img"}}`},
	{upkeep.JobImageClone, "image/vms/x.img", `{"root":"vms","path":"x.img","source":{"root":"data","path":"x"}}`},
	{upkeep.JobImagePack, "image/vms/x.zst", `{"root":"vms","path":"x.zst","source":{"root":"vms","path":"../outside/x"}}`},
	{upkeep.JobImageUnpack, "image/vms/x.img", `{"root":"vms","path":"x.img","source":{"root":"vms","path":"a.img"}}`},
	{upkeep.JobImageUnpack, "image/vms/x.img", `{"root":"vms","path":"x.img","source":"https://192.0.2.1/x.zst"}`},

	{upkeep.JobZonePublish, "zone/example.test", zoneJob("/etc/cron.d", "", "")},
	{upkeep.JobZonePublish, "zone/example.test", zoneJob("DIR/zones/inc/../../outside", "", "")},
	{upkeep.JobZonePublish, "zone/example.test", zoneJob("DIR/outside", "", "")},
	{upkeep.JobZonePublish, "zone/example.test", zoneJob("DIR/zones/inc", "/etc/shadow", "")},
	{upkeep.JobZonePublish, "zone/example.test", zoneJob("DIR/zones/inc", "DIR/zones/../outside/secret", "")},
	{upkeep.JobZonePublish, "zone/example.test", zoneJob("DIR/zones/inc", "", `,"rndc":["/usr/bin/touch","DIR/pwned"],"checkzone":["/usr/bin/touch","DIR/pwned"],"server":"192.0.2.1:53","chroot":"DIR/outside"`)},
}

func zoneJob(include, file, more string) string {
	publisher := fmt.Sprintf(`{"type":"bind","include_dir":%q,"zone_file":%q%s}`, include, file, more)
	if file == "" {
		publisher = fmt.Sprintf(`{"type":"bind","include_dir":%q%s}`, include, more)
	}
	return fmt.Sprintf(`{"zone":{"name":"example.test","publishers":[%s]},"publisher":%s,"sets":[{"owner":"@","ttl":60,"addresses":["192.0.2.1"]}]}`, publisher, publisher)
}

// TestHostileControl has control itself in an attacker's hands: the jobs are
// signed, for this server and new, and checked by nobody before. Whatever they
// ask for, nothing changes, and each is refused with a sentence.
func TestHostileControl(t *testing.T) {
	l := newWebLab(t)
	l.reload(hostilePolicy)
	for _, dir := range []string{"zones", "zones/inc", "data/roots", "images"} {
		l.must(os.Mkdir(l.path(dir), 0o755))
	}
	l.must(os.WriteFile(l.path("images/a.img"), []byte("an image"), 0o600))
	l.must(os.Symlink(l.path("outside/secret"), l.path("images/odd.img")))
	l.must(os.Symlink(l.path("outside"), l.path("images/link")))
	l.must(os.Symlink(l.path("outside"), l.path("data/link")))
	l.wantDone(apply("example.test", "acme", 20001, 1), 1)
	l.write("example.test", "acme", 20001)
	l.wantDone(ensured("beta", 20002), 1)
	before := l.watched()
	for _, one := range hostile {
		one.text = strings.ReplaceAll(one.text, "DIR", l.dir)
		if !json.Valid([]byte(one.text)) {
			t.Fatalf("%s is no JSON", one.text)
		}
		signed, err := link.Sign(l.key, link.Job{
			ID: l.ids.Add(1), Server: "web1", Kind: one.kind, Object: one.object, Generation: generationOf(one.text), Expires: l.now.Add(3600e9), Payload: json.RawMessage(one.text),
		})
		l.must(err)
		outcome := l.root.Do(t.Context(), signed, nil)
		if outcome.State != upkeep.JobFailed || len(outcome.Error) < 20 {
			t.Errorf("%s %s: %s, %q", one.kind, one.text, outcome.State, outcome.Error)
		}
		if strings.ContainsAny(outcome.Error, "\n\x1b") || strings.Contains(outcome.Error, "secret") || strings.Contains(outcome.Error, "panic") {
			t.Errorf("%s %s: %q", one.kind, one.text, outcome.Error)
		}
		if after := l.watched(); after != before {
			t.Fatalf("%s %s changed something:\n%s\nwas\n%s", one.kind, one.text, after, before)
		}
	}
	if got := l.page("example.test"); got != "page of example.test" {
		t.Errorf("the site answers %q", got)
	}
	seen := map[string]bool{}
	for _, one := range hostile {
		seen[one.kind] = true
	}
	for _, kind := range task.Kinds() {
		if kind != upkeep.JobServerFacts && !seen[kind] {
			t.Errorf("no attack by %s", kind)
		}
	}
}

func generationOf(text string) int64 {
	var payload struct {
		Generation int64 `json:"generation"`
	}
	if json.Unmarshal([]byte(text), &payload) != nil || payload.Generation == 0 {
		return 5
	}
	return payload.Generation
}

// watched is the snapshot without what the web server writes by itself.
func (l *lab) watched() string {
	l.t.Helper()
	var kept []string
	for line := range strings.Lines(l.snapshot()) {
		if !strings.HasPrefix(line, "apache/logs") && !strings.HasPrefix(line, "apache/run") && !strings.HasPrefix(line, "apache/scratch") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestZonePublish has a real named load what a job says, through the commands and
// the address of the policy alone.
func TestZonePublish(t *testing.T) {
	l := newLab(t, labPolicy)
	named := testkit.StartNamed(t, testkit.NamedConfig{
		Files: map[string]string{
			"db.example.test": "$INCLUDE \"{dir}/inc/soa.include\"\n@ IN NS ns1\nns1 IN A 192.0.2.53\n$INCLUDE \"{dir}/inc/ips.include\"\n",
			"inc/soa.include": "$TTL 60\n@ IN SOA ns1 hostmaster (\n 7 ; Serial\n 300 60 86400 60 )\n",
			"inc/ips.include": "@ IN A 192.0.2.1\n",
		},
		Config: `zone "example.test" { type primary; file "{dir}/db.example.test"; };`,
	})
	argv, err := json.Marshal(append([]string{mustFind(t, named.RNDC[0])}, named.RNDC[1:]...))
	l.must(err)
	l.reload(fmt.Sprintf("kinds: [zone.publish]\nzones: {include_dirs: [%s], zone_dirs: [%s], rndc: %s, checkzone: [%s], server: %q}\n",
		named.Path("inc"), named.Dir, argv, mustFind(t, "named-checkzone"), named.Addr))
	publisher := upkeep.Publisher{Type: upkeep.PublishBind, IncludeDir: named.Path("inc"), ZoneFile: named.Path("db.example.test"), RNDC: []string{"/usr/bin/touch", l.path("pwned")}, Server: "192.0.2.1:53"}
	job := task.ZonePublish{
		Zone: upkeep.Zone{Name: "example.test", Publishers: []upkeep.Publisher{publisher}, Servers: []string{"192.0.2.1:53"}}, Publisher: publisher,
		Sets: []task.Set{{Owner: "@", TTL: 60, Addresses: []string{"192.0.2.7", "2001:db8::7"}}},
	}
	var told struct{ Serial uint32 }
	for range 2 {
		outcome := l.wantDone(job, 1)
		l.must(json.Unmarshal(outcome.Result, &told))
	}
	text, err := os.ReadFile(named.Path("inc/ips.include"))
	if err != nil || !strings.Contains(string(text), "192.0.2.7") || told.Serial <= 7 {
		t.Errorf("serial %d, %q, %v", told.Serial, text, err)
	}
	if _, err := os.Stat(l.path("pwned")); err == nil {
		t.Error("a command of the job was run")
	}
	// Another zone of the same files that is declared no more does not stand in the
	// way; one that is, does.
	other := job
	other.Zone.Name, other.Zone.Publishers = "other.test", []upkeep.Publisher{publisher}
	other.Zone.SOA.Refresh = upkeep.Duration(time.Hour)
	l.root.zones.made[zoneView{"other.test", ""}] = madeZone{asked: l.root.zones.made[zoneView{"example.test", ""}].asked, publisher: l.sharing(other.Zone)}
	job.Sets[0].Addresses, job.Sharing = []string{"192.0.2.9"}, []string{"example.test", "other.test"}
	l.wantFailed(job, 2, "share include_dir")
	job.Sharing = []string{"example.test"}
	l.wantDone(job, 3)
	// Where somebody else may write, root does not.
	l.must(os.Chmod(named.Path("inc"), 0o775))
	job.Sets[0].Addresses = []string{"192.0.2.8"}
	l.wantFailed(job, 4, "may be written to by others")
}

// sharing has the agent know another zone, as a job of an earlier day would.
func (l *lab) sharing(other upkeep.Zone) *zone.BindPublisher {
	l.t.Helper()
	asked := l.root.zones.made[zoneView{"example.test", ""}].asked
	publisher, err := l.root.zones.bind.Publisher(other.WithDefaults(), asked)
	l.must(err)
	return publisher
}

func mustFind(t *testing.T, program string) string {
	t.Helper()
	path, err := testkit.Find(program)
	if err != nil {
		t.Fatal(err)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
