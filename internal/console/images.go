package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/store"
)

func (c *Console) imageRoutes() {
	c.route("GET /images", c.images)
	c.route("POST /images/look", c.lookForImages)
	c.route("GET /images/{name}/image", c.image)
	c.route("GET /images/{name}/{verb}", c.imageForm)
	c.route("POST /images/{name}/{verb}", c.runImageJob)
}

// pageImages is how many images a page of the list shows.
const pageImages = 200

type imagesView struct {
	Servers []imageServer
	Query   string
	Pager   pager
	None    bool // no server has the role
	Jobs    []jobView
}

// imageServer is a server with those of its images that a page shows.
type imageServer struct {
	Name      string
	At        moment
	Connected bool
	Stale     bool // something was done since it told of its images
	Images    []imageView
	Of, More  int
	Problems  []string
}

// imageView is an image as pages show it.
type imageView struct {
	upkeep.ImageFile
	Server, Path   string // Path is its page's
	Name           string
	Whole, Takes   string // its size, and what it takes of its host
	TakesPct       int
	UsedText       string
	UsedPct        int
	Holding, State string
	Trouble        bool
	Changed        moment
}

func imagePath(server, root, path string) string {
	return "/images/" + url.PathEscape(server) + "/image?" + url.Values{"root": {root}, "path": {path}}.Encode()
}

func percentOf(part, whole int64) int {
	if whole <= 0 {
		return 0
	}
	return int(min(100, max(0, 100*float64(part)/float64(whole))))
}

func viewImage(server string, i upkeep.ImageFile, now time.Time) imageView {
	v := imageView{ImageFile: i, Server: server, Path: imagePath(server, i.Root, i.Path), Name: i.Root + "/" + i.Path,
		Whole: upkeep.Size(i.Size).About(), Takes: upkeep.Size(i.Allocated).About(), TakesPct: percentOf(i.Allocated, i.Size), Changed: at(i.Changed, now), State: i.State}
	if i.Used > 0 || i.Free > 0 {
		v.UsedText, v.UsedPct = upkeep.Size(i.Used).About(), percentOf(i.Used, i.Used+i.Free)
	}
	v.Holding = orElse(i.Type, "no file system that is known")
	switch {
	case i.Partitions > 0:
		v.Holding = plural(i.Partitions, "partition")
	case i.Holds > 0:
		v.Holding = "packed, of " + upkeep.Size(i.Holds).About()
	case i.Format != "raw":
		v.Holding = i.Format
	}
	switch {
	case i.Unfinished != "":
		v.State, v.Trouble = "unfinished: "+i.Unfinished, true
	case i.Damage != "":
		v.State, v.Trouble = "damaged: "+i.Damage, true
	}
	return v
}

func (c *Console) images(w http.ResponseWriter, r *http.Request) {
	ctx, now, q := r.Context(), c.o.Now(), strings.ToLower(strings.TrimSpace(r.URL.Query().Get("q")))
	servers, err := c.imageServers(ctx, now)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	jobs, err := c.imageJobs(ctx, upkeep.JobRunning, upkeep.JobPending)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	v := imagesView{Servers: servers, Query: r.URL.Query().Get("q"), None: len(servers) == 0, Jobs: viewJobs(jobs, now, true)}
	total := 0
	for i := range servers {
		s := &servers[i]
		s.Images = slices.DeleteFunc(s.Images, func(i imageView) bool {
			return !strings.Contains(strings.ToLower(s.Name+" "+i.Name+" "+i.Label), q)
		})
		s.Of = len(s.Images)
		total += s.Of
	}
	keep := url.Values{}
	if q != "" {
		keep.Set("q", v.Query)
	}
	offset, pager := leaf(total, pageImages, number(r, "page", 1), "/images", keep)
	v.Pager = pager
	cutImages(servers, offset, pageImages)
	c.render(w, r, http.StatusOK, "images.html", "Images", v)
}

// cutImages leaves of all images those of one page.
func cutImages(servers []imageServer, offset, size int) {
	for i := range servers {
		s := &servers[i]
		skip := min(offset, len(s.Images))
		offset -= skip
		s.Images = s.Images[skip:]
		s.Images = s.Images[:min(size, len(s.Images))]
		size -= len(s.Images)
	}
}

// imageServers are the servers with images, with all that they told.
func (c *Console) imageServers(ctx context.Context, now time.Time) ([]imageServer, error) {
	lists, err := c.o.Hosting.Servers.Images(ctx, "")
	if err != nil {
		return nil, err
	}
	agents, err := c.o.Hosting.Servers.Servers(ctx)
	if err != nil {
		return nil, err
	}
	connected := map[string]bool{}
	for _, a := range agents {
		connected[a.Name] = a.Connected
	}
	ended, err := c.imageJobs(ctx, upkeep.JobDone)
	if err != nil {
		return nil, err
	}
	var servers []imageServer
	for _, list := range lists {
		s := imageServer{Name: list.Server, At: at(list.At, now), Connected: connected[list.Server], More: list.More, Problems: list.Problems}
		s.Stale = slices.ContainsFunc(ended, func(j upkeep.Job) bool {
			return j.Server == s.Name && j.Kind != upkeep.JobImageList && j.Finished.After(list.At)
		})
		for _, i := range list.Images {
			s.Images = append(s.Images, viewImage(list.Server, i, now))
		}
		servers = append(servers, s)
	}
	return servers, nil
}

// imageJobs are the newest jobs about images that are in one of some states.
func (c *Console) imageJobs(ctx context.Context, states ...upkeep.JobState) ([]upkeep.Job, error) {
	kinds := []string{upkeep.JobImageList}
	for _, verb := range imageVerbs {
		kinds = append(kinds, verb.kind)
	}
	return c.o.Hosting.Bounds.Jobs(ctx, store.JobFilter{Kinds: kinds, States: states, Limit: pageJobs})
}

// lookForImages has a server tell its images anew, or all of them.
func (c *Console) lookForImages(w http.ResponseWriter, r *http.Request) {
	ctx, only := r.Context(), r.PostForm.Get("server")
	servers, err := c.o.Hosting.Servers.Servers(ctx)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	asked := false
	for _, s := range servers {
		if only != "" && s.Name != only || only == "" && !s.Connected || !slices.Contains(s.Roles, upkeep.RoleImages) {
			continue
		}
		if _, err := c.o.Hosting.Jobs.Run(ctx, upkeep.JobImageList, nil, s.Name, access.From(ctx).Who); err != nil {
			c.refusedChange(w, r, err, "server")
			return
		}
		asked = true
	}
	if !asked {
		c.fault(w, r, http.StatusConflict, "No server with the role images is there to be asked. Nothing was done.")
		return
	}
	http.Redirect(w, r, "/images", http.StatusSeeOther)
}

type imagePage struct {
	imageView
	Listed  moment // when its server told of it
	Stale   bool
	Actions []imageAction
	Jobs    []jobView
}

type imageAction struct{ Path, Title string }

// findImage is an image that a server told of.
func (c *Console) findImage(ctx context.Context, server, root, path string) (imageView, imageServer, error) {
	servers, err := c.imageServers(ctx, c.o.Now())
	if err != nil {
		return imageView{}, imageServer{}, err
	}
	for _, s := range servers {
		for _, i := range s.Images {
			if s.Name == server && i.Root == root && i.ImageFile.Path == path {
				return i, s, nil
			}
		}
	}
	return imageView{}, imageServer{}, fmt.Errorf("image %s/%s of %s: %w", root, path, server, upkeep.ErrNotFound)
}

func (c *Console) image(w http.ResponseWriter, r *http.Request) {
	ctx, q := r.Context(), r.URL.Query()
	image, server, err := c.findImage(ctx, r.PathValue("name"), q.Get("root"), q.Get("path"))
	if err != nil {
		c.gone(w, r, err, "image")
		return
	}
	jobs, err := c.o.Hosting.Bounds.Jobs(ctx, store.JobFilter{Server: image.Server, Object: "image/" + image.Name, Limit: siteJobs})
	if err != nil {
		c.broken(w, r, err)
		return
	}
	v := imagePage{imageView: image, Listed: server.At, Stale: server.Stale, Jobs: viewJobs(jobs, c.o.Now(), true)}
	for _, verb := range imageVerbs {
		if verb.name != "create" && verb.suits(image.ImageFile) {
			to := "/images/" + url.PathEscape(image.Server) + "/" + verb.name + "?" + url.Values{"root": {image.Root}, "path": {image.ImageFile.Path}}.Encode()
			v.Actions = append(v.Actions, imageAction{to, verb.title})
		}
	}
	c.render(w, r, http.StatusOK, "image.html", image.Name, v)
}

type imageFormView struct {
	Title, Back, Action string
	Root, Path          string // of the image that it is about, if one
	Faults              []string
	Groups              []group
	Plan, Warnings      []string
}

func (imageFormView) isForm() bool { return true }

// imageWork is what a form about images asks for.
type imageWork struct {
	verb   imageVerb
	server string
	image  imageView // that it is about, if the verb is about one
}

// workOf finds what a form is about, or answers that it is not there.
func (c *Console) workOf(w http.ResponseWriter, r *http.Request, root, path string) (imageWork, bool) {
	at := slices.IndexFunc(imageVerbs, func(v imageVerb) bool { return v.name == r.PathValue("verb") })
	if at < 0 {
		c.fault(w, r, http.StatusNotFound, "There is no such work on images.")
		return imageWork{}, false
	}
	work := imageWork{verb: imageVerbs[at], server: r.PathValue("name")}
	if work.verb.name == "create" {
		servers, err := c.o.Hosting.Servers.Images(r.Context(), work.server)
		if err != nil {
			c.gone(w, r, err, "server")
			return imageWork{}, false
		}
		if root == "" && len(servers) > 0 && len(servers[0].Images) > 0 {
			root = servers[0].Images[0].Root
		}
		work.image.Root = root
		return work, true
	}
	image, _, err := c.findImage(r.Context(), work.server, root, path)
	if err != nil {
		c.gone(w, r, err, "image")
		return imageWork{}, false
	}
	work.image = image
	return work, true
}

func (work imageWork) view(form url.Values) imageFormView {
	v := imageFormView{Title: work.verb.title, Back: "/images", Action: "/images/" + url.PathEscape(work.server) + "/" + work.verb.name,
		Root: work.image.Root, Path: work.image.ImageFile.Path, Groups: []group{{Fields: work.verb.form(work.image, form), Open: true}}}
	if work.image.Name != "" {
		v.Title, v.Back = work.image.Name+": "+strings.ToLower(work.verb.title), work.image.Path
	}
	return v
}

func (c *Console) imageForm(w http.ResponseWriter, r *http.Request) {
	work, is := c.workOf(w, r, r.URL.Query().Get("root"), r.URL.Query().Get("path"))
	if !is {
		return
	}
	v := work.view(nil)
	v.Warnings = work.warnings()
	c.render(w, r, http.StatusOK, "imageform.html", v.Title, v)
}

// runImageJob has a server do what a form asks for, or says what that would be.
func (c *Console) runImageJob(w http.ResponseWriter, r *http.Request) {
	work, is := c.workOf(w, r, r.PostForm.Get("about.root"), r.PostForm.Get("about.path"))
	if !is {
		return
	}
	v := work.view(r.PostForm)
	payload, err := work.verb.payload(work.image, r.PostForm)
	if err == nil && r.PostForm.Get("do") == "preview" {
		v.Plan, v.Warnings = work.plan(r.PostForm), work.warnings()
		c.render(w, r, http.StatusOK, "imageform.html", v.Title, v)
		return
	}
	if err == nil {
		var job upkeep.Job
		if job, err = c.o.Hosting.Jobs.Run(r.Context(), work.verb.kind, payload, work.server, access.From(r.Context()).Who); err == nil {
			http.Redirect(w, r, "/jobs/"+strconv.FormatInt(job.ID, 10), http.StatusSeeOther)
			return
		}
	}
	found, ours := faultsOf(err)
	if !ours {
		c.broken(w, r, err)
		return
	}
	v.Faults = besideFields(v.Groups, found)
	c.render(w, r, http.StatusUnprocessableEntity, "imageform.html", v.Title, v)
}
