package zone

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"upkeep"
)

// Memory keeps small values across restarts, by key.
type Memory interface {
	// Load returns nil for a key that was never saved.
	Load(ctx context.Context, key string) ([]byte, error)
	Save(ctx context.Context, key string, value []byte) error
}

// UpdateOptions are what an update publisher needs beside its declaration. The
// zero value is usable; without Memory every start is a first one.
type UpdateOptions struct {
	Logger *slog.Logger
	// Notice is told of things that an operator should know and that are no
	// failure of a publish. It must not block.
	Notice func(zone, what, why string)
	Memory Memory
}

// UpdatePublisher publishes one zone by dynamic updates (RFC 2136) signed with
// TSIG. It changes only record sets that differ, all of them in one message,
// and only while they hold what it put there: a record set that somebody else
// changed is reported and left alone, unless it holds nothing but members of
// the pool. The server keeps the serial.
type UpdatePublisher struct {
	target  target
	keyFile string
	servers []string // of the zone, as last published; guarded by turn
	o       UpdateOptions
	turn    chan struct{} // one publish at a time
	mind    *updateMemory // nil until loaded
	saved   []byte        // mind as last saved
	notices *notices
	nudger  *nudger
}

// NewUpdate returns the publisher of a zone. Its key file is read anew at each
// publish, so a key can be replaced while upkeep runs.
func NewUpdate(z upkeep.Zone, p upkeep.Publisher, o UpdateOptions) (*UpdatePublisher, error) {
	if _, err := ReadKeyFile(p.Key); err != nil {
		return nil, fmt.Errorf("zone %s: %w", z.Name, err)
	}
	if o.Memory == nil {
		o.Memory = &processMemory{}
	}
	return &UpdatePublisher{
		target: target{server: p.Server, zone: z.Name}, keyFile: p.Key, servers: z.Servers, o: o,
		turn: make(chan struct{}, 1), notices: newNotices(z.Name, o.Logger, o.Notice), nudger: newNudger(z.Name, o.Logger),
	}, nil
}

// Close implements [Publisher].
func (u *UpdatePublisher) Close() error {
	u.nudger.close()
	return nil
}

// updateTries bounds how often a publish starts again because the zone changed
// between looking and updating.
const updateTries = 4

// Publish implements [Publisher]. Record sets that somebody else holds are left
// out and reported, and the others are published all the same.
func (u *UpdatePublisher) Publish(ctx context.Context, c Content) (uint32, error) {
	serial, err := u.publish(ctx, c)
	if err != nil {
		err = fmt.Errorf("zone %s: %w", u.target.zone, err)
	}
	return serial, err
}

func (u *UpdatePublisher) publish(ctx context.Context, c Content) (uint32, error) {
	if _, err := c.Normal(); err != nil {
		return 0, err
	}
	release, err := take(ctx, u.turn)
	if err != nil {
		return 0, err
	}
	defer release()
	if u.target.key, err = ReadKeyFile(u.keyFile); err != nil {
		return 0, err
	}
	if err := u.remember(ctx); err != nil {
		return 0, err
	}
	u.servers = c.Zone.Servers
	wants := u.wants(c)
	for range updateTries {
		edits, conflicts, err := u.look(ctx, wants)
		if err != nil {
			return 0, err
		}
		if len(edits) == 0 {
			u.settle(ctx, wants, conflicts)
			return u.finish(ctx, conflicts)
		}
		u.intend(ctx, edits)
		rcode, err := u.target.send(ctx, updateMessage(u.target.zone, edits))
		switch {
		case err != nil:
			return 0, err
		case rcode == dns.RcodeSuccess:
			u.settle(ctx, wants, conflicts)
			u.nudger.tell(u.target.server, c.Zone.Servers)
			return u.finish(ctx, conflicts)
		case !prerequisiteFailed(rcode):
			return 0, u.target.refusal(rcode)
		}
	}
	return 0, upkeep.WithHint(fmt.Errorf("the records changed each time between looking at them and updating them, %d times in a row", updateTries),
		"something else is writing the same records all the time: find and stop it")
}

// finish returns the serial that is served after the update.
func (u *UpdatePublisher) finish(ctx context.Context, conflicts map[rrset]error) (uint32, error) {
	serial, err := u.query(u.target.zone, dns.TypeSOA).serial(ctx)
	if len(conflicts) == 0 {
		return serial, err
	}
	return serial, errors.Join(foreign(conflicts), err)
}

func (u *UpdatePublisher) query(name string, qtype uint16) query {
	// Questions are signed too: in a server with views the key may decide which
	// one is asked, and updates go to that same one.
	return query{server: u.target.server, name: name, qtype: qtype, key: u.target.key}
}

// SetSerial implements [Renumberer]. The key must be allowed to change the SOA
// record.
func (u *UpdatePublisher) SetSerial(ctx context.Context, serial uint32) error {
	release, err := take(ctx, u.turn)
	if err != nil {
		return err
	}
	defer release()
	if u.target.key, err = ReadKeyFile(u.keyFile); err != nil {
		return err
	}
	for range updateTries {
		answer, err := u.query(u.target.zone, dns.TypeSOA).ask(ctx)
		if err != nil {
			return err
		}
		soa, err := soaOf(answer, u.target.zone)
		if err != nil {
			return fmt.Errorf("asking %s for %s SOA: %w", u.target.server, u.target.zone, err)
		}
		if !SerialLess(soa.Serial, serial) {
			return fmt.Errorf("zone %s: serial %d does not come after %d, which is served", u.target.zone, serial, soa.Serial)
		}
		rcode, err := u.target.send(ctx, serialMessage(soa, serial))
		switch {
		case err != nil:
			return err
		case rcode == dns.RcodeRefused:
			return upkeep.WithHint(u.target.refusal(rcode), fmt.Sprintf("for the renumbering the key must be allowed to change the SOA too: grant %s zonesub A AAAA SOA;",
				strings.TrimSuffix(u.target.key.Name, ".")))
		case rcode == dns.RcodeSuccess:
			return u.reached(ctx, serial)
		case !prerequisiteFailed(rcode):
			return u.target.refusal(rcode)
		}
	}
	return fmt.Errorf("zone %s: the serial changed each time between looking at it and setting it", u.target.zone)
}

// reached demands that the serial is served: servers ignore an SOA whose serial
// is not later, without a word (RFC 2136 section 3.4.2.2).
func (u *UpdatePublisher) reached(ctx context.Context, serial uint32) error {
	served, err := u.query(u.target.zone, dns.TypeSOA).serial(ctx)
	if err == nil && !covers(served, serial) {
		err = fmt.Errorf("zone %s: %s ignored the serial %d and answers %d", u.target.zone, u.target.server, serial, served)
	}
	return err
}

// ServedAt lists where the zone is answered: at its primary first, then at
// every listed server.
func (u *UpdatePublisher) ServedAt() []ServedAt {
	at := []ServedAt{{u.target.server, u.target.zone}}
	u.turn <- struct{}{} // held for one publish at most
	defer func() { <-u.turn }()
	for _, server := range u.servers {
		if server != u.target.server {
			at = append(at, ServedAt{server, u.target.zone})
		}
	}
	return at
}

// wish is what an rrset shall be and what it may be taken over from.
type wish struct {
	set     rrset
	want    records
	members []netip.Addr
	// gone means that the content has no such owner any more.
	gone bool
}

// wants lists every rrset of the content, and every other one that upkeep once
// published here and that must go.
func (u *UpdatePublisher) wants(c Content) []wish {
	at := map[rrset]*wish{}
	get := func(set rrset) *wish {
		if at[set] == nil {
			at[set] = &wish{set: set, gone: true}
		}
		return at[set]
	}
	for _, s := range c.Sets {
		v4, v6 := s.split()
		for family, addrs := range [...][]netip.Addr{v4, v6} {
			w := get(rrset{upkeep.Absolute(s.Owner, u.target.zone), addressTypes[family]})
			w.gone = false
			if w.want.ttl == 0 || s.TTL < w.want.ttl {
				w.want.ttl = s.TTL // as in Content.Normal
			}
			w.want.addrs = canonical(append(w.want.addrs, addrs...))
			w.members = append(append(w.members, s.Members...), s.Addresses...)
		}
	}
	for _, set := range u.mind.sets() {
		get(set)
	}
	var all []wish
	for _, w := range at {
		all = append(all, *w)
	}
	slices.SortFunc(all, func(a, b wish) int {
		return cmp.Or(cmp.Compare(a.set.owner, b.set.owner), cmp.Compare(a.set.qtype, b.set.qtype))
	})
	return all
}

// look asks what the server has and returns the edits that lead from there to
// what is wanted, and the sets that are not upkeep's to change.
func (u *UpdatePublisher) look(ctx context.Context, wants []wish) (edits []edit, conflicts map[rrset]error, err error) {
	found := make([]records, len(wants))
	failed := make([]error, len(wants))
	slots := make(chan struct{}, proveInFlight)
	var asked sync.WaitGroup
	for i, w := range wants {
		slots <- struct{}{}
		asked.Go(func() {
			defer func() { <-slots }()
			found[i], failed[i] = u.found(ctx, w)
		})
	}
	asked.Wait()
	conflicts = map[rrset]error{}
	for i, w := range wants {
		err := failed[i]
		var alias *aliasError
		if err != nil && !errors.As(err, &alias) {
			return nil, nil, err
		}
		if err == nil {
			err = u.mayEdit(w, found[i])
		}
		same := slices.Equal(found[i].addrs, w.want.addrs) && (len(w.want.addrs) == 0 || found[i].ttl == w.want.ttl)
		switch {
		case err != nil && w.gone:
			u.notices.add(fmt.Sprintf("%s was upkeep's once and is left as it is now", w.set), err.Error())
		case err != nil:
			conflicts[w.set] = err
		case !same:
			edits = append(edits, edit{w.set, found[i], w.want})
		}
	}
	return edits, conflicts, nil
}

// aliasError says that there is a CNAME where addresses should be.
type aliasError struct{ error }

// found returns the rrset as it is in the zone, without what a wildcard puts in
// its place.
func (u *UpdatePublisher) found(ctx context.Context, w wish) (records, error) {
	answer, err := u.query(w.set.owner, w.set.qtype).ask(ctx)
	if err != nil {
		return records{}, err
	}
	if err := authoritative(answer); err != nil {
		return records{}, fmt.Errorf("asking %s for %s: %w", u.target.server, w.set, err)
	}
	addrs, ttl, err := addresses(answer, w.set.owner, w.set.qtype)
	if err != nil {
		return records{}, &aliasError{fmt.Errorf("%s %w: an alias cannot have addresses beside it", w.set, err)}
	}
	last, known := u.mind.last(w.set)
	if len(addrs) == 0 || known && slices.Equal(addrs, last) ||
		w.set.owner == u.target.zone || w.set.owner == "*."+u.target.zone { // no wildcard covers these two
		return records{ttl, addrs}, nil
	}
	exists, err := u.exists(ctx, w.set)
	if err != nil || !exists {
		return records{}, err
	}
	return records{ttl, addrs}, nil
}

func (u *UpdatePublisher) exists(ctx context.Context, set rrset) (bool, error) {
	rcode, err := u.target.send(ctx, existsMessage(u.target.zone, set))
	switch {
	case err != nil:
		return false, err
	case rcode == dns.RcodeSuccess:
		return true, nil
	case prerequisiteFailed(rcode):
		return false, nil
	}
	return false, u.target.refusal(rcode)
}

// mayEdit decides whether the rrset is upkeep's to change. It is when it holds
// what upkeep put there or set out to put there, when it is empty, and when
// nothing but members of the pool is in it.
func (u *UpdatePublisher) mayEdit(w wish, found records) error {
	last, known := u.mind.last(w.set)
	switch {
	case slices.Equal(found.addrs, w.want.addrs), known && slices.Equal(found.addrs, last), u.mind.intended(w.set, found.addrs):
		return nil
	}
	foreign := without(found.addrs, append(slices.Clone(w.members), last...))
	if len(foreign) > 0 {
		was := "upkeep never wrote it"
		if known {
			was = "upkeep wrote " + orNothing(last)
		}
		return fmt.Errorf("%s has %s, and %s", w.set, listed(found.addrs), was)
	}
	if known {
		u.notices.add(fmt.Sprintf("somebody else has changed %s", w.set),
			fmt.Sprintf("found %s where upkeep wrote %s; taken back, since only members of the pool are in it", orNothing(found.addrs), orNothing(last)))
	} else if len(found.addrs) > 0 {
		u.notices.add(fmt.Sprintf("%s is upkeep's from now on", w.set), "it held members of the pool only: "+listed(found.addrs))
	}
	return nil
}

func orNothing(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "nothing"
	}
	return listed(addrs)
}

// foreign joins the conflicts into one error with the way out.
func foreign(conflicts map[rrset]error) error {
	var texts []string
	for _, err := range conflicts {
		texts = append(texts, err.Error())
	}
	slices.Sort(texts)
	return upkeep.WithHint(fmt.Errorf("%w: somebody else writes these records, and they were left alone: %s", upkeep.ErrConflict, strings.Join(texts, "; ")),
		"delete what does not belong there (nsupdate), or make it a member of the pool: upkeep then takes the records over by itself")
}

// updateMemory is what must survive a restart: what the publisher last put into
// each rrset, and what it was about to put there when it last sent an update. A
// kill between the update and its record leaves the second.
type updateMemory struct {
	Last map[string][]netip.Addr `json:"last,omitempty"`
	Next map[string][]netip.Addr `json:"next,omitempty"`
}

func (m *updateMemory) last(set rrset) (addrs []netip.Addr, known bool) {
	addrs, known = m.Last[set.String()]
	return addrs, known
}

func (m *updateMemory) intended(set rrset, addrs []netip.Addr) bool {
	next, known := m.Next[set.String()]
	return known && slices.Equal(next, addrs)
}

// sets lists the rrsets that may hold something of upkeep's.
func (m *updateMemory) sets() []rrset {
	var all []rrset
	for _, names := range []map[string][]netip.Addr{m.Last, m.Next} {
		for name := range names {
			owner, kind, _ := strings.Cut(name, " ")
			if qtype := dns.StringToType[kind]; qtype == dns.TypeA || qtype == dns.TypeAAAA {
				all = append(all, rrset{owner, qtype})
			}
		}
	}
	return all
}

func (u *UpdatePublisher) memoryKey() string {
	return "update/" + u.target.zone + "/" + u.target.server
}

func (u *UpdatePublisher) remember(ctx context.Context) error {
	if u.mind != nil {
		return nil
	}
	text, err := u.o.Memory.Load(ctx, u.memoryKey())
	if err != nil {
		return fmt.Errorf("loading what was last published: %w", err)
	}
	mind := updateMemory{}
	if text != nil {
		if err := json.Unmarshal(text, &mind); err != nil {
			// Worse than nothing remembered is nothing published.
			u.notices.add("what was last published is not known any more", err.Error())
		}
	}
	u.mind, u.saved = &mind, text
	return nil
}

// intend records what an update is about to make of its rrsets.
func (u *UpdatePublisher) intend(ctx context.Context, edits []edit) {
	u.mind.Next = map[string][]netip.Addr{}
	for _, e := range edits {
		u.mind.Next[e.set.String()] = e.new.addrs
	}
	u.save(ctx)
}

// settle records that the zone is as wanted, save for sets in conflict.
func (u *UpdatePublisher) settle(ctx context.Context, wants []wish, conflicts map[rrset]error) {
	last := map[string][]netip.Addr{}
	for _, w := range wants {
		was, known := u.mind.last(w.set)
		switch {
		case w.gone: // removed, or somebody else's now
		case conflicts[w.set] == nil:
			last[w.set.String()] = w.want.addrs
		case known:
			last[w.set.String()] = was
		}
	}
	u.mind.Last, u.mind.Next = last, nil
	u.save(ctx)
}

// save keeps the memory where it has changed. A store that fails must not hold
// up a removal: without the memory the worst that comes is a record set that
// upkeep hesitates to take back after the next start.
func (u *UpdatePublisher) save(ctx context.Context) {
	text, err := json.Marshal(u.mind)
	if err == nil && bytes.Equal(text, u.saved) {
		return
	}
	if err == nil {
		err = u.o.Memory.Save(ctx, u.memoryKey(), text)
	}
	if err != nil {
		u.notices.add("what was published could not be recorded", err.Error())
		return
	}
	u.saved = text
}

// processMemory is a Memory that ends with the process.
type processMemory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (m *processMemory) Load(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[key], nil
}

func (m *processMemory) Save(_ context.Context, key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	m.values[key] = value
	return nil
}
