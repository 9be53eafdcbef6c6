package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
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
	"upkeep/internal/store"
)

// openedPage is a page that a browser has open.
type openedPage struct{ cookie, at string }

// browserPages is how many pages one browser has open, where it is of staff.
const browserPages = 5

// opened are the open pages: six of ten the first one, of staff; then lists, pools of
// their own, and customers' lists of their own sites.
func (b *bench) opened() []openedPage {
	var all []openedPage
	for i := range b.live {
		page := openedPage{b.cookie(staffBrowser(i / browserPages)), "/"}
		switch i % 10 {
		case 6:
			page.at = "/sites"
		case 7:
			page.at = "/jobs"
		case 8:
			page.at = "/pools/" + pool(i%b.pools)
		case 9:
			page = openedPage{b.cookie(customerBrowser(i / 10)), "/sites"}
		}
		all = append(all, page)
	}
	return all
}

func staffBrowser(i int) string    { return fmt.Sprintf("staff%d", i) }
func customerBrowser(i int) string { return fmt.Sprintf("customer%d", i%accounts) }

func (b *bench) cookie(browser string) string { return "upkeep=" + b.secret + browser }

// browsers signs in the browsers that have pages open, each as a user of its own. It
// does so in the database: upkeep would take memory to hash passwords.
func (b *bench) browsers() error {
	ctx := context.Background()
	s, err := store.Open(ctx, b.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // what was written is committed
	b.secret = rand.Text()
	there := map[string]bool{}
	known, err := s.Users().List(ctx)
	if err != nil {
		return err
	}
	for _, user := range known {
		there[user.Name] = true
	}
	sign := func(user upkeep.User) error {
		const hash = "nobody signs in with a password"
		if !there[user.Name] {
			if _, err := s.Users().Add(ctx, "bench", user, hash, false); err != nil {
				return err
			}
		}
		sum := sha256.Sum256([]byte(b.secret + user.Name))
		_, err := s.Users().SignIn(ctx, user.Name, hash, store.Proof{}, hex.EncodeToString(sum[:]), upkeep.SignIn{Created: b.now, Expires: b.now.Add(24 * time.Hour), Address: "127.0.0.1"})
		return err
	}
	for i := range (b.live + browserPages - 1) / browserPages {
		if err := sign(upkeep.User{Name: staffBrowser(i), Role: upkeep.UserStaff}); err != nil {
			return err
		}
	}
	for i := range min(b.live/10, accounts) {
		if err := sign(upkeep.User{Name: customerBrowser(i), Role: upkeep.UserCustomer, Account: account(i)}); err != nil {
			return err
		}
	}
	return nil
}

// liveTable has pages open while things happen, and shows what upkeep takes then and
// without them.
func (b *bench) liveTable() error {
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
	for _, page := range b.opened() {
		fmt.Fprintln(&list, page.cookie, page.at)
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

// pace makes about ten events a second of what is done: a member that is taken out or
// put back makes four, a site that is changed one.
const pace = 350 * time.Millisecond

// do does the i-th thing. Pools come in turn, so that some have their page open, and
// so do sites of the customers who have theirs open.
func (b *bench) do(ctx context.Context, i int) (err error) {
	n := i / 5
	if i%5 == 4 {
		at := (n*37%100 + n%10*accounts) % b.sites
		document := fmt.Sprintf("kind: site\nname: %s\naccount: %s\nservers: [%s, %s]\naliases: [alias%d.test, news%d.test]\n", site(at), account(at), web(at), web(at+1), at, at*100+n%50)
		_, err = b.control.Apply(ctx, []wire.Source{{Text: document}}, false)
		return err
	}
	which := (n*2 + i%5/2) * 37 % b.pools
	if i%5%2 == 0 {
		_, err = b.control.Force(ctx, pool(which), member(which, 1).String(), wire.Force{State: upkeep.AdminDrain, Why: "bench"})
	} else {
		_, err = b.control.Release(ctx, pool(which), member(which, 1).String())
	}
	return err
}

// work does things in whole rounds for a while, and returns how long exactly.
func (b *bench) work(ctx context.Context, length time.Duration) (time.Duration, error) {
	began := time.Now()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for ; time.Since(began) < length || b.done%5 != 0; b.done++ {
		<-tick.C
		if err := b.do(ctx, b.done); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// warm is how long things happen before it counts: pages that were just opened are
// made for the first time.
const warm = 15 * time.Second

// row has about ten things happen a second for a while.
func (b *bench) row(open int, counts func() (readCounts, error)) error {
	ctx := context.Background()
	if _, err := b.work(ctx, warm); err != nil {
		return err
	}
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
	cpu := processorTime(b.server.PID())
	took, err := b.work(ctx, b.length)
	if err != nil {
		return err
	}
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

// read opens a page for each line of the input up to an empty one, which has a cookie
// and a path. For each line after that it tells what they were told.
func read(address string, input io.Reader) error {
	lines := bufio.NewScanner(input)
	var news, size atomic.Int64
	for lines.Scan() && lines.Text() != "" {
		cookie, at, _ := strings.Cut(lines.Text(), " ")
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		fmt.Fprintf(conn, "GET /live?at=%s HTTP/1.1\r\nHost: %s\r\nCookie: %s\r\nAccept: text/event-stream\r\nAccept-Encoding: gzip\r\n\r\n", url.QueryEscape(at), address, cookie)
		reader := bufio.NewReaderSize(conn, 2048)
		response, err := http.ReadResponse(reader, nil)
		if err != nil || response.StatusCode != http.StatusOK {
			return fmt.Errorf("opening %s: %v %w", at, response, err)
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
