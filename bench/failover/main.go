// Command failover measures how long DNS goes on answering with a member that
// has died: with gdnsd, with PowerDNS Lua records, with a cron script that pings
// and reloads BIND, and with upkeep on BIND and by itself. Every contender runs
// for real, on its own network of namespaces; the answers are asked for every
// two milliseconds, of the slow ones every twenty.
//
// It needs root, Linux, what `make deps` installs, and the rivals, which no test
// needs: Debian's packages gdnsd, pdns-server and pdns-backend-bind.
//
//	go run ./bench/failover [-n 20] [-quick] [-only REGEXP] [-parallel 3]
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// options is what the flags say.
type options struct {
	n        int
	quick    bool
	only     *regexp.Regexp
	parallel int
	upkeep   string // path of the program measured
	work     string // folder for everything
	parts    map[string]bool
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	o := options{parts: map[string]bool{}}
	flag.IntVar(&o.n, "n", 20, "kills of each kind per contender")
	flag.BoolVar(&o.quick, "quick", false, "two kills of each kind, ten seconds of loss: to see that it runs")
	flag.IntVar(&o.parallel, "parallel", 2, "contenders that run at the same time, each on a network of its own")
	flag.StringVar(&o.upkeep, "upkeep", "", "upkeep program to measure; built from this module when left out")
	only := flag.String("only", ".", "contenders whose name matches")
	parts := flag.String("parts", "kill,loss,open", "what to measure")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	for _, part := range regexp.MustCompile(`[a-z]+`).FindAllString(*parts, -1) {
		o.parts[part] = true
	}
	if o.quick {
		o.n = 2
	}
	if err := present("gdnsd", "pdns_server"); err != nil {
		return err
	}
	if o.work, err = os.MkdirTemp("", "upkeep-failover-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(o.work) }()
	if o.upkeep == "" {
		o.upkeep = filepath.Join(o.work, "upkeep")
		build := exec.Command("go", "build", "-o", o.upkeep, "upkeep/cmd/upkeep")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building upkeep: %w", err)
		}
	}
	begin := time.Now()
	results := o.measure()
	report(os.Stdout, o, results)
	log.Printf("took %s", time.Since(begin).Round(time.Second))
	for _, r := range results {
		if r.err != nil {
			return fmt.Errorf("%s: %w", r.contender.name, r.err)
		}
	}
	return nil
}

// present says which of the rivals' programs have to be installed first: without
// that, half an hour would pass before the table shows the gap.
func present(programs ...string) error {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w; apt-get install gdnsd pdns-server pdns-backend-bind", err)
		}
	}
	return nil
}

// measure runs every contender, some at a time; which ones share the machine
// follows from their order alone.
func (o options) measure() []*result {
	var results []*result
	for _, c := range contenders() {
		if o.only.MatchString(c.name) {
			results = append(results, &result{contender: c})
		}
	}
	slots := make(chan struct{}, o.parallel)
	var running sync.WaitGroup
	for _, r := range results {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			log.Printf("%s: begins", r.contender.name)
			r.err = r.run(o)
			log.Printf("%s: done, %v", r.contender.name, r.err)
		})
	}
	running.Wait()
	return results
}
