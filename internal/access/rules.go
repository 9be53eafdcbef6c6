package access

import "slices"

// Group is a group of callers, each of which has those after it in it.
type Group int

// Groups, the widest first.
const (
	// Anybody is everybody who can connect.
	Anybody Group = iota
	// Visitors are everybody too, unless upkeep is private; then they are those who
	// signed in.
	Visitors
	// Onlookers are everybody too, unless upkeep is private; then they are staff.
	Onlookers
	// Customers are those who signed in, and staff. What they are shown is bounded
	// to their account where it is read.
	Customers
	// Staff are the operators: the control socket, the token of the data folder, and
	// users of that role.
	Staff
)

// Rule is who may use a route.
type Rule struct {
	For Group
	// Changes says that it changes something, which is not for those who may only
	// read.
	Changes bool
	// Users says that it changes who may sign in, or how. What a token makes by it
	// outlives the token, so that takes one that was made for it.
	Users bool
	// Lasts says that the answer has no end of its own: who is asking is looked up
	// again while it is open.
	Lasts bool
}

// Outcomes of a check.
type Outcome int

// What becomes of a request.
const (
	Allowed Outcome = iota
	Unknown         // it may be allowed to somebody who says who they are
	Refused         // it is not allowed to this caller
)

// Check says whether a rule lets a caller in.
func (r Rule) Check(c Caller, private bool) Outcome {
	group := r.For
	switch {
	case group == Onlookers && private:
		group = Staff
	case group == Visitors && private:
		group = Customers
	}
	switch {
	case group < Customers:
	case !c.Known():
		return Unknown
	case group == Staff && !c.Staff:
		return Refused
	}
	if r.Changes && c.ReadOnly || r.Users && !c.SeesToUsers() {
		return Refused
	}
	return Allowed
}

// For is the rule of a route, by its pattern.
func For(pattern string) (rule Rule, known bool) {
	rule, known = rules[pattern]
	return rule, known
}

// Patterns lists the routes that have rules.
func Patterns() []string {
	patterns := make([]string, 0, len(rules))
	for pattern := range rules {
		patterns = append(patterns, pattern)
	}
	slices.Sort(patterns)
	return patterns
}

var (
	anybody   = Rule{For: Anybody}
	onlookers = Rule{For: Onlookers}
	customers = Rule{For: Customers}
	staff     = Rule{For: Staff}
	// Those that change something.
	anyChange      = Rule{For: Anybody, Changes: true}
	customerChange = Rule{For: Customers, Changes: true}
	staffChange    = Rule{For: Staff, Changes: true}
	usersChange    = Rule{For: Staff, Changes: true, Users: true}
)

// rules has every route.
var rules = map[string]Rule{
	// What pools do is shown to anybody, as DNS shows it to the world.
	"GET /healthz":             anybody,
	"GET /metrics":             onlookers,
	"GET /api/v1/pools":        onlookers,
	"GET /api/v1/pools/{name}": onlookers,
	"GET /api/v1/zones":        onlookers,
	"GET /api/v1/events":       onlookers,

	"GET /api/v1/pools/{name}/members/{member}/latency": onlookers,

	"GET /api/v1/openapi.json": anybody,
	"GET /docs/api":            anybody,

	"POST /api/v1/apply":                   customerChange,
	"POST /api/v1/diff":                    customers,
	"POST /api/v1/delete":                  customerChange,
	"GET /api/v1/objects/{kind}":           customers,
	"GET /api/v1/objects/{kind}/{name}":    customers,
	"DELETE /api/v1/objects/{kind}/{name}": customerChange,

	"GET /api/v1/events/stream":                          {For: Staff, Lasts: true},
	"GET /api/v1/pools/{name}/budget":                    staff,
	"POST /api/v1/receivers/{name}/test":                 staffChange,
	"POST /api/v1/unfreeze":                              staffChange,
	"POST /api/v1/pools/{name}/members/{member}/force":   staffChange,
	"DELETE /api/v1/pools/{name}/members/{member}/force": staffChange,
	"GET /api/v1/pools/{name}/members/{member}/drained":  staff,
	"POST /api/v1/zones/{name}/renumber":                 staffChange,

	"GET /api/v1/audit":      staff,
	"GET /api/v1/audit/{id}": staff,

	"GET /api/v1/jobs":              customers,
	"GET /api/v1/jobs/stream":       {For: Customers, Lasts: true},
	"GET /api/v1/jobs/{id}":         customers,
	"POST /api/v1/jobs/{id}/retry":  customerChange,
	"POST /api/v1/jobs/{id}/read":   customerChange,
	"POST /api/v1/jobs/{id}/cancel": staffChange,
	"POST /api/v1/jobs":             staffChange,

	"GET /api/v1/sites":                customers,
	"GET /api/v1/sites/{name}":         customers,
	"GET /api/v1/sites/{name}/history": customers,
	"POST /api/v1/sites/{name}/undo":   customerChange,
	"POST /api/v1/sites/preview":       customers,

	"GET /api/v1/images":                     staff,
	"GET /api/v1/servers":                    staff,
	"POST /api/v1/servers/{name}/invitation": staffChange,
	"POST /api/v1/servers/{name}/revoke":     staffChange,
	"POST /api/v1/servers/{name}/regenerate": staffChange,
	"POST /api/v1/servers/{name}/verify":     staffChange,

	"GET /api/v1/users":                       staff,
	"POST /api/v1/users":                      usersChange,
	"DELETE /api/v1/users/{name}":             usersChange,
	"PUT /api/v1/users/{name}/password":       usersChange,
	"POST /api/v1/users/{name}/signout":       usersChange,
	"GET /api/v1/users/{name}/tokens":         staff,
	"POST /api/v1/users/{name}/tokens":        staffChange,
	"DELETE /api/v1/users/{name}/tokens/{id}": staffChange,

	// Pages.
	"GET /":             onlookers, // where nothing else is
	"GET /{$}":          onlookers,
	"GET /pools/{name}": onlookers,
	"GET /events":       onlookers,
	"GET /live":         {For: Visitors, Lasts: true},

	// What a pool's document makes public; all else is not found.
	"GET /status/{name}":           anybody,
	"GET /status/{name}/badge.svg": anybody,
	"GET /status/{name}/feed.xml":  anybody,

	"GET /assets/style.css":  anybody,
	"GET /assets/live.js":    anybody,
	"GET /assets/mark.svg":   anybody,
	"GET /assets/passkey.js": anybody,

	"GET /signin":   anybody,
	"POST /signin":  anyChange,
	"POST /signout": anyChange,
	"GET /setup":    anybody,
	"POST /setup":   anyChange,

	"GET /sites":                customers,
	"GET /sites/new":            customers,
	"POST /sites/new":           customerChange,
	"GET /sites/{name}":         customers,
	"GET /sites/{name}/edit":    customers,
	"POST /sites/{name}/edit":   customerChange,
	"GET /sites/{name}/history": customers,
	"POST /sites/{name}/undo":   customerChange,
	"GET /sites/{name}/remove":  customers,
	"POST /sites/{name}/remove": customerChange,

	"GET /jobs":              customers,
	"GET /jobs/{id}":         customers,
	"POST /jobs/{id}/retry":  customerChange,
	"POST /jobs/{id}/read":   customerChange,
	"POST /jobs/{id}/cancel": staffChange,

	"GET /servers":                        staff,
	"POST /servers":                       staffChange,
	"GET /servers/{name}":                 staff,
	"POST /servers/{name}/invite":         staffChange,
	"POST /servers/{name}/verify":         staffChange,
	"POST /servers/{name}/regenerate":     staffChange,
	"POST /servers/{name}/revoke":         staffChange,
	"GET /images":                         staff,
	"GET /audit":                          staff,
	"GET /audit/{id}":                     staff,
	"POST /images/look":                   staffChange,
	"GET /images/{name}/image":            staff,
	"GET /images/{name}/{verb}":           staff,
	"POST /images/{name}/{verb}":          staffChange,
	"GET /declared":                       staff,
	"GET /declare/{kind}":                 staff,
	"POST /declare/{kind}":                staffChange,
	"GET /declared/{kind}/{name}":         staff,
	"POST /declared/{kind}/{name}":        staffChange,
	"GET /declared/{kind}/{name}/remove":  staff,
	"POST /declared/{kind}/{name}/remove": staffChange,
	"GET /receivers/new":                  staff,
	"POST /receivers/new":                 staffChange,
	"GET /receivers/{name}/edit":          staff,
	"POST /receivers/{name}/edit":         staffChange,
	"POST /receivers/{name}/test":         staffChange,
	"GET /delegations/new":                staff,
	"POST /delegations/new":               staffChange,
	"GET /delegations/{name}/edit":        staff,
	"POST /delegations/{name}/edit":       staffChange,
	"POST /delegations/{name}/end":        staffChange,
	"GET /accounts":                       staff,
	"POST /accounts":                      staffChange,
	"POST /accounts/{name}/suspend":       staffChange,
	"GET /zones":                          staff,
	"GET /zones/{name}":                   staff,
	"POST /pools/{name}/force":            staffChange,
	"POST /unfreeze":                      staffChange,
	"GET /users":                          staff,
	"POST /users":                         usersChange,
	"POST /users/{name}/password":         usersChange,
	"POST /users/{name}/signout":          usersChange,
	"POST /users/{name}/remove":           usersChange,

	"DELETE /api/v1/users/{name}/factor": usersChange,
	"POST /users/{name}/nofactor":        usersChange,
	"POST /me/factor":                    customerChange,
	"POST /me/factor/drop":               customerChange,

	"GET /api/v1/users/{name}/passkeys":         staff,
	"DELETE /api/v1/users/{name}/passkeys":      usersChange,
	"DELETE /api/v1/users/{name}/passkeys/{id}": usersChange,
	"POST /users/{name}/nopasskeys":             usersChange,
	"POST /signin/passkey":                      anyChange,
	"POST /signin/passkey/options":              anyChange,
	"POST /me/passkeys":                         customerChange,
	"POST /me/passkeys/options":                 customerChange,
	"POST /me/passkeys/{id}/remove":             customerChange,

	"GET /me":                     customers,
	"POST /me/password":           customerChange,
	"POST /me/signout":            customerChange,
	"POST /me/tokens":             customerChange,
	"POST /me/tokens/{id}/remove": customerChange,
}
