// Package api is the HTTP API: what the command line, the status page and any
// other program use to declare things and to see what is being done about them.
//
// Who may do what is decided in auth.go, which error becomes which status in
// problem.go. Everything else is one file per noun.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"upkeep"
	"upkeep/internal/store"
	"upkeep/internal/watch"
)

// Declarer stores what operators declare.
type Declarer interface {
	// ApplyIf declares all of the objects, or none; if things still have the
	// generations that are given, and with [upkeep.ErrChanged] otherwise.
	ApplyIf(ctx context.Context, who string, still map[store.Ref]int64, objects []upkeep.Object, dryRun bool) (watch.Applied, error)
	// DeleteIf removes all of the objects, or none, with the same condition.
	DeleteIf(ctx context.Context, who string, still map[store.Ref]int64, refs ...store.Ref) error
	// Objects returns all objects, those of a kind, or the one of a kind and a name.
	Objects(ctx context.Context, kind, name string) ([]upkeep.Declared, error)
}

// Observer tells what is being done now.
type Observer interface {
	Pools(ctx context.Context) ([]upkeep.PoolStatus, error)
	Pool(ctx context.Context, name string) (upkeep.PoolStatus, error)
	Zones(ctx context.Context) ([]upkeep.ZoneStatus, error)
	Budget(ctx context.Context, pool string) (upkeep.Budget, error)
	// Latency returns the round trips to members of a pool, in the order given.
	Latency(ctx context.Context, pool string, members []netip.Addr) ([]upkeep.Latency, error)
}

// Forcer does what a person asks for over what was measured.
type Forcer interface {
	Force(ctx context.Context, who string, o upkeep.Override, all bool) (members []string, err error)
	Release(ctx context.Context, who, pool, member string) (members []string, err error)
	Drained(ctx context.Context, pool, member string) (done bool, waiting string, err error)
	Unfreeze(ctx context.Context, who string) error
	// Renumber goes on until ctx ends; it may be called again then.
	Renumber(ctx context.Context, who, zone string) (serial uint32, done bool, waiting string, err error)
}

// Recorder keeps and spreads events.
type Recorder interface {
	Events(ctx context.Context, f store.EventFilter) ([]upkeep.Event, error)
	// Subscribe returns events from now on. The channel is closed by cancel, and
	// when its reader falls too far behind.
	Subscribe() (events <-chan upkeep.Event, cancel func())
}

// Notifier tells receivers.
type Notifier interface {
	// Test sends a declared receiver a test message and returns what became of it.
	Test(ctx context.Context, name string) error
}

// Options are what an API is made of.
type Options struct {
	Declarer Declarer
	Observer Observer
	Forcer   Forcer
	Recorder Recorder
	Notifier Notifier
	Jobs     Jobs
	Sites    Sites
	Servers  Servers
	Log      *slog.Logger
	Version  string
	// Token is the bearer token that the TCP side accepts; empty accepts none.
	Token string
	// Private closes the status pages, the status and the metrics to callers
	// without a token, which may otherwise read them.
	Private bool
	// Hosts are the names by which browsers may address the TCP side, beside
	// any address, "localhost" and this machine's name. Others are refused:
	// a name of somebody else that points here is how DNS rebinding works.
	Hosts []string
	// Metrics answers /metrics; nil leaves it out.
	Metrics http.Handler
	// Page are the pages; nil leaves them out.
	Page Pages
	// People know users; nil where there are none.
	People People
	Users  Users
	// Answers remembers requests with a key; nil refuses them.
	Answers Answers
	Audit   Audit
	// Alive returns when the loop last ended a round, for /healthz.
	Alive func() time.Time
}

// API answers requests.
type API struct {
	o       Options
	log     *slog.Logger
	routes  *http.ServeMux
	hosts   map[string]bool
	peers   func() []uint32 // user ids that the control socket lets in
	gate    *gate
	bounds  *Bounds
	running running
	still   lasting
}

// New makes an API. [API.Control] and [API.Public] are its two faces.
func New(o Options) (*API, error) {
	a := &API{o: o, log: o.Log, routes: http.NewServeMux(), hosts: allowedHosts(o.Hosts), peers: trustedUsers}
	a.gate, a.bounds = &gate{a: a}, NewBounds(o.Declarer, o.Sites, o.Jobs)
	a.described()
	a.plainRoutes()
	return a, a.gate.complete()
}

// described registers the routes that the description of the API lists.
func (a *API) described() huma.API {
	config := huma.DefaultConfig("upkeep", "1") // the version of the API, as in its paths
	config.OpenAPIPath = ""                     // openapi.json is served in its place, see document.go
	config.DocsPath = ""                        // its page loads scripts from a CDN; package console has one
	config.SchemasPath = ""
	config.CreateHooks = nil // no $schema member in every body
	config.RejectUnknownQueryParameters = true
	config.Transformers = []huma.Transformer{worded}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	h := humago.New(a.gate, config)
	a.declareRoutes(h)
	a.poolRoutes(h)
	a.zoneRoutes(h)
	a.eventRoutes(h)
	a.jobRoutes(h)
	a.siteRoutes(h)
	a.serverRoutes(h)
	a.userRoutes(h)
	a.auditRoutes(h)
	return h
}

// pagePattern is where the status page is: everywhere that nothing else is.
const pagePattern = "GET /"

// plainRoutes are those that no OpenAPI document lists.
func (a *API) plainRoutes() {
	a.gate.HandleFunc("GET /api/v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		w.Write(document)
	})
	a.gate.HandleFunc("GET /healthz", a.health)
	if a.o.Metrics != nil {
		a.gate.HandleFunc("GET /metrics", a.o.Metrics.ServeHTTP)
	}
	if a.o.Page != nil {
		for pattern, page := range a.o.Page.Routes() {
			a.gate.page(pattern, page)
		}
	}
}

// stalled is how long the loop may stand still before /healthz says so. It
// turns once a second at the least.
const stalled = 30 * time.Second

func (a *API) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if a.o.Alive != nil {
		if still := time.Since(a.o.Alive()); still > stalled {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte("the loop has stood still for " + still.Round(time.Second).String() + "\n"))
			return
		}
	}
	w.Write([]byte("ok\n"))
}

// secured marks an operation, for readers of the OpenAPI document, as one that needs
// a token or a trusted user. Who may use it is decided by package access.
func secured(op huma.Operation) huma.Operation {
	op.Security = []map[string][]string{{"token": {}}}
	return op
}
