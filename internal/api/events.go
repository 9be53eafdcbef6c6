package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/store"
)

// heartbeat is how often a silent event stream says that it is alive, so that
// neither end nor a proxy between them takes it for dead.
const heartbeat = 15 * time.Second

// batch is how many stored events are read at a time.
const batch = 500

// ChooseInput says which events are wanted.
type ChooseInput struct {
	Object string `query:"object" maxLength:"400" example:"pool/web" doc:"Only events of this object and what lies below it, such as pool/web."`
	Kind   string `query:"kind" enum:"declared,verdict,admin,decision,publish,proof,job,warning,system" doc:"Only events of this kind."`
}

type eventsInput struct {
	Paging
	ChooseInput
	Limit  int       `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The newest so many are returned, oldest first; with after, the oldest so many."`
	After  int64     `query:"after" minimum:"0" doc:"Only events with a higher id."`
	Before int64     `query:"before" minimum:"0" doc:"Only events with a lower id."`
	Since  time.Time `query:"since" doc:"Only events from this time on."`
}

type streamInput struct {
	ChooseInput
	After       int64  `query:"after" minimum:"0" doc:"Send stored events with a higher id first."`
	LastEventID string `header:"Last-Event-ID" maxLength:"20" example:"1234" doc:"As browsers send it on reconnecting; wins over after."`
}

type eventsOutput struct {
	Next string `header:"Link" doc:"The next page, if there is one, with rel=next: with after the newer events, else the older ones."`
	Body struct {
		Events []upkeep.Event `json:"events" nullable:"false"`
	}
}

// next is where the list goes on: with newer events where it began with the oldest.
func (in *eventsInput) next(events []upkeep.Event) string {
	switch {
	case len(events) < in.Limit:
		return ""
	case in.After > 0:
		return in.Paging.next("after", strconv.FormatInt(events[len(events)-1].ID, 10))
	}
	return in.Paging.next("before", strconv.FormatInt(events[0].ID, 10))
}

func (a *API) eventRoutes(h huma.API) {
	huma.Register(h, huma.Operation{OperationID: "list-events", Method: http.MethodGet, Path: "/api/v1/events",
		Summary: "What happened, oldest first; without the token those of pools and zones"}, func(ctx context.Context, in *eventsInput) (*eventsOutput, error) {
		events, err := a.o.Recorder.Events(ctx, store.EventFilter{Object: in.Object, Kind: in.Kind,
			Of: Shown(ctx), After: in.After, Before: in.Before, Since: in.Since, Limit: in.Limit, Latest: in.After == 0})
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &eventsOutput{Next: in.next(events)}
		out.Body.Events = append([]upkeep.Event{}, events...)
		return out, nil
	})
	stream := secured(huma.Operation{OperationID: "follow-events", Method: http.MethodGet, Path: "/api/v1/events/stream",
		Summary: "Events as they happen, as server-sent events whose id is the event's and whose data is the event as JSON"})
	stream.Responses = map[string]*huma.Response{"200": {Description: "A stream without an end.", Content: map[string]*huma.MediaType{
		"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}}}
	huma.Register(h, stream, func(ctx context.Context, in *streamInput) (*huma.StreamResponse, error) {
		after := in.After
		if in.LastEventID != "" {
			id, err := strconv.ParseInt(in.LastEventID, 10, 64)
			if err != nil || id < 0 {
				return nil, a.problem(ctx, wire.NewProblem(http.StatusUnprocessableEntity, "Last-Event-ID must be the id of an event", ""))
			}
			after = id
		}
		filter := store.EventFilter{Object: in.Object, Kind: in.Kind, After: after}
		return &huma.StreamResponse{Body: func(h huma.Context) {
			_, w := humago.Unwrap(h)
			stored := after > 0 || in.LastEventID != "" // who saw none before the first is sent it
			if err := a.follow(ctx, NewStream(w), filter, stored); ctx.Err() == nil {
				a.log.Debug("an event stream ended", "err", err)
			}
		}}, nil
	})
}

// Shown are the kinds of objects whose events the caller of a request is shown,
// by the API and on pages alike; none for all. What pools do is shown to anybody. A
// stream is for who has the token, since each one that is open costs something.
func Shown(ctx context.Context) []string {
	if callerOf(ctx).Staff {
		return nil
	}
	return []string{upkeep.KindPool, upkeep.KindZone}
}

// follow sends stored events where they are wanted, then new ones, until the reader
// leaves. A reader that falls behind is caught up from the store.
func (a *API) follow(ctx context.Context, s *Stream, f store.EventFilter, stored bool) error {
	if err := a.notAhead(ctx, &f); err != nil {
		return err
	}
	for {
		live, cancel := a.o.Recorder.Subscribe() // before reading the store, so that nothing falls between
		err := a.followOnce(ctx, s, &f, stored, live)
		cancel()
		if err != nil {
			return err
		}
		stored = true
	}
}

// notAhead has a reader that saw more than there is go on after the newest event: ids
// begin again where a database was put back from a copy, and by its own count the reader
// would be told nothing until they are as high as they were.
func (a *API) notAhead(ctx context.Context, f *store.EventFilter) error {
	if f.After == 0 {
		return nil
	}
	newest, err := a.o.Recorder.Events(ctx, store.EventFilter{Limit: 1, Latest: true})
	if err != nil {
		return err
	}
	last := int64(0)
	for _, e := range newest {
		last = e.ID
	}
	f.After = min(f.After, last)
	return nil
}

// followOnce returns nil when live was closed because the reader fell behind.
func (a *API) followOnce(ctx context.Context, s *Stream, f *store.EventFilter, stored bool, live <-chan upkeep.Event) error {
	for stored {
		some := *f
		some.Limit = batch
		events, err := a.o.Recorder.Events(ctx, some)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := s.Event(e); err != nil {
				return err
			}
			f.After = e.ID
		}
		stored = len(events) == batch
	}
	if err := s.Comment("listening"); err != nil {
		return err
	}
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := s.Comment("alive"); err != nil {
				return err
			}
		case e, open := <-live:
			if !open {
				// Either the reader was too slow or upkeep stops; a stop ends ctx's server too.
				return sleep(ctx, 100*time.Millisecond)
			}
			if e.ID <= f.After && e.ID != 0 || !Matches(e, *f) {
				continue
			}
			if err := s.Event(e); err != nil {
				return err
			}
			f.After = max(f.After, e.ID)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Matches reports whether a filter's objects and kind choose e.
func Matches(e upkeep.Event, f store.EventFilter) bool {
	if f.Kind != "" && e.Kind != f.Kind {
		return false
	}
	if kind, _, _ := strings.Cut(e.Object, "/"); len(f.Of) > 0 && !slices.Contains(f.Of, kind) {
		return false
	}
	return f.Object == "" || e.Object == f.Object || strings.HasPrefix(e.Object, f.Object+"/")
}

// Stream writes server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
type Stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// NewStream starts a stream of events on w.
func NewStream(w http.ResponseWriter) *Stream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	return &Stream{w: w, control: http.NewResponseController(w)}
}

// Event sends e with its id, by which a reader resumes.
func (s *Stream) Event(e upkeep.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.Send(e.ID, "", string(data))
}

// Send sends one event. Data may have lines; a zero id and an empty name are left out.
func (s *Stream) Send(id int64, name, data string) error {
	var b strings.Builder
	if id != 0 {
		fmt.Fprintf(&b, "id: %d\n", id)
	}
	if name != "" {
		b.WriteString("event: " + name + "\n")
	}
	for line := range strings.Lines(data) {
		b.WriteString("data: " + strings.TrimRight(line, "\r\n") + "\n")
	}
	b.WriteString("\n")
	return s.write(b.String())
}

// Comment sends what readers pass over.
func (s *Stream) Comment(text string) error { return s.write(": " + text + "\n\n") }

// write gives each piece its own deadline: a reader that takes nothing for so
// long is gone.
func (s *Stream) write(text string) error {
	s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.control.Flush()
}
