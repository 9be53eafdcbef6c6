package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
)

// People let people sign in, and see to what they sign in with.
type People interface {
	Entrance
	Own
	OwnPasskeys
}

// Entrance is how people come in.
type Entrance interface {
	// Setup is the token with which the first user is made, empty when there are
	// users; SetUp makes that user.
	Setup() string
	SetUp(ctx context.Context, token, name, password, from string) error
	// SignIn returns what a browser shows from then on.
	SignIn(ctx context.Context, name, password, code, from, agent string) (secret string, expires time.Time, err error)
	// AskPasskey begins a sign-in by a passkey on pages of an origin: options are for
	// the browser's script, sealed is to come back with the answer.
	AskPasskey(origin string) (options []byte, sealed string, err error)
	SignInByPasskey(ctx context.Context, sealed string, answer []byte, origin, from, agent string) (secret string, expires time.Time, err error)
	// SignOut ends one sign-in, or all with id 0.
	SignOut(ctx context.Context, who, name string, id int64) error
}

// Own is what users see to themselves.
type Own interface {
	SignIns(ctx context.Context, name string) ([]upkeep.SignIn, error)
	HasFactor(ctx context.Context, name string) (bool, error)
	// NewFactor makes a secret for an app; SetFactor makes it the user's, once the
	// code shows that the app has it, and returns codes for when the app is lost.
	NewFactor() string
	SetFactor(ctx context.Context, name, password, secret, code, from string) (spare []string, err error)
	DropFactor(ctx context.Context, name, password, from string) error
	ChangePassword(ctx context.Context, name, present, password, from string) error
	api.Tokens
}

func (c *Console) peopleRoutes() {
	c.route("GET /signin", c.signInPage)
	c.route("POST /signin", c.signIn)
	c.route("POST /signout", c.signOut)
	c.route("GET /setup", c.setupPage)
	c.route("POST /setup", c.setUp)
	c.route("GET /me", c.me)
	c.route("POST /me/password", c.changePassword)
	c.route("POST /me/signout", c.endSignIn)
	c.route("POST /me/tokens", c.addToken)
	c.route("POST /me/tokens/{id}/remove", c.removeToken)
	c.route("POST /me/factor", c.setFactor)
	c.route("POST /me/factor/drop", c.dropFactor)
	c.passkeyRoutes()
}

// faults are what is wrong with a form, by field; those of no field are under "".
type faults map[string]string

// faultsOf words an error for the person who sent a form. ok is false for one that
// is upkeep's own fault.
func faultsOf(err error) (f faults, ok bool) {
	f = faults{}
	var invalid *upkeep.InvalidError
	if errors.As(err, &invalid) {
		for _, field := range invalid.Fields {
			name, text := field.Field, field.Rule
			if field.Value != "" {
				text = strconv.Quote(upkeep.Printable(field.Value)) + " " + text
			}
			if _, there := f[name]; !there {
				f[name] = asSentence(text)
			}
		}
		return f, true
	}
	if !errors.Is(err, upkeep.ErrRefused) && !errors.Is(err, upkeep.ErrConflict) && !errors.Is(err, upkeep.ErrNotFound) {
		return nil, false
	}
	text := strings.TrimPrefix(upkeep.Said(err), upkeep.ErrRefused.Error()+": ")
	var hinted *upkeep.HintError
	if errors.As(err, &hinted) {
		text += ": " + hinted.Hint
	}
	f[""] = asSentence(text)
	return f, true
}

// asSentence makes one of what an error says.
func asSentence(text string) string {
	if !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "?") {
		text += "."
	}
	return upperFirst(text)
}

func upperFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// signInView is the page with the form for signing in, or for the first user.
type signInView struct {
	Next, Name, Token string
	Faults            faults
	// Refused says that it was name, password and code that were refused: which of them
	// is not told.
	Refused bool
	// Open says that others could read what is sent: there is no form then.
	Open bool
	// Unset says that there is no user yet.
	Unset bool
	// NoPasskeys says why there are none here; empty where there are.
	NoPasskeys string
}

func (signInView) isForm() bool { return true }

// local is where somebody wanted to go: a page of this upkeep and of no other host.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Host != "" || u.Scheme != "" || u.Opaque != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\n\r\t") {
		return "/"
	}
	return next
}

func (c *Console) signInPage(w http.ResponseWriter, r *http.Request) {
	next := localPath(r.URL.Query().Get("next"))
	if access.From(r.Context()).SignIn != 0 {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	c.render(w, r, http.StatusOK, "signin.html", "Sign in", signInView{Next: next, Open: !api.Private(r), Unset: c.o.People.Setup() != "", NoPasskeys: noPasskeys(r)})
}

func (c *Console) signIn(w http.ResponseWriter, r *http.Request) {
	v := signInView{Next: localPath(r.PostForm.Get("next")), Name: strings.ToLower(strings.TrimSpace(r.PostForm.Get("name"))), Open: !api.Private(r), NoPasskeys: noPasskeys(r)}
	if v.Open {
		c.render(w, r, http.StatusForbidden, "signin.html", "Sign in", v)
		return
	}
	if !c.enter(w, r, v.Name, r.PostForm.Get("password"), &v) {
		return
	}
	http.Redirect(w, r, v.Next, http.StatusSeeOther)
}

// enter signs a browser in, or shows the form again.
func (c *Console) enter(w http.ResponseWriter, r *http.Request, name, password string, v *signInView) bool {
	secret, expires, err := c.o.People.SignIn(r.Context(), name, password, r.PostForm.Get("code"), api.From(r), r.UserAgent())
	if err == nil {
		api.SetSignedIn(w, r, secret, expires)
		return true
	}
	var ours bool
	if v.Faults, ours = faultsOf(err); !ours {
		c.broken(w, r, err)
		return false
	}
	v.Refused = true
	c.o.Log.Warn("a sign-in was refused", "user", name, "from", api.From(r), "why", err)
	c.render(w, r, http.StatusUnprocessableEntity, "signin.html", "Sign in", *v)
	return false
}

func (c *Console) signOut(w http.ResponseWriter, r *http.Request) {
	caller := access.From(r.Context())
	if caller.SignIn != 0 {
		if err := c.o.People.SignOut(r.Context(), caller.Who, caller.User, caller.SignIn); err != nil && !errors.Is(err, upkeep.ErrNotFound) {
			c.broken(w, r, err)
			return
		}
	}
	api.SetSignedIn(w, r, "", time.Time{})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (c *Console) setupPage(w http.ResponseWriter, r *http.Request) {
	if c.o.People.Setup() == "" {
		http.Redirect(w, r, "/signin", http.StatusSeeOther)
		return
	}
	c.render(w, r, http.StatusOK, "setup.html", "First user", signInView{Token: r.URL.Query().Get("token"), Open: !api.Private(r)})
}

func (c *Console) setUp(w http.ResponseWriter, r *http.Request) {
	v := signInView{Token: r.PostForm.Get("token"), Name: strings.ToLower(strings.TrimSpace(r.PostForm.Get("name"))), Open: !api.Private(r)}
	if v.Open {
		c.render(w, r, http.StatusForbidden, "setup.html", "First user", v)
		return
	}
	password := r.PostForm.Get("password")
	err := error(&upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "again", Rule: "is not the same"}}})
	if password == r.PostForm.Get("again") {
		err = c.o.People.SetUp(r.Context(), v.Token, v.Name, password, api.From(r))
	}
	if err != nil {
		var ours bool
		if v.Faults, ours = faultsOf(err); !ours {
			c.broken(w, r, err)
			return
		}
		c.render(w, r, http.StatusUnprocessableEntity, "setup.html", "First user", v)
		return
	}
	if c.enter(w, r, v.Name, password, &v) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}
