package zone

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"upkeep"
)

// zoneRecords is what a zone file means.
type zoneRecords struct{ list []dns.RR }

// records has named-checkzone read the assembled zone and returns every record.
func (a *assembly) records(ctx context.Context, argv []string, zone string) (zoneRecords, error) {
	// The operator's own checker is used if it is named-checkzone by another
	// path or in another environment; anything else cannot dump the zone.
	if len(argv) == 0 || filepath.Base(argv[0]) != "named-checkzone" {
		argv = defaultCheckzone
	}
	argv = slices.Concat(argv, []string{"-D", "-s", "full", "-o", a.dumpPath()})
	if err := a.check(ctx, argv, zone); err != nil {
		return zoneRecords{}, err
	}
	file, err := os.Open(a.dumpPath())
	if err != nil {
		return zoneRecords{}, fmt.Errorf("reading what named-checkzone makes of the zone: %w", err)
	}
	defer file.Close()
	var z zoneRecords
	parser := dns.NewZoneParser(bufio.NewReader(file), ".", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		z.list = append(z.list, rr)
	}
	if err := parser.Err(); err != nil {
		return zoneRecords{}, fmt.Errorf("reading what named-checkzone makes of the zone: %w", err)
	}
	return z, nil
}

// start is the zone's SOA record.
func (z zoneRecords) start(zone string) (*dns.SOA, error) {
	for _, rr := range z.list {
		if soa, is := rr.(*dns.SOA); is && plain(soa.Hdr.Name) == zone {
			return soa, nil
		}
	}
	return nil, errors.New("there is no SOA record")
}

// difference lists the records of one zone that are not in the other, leaving
// out those that are exchanged.
func (z zoneRecords) difference(after zoneRecords, exchanged func(*dns.RR_Header) bool) (lost, gained []string) {
	count := map[string]int{}
	for _, rr := range z.list {
		if !exchanged(rr.Header()) {
			count[rr.String()]++
		}
	}
	for _, rr := range after.list {
		if !exchanged(rr.Header()) {
			count[rr.String()]--
		}
	}
	for text, n := range count {
		text = strings.Join(strings.Fields(text), " ")
		switch {
		case n > 0:
			lost = append(lost, "lost "+text)
		case n < 0:
			gained = append(gained, "new "+text)
		}
	}
	slices.Sort(lost)
	slices.Sort(gained)
	const shown = 5
	return lost[:min(len(lost), shown)], gained[:min(len(gained), shown)]
}

// Apply carries the plan out and returns the path of the backup. The include
// files come first, since a zone file whose includes are missing kills the zone
// at named's next start; the zone file takes its place in one step. named is not
// told: the first publish of the zone reloads it.
func (p *Plan) Apply(ctx context.Context) (backup string, err error) {
	unlock, err := lockDir(p.place.includeDir, ctx.Done())
	if err != nil {
		return "", err
	}
	defer unlock()
	current, err := readFile(p.place.zoneFile, maxAdopt)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(current.text, p.old.text) {
		return "", fmt.Errorf("%w: %s has changed since the plan was made", upkeep.ErrConflict, p.File)
	}
	if backup, err = p.backUp(current); err != nil {
		return "", err
	}
	if err := p.writeIncludes(); err != nil {
		return backup, err
	}
	zoneFile, err := stage(current, p.New, p.now())
	if err != nil {
		return backup, err
	}
	defer zoneFile.drop()
	if err := zoneFile.commit(); err != nil {
		return backup, err
	}
	return backup, syncDir(filepath.Dir(current.path))
}

func (p *Plan) writeIncludes() error {
	disk, err := readPair(p.place.includeDir)
	if err != nil {
		return err
	}
	switch {
	case p.ips == nil && disk.whole():
		return nil
	case p.ips == nil || disk.whole():
		return fmt.Errorf("%w: the include files in %s have changed since the plan was made", upkeep.ErrConflict, p.place.includeDir)
	}
	if _, err := disk.saveForeign(p.now()); err != nil {
		return err
	}
	return disk.replace(p.ips, p.soa, p.now())
}

// backUp copies the zone file beside itself, under a name that is not taken.
func (p *Plan) backUp(current include) (string, error) {
	copied := include{path: fmt.Sprintf("%s.before-upkeep-%s", current.path, p.now().UTC().Format("20060102T150405")), info: current.info, found: true}
	for n := 2; exists(copied.path); n++ {
		copied.path = fmt.Sprintf("%s.before-upkeep-%s-%d", current.path, p.now().UTC().Format("20060102T150405"), n)
	}
	kept, err := stage(copied, current.text, current.info.ModTime())
	if err != nil {
		return "", err
	}
	defer kept.drop()
	return copied.path, kept.commit()
}
