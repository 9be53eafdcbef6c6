package upkeep

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Limits of pools.
const (
	MaxMembers = 10000
	MaxZones   = 1000 // that one pool is published in
	MaxNames   = 100  // in each of them
	MaxAnchors = 100
	// MaxAnswer is the number of addresses published at one name: BIND refuses
	// a zone with more than 100 records of one type at a name
	// (max-records-per-type).
	MaxAnswer = 100
)

// Pool is a named set of members published under one or more names in one or
// more zones, with a check and a policy.
type Pool struct {
	Name    string   `json:"name"`
	Zones   []string `json:"zones"`
	Records []string `json:"records"`
	// TTL of the published records, 60s when left out. DegradedTTL is used
	// instead while any member is down; it is a second fixed value because each
	// change of TTL is a publish of its own.
	TTL         Duration `json:"ttl,omitempty"`
	DegradedTTL Duration `json:"degraded_ttl,omitempty"`
	Members     []Member `json:"members"`
	Check       Check    `json:"check"`
	Policy      Policy   `json:"policy,omitzero"`
	// Status is the page about the pool for people who do not sign in.
	Status StatusPage `json:"status,omitzero"`
}

// StatusPage is a page that shows anybody how a pool fares, with its badge and its
// feed. It names members by their labels, and by nothing that tells where they are.
type StatusPage struct {
	// Public makes the page; without it there is none.
	Public bool `json:"public,omitempty"`
	// Title stands over it in place of the pool's name.
	Title string `json:"title,omitempty"`
	// Addresses shows the addresses of members as well.
	Addresses bool `json:"addresses,omitempty"`
}

// Member is one address of a pool. In a document it is an address alone or a
// mapping.
type Member struct {
	Address netip.Addr `json:"address"`
	// CheckAddress is what is asked in place of Address: an address or a host
	// name. CheckPort replaces the check's port for this member.
	CheckAddress string `json:"check_address,omitempty"`
	CheckPort    int    `json:"check_port,omitempty"`
	// Backup members are published only when no other member is left.
	Backup bool `json:"backup,omitempty"`
	// Label is what people call it; a public status page knows it by nothing else.
	Label string `json:"label,omitempty"`
}

// UnmarshalText reads the short form of a member, its address alone.
func (m *Member) UnmarshalText(text []byte) error {
	addr, err := netip.ParseAddr(string(text))
	if err != nil {
		return fmt.Errorf("%q is not an IPv4 or IPv6 address", text)
	}
	*m = Member{Address: addr}
	return nil
}

// UnmarshalJSON reads both forms. It is needed because encoding/json hands every
// value of a type with UnmarshalText to that method and refuses an object.
func (m *Member) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		var short string
		if err := json.Unmarshal(text, &short); err != nil {
			return err
		}
		return m.UnmarshalText([]byte(short))
	}
	type plain Member
	var long plain
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields() // the outer decoder's choice does not reach here
	if err := decoder.Decode(&long); err != nil {
		return err
	}
	*m = Member(long)
	return nil
}

// Target is what is asked on behalf of the member: its check address when it
// has one, its address otherwise.
func (m Member) Target() string {
	if m.CheckAddress != "" {
		return m.CheckAddress
	}
	return m.Address.String()
}

// Fail-open policies: what is published when too few members are left.
const (
	FailOpenAll   = "all"   // every member
	FailOpenLast  = "last"  // the last set that was published while enough were up
	FailOpenFixed = "fixed" // Policy.Fixed
	FailOpenNone  = "none"  // nothing: the names cease to exist
)

// Policy says how verdicts become a published set. It is applied to IPv4 and
// IPv6 members apart.
type Policy struct {
	FailOpen string       `json:"fail_open,omitempty"` // all when left out
	Fixed    []netip.Addr `json:"fixed,omitempty"`
	// HealthyFraction of the members must be left, else the pool fails open:
	// ceil(fraction * members), as gdnsd's up_thresh. Zero means that one
	// member left is enough.
	HealthyFraction float64 `json:"healthy_fraction,omitempty"`
	// Anchors are addresses that must answer a ping while anything is removed.
	// When all of them are silent the monitor itself is cut off and publishing
	// is frozen.
	Anchors []netip.Addr `json:"anchors,omitempty"`
	// MassFailure freezes publishing when more than this fraction of all
	// targets fail within one window; 0.6 when left out, 1 turns it off.
	MassFailure float64 `json:"mass_failure,omitempty"`
	// AddWindow is the least time between two additions; removals never wait.
	// 5s when left out, which is BIND's notify-delay.
	AddWindow *Duration `json:"add_window,omitempty"`
	// Probation is how long a member that failed must stay up before it is
	// published again; it doubles with each failure up to ProbationMax and
	// decays while the member stays up.
	Probation    Duration `json:"probation,omitempty"`
	ProbationMax Duration `json:"probation_max,omitempty"`
}

// WithDefaults fills in what was left out.
func (p Policy) WithDefaults() Policy {
	p.FailOpen = orString(p.FailOpen, FailOpenAll)
	if p.MassFailure == 0 {
		p.MassFailure = 0.6
	}
	if p.AddWindow == nil {
		window := Duration(5 * time.Second)
		p.AddWindow = &window
	}
	if p.Probation == 0 {
		p.Probation = Duration(10 * time.Second)
	}
	if p.ProbationMax == 0 {
		p.ProbationMax = max(Duration(10*time.Minute), p.Probation)
	}
	return p
}

// WithDefaults fills in what was left out. What is stored and shown is what the
// operator wrote; what runs is this.
func (p Pool) WithDefaults() Pool {
	if p.TTL == 0 {
		p.TTL = Duration(time.Minute)
	}
	if p.DegradedTTL == 0 {
		p.DegradedTTL = p.TTL
	}
	p.Check = p.Check.WithDefaults()
	p.Policy = p.Policy.WithDefaults()
	return p
}

// Validate returns every rule that the pool breaks by itself; see [CheckAll]
// for the rules between declared things.
func (p Pool) Validate() []FieldError {
	r := &rules{}
	if !objectName().MatchString(p.Name) {
		r.add("name", p.Name, "must be 1 to 63 lower-case letters, digits and hyphens")
	}
	p.validateNames(r)
	for field, ttl := range map[string]Duration{"ttl": p.TTL, "degraded_ttl": p.DegradedTTL} {
		if ttl != 0 && (ttl < Duration(time.Second) || ttl > Duration(7*Day) || ttl%Duration(time.Second) != 0) {
			r.add(field, ttl, "must be 1s to 7d in whole seconds")
		}
	}
	p.validateMembers(r)
	p.Check.validate(r, "check")
	p.Policy.validate(r, "policy")
	r.oneLine("status.title", p.Status.Title, maxTitle)
	return r.fields
}

// Lengths in bytes of what a status page says in the operator's words.
const (
	maxTitle = 200
	maxLabel = 100
)

// Warnings are remarks on legal but doubtful settings, one sentence each.
func (p Pool) Warnings() []string {
	if full := p.WithDefaults(); min(full.TTL, full.DegradedTTL) < Duration(30*time.Second) {
		return []string{fmt.Sprintf("pool %s: a TTL below 30s is raised by many resolvers and multiplies the queries; the gain is small", p.Name)}
	}
	return nil
}

func (p Pool) validateNames(r *rules) {
	if r.atMost("zones", len(p.Zones), MaxZones) || r.atMost("records", len(p.Records), MaxNames) {
		return
	}
	if len(p.Zones) == 0 {
		r.add("zones", nil, "needs at least one zone")
	}
	if len(p.Records) == 0 {
		r.add("records", nil, "needs at least one name, such as \"@\" or www")
	}
	for i, zone := range p.Zones {
		at := fmt.Sprintf("zones[%d]", i)
		if !ValidName(zone) {
			r.add(at, zone, "must be a domain name without a final dot")
		}
		if slices.Contains(p.Zones[:i], zone) {
			r.add(at, zone, "is listed twice")
		}
	}
	for i, owner := range p.Records {
		at := fmt.Sprintf("records[%d]", i)
		if !ValidOwner(owner) {
			r.add(at, owner, "must be \"@\", a name relative to the zone, or a wildcard")
		}
		if slices.Contains(p.Records[:i], owner) {
			r.add(at, owner, "is listed twice")
		}
	}
}

func (p Pool) validateMembers(r *rules) {
	if len(p.Members) == 0 {
		r.add("members", nil, "needs at least one member")
	}
	if r.atMost("members", len(p.Members), MaxMembers) {
		return
	}
	seen := make(map[netip.Addr]bool, len(p.Members))
	for i, m := range p.Members {
		at := fmt.Sprintf("members[%d]", i)
		if !Publishable(m.Address) {
			r.add(at+".address", m.Address, "must be a unicast IPv4 or IPv6 address")
		}
		if seen[m.Address] {
			r.add(at+".address", m.Address, "is listed twice")
		}
		seen[m.Address] = true
		r.oneLine(at+".label", m.Label, maxLabel)
		m.validateCheck(r, at, p)
	}
}

func (m Member) validateCheck(r *rules, at string, p Pool) {
	if m.CheckPort < 0 || m.CheckPort > 65535 {
		r.add(at+".check_port", m.CheckPort, "must be 1 to 65535")
	}
	if m.CheckPort != 0 && !slices.Contains(checkFields["port"], p.Check.Type) {
		r.add(at+".check_port", m.CheckPort, "has no use with a %s check", p.Check.Type)
	}
	if m.CheckAddress == "" {
		return
	}
	if _, err := netip.ParseAddr(m.CheckAddress); err == nil {
		return
	}
	if !ValidName(m.CheckAddress) {
		r.add(at+".check_address", m.CheckAddress, "must be an address or a host name")
		return
	}
	for _, zone := range p.Zones {
		if Within(m.CheckAddress, zone) {
			r.add(at+".check_address", m.CheckAddress,
				"must not lie in %s, which this pool publishes: the check would ask for its own result", zone)
		}
	}
}

// Publishable reports whether addr can be the data of an A or AAAA record that
// clients are sent to.
func Publishable(addr netip.Addr) bool {
	return addr.IsValid() && addr.Zone() == "" && !addr.Is4In6() && !addr.IsUnspecified() && !addr.IsMulticast() &&
		addr != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (p Policy) validate(r *rules, at string) {
	modes := []string{FailOpenAll, FailOpenLast, FailOpenFixed, FailOpenNone}
	if p.FailOpen != "" && !slices.Contains(modes, p.FailOpen) {
		r.add(at+".fail_open", p.FailOpen, "must be one of all, last, fixed, none")
	}
	if (p.FailOpen == FailOpenFixed) != (len(p.Fixed) > 0) {
		r.add(at+".fixed", nil, "is required with fail_open: fixed, and has no use without it")
	}
	if r.atMost(at+".fixed", len(p.Fixed), MaxAnswer) || r.atMost(at+".anchors", len(p.Anchors), MaxAnchors) {
		return
	}
	for i, addr := range p.Fixed {
		if !Publishable(addr) || slices.Contains(p.Fixed[:i], addr) {
			r.add(fmt.Sprintf("%s.fixed[%d]", at, i), addr, "must be a unicast address, listed once")
		}
	}
	for i, addr := range p.Anchors {
		if !Publishable(addr) || slices.Contains(p.Anchors[:i], addr) {
			r.add(fmt.Sprintf("%s.anchors[%d]", at, i), addr, "must be a unicast address, listed once")
		}
	}
	for field, f := range map[string]float64{"healthy_fraction": p.HealthyFraction, "mass_failure": p.MassFailure} {
		if !(f >= 0 && f <= 1) {
			r.add(at+"."+field, f, "must be 0 to 1")
		}
	}
	if p.AddWindow != nil && (*p.AddWindow < 0 || *p.AddWindow > Duration(time.Hour)) {
		r.add(at+".add_window", *p.AddWindow, "must be 0s to 1h")
	}
	if p.Probation < 0 || p.Probation > Duration(Day) {
		r.add(at+".probation", p.Probation, "must be 0s to 1d")
	}
	if p.ProbationMax < 0 || p.ProbationMax > Duration(7*Day) {
		r.add(at+".probation_max", p.ProbationMax, "must be 0s to 7d")
	} else if p.ProbationMax != 0 && p.ProbationMax < p.WithDefaults().Probation {
		r.add(at+".probation_max", p.ProbationMax, "must not be below probation")
	}
}
