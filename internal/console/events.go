package console

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
	"upkeep/internal/store"
)

// Chosen says that not everything is asked for.
func (p eventsPage) Chosen() bool { return p.Object != "" || p.Kind != "" || !p.Newest }

// eventsPage is the log, or what was chosen of it.
type eventsPage struct {
	Events       []eventView
	First, Older string // paths of the first page, and of the next
	Newest       bool
	Object, Kind string
	Kinds        []option
	Wrong        string // with the filter
}

func eventFilter(r *http.Request) (f store.EventFilter, keep url.Values, wrong string) {
	q, keep := r.URL.Query(), url.Values{}
	f = store.EventFilter{Object: strings.Trim(strings.TrimSpace(q.Get("object")), "/"), Kind: q.Get("kind")}
	if wrong = outside(q, keep, "kind", upkeep.EventKinds); wrong != "" {
		f.Kind = ""
	}
	for name, value := range map[string]string{"object": f.Object, "kind": f.Kind} {
		if value != "" {
			keep.Set(name, value)
		}
	}
	return f, keep, wrong
}

func (c *Console) events(w http.ResponseWriter, r *http.Request) {
	f, keep, wrong := eventFilter(r)
	f.Of, f.Before, f.Limit, f.Latest = api.Shown(r.Context()), number(r, "before", 0), pageEvents, true
	events, err := c.o.Recorder.Events(r.Context(), f)
	if err != nil {
		c.o.Log.Error("reading events for a page", "err", err)
		c.fault(w, r, http.StatusServiceUnavailable, "History cannot be read: the database does not answer. What is published now is on the first page.")
		return
	}
	v := eventsPage{Events: viewEvents(events, c.o.Now(), access.From(r.Context()).Staff), Newest: f.Before == 0, Object: f.Object, Kind: f.Kind, Kinds: options(upkeep.EventKinds, f.Kind), Wrong: wrong}
	v.First = "/events?" + keep.Encode()
	if len(events) == pageEvents {
		keep.Set("before", strconv.FormatInt(events[0].ID, 10))
		v.Older = "/events?" + keep.Encode()
	}
	c.render(w, r, filtered(wrong), "events.html", "Events", v)
}
