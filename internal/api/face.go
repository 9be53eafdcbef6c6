package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api/wire"
)

// writeTimeout is how long making an answer and its being taken may last, as
// long as clients wait. Event streams set their own, piece by piece.
const writeTimeout = time.Minute

// face is what every request passes on its way in, on either side. What answers without
// an end waits below it, a thousand of them: it leaves nothing on their stacks.
func (a *API) face(identify func(*http.Request) (access.Caller, *wire.Problem)) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer a.recover(w, r)
		if r := a.admit(w, r, cross, identify); r != nil {
			a.routes.ServeHTTP(w, r)
		}
	})
}

// admit returns a request with who sent it, or answers it and returns nil.
func (a *API) admit(w http.ResponseWriter, r *http.Request, cross *http.CrossOriginProtection, identify func(*http.Request) (access.Caller, *wire.Problem)) *http.Request {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	body := soon(w, r)
	if err := cross.Check(r); err != nil {
		writeProblem(w, wire.NewProblem(http.StatusForbidden, "requests from other sites' pages are refused", ""))
		return nil
	}
	who, problem := identify(r)
	if problem != nil {
		a.log.Warn("refused", "path", r.URL.Path, "remote", r.RemoteAddr, "why", problem.Detail)
		writeProblem(w, problem)
		return nil
	}
	r = r.WithContext(context.WithValue(access.With(r.Context(), who), askerKey, asker{r, identify}))
	r.Body = body // of the copy: the server looks after its own
	_, pattern := a.routes.Handler(r)
	if pattern == "" || pattern == pagePattern && strings.HasPrefix(r.URL.Path, "/api/") {
		a.noRoute(w, r)
		return nil
	}
	return r
}

// bodyTime is how long a request's body may take to come.
const bodyTime = 30 * time.Second

// soon has the body of a request come within [bodyTime], whether anybody reads it or
// not: net/http reads what a handler has left of one before it answers, and waits for
// that without an end. Strangers could hold every connection so, a packet each.
func soon(w http.ResponseWriter, r *http.Request) io.ReadCloser {
	if r.Body == nil || r.Body == http.NoBody {
		return r.Body
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // a test's writer has none
	return timelyBody{r.Body, control}
}

// timelyBody is a body that has to come soon; what is done with it may take longer.
type timelyBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b timelyBody) Read(into []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(into)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// recover keeps one request's fault from ending the connection without a word.
// net/http would keep the process alive too, but log to the default logger.
func (a *API) recover(w http.ResponseWriter, r *http.Request) {
	fault := recover()
	if fault == nil || fault == http.ErrAbortHandler {
		return
	}
	a.log.Error("handling a request", "method", r.Method, "path", r.URL.Path, "fault", fault, "stack", string(debug.Stack()))
	writeProblem(w, wire.NewProblem(http.StatusInternalServerError, "upkeep is at fault; its log has the details", ""))
}

// noRoute words the mux's own plain-text answers, 404 and 405, as problems.
func (a *API) noRoute(w http.ResponseWriter, r *http.Request) {
	answer := &discard{header: http.Header{}, status: http.StatusOK}
	a.routes.ServeHTTP(answer, r)
	switch answer.status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", answer.header.Get("Allow"))
		writeProblem(w, wire.NewProblem(answer.status, r.Method+" is not possible here; "+answer.header.Get("Allow")+" is", ""))
	default:
		writeProblem(w, wire.NewProblem(http.StatusNotFound, "there is nothing at "+upkeep.Printable(r.URL.Path), "GET /api/v1/openapi.json lists what there is"))
	}
}

// discard takes an answer for its status and headers alone.
type discard struct {
	header http.Header
	status int
	bytes.Buffer
}

func (d *discard) Header() http.Header    { return d.header }
func (d *discard) WriteHeader(status int) { d.status = status }
