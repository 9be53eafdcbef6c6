package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
)

// OwnPasskeys are what users see to of their passkeys.
type OwnPasskeys interface {
	// OfferPasskey begins the adding of one, on pages of an origin: options are for
	// the browser's script, sealed is to come back with the answer.
	OfferPasskey(ctx context.Context, name, password, origin, from string) (options []byte, sealed string, err error)
	AddPasskey(ctx context.Context, name, label, sealed string, answer []byte, origin string) error
	Passkeys(ctx context.Context, name string) ([]upkeep.Passkey, error)
	RemovePasskey(ctx context.Context, who, name string, id int64) error
}

type passkeyView struct {
	upkeep.Passkey
	CreatedAt, SeenAt moment
}

func (c *Console) passkeyRoutes() {
	c.route("POST /signin/passkey/options", c.askPasskey)
	c.route("POST /signin/passkey", c.signInByPasskey)
	c.route("POST /me/passkeys/options", c.offerPasskey)
	c.route("POST /me/passkeys", c.addPasskey)
	c.route("POST /me/passkeys/{id}/remove", c.removePasskey)
}

// noPasskeys says why browsers use no passkeys with the pages of a request, "" where
// they do: they belong to a name, and are used where a page has come as it was sent
// (Secure Contexts, section 3.1).
func noPasskeys(r *http.Request) string {
	_, host := api.Origin(r)
	_, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil:
		return "Passkeys belong to a name, and upkeep was asked by an address here. Open it by the name of its machine, or as localhost; a proxy before it has to pass the name on."
	case !api.Private(r), !api.OverTLS(r) && host != "localhost":
		return "Browsers use passkeys over TLS only, and as localhost: this connection is not encrypted."
	}
	return ""
}

// tellScript answers a script: with options for the browser, or with why there are
// none, as text for people.
func (c *Console) tellScript(w http.ResponseWriter, r *http.Request, options []byte, sealed string, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		api.SetCeremony(w, r, sealed)
		w.Write(options)
		return
	}
	status, text := http.StatusUnprocessableEntity, ""
	if found, ours := faultsOf(err); ours {
		for _, name := range sortedFaults(found) {
			text = strings.TrimSpace(text + " " + found[name])
		}
	} else {
		c.o.Log.Error("asking for a passkey", "err", err)
		status, text = http.StatusInternalServerError, "This cannot be done just now. The log of upkeep says why."
	}
	answer, err := json.Marshal(map[string]string{"error": text})
	if err != nil {
		c.o.Log.Error("wording an answer", "err", err)
	}
	w.WriteHeader(status)
	w.Write(answer)
}

// lacking is the error of a request about passkeys from where there are none.
func lacking(r *http.Request) error {
	if why := noPasskeys(r); why != "" {
		return &upkeep.InvalidError{Fields: []upkeep.FieldError{{Rule: strings.TrimSuffix(why, ".")}}}
	}
	return nil
}

// labelled says what is wrong with what a passkey is to be called.
func labelled(label string) error {
	fields := upkeep.Passkey{Name: label}.Validate()
	if len(fields) == 0 {
		return nil
	}
	fields[0].Field = "label" // tokens have a name on the same page
	return &upkeep.InvalidError{Fields: fields}
}

func (c *Console) askPasskey(w http.ResponseWriter, r *http.Request) {
	origin, _ := api.Origin(r)
	var options []byte
	var sealed string
	err := lacking(r)
	if err == nil {
		options, sealed, err = c.o.People.AskPasskey(origin)
	}
	c.tellScript(w, r, options, sealed, err)
}

func (c *Console) signInByPasskey(w http.ResponseWriter, r *http.Request) {
	v := signInView{Next: localPath(r.PostForm.Get("next")), Open: !api.Private(r), NoPasskeys: noPasskeys(r)}
	origin, _ := api.Origin(r)
	sealed := api.Ceremony(r)
	api.SetCeremony(w, r, "")
	var secret string
	var expires time.Time
	err := lacking(r)
	if err == nil {
		secret, expires, err = c.o.People.SignInByPasskey(r.Context(), sealed, []byte(r.PostForm.Get("answer")), origin, api.From(r), r.UserAgent())
	}
	if err == nil {
		api.SetSignedIn(w, r, secret, expires)
		http.Redirect(w, r, v.Next, http.StatusSeeOther)
		return
	}
	var ours bool
	if v.Faults, ours = faultsOf(err); !ours {
		c.broken(w, r, err)
		return
	}
	c.o.Log.Warn("a sign-in by a passkey was refused", "from", api.From(r), "why", err)
	c.render(w, r, http.StatusUnprocessableEntity, "signin.html", "Sign in", v)
}

func (c *Console) offerPasskey(w http.ResponseWriter, r *http.Request) {
	caller := access.From(r.Context())
	origin, _ := api.Origin(r)
	err := lacking(r)
	if err == nil {
		err = labelled(r.PostForm.Get("label")) // before the device makes one for nothing
	}
	if err == nil && caller.SignIn == 0 {
		err = fmt.Errorf("%w: this is for who has signed in, not for who has a token", upkeep.ErrRefused)
	}
	var options []byte
	var sealed string
	if err == nil {
		options, sealed, err = c.o.People.OfferPasskey(r.Context(), caller.User, r.PostForm.Get("present"), origin, api.From(r))
	}
	c.tellScript(w, r, options, sealed, err)
}

func (c *Console) addPasskey(w http.ResponseWriter, r *http.Request) {
	caller, ok := c.signedIn(w, r)
	if !ok {
		return
	}
	origin, _ := api.Origin(r)
	sealed, label := api.Ceremony(r), r.PostForm.Get("label")
	api.SetCeremony(w, r, "")
	err := lacking(r)
	if err == nil {
		err = labelled(label)
	}
	if err == nil {
		err = c.o.People.AddPasskey(r.Context(), caller.User, label, sealed, []byte(r.PostForm.Get("answer")), origin)
	}
	if err != nil {
		c.failedMe(w, r, meView{Label: label}, err)
		return
	}
	http.Redirect(w, r, "/me", http.StatusSeeOther)
}

func (c *Console) removePasskey(w http.ResponseWriter, r *http.Request) {
	caller, ok := c.signedIn(w, r)
	if !ok {
		return
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		c.fault(w, r, http.StatusNotFound, "There is no such passkey.")
		return
	}
	if err := c.o.People.RemovePasskey(r.Context(), caller.Who, caller.User, id); err != nil {
		c.failedMe(w, r, meView{}, err)
		return
	}
	http.Redirect(w, r, "/me", http.StatusSeeOther)
}
