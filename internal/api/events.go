package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
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
	Object string `query:"object" maxLength:"400" doc:"Only events of this object and what lies below it, such as pool/web."`
	Kind   string `query:"kind" enum:"declared,verdict,admin,decision,publish,proof,job,warning,system" doc:"Only events of this kind."`
}

type eventsInput struct {
	ChooseInput
	Limit  int       `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The newest so many are returned, oldest first; with after, the oldest so many."`
	After  int64     `query:"after" minimum:"0" doc:"Only events with a higher id."`
	Before int64     `query:"before" minimum:"0" doc:"Only events with a lower id."`
	Since  time.Time `query:"since" doc:"Only events from this time on."`
}

type streamInput struct {
	ChooseInput
	After       int64  `query:"after" minimum:"0" doc:"Send stored events with a higher id first."`
	LastEventID string `header:"Last-Event-ID" maxLength:"20" doc:"As browsers send it on reconnecting; wins over after."`
}

type eventsOutput struct {
	Body struct {
		Events []upkeep.Event `json:"events" nullable:"false"`
	}
}

func (a *API) eventRoutes(h huma.API) {
	huma.Register(h, secured(huma.Operation{OperationID: "list-events", Method: http.MethodGet, Path: "/api/v1/events",
		Summary: "What happened, oldest first"}), func(ctx context.Context, in *eventsInput) (*eventsOutput, error) {
		events, err := a.o.Recorder.Events(ctx, store.EventFilter{Object: in.Object, Kind: in.Kind,
			After: in.After, Before: in.Before, Since: in.Since, Limit: in.Limit, Latest: in.After == 0})
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		out := &eventsOutput{}
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
			if err := a.follow(ctx, NewStream(w), filter); ctx.Err() == nil {
				a.log.Debug("an event stream ended", "err", err)
			}
		}}, nil
	})
}

// follow sends stored events, then new ones, until the reader leaves. A reader
// that falls behind is caught up from the store.
func (a *API) follow(ctx context.Context, s *Stream, f store.EventFilter) error {
	stored := f.After > 0
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

// Matches reports whether a filter's object and kind choose e.
func Matches(e upkeep.Event, f store.EventFilter) bool {
	if f.Kind != "" && e.Kind != f.Kind {
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
