// Dns measures what answering costs: upkeep's own DNS server beside gdnsd, BIND
// and PowerDNS, in turns within one run on one machine.
//
//	go run ./bench/dns                    # about two minutes
//	go run ./bench/dns -rounds 1 -time 2s # a quick look
//
// Needs dnsperf and the servers (Debian: dnsperf gdnsd bind9 pdns-server
// pdns-backend-bind); one that is not installed is left out. All serve the same
// name with five A records on the loopback interface, and dnsperf asks for
// nothing else. It runs on the same processors, so the queries a second are those
// of both together; what compares the servers is the processor time (user and
// system) of the server process for each query answered, as the kernel accounts
// it. Rounds are taken in turns and the median is shown, since other work on the
// machine disturbs all of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	zoneName = "bench.test"
	asked    = "www." + zoneName
)

var addresses = []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"}

func main() {
	if os.Args[0] == "upkeep-answering" {
		if err := answerAsUpkeep(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	rounds := flag.Int("rounds", 3, "rounds of each server and load")
	length := flag.Duration("time", 5*time.Second, "length of a round, 10s at most")
	only := flag.String("only", "", "servers to measure, separated by commas; all when empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *rounds, min(*length, 10*time.Second), *only); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1)
	}
}

// load is a way of asking.
type load struct {
	name string
	args []string // of dnsperf
}

var loads = []load{
	{"as fast as it goes", []string{"-q", "100"}},
	{"as fast as it goes, EDNS", []string{"-q", "100", "-e"}},
	{"20,000 a second, EDNS", []string{"-q", "100", "-e", "-Q", "20000"}},
}

func run(ctx context.Context, rounds int, length time.Duration, only string) error {
	dir, err := os.MkdirTemp("", "upkeep-bench-dns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	questions := filepath.Join(dir, "questions")
	if err := os.WriteFile(questions, []byte(asked+" A\n"), 0o644); err != nil {
		return err
	}
	running, err := startAll(ctx, dir, only)
	defer stopAll(running)
	if err != nil {
		return err
	}
	fmt.Println("| load | server | queries/s | lost | CPU µs per query (user + system) | median |")
	fmt.Println("| --- | --- | --- | --- | --- | --- |")
	for _, l := range loads {
		measured := make([][]sample, len(running))
		for range rounds {
			for i, s := range running {
				one, err := measure(ctx, s, l, questions, length)
				if err != nil {
					return fmt.Errorf("measuring %s: %w", s.name, err)
				}
				measured[i] = append(measured[i], one)
			}
		}
		for i, s := range running {
			fmt.Println(row(l, s.name, measured[i]))
		}
	}
	return nil
}

func row(l load, name string, samples []sample) string {
	slices.SortFunc(samples, func(a, b sample) int { return int(1000 * (a.perQuery() - b.perQuery())) })
	middle := samples[len(samples)/2]
	var each []string
	lost := 0
	for _, s := range samples {
		each = append(each, fmt.Sprintf("%.2f", s.perQuery()))
		lost += s.lost
	}
	return fmt.Sprintf("| %s | %s | %.0f | %d | %s (%.2f + %.2f) | **%.2f** |", l.name, name, middle.rate, lost,
		strings.Join(each, ", "), middle.per(middle.user), middle.per(middle.system), middle.perQuery())
}

// startAll starts every server that is installed and wanted.
func startAll(ctx context.Context, dir, only string) ([]*server, error) {
	var running []*server
	for _, c := range contenders {
		if only != "" && !slices.Contains(strings.Split(only, ","), c.name) {
			continue
		}
		if _, err := exec.LookPath(c.program); c.program != "" && err != nil {
			fmt.Fprintf(os.Stderr, "%s is not installed and left out\n", c.name)
			continue
		}
		s, err := start(ctx, c, filepath.Join(dir, c.name))
		if err != nil {
			return running, fmt.Errorf("starting %s: %w", c.name, err)
		}
		running = append(running, s)
	}
	return running, nil
}

func stopAll(running []*server) {
	for _, s := range running {
		_ = s.process.Process.Signal(syscall.SIGKILL) // it may have ended by itself
		_ = s.process.Wait()
	}
}
