package zone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"upkeep"
)

// othersServe asks who else has one of the zones that share the files: the
// listed name servers, and this named for the other zones. Complete is false
// when one of them did not answer.
func (p *BindPublisher) othersServe(ctx context.Context, z upkeep.Zone) (serials []uint32, complete bool) {
	var at []ServedAt
	for _, server := range z.Servers {
		if server != p.server {
			at = append(at, ServedAt{server, z.Name})
		}
	}
	for _, other := range p.sharing() {
		if other != p {
			at = append(at, ServedAt{other.server, other.name})
		}
	}
	return p.bind.silent.ask(ctx, at, p.bind.o.Now())
}

// silence remembers servers that did not answer, so that a dead secondary costs
// a wait now and then and not at each publish.
type silence struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// silentFor is how long a server that did not answer is not asked again.
const silentFor = 30 * time.Second

func (s *silence) ask(ctx context.Context, at []ServedAt, now time.Time) (serials []uint32, complete bool) {
	s.mu.Lock()
	speaking := slices.DeleteFunc(slices.Clone(at), func(a ServedAt) bool { return now.Before(s.until[a.Server]) })
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, othersTimeout)
	defer cancel()
	serials, quiet := servedBy(ctx, speaking)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range speaking {
		delete(s.until, a.Server)
	}
	for _, a := range quiet {
		s.until[a.Server] = now.Add(silentFor)
	}
	return serials, len(serials) == len(at)
}

// risingSerial returns a serial that comes after every one in seen: the clock
// where it does, one more than the latest otherwise. Where not everybody could
// be asked, the clock is not followed over a distance so great that somebody
// unseen may be on the other side of it, as in the middle of a renumbering.
func risingSerial(now time.Time, seen []uint32, complete bool) uint32 {
	if len(seen) == 0 {
		return NextSerial(0, false, now)
	}
	latest := latestSerial(seen)
	clock := NextSerial(latest, true, now)
	ahead := func(serial uint32) bool { return SerialLess(serial, clock) }
	const near = 1 << 30
	if slices.ContainsFunc(seen, func(s uint32) bool { return !ahead(s) }) || !complete && clock-latest > near {
		return following(latest)
	}
	return clock
}

// following is the next serial; zero is skipped as in [NextSerial].
func following(serial uint32) uint32 { return max(serial+1, 1) }

// load has named load the files and waits until it answers their serial. When
// named does not load them, it puts back those of before.
func (w *write) load(ctx context.Context, serial uint32) (uint32, error) {
	answered, reason := w.reload(ctx, serial)
	if reason == nil {
		return answered, nil
	}
	var failed *loadError
	if !errors.As(reason, &failed) {
		return 0, reason
	}
	err := w.rollBack(ctx, serial, failed)
	w.p.refuse(*w, err)
	return 0, err
}

// loadError says that named was there and did not load the zone.
type loadError struct{ why string }

func (e *loadError) Error() string { return e.why }

// reload tells named to load the zone and waits for the serial. A *loadError
// says that named would not have it; after any other error the files may be
// loaded later.
func (w *write) reload(ctx context.Context, serial uint32) (uint32, error) {
	p := w.p
	for attempt := 0; ; attempt++ {
		// With inline-signing only rndc tells what is loaded, and of a zone that is
		// not served rndc tells why.
		hastened := attempt == 0 && w.before.known && !w.before.inline && p.hasten(ctx)
		rndc := p.send(ctx)
		if hastened {
			if answered, came := w.early(rndc, serial); came {
				return answered, nil
			}
		}
		<-rndc.over.Done()
		out, err := rndc.out, rndc.err
		if errors.Is(err, errNamedDown) || ctx.Err() != nil {
			return 0, err
		}
		if err != nil {
			// A zone that is not loaded is loaded while rndc waits, and the
			// reason for which it is not comes back.
			if w.before.known {
				return 0, err
			}
			return 0, &loadError{w.diagnose(ctx, rndcMessage(out))}
		}
		if !strings.Contains(out, "up-to-date") || attempt == maxTouches {
			break
		}
		if answered, err := w.answered(ctx, serial); err == nil {
			return answered, nil // loaded by somebody else's reload
		}
		// named has seen files that were newer than these, in a life before the
		// clock was set back or a backup was restored.
		if err := p.redate(ctx, attempt); err != nil {
			return 0, err
		}
	}
	return w.wait(ctx, serial)
}

const maxTouches = 2

// redate makes the files newer than they are, by more at each attempt.
func (p *BindPublisher) redate(ctx context.Context, attempt int) error {
	release, err := take(ctx, p.dir.turn)
	if err != nil {
		return err
	}
	defer release()
	disk, err := readPair(p.dir.path)
	if err != nil {
		return err
	}
	after := p.bind.o.Now()
	if status := p.status.Load(); status != nil && status.loaded.After(after) {
		after = status.loaded
	}
	return disk.touch(after.Add(time.Duration(attempt) * upkeep.Day))
}

// wait asks the served serial until it is there or named has had its time.
func (w *write) wait(ctx context.Context, serial uint32) (uint32, error) {
	deadline := time.NewTimer(w.p.bind.o.Settle)
	defer deadline.Stop()
	pause := 2 * time.Millisecond
	for {
		answered, err := w.answered(ctx, serial)
		if err == nil {
			return answered, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for named to answer serial %d: %w", serial, ctx.Err())
		case <-deadline.C:
			return 0, w.late(ctx, serial, err)
		case <-time.After(pause):
			pause = min(pause*3/2, 50*time.Millisecond)
		}
	}
}

// errYet means that named answers, and does not have the serial yet.
var errYet = errors.New("named still answers an older serial")

// answered returns the serial that is served if it covers the files'.
func (w *write) answered(ctx context.Context, serial uint32) (uint32, error) {
	p := w.p
	if w.before.inline {
		status, err := p.askStatus(ctx)
		if err != nil {
			return 0, err
		}
		if !covers(status.serial, serial) {
			return 0, errYet
		}
	}
	got, err := query{server: p.server, name: p.name, qtype: typeSOA}.serial(ctx)
	switch {
	case err != nil:
		return 0, err
	case w.before.inline && !SerialLess(w.before.serial, got), !w.before.inline && !covers(got, serial):
		return 0, errYet
	}
	return got, nil
}

// covers reports whether a served serial is the wanted one or a later one.
func covers(served, wanted uint32) bool { return served == wanted || SerialLess(wanted, served) }

// late finds out what it means that the serial did not come.
func (w *write) late(ctx context.Context, serial uint32, last error) error {
	p := w.p
	status, err := p.askStatus(ctx)
	switch {
	case errors.Is(err, errNotLoaded):
		return &loadError{w.diagnose(ctx, "it could not load the zone at all")}
	case err != nil:
		return err
	}
	if covers(status.serial, serial) {
		return upkeep.WithHint(fmt.Errorf("named has loaded serial %d, but %s does not answer it: %w", serial, p.server, last),
			w.elsewhere(ctx, serial))
	}
	return &loadError{w.diagnose(ctx, fmt.Sprintf("%s after the reload it still has the serial of before", p.bind.o.Settle))}
}

const serverHint = "is server of the publisher the address of the named that rndc controls?"

// elsewhere is the hint for a serial that is loaded and not answered: a listed
// server that does answer it may be the named that is meant. It is not taken
// without being told, for it may as well be a secondary.
func (w *write) elsewhere(ctx context.Context, serial uint32) string {
	ctx, cancel := context.WithTimeout(ctx, othersTimeout)
	defer cancel()
	for _, server := range w.content.Zone.Servers {
		if got, err := ServedSerial(ctx, server, w.p.name); err == nil && covers(got, serial) {
			return fmt.Sprintf("%s %s answers it: if that is this named, write server: %q into the publisher", serverHint, server, server)
		}
	}
	return serverHint
}

// diagnose gathers what can be known of why named did not load the zone; named
// itself says it in its log only.
func (w *write) diagnose(ctx context.Context, symptom string) string {
	p := w.p
	said := []string{symptom}
	disk, err := readPair(p.dir.path)
	if err != nil {
		return symptom + "; " + err.Error()
	}
	if err := p.try(ctx, disk.ips.text, disk.soa.text, w.content); err != nil && !errors.Is(err, errNoZoneFile) {
		said = append(said, err.Error())
	} else {
		said = append(said, "its log has the reason")
	}
	for _, f := range []include{disk.ips, disk.soa} {
		if f.found && f.info.Mode().Perm()&0o004 == 0 {
			said = append(said, fmt.Sprintf("%s has mode %#o: can the user of named read it?", f.path, f.info.Mode().Perm()))
		}
	}
	if status := p.status.Load(); status != nil && len(status.files) > 0 && !p.loads(status.files) {
		said = append(said, fmt.Sprintf("named loads the zone from %s, which are not the files that upkeep writes", strings.Join(status.files, ", ")))
	}
	return strings.Join(said, "; ")
}

// loads reports whether named had both include files among those of the zone.
func (p *BindPublisher) loads(files []string) bool {
	for _, name := range []string{SOAInclude, IPsInclude} {
		inside := p.place.inside(filepath.Join(p.place.includeDir, name))
		if !slices.ContainsFunc(files, func(f string) bool { return f == inside || !filepath.IsAbs(f) && strings.HasSuffix(inside, "/"+f) }) {
			return false
		}
	}
	return true
}

// rollBack puts back the addresses of before under a serial that is later than
// the one that failed, so that the zone only moves forward even when named was
// merely slow. It returns the error to report.
func (w *write) rollBack(ctx context.Context, failed uint32, reason *loadError) error {
	problem := fmt.Errorf("named did not load serial %d: %w", failed, reason)
	serial, err := w.putBack(ctx, failed)
	switch {
	case err != nil:
		return errors.Join(problem, fmt.Errorf("putting the include files of before back: %w", err))
	case serial == 0:
		return upkeep.WithHint(problem, "the new include files were left in place: there is no earlier version that named has loaded")
	}
	if _, err := w.reload(ctx, serial); err != nil {
		return upkeep.WithHint(fmt.Errorf("%w; the include files of before are back in place, and named does not load them either", problem),
			"look into named's log; see also: rndc zonestatus "+w.p.name)
	}
	return upkeep.WithHint(fmt.Errorf("%w; the addresses of before were put back under serial %d", problem, serial),
		"look into named's log for the reason")
}

// putBack returns the serial under which the files of before are in place
// again, or 0 if they were left alone: nothing was kept, or somebody else has
// written since.
func (w *write) putBack(ctx context.Context, failed uint32) (uint32, error) {
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
	if serial, _, _ := disk.soa.soa(); serial != failed || p.sharedLoaded(ctx, failed) {
		return 0, nil
	}
	old, kept := disk.previous()
	if !kept {
		return 0, nil
	}
	serial := risingSerial(p.bind.o.Now(), []uint32{failed}, true)
	soa, err := old.soa.renumbered(serial)
	if err != nil {
		return 0, err
	}
	p.wanted = nil // what this zone wants is not what the files hold
	return serial, disk.replace(old.ips.text, soa, p.bind.o.Now())
}

// sharedLoaded reports whether another zone has loaded the shared files under
// the serial: then they are good, and the fault is this zone's own.
func (p *BindPublisher) sharedLoaded(ctx context.Context, serial uint32) bool {
	for _, other := range p.sharing() {
		if other == p {
			continue
		}
		if got, err := ServedSerial(ctx, other.server, other.name); err == nil && got == serial {
			return true
		}
	}
	return false
}

// renumbered returns the text of a SOA file with another serial.
func (f include) renumbered(serial uint32) ([]byte, error) {
	at := soaLine().FindSubmatchIndex(f.text)
	_, body, ended := bytes.Cut(bytes.TrimPrefix(f.text, []byte(includeHead)), []byte("\n"))
	if at == nil || !ended || !f.intact() {
		return nil, fmt.Errorf("%s is not as upkeep wrote it", f.path)
	}
	skipped := len(f.text) - len(body)
	return sealed(string(body[:at[6]-skipped]) + strconv.FormatUint(uint64(serial), 10) + string(body[at[7]-skipped:])), nil
}

// ServedAt lists where the zones that share the include files are answered:
// this zone at its named first, then every listed server of each.
func (p *BindPublisher) ServedAt() []ServedAt {
	at := []ServedAt{{p.server, p.name}}
	for _, other := range p.sharing() {
		for _, server := range append([]string{other.server}, other.servers()...) {
			if s := (ServedAt{server, other.name}); !slices.Contains(at, s) {
				at = append(at, s)
			}
		}
	}
	return at
}

func (p *BindPublisher) servers() []string {
	release, err := take(context.Background(), p.dir.turn)
	if err != nil {
		return nil // the background does not end
	}
	defer release()
	return p.zone.Servers
}

// SetSerial implements [Renumberer]. All zones that share the include files get
// the serial.
func (p *BindPublisher) SetSerial(ctx context.Context, serial uint32) error {
	sharing := p.sharing()
	writes := make([]*write, len(sharing))
	for i, other := range sharing {
		release, err := take(ctx, other.publishing)
		if err != nil {
			return err
		}
		defer release()
		w := &write{p: other}
		other.status.Store(nil)
		if err := w.preflight(ctx); err != nil {
			return fmt.Errorf("zone %s: %w", other.name, err)
		}
		if w.before.known && !SerialLess(w.before.raw, serial) {
			return fmt.Errorf("zone %s: serial %d does not come after %d, which is served", other.name, serial, w.before.raw)
		}
		writes[i] = w
	}
	if err := p.rewriteSerial(ctx, serial); err != nil {
		return err
	}
	for _, w := range writes {
		if _, err := w.reload(ctx, serial); err != nil {
			return fmt.Errorf("zone %s: %w", w.p.name, err)
		}
	}
	return nil
}

func (p *BindPublisher) rewriteSerial(ctx context.Context, serial uint32) error {
	release, err := take(ctx, p.dir.turn)
	if err != nil {
		return err
	}
	defer release()
	unlock, err := lockDir(p.dir.path, ctx.Done())
	if err != nil {
		return err
	}
	defer unlock()
	disk, err := readPair(p.dir.path)
	if err != nil {
		return err
	}
	if !disk.whole() {
		return upkeep.WithHint(fmt.Errorf("the include files in %s are not as upkeep wrote them", p.dir.path), "publish the zone first")
	}
	soa, err := disk.soa.renumbered(serial)
	if err != nil {
		return err
	}
	return disk.replace(disk.ips.text, soa, p.bind.o.Now())
}
