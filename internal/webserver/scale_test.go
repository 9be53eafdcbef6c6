package webserver

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/vhost"
	"upkeep/internal/weblog"
)

// Scale is measured beside the floor: a script that writes the files, has the
// server's program test them once and reload once, and knows nothing.
//
//	go test ./internal/webserver -run '^$' -bench Scale -benchtime 5x

func (w *world) inputs(from, to int) []vhost.Input {
	w.t.Helper()
	root := ""
	inputs := make([]vhost.Input, 0, to-from)
	for i := from; i < to; i++ {
		in := w.input(fmt.Sprintf("s%05d.test", i), 1)
		root = in.DocumentRoot()
		inputs = append(inputs, in)
	}
	_ = root
	return inputs
}

func (w *world) sync(inputs []vhost.Input) Report {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	report := w.Sync(ctx, inputs, false)
	if report.Err != nil {
		w.t.Fatal(report.Err)
	}
	for site, r := range report.Sites {
		if r.State != upkeep.JobDone {
			w.t.Fatalf("%s: %s: %v", site, r.State, r.Err)
		}
	}
	return report
}

// floor is what a bare script does for one site.
func (w *world) floor(in vhost.Input) {
	w.t.Helper()
	text := fmt.Sprintf("<VirtualHost %s>\nServerName %s\nDocumentRoot %s\n<Directory %s>\nRequire all granted\n</Directory>\nErrorLog %s\nCustomLog %s common\n</VirtualHost>\n",
		in.Layout.Listen, in.Site.Name, in.DocumentRoot(), in.DocumentRoot(), filepath.Join(w.dir, "logs", in.Site.Name+".err"), filepath.Join(w.dir, "logs", in.Site.Name+".log"))
	if err := os.WriteFile(filepath.Join(in.Layout.Include, "60-"+in.Site.Name+".conf"), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	for _, argv := range [][]string{{"-t"}, {"-k", "graceful"}} {
		if _, output, err := run(w.t.Context(), nil, append([]string{w.apache.Program, "-f", w.apache.Config}, argv...)...); err != nil {
			w.t.Fatalf("%v: %s", err, output)
		}
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if status, _, _ := w.request(http.MethodGet, in.Site.Name, "/", nil); status == 200 {
			return
		}
	}
	w.t.Fatalf("%s does not answer", in.Site.Name)
}

// Both in turn, so that what else the machine does falls on both.
func BenchmarkScaleOne(b *testing.B) {
	for _, present := range []int{0, 1000, 5000} {
		b.Run(fmt.Sprint(present), func(b *testing.B) {
			w := newWorld(b)
			w.sync(w.inputs(0, present))
			var floor, ours []time.Duration
			for i := 0; b.Loop(); i++ {
				in := w.input(fmt.Sprintf("floor%05d.test", i), 1)
				start := time.Now()
				w.floor(in)
				floor = append(floor, time.Since(start))
				in = w.input(fmt.Sprintf("ours%05d.test", i), 1)
				start = time.Now()
				w.mustApply(in)
				ours = append(ours, time.Since(start))
			}
			slices.Sort(floor)
			slices.Sort(ours)
			b.ReportMetric(floor[len(floor)/2].Seconds(), "floor-s")
			b.ReportMetric(ours[len(ours)/2].Seconds(), "upkeep-s")
		})
	}
}

// splitCommand has this test binary split logs, as upkeep logs does.
func splitCommand(w *world) []string {
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	return []string{self, splitArgument, w.options.Layout.Logs}
}

const splitArgument = "split-logs"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == splitArgument {
		file, found := strings.CutPrefix(os.Args[3], "--file=")
		if !found {
			os.Exit(2)
		}
		if err := weblog.Run(weblog.Options{Dir: os.Args[2], File: file}, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == privateArgument {
		_, err := Private(context.Background(), os.Args[2], os.Args[3])
		fmt.Println("started", err)
		select {}
	}
	if len(os.Args) == 5 && os.Args[1] == applyArgument {
		fmt.Println(applyWithoutEnd(os.Args[2], os.Args[3], atoi(os.Args[4])))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkScaleAll(b *testing.B) {
	for _, sites := range []int{1000, 10000} {
		b.Run(fmt.Sprint(sites), func(b *testing.B) {
			w := newWorld(b)
			w.Applier.Close()
			w.options.Layout.Pipe = splitCommand(w)
			w.options.PipeAbove = 5000
			w.open()
			inputs := w.inputs(0, sites)
			phase := func(name string) {
				before, start, used := w.Stats(), time.Now(), cpu()
				w.sync(inputs)
				after := w.Stats()
				b.Logf("%6d sites, %-8s %6.2f s, %5.2f s of CPU, %d writes, %d tests, %d reloads, stall %s", sites, name, time.Since(start).Seconds(), (cpu() - used).Seconds(),
					after.Writes-before.Writes, after.Tests-before.Tests, after.Reloads-before.Reloads, after.Stall)
			}
			phase("new")
			phase("same")
			for _, dir := range []string{w.options.Layout.Include} {
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
				if err := os.Mkdir(dir, 0o755); err != nil {
					b.Fatal(err)
				}
			}
			phase("deleted")
		})
	}
}
