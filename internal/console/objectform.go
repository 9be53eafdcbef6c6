package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/declare"
	"upkeep/internal/names"
	"upkeep/internal/store"
)

// objectKind is a kind of things that has a form of its own beside its document. Both
// declare the same objects by the same way.
type objectKind struct {
	kind string
	// at is where the form of one is, below its name.
	at string
	// blank is what a new one begins with.
	blank upkeep.Object
	// groups draws the form.
	groups func(c *Console, ctx context.Context, o upkeep.Object, isNew bool) ([]group, error)
	// of puts what a form says over what there is.
	of func(form url.Values, was upkeep.Object, isNew bool) (upkeep.Object, error)
	// shown is one as a page may show it beside another one, without what is secret.
	shown func(o, before upkeep.Object) upkeep.Object
}

// objectKinds are the kinds that have forms; [writtenKinds] has all others, too.
var objectKinds = map[string]objectKind{
	upkeep.KindReceiver: {kind: upkeep.KindReceiver, at: "/receivers/", blank: upkeep.Receiver{Type: upkeep.ReceiverEmail},
		groups: receiverGroups, of: receiverOf, shown: discreetReceiver},
	upkeep.KindDelegation: {kind: upkeep.KindDelegation, at: "/delegations/", blank: upkeep.Delegation{},
		groups: delegationGroups, of: delegationOf, shown: func(o, _ upkeep.Object) upkeep.Object { return o }},
}

func (k objectKind) path(name string) string { return k.at + url.PathEscape(name) + "/edit" }

func (c *Console) formRoutes() {
	for _, kind := range objectKinds {
		c.route("GET "+kind.at+"new", c.newObject(kind))
		c.route("POST "+kind.at+"new", c.saveObject(kind))
		c.route("GET "+kind.at+"{name}/edit", c.editObject(kind))
		c.route("POST "+kind.at+"{name}/edit", c.saveObject(kind))
	}
	c.route("POST /receivers/{name}/test", c.testReceiver)
	c.route("POST /delegations/{name}/end", c.endDelegation)
}

// objectFormView is the form of a thing, with what can be done with it.
type objectFormView struct {
	Title, Action, Back, Document, Remove string
	Groups                                []group
	Generation                            int64
	Faults                                []string
	Changed                               *changedMeanwhile
	Preview                               *preview
	// Test and End are where a receiver is told, and where a delegation ends.
	Test, End string
	Tested    *tested
}

func (objectFormView) isForm() bool { return true }

// tested is what became of a message that was sent to try a receiver.
type tested struct {
	Name   string
	When   moment
	Took   string
	Failed string
	Hint   string
}

func newObjectForm(k objectKind) objectFormView {
	return objectFormView{Title: "New " + k.kind, Action: k.at + "new", Back: "/declared?kind=" + k.kind, Document: "/declare/" + k.kind}
}

func (k objectKind) view(d upkeep.Declared, now time.Time) objectFormView {
	name := d.Object.ObjectName()
	v := objectFormView{Title: "The " + k.kind + " " + name, Action: k.path(name), Back: "/declared?kind=" + k.kind,
		Document: declaredPath(k.kind, name), Remove: declaredPath(k.kind, name) + "/remove", Generation: d.Generation}
	switch o := d.Object.(type) {
	case upkeep.Receiver:
		v.Test = k.at + url.PathEscape(name) + "/test"
	case upkeep.Delegation:
		if until, err := time.Parse(time.RFC3339, o.Until); o.Until == "" || err == nil && until.After(now) {
			v.End = k.at + url.PathEscape(name) + "/end"
		}
	}
	return v
}

func (c *Console) newObject(k objectKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := newObjectForm(k)
		c.drawObject(w, r, http.StatusOK, k, v, k.blank, true)
	}
}

// drawObject renders the form of an object as it is, or is to be.
func (c *Console) drawObject(w http.ResponseWriter, r *http.Request, status int, k objectKind, v objectFormView, o upkeep.Object, isNew bool) {
	if v.Groups == nil {
		var err error
		if v.Groups, err = k.groups(c, r.Context(), o, isNew); err != nil {
			c.broken(w, r, err)
			return
		}
	}
	c.render(w, r, status, "objectform.html", v.Title, v)
}

// declaredObject is the one that the address of a form names.
func (c *Console) declaredObject(w http.ResponseWriter, r *http.Request, k objectKind) (upkeep.Declared, bool) {
	found, err := c.o.Hosting.Bounds.Objects(r.Context(), k.kind, r.PathValue("name"))
	if err == nil && len(found) == 1 && reflect.TypeOf(found[0].Object) == reflect.TypeOf(k.blank) {
		return found[0], true
	}
	if err == nil {
		err = upkeep.ErrNotFound // its row cannot be read: it has a document, and no form
	}
	c.gone(w, r, err, k.kind)
	return upkeep.Declared{}, false
}

func (c *Console) editObject(k objectKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if d, is := c.declaredObject(w, r, k); is {
			c.drawObject(w, r, http.StatusOK, k, k.view(d, c.o.Now()), d.Object, false)
		}
	}
}

// saveObject declares what a form says, or with "preview" shows what that would
// change. What was typed stays, whatever is wrong with it.
func (c *Console) saveObject(k objectKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, isNew := r.Context(), r.PathValue("name") == ""
		v, was := newObjectForm(k), k.blank
		if !isNew {
			d, is := c.declaredObject(w, r, k)
			if !is {
				return
			}
			v, was = k.view(d, c.o.Now()), d.Object
			v.Generation, _ = strconv.ParseInt(r.PostForm.Get("generation"), 10, 64)
		}
		object, err := k.of(r.PostForm, was, isNew)
		var drawErr error
		if v.Groups, drawErr = k.groups(c, ctx, object, isNew); drawErr != nil {
			c.broken(w, r, drawErr)
			return
		}
		keepTyped(v.Groups, r.PostForm)
		dry := r.PostForm.Get("do") == "preview"
		if err == nil {
			err = c.applyObject(ctx, k, object, &v, dry)
		}
		status := http.StatusOK
		switch {
		case err == nil && !dry:
			http.Redirect(w, r, "/declared?kind="+k.kind, http.StatusSeeOther)
			return
		case err == nil:
		case errors.Is(err, upkeep.ErrChanged) && !isNew:
			status = http.StatusPreconditionFailed
			d, is := c.declaredObject(w, r, k) // as it is by now
			if !is {
				return
			}
			v.Generation, v.Changed = d.Generation, &changedMeanwhile{Diff: documentDiff(k.shown(d.Object, d.Object), k.shown(object, d.Object))}
		default:
			found, ours := faultsOf(err)
			if !ours {
				c.broken(w, r, err)
				return
			}
			status, v.Faults = http.StatusUnprocessableEntity, besideFields(v.Groups, found)
		}
		c.drawObject(w, r, status, k, v, object, isNew)
	}
}

// keepTyped leaves in the fields what was typed into them: it may not have become part
// of an object, or may read otherwise by now.
func keepTyped(groups []group, form url.Values) {
	for i := range groups {
		for j := range groups[i].Fields {
			f := &groups[i].Fields[j]
			if _, sent := form[f.Name]; sent && (f.Kind == "text" || f.Kind == "number" || f.Kind == "area") {
				f.Value = strings.ReplaceAll(form.Get(f.Name), "\r\n", "\n")
			}
		}
	}
}

// applyObject declares an object, or only says what that would do.
func (c *Console) applyObject(ctx context.Context, k objectKind, object upkeep.Object, v *objectFormView, dry bool) error {
	object, broken := names.Canonical(object)
	if len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	if !reflect.DeepEqual(declare.ResolvePaths(object, "/"), object) {
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Rule: "paths of files and programs must begin with /: here is no folder that they could be relative to"}}}
	}
	still := map[store.Ref]int64{store.RefOf(object): v.Generation}
	applied, err := c.o.Hosting.Bounds.Apply(ctx, still, []upkeep.Object{object}, dry)
	switch {
	case v.Generation == 0 && errors.Is(err, upkeep.ErrChanged):
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "name", Value: object.ObjectName(), Rule: "is taken"}}}
	case err != nil || !dry:
		return err
	}
	v.Preview = &preview{Warnings: applied.Warnings}
	for _, change := range applied.Changes {
		if change.Action == store.Unchanged {
			continue
		}
		was := change.Old
		if was != nil {
			was = k.shown(was, was)
		}
		v.Preview.Document = append(v.Preview.Document, documentDiff(was, k.shown(change.New, change.Old))...)
	}
	return nil
}

// testReceiver sends a receiver, as it is declared, a message, and shows what became of
// it. The API does the same.
func (c *Console) testReceiver(w http.ResponseWriter, r *http.Request) {
	k := objectKinds[upkeep.KindReceiver]
	d, is := c.declaredObject(w, r, k)
	if !is {
		return
	}
	began := time.Now()
	err := c.o.Hosting.Notifier.Test(r.Context(), d.Object.ObjectName())
	v := k.view(d, c.o.Now())
	v.Tested = &tested{Name: d.Object.ObjectName(), When: at(c.o.Now(), c.o.Now()), Took: roundTime(time.Since(began))}
	status := http.StatusOK
	if err != nil {
		status = http.StatusBadGateway
		v.Tested.Failed = upperFirst(err.Error()) + "."
		var hinted *upkeep.HintError
		if errors.As(err, &hinted) {
			v.Tested.Hint = upperFirst(hinted.Hint) + "."
		}
		c.o.Log.Info("a test message was not taken", "receiver", d.Object.ObjectName(), "by", access.From(r.Context()).Who, "err", err)
	}
	c.drawObject(w, r, status, k, v, d.Object, false)
}
