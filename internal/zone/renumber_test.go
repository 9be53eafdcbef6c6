package zone

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"upkeep"
	"upkeep/internal/testkit"
)

const (
	dated    = 2026112301        // YYYYMMDDnn
	unixThen = 1795465266        // the same day as Unix time
	later    = dated + 7_000_000 // years ahead of the clock
)

func TestRenumberStep(t *testing.T) {
	const half = dated + (unixThen-dated+1<<32)/2
	for name, c := range map[string]struct {
		serials []uint32
		want    step
	}{
		"all at the clock":               {[]uint32{unixThen, unixThen - 1000}, step{done: true, wait: -1}},
		"a small serial":                 {[]uint32{1, 1}, step{done: true, wait: -1}},
		"a signer a little ahead":        {[]uint32{unixThen + 100, unixThen + 102}, step{done: true, wait: -1}},
		"dated":                          {[]uint32{dated, dated}, step{wait: -1, next: half}},
		"a secondary behind by one":      {[]uint32{dated, dated - 1}, step{wait: -1, next: half}},
		"halfway, a secondary not":       {[]uint32{half, dated}, step{wait: 1}},
		"halfway, both":                  {[]uint32{half, half}, step{wait: -1, next: unixThen}},
		"at the clock, a secondary not":  {[]uint32{unixThen, half}, step{wait: 1}},
		"published halfway":              {[]uint32{half + 3, half + 2}, step{wait: -1, next: unixThen}},
		"a secondary left ahead":         {[]uint32{unixThen, dated}, step{wait: -1, next: dated + 1}},
		"the secondary ahead is reached": {[]uint32{dated + 1, dated}, step{wait: -1, next: dated + 1 + (unixThen-dated-1+1<<32)/2}},
		"right behind the clock's back":  {[]uint32{unixThen + 86401}, step{wait: -1, next: unixThen + 86401 + (1<<32-86401)/3}},
	} {
		if got := renumberStep(c.serials, unixThen); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// From any serial, with secondaries that lag as they like and publishes in
// between, every server ends at the clock, and each step is forward for all.
func TestRenumberReachesClock(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 2))
		start := r.Uint32()
		serials := []uint32{start, start - r.Uint32N(3), start}
		if r.IntN(4) == 0 {
			serials[2] = start + r.Uint32N(1<<30) // a secondary that was left ahead
		}
		steps := 0
		for n := 0; ; n++ {
			step := renumberStep(serials, unixThen)
			if step.done {
				break
			}
			if n > 200 {
				t.Fatalf("seed %d: from %d no end; the servers have %v", seed, start, serials)
			}
			switch {
			case step.wait < 0:
				if !SerialLess(serials[0], step.next) {
					t.Fatalf("seed %d: a step back from %d to %d", seed, serials[0], step.next)
				}
				serials[0] = step.next
				steps++
			case r.IntN(3) == 0 && serials[0] > unixThen: // somebody publishes
				serials[0] = risingSerial(time.Unix(unixThen, 0), slices.Clone(serials), true)
			}
			for i := range serials[1:] {
				if r.IntN(2) == 0 && SerialLess(serials[i+1], serials[0]) {
					serials[i+1] = serials[0]
				}
			}
		}
		if steps > 5 {
			t.Errorf("seed %d: %d steps from %d", seed, steps, start)
		}
	}
}

func TestRisingSerial(t *testing.T) {
	now := time.Unix(unixThen, 0)
	const half = dated + (unixThen-dated+1<<32)/2
	for name, c := range map[string]struct {
		seen     []uint32
		complete bool
		want     uint32
	}{
		"nothing known":                  {nil, false, unixThen},
		"behind":                         {[]uint32{unixThen - 5}, true, unixThen},
		"the same second":                {[]uint32{unixThen}, true, unixThen + 1},
		"dated":                          {[]uint32{dated, dated - 1}, true, dated + 1},
		"a secondary ahead":              {[]uint32{unixThen - 5, unixThen + 7}, true, unixThen + 8},
		"small":                          {[]uint32{1}, true, unixThen},
		"small, not everybody seen":      {[]uint32{1}, false, 2},
		"halfway, everybody there":       {[]uint32{half, half}, true, unixThen},
		"halfway, a secondary not":       {[]uint32{half, dated}, true, half + 1},
		"halfway, a secondary not seen":  {[]uint32{half}, false, half + 1},
		"near, a secondary not seen":     {[]uint32{unixThen - 500000}, false, unixThen},
		"the last before zero":           {[]uint32{1<<32 - 1}, false, 1},
		"half a circle away, not seen":   {[]uint32{unixThen + 1<<31}, false, unixThen + 1<<31 + 1},
		"more than half a circle, clock": {[]uint32{unixThen + 1<<31 + 1}, true, unixThen},
	} {
		if got := risingSerial(now, c.seen, c.complete); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// secondaryOf starts a secondary of the lab's zone that hears of changes.
func secondaryOf(t *testing.T, primary *testkit.Named) *testkit.Named {
	t.Helper()
	return testkit.StartNamed(t, testkit.NamedConfig{
		Options: "min-refresh-time 1; min-retry-time 1; max-refresh-time 1; max-retry-time 1;",
		Config: fmt.Sprintf(`zone "example.test" { type secondary; file "{dir}/db"; primaries { 127.0.0.1 port %s; }; };`,
			strings.TrimPrefix(primary.Addr, "127.0.0.1:")),
	})
}

func eventuallyServes(t *testing.T, server string, serial uint32) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, func() (bool, string) {
		got, err := ServedSerial(t.Context(), server, "example.test")
		return err == nil && got == serial, fmt.Sprintf("%d, %v", got, err)
	})
}

// cutShort ends a renumbering after its first step, as a kill does.
type cutShort struct {
	Renumberer
	steps int
	end   context.CancelFunc
}

func (c *cutShort) SetSerial(ctx context.Context, serial uint32) error {
	err := c.Renumberer.SetSerial(ctx, serial)
	if c.steps--; c.steps == 0 {
		c.end()
	}
	return err
}

// renumberTwice cuts a renumbering short after one step, publishes, goes on, and
// demands that primary and secondary end at the clock.
func renumberTwice(t *testing.T, r Renumberer, publish func(addr string) uint32) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told []string
	at := r.ServedAt()
	o := RenumberOptions{Pause: 20 * time.Millisecond, Progress: func(text string) { told = append(told, text) }}
	if _, err := Renumber(ctx, &cutShort{r, 1, cancel}, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("the renumbering that was cut short: %v", err)
	}
	publish("192.0.2.2")
	start := time.Now().Unix()
	serial, err := Renumber(t.Context(), r, o)
	if err != nil {
		t.Fatalf("%v\ntold: %q", err, told)
	}
	if int64(serial) < start-3600 || int64(serial) > time.Now().Unix()+3600 {
		t.Errorf("serial %d is not about the Unix time", serial)
	}
	for _, a := range at {
		if got, err := ServedSerial(t.Context(), a.Server, a.Zone); err != nil || covers(serial-1, got) && got != serial {
			t.Errorf("%s has serial %d, %v", a.Server, got, err)
		}
	}
	if next := publish("192.0.2.3"); !SerialLess(serial-1, next) || int64(next) > time.Now().Unix()+3600 {
		t.Errorf("the next publish has serial %d", next)
	}
	if again, err := Renumber(t.Context(), r, o); err != nil || again > uint32(time.Now().Unix()+3600) {
		t.Errorf("renumbering what is renumbered: %d, %v", again, err)
	}
}

func TestRenumberBind(t *testing.T) {
	lab := newBindLab(t, bindSetup{named: testkit.NamedConfig{
		Files:   map[string]string{"inc/soa.include": fmt.Sprintf("$TTL 60\n@ IN SOA ns1 hostmaster %d 300 60 86400 60\n", later)},
		Options: "allow-transfer { any; };",
	}})
	secondary := secondaryOf(t, lab.Named)
	lab.zone.Servers = []string{lab.Addr, secondary.Addr}
	if got := lab.publish(t, "192.0.2.1"); got != later+1 {
		t.Fatalf("serial %d", got)
	}
	eventuallyServes(t, secondary.Addr, later+1)
	renumberTwice(t, lab.pub, func(addr string) uint32 { return lab.publish(t, addr) })
}

func TestRenumberUpdate(t *testing.T) {
	lab := newUpdateLab(t)
	err := lab.pub.SetSerial(t.Context(), dated)
	demandError(t, err, "REFUSED", "zonesub A AAAA SOA")

	lab.Write(t, "named.conf", strings.Replace(lab.read(t, "named.conf"), "zonesub A AAAA;", "zonesub A AAAA SOA;", 1))
	lab.Control(t, "reconfig")
	lab.publish(t, lab.content([]string{"@"}, "192.0.2.1"))
	if err := lab.pub.SetSerial(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	demandError(t, lab.pub.SetSerial(t.Context(), dated), "does not come after")
	secondary := secondaryOf(t, lab.Named)
	eventuallyServes(t, secondary.Addr, later)
	lab.zone.Servers = []string{secondary.Addr}
	lab.publish(t, lab.content([]string{"@"}, "192.0.2.3"))
	renumberTwice(t, lab.pub, func(addr string) uint32 { return lab.publish(t, lab.content([]string{"@"}, addr)) })
}

// A server that does not answer is waited for, and said.
func TestRenumberWaits(t *testing.T) {
	silent := fakeServer(t, func(dns.ResponseWriter, *dns.Msg) {})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Renumber(ctx, servedOnly{{silent, "example.test"}}, RenumberOptions{})
	demandError(t, err, "no answer", "goes on from where the servers are")
}

// servedOnly has no publisher behind it.
type servedOnly []ServedAt

func (s servedOnly) ServedAt() []ServedAt                    { return s }
func (s servedOnly) SetSerial(context.Context, uint32) error { return errors.New("not to be called") }

func TestRenumberTransfer(t *testing.T) {
	s := startServer(t, ServerOptions{})
	secondary := testkit.StartNamed(t, testkit.NamedConfig{
		Options: "min-refresh-time 1; min-retry-time 1; max-refresh-time 1; max-retry-time 1;",
		Config:  fmt.Sprintf(`zone "example.test" { type secondary; file "{dir}/db"; primaries { 127.0.0.1 port %d; }; };`, s.Addr().Port()),
	})
	pub := mustPublisher(t, s, upkeep.Publisher{Secondaries: []string{secondary.Addr}, AllowTransfer: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	publish := func(addr string) uint32 { return mustPublish(t, pub, webContent(addr)) }
	publish("192.0.2.1")
	if err := pub.(Renumberer).SetSerial(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	demandError(t, pub.(Renumberer).SetSerial(t.Context(), dated), "does not come after")
	eventuallyServes(t, secondary.Addr, later)
	renumberTwice(t, pub.(Renumberer), publish)
}

// Secondaries that have the zone from a primary of before, under a serial ahead
// of the clock, take what upkeep publishes first.
func TestTransferTakesOverSerial(t *testing.T) {
	before := testkit.StartNamed(t, testkit.NamedConfig{
		Files:  map[string]string{"db": fmt.Sprintf("$TTL 60\n@ IN SOA ns1 hostmaster %d 300 60 86400 60\n@ IN NS ns1\nns1 IN A 192.0.2.53\n", later)},
		Config: `zone "example.test" { type primary; file "{dir}/db"; };`,
	})
	s := startServer(t, ServerOptions{})
	pub := mustPublisher(t, s, upkeep.Publisher{Secondaries: []string{before.Addr}})
	if got := mustPublish(t, pub, webContent("192.0.2.1")); got != later+1 {
		t.Errorf("serial %d, want %d", got, uint32(later+1))
	}
	if got := mustPublish(t, pub, webContent("192.0.2.2")); got != later+2 {
		t.Errorf("serial %d, want %d", got, uint32(later+2))
	}
}
