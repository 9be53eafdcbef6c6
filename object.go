package upkeep

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// Kinds of declared things.
const (
	KindPool     = "pool"
	KindZone     = "zone"
	KindReceiver = "receiver"

	KindServer     = "server"
	KindAccount    = "account"
	KindDelegation = "delegation"
	KindSite       = "site"
)

// Kinds lists the declared kinds in the order in which they depend on each other.
var Kinds = append(slices.Clone(PoolKinds), HostingKinds...)

// PoolKinds are those of health-checked DNS. There are few of them, and rules
// between them are checked over all, see [CheckAll]. HostingKinds are those of
// sites, of which there may be many thousands: rules between them are checked
// around what changes, see [CheckHosting]. CheckedKinds are those that CheckAll
// looks at: publishers name servers, of which there are few too.
var (
	PoolKinds    = []string{KindZone, KindPool, KindReceiver}
	HostingKinds = []string{KindServer, KindAccount, KindDelegation, KindSite}
	CheckedKinds = append(slices.Clone(PoolKinds), KindServer)
)

// Object is a declared thing: a [Pool], a [Zone], a [Receiver], a [Server], an
// [Account], a [Delegation] or a [Site].
type Object interface {
	// ObjectKind is one of [Kinds]; with ObjectName it identifies the thing.
	ObjectKind() string
	ObjectName() string
	Validate() []FieldError
}

func (p Pool) ObjectKind() string { return KindPool }
func (p Pool) ObjectName() string { return p.Name }
func (z Zone) ObjectKind() string { return KindZone }
func (z Zone) ObjectName() string { return z.Name }

// zeroObjects has an empty object of each kind; whatever reads objects from text
// finds their types here. A new kind is added here and to [Kinds].
var zeroObjects = map[string]Object{
	KindZone: Zone{}, KindPool: Pool{}, KindReceiver: Receiver{},
	KindServer: Server{}, KindAccount: Account{}, KindDelegation: Delegation{}, KindSite: Site{},
}

// ZeroObject returns an empty object of the kind, false when there is no such
// kind.
func ZeroObject(kind string) (Object, bool) {
	zero, known := zeroObjects[kind]
	return zero, known
}

// DecodeObject reads the JSON form of an object, as the database and the API
// carry it. A field that the kind does not have is an error: dropping it would
// change what was declared.
func DecodeObject(kind string, text []byte) (Object, error) {
	zero, known := ZeroObject(kind)
	if !known {
		return nil, fmt.Errorf("reading a %q: there is no such kind", kind)
	}
	value := reflect.New(reflect.TypeOf(zero))
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value.Interface()); err != nil {
		return nil, fmt.Errorf("reading a %s: %w", kind, err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("reading a %s: more than one JSON value", kind)
	}
	return value.Elem().Interface().(Object), nil
}

// Declared is an object as it is stored.
type Declared struct {
	// Generation is raised on each change, starting at 1.
	Generation int64  `json:"generation"`
	Object     Object `json:"object"`
}

// Conflict is a rule broken between declared things; Object is the one to fix.
type Conflict struct {
	Object Object
	FieldError
}

// CheckAll returns the rules broken between declared things of [CheckedKinds],
// the whole set as it would be after a change: zones that pools name must exist,
// two writers must not claim one name, a member is not checked by a name that upkeep itself
// publishes, zones that share include files have the same content, and agents that
// publish are on servers of role dns.
func CheckAll(objects []Object) []Conflict {
	c := conflicts{zones: map[string]Zone{}, servers: map[string]Server{}, owners: map[string]string{}}
	for _, object := range objects {
		switch o := object.(type) {
		case Zone:
			c.zones[o.Name] = o
		case Server:
			c.servers[o.Name] = o
		}
	}
	for _, zone := range c.zones {
		for _, record := range zone.Records {
			if slices.Contains([]string{"A", "AAAA", "CNAME"}, record.Type) {
				c.owners[Absolute(record.Name, zone.Name)] = "zone " + zone.Name
			}
		}
	}
	for _, object := range objects {
		switch o := object.(type) {
		case Pool:
			c.checkPool(o)
		case Zone:
			c.checkAgents(o)
		}
	}
	c.checkShared(objects)
	return c.found
}

type conflicts struct {
	zones   map[string]Zone
	servers map[string]Server
	owners  map[string]string // absolute name to who publishes addresses at it
	found   []Conflict
}

// checkAgents refuses publishers whose agent cannot be there.
func (c *conflicts) checkAgents(zone Zone) {
	for i, p := range zone.Publishers {
		if p.Agent == "" {
			continue
		}
		at := fmt.Sprintf("publishers[%d].agent", i)
		server, exists := c.servers[p.Agent]
		switch {
		case !exists:
			c.add(zone, at, p.Agent, "must be a declared server; none of that name exists")
		case !slices.Contains(server.Roles, RoleDNS):
			c.add(zone, at, p.Agent, "must be a server with the role %s; it has %s", RoleDNS, strings.Join(server.Roles, ", "))
		}
	}
}

func (c *conflicts) add(object Object, field, value, rule string, args ...any) {
	c.found = append(c.found, Conflict{object, FieldError{Field: field, Value: value, Rule: fmt.Sprintf(rule, args...)}})
}

// innermost is the declared zone that a name is answered from; the apex of a zone
// is its own.
func (c *conflicts) innermost(owner string) (zone string) {
	for name := range c.zones {
		if len(name) > len(zone) && Within(owner, name) {
			zone = name
		}
	}
	return zone
}

func (c *conflicts) checkPool(pool Pool) {
	for i, name := range pool.Zones {
		if _, exists := c.zones[name]; !exists {
			c.add(pool, fmt.Sprintf("zones[%d]", i), name, "must be a declared zone; none of that name exists")
			continue
		}
		for j, record := range pool.Records {
			owner := Absolute(record, name)
			if inner := c.innermost(owner); inner != name {
				c.add(pool, fmt.Sprintf("records[%d]", j), record,
					"would stand at %s, which lies in the declared zone %s and is answered from there: name that zone", owner, inner)
				continue
			}
			if other, taken := c.owners[owner]; taken {
				c.add(pool, fmt.Sprintf("records[%d]", j), record, "is already published at %s by %s", owner, other)
			}
			c.owners[owner] = "pool " + pool.Name
		}
	}
	for i, m := range pool.Members {
		if strings.Trim(m.CheckAddress, "0123456789.:abcdefABCDEF") == "" {
			continue // an address
		}
		for zone := range c.zones {
			if Within(m.CheckAddress, zone) && !slices.Contains(pool.Zones, zone) {
				c.add(pool, fmt.Sprintf("members[%d].check_address", i), m.CheckAddress,
					"must not lie in %s, which upkeep publishes: checks would go in a loop", zone)
			}
		}
	}
}
