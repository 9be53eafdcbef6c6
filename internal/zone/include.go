package zone

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/lazy"
)

// Names of the two files that zone files include.
const (
	SOAInclude = "soa.include"
	IPsInclude = "ips.include"
)

// includeHead starts both files. There is no date in them: bytes that are equal
// are not written, and what is not written is not reloaded.
const includeHead = "; written by upkeep, do not edit\n"

// maxInclude bounds what is read of an include file that may be anybody's.
const maxInclude = 16 << 20

// renderIPs writes the address records of normalised content. Every line has an
// owner of its own, since an owner does not carry out of an include, and a TTL
// of its own, since $TTL does.
func renderIPs(c Content) []byte {
	var body bytes.Buffer
	for _, set := range c.Sets {
		v4, v6 := set.split()
		for _, addr := range v4 {
			fmt.Fprintf(&body, "%s %d IN A %s\n", set.Owner, set.TTL/time.Second, addr)
		}
		for _, addr := range v6 {
			fmt.Fprintf(&body, "%s %d IN AAAA %s\n", set.Owner, set.TTL/time.Second, addr)
		}
	}
	return sealed(body.String())
}

// soaNames is one way to write the two names of a SOA record.
type soaNames struct{ mname, rname string }

// soaSpellings lists the ways to write the zone's SOA names that mean the same
// in this zone: absolute, and relative where the name lies in the zone. Zones
// that share their include files must agree on one: absolute where they have
// one primary name, relative where each has its own ns1 and hostmaster.
func soaSpellings(z upkeep.Zone) []soaNames {
	var all []soaNames
	for _, mname := range spellings(z.SOA.MName, z.Name) {
		for _, rname := range spellings(z.SOA.RName, z.Name) {
			all = append(all, soaNames{mname, rname})
		}
	}
	return all
}

func spellings(name, zone string) []string {
	name = strings.ToLower(name)
	if name == zone {
		return []string{name + ".", "@"}
	}
	if relative, within := strings.CutSuffix(name, "."+zone); within {
		return []string{name + ".", relative}
	}
	return []string{name + "."}
}

// renderSOA writes the start of authority. Its $TTL is for the records of the
// zone file that have none, which is how the file has always been used: it
// replaces the head of the zone file.
func renderSOA(z upkeep.Zone, names soaNames, serial uint32, ips []byte) []byte {
	seconds := func(d upkeep.Duration) int64 { return int64(time.Duration(d) / time.Second) }
	return sealed(fmt.Sprintf("; with %s %s\n$TTL %d\n; primary, mailbox, serial, refresh, retry, expire, negative TTL\n@ %d IN SOA %s %s %d %d %d %d %d\n",
		IPsInclude, checksum(ips), seconds(z.TTL), seconds(z.TTL), names.mname, names.rname, serial,
		seconds(z.SOA.Refresh), seconds(z.SOA.Retry), seconds(z.SOA.Expire), seconds(z.SOA.Minimum)))
}

// sealed puts the head and a checksum before the body, so that an edit by
// somebody else is noticed without any memory of what was written.
func sealed(body string) []byte {
	return fmt.Appendf(nil, "%s; checksum %s\n%s", includeHead, checksum([]byte(body)), body)
}

func checksum(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// include is one of the two files as found on disk.
type include struct {
	path  string
	text  []byte
	found bool
	info  fs.FileInfo
}

// readInclude reads an include file, which may be missing.
func readInclude(path string) (include, error) { return readFile(path, maxInclude) }

// readFile reads a file that may be missing. A symbolic link is followed, so
// that the link stays and its target is what is replaced.
func readFile(path string, limit int64) (include, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f := include{path: path}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("reading the file: %w", err)
	}
	defer file.Close()
	if f.info, err = file.Stat(); err != nil {
		return f, fmt.Errorf("reading %s: %w", path, err)
	}
	if !f.info.Mode().IsRegular() {
		return f, fmt.Errorf("reading %s: it is not a regular file", path)
	}
	f.text, err = io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return f, fmt.Errorf("reading %s: %w", path, err)
	}
	if int64(len(f.text)) > limit {
		return f, fmt.Errorf("reading %s: it is larger than %d bytes", path, limit)
	}
	f.found = true
	return f, nil
}

// intact reports whether the file is as upkeep wrote it.
func (f include) intact() bool {
	rest, headed := bytes.CutPrefix(f.text, []byte(includeHead+"; checksum "))
	sum, body, ended := bytes.Cut(rest, []byte("\n"))
	return headed && ended && string(sum) == checksum(body)
}

// foreign reports whether the file holds something that somebody else wrote.
func (f include) foreign() bool { return len(bytes.TrimSpace(f.text)) > 0 && !f.intact() }

// goesWith reports whether the SOA file was written for this ips file: after a
// kill between the two renames it was not, and the addresses are new under a
// serial that secondaries already have.
func (f include) goesWith(ips include) bool {
	return f.intact() && ips.intact() && bytes.Contains(f.text, []byte("; with "+IPsInclude+" "+checksum(ips.text)+"\n"))
}

var soaLine = lazy.Regexp(`(?s)\sSOA\s+(\S+)\s+(\S+)\s+(?:\(\s*)?(?:;[^\n]*\n\s*)?(\d{1,10})\b`)

// soa returns the serial in the file and how its names are spelled. It reads
// the form of the original script too, so that its serial is not gone below.
func (f include) soa() (serial uint32, names soaNames, found bool) {
	match := soaLine().FindSubmatch(f.text)
	if match == nil {
		return 0, soaNames{}, false
	}
	n, err := strconv.ParseUint(string(match[3]), 10, 32)
	return uint32(n), soaNames{string(match[1]), string(match[2])}, err == nil
}

// sameShape reports whether two address files have records of the same types
// at the same owners.
func sameShape(a, b []byte) bool {
	return maps.Equal(shape(a), shape(b))
}

// addressLines is the records of an address file, each its owner, type and
// address; the TTL is left out.
func addressLines(ips []byte) map[[3]string]bool {
	at := map[[3]string]bool{}
	for line := range bytes.Lines(ips) {
		if f := bytes.Fields(line); len(f) == 5 && f[0][0] != ';' {
			at[[3]string{string(f[0]), string(f[3]), string(f[4])}] = true
		}
	}
	return at
}

func shape(ips []byte) map[[2]string]bool {
	at := map[[2]string]bool{}
	for line := range bytes.Lines(ips) {
		if f := bytes.Fields(line); len(f) == 5 && f[0][0] != ';' {
			at[[2]string{string(f[0]), string(f[3])}] = true
		}
	}
	return at
}
