package console

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/store"
)

func (c *Console) auditRoutes() {
	c.route("GET /audit", c.audit)
	c.route("GET /audit/{id}", c.auditEntry)
}

// pageAudit is how many changes a page of the list shows.
const pageAudit = 100

type auditView struct {
	Entries      []auditRow
	Object, Who  string
	First, Older string // paths of the first page, and of the next
	Newest       bool
}

type auditRow struct {
	upkeep.AuditEntry
	Path, ObjectPath string
	When             moment
}

func (c *Console) auditRow(e upkeep.AuditEntry) auditRow {
	return auditRow{e, "/audit/" + strconv.FormatInt(e.ID, 10), pathOf(e.Object, true), at(e.At, c.o.Now())}
}

func (c *Console) audit(w http.ResponseWriter, r *http.Request) {
	q, keep := r.URL.Query(), url.Values{}
	v := auditView{Object: strings.Trim(strings.TrimSpace(q.Get("object")), "/"), Who: strings.TrimSpace(q.Get("who"))}
	f := store.AuditFilter{Object: v.Object, Who: v.Who, Before: number(r, "before", 0), Limit: pageAudit}
	entries, err := c.o.Hosting.Audit.Audit(r.Context(), f)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	for _, e := range entries {
		v.Entries = append(v.Entries, c.auditRow(e))
	}
	for name, value := range map[string]string{"object": v.Object, "who": v.Who} {
		if value != "" {
			keep.Set(name, value)
		}
	}
	v.Newest, v.First = f.Before == 0, "/audit?"+keep.Encode()
	if len(entries) == pageAudit {
		keep.Set("before", strconv.FormatInt(entries[len(entries)-1].ID, 10))
		v.Older = "/audit?" + keep.Encode()
	}
	c.render(w, r, http.StatusOK, "audit.html", "Audit", v)
}

type auditPage struct {
	auditRow
	Diff           []diffLine
	Was, Is        string // as JSON, where there is no document to compare
	History, Whole string // paths
}

func (c *Console) auditEntry(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		c.fault(w, r, http.StatusNotFound, "There is no such change.")
		return
	}
	entry, err := c.o.Hosting.Audit.AuditEntry(r.Context(), id)
	if err != nil {
		c.gone(w, r, err, "change")
		return
	}
	v := auditPage{auditRow: c.auditRow(entry), Whole: "/audit?" + url.Values{"object": {entry.Object}}.Encode()}
	was, wasRead := documentOf(entry.Object, entry.Before)
	is, isRead := documentOf(entry.Object, entry.After)
	if wasRead && isRead {
		v.Diff = documentDiff(was, is)
	} else {
		v.Was, v.Is = indented(entry.Before), indented(entry.After)
	}
	c.render(w, r, http.StatusOK, "auditentry.html", "Change "+r.PathValue("id"), v)
}

// documentOf reads what a declared thing was; nothing for one that was not there.
func documentOf(object string, text json.RawMessage) (upkeep.Object, bool) {
	kind, _, _ := strings.Cut(object, "/")
	if _, known := upkeep.ZeroObject(kind); !known {
		return nil, false
	}
	if len(text) == 0 {
		return nil, true
	}
	read, err := upkeep.DecodeObject(kind, text)
	return read, err == nil
}
