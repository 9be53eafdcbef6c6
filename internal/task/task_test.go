package task

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"upkeep"
)

// good has a valid payload of each kind.
var good = map[string]string{
	upkeep.JobMkdir:        `{"root":"home","path":"acme/x","owner":"acme","group":"web","mode":"0750"}`,
	upkeep.JobUserEnsure:   `{"account":"acme","uid":20001}`,
	upkeep.JobUserRemove:   `{"account":"acme","uid":20001}`,
	upkeep.JobSiteFiles:    `{"site":{"name":"example.test","account":"acme","servers":["web1"]},"generation":1,"tenant":{"account":"acme","uid":20001}}`,
	upkeep.JobSiteApply:    `{"site":{"name":"example.test","account":"acme","servers":["web1"]},"generation":1,"tenant":{"account":"acme","uid":20001}}`,
	upkeep.JobSiteRemove:   `{"name":"example.test","account":"acme","generation":2}`,
	upkeep.JobSiteSync:     `{"sites":[{"site":{"name":"example.test","account":"acme","servers":["web1"]},"generation":1,"tenant":{"account":"acme","uid":20001}}]}`,
	upkeep.JobZonePublish:  `{"zone":{"name":"example.test","publishers":[{"type":"bind","include_dir":"/etc/bind/upkeep"}]},"publisher":{"type":"bind","include_dir":"/etc/bind/upkeep"},"sets":[{"owner":"@","ttl":60,"addresses":["192.0.2.1"]}]}`,
	upkeep.JobNotification: `{"account":"acme","text":"your site\nis live"}`,
	upkeep.JobServerFacts:  `{}`,
	upkeep.JobServerPurge:  `{}`,
}

func TestEveryKindIsRead(t *testing.T) {
	for _, kind := range Kinds() {
		payload, err := Decode(kind, []byte(good[kind]))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if payload.Kind() != kind || payload.Object() == "" {
			t.Errorf("%s is read as %s about %q", kind, payload.Kind(), payload.Object())
		}
	}
	if len(good) != len(Kinds()) {
		t.Errorf("%d kinds are tried of %d", len(good), len(Kinds()))
	}
}

// TestRefusals changes one thing in a valid payload, and says what must be said
// of it.
func TestRefusals(t *testing.T) {
	for _, one := range []struct{ kind, old, new, want string }{
		{"shell", "", "", `job kind "shell" is not known`},
		{upkeep.JobMkdir, `{"root"`, `{"command":"id","root"`, "unknown field"},
		{upkeep.JobMkdir, `"0750"}`, `"0750"} {}`, "more than one JSON value"},
		{upkeep.JobSiteApply, `"generation":1`, `"generation":1,"hold":10001`, "hold: "},
		{upkeep.JobSiteApply, `"generation":1`, `"generation":1,"hold":-1`, "hold: "},
		{upkeep.JobSiteSync, `{"sites"`, `{"changing":["x.test"],"sites"`, "changing[0]: "},
		{upkeep.JobMkdir, `"home"`, `"../etc"`, "root: "},
		{upkeep.JobMkdir, `"acme/x"`, `"../x"`, "path: "},
		{upkeep.JobMkdir, `"acme/x"`, `"acme/../x"`, "path: "},
		{upkeep.JobMkdir, `"acme/x"`, `"acme//x"`, "path: "},
		{upkeep.JobMkdir, `"acme/x"`, `"acme/x/"`, "path: "},
		{upkeep.JobMkdir, `"acme/x"`, `"acme/.ssh"`, "path: "},
		{upkeep.JobMkdir, `"acme/x"`, `"acme/x\n"`, "path: "},
		{upkeep.JobMkdir, `"acme/x"`, `"acme/x\u0000"`, "path: "},
		{upkeep.JobMkdir, `"acme/x"`, `"` + strings.Repeat("a/", 16) + `a"`, "path: "},
		{upkeep.JobMkdir, `"acme/x"`, `"` + strings.Repeat("a", 301) + `"`, "path: "},
		{upkeep.JobMkdir, `"owner":"acme"`, `"owner":"daemon"`, "owner: "},
		{upkeep.JobMkdir, `"web"`, `"beta"`, "group: "},
		{upkeep.JobMkdir, `"web"`, `"sudo"`, "group: "},
		{upkeep.JobMkdir, `"0750"`, `"750"`, "mode: "},
		{upkeep.JobMkdir, `"0750"`, `"2750"`, "mode: "},
		{upkeep.JobMkdir, `"0750"`, `"0757"`, "mode: "},
		{upkeep.JobMkdir, `"0750"`, `"0750\n"`, "mode: "},
		{upkeep.JobMkdir, `"owner":"acme","group":"web","mode":"0750"`, `"owner":"root","group":"web","mode":"0770"`, "mode: "},
		{upkeep.JobUserEnsure, `20001`, `0`, "uid: "},
		{upkeep.JobUserEnsure, `20001`, `65534`, "uid: "},
		{upkeep.JobUserEnsure, `20001`, `"20001"`, "cannot unmarshal"},
		{upkeep.JobUserEnsure, `20001`, `20001.5`, "cannot unmarshal"},
		{upkeep.JobUserEnsure, `"acme"`, `"root"`, "account: "},
		{upkeep.JobUserEnsure, `"acme"`, `"acme:0:0"`, "account: "},
		{upkeep.JobUserRemove, `"acme"`, `"acme\n"`, "account: "},
		{upkeep.JobSiteFiles, `"name":"example.test"`, `"name":"../etc"`, "name: "},
		{upkeep.JobSiteApply, `{"account":"acme","uid"`, `{"account":"beta","uid"`, "tenant.account"},
		{upkeep.JobSiteApply, `20001`, `1000`, "tenant.uid"},
		{upkeep.JobSiteApply, `"generation":1`, `"generation":0`, "generation: "},
		{upkeep.JobSiteRemove, `"generation":2`, `"generation":-2`, "generation: "},
		{upkeep.JobSiteRemove, `"example.test"`, `"*"`, "name: "},
		{upkeep.JobSiteSync, `"uid":20001`, `"uid":1`, "site/example.test: sites[0].tenant.uid"},
		{upkeep.JobSiteSync, `"sites"`, `"partial":true,"sites"`, "partial: "},
		{upkeep.JobZonePublish, `"publisher":{"type":"bind","include_dir":"/etc/bind/upkeep"}`, `"publisher":{"type":"bind","include_dir":"/etc/cron.d"}`, "must be one of the zone's"},
		{upkeep.JobZonePublish, `{"type":"bind","include_dir":"/etc/bind/upkeep"}`, `{"type":"transfer"}`, "must be bind"},
		{upkeep.JobZonePublish, `192.0.2.1`, `192.0.2.1\n$INCLUDE /etc/shadow`, "sets[0].addresses[0]"},
		{upkeep.JobZonePublish, `192.0.2.1`, `224.0.0.1`, "sets[0].addresses[0]"},
		{upkeep.JobZonePublish, `"owner":"@"`, `"owner":"a b"`, "sets[0].owner"},
		{upkeep.JobZonePublish, `"ttl":60`, `"ttl":-1`, "sets[0].ttl"},
		{upkeep.JobNotification, `live`, `\u001b[2J`, "control characters"},
		{upkeep.JobServerFacts, `{}`, `[]`, "cannot unmarshal"},
		{upkeep.JobServerFacts, `{}`, ``, "EOF"},
	} {
		text := strings.ReplaceAll(good[one.kind], one.old, one.new)
		if one.old != "" && text == good[one.kind] {
			t.Errorf("%s: %q is not in %s", one.kind, one.old, text)
		}
		_, err := Decode(one.kind, []byte(text))
		if err == nil || !strings.Contains(err.Error(), one.want) {
			t.Errorf("%s: got %v, want %q", text, err, one.want)
		}
	}
}

// TestTwiceInASync holds that no site can be in a sync twice: the second would be
// served in place of the first.
func TestTwiceInASync(t *testing.T) {
	var sync SiteSync
	if err := json.Unmarshal([]byte(good[upkeep.JobSiteSync]), &sync); err != nil {
		t.Fatal(err)
	}
	sync.Sites = append(sync.Sites, sync.Sites[0])
	broken := sync.Validate()
	if len(broken) != 1 || !strings.Contains(broken[0].Error(), "is there twice") {
		t.Errorf("got %v", broken)
	}
}

// FuzzDecode holds that what is read keeps to the rules, is of the kind that was
// asked for, and is the same when it is written and read again.
func FuzzDecode(f *testing.F) {
	kinds := Kinds()
	for i, kind := range kinds {
		f.Add(uint8(i), []byte(good[kind]))
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		kind := kinds[int(which)%len(kinds)]
		payload, err := Decode(kind, text)
		if err != nil {
			var invalid *upkeep.InvalidError
			if errors.As(err, &invalid) && len(invalid.Fields) == 0 {
				t.Fatalf("refused without a reason: %q", text)
			}
			return
		}
		if payload.Kind() != kind || len(payload.Object()) > 400 || strings.ContainsAny(payload.Object(), "\x00\n\r ") {
			t.Fatalf("%q is a %s about %q", text, payload.Kind(), payload.Object())
		}
		again, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		second, err := Decode(kind, again)
		if err != nil {
			t.Fatalf("%s cannot be read again: %v", again, err)
		}
		third, err := json.Marshal(second)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(again), string(third)); diff != "" {
			t.Fatal(diff)
		}
	})
}
