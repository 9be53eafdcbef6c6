package console

import (
	"net/http"
	"strings"

	"upkeep"
	"upkeep/internal/access"
	"upkeep/internal/api"
)

func (c *Console) userRoutes() {
	c.route("GET /users", c.users)
	c.route("POST /users", c.addUser)
	c.route("POST /users/{name}/password", c.setPassword)
	c.route("POST /users/{name}/signout", c.signUserOut)
	c.route("POST /users/{name}/nofactor", c.removeFactor)
	c.route("POST /users/{name}/nopasskeys", c.removePasskeys)
	c.route("POST /users/{name}/remove", c.removeUser)
}

type usersView struct {
	Users    []userRow
	Accounts []option
	Faults   faults
	User     upkeep.User // what the form was filled with
	// For is whose new password was wrong.
	For  string
	Open bool // others could read what is sent
}

func (usersView) isForm() bool { return true }

type userRow struct {
	upkeep.User
	CreatedAt moment
	IsLocked  bool
	Self      bool
	Fault     said
}

func (c *Console) users(w http.ResponseWriter, r *http.Request) {
	c.showUsers(w, r, http.StatusOK, usersView{User: upkeep.User{Role: upkeep.UserCustomer}})
}

func (c *Console) showUsers(w http.ResponseWriter, r *http.Request, status int, v usersView) {
	ctx, now := r.Context(), c.o.Now()
	users, err := c.o.Hosting.Users.List(ctx)
	if err != nil {
		c.broken(w, r, err)
		return
	}
	accounts, err := c.o.Hosting.Bounds.Objects(ctx, upkeep.KindAccount, "")
	if err != nil {
		c.broken(w, r, err)
		return
	}
	for _, u := range users {
		row := userRow{User: u, CreatedAt: at(u.Created, now), IsLocked: u.Locked.After(now), Self: u.Name == access.From(ctx).User}
		if u.Name == v.For {
			row.Fault = v.Faults.Of("password")
		}
		v.Users = append(v.Users, row)
	}
	v.Accounts = []option{{"", "none: staff", v.User.Account == ""}}
	for _, a := range accounts {
		name := a.Object.ObjectName()
		v.Accounts = append(v.Accounts, option{name, name, name == v.User.Account})
	}
	v.Open = !api.Private(r)
	c.render(w, r, status, "users.html", "Users", v)
}

func (c *Console) addUser(w http.ResponseWriter, r *http.Request) {
	v := usersView{User: upkeep.User{Name: strings.ToLower(strings.TrimSpace(r.PostForm.Get("name"))), Role: upkeep.UserStaff, Account: r.PostForm.Get("account")}}
	if v.User.Account != "" {
		v.User.Role = upkeep.UserCustomer
	}
	c.changeUsers(w, r, v, c.o.Hosting.Users.Add(r.Context(), access.From(r.Context()).Who, v.User, r.PostForm.Get("password")))
}

func (c *Console) setPassword(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	c.changeUsers(w, r, usersView{For: name}, c.o.Hosting.Users.SetPassword(r.Context(), access.From(r.Context()).Who, name, r.PostForm.Get("password")))
}

func (c *Console) signUserOut(w http.ResponseWriter, r *http.Request) {
	c.changeUsers(w, r, usersView{}, c.o.Hosting.Users.SignOut(r.Context(), access.From(r.Context()).Who, r.PathValue("name"), 0))
}

// removeFactor is for who has lost the app and the spare codes.
func (c *Console) removeFactor(w http.ResponseWriter, r *http.Request) {
	c.changeUsers(w, r, usersView{}, c.o.Hosting.Users.RemoveFactor(r.Context(), access.From(r.Context()).Who, r.PathValue("name")))
}

// removePasskeys is for who has lost a device.
func (c *Console) removePasskeys(w http.ResponseWriter, r *http.Request) {
	c.changeUsers(w, r, usersView{}, c.o.Hosting.Users.RemovePasskey(r.Context(), access.From(r.Context()).Who, r.PathValue("name"), 0))
}

func (c *Console) removeUser(w http.ResponseWriter, r *http.Request) {
	caller, name := access.From(r.Context()), r.PathValue("name")
	if name == caller.User {
		c.fault(w, r, http.StatusConflict, "You cannot remove yourself here: nobody may be left who can sign in. Have another do it, or use upkeep user remove.")
		return
	}
	c.changeUsers(w, r, usersView{}, c.o.Hosting.Users.Remove(r.Context(), caller.Who, name))
}

// changeUsers shows what became of a change.
func (c *Console) changeUsers(w http.ResponseWriter, r *http.Request, v usersView, err error) {
	if err == nil {
		http.Redirect(w, r, "/users", http.StatusSeeOther)
		return
	}
	found, ours := faultsOf(err)
	if !ours {
		c.broken(w, r, err)
		return
	}
	v.Faults = found
	c.showUsers(w, r, http.StatusUnprocessableEntity, v)
}
