package console

import (
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
	"upkeep/internal/lazy"
)

// meView is what a user sees of itself.
type meView struct {
	Name, Account string
	SignIns       []signInRow
	Tokens        []tokenRow
	Faults        faults
	// Made is a token that was just made, shown this once.
	Made string
	// Token is what the form for one was filled with.
	Token upkeep.AccessToken
	Days  int
	// HasFactor says that there is a second factor; otherwise Secret is one for an
	// app, in groups, and Link is for a device that has the app.
	HasFactor    bool
	Secret, Text string
	Link         template.URL
	// Code is the link for a camera; nil where it would be too long.
	Code *qrCode
	// Spare are codes that were just made, shown this once.
	Spare []string
	// Passkeys are those to sign in with; NoPasskeys says why none can be added here.
	Passkeys   []passkeyView
	NoPasskeys string
	Label      string // what the form for one was filled with
}

func (meView) isForm() bool { return true }

type signInRow struct {
	upkeep.SignIn
	Present           bool
	CreatedAt, SeenAt moment
}

type tokenRow struct {
	upkeep.AccessToken
	SeenAt moment
	Until  string
	May    string
}

// mayOf says for people what a token is good for.
func mayOf(scope string) string {
	switch scope {
	case upkeep.ScopeWrite:
		return "read and write"
	case upkeep.ScopeUsers:
		return "read, write, and see to users"
	}
	return scope
}

func (c *Console) me(w http.ResponseWriter, r *http.Request) {
	c.showMe(w, r, http.StatusOK, meView{Days: 90, Token: upkeep.AccessToken{Scope: upkeep.ScopeRead}})
}

func (c *Console) showMe(w http.ResponseWriter, r *http.Request, status int, v meView) {
	ctx, caller, now := r.Context(), access.From(r.Context()), c.o.Now()
	if caller.User == "" {
		c.fault(w, r, http.StatusNotFound, "You did not sign in as a user: this page has nothing to show.")
		return
	}
	ins, err := c.o.People.SignIns(ctx, caller.User)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	tokens, err := c.o.People.Tokens(ctx, caller.User)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	if v.HasFactor, err = c.o.People.HasFactor(ctx, caller.User); err != nil {
		c.broken(w, r, err)
		return
	}
	keys, err := c.o.People.Passkeys(ctx, caller.User)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	for _, k := range keys {
		v.Passkeys = append(v.Passkeys, passkeyView{k, at(k.Created, now), at(k.Seen, now)})
	}
	v.NoPasskeys = noPasskeys(r)
	if !v.HasFactor {
		v.offer(caller.User, c.host, c.o.People.NewFactor)
	}
	v.Name, v.Account = caller.User, caller.Account
	for _, in := range ins {
		v.SignIns = append(v.SignIns, signInRow{in, in.ID == caller.SignIn, at(in.Created, now), at(in.Seen, now)})
	}
	for _, t := range tokens {
		v.Tokens = append(v.Tokens, tokenRow{t, at(t.Seen, now), t.Expires.Local().Format(time.DateOnly), mayOf(t.Scope)})
	}
	c.render(w, r, status, "me.html", caller.User, v)
}

// offer shows the secret of a second factor that is not there yet: a new one, unless
// the form was sent with one.
func (v *meView) offer(user, host string, secret func() string) {
	if v.Secret == "" {
		v.Secret = secret()
	}
	for i, c := range v.Secret {
		if i > 0 && i%4 == 0 {
			v.Text += " "
		}
		v.Text += string(c)
	}
	label := url.PathEscape("upkeep " + host + ":" + user)
	// Every part is escaped, and the scheme is ours.
	v.Link = template.URL("otpauth://totp/" + label + "?" + url.Values{"secret": {v.Secret}, "issuer": {"upkeep " + host}}.Encode())
	v.Code = drawQR(string(v.Link))
}

func (c *Console) setFactor(w http.ResponseWriter, r *http.Request) {
	caller, ok := c.signedIn(w, r)
	if !ok {
		return
	}
	form := r.PostForm
	spare, err := c.o.People.SetFactor(r.Context(), caller.User, form.Get("present"), form.Get("secret"), form.Get("code"), api.From(r))
	if err != nil {
		v := meView{}
		if secret := form.Get("secret"); factorSecret().MatchString(secret) {
			v.Secret = secret // the app has it by now
		}
		c.failedMe(w, r, v, err)
		return
	}
	c.showMe(w, r, http.StatusCreated, meView{Days: 90, Token: upkeep.AccessToken{Scope: upkeep.ScopeRead}, Spare: spare})
}

// factorSecret is what a secret looks like.
var factorSecret = lazy.Regexp(`^[A-Z2-7]{26,64}$`)

func (c *Console) dropFactor(w http.ResponseWriter, r *http.Request) {
	caller, ok := c.signedIn(w, r)
	if !ok {
		return
	}
	if err := c.o.People.DropFactor(r.Context(), caller.User, r.PostForm.Get("present"), api.From(r)); err != nil {
		c.failedMe(w, r, meView{}, err)
		return
	}
	http.Redirect(w, r, "/me", http.StatusSeeOther)
}

// signedIn refuses what is for people alone: with a token, a program could outlive
// it.
func (c *Console) signedIn(w http.ResponseWriter, r *http.Request) (access.Caller, bool) {
	caller := access.From(r.Context())
	if caller.SignIn == 0 {
		c.fault(w, r, http.StatusForbidden, "This is for who has signed in, not for who has a token.")
		return caller, false
	}
	return caller, true
}

// failed shows the page again with what is wrong.
func (c *Console) failedMe(w http.ResponseWriter, r *http.Request, v meView, err error) {
	var ours bool
	if v.Faults, ours = faultsOf(err); !ours {
		c.broken(w, r, err)
		return
	}
	if v.Days == 0 {
		v.Days = 90
	}
	c.showMe(w, r, http.StatusUnprocessableEntity, v)
}

func (c *Console) changePassword(w http.ResponseWriter, r *http.Request) {
	caller, ok := c.signedIn(w, r)
	if !ok {
		return
	}
	form := r.PostForm
	err := error(&upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "again", Rule: "is not the same"}}})
	if form.Get("password") == form.Get("again") {
		err = c.o.People.ChangePassword(r.Context(), caller.User, form.Get("present"), form.Get("password"), api.From(r))
	}
	if err != nil {
		c.failedMe(w, r, meView{}, err)
		return
	}
	api.SetSignedIn(w, r, "", time.Time{})
	http.Redirect(w, r, "/signin?next=/me", http.StatusSeeOther)
}

func (c *Console) endSignIn(w http.ResponseWriter, r *http.Request) {
	caller, ok := c.signedIn(w, r)
	if !ok {
		return
	}
	id, _ := strconv.ParseInt(r.PostForm.Get("id"), 10, 64) // all of them for what is no number
	if err := c.o.People.SignOut(r.Context(), caller.Who, caller.User, id); err != nil {
		c.failedMe(w, r, meView{}, err)
		return
	}
	http.Redirect(w, r, "/me", http.StatusSeeOther)
}

func (c *Console) addToken(w http.ResponseWriter, r *http.Request) {
	caller, ok := c.signedIn(w, r)
	if !ok {
		return
	}
	days, err := strconv.Atoi(r.PostForm.Get("days"))
	v := meView{Days: days, Token: upkeep.AccessToken{Name: r.PostForm.Get("name"), Scope: r.PostForm.Get("scope")}}
	if err != nil || days < 1 || days > int(upkeep.LongestToken.Hours()/24) {
		err = &upkeep.InvalidError{Fields: []upkeep.FieldError{{Field: "expires", Rule: "must be a number of days, 400 at most"}}}
	} else {
		v.Token.Expires = c.o.Now().Add(time.Duration(days) * 24 * time.Hour)
		_, v.Made, err = c.o.People.AddToken(r.Context(), caller.Who, caller.User, v.Token)
	}
	if err != nil {
		c.failedMe(w, r, v, err)
		return
	}
	v.Token = upkeep.AccessToken{Scope: upkeep.ScopeRead}
	c.showMe(w, r, http.StatusCreated, v)
}

func (c *Console) removeToken(w http.ResponseWriter, r *http.Request) {
	caller, ok := c.signedIn(w, r)
	if !ok {
		return
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		c.fault(w, r, http.StatusNotFound, "There is no such token.")
		return
	}
	if err := c.o.People.RemoveToken(r.Context(), caller.Who, caller.User, id); err != nil {
		c.failedMe(w, r, meView{}, err)
		return
	}
	http.Redirect(w, r, "/me", http.StatusSeeOther)
}
