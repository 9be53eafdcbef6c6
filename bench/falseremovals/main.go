// Falseremovals simulates members of pools on lossy paths, and prints how often
// living ones were taken for dead, and how long it took to notice dead ones. It
// plays the detector that upkeep runs, and beside it the rules of others.
//
//	go run ./bench/falseremovals                 1,000 member-days each: some minutes
//	go run ./bench/falseremovals -days 20        a quick look
//
// Nothing in it is random from run to run: the same flags print the same table,
// whatever the machine.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/failover/simulate"
)

// rule is a way to decide: a check with its options.
type rule struct {
	name  string
	check upkeep.Check
	share float64 // of the member-days that are asked for, to bound the time it takes
}

func rules() []rule {
	off := false
	ms := func(n int) upkeep.Duration { return upkeep.Duration(time.Duration(n) * time.Millisecond) }
	tcp := func(c upkeep.Check) upkeep.Check {
		c.Type, c.Port = upkeep.CheckTCP, 80
		return c
	}
	return []rule{
		{"upkeep, interval 1s", tcp(upkeep.Check{}), 1},
		{"upkeep, interval 100ms", tcp(upkeep.Check{Interval: ms(100)}), 0.1},
		{"upkeep, heartbeat 100ms", upkeep.Check{Type: upkeep.CheckHeartbeat, Interval: ms(100)}, 1},
		{"upkeep, 1s, min_span 3s", tcp(upkeep.Check{MinSpan: ms(3000)}), 1},
		{"gdnsd, defaults", tcp(upkeep.Check{Interval: ms(10_000), Timeout: ms(5000), Fall: 10, OKReset: 10, Rise: 20, Burst: &off}), 1},
		{"PowerDNS Lua, defaults", tcp(upkeep.Check{Interval: ms(5000), Timeout: ms(2000), Fall: 1, OKReset: 1, Rise: 1, Burst: &off}), 1},
		{"three in a row, 1s", tcp(upkeep.Check{Fall: 3, OKReset: 1, Rise: 3, Burst: &off}), 1},
	}
}

// path is a kind of network.
type path struct {
	name string
	make func(*rand.Rand) simulate.Path
}

func paths() []path {
	random := func(loss float64) func(*rand.Rand) simulate.Path {
		return func(r *rand.Rand) simulate.Path { return simulate.Random{Loss: loss, Rand: r} }
	}
	bursty := func(loss float64, bad time.Duration) func(*rand.Rand) simulate.Path {
		good := time.Duration(float64(bad) * (1 - loss) / loss)
		return func(r *rand.Rand) simulate.Path {
			return &simulate.Bursty{Good: good, Bad: bad, BadLoss: 1, Rand: r}
		}
	}
	return []path{
		{"clean", random(0)},
		{"1 % at random", random(0.01)},
		{"5 % at random", random(0.05)},
		{"20 % at random", random(0.2)},
		{"1 % in bursts of 0.1s", bursty(0.01, 100*time.Millisecond)},
		{"5 % in bursts of 0.5s", bursty(0.05, 500*time.Millisecond)},
		{"5 % in bursts of 2s", bursty(0.05, 2*time.Second)},
	}
}

// options of a run.
type options struct {
	days   float64 // member-days for each line
	each   time.Duration
	deaths int
	warm   time.Duration
}

// line is a line of the table.
type line struct {
	days           float64
	falls, early   int // false removals, and those of them in a member's first minute
	samples        int
	drops, refuses []time.Duration
	missed         int // deaths that were not noticed in ten minutes
}

func main() {
	log.SetFlags(0)
	o := options{}
	flag.Float64Var(&o.days, "days", 1000, "member-days to simulate for each line of the table")
	flag.DurationVar(&o.each, "each", 24*time.Hour, "how long each member lives: its detector begins with no knowledge")
	flag.IntVar(&o.deaths, "deaths", 1000, "deaths of each kind to simulate for each line")
	flag.DurationVar(&o.warm, "warm", 30*time.Minute, "how long a member lives before it dies")
	only := flag.String("only", "", "only rules whose name contains this")
	flag.Parse()
	if o.days <= 0 || o.each <= 0 || o.deaths < 1 || o.warm <= 0 {
		log.Fatal("falseremovals: days, each, deaths and warm must be above zero")
	}
	run(os.Stdout, o, *only)
}

func run(out io.Writer, o options, only string) {
	fmt.Fprintln(out, "| rule | path | member-days | probes | false removals | of these in the first minute | host drops: median / 95 % / max | host refuses: median / 95 % / max |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|")
	for _, r := range rules() {
		if !strings.Contains(r.name, only) {
			continue
		}
		for _, p := range paths() {
			simulated := simulateLine
			if r.check.Type == upkeep.CheckHeartbeat {
				simulated = simulateBeats
			}
			l := simulated(r, p, o)
			fmt.Fprintf(out, "| %s | %s | %.0f | %.1f M | %d | %d | %s | %s |\n",
				r.name, p.name, l.days, float64(l.samples)/1e6, l.falls, l.early, quantiles(l.drops), quantiles(l.refuses))
			if l.missed > 0 {
				fmt.Fprintf(out, "| | | | | | | %d deaths were not noticed in ten minutes | |\n", l.missed)
			}
		}
	}
}

func simulateLine(r rule, p path, o options) line {
	l := line{}
	members := max(1, int(o.days*r.share*float64(24*time.Hour)/float64(o.each)+0.5))
	l.days = float64(members) * o.each.Hours() / 24
	var mu sync.Mutex
	parallel(members, func(i int) {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		m := simulate.NewMember(r.check, p.make(random), random)
		m.Live(min(time.Minute, o.each))
		early := m.Falls
		m.Live(o.each)
		mu.Lock()
		defer mu.Unlock()
		l.falls += m.Falls
		l.early += early
		l.samples += m.Samples
	})
	parallel(o.deaths, func(i int) {
		for how, took := range map[simulate.Death]*[]time.Duration{simulate.Drops: &l.drops, simulate.Refuses: &l.refuses} {
			random := rand.New(rand.NewPCG(uint64(i), 2))
			m := simulate.NewMember(r.check, p.make(random), random)
			at := o.warm + time.Duration(random.Int64N(int64(2*m.Check.Interval)))
			m.Live(at)
			for m.Detector.Verdict() != upkeep.Up { // one falsely removed cannot die
				at += time.Duration(m.Check.Interval)
				m.Live(at)
			}
			after, down := m.Die(at, how, 10*time.Minute)
			mu.Lock()
			if *took = append(*took, after); !down {
				l.missed++
			}
			mu.Unlock()
		}
	})
	return l
}

// simulateBeats is simulateLine for members that beat, and that are as late with
// it as machines are that have other things to do. A member that beats refuses
// nothing: it dies in one way.
func simulateBeats(r rule, p path, o options) line {
	l := line{}
	members := max(1, int(o.days*r.share*float64(24*time.Hour)/float64(o.each)+0.5))
	l.days = float64(members) * o.each.Hours() / 24
	beater := func(random *rand.Rand) *simulate.Beater {
		b := simulate.NewBeater(r.check, p.make(random), random)
		b.Late = simulate.Busy
		return b
	}
	var mu sync.Mutex
	parallel(members, func(i int) {
		b := beater(rand.New(rand.NewPCG(uint64(i), 1)))
		b.Live(min(time.Minute, o.each))
		early := b.Falls
		b.Live(o.each)
		mu.Lock()
		defer mu.Unlock()
		l.falls += b.Falls
		l.early += early
		l.samples += b.Samples
	})
	parallel(o.deaths, func(i int) {
		random := rand.New(rand.NewPCG(uint64(i), 2))
		b := beater(random)
		at := o.warm + time.Duration(random.Int64N(int64(2*b.Check.Interval)))
		b.Live(at)
		for b.Detector.Verdict() != upkeep.Up { // one falsely removed cannot die
			at += time.Duration(b.Check.Interval)
			b.Live(at)
		}
		after, down := b.Die(at, 10*time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if l.drops = append(l.drops, after); !down {
			l.missed++
		}
	})
	return l
}

// parallel calls f with 0 to n-1 on all processors.
func parallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	work := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range work {
				f(i)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
}

func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "-"
	}
	slices.Sort(d)
	at := func(q float64) string { return fmt.Sprintf("%.2f", d[int(q*float64(len(d)-1))].Seconds()) }
	return at(0.5) + " / " + at(0.95) + " / " + at(1) + " s"
}
