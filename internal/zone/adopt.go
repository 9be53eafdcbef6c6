package zone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/diff"

	"upkeep"
)

// AdoptOptions say which zone file is to be brought into the include form.
type AdoptOptions struct {
	// Zone is the zone as declared, or as it will be: its name is required. SOA
	// fields and the TTL that it leaves out are taken from the zone file.
	Zone upkeep.Zone
	// Publisher is the bind publisher with the zone file and the include
	// directory; RNDC is asked whether the zone is dynamic where it is given.
	Publisher upkeep.Publisher
	// Live says that upkeep serves the zone as Zone declares it: from the moment
	// that the files are in place, what Zone leaves out has its default.
	Live bool
	// Pool says which addresses move into ips.include.
	Pool upkeep.Pool
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Plan is what adopting a zone file would do. Nothing has been changed.
type Plan struct {
	File string // the zone file
	Diff string // unified
	New  []byte // the whole new text
	// Notes are remarks for the operator, one sentence each.
	Notes []string
	// Declared is the zone document under which the zone goes on as it was: the
	// SOA fields and the TTL of the zone file are in it.
	Declared upkeep.Zone

	place    bindPlace
	old      include // the zone file as planned for
	ips, soa []byte  // first include files; nil where there are good ones
	now      func() time.Time
}

// maxAdopt bounds the zone files that are adopted, in bytes.
const maxAdopt = 16 << 20

// Adopt plans to bring a zone file into the include form: the SOA record and
// the pool's addresses give way to two $INCLUDE lines, and everything else stays
// as it is, comments and blanks included. It refuses what it cannot show to be
// safe: the records before and after, as named-checkzone reads them, must differ
// in nothing but the SOA and the pool's addresses.
func Adopt(ctx context.Context, o AdoptOptions) (*Plan, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &adoption{o: o, place: newBindPlace(o.Publisher), zone: o.Zone.Name, owners: poolOwners(o.Pool, o.Zone.Name)}
	plan, err := a.plan(ctx)
	if err != nil {
		return nil, fmt.Errorf("adopting %s for zone %s: %w", a.place.zoneFile, a.zone, err)
	}
	return plan, nil
}

// adoption is one plan in the making.
type adoption struct {
	o      AdoptOptions
	place  bindPlace
	zone   string
	owners map[string]bool

	file   include
	before zoneRecords
	notes  []string
}

func (a *adoption) note(format string, args ...any) {
	a.notes = append(a.notes, fmt.Sprintf(format, args...))
}

func (a *adoption) plan(ctx context.Context) (*Plan, error) {
	if err := a.read(); err != nil {
		return nil, err
	}
	if err := a.refuseDynamic(ctx); err != nil {
		return nil, err
	}
	if err := a.meaning(ctx); err != nil {
		return nil, err
	}
	soa, err := a.before.start(a.zone)
	if err != nil {
		return nil, err
	}
	declared, err := a.declare(soa)
	if err != nil {
		return nil, err
	}
	ttl := soa.Minttl
	if soa.Hdr.Ttl != soa.Minttl {
		ttl = soa.Hdr.Ttl
	}
	done, err := a.edit(fmt.Sprint(ttl)).apply(a.file.text)
	if err != nil {
		return nil, err
	}
	if err := a.members(done.moved); err != nil {
		return nil, err
	}
	plan := &Plan{
		File: a.file.path, New: done.text, Declared: declared, place: a.place, old: a.file, now: a.o.Now,
		Diff: unified(a.file.path, a.file.text, done.text),
	}
	disk, err := a.includes(ctx, plan, soa, done.moved)
	if err != nil {
		return nil, err
	}
	if err := a.verify(ctx, done.text, disk); err != nil {
		return nil, err
	}
	plan.Notes = append(a.notes, done.notes...)
	return plan, nil
}

// unified is a unified diff of a file before and after.
func unified(path string, before, after []byte) string {
	_, text, _ := strings.Cut(string(diff.Diff(path, before, path, after)), "\n") // "diff A B"
	return text
}

func (a *adoption) edit(ttl string) includeEdit {
	return includeEdit{
		zone: a.zone, owners: a.owners, ttl: ttl,
		soaPath: a.place.inside(filepath.Join(a.place.includeDir, SOAInclude)),
		ipsPath: a.place.inside(filepath.Join(a.place.includeDir, IPsInclude)),
	}
}

func (a *adoption) read() error {
	if a.place.zoneFile == "" || a.place.includeDir == "" || !filepath.IsAbs(a.place.includeDir) {
		return errors.New("zone_file and an absolute include_dir are needed")
	}
	info, err := os.Stat(a.place.zoneFile)
	if err != nil {
		return err
	}
	if info.Size() > maxAdopt {
		return fmt.Errorf("the file is larger than %d bytes", maxAdopt)
	}
	if a.file, err = readFile(a.place.zoneFile, maxAdopt); err != nil {
		return err
	}
	if bytes.IndexByte(a.file.text, 0) >= 0 {
		return upkeep.WithHint(errors.New("the file is not text: it is in named's raw or map format"),
			"convert it with named-compilezone -f raw -F text, and set masterfile-format text in named.conf")
	}
	return nil
}

// refuseDynamic asks named whether it writes the file itself, and goes by the
// journal beside it where named cannot be asked.
func (a *adoption) refuseDynamic(ctx context.Context) error {
	if len(a.o.Publisher.RNDC) > 0 {
		args := []string{"zonestatus", a.zone}
		if a.o.Publisher.View != "" {
			args = append(args, "IN", a.o.Publisher.View)
		}
		out, err := rndc{argv: a.o.Publisher.RNDC}.run(ctx, args...)
		switch status := parseZoneStatus(out); {
		case err == nil && status.dynamic:
			return dynamicZone(a.zone)
		case err == nil:
			return nil
		default:
			a.note("named could not be asked whether the zone is dynamic: %v", err)
		}
	}
	if journal := a.place.zoneFile + ".jnl"; exists(journal) {
		return upkeep.WithHint(fmt.Errorf("there is a journal, %s: named writes this file itself", journal),
			"if the zone is not dynamic any more, run rndc sync -clean "+a.zone+" and try again; if it is, use a publisher of type update")
	}
	return nil
}

// meaning reads what the records are at present.
func (a *adoption) meaning(ctx context.Context) error {
	assembled, err := assembleText(a.place, a.file.text, nil, nil)
	defer assembled.remove()
	if err != nil {
		return err
	}
	if len(assembled.seen) > 0 {
		return a.adopted(ctx, slices.Sorted(maps.Keys(assembled.seen)))
	}
	a.before, err = assembled.records(ctx, a.o.Publisher.Checkzone, a.zone)
	if err != nil {
		return upkeep.WithHint(err, "fix the zone file first: it is not valid as it is")
	}
	return a.refuseRecords()
}

// adopted refuses a file that is in the include form already. What the zone's
// document has to say so that the zone goes on as it is, is said once more.
func (a *adoption) adopted(ctx context.Context, includes []string) error {
	hint := "declare the zone and the pool, and upkeep takes the include files over"
	if soa, err := a.present(ctx); err == nil {
		if differ, lines := defaultsDiffer(a.o.Zone, fromSOA(a.o.Zone, soa)); len(differ) > 0 {
			hint += "; so that the SOA record stays as it is, write " + strings.Join(lines, " and ") + " into the zone's document"
		}
	}
	return upkeep.WithHint(fmt.Errorf("%w: it includes %s already", upkeep.ErrConflict, strings.Join(includes, " and ")), hint)
}

// present is the SOA record of the zone with the include files as they are.
func (a *adoption) present(ctx context.Context) (*dns.SOA, error) {
	disk, err := readPair(a.place.includeDir)
	if err != nil {
		return nil, err
	}
	assembled, err := assembleText(a.place, a.file.text, disk.ips.text, disk.soa.text)
	defer assembled.remove()
	if err != nil {
		return nil, err
	}
	records, err := assembled.records(ctx, a.o.Publisher.Checkzone, a.zone)
	if err != nil {
		return nil, err
	}
	return records.start(a.zone)
}

// refuseRecords refuses zones whose records cannot be exchanged by a text edit.
func (a *adoption) refuseRecords() error {
	for _, rr := range a.before.list {
		h := rr.Header()
		owner := plain(h.Name)
		switch {
		case h.Rrtype == dns.TypeRRSIG || h.Rrtype == dns.TypeNSEC || h.Rrtype == dns.TypeNSEC3:
			return upkeep.WithHint(errors.New("the zone file is signed: nobody without the keys can exchange its addresses"),
				"let named sign the zone (dnssec-policy with inline-signing yes) and adopt the unsigned file")
		case a.owners[owner] && h.Rrtype == dns.TypeCNAME:
			return upkeep.WithHint(fmt.Errorf("%s is an alias (CNAME), and pool %s publishes addresses there", owner, a.o.Pool.Name),
				"delete the alias from the zone file, or take the name out of the pool's records: it then goes on following its target")
		case a.owners[owner] && h.Rrtype == dns.TypeNS && owner != a.zone:
			return fmt.Errorf("%s is delegated to other name servers (NS)", owner)
		}
	}
	return nil
}

// members demands that every address taken out is one of the pool's: one that
// is not would vanish from DNS.
func (a *adoption) members(moved map[rrset][]netip.Addr) error {
	known := map[netip.Addr]bool{}
	for _, m := range a.o.Pool.Members {
		known[m.Address] = true
	}
	var strangers []string
	found := map[string]bool{}
	for set, addrs := range moved {
		found[set.owner] = true
		for _, addr := range addrs {
			if !known[addr] {
				strangers = append(strangers, set.String()+" "+addr.String())
			}
		}
	}
	slices.Sort(strangers)
	if len(strangers) > 0 {
		return upkeep.WithHint(fmt.Errorf("not members of pool %s: %s", a.o.Pool.Name, strings.Join(strangers, ", ")),
			"add them to the pool, or delete their records from the zone file if they are of no more use")
	}
	a.noteTTLs()
	for _, owner := range slices.Sorted(maps.Keys(a.owners)) {
		if !found[owner] {
			a.note("%s has no address in the zone file; it gets some when the pool is first published", owner)
		}
	}
	return nil
}

// declare fills what the zone document leaves out with what the zone file says.
func (a *adoption) declare(soa *dns.SOA) (upkeep.Zone, error) {
	z := a.o.Zone
	p := a.o.Publisher
	p.Type = upkeep.PublishBind
	if !slices.ContainsFunc(z.Publishers, func(p upkeep.Publisher) bool { return p.Type == upkeep.PublishBind }) {
		z.Publishers = append(slices.Clone(z.Publishers), p)
	}
	take := func(field string, d *upkeep.Duration, seconds uint32) {
		found := upkeep.Duration(time.Duration(seconds) * time.Second)
		if *d == 0 && found == 0 {
			a.note("soa.%s is 0 in the zone file; upkeep writes its default", field)
		} else if *d == 0 {
			*d = found
		} else if *d != found {
			a.note("soa.%s is %s in the zone file and %s as declared", field, found, *d)
		}
	}
	take("refresh", &z.SOA.Refresh, soa.Refresh)
	take("retry", &z.SOA.Retry, soa.Retry)
	take("expire", &z.SOA.Expire, soa.Expire)
	take("minimum", &z.SOA.Minimum, soa.Minttl)
	if z.TTL == 0 {
		z.TTL = upkeep.Duration(time.Duration(soa.Hdr.Ttl) * time.Second)
	}
	for _, name := range []struct {
		field string
		to    *string
		found string
	}{{"mname", &z.SOA.MName, plain(soa.Ns)}, {"rname", &z.SOA.RName, plain(soa.Mbox)}} {
		switch {
		case *name.to != "" && *name.to != name.found:
			a.note("soa.%s is %s in the zone file and %s as declared", name.field, name.found, *name.to)
		case *name.to == "" && !upkeep.ValidName(name.found):
			return z, upkeep.WithHint(fmt.Errorf("the SOA record has %s %q, which upkeep cannot write", name.field, name.found),
				"declare another soa."+name.field+" for the zone")
		case *name.to == "":
			*name.to = name.found
		}
	}
	if broken := z.Validate(); len(broken) > 0 {
		return z, &upkeep.InvalidError{Fields: broken}
	}
	if a.o.Live {
		return z, a.refuseDefaults(z)
	}
	return z, nil
}

// refuseDefaults refuses a zone that is served already under a declaration whose
// defaults are not what the zone file says: they would be in force at once.
func (a *adoption) refuseDefaults(filled upkeep.Zone) error {
	differ, lines := defaultsDiffer(a.o.Zone, filled)
	if len(differ) == 0 {
		return nil
	}
	return upkeep.WithHint(fmt.Errorf("%w: the zone is declared already, without what its file says: %s", upkeep.ErrConflict, strings.Join(differ, ", ")),
		"apply its document with "+strings.Join(lines, " and ")+" first, or with other values if they are to change")
}

// noteTTLs tells of addresses whose TTL is another in the pool.
func (a *adoption) noteTTLs() {
	pool := time.Duration(a.o.Pool.WithDefaults().TTL)
	told := map[string]bool{}
	for _, rr := range a.before.list {
		h := rr.Header()
		found, owner := time.Duration(h.Ttl)*time.Second, plain(h.Name)
		if h.Rrtype != dns.TypeA && h.Rrtype != dns.TypeAAAA || !a.owners[owner] || found == pool || told[owner] {
			continue
		}
		told[owner] = true
		a.note("addresses of %s have a TTL of %s in the zone file and of %s in pool %s", owner, upkeep.Duration(found), upkeep.Duration(pool), a.o.Pool.Name)
	}
}

// includes decides what the include files hold when named first loads them:
// what they hold already if they are upkeep's, and otherwise the very addresses
// that were in the zone file, under a later serial.
func (a *adoption) includes(ctx context.Context, plan *Plan, soa *dns.SOA, moved map[rrset][]netip.Addr) (pair, error) {
	disk, err := readPair(a.place.includeDir)
	if err != nil {
		return disk, err
	}
	zone := plan.Declared.WithDefaults()
	if disk.whole() {
		if serial, _, _ := disk.soa.soa(); !SerialLess(soa.Serial, serial) {
			return disk, upkeep.WithHint(fmt.Errorf("the include files are in use under serial %d, and the zone has %d already, which is later: secondaries would not take the older one", serial, soa.Serial),
				"give the zone an include_dir of its own")
		}
		a.note("the include files in %s are in use already and stay as they are", a.place.includeDir)
		return disk, nil
	}
	content := Content{Zone: zone}
	for _, set := range slices.SortedFunc(maps.Keys(moved), func(x, y rrset) int { return strings.Compare(x.String(), y.String()) }) {
		owner := strings.TrimSuffix(strings.TrimSuffix(set.owner, a.zone), ".")
		if owner == "" {
			owner = "@"
		}
		content.Sets = append(content.Sets, AddressSet{Owner: owner, TTL: time.Duration(a.o.Pool.WithDefaults().TTL), Addresses: moved[set]})
	}
	if content, err = content.Normal(); err != nil {
		return disk, err
	}
	seen := []uint32{soa.Serial}
	for _, server := range append(slices.Clone(zone.Servers), orServer(a.o.Publisher.Server)) {
		timed, cancel := context.WithTimeout(ctx, time.Second)
		if serial, err := ServedSerial(timed, server, a.zone); err == nil {
			seen = append(seen, serial)
		}
		cancel()
	}
	plan.ips = renderIPs(content)
	plan.soa = renderSOA(zone, soaSpellings(zone)[0], risingSerial(a.o.Now(), seen, true), plan.ips)
	disk.ips.text, disk.soa.text = plan.ips, plan.soa
	return disk, nil
}

func orServer(server string) string {
	if server == "" {
		return DefaultBindServer
	}
	return server
}

// verify compares what the zone means after the edit with what it meant before.
func (a *adoption) verify(ctx context.Context, text []byte, disk pair) error {
	assembled, err := assembleText(a.place, text, disk.ips.text, disk.soa.text)
	defer assembled.remove()
	if err != nil {
		return err
	}
	after, err := assembled.records(ctx, a.o.Publisher.Checkzone, a.zone)
	if err != nil {
		return fmt.Errorf("the edited zone file would not load: %w", err)
	}
	exchanged := func(h *dns.RR_Header) bool {
		return h.Rrtype == dns.TypeSOA || (h.Rrtype == dns.TypeA || h.Rrtype == dns.TypeAAAA) && a.owners[plain(h.Name)]
	}
	lost, gained := a.before.difference(after, exchanged)
	if len(lost)+len(gained) > 0 {
		return upkeep.WithHint(fmt.Errorf("the edit would change other records: %s", strings.Join(slices.Concat(lost, gained), "; ")),
			"a $TTL line at the top of the zone file and a TTL or owner written out on these lines make the edit possible")
	}
	// At the pool's owners there must be what ips.include says and nothing else.
	included := map[string]bool{}
	for line := range bytes.Lines(disk.ips.text) {
		if f := strings.Fields(string(line)); len(f) == 5 && f[0][0] != ';' {
			included[upkeep.Absolute(f[0], a.zone)+" "+f[4]] = true
		}
	}
	for _, rr := range after.list {
		h := rr.Header()
		if h.Rrtype == dns.TypeSOA || !exchanged(h) {
			continue
		}
		if data := dns.Field(rr, 1); !included[plain(h.Name)+" "+data] {
			return upkeep.WithHint(fmt.Errorf("%s %s comes from elsewhere than a line of this file, such as $GENERATE or another include file", plain(h.Name), data),
				"write the pool's addresses as plain lines in the zone file, or delete them there")
		}
	}
	return nil
}
