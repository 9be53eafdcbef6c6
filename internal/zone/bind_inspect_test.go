package zone

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
)

func TestBindInspect(t *testing.T) {
	for name, c := range map[string]struct {
		named testkit.NamedConfig
		view  string
		want  func(f *BindFacts)
		found []string // settings, in order
	}{
		"defaults": {
			want:  func(f *BindFacts) { f.Notify = "explicit" }, // every server of testkit has that
			found: []string{"notify-delay", "ixfr-from-differences"},
		},
		"mended": {
			named: testkit.NamedConfig{Options: "notify-delay 0; ixfr-from-differences yes; max-records-per-type 50;"},
			want: func(f *BindFacts) {
				f.Notify, f.NotifyDelay, f.IXFRFromDifferences, f.MaxRecords = "explicit", 0, true, 50
			},
			found: []string{"max-records-per-type"},
		},
		"the zone over options": {
			named: testkit.NamedConfig{
				Options: "notify-delay 9; notify-rate 1; max-records-per-type 0;",
				Config:  `zone "other.test" { type primary; notify yes; file "{dir}/db.example.test"; }; zone "example.test" { type primary; file "{dir}/db.example.test"; notify no; notify-delay 3; };`,
			},
			want: func(f *BindFacts) {
				f.Notify, f.NotifyDelay, f.NotifyRate, f.MaxRecords = "no", 3*time.Second, 1, 0
			},
			found: []string{"notify", "notify-rate", "ixfr-from-differences"},
		},
		"in a view": {
			named: testkit.NamedConfig{Config: `view "a" { match-clients { 127.0.0.2; }; ` + primaryZone + ` };
view "b" { notify-delay 7; zone "example.test" { type primary; file "{dir}/db.example.test"; notify yes; }; };`},
			view:  "b",
			want:  func(f *BindFacts) { f.Notify, f.NotifyDelay = "yes", 7*time.Second },
			found: []string{"notify-delay", "ixfr-from-differences"},
		},
		"dynamic": {
			named: testkit.NamedConfig{Config: `zone "example.test" { type primary; file "{dir}/db.example.test"; update-policy local; };`},
			want:  func(f *BindFacts) { f.Notify, f.Dynamic = "explicit", true },
			found: []string{"allow-update or update-policy", "notify-delay", "ixfr-from-differences"},
		},
		"inline signing": {
			named: testkit.NamedConfig{Config: `zone "example.test" { type primary; file "{dir}/db.example.test"; dnssec-policy default; inline-signing yes; };`},
			want:  func(f *BindFacts) { f.Notify, f.InlineSigning = "explicit", true },
			found: []string{"notify-delay"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			lab := newBindLab(t, bindSetup{named: c.named, edit: func(_ *testkit.Named, z *upkeep.Zone) { z.Publishers[0].View = c.view }})
			facts, err := lab.pub.Inspect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, f := range facts.Findings {
				found = append(found, f.Setting)
			}
			if !slices.Equal(found, c.found) {
				t.Errorf("findings %q, want %q", found, c.found)
			}
			want := BindFacts{Configured: true, NotifyDelay: 5 * time.Second, NotifyRate: 20, Notify: "yes", MaxRecords: 100}
			c.want(&want)
			facts.Findings = nil
			if fmt.Sprintf("%+v", facts) != fmt.Sprintf("%+v", want) {
				t.Errorf("facts %+v, want %+v", facts, want)
			}
		})
	}
}

func TestParseConfig(t *testing.T) {
	for _, text := range []string{"}", "{", "a { b { c; };", "x; }", strings.Repeat("a {", 100), "\"open", "/* open"} {
		if _, err := parseConfig(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	config, err := parseConfig("options { notify-delay 4; listen-on { any; }; };\nzone \"A.test\" IN { notify no; };;\n")
	if err != nil {
		t.Fatal(err)
	}
	scopes := config.scopes("a.test", "")
	if v, _ := setting(scopes, "notify-delay"); v != "4" || len(scopes) != 2 {
		t.Errorf("notify-delay %q in %d scopes", v, len(scopes))
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("options { notify-delay 4; };\nview \"a\" { zone \"a.test\" IN { notify no; }; };")
	f.Fuzz(func(t *testing.T, text string) {
		config, err := parseConfig(text)
		if err == nil {
			setting(config.scopes("a.test", "a"), "notify")
		}
	})
}
