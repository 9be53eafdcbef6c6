package task

import (
	"maps"
	"slices"

	"upkeep"
)

var sortedKinds = slices.Sorted(maps.Keys(kinds))

// Mkdir makes one folder below a root that the agent's policy names.
type Mkdir struct {
	// Root is the name of a root in the policy, such as "home"; Path is relative to it.
	Root  string `json:"root"`
	Path  string `json:"path"`
	Owner string `json:"owner"` // an account, or "root"
	Group string `json:"group"` // an account, "root", or the web server's group as the policy names it
	Mode  string `json:"mode"`  // octal, such as "0750"; no set-id bits
}

func (Mkdir) Kind() string     { return upkeep.JobMkdir }
func (t Mkdir) Object() string { return "dir/" + t.Root + "/" + t.Path }

// UserEnsure makes an account's system user, or sees that it is as it should be.
type UserEnsure struct {
	Tenant
}

func (UserEnsure) Kind() string     { return upkeep.JobUserEnsure }
func (t UserEnsure) Object() string { return "account/" + t.Account }

// UserRemove removes an account's system user, if upkeep made it. Its files stay.
type UserRemove struct {
	Tenant
}

func (UserRemove) Kind() string     { return upkeep.JobUserRemove }
func (t UserRemove) Object() string { return "account/" + t.Account }

// ZonePublish is the bind publisher through the agent on a name server. It says
// what the zone is to have; the agent chooses the serial, from the one that its
// named serves.
type ZonePublish struct {
	Zone upkeep.Zone `json:"zone"`
	// Publisher is the one of the zone's that names this server.
	Publisher upkeep.Publisher `json:"publisher"`
	// Sharing are the names of all zones that include the same files there, this
	// one among them: what the agent knows of others from before is forgotten.
	Sharing []string `json:"sharing,omitempty"`
	Sets    []Set    `json:"sets"`
}

// Set is the addresses at one name.
type Set struct {
	Owner     string   `json:"owner"`
	TTL       int      `json:"ttl"` // seconds
	Addresses []string `json:"addresses"`
}

func (ZonePublish) Kind() string { return upkeep.JobZonePublish }

// Object tells views apart: each is published by itself.
func (t ZonePublish) Object() string {
	if t.Publisher.View != "" {
		return "zone/" + t.Zone.Name + "/" + t.Publisher.View
	}
	return "zone/" + t.Zone.Name
}

// Notification is a message for an account, shown until it is read. No agent
// sees it.
type Notification struct {
	Account string `json:"account"`
	Text    string `json:"text"`
}

func (Notification) Kind() string     { return upkeep.JobNotification }
func (t Notification) Object() string { return "account/" + t.Account }

// ServerFacts asks an agent what it finds on its server.
type ServerFacts struct{}

func (ServerFacts) Kind() string   { return upkeep.JobServerFacts }
func (ServerFacts) Object() string { return "facts" }

// ServerPurge takes away what upkeep made on a web server that no site needs any
// more. It is refused while there are sites.
type ServerPurge struct{}

func (ServerPurge) Kind() string   { return upkeep.JobServerPurge }
func (ServerPurge) Object() string { return "web" }
