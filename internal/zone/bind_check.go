package zone

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"upkeep"
)

// bindPlace is where one zone's files lie. All paths are real ones, as seen
// from outside a chroot.
type bindPlace struct {
	publisher  upkeep.Publisher
	chroot     string // "" or absolute
	includeDir string
	zoneFile   string // "" when it was not given
}

func newBindPlace(p upkeep.Publisher) bindPlace {
	place := bindPlace{publisher: p}
	if p.Chroot != "" {
		place.chroot = filepath.Clean(p.Chroot)
	}
	place.includeDir = place.outside(p.IncludeDir)
	if p.ZoneFile != "" {
		place.zoneFile = place.outside(p.ZoneFile)
	}
	if dir, err := filepath.EvalSymlinks(place.includeDir); err == nil {
		place.includeDir = dir
	}
	return place
}

// outside is the real path of one that may be as named sees it.
func (p bindPlace) outside(path string) string { return filepath.Clean(p.publisher.RealPath(path)) }

// inside is the path by which named knows a real one.
func (p bindPlace) inside(path string) string {
	if rest, below := strings.CutPrefix(path, strings.TrimSuffix(p.chroot, "/")+"/"); p.chroot != "" && below {
		return "/" + rest
	}
	return path
}

// named is the real path of one that named was given by an $INCLUDE in file: a
// relative one counts from named's working directory, which is taken to be the
// nearest directory above the file from which there is such a file.
func (p bindPlace) named(path, file string) string {
	if filepath.IsAbs(path) {
		return p.outside(path)
	}
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		candidate := filepath.Join(dir, path)
		if p.isInclude(candidate) != "" || exists(candidate) {
			return candidate
		}
		if dir == p.chroot || dir == "/" || dir == "." {
			return filepath.Join(filepath.Dir(file), path)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// isInclude returns which of upkeep's two files the path is, if any. It does
// not have to exist yet.
func (p bindPlace) isInclude(path string) string {
	dir, name := filepath.Split(path)
	if name != SOAInclude && name != IPsInclude {
		return ""
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	if filepath.Clean(dir) != p.includeDir {
		return ""
	}
	return name
}

// assembly is a zone put together in a private directory as it would be after a
// publish, with every path made one that can be read from outside a chroot.
type assembly struct {
	place bindPlace
	dir   string
	main  string            // the assembled zone file
	swaps map[string]string // upkeep's files to their candidate texts
	seen  map[string]bool   // which of upkeep's files the zone includes
	names []string          // pairs of assembled and real path, for messages
	texts hash.Hash         // over all files but upkeep's
	count int               // files
	size  int               // bytes
}

// Bounds of a zone that is assembled: include files within include files, their
// number, and bytes in all.
const (
	maxIncludeDepth = 16
	maxIncludes     = 1000
	maxZoneFile     = 64 << 20
)

// errTooLargeToCheck means that checking the zone before each publish would
// hold up a removal for longer than it is worth.
var errTooLargeToCheck = fmt.Errorf("the zone files are larger than %d bytes", maxZoneFile)

// assemble puts the zone together. Remove the directory afterwards, also after
// an error.
func assemble(place bindPlace, ips, soa []byte) (*assembly, error) {
	text, err := readZoneFile(place.zoneFile)
	if err != nil {
		return nil, err
	}
	return assembleText(place, text, ips, soa)
}

// assembleText is assemble for a text that the zone file does not have yet.
func assembleText(place bindPlace, text, ips, soa []byte) (_ *assembly, err error) {
	dir, err := os.MkdirTemp("", "upkeep-check-")
	if err != nil {
		return nil, fmt.Errorf("making a directory to check the zone in: %w", err)
	}
	a := &assembly{place: place, dir: dir, swaps: map[string]string{}, seen: map[string]bool{}, texts: sha256.New()}
	for name, text := range map[string][]byte{IPsInclude: ips, SOAInclude: soa} {
		path := filepath.Join(dir, name)
		a.swaps[name] = path
		a.names = append(a.names, path, filepath.Join(place.includeDir, name))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return a, fmt.Errorf("assembling the zone to check it: %w", err)
		}
	}
	a.main, err = a.file(place.zoneFile, text, 0)
	return a, err
}

func (a *assembly) remove() {
	if a != nil {
		_ = os.RemoveAll(a.dir) // a private temporary directory
	}
}

// file writes a copy of the file's text in which includes are replaced, and
// returns its path.
func (a *assembly) file(path string, text []byte, depth int) (string, error) {
	if depth > maxIncludeDepth {
		return "", fmt.Errorf("reading zone file %s: include files nest more than %d deep", path, maxIncludeDepth)
	}
	if a.count++; a.count > maxIncludes {
		return "", fmt.Errorf("reading zone file %s: the zone has more than %d include files", path, maxIncludes)
	}
	if a.size += len(text); a.size > maxZoneFile {
		return "", errTooLargeToCheck
	}
	fmt.Fprintf(a.texts, "%q %d\n%s", path, len(text), text)
	copied := filepath.Join(a.dir, fmt.Sprintf("zone%04d", a.count))
	a.names = append(a.names, copied, path)
	var out []byte
	done := 0
	m := masterText{text: text}
	err := m.each(func(e entry) error {
		if m.directive(e) != "$INCLUDE" || len(e.words) < 2 {
			return nil
		}
		target, err := a.include(m.value(e.words[1]), path, depth)
		if err != nil {
			return err
		}
		out = append(out, text[done:e.words[1].start]...)
		out = append(out, `"`+target+`"`...)
		done = e.words[1].end
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("reading zone file %s: %w", path, err)
	}
	out = append(out, text[done:]...)
	return copied, os.WriteFile(copied, out, 0o600)
}

func (a *assembly) include(name, file string, depth int) (string, error) {
	path := a.place.named(name, file)
	if own := a.place.isInclude(path); own != "" {
		a.seen[own] = true
		return a.swaps[own], nil
	}
	text, err := readZoneFile(path)
	if err != nil {
		return "", err
	}
	return a.file(path, text, depth+1)
}

func readZoneFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading zone file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading zone file %s: it is not a regular file", path)
	}
	if info.Size() > maxZoneFile {
		return nil, errTooLargeToCheck
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading zone file: %w", err)
	}
	return text, nil
}

// rest identifies all of the zone but upkeep's two files.
func (a *assembly) rest() [sha256.Size]byte { return [sha256.Size]byte(a.texts.Sum(nil)) }

// known is a zone that named-checkzone found good. The check takes as long as
// all else of a publish, and most removals can do without: a zone does not break
// by having fewer addresses at an owner that keeps some, and upkeep writes these
// lines itself.
type known struct {
	rest [sha256.Size]byte // of all its files but upkeep's
	soa  []byte            // without a serial
	ips  []byte
}

// covers reports whether the other zone is this one with the same addresses or
// with fewer, at the same owners.
func (k *known) covers(other *known) bool {
	if k == nil || k.rest != other.rest || !bytes.Equal(k.soa, other.soa) || !sameShape(k.ips, other.ips) {
		return false
	}
	ours := addressLines(k.ips)
	for line := range addressLines(other.ips) {
		if !ours[line] {
			return false
		}
	}
	return true
}

// includesBoth returns an error unless the zone includes both of upkeep's files.
func (a *assembly) includesBoth() error {
	var lacking []string
	for _, name := range []string{SOAInclude, IPsInclude} {
		if !a.seen[name] {
			lacking = append(lacking, fmt.Sprintf("$INCLUDE %q", a.place.inside(filepath.Join(a.place.includeDir, name))))
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return upkeep.WithHint(fmt.Errorf("zone file %s has no line %s, so nothing published would reach the zone", a.place.zoneFile, strings.Join(lacking, " and no line ")),
		"let upkeep put the lines in: upkeep zone adopt "+a.place.zoneFile+" --pool NAME")
}

// defaultCheckzone leaves names outside the zone alone: looking them up could
// take long and says nothing of this zone. It is what named itself checks.
var defaultCheckzone = []string{"named-checkzone", "-i", "local"}

// errNoChecker means that named-checkzone is not installed; it was not named by
// the operator either.
var errNoChecker = errors.New("named-checkzone is not installed: zones are published without being checked before")

// checkError is what named-checkzone says of a zone.
type checkError struct{ said string }

func (e *checkError) Error() string { return "checking the zone: " + e.said }

// check runs named-checkzone on the assembled zone. A *checkError says that the
// zone is bad; any other error that it could not be checked.
func (a *assembly) check(ctx context.Context, argv []string, zone string) error {
	byDefault := len(argv) == 0
	if byDefault {
		argv = defaultCheckzone
	}
	if byDefault {
		// The zone as named would have it, one full record a line.
		argv = slices.Concat(argv, []string{"-D", "-s", "full", "-o", a.dumpPath()})
	}
	out, err := run(ctx, slices.Concat(argv, []string{zone, a.main})...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case byDefault && errors.Is(err, exec.ErrNotFound):
		return errNoChecker
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return &checkError{a.message(out)}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return upkeep.WithHint(fmt.Errorf("running %s: %w", strings.Join(argv, " "), err), "checkzone of the publisher must name a program that exists")
	}
	return fmt.Errorf("running %s: %w: %s", strings.Join(argv, " "), err, a.message(out))
}

func (a *assembly) dumpPath() string { return filepath.Join(a.dir, "dump") }

// extra returns the address records that the assembled zone has at the owners of
// the content beside those of the content, and an error where that makes more
// of them than named loads: named-checkzone does not count. It needs a check by
// the default command before.
func (a *assembly) extra(c Content) (found []string, err error) {
	file, err := os.Open(a.dumpPath())
	if err != nil {
		return nil, nil // the operator's own checker does not dump
	}
	defer file.Close()
	wants := map[rrset][]netip.Addr{}
	for _, set := range c.Sets {
		owner := upkeep.Absolute(set.Owner, c.Zone.Name)
		v4, v6 := set.split()
		wants[rrset{owner, dns.TypeA}], wants[rrset{owner, dns.TypeAAAA}] = v4, v6
	}
	counts := map[rrset]int{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 5 || f[3] != "A" && f[3] != "AAAA" {
			continue
		}
		set := rrset{plain(f[0]), dns.StringToType[f[3]]}
		want, ours := wants[set]
		addr, err := netip.ParseAddr(f[4])
		if !ours || err != nil {
			continue
		}
		if counts[set]++; counts[set] > upkeep.MaxAnswer {
			return nil, &checkError{fmt.Sprintf("%s has too many records: with those of the zone file there are more than %d", set, upkeep.MaxAnswer)}
		}
		if !slices.Contains(want, addr) {
			found = append(found, set.String()+" "+addr.String())
		}
	}
	return found, nil // a line too long for the scanner holds no address
}

// message makes one line of the errors in the output, with real paths.
func (a *assembly) message(out string) string {
	out = strings.NewReplacer(a.names...).Replace(out)
	var said []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "warning:") {
			said = append(said, line)
		}
	}
	const shown = 4
	if more := len(said) - shown; more > 0 {
		said = append(said[:shown], fmt.Sprintf("and %d more lines", more))
	}
	if len(said) == 0 {
		return "no message"
	}
	return strings.Join(said, "; ")
}
