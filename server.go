package upkeep

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Roles of a server: what its agent may be asked for. The policy file on the
// server has the last word.
const (
	RoleWeb    = "web"    // virtual hosts
	RoleFiles  = "files"  // homes of accounts, for web servers that mount them
	RoleDNS    = "dns"    // include files of zones
	RoleImages = "images" // disk images
)

// Roles lists every role, in the order in which help shows them.
var Roles = []string{RoleWeb, RoleFiles, RoleDNS, RoleImages}

// Server is a machine with an agent on it. It is declared before its agent
// joins; its certificate and what it tells of itself are kept apart.
type Server struct {
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
	// StaffOnly leaves it to staff to put sites on it.
	StaffOnly bool `json:"staff_only,omitempty"`
}

func (s Server) ObjectKind() string { return KindServer }
func (s Server) ObjectName() string { return s.Name }

// AgentStatus is what is known of a server's agent.
type AgentStatus struct {
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
	// State is "joined" when its agent has a certificate, "waiting" when a join
	// token is out, "new" otherwise.
	State     string    `json:"state"`
	Connected bool      `json:"connected"`
	StaffOnly bool      `json:"staff_only,omitempty"` // see [Server.StaffOnly]
	Since     time.Time `json:"since,omitzero"`       // of the connection, or its loss
	Expires   time.Time `json:"expires,omitzero"`     // of the certificate
	Facts     *Facts    `json:"facts,omitempty"`
	Pending   int       `json:"pending"` // jobs that wait for it
	Sites     int       `json:"sites"`   // that it answers for, by what it last told of each
}

// Facts are what an agent finds out about its server.
type Facts struct {
	At       time.Time `json:"at"`
	Hostname string    `json:"hostname"`
	System   string    `json:"system"` // "Debian GNU/Linux 12 (bookworm)"
	Kernel   string    `json:"kernel"`
	Version  string    `json:"version"` // of upkeep
	UID      int       `json:"uid"`     // that the agent's root side runs as
	// Kinds are the job kinds that its policy allows.
	Kinds []string `json:"kinds"`
	// Allows is what the policy says beside them; agents of an older upkeep do not tell.
	Allows *Allowed `json:"allows,omitempty"`
	// WebServer is the program and its version, such as "Apache/2.4.66"; empty
	// without one. URL is where it answers.
	WebServer string `json:"web_server,omitempty"`
	URL       string `json:"url,omitempty"`
	// WebDown is why the web server does not run; empty while it does.
	WebDown string `json:"web_down,omitempty"`
	// Sites is how many sites of upkeep it serves, Foreign the names that it
	// answers by hand-made configuration.
	Sites   int      `json:"sites"`
	Foreign []string `json:"foreign,omitempty"`
	// Stall is how long its last reload kept new connections waiting.
	Stall Duration `json:"stall,omitempty"`
	// Astray are sites that it does not serve any more as they were applied, or could
	// not when they were, with the reason.
	Astray map[string]string `json:"astray,omitempty"`
	// InForce are the generations that these answer with when the web server has
	// read its files; 0 for none.
	InForce map[string]int64 `json:"in_force,omitempty"`
	// Warnings are about the machine: settings that weaken what the agent relies
	// on, such as fs.protected_hardlinks=0.
	Warnings []string `json:"warnings,omitempty"`
}

// Allowed is what the policy on a server allows, as its agent tells it. It is for
// people to read: the agent obeys the file there and nothing that was told of it.
type Allowed struct {
	// Roots are the folders below which work is done, by the names that jobs use, and
	// ImageRoots those of images.
	Roots      map[string]string `json:"roots,omitempty"`
	ImageRoots map[string]string `json:"image_roots,omitempty"`
	// MaxImage is the largest that an image may be made.
	MaxImage Size `json:"max_image,omitempty"`
	// UIDMin to UIDMax are the user ids of accounts; 0 for none.
	UIDMin int `json:"uid_min"`
	UIDMax int `json:"uid_max"`
	// DeleteBudget is how much may be removed in an hour.
	DeleteBudget int `json:"delete_budget"`
	// IncludeDirs are where include files of zones are written.
	IncludeDirs []string `json:"include_dirs,omitempty"`
}

func (s Server) Validate() []FieldError {
	var r rules
	if !objectName().MatchString(s.Name) {
		r.add("name", s.Name, "must be lower-case letters, digits and hyphens, at most 63")
	}
	if len(s.Roles) == 0 {
		r.add("roles", nil, "is required: one or more of %s", strings.Join(Roles, ", "))
	}
	if r.atMost("roles", len(s.Roles), len(Roles)) {
		return r.fields
	}
	for i, role := range s.Roles {
		switch {
		case !slices.Contains(Roles, role):
			r.add(fmt.Sprintf("roles[%d]", i), role, "must be one of %s", strings.Join(Roles, ", "))
		case slices.Contains(s.Roles[:i], role):
			r.add(fmt.Sprintf("roles[%d]", i), role, "is given twice")
		}
	}
	return r.fields
}
