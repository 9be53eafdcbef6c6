package selftest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/vhost"
)

// Panel is what a tenant's wishes go through: control's front door, and all that
// is behind it.
type Panel interface {
	// Declare asks for documents, each of which is written as JSON, all or none of
	// them; a [Verbatim] is text as it stands. A refusal is an error.
	Declare(ctx context.Context, documents ...any) (warnings []string, err error)
	// Delete takes a declared thing back.
	Delete(ctx context.Context, kind, name string) error
	// Site waits until nothing is pending for a site, and says what became of it.
	Site(ctx context.Context, name string) (upkeep.SiteStatus, error)
	// Job has one job done and waits for its end.
	Job(ctx context.Context, kind string, payload any) (upkeep.Job, error)
	// Declared is everything that is declared, each thing with its generation, by
	// kind/name.
	Declared(ctx context.Context) (map[string]string, error)
}

// Verbatim is a document that is sent as it stands.
type Verbatim string

// Thief is somebody who has stolen control's keys, and has control's place on the
// network.
type Thief interface {
	// Send hands orders to the agent, all at once, and returns the outcome of each.
	Send(ctx context.Context, orders ...link.Signed) ([]link.Outcome, error)
	// Sign signs with what was stolen.
	Sign(job link.Job) (link.Signed, error)
	// Close gives control its place back.
	Close() error
}

// Accounts and sites that are there before any attack.
const (
	victim, evil   = "victim", "evil"
	victimSite     = "victim.test"
	victimOther    = "a.b.neighbour.test"
	evilSite       = "evil.test"
	victimBelow    = "victim.evil.test" // by a delegation
	foreignSite    = "handmade.test"
	foreignAccount = "evil-handmade"
	foreignUID     = 20500
)

// World is what attacks are tried in.
type World struct {
	Panel
	// Server is the name of the web server, Address where it answers, and Layout
	// where it has what.
	Server, Address string
	Layout          vhost.Layout
	// Outside is a folder of root's that no attack may change or read.
	Outside string
	// Watched are further folders in which nothing may change, and Secrets files
	// that no tenant may read.
	Watched, Secrets []string
	// Sockets are unix sockets that no tenant may connect to, Closed addresses of
	// control that do nothing without its token, the one for people first.
	Sockets []string
	Closed  []string
	// Users says that accounts have system users of their own.
	Users bool
	// Foreign says that the web server also answers foreignSite, by hand-made
	// configuration, and that the system has a user foreignAccount.
	Foreign bool
	// Stolen steals control's keys; nil where they cannot be.
	Stolen func(context.Context) (Thief, error)
	// Admit makes a customer, who may sign in, and returns a token of it.
	Admit func(ctx context.Context, name, account, password string) (token string, err error)
	// Verify proves that the web server has what is declared and nothing else; may
	// be nil.
	Verify func(context.Context) error

	client     *http.Client
	neighbours *neighbours
	secret     string
	accounts   []string // that are the tenant's, too
	mine       []string // names that the tenant may have though they do not begin like it
	uid, other int      // numbers of evil and victim
	serial     atomic.Int64
}

// site is a document of a site of the tenant's.
func (w *World) site(name string, fields ...map[string]any) map[string]any {
	document := map[string]any{"kind": upkeep.KindSite, "name": name, "account": evil, "servers": []string{w.Server}}
	for _, more := range fields {
		for key, value := range more {
			document[key] = value
		}
	}
	return document
}

// fresh is the name of a site of the tenant's that there was not before.
func (w *World) fresh() string { return fmt.Sprintf("evil-%d.test", w.serial.Add(1)) }

// live declares sites of the tenant's, and waits until the last one is served.
func (w *World) live(ctx context.Context, documents ...any) error {
	if _, err := w.Declare(ctx, documents...); err != nil {
		return fmt.Errorf("declaring what is harmless: %w", err)
	}
	for _, document := range documents {
		fields, is := document.(map[string]any)
		if !is || fields["kind"] != upkeep.KindSite {
			continue
		}
		status, err := w.Site(ctx, fields["name"].(string))
		if err != nil {
			return err
		}
		if status.State != upkeep.SiteLive {
			return fmt.Errorf("site %s is %s: %s", status.Name, status.State, status.Reason)
		}
	}
	return nil
}

// page is what a neighbour's first page says.
func page(site string) string { return "this is " + site + " and nobody else\n" }

// Settle makes the neighbours and the tenant, and begins to watch. [World.Leave]
// ends that.
func (w *World) Settle(ctx context.Context) error {
	w.client = &http.Client{
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	w.secret = "SECRET-" + rand.Text()
	if err := w.layOut(); err != nil {
		return err
	}
	if err := w.restore(ctx); err != nil {
		return err
	}
	var err1, err2 error
	w.uid, _, err1 = ownerOf(w.htdocs(evil, evilSite))
	w.other, _, err2 = ownerOf(w.htdocs(victim, victimSite))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if w.Users && (w.uid < upkeep.MinUID || w.other < upkeep.MinUID || w.uid == w.other) {
		return fmt.Errorf("the folders of the accounts belong to users %d and %d", w.uid, w.other)
	}
	w.neighbours = watch(w, victimSite, "www."+victimSite, victimOther, victimBelow)
	return errors.Join(w.neighbours.fresh()...)
}

// Leave stops watching the neighbours.
func (w *World) Leave() { w.neighbours.stop() }

// restore declares the neighbours and the tenant, and puts pages into their sites,
// as it is before the first attack.
func (w *World) restore(ctx context.Context) error {
	of := func(account, name string) map[string]any {
		return w.site(name, map[string]any{"account": account})
	}
	documents := []any{
		account(victim), account(evil), of(victim, victimSite), of(victim, victimOther),
		// A wildcard of the tenant's, over a name that the tenant has given away.
		w.site(evilSite, map[string]any{"wildcard": true}),
		map[string]any{"kind": upkeep.KindDelegation, "name": victimBelow, "account": victim},
	}
	if err := errors.Join(w.live(ctx, documents...), w.live(ctx, of(victim, victimBelow))); err != nil {
		return err
	}
	for _, site := range []struct{ account, name string }{{victim, victimSite}, {victim, victimOther}, {victim, victimBelow}, {evil, evilSite}} {
		index := filepath.Join(w.htdocs(site.account, site.name), "index.html")
		if err := os.WriteFile(index, []byte(page(site.name)), 0o644); err != nil {
			return err
		}
		uid, gid, err := ownerOf(filepath.Dir(index))
		if err == nil {
			err = os.Lchown(index, uid, gid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// layOut makes the folder that no attack may read or change.
func (w *World) layOut() error {
	if err := os.MkdirAll(filepath.Join(w.Outside, "inner"), 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.Chmod(w.Outside, 0o755),
		os.WriteFile(filepath.Join(w.Outside, "secret.txt"), []byte(w.secret+"\n"), 0o644),
		os.WriteFile(filepath.Join(w.Outside, "inner", "private.txt"), []byte(w.secret+"\n"), 0o600),
	)
}

// outside is a path in the folder that no attack may read or change.
func (w *World) outside(name string) string { return filepath.Join(w.Outside, name) }

// folder is HOME/ACCOUNT/SITE.
func (w *World) folder(account, site string) string {
	return filepath.Join(w.Layout.Home, account, site)
}

func (w *World) htdocs(account, site string) string {
	return filepath.Join(w.folder(account, site), "htdocs")
}

// answer is what the web server said.
type answer struct {
	status int
	header http.Header
	body   string
}

// all is everything that a visitor sees.
func (a answer) all() string {
	var b strings.Builder
	_ = a.header.Write(&b) // to memory
	return b.String() + a.body
}

// get asks the web server for a path of a host.
func (w *World) get(ctx context.Context, host, path string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.Address+path, nil)
	if err != nil {
		return answer{}, err
	}
	req.Host, req.Close = host, true
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return answer{resp.StatusCode, resp.Header, string(text)}, err
}

// harmless asks a site of the tenant's for what the attacks of family texts
// would bring about where one of them came through.
func (w *World) harmless(ctx context.Context, host string) error {
	for _, path := range []string{"/", "/pwned", "/nothing-here", "/old/x", "/private/", "/forbidden"} {
		got, err := w.get(ctx, host, path)
		if err != nil {
			return fmt.Errorf("asking for %s%s: %w", host, path, err)
		}
		switch all := got.all(); {
		case strings.Contains(all, w.secret):
			return fmt.Errorf("%s%s shows the secret of root's folder", host, path)
		case strings.Contains(all, "/usr/bin:/bin"):
			return fmt.Errorf("%s%s shows the environment of the web server", host, path)
		case got.header.Get("X-Pwned") != "":
			return fmt.Errorf("%s%s has a header that was slipped in", host, path)
		}
	}
	return nil
}

// others are the declared things that are not the tenant's.
func (w *World) others(declared map[string]string) map[string]string {
	others := map[string]string{}
	for name, text := range declared {
		var owned struct{ Account string }
		_ = json.Unmarshal([]byte(text), &owned) // what is no document is nobody's
		_, object, _ := strings.Cut(name, "/")
		if !w.is(owned.Account) && !w.is(object) {
			others[name] = text
		}
	}
	return others
}

// is reports whether a name is that of the tenant, or of something of its.
func (w *World) is(name string) bool {
	return strings.HasPrefix(name, evil) || slices.Contains(w.accounts, name)
}
