package upkeep

import (
	"fmt"
	"net/netip"
	"time"
)

// Verdict is what the failover logic makes of the probes' history.
type Verdict uint8

// Unknown is a state of its own: it never removes a member and never adds one.
const (
	Unknown Verdict = iota
	Up
	Down
)

var verdictNames = [...]string{Unknown: "unknown", Up: "up", Down: "down"}

func (v Verdict) String() string { return verdictNames[v] }

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if name == string(text) {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not up, down or unknown", text)
}

// Admin states: a layer over the measured verdict, never a write to it.
const (
	AdminAuto  = "auto"  // the verdict decides
	AdminUp    = "up"    // published whatever the verdict says
	AdminDown  = "down"  // never published
	AdminDrain = "drain" // not published, and on its way out in good order
)

// AdminStates lists the admin states.
var AdminStates = []string{AdminAuto, AdminUp, AdminDown, AdminDrain}

// Override forces the members that match into an admin state. Rules are kept in
// order and a later one wins; Pool and Member are globs as in path.Match.
type Override struct {
	ID     int64     `json:"id"`
	Pool   string    `json:"pool"`
	Member string    `json:"member"`
	State  string    `json:"state"`
	Who    string    `json:"who"`
	Why    string    `json:"why,omitempty"`
	At     time.Time `json:"at"`
}

// PoolStatus is what a pool is doing now.
type PoolStatus struct {
	Name       string `json:"name"`
	Generation int64  `json:"generation"`
	// Published holds the addresses that DNS is made to answer with.
	Published []netip.Addr `json:"published"`
	TTL       Duration     `json:"ttl"`
	// Reason says in one sentence why this set is published; Next what would
	// change it next.
	Reason string `json:"reason"`
	Next   string `json:"next,omitempty"`
	// Frozen is the reason for which nothing is published at present.
	Frozen    string         `json:"frozen,omitempty"`
	ChangedAt time.Time      `json:"changed_at,omitzero"`
	Members   []MemberStatus `json:"members"`
	Zones     []ZoneStatus   `json:"zones"`
	// Failover is the time from a removed member's last good probe to the last
	// name server without it, for the latest removal that was proven.
	Failover Duration `json:"failover,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Page is the public status page, as it is declared.
	Page StatusPage `json:"page,omitzero"`
}

// MemberStatus is what is known of one member.
type MemberStatus struct {
	Address netip.Addr `json:"address"`
	Target  string     `json:"target"` // what is asked, if not Address
	Label   string     `json:"label,omitempty"`
	Backup  bool       `json:"backup,omitempty"`
	Verdict Verdict    `json:"verdict"`
	Admin   string     `json:"admin"`
	// AdminWho and AdminWhy are of whoever laid the admin state over the verdict.
	AdminWho  string    `json:"admin_who,omitempty"`
	AdminWhy  string    `json:"admin_why,omitempty"`
	Published bool      `json:"published"`
	Reason    string    `json:"reason"`
	Next      string    `json:"next,omitempty"`
	ChangedAt time.Time `json:"changed_at,omitzero"`
	LastOK    time.Time `json:"last_ok,omitzero"`
	LastProbe time.Time `json:"last_probe,omitzero"`
	// RTT and Loss are what adaptive detection has learned: a smoothed
	// round-trip time and the base loss as a fraction.
	RTT     Duration `json:"rtt,omitempty"`
	Loss    float64  `json:"loss"`
	Warning string   `json:"warning,omitempty"` // certificate expiry and the like
	// Unchecked says that nothing can be learned of the member, by the monitor's
	// own fault; Warning says why.
	Unchecked bool   `json:"unchecked,omitempty"`
	PerfData  string `json:"perfdata,omitempty"`
}

// Latency are the round trips of the checks that a member answered in the last hour.
// They are kept in memory alone: after a restart they begin anew.
type Latency struct {
	Address netip.Addr `json:"address"`
	// Min, Median and Max are of all slots, Median of their medians; zero without any
	// answer.
	Min    Duration `json:"min"`
	Median Duration `json:"median"`
	Max    Duration `json:"max"`
	// Slot is how long each of Slots lasts. Those without an answer are left out.
	Slot  Duration      `json:"slot"`
	Slots []LatencySlot `json:"slots"`
}

// LatencySlot are the round trips of a few minutes, the median from a sample of them.
type LatencySlot struct {
	At     time.Time `json:"at"` // when it began
	Min    Duration  `json:"min"`
	Median Duration  `json:"median"`
	Max    Duration  `json:"max"`
}

// ZoneStatus is what the name servers of a zone answer.
type ZoneStatus struct {
	Name string `json:"name"`
	// Serial is the one that every server ought to answer.
	Serial      uint32            `json:"serial"`
	PublishedAt time.Time         `json:"published_at,omitzero"`
	Publishers  []PublisherStatus `json:"publishers,omitempty"`
	Servers     []ServerStatus    `json:"servers"`
}

// PublisherStatus is the outcome of a publisher's last run.
type PublisherStatus struct {
	Type   string    `json:"type"`
	Agent  string    `json:"agent,omitempty"` // the server whose agent carries it out
	Serial uint32    `json:"serial"`
	At     time.Time `json:"at,omitzero"`
	Error  string    `json:"error,omitempty"`
	Hint   string    `json:"hint,omitempty"`
}

// By says what publishes: "bind", or "bind on dns1".
func (p PublisherStatus) By() string {
	if p.Agent != "" {
		return p.Type + " on " + p.Agent
	}
	return p.Type
}

// ServerStatus is what one name server answers for a zone.
type ServerStatus struct {
	Address string `json:"address"`
	Serial  uint32 `json:"serial"`
	// InSync means that the serial and every record set are as published.
	InSync bool `json:"in_sync"`
	// Lag is the time from the publish to the first proof on this server.
	Lag     Duration  `json:"lag,omitempty"`
	AskedAt time.Time `json:"asked_at,omitzero"`
	Error   string    `json:"error,omitempty"`
}
