package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/declare"
	"upkeep/internal/names"
	"upkeep/internal/store"
)

func (c *Console) declaredRoutes() {
	c.route("GET /declared", c.declaredList)
	c.route("GET /declare/{kind}", c.newDocument)
	c.route("POST /declare/{kind}", c.saveDocument)
	c.route("GET /declared/{kind}/{name}", c.editDocument)
	c.route("POST /declared/{kind}/{name}", c.saveDocument)
	c.route("GET /declared/{kind}/{name}/remove", c.askRemovalOfDeclared)
	c.route("POST /declared/{kind}/{name}/remove", c.removeDeclared)
}

// writtenKinds are those whose documents are written on pages. Sites have a form of
// their own.
var writtenKinds = slices.DeleteFunc(slices.Clone(upkeep.Kinds), func(kind string) bool { return kind == upkeep.KindSite })

func declaredPath(kind, name string) string { return "/declared/" + kind + "/" + url.PathEscape(name) }

// shownAt is where a thing that was declared can be looked at.
func shownAt(kind, name string) string {
	switch kind {
	case upkeep.KindPool:
		return "/pools/" + url.PathEscape(name)
	case upkeep.KindZone:
		return "/zones/" + url.PathEscape(name)
	}
	return "/declared?" + url.Values{"kind": {kind}}.Encode()
}

type declaredView struct {
	Kind, Query string
	Kinds       []stateCount
	Rows        []declaredRow
	Pager       pager
	None        bool
	// New is where one is made.
	New string
}

type declaredRow struct {
	// Path is where it is changed: its form, where it has one, or its document.
	Name, Path, Document, Shown, Says string
	Generation                        int64
}

func (c *Console) declaredList(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	v := declaredView{Kind: orElse(q.Get("kind"), upkeep.KindPool), Query: q.Get("q")}
	if !slices.Contains(writtenKinds, v.Kind) {
		c.fault(w, r, http.StatusNotFound, "There is no such kind.")
		return
	}
	v.New = "/declare/" + v.Kind
	form, hasForm := objectKinds[v.Kind]
	if hasForm {
		v.New = form.at + "new"
	}
	for _, kind := range writtenKinds {
		v.Kinds = append(v.Kinds, stateCount{State: kind + "s", Path: "/declared?kind=" + kind, On: kind == v.Kind})
	}
	all, err := c.o.Hosting.Bounds.Objects(r.Context(), v.Kind, "")
	if err != nil {
		c.broken(w, r, err)
		return
	}
	v.None = len(all) == 0
	keep := url.Values{"kind": {v.Kind}}
	if v.Query != "" {
		keep.Set("q", v.Query)
	}
	for _, d := range all {
		name := d.Object.ObjectName()
		row := declaredRow{Name: name, Path: declaredPath(v.Kind, name), Document: declaredPath(v.Kind, name), Shown: shownAt(v.Kind, name), Says: summary(d.Object, c.o.Now()), Generation: d.Generation}
		if hasForm {
			row.Path = form.path(name)
		}
		if strings.Contains(strings.ToLower(name+" "+row.Says), strings.ToLower(strings.TrimSpace(v.Query))) {
			v.Rows = append(v.Rows, row)
		}
	}
	offset, pager := leaf(len(v.Rows), listedPools, number(r, "page", 1), "/declared", keep)
	v.Pager, v.Rows = pager, v.Rows[offset:min(offset+listedPools, len(v.Rows))]
	c.render(w, r, http.StatusOK, "declared.html", "Declared", v)
}

// summary says in a few words what a thing is.
func summary(object upkeep.Object, now time.Time) string {
	switch o := object.(type) {
	case upkeep.Pool:
		return fmt.Sprintf("%s, checked by %s, at %s in %s", plural(len(o.Members), "member"), o.Check.Type, some3(o.Records), some3(o.Zones))
	case upkeep.Zone:
		var by []string
		for _, p := range o.Publishers {
			by = append(by, upkeep.PublisherStatus{Type: p.Type, Agent: p.Agent}.By())
		}
		return "published by " + orElse(some3(by), "nothing")
	case upkeep.Receiver:
		if len(o.To) == 0 {
			return o.Type
		}
		return o.Type + " to " + some3(o.To)
	case upkeep.Server:
		return strings.Join(o.Roles, ", ")
	case upkeep.Account:
		if o.Suspended {
			return "suspended"
		}
		return o.Email
	case upkeep.Delegation:
		until, err := time.Parse(time.RFC3339, o.Until)
		switch {
		case o.Until == "" || err != nil:
			return "to " + o.Account + ", without an end"
		case until.Before(now):
			return "to " + o.Account + ", ended " + until.Local().Format("2 Jan 2006 15:04")
		}
		return "to " + o.Account + ", until " + until.Local().Format("2 Jan 2006 15:04")
	}
	return ""
}

// some3 names the first three.
func some3(all []string) string {
	if len(all) > 3 {
		return strings.Join(all[:3], ", ") + fmt.Sprintf(" and %d more", len(all)-3)
	}
	return strings.Join(all, ", ")
}

// documentView is a document that is being written.
type documentView struct {
	Title, Action, Back, Remove string
	Text                        string
	Rows                        int
	Generation                  int64
	Faults                      []string
	Lines                       []wrongLine
	Changed                     *changedMeanwhile
	Preview                     *preview
}

func (documentView) isForm() bool { return true }

// wrongLine is a line of a document with what is wrong with it.
type wrongLine struct {
	N      int
	Text   string
	Faults []string
}

func (v *documentView) fit() {
	v.Rows = min(max(strings.Count(v.Text, "\n")+3, 12), 40)
}

func (c *Console) newDocument(w http.ResponseWriter, r *http.Request) {
	kind := r.PathValue("kind")
	text, is := beginnings(c.o.Now())[kind]
	if !is {
		c.fault(w, r, http.StatusNotFound, "There is no such kind, or it has a form of its own.")
		return
	}
	v := documentView{Title: "New " + kind, Action: "/declare/" + kind, Back: "/declared?kind=" + kind, Text: text}
	v.fit()
	c.render(w, r, http.StatusOK, "document.html", v.Title, v)
}

// declaredThing is what the address of a page names.
func (c *Console) declaredThing(w http.ResponseWriter, r *http.Request) (upkeep.Declared, bool) {
	kind, name := r.PathValue("kind"), r.PathValue("name")
	err := fmt.Errorf("%s %s: %w", kind, name, upkeep.ErrNotFound)
	if slices.Contains(writtenKinds, kind) && name != "" {
		var found []upkeep.Declared
		if found, err = c.o.Hosting.Bounds.Objects(r.Context(), kind, name); err == nil {
			return found[0], true
		}
	}
	c.gone(w, r, err, "thing")
	return upkeep.Declared{}, false
}

func viewDocument(d upkeep.Declared) documentView {
	kind, name := d.Object.ObjectKind(), d.Object.ObjectName()
	return documentView{Title: "The " + kind + " " + name, Action: declaredPath(kind, name), Back: shownAt(kind, name), Remove: declaredPath(kind, name) + "/remove", Generation: d.Generation}
}

func (c *Console) editDocument(w http.ResponseWriter, r *http.Request) {
	d, is := c.declaredThing(w, r)
	if !is {
		return
	}
	var text bytes.Buffer
	if err := declare.Write(&text, d.Object); err != nil {
		c.broken(w, r, err)
		return
	}
	v := viewDocument(d)
	v.Text = text.String()
	v.fit()
	c.render(w, r, http.StatusOK, "document.html", v.Title, v)
}

// saveDocument declares what was written, or says what that would change.
func (c *Console) saveDocument(w http.ResponseWriter, r *http.Request) {
	kind, name := r.PathValue("kind"), r.PathValue("name")
	v := documentView{Title: "New " + kind, Action: "/declare/" + kind, Back: "/declared?kind=" + kind}
	if name != "" {
		d, is := c.declaredThing(w, r)
		if !is {
			return
		}
		v = viewDocument(d)
		v.Generation, _ = strconv.ParseInt(r.PostForm.Get("generation"), 10, 64)
	} else if !slices.Contains(writtenKinds, kind) {
		c.fault(w, r, http.StatusNotFound, "There is no such kind, or it has a form of its own.")
		return
	}
	v.Text = strings.ReplaceAll(r.PostForm.Get("text"), "\r\n", "\n")
	v.fit()
	document, err := readDocument(v.Text, kind, name)
	dry := r.PostForm.Get("do") == "preview"
	if err == nil {
		err = c.applyDocument(r.Context(), document, &v, dry)
	}
	if err == nil && !dry {
		http.Redirect(w, r, shownAt(kind, document.Object.ObjectName()), http.StatusSeeOther)
		return
	}
	status := http.StatusOK
	switch {
	case err == nil:
	case errors.Is(err, upkeep.ErrChanged) && name != "":
		status = http.StatusPreconditionFailed
		d, is := c.declaredThing(w, r) // as it is by now
		if !is {
			return
		}
		v.Generation, v.Changed = d.Generation, &changedMeanwhile{Diff: documentDiff(d.Object, document.Object)}
	default:
		if !v.blame(err) {
			c.broken(w, r, err)
			return
		}
		status = http.StatusUnprocessableEntity
	}
	c.render(w, r, status, "document.html", v.Title, v)
}

// readDocument reads a text that is to hold one document of a kind, and with a name
// that of this thing.
func readDocument(text, kind, name string) (declare.Document, error) {
	wrong := func(field, value, rule string) error {
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: field, Value: value, Rule: rule}}}
	}
	all, err := declare.ReadDocuments("", []byte(text))
	if err != nil {
		return declare.Document{}, err
	}
	if len(all) != 1 {
		return declare.Document{}, wrong("", "", fmt.Sprintf("there is to be one document, and there are %d", len(all)))
	}
	document := all[0]
	object := document.Object
	place := func(err error) error {
		var invalid *upkeep.InvalidError
		errors.As(err, &invalid)
		for i := range invalid.Fields {
			invalid.Fields[i] = document.Place(invalid.Fields[i])
		}
		return err
	}
	switch {
	case object.ObjectKind() != kind:
		return document, place(wrong("kind", object.ObjectKind(), "must be "+kind+" on this page"))
	case name != "" && object.ObjectName() != name:
		return document, place(wrong("name", object.ObjectName(), "must stay "+name+": make another one, and remove this one"))
	case !reflect.DeepEqual(declare.ResolvePaths(object, "/"), object):
		return document, wrong("", "", "paths of files and programs must begin with /: here is no folder that they could be relative to")
	}
	return document, nil
}

// applyDocument declares what was written, or only says what that would do.
func (c *Console) applyDocument(ctx context.Context, document declare.Document, v *documentView, dry bool) error {
	object, broken := names.Canonical(document.Object)
	if len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	still := map[store.Ref]int64{store.RefOf(object): v.Generation}
	applied, err := c.o.Hosting.Bounds.Apply(ctx, still, []upkeep.Object{object}, dry)
	var invalid *upkeep.InvalidError
	switch {
	case v.Generation == 0 && errors.Is(err, upkeep.ErrChanged):
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{document.Place(upkeep.FieldError{Field: "name", Value: object.ObjectName(), Rule: "is taken"})}}
	case errors.As(err, &invalid):
		placed := &upkeep.InvalidError{}
		for _, field := range invalid.Fields {
			if field.Object == store.RefOf(object).String() || field.Object == "" {
				field = document.Place(field)
			}
			placed.Fields = append(placed.Fields, field)
		}
		return placed
	case err != nil || !dry:
		return err
	}
	v.Preview = &preview{Warnings: applied.Warnings}
	for _, change := range applied.Changes {
		if change.Action != store.Unchanged {
			v.Preview.Document = append(v.Preview.Document, documentDiff(change.Old, change.New)...)
		}
	}
	return nil
}

// blame says what is wrong beside the lines that it is about. It is false for an
// error that is upkeep's own.
func (v *documentView) blame(err error) bool {
	var invalid *upkeep.InvalidError
	if !errors.As(err, &invalid) {
		found, ours := faultsOf(err)
		for _, field := range sortedFaults(found) {
			v.Faults = append(v.Faults, found[field])
		}
		return ours
	}
	lines := strings.Split(v.Text, "\n")
	for _, f := range invalid.Fields {
		text := f.Rule
		if f.Value != "" {
			text = strconv.Quote(upkeep.Printable(f.Value)) + " " + text
		}
		if f.Field != "" {
			text = f.Field + ": " + text
		}
		if f.Line < 1 || f.Line > len(lines) {
			if f.Object != "" {
				text = f.Object + ": " + text
			}
			v.Faults = append(v.Faults, text)
			continue
		}
		at := slices.IndexFunc(v.Lines, func(l wrongLine) bool { return l.N == f.Line })
		if at < 0 {
			at = len(v.Lines)
			v.Lines = append(v.Lines, wrongLine{N: f.Line, Text: lines[f.Line-1]})
		}
		v.Lines[at].Faults = append(v.Lines[at].Faults, text)
	}
	return true
}

type removalOfView struct {
	Kind, Name, Says, Action, Back string
	Generation                     int64
}

func (removalOfView) isForm() bool { return true }

func (c *Console) askRemovalOfDeclared(w http.ResponseWriter, r *http.Request) {
	d, is := c.declaredThing(w, r)
	if !is {
		return
	}
	kind, name := d.Object.ObjectKind(), d.Object.ObjectName()
	v := removalOfView{kind, name, removalSays[kind], declaredPath(kind, name) + "/remove", declaredPath(kind, name), d.Generation}
	c.render(w, r, http.StatusOK, "removal.html", "Remove "+name, v)
}

// removalSays is what follows from removing a thing of each kind.
var removalSays = map[string]string{
	upkeep.KindZone:       "Nothing is published in it any more; what its name servers have stays there. A zone in which pools are published cannot be removed.",
	upkeep.KindPool:       "Its names are taken out of its zones: they are not answered any more.",
	upkeep.KindReceiver:   "Nobody is told by it any more.",
	upkeep.KindServer:     "Its agent is let in no more. A server that sites or publishers name cannot be removed; what is on it stays there.",
	upkeep.KindAccount:    "Its users are removed with it. An account that owns sites cannot be removed; its files stay.",
	upkeep.KindDelegation: "Sites below the name stay as they are; they can be suspended and removed, and not be changed otherwise.",
}

func (c *Console) removeDeclared(w http.ResponseWriter, r *http.Request) {
	kind, name := r.PathValue("kind"), r.PathValue("name")
	generation, err := strconv.ParseInt(r.PostForm.Get("generation"), 10, 64)
	if err != nil || generation < 1 || !slices.Contains(writtenKinds, kind) {
		c.fault(w, r, http.StatusBadRequest, "There is nothing of that kind to remove.")
		return
	}
	ref := store.Ref{Kind: kind, Name: name}
	if err := c.o.Hosting.Bounds.Delete(r.Context(), map[store.Ref]int64{ref: generation}, ref); err != nil {
		c.refusedChange(w, r, err, kind)
		return
	}
	http.Redirect(w, r, "/declared?kind="+kind, http.StatusSeeOther)
}

// beginnings are documents to begin with, by kind.
func beginnings(now time.Time) map[string]string {
	return map[string]string{
		upkeep.KindZone: `kind: zone
name: example.test
publishers:
  - type: transfer          # upkeep answers itself; or bind, or update
    secondaries: []         # name servers that are told of changes
`,
		upkeep.KindPool: `kind: pool
name: web
zones: [example.test]       # that are declared
records: ["@", www]
ttl: 60s
members:
  - {address: 192.0.2.11, label: First}
  - {address: 192.0.2.12, label: Second}
check: {type: tcp, port: 443, interval: 1s}
policy: {anchors: [192.0.2.1]}   # your gateway: silent means that this machine is cut off
`,
		upkeep.KindReceiver: `kind: receiver
name: ops
type: webhook               # or email, or exec
url: https://chat.example.test/hook
`,
		upkeep.KindServer: `kind: server
name: web1
roles: [web]                # of ` + strings.Join(upkeep.Roles, ", ") + `
`,
		upkeep.KindAccount: `kind: account
name: acme
email: web@acme.example
`,
		upkeep.KindDelegation: `kind: delegation
name: blog.example.test     # it, and all below it,
account: acme               # is for this account to use
until: "` + now.UTC().AddDate(1, 0, 0).Format("2006-01-02") + `T00:00:00Z"   # left out, it does not end
`,
	}
}
