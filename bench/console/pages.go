package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"time"

	"upkeep/internal/access"
)

// asked are the paths of every page, by its route.
func (b *bench) asked() map[string][]string {
	one := "/sites/" + site(b.sites/2)
	return map[string][]string{
		"GET /{$}":                  {"/", "/?page=7", "/?q=pool-09", "/?wrong=1"},
		"GET /pools/{name}":         {"/pools/" + pool(0), "/pools/" + pool(b.pools/2)},
		"GET /events":               {"/events", fmt.Sprintf("/events?before=%d", b.jobs/2)},
		"GET /zones":                {"/zones"},
		"GET /sites":                {"/sites", "/sites?page=60", "/sites?state=failed", "/sites?q=site77", "/sites?q=nothing-is-called-so"},
		"GET /sites/new":            {"/sites/new"},
		"GET /sites/{name}":         {one},
		"GET /sites/{name}/edit":    {one + "/edit"},
		"GET /sites/{name}/history": {one + "/history"},
		"GET /sites/{name}/remove":  {one + "/remove"},
		"GET /jobs": {"/jobs", "/jobs?state=failed", "/jobs?state=cancelled", "/jobs?state=cancelled&state=superseded&state=failed", "/jobs?state=pending", "/jobs?account=" + account(7),
			"/jobs?account=" + account(7) + "&state=superseded", "/jobs?server=" + web(7), "/jobs?server=" + web(7) + "&state=cancelled", "/jobs?object=site/" + site(50), "/jobs?kind=user.ensure&state=failed", fmt.Sprintf("/jobs?before=%d", b.jobs/2)},
		"GET /jobs/{id}":                     {fmt.Sprintf("/jobs/%d", b.jobs/2)},
		"GET /servers":                       {"/servers"},
		"GET /servers/{name}":                {"/servers/" + web(7)},
		"GET /zones/{name}":                  {"/zones/" + zone(7)},
		"GET /audit":                         {"/audit"},
		"GET /audit/{id}":                    {"/audit/1"},
		"GET /declared":                      {"/declared"},
		"GET /declare/{kind}":                {"/declare/pool"},
		"GET /declared/{kind}/{name}":        {"/declared/pool/" + pool(0), "/declared/zone/" + zone(7)},
		"GET /declared/{kind}/{name}/remove": {"/declared/pool/" + pool(0) + "/remove"},
		"GET /receivers/new":                 {"/receivers/new"},
		"GET /receivers/{name}/edit":         nil, // there are none
		"GET /delegations/new":               {"/delegations/new"},
		"GET /delegations/{name}/edit":       nil,
		"GET /images":                        {"/images"},
		"GET /images/":                       nil, // there are none
		"GET /docs/api":                      {"/docs/api"},
		"GET /accounts":                      {"/accounts"},
		"GET /users":                         {"/users"},
		"GET /me":                            {"/me"},
		"GET /signin":                        nil, // of strangers
		"GET /setup":                         nil, // of nobody any more
		"GET /live":                          nil, // has no end
		"GET /":                              {"/nothing"},
		"GET /assets/":                       nil,
		"GET /healthz":                       nil,
		"GET /metrics":                       nil,
		"GET /api/":                          nil,
		"GET /openapi":                       nil,
		"GET /status/":                       nil, // are not behind a sign-in
	}
}

// paths are those of staff, in order; a page without one is an error.
func (b *bench) paths() ([]string, error) {
	asked := b.asked()
	var paths []string
	for _, pattern := range access.Patterns() {
		if !strings.HasPrefix(pattern, "GET ") {
			continue
		}
		some, known := asked[pattern]
		for prefix, none := range asked {
			known = known || none == nil && strings.HasPrefix(pattern, prefix)
		}
		if !known {
			return nil, fmt.Errorf("nobody has said how to ask for %s", pattern)
		}
		paths = append(paths, some...)
	}
	return paths, nil
}

// pagesTable asks for every page again and again.
func (b *bench) pagesTable() error {
	paths, err := b.paths()
	if err != nil {
		return err
	}
	fmt.Printf("\n| who | page | median | worst | CPU of upkeep, mean | bytes | bytes sent |\n|---|---|---|---|---|---|---|\n")
	customer := []string{"/sites", "/sites/" + site(7), "/sites/" + site(7) + "/edit", "/jobs", "/jobs?state=failed", "/me"}
	for _, one := range []struct {
		who   string
		paths []string
	}{{"ada", paths}, {"eve", customer}, {"", []string{"/", "/pools/" + pool(0), "/events", "/signin"}}} {
		visitor, err := b.signIn(one.who)
		if err != nil {
			return err
		}
		for _, path := range one.paths {
			if err := visitor.measure(path, b.times, b.server.PID()); err != nil {
				return err
			}
		}
	}
	return nil
}

// visitor asks for pages as a browser of somebody does.
type visitor struct {
	who, root string
	client    *http.Client
}

func (b *bench) signIn(who string) (*visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	v := &visitor{who, "http://" + b.address, &http.Client{Jar: jar, Transport: &http.Transport{DisableCompression: true}}}
	v.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if who == "" {
		return v, nil
	}
	response, err := v.client.PostForm(v.root+"/signin", url.Values{"name": {who}, "password": {password}})
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSeeOther {
		return nil, fmt.Errorf("signing in as %s: %s", who, response.Status)
	}
	return v, nil
}

// get returns how long a page took, from asking to its last byte.
func (v *visitor) get(path, encoding string) (took time.Duration, size int64, err error) {
	request, err := http.NewRequest(http.MethodGet, v.root+path, nil)
	if err != nil {
		return 0, 0, err
	}
	request.Header.Set("Accept", "text/html")
	if encoding != "" {
		request.Header.Set("Accept-Encoding", encoding)
	}
	began := time.Now()
	response, err := v.client.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	size, err = io.Copy(io.Discard, response.Body)
	took = time.Since(began)
	if err == nil && response.StatusCode != http.StatusOK && path != "/nothing" {
		err = fmt.Errorf("%s answers %s", path, response.Status)
	}
	return took, size, err
}

func (v *visitor) measure(path string, times, pid int) error {
	_, plain, err := v.get(path, "") // which warms it up
	if err != nil {
		return err
	}
	var all []time.Duration
	var sent int64
	before := processorTime(pid)
	for range times {
		took, size, err := v.get(path, "gzip")
		if err != nil {
			return err
		}
		all, sent = append(all, took), size
	}
	used := (processorTime(pid) - before) / time.Duration(times)
	slices.Sort(all)
	who := map[string]string{"ada": "staff", "eve": "customer", "": "stranger"}[v.who]
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Printf("| %s | `%s` | %.1f ms | %.1f ms | %.1f ms | %d | %d |\n", who, path, ms(all[len(all)/2]), ms(all[len(all)-1]), ms(used), plain, sent)
	return nil
}
