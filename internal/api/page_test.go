package api

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"upkeep"
)

var nextLink = regexp.MustCompile(`^<(/api/v1/[^>]+)>; rel="next"$`)

// walk reads a list page by page and returns what is in it, and on how many pages.
func walk(t *testing.T, w *world, path string, of func(body []byte) []string) (all []string, pages int) {
	t.Helper()
	for path != "" {
		got := answer(w.face, httptestGet(path), "Authorization", "Bearer "+testToken)
		if got.Code != 200 {
			t.Fatalf("%s: %d %s", path, got.Code, got.Body)
		}
		all, pages, path = append(all, of(got.Body.Bytes())...), pages+1, ""
		if link := got.Header().Get("Link"); link != "" {
			found := nextLink.FindStringSubmatch(link)
			if found == nil {
				t.Fatalf("the link is %q", link)
			}
			path = found[1]
		}
	}
	return all, pages
}

func TestPagesOfNames(t *testing.T) {
	w := newWorld(t)
	w.control.pools = nil
	for _, name := range []string{"e", "b", "d", "a", "c"} { // in no order
		w.control.pools = append(w.control.pools, upkeep.PoolStatus{Name: name})
	}
	names := func(body []byte) (names []string) {
		var list struct{ Pools []struct{ Name string } }
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Pools {
			names = append(names, p.Name)
		}
		return names
	}
	for query, want := range map[string]string{"": "[a b c d e] 1", "?limit=2": "[a b c d e] 3", "?limit=5": "[a b c d e] 1", "?limit=4&after=a": "[b c d e] 1",
		"?limit=1&after=c": "[d e] 2", "?after=bb": "[c d e] 1", "?after=e": "[] 1", "?after=z": "[] 1"} {
		all, pages := walk(t, w, "/api/v1/pools"+query, names)
		if got := fmt.Sprintf("%v %d", all, pages); got != want {
			t.Errorf("%q: %s pages, want %s", query, got, want)
		}
	}
	if w.control.pools[0].Name != "e" {
		t.Error("a page sorts what others hold")
	}
}

// Of sites those on the page are asked for and no others, and one that goes away
// meanwhile does not end the list.
func TestPagesOfSites(t *testing.T) {
	w := newWorld(t)
	w.hosting.sites, w.hosting.gone = []string{"a", "b", "c", "d", "e"}, "d"
	names := func(body []byte) (names []string) {
		var list struct{ Sites []struct{ Name string } }
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		for _, s := range list.Sites {
			names = append(names, s.Name)
		}
		return names
	}
	for query, want := range map[string]string{
		"?account=x":          `[a b c e] 1 [ 1000 sites of "x" after ""]`,
		"?limit=2":            `[a b c e] 3 [ 2 sites of "" after ""  2 sites of "" after "b"  2 sites of "" after "d"]`,
		"?limit=1&after=c":    `[e] 2 [ 1 sites of "" after "c"  1 sites of "" after "d"]`,
		"?limit=5&after=e":    `[] 1 [ 5 sites of "" after "e"]`,
		"?limit=10000&after=": `[a b c e] 1 [ 10000 sites of "" after ""]`,
	} {
		w.hosting.asked = nil
		all, pages := walk(t, w, "/api/v1/sites"+query, names)
		if got := fmt.Sprintf("%v %d %v", all, pages, w.hosting.asked); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

// Lists that begin with the newest go on below the last id; what else was asked for
// stays.
func TestPagesOfTheNewest(t *testing.T) {
	w := newWorld(t)
	w.hosting.jobs = []upkeep.Job{{ID: 9}, {ID: 8}}
	for path, want := range map[string]string{
		"/api/v1/jobs?limit=2&server=web1&state=done":    `</api/v1/jobs?before=8&limit=2&server=web1&state=done>; rel="next"`,
		"/api/v1/jobs?limit=3":                           "",
		"/api/v1/audit?limit=1&who=user+ada":             `</api/v1/audit?before=3&limit=1&who=user+ada>; rel="next"`,
		"/api/v1/audit?limit=2":                          "",
		"/api/v1/events?limit=1&object=pool%2Fweb":       `</api/v1/events?before=1&limit=1&object=pool%2Fweb>; rel="next"`,
		"/api/v1/events?limit=1&after=0":                 `</api/v1/events?after=0&before=1&limit=1>; rel="next"`,
		"/api/v1/events?limit=2":                         "",
		"/api/v1/jobs?limit=2&object=a%22%3E%0d%0aX:%20": `</api/v1/jobs?before=8&limit=2&object=a%22%3E%0D%0AX%3A+>; rel="next"`,
	} {
		got := answer(w.face, httptestGet(path), "Authorization", "Bearer "+testToken)
		if got.Code != 200 || got.Header().Get("Link") != want {
			t.Errorf("%s: %d, Link %s, want %s", path, got.Code, got.Header().Get("Link"), want)
		}
	}
	w.control.events = []upkeep.Event{someEvent(1), someEvent(2), someEvent(3)}
	ids := func(body []byte) []string {
		return regexp.MustCompile(`"id":\d`).FindAllString(string(body), -1)
	}
	if all, pages := walk(t, w, "/api/v1/events?after=1&limit=1", ids); strings.Join(all, ",") != `"id":2,"id":3` || pages != 3 {
		t.Errorf("events after one: %v on %d pages", all, pages)
	}
}

func TestPagesOutOfBounds(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/api/v1/pools?limit=0", "/api/v1/sites?limit=10001", "/api/v1/jobs?limit=-1", "/api/v1/jobs?limit=1001", "/api/v1/audit?limit=x",
		"/api/v1/audit?before=-1", "/api/v1/users?after=" + strings.Repeat("a", 254), "/api/v1/events?limit=1001"} {
		got := answer(w.face, httptest.NewRequest("GET", path, nil), "Authorization", "Bearer "+testToken)
		if fault := answerFault(got, "query."); fault != "" {
			t.Errorf("%s: %s", path, fault)
		}
	}
}
