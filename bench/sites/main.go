// Sites measures how long it takes from the moment at which a virtual host is
// asked for until it answers: with upkeep, with the article's PHP script on
// MariaDB, with Caddy's API where it does the same work, and with the floor, a bare
// script that writes the files, runs one test and one graceful reload. It also
// counts reloads, failed requests to a site that has nothing to do with the
// change, and the processor time of a regeneration.
//
//	go run ./bench/sites                        # as root, about half an hour
//	go run ./bench/sites -quick                 # to see that it runs
//	go run ./bench/sites -only 'floor|upkeep' -parts one,many
//
// Needs apache2, mariadb-server, php-cli, php-mysql and caddy from Debian; a
// contender whose program is missing is left out, and said.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// options is what the flags say.
type options struct {
	quick  bool
	sites  int // to be made anew
	only   *regexp.Regexp
	parts  map[string]bool
	upkeep string // program to measure
	work   string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	o := options{parts: map[string]bool{}}
	flag.BoolVar(&o.quick, "quick", false, "small numbers: to see that it runs")
	flag.IntVar(&o.sites, "sites", 10_000, "how many sites are made anew in the part regenerate")
	flag.StringVar(&o.upkeep, "upkeep", "", "upkeep program to measure; built from this module when left out")
	// The agent trusts no folder that others may write.
	work := flag.String("work", "/var/lib", "folder in which everything is made; it and those above it must be root's")
	only := flag.String("only", ".", "contenders whose name matches")
	parts := flag.String("parts", "one,many,regenerate,jobs", "what to measure")
	flag.Parse()
	if os.Getuid() != 0 {
		return errors.New("the measurements need root, as the servers do")
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	for part := range strings.SplitSeq(*parts, ",") {
		o.parts[part] = true
	}
	if o.work, err = os.MkdirTemp(*work, "upkeep-sites-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.work)
	if err := os.Chmod(o.work, 0o755); err != nil {
		return err
	}
	if o.upkeep == "" {
		o.upkeep = filepath.Join(o.work, "upkeep")
		build := exec.Command("go", "build", "-o", o.upkeep, "upkeep/cmd/upkeep")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building upkeep: %w", err)
		}
	}
	var results []*result
	for _, c := range contenders() {
		if !o.only.MatchString(c.name) {
			continue
		}
		r := &result{name: c.name}
		results = append(results, r)
		begin := time.Now()
		if r.err = r.measure(o, c); r.err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", c.name, r.err)
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", c.name, time.Since(begin).Round(time.Second))
	}
	report(os.Stdout, results)
	return nil
}

// contender is one way of serving sites.
type contender struct {
	name  string
	start func(o options, dir string) (stage, error)
}

// stage is a contender at work. Names are those of sites.
type stage interface {
	// add asks for sites, all in one go, and returns when that is on record: what
	// has no record returns at once and works in the background.
	add(names []string) error
	// url is where the sites answer.
	url() string
	// spent is the processor time of everything but the web server so far.
	spent() time.Duration
	// reloads is how often the web server has read its configuration anew.
	reloads() int
	stop()
}

// regenerator is a stage that can write everything anew.
type regenerator interface {
	// regenerate throws generated files away and has them made again; it returns
	// when they serve.
	regenerate(names []string) error
	// settle has everything generated where nothing has changed.
	settle(names []string) error
}

// jobber is a stage that can make folders.
type jobber interface {
	// mkdirs has n folders made, and returns how long it took until the first and
	// until the last was there.
	mkdirs(n int) (first, last time.Duration, err error)
}

func contenders() []contender {
	return []contender{
		{"floor", startFloor},
		{"article", startArticle},
		{"caddy", startCaddy},
		{"upkeep", startUpkeep},
	}
}
