package zone

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/lazy"
)

// includeEdit says how a zone file is brought into the include form.
type includeEdit struct {
	zone string
	// owners are the absolute names whose addresses move into ips.include.
	owners map[string]bool
	// soaPath and ipsPath are what is included, as named sees it.
	soaPath, ipsPath string
	// ttl stands after the include of the SOA, which brings a $TTL of its own,
	// where the file has none of its own before it.
	ttl string
}

// edited is a zone file in the include form.
type edited struct {
	text []byte
	// moved is what was taken out of the file.
	moved map[rrset][]netip.Addr
	notes []string
}

// editor carries an edit through a zone file, entry by entry.
type editor struct {
	includeEdit
	m    masterText
	out  bytes.Buffer
	eol  string
	done edited

	origin string // absolute, with the final dot
	// owner is whose record an entry without a name of its own is in the old
	// text, with how that name was written under which origin; newOwner is the
	// same in the new text, "" where none is in effect.
	owner, ownerRaw, ownerOrigin string
	newOwner                     string
	soaSeen, recordSeen          bool
	ttlLine                      []byte // the $TTL before the SOA, moved behind the include
}

// apply edits the text. It does not try to understand everything: whoever calls
// it compares what the records mean before and after.
func (e includeEdit) apply(text []byte) (edited, error) {
	m, err := cutMaster(text)
	if err != nil {
		return edited{}, err
	}
	ed := &editor{includeEdit: e, m: m, eol: "\n", origin: dns.Fqdn(e.zone)}
	ed.done.moved = map[rrset][]netip.Addr{}
	if first := bytes.IndexByte(text, '\n'); first > 0 && text[first-1] == '\r' {
		ed.eol = "\r\n"
	}
	for _, entry := range m.entries {
		if err := ed.entry(entry); err != nil {
			return edited{}, fmt.Errorf("line %d: %w", entry.line, err)
		}
	}
	if !ed.soaSeen {
		return edited{}, errors.New("there is no SOA record in this file")
	}
	ed.done.text = ed.out.Bytes()
	return ed.done, nil
}

func (ed *editor) entry(e entry) error {
	if len(e.words) == 0 {
		ed.keep(e)
		return nil
	}
	switch ed.m.directive(e) {
	case "":
		return ed.record(e)
	case "$ORIGIN":
		if len(e.words) > 1 {
			ed.origin = absoluteName(ed.m.raw(e.words[1]), ed.origin)
		}
	case "$TTL":
		if !ed.soaSeen && !ed.recordSeen {
			ed.ttlLine = ed.m.text[e.start:e.end]
			return nil
		}
	}
	ed.keep(e)
	return nil
}

// keep copies an entry as it is.
func (ed *editor) keep(e entry) {
	ed.out.Write(ed.m.text[e.start:e.end])
}

// line writes a line of the edit's own.
func (ed *editor) line(format string, args ...any) {
	ed.endLine()
	fmt.Fprintf(&ed.out, format, args...)
	ed.out.WriteString(ed.eol)
}

// endLine ends a last line that had no line break.
func (ed *editor) endLine() {
	if text := ed.out.Bytes(); len(text) > 0 && text[len(text)-1] != '\n' {
		ed.out.WriteString(ed.eol)
	}
}

func (ed *editor) record(e entry) error {
	if !e.inherits {
		raw := ed.m.raw(e.words[0])
		ed.owner, ed.ownerRaw, ed.ownerOrigin = absoluteName(raw, ed.origin), raw, ed.origin
	}
	kind, data := ed.m.kind(e)
	switch {
	case kind == "SOA":
		return ed.soa(e)
	case (kind == "A" || kind == "AAAA") && len(data) == 1 && ed.owners[plain(ed.owner)]:
		return ed.address(e, kind, data[0])
	}
	ed.recordSeen = true
	if e.inherits && ed.newOwner != ed.owner {
		// The record before it is gone, or an include came between, out of which
		// no owner carries.
		ed.out.WriteString(ed.ownerText())
		ed.done.notes = append(ed.done.notes, fmt.Sprintf("line %d: the owner %s is written out, since no owner carries over from an include or a line that is gone", e.line, plain(ed.owner)))
	}
	ed.newOwner = ed.owner
	ed.keep(e)
	return nil
}

// ownerText is the owner in effect as it can be written under the origin in
// effect.
func (ed *editor) ownerText() string {
	if ed.ownerOrigin == ed.origin {
		return ed.ownerRaw
	}
	return ed.owner
}

// soa puts both includes in the place of the SOA record.
func (ed *editor) soa(e entry) error {
	if ed.soaSeen {
		return errors.New("a second SOA record")
	}
	ed.soaSeen = true
	if ed.recordSeen {
		return errors.New("there are records before the SOA record")
	}
	if plain(ed.owner) != ed.zone {
		return fmt.Errorf("the SOA record is that of %s, not of %s", plain(ed.owner), ed.zone)
	}
	origin := ""
	if plain(ed.origin) != ed.zone {
		origin = " " + ed.zone + "."
	}
	ed.line("$INCLUDE %q%s", ed.soaPath, origin)
	if ed.ttlLine != nil {
		ed.endLine()
		ed.out.Write(ed.ttlLine)
		ed.endLine()
	} else if ed.ttl != "" {
		ed.line("$TTL %s", ed.ttl)
	}
	ed.line("$INCLUDE %q%s", ed.ipsPath, origin)
	ed.newOwner = ""
	return nil
}

// address takes an address record out and leaves its comments.
func (ed *editor) address(e entry, kind string, data word) error {
	addr, err := netip.ParseAddr(ed.m.raw(data))
	if err != nil || addr.Is4() != (kind == "A") {
		return fmt.Errorf("%q is no address of an %s record", ed.m.raw(data), kind)
	}
	if !ed.soaSeen {
		return errors.New("there are records before the SOA record")
	}
	set := rrset{plain(ed.owner), dns.StringToType[kind]}
	ed.done.moved[set] = append(ed.done.moved[set], addr)
	for _, c := range e.comments {
		text := strings.TrimLeft(string(ed.m.text[c[0]:c[1]]), "; \t")
		if text != "" {
			ed.line("; %s: %s", addr, text)
		}
	}
	return nil
}

var (
	ttlWord   = lazy.Regexp(`^(?i)([0-9]+|([0-9]+[wdhms])+)$`)
	classWord = lazy.Regexp(`^(?i)(IN|CH|HS|CHAOS|HESIOD|CLASS[0-9]+)$`)
)

// kind returns the type of a record in upper case and the words of its data.
// TTL and class may stand in either order, and both may be left out.
func (m masterText) kind(e entry) (kind string, data []word) {
	words := e.words
	if !e.inherits {
		words = words[1:]
	}
	for range 2 {
		if len(words) > 0 && (ttlWord().MatchString(m.raw(words[0])) || classWord().MatchString(m.raw(words[0]))) {
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return "", nil
	}
	return strings.ToUpper(m.raw(words[0])), words[1:]
}

// absoluteName joins a name of a zone file with the origin, both in lower case
// and with the final dot.
func absoluteName(name, origin string) string {
	name = strings.ToLower(name)
	switch {
	case name == "@":
		return origin
	case strings.HasSuffix(name, ".") && !strings.HasSuffix(name, `\.`):
		return name
	case origin == ".":
		return name + "."
	}
	return name + "." + origin
}

// poolOwners lists the absolute names at which the pool publishes in a zone.
func poolOwners(p upkeep.Pool, zone string) map[string]bool {
	owners := map[string]bool{}
	for _, record := range p.Records {
		owners[upkeep.Absolute(record, zone)] = true
	}
	return owners
}
