package upkeep

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep/internal/lazy"
)

// Publisher types: how records reach a zone.
const (
	PublishTransfer = "transfer" // upkeep answers itself and is primary for secondaries
	PublishBind     = "bind"     // include files and rndc reload
	PublishUpdate   = "update"   // RFC 2136 dynamic update
)

// Limits of zones.
const (
	MaxServers    = 100
	MaxPublishers = 20
)

// Zone is a DNS zone that upkeep writes into.
type Zone struct {
	Name       string      `json:"name"`
	Publishers []Publisher `json:"publishers"`
	// Servers are asked after each publish, as host:port or address:port. A
	// publish is done when every one of them answers the new record set. Where none
	// is listed, those are asked that publishers write to, upkeep itself and the
	// secondaries of a transfer publisher among them.
	Servers []string `json:"servers,omitempty"`
	// Records are served by the transfer publisher beside the pools.
	Records []Record `json:"records,omitempty"`
	// TTL of Records that have none of their own, 1h when left out.
	TTL Duration `json:"ttl,omitempty"`
	SOA SOA      `json:"soa,omitzero"`
}

// SOA holds the fields of the start of authority that an operator may choose
// (RFC 1035 section 3.3.13). The serial is upkeep's.
type SOA struct {
	MName   string   `json:"mname,omitempty"` // first NS record when left out
	RName   string   `json:"rname,omitempty"` // hostmaster.ZONE when left out
	Refresh Duration `json:"refresh,omitempty"`
	Retry   Duration `json:"retry,omitempty"`
	Expire  Duration `json:"expire,omitempty"`
	Minimum Duration `json:"minimum,omitempty"` // negative TTL, RFC 2308
}

// Publisher is one way by which a zone's records are published.
type Publisher struct {
	Type string `json:"type"`

	// transfer: Secondaries are sent NOTIFY; AllowTransfer lists further
	// prefixes that may ask for the zone. TSIG is a key file as tsig-keygen
	// writes it; with it every transfer must be signed.
	Secondaries   []string       `json:"secondaries,omitempty"`
	AllowTransfer []netip.Prefix `json:"allow_transfer,omitempty"`
	TSIG          string         `json:"tsig,omitempty"`

	// bind: IncludeDir holds soa.include and ips.include, which ZoneFile
	// includes; any number of zones may include the same two files. With Chroot,
	// the directory that named has for its root (named -t), both paths may be
	// given as they are or as named sees them: see [Publisher.RealPath]. View is
	// needed where the zone is in several views. RNDC and Checkzone are commands,
	// program first.
	ZoneFile   string   `json:"zone_file,omitempty"`
	IncludeDir string   `json:"include_dir,omitempty"`
	Chroot     string   `json:"chroot,omitempty"`
	View       string   `json:"view,omitempty"`
	RNDC       []string `json:"rndc,omitempty"`
	Checkzone  []string `json:"checkzone,omitempty"`
	// Agent is the server, of role dns, whose agent does all this on a name server
	// elsewhere. The files are that server's; its policy has the commands, the
	// chroot and the address at which named is asked.
	Agent string `json:"agent,omitempty"`

	// update: the primary's address, and for bind the address at which its
	// served SOA is asked. Key is a TSIG key file as tsig-keygen writes it.
	Server string `json:"server,omitempty"`
	Key    string `json:"key,omitempty"`
}

// publisherFields names, for each optional field, the publishers that take it.
var publisherFields = map[string][]string{
	"secondaries":    {PublishTransfer},
	"allow_transfer": {PublishTransfer},
	"tsig":           {PublishTransfer},
	"zone_file":      {PublishBind},
	"include_dir":    {PublishBind},
	"chroot":         {PublishBind},
	"view":           {PublishBind},
	"rndc":           {PublishBind},
	"checkzone":      {PublishBind},
	"agent":          {PublishBind},
	"server":         {PublishBind, PublishUpdate},
	"key":            {PublishUpdate},
}

// Record is one static record of a zone.
type Record struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`
	Value string   `json:"value"`
	TTL   Duration `json:"ttl,omitempty"`
}

// RecordTypes lists the static record types that a zone document takes.
var RecordTypes = []string{"A", "AAAA", "NS", "CNAME", "MX", "TXT", "SRV", "CAA", "PTR", "DS", "TLSA", "SSHFP"}

// WithDefaults fills in what was left out.
func (z Zone) WithDefaults() Zone {
	def := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	def(&z.TTL, time.Hour)
	// The article's values, but for the negative TTL, which bounds how long a
	// name that was empty for a moment stays unknown to resolvers.
	def(&z.SOA.Refresh, 5*time.Minute)
	def(&z.SOA.Retry, time.Minute)
	def(&z.SOA.Expire, Day)
	def(&z.SOA.Minimum, time.Minute)
	z.SOA.RName = orString(z.SOA.RName, "hostmaster."+z.Name)
	if z.SOA.MName == "" {
		z.SOA.MName = z.firstNS()
	}
	return z
}

func (z Zone) firstNS() string {
	for _, record := range z.Records {
		if record.Type == "NS" && record.Name == "@" {
			if name, absolute := strings.CutSuffix(record.Value, "."); absolute {
				return name
			}
			return Absolute(record.Value, z.Name)
		}
	}
	return "ns1." + z.Name
}

// Validate returns every rule that the zone breaks by itself. The data of
// static records is checked further where it is parsed into wire form.
func (z Zone) Validate() []FieldError {
	r := &rules{}
	if !ValidName(z.Name) || z.Name != strings.ToLower(z.Name) {
		r.add("name", z.Name, "must be a domain name in lower case without a final dot")
	}
	if len(z.Publishers) == 0 {
		r.add("publishers", nil, "needs at least one publisher")
	}
	if r.atMost("servers", len(z.Servers), MaxServers) || r.atMost("publishers", len(z.Publishers), MaxPublishers) {
		return r.fields
	}
	transfers := 0
	for i, p := range z.Publishers {
		at := fmt.Sprintf("publishers[%d]", i)
		p.validate(r, at)
		if p.Agent != "" && slices.ContainsFunc(z.Publishers[:i], func(o Publisher) bool { return o.Agent == p.Agent && o.View == p.View }) {
			r.add(at+".agent", p.Agent, "publishes this zone already; another publisher there must be for another view")
		}
		if p.Type == PublishTransfer {
			transfers++
		}
	}
	if transfers > 1 {
		r.add("publishers", nil, "may hold one transfer publisher only")
	}
	if len(z.Records) > 0 && transfers == 0 {
		r.add("records", nil, "are served by a transfer publisher only; other zones keep them in their own zone file")
	}
	for i, server := range z.Servers {
		validateServer(r, fmt.Sprintf("servers[%d]", i), server)
		if slices.Contains(z.Servers[:i], server) {
			r.add(fmt.Sprintf("servers[%d]", i), server, "is listed twice")
		}
	}
	z.validateRecords(r)
	z.SOA.validate(r, "soa")
	validateTTL(r, "ttl", z.TTL)
	return r.fields
}

func validateTTL(r *rules, at string, ttl Duration) {
	if ttl < 0 || ttl > Duration(365*Day) || ttl%Duration(time.Second) != 0 {
		r.add(at, ttl, "must be 1s to 365d in whole seconds")
	}
}

func (z Zone) validateRecords(r *rules) {
	seen := map[Record]bool{}
	for i, record := range z.Records {
		at := fmt.Sprintf("records[%d]", i)
		if !ValidOwner(record.Name) {
			r.add(at+".name", record.Name, "must be \"@\", a name relative to the zone, or a wildcard")
		}
		if !slices.Contains(RecordTypes, record.Type) {
			r.add(at+".type", record.Type, "must be one of %s", strings.Join(RecordTypes, ", "))
		}
		if record.Value == "" || len(record.Value) > 4096 || hasControl(record.Value) {
			r.add(at+".value", record.Value, "must be record data on one line, free of control characters")
		}
		validateTTL(r, at+".ttl", record.TTL)
		record.TTL = 0
		if seen[record] {
			r.add(at, record.Name+" "+record.Type, "is listed twice")
		}
		seen[record] = true
	}
}

func (s SOA) validate(r *rules, at string) {
	for field, name := range map[string]string{"mname": s.MName, "rname": s.RName} {
		if name != "" && !ValidName(name) {
			r.add(at+"."+field, name, "must be a domain name without a final dot")
		}
	}
	for field, d := range map[string]Duration{"refresh": s.Refresh, "retry": s.Retry, "expire": s.Expire, "minimum": s.Minimum} {
		validateTTL(r, at+"."+field, d)
	}
}

func (p Publisher) validate(r *rules, at string) {
	types := []string{PublishTransfer, PublishBind, PublishUpdate}
	if !slices.Contains(types, p.Type) {
		r.add(at+".type", p.Type, "must be one of %s", strings.Join(types, ", "))
		return
	}
	given := map[string]bool{
		"secondaries": len(p.Secondaries) > 0, "allow_transfer": len(p.AllowTransfer) > 0, "tsig": p.TSIG != "",
		"zone_file": p.ZoneFile != "", "include_dir": p.IncludeDir != "", "chroot": p.Chroot != "", "view": p.View != "",
		"rndc": len(p.RNDC) > 0, "checkzone": len(p.Checkzone) > 0, "server": p.Server != "", "key": p.Key != "", "agent": p.Agent != "",
	}
	for field, is := range given {
		if takers := publisherFields[field]; is && !slices.Contains(takers, p.Type) {
			r.add(at+"."+field, nil, "is taken by publishers of type %s, not by %s", strings.Join(takers, ", "), p.Type)
		}
	}
	if r.atMost(at+".secondaries", len(p.Secondaries), MaxServers) || r.atMost(at+".allow_transfer", len(p.AllowTransfer), MaxServers) {
		return
	}
	for i, server := range p.Secondaries {
		validateServer(r, fmt.Sprintf("%s.secondaries[%d]", at, i), server)
	}
	for field, path := range map[string]string{"zone_file": p.ZoneFile, "include_dir": p.IncludeDir, "chroot": p.Chroot, "tsig": p.TSIG, "key": p.Key} {
		if hasControl(path) || strings.ContainsAny(path, `"\`) {
			r.add(at+"."+field, path, "must be a path free of quotes, backslashes and control characters")
		}
	}
	switch p.Type {
	case PublishBind:
		if p.IncludeDir == "" {
			r.add(at+".include_dir", nil, "is required: the directory of soa.include and ips.include")
		}
		if p.View != "" && !viewName().MatchString(p.View) {
			r.add(at+".view", p.View, "must be the name of a view: letters, digits, dots, hyphens and underscores")
		}
		for field, argv := range map[string][]string{"rndc": p.RNDC, "checkzone": p.Checkzone} {
			if len(argv) > 0 && argv[0] == "" || slices.ContainsFunc(argv, hasNUL) {
				r.add(at+"."+field, nil, "must be a command, program first, free of NUL bytes; no shell is involved")
			}
		}
		if p.Agent != "" {
			p.validateAgent(r, at)
		}
	case PublishUpdate:
		if p.Server == "" {
			r.add(at+".server", nil, "is required: the address of the primary")
		}
		if p.Key == "" {
			r.add(at+".key", nil, "is required: a TSIG key file; make one with tsig-keygen")
		}
	}
	if p.Server != "" {
		validateServer(r, at+".server", p.Server)
	}
}

// validateAgent checks a bind publisher that an agent carries out. What a job may
// say there is less than what a document says of this machine: commands and
// addresses are root's to choose on the server.
func (p Publisher) validateAgent(r *rules, at string) {
	if !objectName().MatchString(p.Agent) {
		r.add(at+".agent", p.Agent, "must be the name of a server: lower-case letters, digits and hyphens, at most 63")
	}
	for field, given := range map[string]bool{"rndc": len(p.RNDC) > 0, "checkzone": len(p.Checkzone) > 0, "chroot": p.Chroot != ""} {
		if given {
			r.add(at+"."+field, nil, "must be left out with agent: it stands in the policy file on %s", p.Agent)
		}
	}
	if p.Server != "" {
		r.add(at+".server", p.Server, "must be left out with agent: the policy file on %s says where the agent asks named; list the addresses that control can ask under servers of the zone", p.Agent)
	}
	for field, path := range map[string]string{"zone_file": p.ZoneFile, "include_dir": p.IncludeDir} {
		if path != "" && (path[0] != '/' || filepath.Clean(path) != path) {
			r.add(at+"."+field, path, "must be an absolute path on %s, without . and .. and without a slash at its end, as its policy file has it", p.Agent)
		}
	}
}

// viewName is what the name of a view may be; named allows more, but nothing
// that rndc could take for an option.
var viewName = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

func hasNUL(s string) bool { return strings.ContainsRune(s, 0) }

// validateServer accepts "192.0.2.1:53", "[2001:db8::1]:53", "ns1.example.net:53".
func validateServer(r *rules, at, server string) {
	if addr, err := netip.ParseAddrPort(server); err == nil && addr.Port() != 0 {
		return
	}
	host, port, found := strings.Cut(server, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if !found || err != nil || n == 0 || !ValidName(host) {
		r.add(at, server, "must be an address or a host name with a port, such as 192.0.2.1:53")
	}
}
