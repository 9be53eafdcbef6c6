package zone

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
)

// BindFacts is what a running named and its configuration say of how soon a
// change of the zone reaches clients. Defaults are those of the BIND 9 ARM.
type BindFacts struct {
	Dynamic       bool
	InlineSigning bool
	// Configured is false where named's configuration could not be read; the
	// values below are then the defaults.
	Configured bool
	// NotifyDelay is what a second NOTIFY of the zone waits after the one before.
	NotifyDelay time.Duration
	// NotifyRate is the number of NOTIFY messages a second, over all zones.
	NotifyRate int
	// Notify is yes, no, explicit or primary-only.
	Notify string
	// MaxRecords is the number of records of one type at a name above which
	// named refuses the zone; 0 for no limit.
	MaxRecords int
	// IXFRFromDifferences says that secondaries are sent differences; otherwise
	// each change sends them the whole zone.
	IXFRFromDifferences bool
	// Findings is what to change, most useful first.
	Findings []Finding
}

// Finding is one setting that holds a failover up or will stop it.
type Finding struct {
	Setting string // as named.conf has it
	Value   string // at present
	Why     string // what it costs
	Change  string // the line to write, and where
}

func (f Finding) String() string {
	return fmt.Sprintf("%s is %s: %s; %s", f.Setting, f.Value, f.Why, f.Change)
}

// Inspect asks named for the zone's state and reads its configuration, which
// takes the privilege to read it. What cannot be found out is a finding too.
func (p *BindPublisher) Inspect(ctx context.Context) (BindFacts, error) {
	status, err := p.askStatus(ctx)
	if err != nil {
		return BindFacts{}, fmt.Errorf("zone %s: %w", p.name, err)
	}
	facts := BindFacts{
		Dynamic: status.dynamic, InlineSigning: status.inlineSigning,
		NotifyDelay: 5 * time.Second, NotifyRate: 20, Notify: "yes", MaxRecords: upkeep.MaxAnswer,
	}
	config, err := p.configuration(ctx)
	if err != nil {
		facts.Findings = append(facts.Findings, Finding{
			Setting: "named.conf", Value: "not readable", Why: err.Error(), Change: "let upkeep read it, or compare its settings with the defaults that are counted with",
		})
	} else {
		facts.read(config, p)
	}
	facts.judge(p, len(p.sharing()))
	return facts, nil
}

// configuration reads the configuration that the running named was given, in
// the canonical form of named-checkconf and without its secrets.
func (p *BindPublisher) configuration(ctx context.Context) (*statement, error) {
	out, err := p.rndc.run(ctx, "status")
	if err != nil {
		return nil, err
	}
	path := ""
	for line := range strings.Lines(out) {
		if value, is := strings.CutPrefix(line, "configuration file: "); is {
			path = strings.TrimSpace(value)
		}
	}
	if path == "" {
		return nil, fmt.Errorf("rndc status does not tell the configuration file")
	}
	argv := []string{"named-checkconf", "-p", "-x"}
	if p.place.chroot != "" {
		argv = append(argv, "-t", p.place.chroot)
	}
	out, err = runFor(ctx, maxConfig, append(argv, path)...)
	if err != nil {
		return nil, fmt.Errorf("running named-checkconf on %s: %w: %s", path, err, strings.TrimSpace(out[:min(len(out), 200)]))
	}
	return parseConfig(out)
}

// maxConfig bounds the configuration that is read, in bytes.
const maxConfig = 64 << 20

// statement is one statement of named.conf: its words, and the block after them
// if it has one.
type statement struct {
	words []string
	block []*statement
}

// maxConfigDepth bounds blocks within blocks.
const maxConfigDepth = 32

// parseConfig reads the canonical form of a configuration into one statement
// whose block holds all others.
func parseConfig(text string) (*statement, error) {
	tokens, err := keyTokens(text)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of named: %w", err)
	}
	root := &statement{}
	open := []*statement{root}
	current := &statement{}
	for _, token := range tokens {
		switch {
		case token.quoted || !slices.Contains([]string{"{", "}", ";"}, token.text):
			current.words = append(current.words, token.text)
		case token.text == "{":
			if len(open) == maxConfigDepth {
				return nil, fmt.Errorf("reading the configuration of named: blocks nest more than %d deep", maxConfigDepth)
			}
			open = append(open, current)
			current = &statement{}
		case token.text == "}":
			if len(open) == 1 {
				return nil, fmt.Errorf("reading the configuration of named: a closing brace without an opening one")
			}
			current = open[len(open)-1]
			open = open[:len(open)-1]
		default:
			if len(current.words)+len(current.block) > 0 {
				parent := open[len(open)-1]
				parent.block = append(parent.block, current)
			}
			current = &statement{}
		}
	}
	if len(open) != 1 {
		return nil, fmt.Errorf("reading the configuration of named: a brace is not closed")
	}
	return root, nil
}

// find returns the statements of the block that begin with these words.
func (s *statement) find(words ...string) (found []*statement) {
	if s == nil {
		return nil
	}
	for _, inner := range s.block {
		if len(inner.words) >= len(words) && slices.EqualFunc(inner.words[:len(words)], words, strings.EqualFold) {
			found = append(found, inner)
		}
	}
	return found
}

// scopes lists where a setting of the zone may stand, the strongest first: the
// zone, its view, options.
func (s *statement) scopes(zone, view string) []*statement {
	var scopes []*statement
	for _, v := range s.find("view") {
		if len(v.words) > 1 && (view == "" || v.words[1] == view) {
			if zones := v.find("zone", zone); len(zones) > 0 {
				scopes = append(scopes, zones[0], v)
				break
			}
		}
	}
	if zones := s.find("zone", zone); len(scopes) == 0 && len(zones) > 0 {
		scopes = append(scopes, zones[0])
	}
	return append(scopes, s.find("options")...)
}

// setting returns the first word of a setting's value in the strongest scope
// that has it.
func setting(scopes []*statement, name string) (string, bool) {
	for _, scope := range scopes {
		if found := scope.find(name); len(found) > 0 {
			if words := found[0].words; len(words) > 1 {
				return words[1], true
			}
			return "", true
		}
	}
	return "", false
}

func (f *BindFacts) read(config *statement, p *BindPublisher) {
	view := ""
	if len(p.view) > 1 {
		view = p.view[1]
	}
	scopes := config.scopes(p.name, view)
	f.Configured = true
	number := func(name string, to *int) {
		if text, given := setting(scopes, name); given {
			if n, err := strconv.Atoi(text); err == nil {
				*to = n
			}
		}
	}
	seconds := int(f.NotifyDelay / time.Second)
	number("notify-delay", &seconds)
	f.NotifyDelay = time.Duration(seconds) * time.Second
	number("notify-rate", &f.NotifyRate)
	number("max-records-per-type", &f.MaxRecords)
	if text, given := setting(scopes, "notify"); given {
		f.Notify = map[string]string{"true": "yes", "1": "yes", "false": "no", "0": "no"}[text]
		if f.Notify == "" {
			f.Notify = text
		}
	}
	if text, given := setting(scopes, "ixfr-from-differences"); given {
		f.IXFRFromDifferences = slices.Contains([]string{"yes", "true", "1", "primary", "master"}, text)
	}
}

// judge says what to change, for a zone whose files serve so many zones.
func (f *BindFacts) judge(p *BindPublisher, sharing int) {
	add := func(setting, value, why, change string) {
		f.Findings = append(f.Findings, Finding{setting, value, why, change})
	}
	if f.Dynamic {
		add("allow-update or update-policy", "set", "named ignores changes of a dynamic zone's files",
			"remove it from the zone, or declare a publisher of type update in place of bind")
	}
	if f.Notify == "no" {
		add("notify", "no", "secondaries learn of a change only when they ask by themselves, after the SOA's refresh", "write \"notify yes;\" in zone "+p.name)
	}
	if f.NotifyDelay > 0 && f.Notify != "no" {
		add("notify-delay", upkeep.Duration(f.NotifyDelay).String(), "a second change within that time reaches no secondary until it is over", "write \"notify-delay 0;\" in options")
	}
	if burst := sharing / max(f.NotifyRate, 1); f.NotifyRate > 0 && burst > 0 {
		add("notify-rate", fmt.Sprintf("%d a second", f.NotifyRate),
			fmt.Sprintf("%d zones change together, and the last of them is told of %ds after the first for each secondary", sharing, burst),
			fmt.Sprintf("write \"notify-rate %d;\" in options", max(100, 2*sharing)))
	}
	if f.MaxRecords > 0 && f.MaxRecords < upkeep.MaxAnswer {
		add("max-records-per-type", strconv.Itoa(f.MaxRecords), "named refuses the whole zone when more addresses than that are published at a name",
			fmt.Sprintf("write \"max-records-per-type %d;\" in options, or keep pools smaller", upkeep.MaxAnswer))
	}
	if f.Configured && !f.IXFRFromDifferences && !f.InlineSigning {
		add("ixfr-from-differences", "no", "each change sends the whole zone to every secondary, which takes long for a large zone only",
			"write \"ixfr-from-differences yes;\" in zone "+p.name+" if it is large")
	}
}
