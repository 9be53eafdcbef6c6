package console

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/testkit/browser"
)

// justBegun is an upkeep with which nothing was done yet.
func justBegun() scene {
	return scene{f: &fake{}, h: &hosting{bare: true, users: []upkeep.User{{Name: "ada", Role: upkeep.UserStaff, Created: past(time.Minute)}}, tokens: []upkeep.AccessToken{}}}
}

// Names as long as they get.
var (
	longLabel = strings.Repeat("label-of-", 7)[:63]
	longName  = (strings.Repeat(longLabel+".", 4))[:249] + ".org"
	longText  = "AH00526: Syntax error on line 7 of /etc/apache2/upkeep/" + longName + ".conf: " + strings.Repeat("Invalid command 'Bananas', perhaps misspelled or defined by a module not included in the server configuration; ", 6)
)

// overfull is an upkeep with more of everything than anybody should have, under names
// as long as they get: 1,000 pools and 10,000 sites.
func overfull() scene {
	f, h := crowded(), twoCustomers()
	big := &f.pools[len(f.pools)-1]
	big.Page, big.Reason, big.Next, big.Warnings = upkeep.StatusPage{Public: true, Addresses: true, Title: longText[:100]}, longText, longText, []string{longText}
	big.Members[7].Label, big.Members[7].AdminWho, big.Members[7].AdminWhy, big.Members[7].Warning, big.Members[7].Admin = longLabel, "user "+longLabel, longText[:500], longText, upkeep.AdminDrain
	z := zoneOf(longName)
	z.Servers[0].Address, z.Servers[0].InSync, z.Servers[0].Error = longName+":53", false, longText
	z.Publishers[0].Agent, z.Publishers[0].Error, z.Publishers[0].Hint = longLabel, longText, longText
	f.zones, big.Zones = []upkeep.ZoneStatus{z}, []upkeep.ZoneStatus{z}
	for i := range 500 {
		f.zones = append(f.zones, zoneOf(fmt.Sprintf("zone-%03d.example.test", i)))
	}
	site := upkeep.Site{Name: longName, Account: "acme", Servers: []string{longLabel}, ErrorPages: map[string]string{"404": longText}}
	for i := range 100 {
		site.Aliases = append(site.Aliases, fmt.Sprintf("alias-%02d.%s", i, longName[10:]))
	}
	h.sites = []upkeep.Site{site}
	for i := range 10000 {
		h.sites = append(h.sites, upkeep.Site{Name: fmt.Sprintf("shop-%05d.example.test", i), Account: fmt.Sprintf("customer-%03d", i%1000), Servers: []string{"web1"}})
	}
	h.status = func(s upkeep.SiteStatus) upkeep.SiteStatus {
		if s.Name == longName || strings.HasSuffix(s.Name, "77.example.test") {
			s.State, s.Reason, s.Servers[0] = upkeep.SiteFailed, longText, upkeep.ServedStatus{Server: longLabel, State: upkeep.SiteFailed, Reason: longText, URL: "http://[2001:db8:1234:5678:9abc:def0:1234:5678]:8080"}
		}
		return s
	}
	h.history[longName] = []store.Version{{Generation: 12345678, Object: site, At: past(time.Hour), Who: "user " + longLabel}, {Generation: 12345677, Object: upkeep.Site{Name: longName, Account: "acme", Servers: []string{"web1"}}, At: past(time.Hour), Who: "user eve"}}
	h.jobs = nil
	for i := range 400 {
		job := upkeep.Job{ID: int64(i + 1_000_000), Account: "acme", Server: longLabel, Kind: upkeep.JobSiteApply, Object: "site/" + longName, State: []upkeep.JobState{upkeep.JobFailed, upkeep.JobRunning, upkeep.JobPending, upkeep.JobDone}[i%4], Who: "user " + longLabel, Percent: 50, Progress: longText, Created: past(time.Duration(i) * time.Hour), Started: past(time.Duration(i) * time.Hour)}
		if job.State == upkeep.JobFailed {
			job.Error, job.Field = longText, "error_pages.404"
		}
		if i%5 == 4 {
			job.Kind, job.Object, job.Server = upkeep.JobImageGrow, "image/vms/"+longName, "vm1"
		}
		h.jobs = append(h.jobs, job)
	}
	for i := range 100 {
		h.servers = append(h.servers, upkeep.AgentStatus{Name: fmt.Sprintf("%s%02d", longLabel[:61], i), Roles: upkeep.Roles, State: "joined", Since: past(time.Hour), Expires: time.Now().Add(time.Hour), Pending: 123456, Sites: 10000,
			Facts: &upkeep.Facts{Hostname: longName, System: "Debian GNU/Linux 12 (bookworm)", WebServer: "Apache/2.4.66 (Debian) OpenSSL/3.0.17 mod_fcgid/2.3.9", Warnings: []string{longText}, Astray: map[string]string{longName: longText}}})
	}
	for i := range 600 {
		one := upkeep.ImageFile{Root: "vms", Path: fmt.Sprintf("%03d/%s.img", i, longName), Size: 1 << 50, Allocated: 1 << 49, Kind: upkeep.ImageSparse, Changed: past(time.Hour), Format: "raw", Type: "ext4", Label: longLabel[:16], UUID: "0b3ac1a0-5b0c-4a52-8d0b-3b8b4b6b5d1f", State: "clean", Used: 1 << 48, Free: 1 << 48, Holders: []string{longText, "qemu (pid 4711) has it open"}}
		h.images[0].Images = append(h.images[0].Images, one)
	}
	h.images[0].More, h.images[0].Problems = 123456, []string{longText}
	for i := range 300 {
		h.audits = append(h.audits, upkeep.AuditEntry{ID: int64(1000 - i), At: past(time.Duration(i) * time.Minute), Who: "user " + longLabel, Object: "site/" + longName, What: "changed error_pages and aliases", Why: longText,
			Before: []byte(`{"name":"` + longName + `","account":"acme","servers":["web1"]}`), After: []byte(`{"name":"` + longName + `","account":"acme","servers":["web1"],"error_pages":{"404":"` + strings.ReplaceAll(longText, `"`, "") + `"}}`)})
		h.users = append(h.users, upkeep.User{Name: fmt.Sprintf("%s%03d", longLabel[:60], i), Role: upkeep.UserCustomer, Account: "a" + longLabel[:30], Created: past(time.Hour), SignIns: 1234, Factor: true, Locked: time.Now().Add(time.Hour)})
		h.things = append(h.things, upkeep.Declared{Generation: 123456, Object: upkeep.Account{Name: fmt.Sprintf("customer-%03d-%s", i, longLabel[:18]), UID: 20000 + i, Email: longLabel + "@" + longName[:180]}})
	}
	h.signIns = []upkeep.SignIn{{ID: 1, Created: past(time.Hour), Seen: past(time.Minute), Address: "2001:db8:1234:5678:9abc:def0:1234:5678", Agent: strings.Repeat("Mozilla/5.0 (X11; Linux x86_64) ", 12)}}
	h.tokens = []upkeep.AccessToken{{ID: 1, Name: longText[:100], Scope: upkeep.ScopeWrite, Expires: time.Now().Add(time.Hour)}}
	last := h.images[0].Images[len(h.images[0].Images)-1]
	return scene{f: f, h: h, pool: big.Name, zone: longName, site: longName, server: "vm1", root: "vms", image: last.Path, things: map[string]string{upkeep.KindAccount: "acme"}}
}

// Every page fits its window at every width, a phone's among them, with nothing sticking
// out, every field with its label, and nothing for the browser to complain of: where
// there is nothing, on an ordinary day, and where there is more than anybody should have.
// UPKEEP_SHOTS names a folder to keep pictures in.
func TestEveryPageFitsItsWindow(t *testing.T) {
	tab := browser.Open(t)
	shots, widths := os.Getenv("UPKEEP_SHOTS"), []int64{360, 1280}
	if shots != "" {
		widths = []int64{390, 1280}
	}
	for name, s := range map[string]scene{"empty": justBegun(), "typical": livedIn(t), "overfull": overfull()} {
		n := 0
		s.tour(t, tab, func(at stop, _ string) {
			n++
			for _, width := range widths {
				tab.Do(chromedp.EmulateViewport(width, 900))
				overflow := browser.Ask[float64](tab, "document.documentElement.scrollWidth - innerWidth")
				wide := browser.Ask[[]string](tab, `[...document.querySelectorAll("main *, header *")].filter(e => !e.closest("svg, thead") && e.getBoundingClientRect().right > innerWidth + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 90))`)
				// A cell whose text is wider than itself lies over its neighbour.
				wide = append(wide, browser.Ask[[]string](tab, `[...document.querySelectorAll("tbody th, tbody td")].filter(e => e.scrollWidth > e.clientWidth + 1).slice(0, 3).map(e => e.outerHTML.slice(0, 90))`)...)
				nameless := browser.Ask[[]string](tab, `[...document.querySelectorAll("input:not([type=hidden], [hidden]), select, textarea")].filter(e => !e.labels.length).map(e => e.outerHTML.slice(0, 90))`)
				if overflow > 0 || len(wide)+len(nameless) > 0 {
					t.Errorf("%s: %s at %d: %v pixels too wide, %.300q, without a label %q", name, at, width, overflow, wide, nameless)
				}
				if shots == "" {
					continue
				}
				for _, scheme := range []string{"light", "dark"} {
					tab.Do(browser.Scheme(scheme))
					tab.Picture(filepath.Join(shots, fmt.Sprintf("%s-%03d-%d-%s.png", name, n, width, scheme)))
				}
			}
		})
	}
	for _, complaint := range tab.Complaints() {
		if !strings.Contains(complaint, "status of 4") { // what is refused, and what is not there
			t.Errorf("the browser complains: %s", complaint)
		}
	}
}
