package zone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"upkeep"
)

// commandTimeout bounds rndc and named-checkzone.
const commandTimeout = 15 * time.Second

// maxOutput bounds what is kept of a command's output.
const maxOutput = 64 << 10

// run runs a command without a shell and returns its joined output. Programs
// are also looked for where daemons' tools are and a service's PATH often is
// not.
func run(ctx context.Context, argv ...string) (string, error) { return runFor(ctx, maxOutput, argv...) }

// runFor is run for a command whose output may be larger, to a limit in bytes.
func runFor(ctx context.Context, limit int, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	path, err := findProgram(argv[0])
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	out := limitedBuffer{limit: limit}
	cmd.Stdout, cmd.Stderr = &out, &out
	// Messages are read below: they must be the untranslated ones.
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}

func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || strings.Contains(name, "/") {
		return path, err
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin"} {
		if path, dirErr := exec.LookPath(filepath.Join(dir, name)); dirErr == nil {
			return path, nil
		}
	}
	return "", err
}

// limitedBuffer keeps the first bytes written to it.
type limitedBuffer struct {
	bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// rndc controls one named by its command.
type rndc struct {
	argv  []string
	slots chan struct{} // bounds the commands at once; nil for no bound
}

// errNamedDown means that there is no named to control.
var errNamedDown = errors.New("named does not answer rndc")

// errNotLoaded means that named has the zone in its configuration and could not
// load it.
var errNotLoaded = errors.New("zone not loaded")

func (r rndc) run(ctx context.Context, args ...string) (string, error) {
	if r.slots != nil {
		release, err := take(ctx, r.slots)
		if err != nil {
			return "", err
		}
		defer release()
	}
	out, err := run(ctx, slices.Concat(r.argv, args)...)
	if err == nil {
		return out, nil
	}
	said := rndcMessage(out)
	command := fmt.Errorf("running %s: %w: %s", strings.Join(slices.Concat(r.argv, args), " "), err, said)
	has := func(text string) bool { return strings.Contains(out, text) }
	switch {
	case has("connect failed") || has("connection refused"):
		return out, upkeep.WithHint(fmt.Errorf("%w: %s", errNamedDown, said), "is named running? upkeep has written the include files for when it starts")
	case has("zone not loaded"):
		return out, fmt.Errorf("%w: %w", errNotLoaded, command)
	case has("dynamic zone"):
		return out, dynamicZone(args[len(args)-1])
	case has("no matching zone"):
		return out, upkeep.WithHint(command, "named has no such zone: see its named.conf, then run: rndc reconfig")
	case has("bad auth"), has("clocks may be skewed"), has("connection to remote host closed"):
		return out, upkeep.WithHint(command, "the key of rndc is not that of named's controls statement, or the clocks differ")
	case has("multiple"):
		return out, upkeep.WithHint(command, "the zone is in several views: set view on the publisher")
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return out, upkeep.WithHint(command, "install rndc (package bind9), or set rndc on the publisher to the command that reloads the zone")
	}
	return out, command
}

func dynamicZone(zone string) error {
	return upkeep.WithHint(fmt.Errorf("zone %s is dynamic: named ignores changes of its files and will write over the zone file, dropping its $INCLUDE lines", zone),
		"use a publisher of type update for this zone, or remove allow-update and update-policy from it in named.conf")
}

// rndcMessage makes one line of what rndc says.
func rndcMessage(out string) string {
	var said []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(strings.TrimPrefix(line, "rndc: ")); line != "" {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no message"
	}
	return strings.Join(said[:min(len(said), 4)], "; ")
}

// zoneStatus is what rndc zonestatus says of a zone, as far as it matters here.
type zoneStatus struct {
	kind          string   // primary, secondary
	files         []string // as named sees them, the zone file first
	serial        uint32   // of the file that was loaded
	signed        uint32   // served when named signs; zero otherwise
	inlineSigning bool
	dynamic       bool
	frozen        bool
	loaded        time.Time
}

func parseZoneStatus(out string) (s zoneStatus) {
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "type":
			s.kind = value
		case "files":
			s.files = strings.Split(value, ", ")
		case "serial":
			s.serial = parseSerial(value)
		case "signed serial":
			s.signed = parseSerial(value)
		case "inline signing":
			s.inlineSigning = value == "yes"
		case "dynamic":
			s.dynamic = value == "yes"
		case "frozen":
			s.frozen = value == "yes"
		case "last loaded":
			s.loaded, _ = time.Parse("Mon, 02 Jan 2006 15:04:05 MST", value) // zero when unknown
		}
	}
	return s
}

func parseSerial(text string) uint32 {
	n, _ := strconv.ParseUint(text, 10, 32) // named's own number
	return uint32(n)
}

// served is the serial that clients and secondaries see.
func (s zoneStatus) served() uint32 {
	if s.inlineSigning && s.signed != 0 {
		return s.signed
	}
	return s.serial
}
