package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

// opened are the open pages: seven of ten the first one, the rest lists and pools of
// their own.
func (b *bench) opened() []string {
	var all []string
	for i := range b.live {
		switch i % 10 {
		case 7:
			all = append(all, "/sites")
		case 8:
			all = append(all, "/jobs")
		case 9:
			all = append(all, "/pools/"+pool(i%b.pools))
		default:
			all = append(all, "/")
		}
	}
	return all
}

// liveTable has pages open while things happen, and shows what upkeep takes then and
// without them.
func (b *bench) liveTable() error {
	staff, err := b.signIn("ada")
	if err != nil {
		return err
	}
	fmt.Printf("\n| open pages | events a second | CPU of upkeep, of one core | memory of upkeep | news to a page a second | bytes to a page a second |\n|---|---|---|---|---|---|\n")
	if err := b.row(0, nil); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-readers", b.address)
	var list strings.Builder
	root := &url.URL{Scheme: "http", Host: b.address}
	fmt.Fprintln(&list, staff.client.Jar.Cookies(root)[0].String())
	for _, at := range b.opened() {
		fmt.Fprintln(&list, at)
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()     // it has nothing to lose
	if _, err := fmt.Fprintln(input, list.String()); err != nil { // an empty line ends it
		return err
	}
	told := bufio.NewScanner(output)
	if !told.Scan() || told.Text() != "open" {
		return fmt.Errorf("opening the pages: %q", told.Text())
	}
	return b.row(b.live, func() (counts readCounts, err error) {
		if _, err := fmt.Fprintln(input, "how much?"); err != nil {
			return counts, err
		}
		if !told.Scan() {
			return counts, io.ErrUnexpectedEOF
		}
		return counts, json.Unmarshal(told.Bytes(), &counts)
	})
}

// row has about ten things happen a second for a while.
func (b *bench) row(open int, counts func() (readCounts, error)) error {
	ctx := context.Background()
	var before, after readCounts
	var err error
	if counts != nil {
		if before, err = counts(); err != nil {
			return err
		}
	}
	first, err := b.last(ctx)
	if err != nil {
		return err
	}
	cpu, began := processorTime(b.server.PID()), time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for i := 0; time.Since(began) < b.length; i++ {
		<-tick.C
		name, address := pool(i/2*37%b.pools), member(i/2*37%b.pools, 1).String()
		if i%2 == 0 {
			_, err = b.control.Force(ctx, name, address, wire.Force{State: upkeep.AdminDrain, Why: "bench"})
		} else {
			_, err = b.control.Release(ctx, name, address)
		}
		if err != nil {
			return err
		}
	}
	took := time.Since(began)
	used := processorTime(b.server.PID()) - cpu
	memory := resident(b.server.PID())
	last, err := b.last(ctx)
	if err != nil {
		return err
	}
	if counts != nil {
		if after, err = counts(); err != nil {
			return err
		}
	}
	pages := max(1, float64(open)) * took.Seconds()
	fmt.Printf("| %d | %.1f | %.1f %% | %.0f MB | %.2f | %.0f |\n", open, float64(last-first)/took.Seconds(), 100*used.Seconds()/took.Seconds(), memory,
		float64(after.News-before.News)/pages, float64(after.Bytes-before.Bytes)/pages)
	return nil
}

// last is the id of the newest event.
func (b *bench) last(ctx context.Context) (int64, error) {
	events, err := b.control.Events(ctx, client.EventFilter{Limit: 1})
	if err != nil || len(events) == 0 {
		return 0, err
	}
	return events[len(events)-1].ID, nil
}

// processorTime is what a process has used (proc(5), fields 14 and 15 of stat).
func processorTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var user, system int64
	_, _ = fmt.Sscan(fields[11]+" "+fields[12], &user, &system) // the kernel writes numbers
	return time.Duration(user+system) * 10 * time.Millisecond
}

// resident is what the system has given to a process, in MB.
func resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, pages int
	if err == nil {
		_, err = fmt.Sscan(string(text), &size, &pages)
	}
	if err != nil {
		return 0
	}
	return float64(pages*os.Getpagesize()) / 1e6
}

// readCounts is what the open pages were told, all together.
type readCounts struct{ News, Bytes int64 }

// read opens a page for each line of the input up to an empty one, but the first,
// which is the cookie that all show. For each line after that it tells what they were
// told.
func read(address string, input io.Reader) error {
	lines := bufio.NewScanner(input)
	if !lines.Scan() {
		return io.ErrUnexpectedEOF
	}
	cookie := lines.Text()
	var news, size atomic.Int64
	for lines.Scan() && lines.Text() != "" {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		fmt.Fprintf(conn, "GET /live?at=%s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nAccept: text/event-stream\r\nAccept-Encoding: gzip\r\n\r\n", url.QueryEscape(lines.Text()), address, cookie)
		reader := bufio.NewReaderSize(conn, 2048)
		response, err := http.ReadResponse(reader, nil)
		if err != nil || response.StatusCode != http.StatusOK {
			return fmt.Errorf("opening %s: %v %w", lines.Text(), response, err)
		}
		go func() {
			piece := make([]byte, 32<<10)
			for {
				n, err := response.Body.Read(piece)
				if err != nil {
					fmt.Fprintln(os.Stderr, "an open page ended:", err)
					return
				}
				news.Add(1)
				size.Add(int64(n))
			}
		}()
	}
	fmt.Println("open")
	for lines.Scan() {
		text, err := json.Marshal(readCounts{news.Load(), size.Load()})
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return lines.Err()
}
