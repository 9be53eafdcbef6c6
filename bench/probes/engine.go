package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"time"

	"upkeep"
	"upkeep/internal/probe"
)

// report is what the engine's process says at its end.
type report struct {
	OK, Failed, Void int
	Stats            probe.Stats
	CPU              time.Duration // while measured
	Wall             time.Duration
	HeapPerMember    int           // bytes
	Setting          time.Duration // of building the specs and one Set
	Peak             int           // KiB
	Reason           string        // of one failure
}

// runEngine probes n addresses for a while and writes a report.
func runEngine(args []string) error {
	flags := flag.NewFlagSet("upkeep", flag.ExitOnError)
	kind := flags.String("type", upkeep.CheckPing, "")
	n := flags.Int("n", 1000, "")
	interval := flags.Duration("interval", time.Second, "")
	port := flags.Int("port", 0, "")
	length := flags.Duration("length", 10*time.Second, "")
	profile := flags.String("profile", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	before := heap()
	e, err := probe.New(probe.Options{})
	if err != nil {
		return err
	}
	c := upkeep.Check{Type: *kind, Port: *port, Interval: upkeep.Duration(*interval)}.WithDefaults()
	var ok, failed, void atomic.Int64
	var reason atomic.Value
	observe := func(r probe.Result) probe.Next {
		switch {
		case r.OK:
			ok.Add(1)
		case r.Void:
			void.Add(1)
			reason.Store(r.Reason)
		default:
			failed.Add(1)
			reason.Store(r.Reason)
		}
		return probe.Next{}
	}
	began := time.Now()
	set(e, *n, c, observe)
	setting := time.Since(began)
	perMember := (heap() - before) / *n
	// The first round, which is quicker than the others, is not measured.
	time.Sleep(min(*interval, 5*time.Second) + 1100*time.Millisecond)
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ok0, failed0, void0, cpu0 := ok.Load(), failed.Load(), void.Load(), cpu()
	began = time.Now()
	time.Sleep(*length)
	r := report{
		OK: int(ok.Load() - ok0), Failed: int(failed.Load() - failed0), Void: int(void.Load() - void0),
		CPU: cpu() - cpu0, Wall: time.Since(began), Stats: e.Stats(),
		HeapPerMember: perMember, Setting: setting,
	}
	r.Reason, _ = reason.Load().(string)
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	r.Peak = int(usage.Maxrss)
	if err := e.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// set builds the specs in a frame of its own, so that they are garbage when it
// returns.
//
//go:noinline
func set(e *probe.Engine, n int, c upkeep.Check, observe func(probe.Result) probe.Next) {
	specs := make(map[probe.Key]probe.Spec, n)
	for i := range n {
		addr := address(i)
		specs[probe.KeyOf(addr, c)] = probe.Spec{Target: addr, Name: addr, Check: c, Observe: observe}
	}
	e.Set(specs)
}

// address is the i-th target.
func address(i int) string { return fmt.Sprintf("127.%d.%d.%d", 10+i/62500, i/250%250, i%250+1) }

func heap() int {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// engine runs the engine in a process of its own.
func engine(args ...string) (report, error) {
	cmd := self("upkeep", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return report{}, fmt.Errorf("running the engine: %w", err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		return report{}, fmt.Errorf("reading the engine's report: %w", err)
	}
	return r, nil
}

func (r report) row(what string) row {
	remark := ""
	if r.Failed+r.Void > 0 {
		remark = r.Reason
	}
	if s := r.Stats; s.Late+s.Strays+s.Duplicates+s.Overflow+s.PutOff+s.Skipped > 0 || s.Paused > 0 {
		remark += fmt.Sprintf(" late %d, strays %d, duplicates %d, overflow %d, put off %d, slots skipped %d, paused %s",
			s.Late, s.Strays, s.Duplicates, s.Overflow, s.PutOff, s.Skipped, s.Paused.Round(time.Millisecond))
	}
	return row{what: what, checks: r.OK, asked: r.OK + r.Failed, cpu: r.CPU, wall: r.Wall, peak: r.Peak, remark: remark}
}
