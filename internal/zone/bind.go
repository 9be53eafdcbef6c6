package zone

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"upkeep"
)

// DefaultBindServer is where the served SOA is asked when a bind publisher
// names no server.
const DefaultBindServer = "127.0.0.1:53"

// BindOptions are what all bind publishers of a process share. The zero value
// is usable.
type BindOptions struct {
	Logger *slog.Logger
	// Notice is told of things that an operator should know and that are no
	// failure of a publish: a file that somebody else has edited, a check that
	// could not be made. Once for each cause; it must not block.
	Notice func(zone, what, why string)
	Now    func() time.Time
	// Settle is how long named may take to load a zone before the publish counts
	// as failed and is rolled back; 10s when zero.
	Settle time.Duration
}

// Bind makes publishers that work through the include files of a BIND on this
// machine. It knows which of them share an include directory, so there is one
// per process.
type Bind struct {
	o BindOptions
	// commands holds a token for each command that runs: hundreds of zones may
	// change at one time.
	commands chan struct{}
	silent   silence

	mu   sync.Mutex
	dirs map[string]*bindDir
}

// commandsAtOnce bounds the commands that run side by side.
const commandsAtOnce = 4

// NewBind returns the root of this process's bind publishers.
func NewBind(o BindOptions) *Bind {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Settle == 0 {
		o.Settle = 10 * time.Second
	}
	return &Bind{o: o, dirs: map[string]*bindDir{}, commands: make(chan struct{}, commandsAtOnce), silent: silence{until: map[string]time.Time{}}}
}

// bindDir is an include directory and the zones that include its files. It owns
// the files: several zones may ask for the same content, and it is written once.
type bindDir struct {
	path string
	turn chan struct{} // holds one token, taken by whoever reads or writes the files
	// zones is guarded by Bind.mu for membership.
	zones map[string]*BindPublisher
}

// BindPublisher publishes one zone through include files.
type BindPublisher struct {
	bind   *Bind
	dir    *bindDir
	name   string // of the zone
	place  bindPlace
	rndc   rndc
	view   []string
	check  []string
	server string

	publishing chan struct{} // one publish of the zone at a time

	// Guarded by the directory's turn.
	zone   upkeep.Zone // as last published
	wanted []byte      // the address file of the last publish, nil before it

	// status is what named said at the latest preflight, nil to ask again.
	status atomic.Pointer[zoneStatus]

	// Guarded by publishing.
	errand  *errand // the latest, nil for none
	refused *refusal
	known   *known
	doubt   doubt

	notices *notices
	nudger  *nudger
}

// refusal remembers content that named would not load, so that a retry does not
// write, reload and roll back over and over.
type refusal struct {
	ips   []byte
	soa   upkeep.SOA
	file  time.Time // of the zone file: a retry after an edit is worth while
	until time.Time
	wait  time.Duration
	err   error
}

// Publisher returns the publisher of a zone, which must have defaults applied.
// Zones that share an include directory must all be known before the first of
// them is published, so that they agree on one form of the files.
func (b *Bind) Publisher(z upkeep.Zone, p upkeep.Publisher) (*BindPublisher, error) {
	place := newBindPlace(p)
	pub := &BindPublisher{
		bind: b, place: place, name: z.Name, zone: z, check: p.Checkzone, server: p.Server,
		rndc: rndc{argv: p.RNDC, slots: b.commands}, publishing: make(chan struct{}, 1), notices: newNotices(z.Name, b.o.Logger, b.o.Notice), nudger: newNudger(z.Name, b.o.Logger),
	}
	if len(pub.rndc.argv) == 0 {
		pub.rndc.argv = []string{"rndc"}
	}
	if pub.server == "" {
		pub.server = DefaultBindServer
	}
	if p.View != "" {
		pub.view = []string{"IN", p.View}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	dir, exists := b.dirs[place.includeDir]
	if !exists {
		dir = &bindDir{path: place.includeDir, turn: make(chan struct{}, 1), zones: map[string]*BindPublisher{}}
		b.dirs[place.includeDir] = dir
	}
	if _, exists := dir.zones[z.Name]; exists {
		return nil, fmt.Errorf("zone %s: two bind publishers use include_dir %s", z.Name, place.includeDir)
	}
	dir.zones[z.Name] = pub
	pub.dir = dir
	return pub, nil
}

// Close forgets the zone. Its files and what named serves stay as they are.
func (p *BindPublisher) Close() error {
	p.nudger.close()
	if release, err := take(context.Background(), p.publishing); err == nil {
		p.recall()
		release()
	}
	p.bind.mu.Lock()
	defer p.bind.mu.Unlock()
	if p.dir.zones[p.name] != p {
		return nil // closed before
	}
	delete(p.dir.zones, p.name)
	if len(p.dir.zones) == 0 {
		delete(p.bind.dirs, p.dir.path)
	}
	return nil
}

// Zones returns the names of the zones that share this one's include files,
// itself among them, in order.
func (p *BindPublisher) Zones() []string {
	var names []string
	for _, other := range p.sharing() {
		names = append(names, other.name)
	}
	return names
}

// sharing returns the publishers of the directory, in the order of their zones.
func (p *BindPublisher) sharing() []*BindPublisher {
	p.bind.mu.Lock()
	defer p.bind.mu.Unlock()
	var all []*BindPublisher
	for _, other := range p.dir.zones {
		all = append(all, other)
	}
	slices.SortFunc(all, func(a, b *BindPublisher) int { return cmp.Compare(a.name, b.name) })
	return all
}

// take waits for a one-token lock, or for the end of the context.
func take(ctx context.Context, token chan struct{}) (release func(), err error) {
	select {
	case token <- struct{}{}:
		return func() { <-token }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Publish implements [Publisher]: it writes the include files where they differ,
// reloads the zone where named has not loaded them, and waits until named
// answers the new serial. When named does not load them, the files of before are
// put back. Nothing is remembered that a kill would lose: what is to be done
// follows from the files and from what is served.
func (p *BindPublisher) Publish(ctx context.Context, c Content) (uint32, error) {
	sets := c.Sets // with the empty ones
	c, err := c.Normal()
	if err != nil {
		return 0, err
	}
	release, err := take(ctx, p.publishing)
	if err != nil {
		return 0, err
	}
	defer release()
	p.recall()
	w := write{p: p, content: c, sets: sets, ips: renderIPs(c)}
	if err := p.stillRefused(w); err != nil {
		return 0, err
	}
	serial, err := w.publish(ctx)
	if errors.Is(err, errUnexpected) {
		p.status.Store(nil)
		serial, err = w.publish(ctx)
	}
	if err != nil {
		p.status.Store(nil)
		p.known = nil
		return serial, fmt.Errorf("zone %s: %w", c.Zone.Name, err)
	}
	p.refused = nil
	return serial, nil
}

func (p *BindPublisher) stillRefused(w write) error {
	r := p.refused
	if r == nil || !r.is(p.refusal(w)) || !p.bind.o.Now().Before(r.until) {
		return nil
	}
	return r.err
}

// refuse remembers what named would not load, for longer each time.
func (p *BindPublisher) refuse(w write, err error) {
	r := p.refusal(w)
	r.err, r.wait = err, 2*time.Second
	if old := p.refused; old != nil && old.is(r) {
		r.wait = min(2*old.wait, time.Minute)
	}
	r.until = p.bind.o.Now().Add(r.wait)
	p.refused = &r
}

// refusal identifies what a publish would have named load.
func (p *BindPublisher) refusal(w write) refusal {
	r := refusal{ips: w.ips, soa: w.content.Zone.SOA}
	if info, err := os.Stat(p.place.zoneFile); err == nil {
		r.file = info.ModTime()
	}
	return r
}

func (r *refusal) is(other refusal) bool {
	return bytes.Equal(r.ips, other.ips) && r.soa == other.soa && r.file.Equal(other.file)
}

// write is one publish on its way.
type write struct {
	p       *BindPublisher
	content Content // normalised
	sets    []AddressSet
	ips     []byte
	before  served // found by preflight
	// drifted means that named answers something else under the serial of the
	// files: they are checked, written under a new one and loaded.
	drifted bool
	// assumed means that named was not asked anew what kind of zone it has.
	assumed bool
}

// served is what named has of a zone before a publish.
type served struct {
	known  bool
	serial uint32 // answered to clients
	raw    uint32 // of the files that named loaded; differs where named signs
	inline bool
	down   error // why named could not be asked at all
}

// preflight asks named for the zone's state and refuses what cannot work
// through files.
func (w *write) preflight(ctx context.Context) error {
	p := w.p
	if status := p.status.Load(); status == nil || status.inlineSigning {
		status, err := p.askStatus(ctx)
		switch {
		case err == nil:
			if err := p.usable(status); err != nil {
				return err
			}
			p.status.Store(&status)
		case errors.Is(err, errNamedDown):
			w.before.down = err
			return p.notJournaled()
		case errors.Is(err, errNotLoaded):
			return nil // nothing is served; a reload may fix that
		default:
			return err
		}
	}
	return w.askServed(ctx)
}

func (p *BindPublisher) askStatus(ctx context.Context) (zoneStatus, error) {
	out, err := p.rndc.run(ctx, slices.Concat([]string{"zonestatus", p.name}, p.view)...)
	return parseZoneStatus(out), err
}

func (p *BindPublisher) usable(s zoneStatus) error {
	switch {
	case s.dynamic:
		return dynamicZone(p.name)
	case s.kind == "secondary" || s.kind == "slave":
		return upkeep.WithHint(fmt.Errorf("named is secondary for the zone: its data come from elsewhere"),
			"run the bind publisher where the zone's primary is, or use a publisher of type update")
	}
	return nil
}

// notJournaled is what can be told of a dynamic zone while named is down.
func (p *BindPublisher) notJournaled() error {
	if p.place.zoneFile != "" && exists(p.place.zoneFile+".jnl") && !exists(p.place.zoneFile+".signed") {
		return dynamicZone(p.name)
	}
	return nil
}

func (w *write) askServed(ctx context.Context) error {
	p := w.p
	serial, err := ServedSerial(ctx, p.server, p.name)
	status := *p.status.Load() // preflight asked for it
	switch {
	case err == nil:
		w.before = served{known: true, serial: serial, raw: serial}
	case errors.Is(err, errNotServed):
		return upkeep.WithHint(err, "set server of the publisher to the address and port at which this named answers for "+p.name)
	default:
		// A server under a flood may drop our question; rndc is not in that queue.
		fresh, rndcErr := p.askStatus(ctx)
		if rndcErr != nil {
			return nil // nothing is known
		}
		status = fresh
		p.notices.add(fmt.Sprintf("%s does not answer for %s: its serial was asked of rndc, and publishing may take long", p.server, p.name), err.Error()+" ("+serverHint+")")
		w.before = served{known: true, serial: fresh.served(), raw: fresh.serial}
	}
	if status.inlineSigning {
		w.before.inline, w.before.raw = true, status.serial
	}
	return nil
}

// errUnexpected means that a serial is served that does not fit what was known
// of the zone, such as the serials of a zone that named has begun to sign.
var errUnexpected = errors.New("the served serial is later than that of the include files")

// publish brings the files and named to the content.
func (w *write) publish(ctx context.Context) (uint32, error) {
	asked := w.p.status.Load()
	if err := w.preflight(ctx); err != nil {
		return 0, err
	}
	w.assumed = asked != nil && asked == w.p.status.Load()
	target, err := w.files(ctx)
	if err != nil {
		return 0, err
	}
	if w.before.down != nil {
		return target, w.before.down
	}
	if w.before.known && w.before.raw == target {
		if w.drifted = w.p.hasDrifted(ctx, w.sets, w.before.serial); !w.drifted {
			return w.before.serial, nil
		}
		if target, err = w.files(ctx); err != nil {
			w.p.doubt.next = w.p.bind.o.Now() // until it is fixed, that is the news
			return 0, err
		}
	}
	serial, err := w.load(ctx, target)
	if err == nil {
		w.p.nudger.tell(w.p.server, w.content.Zone.Servers)
	}
	return serial, err
}

// files makes the include files hold the content and returns their serial. They
// are left alone where they hold it already under a serial that named has
// loaded or has yet to load.
func (w *write) files(ctx context.Context) (uint32, error) {
	p := w.p
	release, err := take(ctx, p.dir.turn)
	if err != nil {
		return 0, err
	}
	defer release()
	unlock, err := lockDir(p.dir.path, ctx.Done())
	if err != nil {
		return 0, err
	}
	defer unlock()
	disk, err := readPair(p.dir.path)
	if err != nil {
		return 0, err
	}
	disk.sweep()
	names, err := p.agreed(w.content.Zone, disk.soa)
	if err != nil {
		return 0, err
	}
	serial, _, _ := disk.soa.soa()
	if !w.drifted && disk.whole() && disk.sameText(w.ips, renderSOA(w.content.Zone, names, serial, w.ips)) {
		switch {
		case !w.before.known || covers(serial, w.before.raw):
			p.adopt(w)
			return serial, nil
		case w.assumed:
			return 0, errUnexpected
		}
	}
	if err := p.contested(w, disk); err != nil {
		return 0, err
	}
	serial = w.nextSerial(ctx, disk)
	soa := renderSOA(w.content.Zone, names, serial, w.ips)
	if err := w.checkAll(ctx, soa, names, disk); err != nil {
		return 0, err
	}
	if err := w.keepOld(disk); err != nil {
		return 0, err
	}
	if err := disk.replace(w.ips, soa, p.bind.o.Now()); err != nil {
		return 0, err
	}
	p.adopt(w)
	return serial, nil
}

func (p *BindPublisher) adopt(w *write) { p.zone, p.wanted = w.content.Zone, w.ips }

// agreed picks a spelling of the SOA names under which all zones that share the
// files have the same SOA, the one on disk if it will do.
func (p *BindPublisher) agreed(z upkeep.Zone, disk include) (soaNames, error) {
	_, current, _ := disk.soa()
	all := soaSpellings(z)
	text := func(z upkeep.Zone, names soaNames) string { return string(renderSOA(z, names, 0, nil)) }
	for _, other := range p.sharing() {
		if other == p {
			continue
		}
		theirs := map[string]bool{}
		for _, names := range soaSpellings(other.zone) {
			theirs[text(other.zone, names)] = true
		}
		all = slices.DeleteFunc(all, func(names soaNames) bool { return !theirs[text(z, names)] })
		if len(all) == 0 {
			return soaNames{}, upkeep.WithHint(
				fmt.Errorf("zones %s and %s share include_dir %s and so one SOA record, but declare different ttl or soa fields", z.Name, other.name, p.dir.path),
				"declare the same ttl and soa for both zones, or give each an include_dir of its own")
		}
	}
	if slices.Contains(all, current) {
		return current, nil
	}
	return all[0], nil
}

// contested refuses to write when this zone's content has not changed but the
// shared files hold another zone's: the two would write over each other for
// ever. A zone that only lags behind is asked again soon with new content.
func (p *BindPublisher) contested(w *write, disk pair) error {
	if !bytes.Equal(p.wanted, w.ips) || bytes.Equal(disk.ips.text, w.ips) {
		return nil
	}
	for _, other := range p.sharing() {
		if other != p && other.wanted != nil && bytes.Equal(other.wanted, disk.ips.text) {
			return upkeep.WithHint(
				fmt.Errorf("zone %s, which shares include_dir %s, publishes other addresses: both zones would answer the same", other.name, p.dir.path),
				"let the same pools name both zones, or give each zone an include_dir of its own")
		}
	}
	return nil
}

// keepOld keeps the generation on disk for a roll-back if named has loaded it,
// and a copy of whatever somebody else wrote.
func (w *write) keepOld(disk pair) error {
	p := w.p
	copies, err := disk.saveForeign(p.bind.o.Now())
	if err != nil {
		return err
	}
	if len(copies) > 0 {
		p.notices.add("somebody else has changed the include files", "upkeep writes over them; what was found is kept in "+strings.Join(copies, " and "))
	}
	serial, _, _ := disk.soa.soa()
	if disk.whole() && w.before.known && w.before.raw == serial {
		return disk.keep()
	}
	return nil
}

// nextSerial is later than everything that anybody is known to have of the
// zones that share the files.
func (w *write) nextSerial(ctx context.Context, disk pair) uint32 {
	var seen []uint32
	if w.before.known {
		seen = append(seen, w.before.serial, w.before.raw)
	}
	// A serial that somebody else wrote counts only where nothing else is known.
	if serial, _, found := disk.soa.soa(); found && (disk.soa.intact() || !w.before.known) {
		seen = append(seen, serial)
	}
	others, complete := w.p.othersServe(ctx, w.content.Zone)
	return risingSerial(w.p.bind.o.Now(), append(seen, others...), complete && w.before.known)
}

// checkAll tries the candidate files on the zone and on every zone that shares
// them. A zone that is bad with the files of before too is not held against the
// others.
func (w *write) checkAll(ctx context.Context, soa []byte, names soaNames, disk pair) error {
	// Zones with the same records at the same owners as before cannot have come
	// to break by other addresses, and there may be hundreds of them.
	same := disk.whole() && sameShape(disk.ips.text, w.ips)
	for _, other := range w.p.sharing() {
		if other != w.p && same {
			continue
		}
		try := other.try
		if other == w.p {
			try = w.tryUnlessKnown(names)
		}
		err := try(ctx, w.ips, soa, w.of(other))
		var bad *checkError
		switch {
		case err == nil:
		case errors.Is(err, errNoChecker), errors.Is(err, errNoZoneFile), errors.Is(err, errTooLargeToCheck):
			w.p.notices.add("zone "+other.name+" is published without being checked before", err.Error())
		case other == w.p && errors.As(err, &bad):
			return upkeep.WithHint(err, "nothing was written: named goes on serving what it has")
		case other == w.p:
			return err
		case errors.As(err, &bad) && disk.whole() && other.try(ctx, disk.ips.text, disk.soa.text, Content{}) == nil:
			return fmt.Errorf("zone %s shares include_dir %s and would break: %w", other.name, w.p.dir.path, err)
		}
	}
	return nil
}

var errNoZoneFile = errors.New("zone_file of the publisher is not given")

// of is the content as it is for a zone that shares the files.
func (w *write) of(other *BindPublisher) Content {
	c := w.content
	c.Zone.Name = other.name
	return c
}

// try assembles the zone with the given include files and has it checked. The
// content is theirs.
func (p *BindPublisher) try(ctx context.Context, ips, soa []byte, c Content) error {
	a, err := p.assemble(ips, soa)
	defer a.remove()
	if err != nil {
		return err
	}
	return p.examine(ctx, a, c)
}

// tryUnlessKnown is try for the zone itself, without the check where its outcome
// is known. The SOA has the given names.
func (w *write) tryUnlessKnown(names soaNames) func(ctx context.Context, ips, soa []byte, c Content) error {
	return func(ctx context.Context, ips, soa []byte, c Content) error {
		p := w.p
		a, err := p.assemble(ips, soa)
		defer a.remove()
		if err != nil {
			return err
		}
		now := &known{rest: a.rest(), soa: renderSOA(c.Zone, names, 0, nil), ips: ips}
		if p.known.covers(now) {
			return nil
		}
		if err := p.examine(ctx, a, c); err != nil {
			return err
		}
		if len(p.check) == 0 { // the operator's own command may look at anything
			p.known = now
		}
		return nil
	}
}

// assemble puts the zone together from its file, where that is known.
func (p *BindPublisher) assemble(ips, soa []byte) (*assembly, error) {
	place := p.place
	if status := p.status.Load(); place.zoneFile == "" && status != nil && len(status.files) > 0 && filepath.IsAbs(status.files[0]) {
		place.zoneFile = place.outside(status.files[0])
	}
	if place.zoneFile == "" {
		return nil, errNoZoneFile
	}
	a, err := assemble(place, ips, soa)
	if err != nil {
		return a, err
	}
	return a, a.includesBoth()
}

// examine runs the check, and tells of addresses that the zone has beside the
// content.
func (p *BindPublisher) examine(ctx context.Context, a *assembly, c Content) error {
	release, err := take(ctx, p.bind.commands)
	if err != nil {
		return err
	}
	defer release()
	if err := a.check(ctx, p.check, p.name); err != nil {
		return err
	}
	extra, err := a.extra(c)
	if len(extra) > 0 {
		p.notices.add("the zone file has addresses of its own where a pool publishes",
			"clients are sent to them too: delete from "+a.place.zoneFile+" "+strings.Join(extra[:min(len(extra), 5)], ", "))
	}
	return err
}
