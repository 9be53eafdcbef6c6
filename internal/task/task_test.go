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
	upkeep.JobImageList:    `{}`,
	upkeep.JobImageCreate:  `{"root":"vms","path":"web/a.img","size":"4G","fs":"ext4","label":"root","reserved":1.5,"uuid":"6b1f0c9e-2d1a-4c55-9f7e-0a1b2c3d4e5f"}`,
	upkeep.JobImageGrow:    `{"root":"vms","path":"a.img","to":8589934592}`,
	upkeep.JobImageShrink:  `{"root":"vms","path":"a.img","min":true}`,
	upkeep.JobImageMkFS:    `{"root":"vms","path":"a.img","fs":"ext3","profile":"xen-2010","force":true}`,
	upkeep.JobImageCheck:   `{"root":"vms","path":"a.img","repair":true}`,
	upkeep.JobImageCopy:    `{"root":"vms","path":"b.img","source":{"root":"vms","path":"a.img"},"fs":"xfs","size":"20G","verify":true}`,
	upkeep.JobImageClone:   `{"root":"vms","path":"b.img","source":{"root":"old","path":"a.img"},"new_ids":true}`,
	upkeep.JobImagePack:    `{"root":"vms","path":"a.zst","source":{"root":"vms","path":"a.img"}}`,
	upkeep.JobImageUnpack:  `{"root":"vms","path":"b.img","source":{"root":"vms","path":"a.zst"},"as":"full"}`,
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
		{upkeep.JobMkdir, `{"root"`, `{"command":"id","root"`, "is not a field of mkdir"},
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
		{upkeep.JobUserEnsure, `20001`, `"20001"`, "must be a whole number"},
		{upkeep.JobUserEnsure, `20001`, `20001.5`, "must be a whole number"},
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
		{upkeep.JobImageCreate, `"vms"`, `"../etc"`, "root: "},
		{upkeep.JobImageCreate, `"web/a.img"`, `"../a.img"`, "path: "},
		{upkeep.JobImageCreate, `"web/a.img"`, `"/etc/passwd"`, "path: "},
		{upkeep.JobImageCreate, `"web/a.img"`, `".a.img.upkeep-new~"`, "path: "},
		{upkeep.JobImageCreate, `"4G"`, `0`, "size: "},
		{upkeep.JobImageCreate, `"4G"`, `"-4G"`, "is not a size"},
		{upkeep.JobImageCreate, `"4G"`, `"17T"`, "size: "},
		{upkeep.JobImageCreate, `"4G"`, `1.5`, "must be a number of bytes"},
		{upkeep.JobImageCreate, `"ext4"`, `"ntfs"`, "fs: "},
		{upkeep.JobImageCreate, `"fs":"ext4",`, ``, "fs: "},
		{upkeep.JobImageCreate, `"root",`, `"-E",`, "label: "},
		{upkeep.JobImageCreate, `1.5`, `51`, "reserved: "},
		{upkeep.JobImageCreate, `6b1f0c9e-`, `; rm -rf `, "uuid: "},
		{upkeep.JobImageGrow, `"to"`, `"by"`, "is not a field of image.grow"},
		{upkeep.JobImageGrow, `8589934592`, `-1`, "to: "},
		{upkeep.JobImageShrink, `"min":true`, `"min":false`, "to: "},
		{upkeep.JobImageShrink, `"min":true`, `"min":true,"to":"1G"`, "to: "},
		{upkeep.JobImageMkFS, `"fs":"ext3",`, ``, "fs: "},
		{upkeep.JobImageMkFS, `xen-2010`, `-E test`, "profile: "},
		{upkeep.JobImageCopy, `"a.img"`, `"../a.img"`, "source.path: "},
		{upkeep.JobImageCopy, `"a.img"`, `"b.img"`, "source.path: "},
		{upkeep.JobImageClone, `"old"`, `"old/.."`, "source.root: "},
		{upkeep.JobImagePack, `{"root":"vms","path":"a.img"}`, `"/etc/shadow"`, "must be an object"},
		{upkeep.JobImageUnpack, `"full"`, `"fat"`, "as: "},
		{upkeep.JobServerFacts, `{}`, `[]`, "must be an object: {}"},
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

// TestShapeInPlainWords holds that what cannot be read is told by its field and a
// rule, and never by a type of Go.
func TestShapeInPlainWords(t *testing.T) {
	for _, one := range []struct{ kind, text, want string }{
		{upkeep.JobImageClone, `{"root":"vms","path":"b.img","source":"a.img"}`, `source: "a.img": must be an object: {"root": ..., "path": ...}`},
		{upkeep.JobImageGrow, `{"root":"vms","path":"b.img","by":"1G"}`, `by: is not a field of image.grow; it has root, path, partition, to, file_only`},
		{upkeep.JobImageGrow, `{"root":7,"to":"lots"}`, `root: "7": must be text, in quotes`},
		{upkeep.JobImageGrow, `{"root":7,"to":"lots"}`, `to: "lots": is not a size`},
		{upkeep.JobImageCopy, `{"source":{"root":"vms","file":"x"}}`, `source.file: is not a field of source of image.copy; it has root, path`},
		{upkeep.JobImageCheck, `{"repair":"yes"}`, `repair: "yes": must be true or false`},
		{upkeep.JobServerFacts, `{"what":1}`, `what: is not a field of server.facts; it has none`},
	} {
		_, err := Decode(one.kind, []byte(one.text))
		if err == nil || !strings.Contains(err.Error(), one.want) {
			t.Errorf("%s: got %v, want %s", one.text, err, one.want)
		}
	}
	for _, kind := range Kinds() {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(good[kind]), &fields); err != nil {
			t.Fatal(err)
		}
		for name, value := range fields {
			fields[name] = json.RawMessage("[[]]")
			text, _ := json.Marshal(fields)
			var invalid *upkeep.InvalidError
			if _, err := Decode(kind, text); !errors.As(err, &invalid) || !strings.HasPrefix(invalid.Fields[0].Field, name) || strings.Contains(err.Error(), "Go ") {
				t.Errorf("%s with a list for %s: %v", kind, name, err)
			}
			fields[name] = value
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

// TestKnownSites leaves sites out that are known, and reads them when they are asked
// for; all else is held to the rules as ever.
func TestKnownSites(t *testing.T) {
	one := func(name, more string) string {
		return `{"site":{"name":"` + name + `","account":"acme","servers":["web1"]` + more + `},"generation":7,"tenant":{"account":"acme","uid":20001}}`
	}
	quoted := one("a.test", `,"error_pages":{"404":"\"}{][ é"}`)
	known := func(text []byte) (string, int64, bool) { return "a.test", 7, string(text) == quoted }
	text := `{"sites":[` + quoted + `,` + one("b.test", "") + `],"keep":["c.test"]}`
	got, err := DecodeSync([]byte(text), known)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Decode(upkeep.JobSiteSync, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := plain.(SiteSync)
	if !got.Known(0) || got.Known(1) || got.Sites[0].Site.Account != "" || got.Sites[0].Object() != "site/a.test" || got.Sites[0].Generation != 7 || len(got.Keep) != 1 {
		t.Errorf("got %+v", got)
	}
	for i, site := range want.Sites {
		read, err := got.Read(i)
		if diff := cmp.Diff(site, read); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
		first, err1 := got.Text(i)
		second, err2 := want.Text(i)
		if err := errors.Join(err1, err2); err != nil || string(first) != string(second) {
			t.Errorf("%v: %s is known as %s", err, first, second)
		}
	}
	for text, says := range map[string]string{
		`{"sites":[` + quoted + `,` + one("a.test", "") + `]}`:                   "is there twice",
		`{"sites":[` + quoted + `,` + one("b.test", `,"root":"../x"`) + `]}`:     "sites[1].root",
		`{"sites":[` + quoted + `,` + one("b.test", `,"x":1`) + `]}`:             "unknown field",
		`{"sites":[` + quoted + `,` + one("b.test", `},{"name":"c.test"`) + `]}`: "invalid character",
		`{"sites":[` + quoted + `],"x":1}`:                                       "unknown field",
		`{"sites":[` + quoted + `]} {}`:                                          "more than one",
		`{"sites":[` + quoted + `,]}`:                                            "invalid character",
		`{"sites":[` + quoted:                                                    "unexpected EOF",
		`{"sites":[` + quoted + `],"partial":true}`:                              "partial",
	} {
		if got, err := DecodeSync([]byte(text), known); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want %q", text, got, err, says)
		}
	}
}

// FuzzDecodeSync holds that what is read by halves is what is read whole.
func FuzzDecodeSync(f *testing.F) {
	f.Add([]byte(good[upkeep.JobSiteSync]))
	f.Add([]byte(`{"sites":[{},{"site":"}"}],"keep":[],"sites":null}`))
	f.Add([]byte(`{"sites":[{"site":{"name":"\"}"}}],"\u0073ites":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, err := Decode(upkeep.JobSiteSync, text)
		halves, err2 := DecodeSync(text, func([]byte) (string, int64, bool) { return "", 0, false })
		if (err == nil) != (err2 == nil) {
			t.Fatalf("%q: %v and %v", text, err, err2)
		}
		if err != nil {
			return
		}
		first, err := json.Marshal(whole)
		second, err2 := json.Marshal(halves)
		if err := errors.Join(err, err2); err != nil || string(first) != string(second) {
			t.Fatalf("%q: %s and %s, %v", text, first, second, err)
		}
	})
}
