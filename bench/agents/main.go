// Agents measures what idle agents cost one control: a thousand of them, in a
// process of their own, join over the network, connect, and then do nothing. What
// is measured is the process of control: its processor time and its memory.
//
// It also measures the two moments in which they are not idle: all joining, and
// all coming back after control has started anew.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"upkeep"
	"upkeep/internal/link"
	"upkeep/internal/link/authority"
	"upkeep/internal/link/rostertest"
)

func main() {
	count := flag.Int("agents", 1000, "how many")
	idle := flag.Duration("for", time.Minute, "how long they are watched doing nothing")
	control := flag.String("control", "", "be the agents of the control at this address, with tokens from standard input")
	flag.Parse()
	run := func() error { return measure(*count, *idle) }
	if *control != "" {
		run = func() error { return beAgents(*control, os.Stdin) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// stage is a control with what its agents do on it.
type stage struct {
	authority *authority.Authority
	roster    *rostertest.Memory
	connected atomic.Int64
	address   string
	stop      func() error
}

func (s *stage) serve(address string) error {
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	s.address = listener.Addr().String()
	hub := link.NewHub(link.HubOptions{
		Authority: s.authority, Roster: s.roster, Connected: s.wait, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- hub.Serve(ctx, listener) }()
	s.stop = func() error { cancel(); return <-served }
	return nil
}

// wait is what control does with a link on which nothing happens.
func (s *stage) wait(_ string, _ link.Hello, conn link.Conn) {
	s.connected.Add(1)
	defer s.connected.Add(-1)
	for {
		if _, err := conn.Receive(context.Background()); err != nil {
			return
		}
	}
}

func (s *stage) until(count int64, within time.Duration) (time.Duration, error) {
	began := time.Now()
	for s.connected.Load() != count {
		if time.Since(began) > within {
			return 0, fmt.Errorf("%d of %d agents are connected after %s", s.connected.Load(), count, within)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began), nil
}

func measure(count int, idle time.Duration) error {
	dir, err := os.MkdirTemp("", "agents")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // nothing of value is in it
	s := &stage{roster: rostertest.NewMemory()}
	if s.authority, err = authority.Open(filepath.Join(dir, "link"), time.Now); err != nil {
		return err
	}
	if err := s.serve("127.0.0.1:0"); err != nil {
		return err
	}
	agents, err := s.startAgents(count, dir)
	if err != nil {
		return err
	}
	defer func() { _ = agents.Process.Kill(); _ = agents.Wait() }() // they have nothing to lose
	fmt.Printf("| what | agents | time | CPU of control | of one core | memory of control |\n|---|---|---|---|---|---|\n")
	before := processorTime()
	took, err := s.until(int64(count), 5*time.Minute)
	if err != nil {
		return err
	}
	row("join and connect", count, took, processorTime()-before)

	debug.FreeOSMemory() // what joining left behind is not what idling costs
	time.Sleep(5 * time.Second)
	before = processorTime()
	time.Sleep(idle)
	row("idle", count, idle, processorTime()-before)
	if n := s.connected.Load(); n != int64(count) {
		return fmt.Errorf("%d of %d agents are connected after idling", n, count)
	}

	if err := s.stop(); err != nil {
		return err
	}
	before = processorTime()
	if err := s.serve(s.address); err != nil {
		return err
	}
	if took, err = s.until(int64(count), time.Minute); err != nil {
		return err
	}
	row("back after a new start of control", count, took, processorTime()-before)
	return s.stop()
}

// startAgents has them keep their files below dir, because they are killed.
func (s *stage) startAgents(count int, dir string) (*exec.Cmd, error) {
	var tokens strings.Builder
	for n := range count {
		token, invitation := s.authority.Invite(fmt.Sprintf("server-%d", n), time.Hour)
		if err := s.roster.Invite(context.Background(), invitation); err != nil {
			return nil, err
		}
		fmt.Fprintln(&tokens, token.Text())
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-control", "https://"+s.address)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Stdin, cmd.Stderr = strings.NewReader(tokens.String()), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, cmd.Start()
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // cannot fail with these arguments
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func row(what string, count int, took, cpu time.Duration) {
	fmt.Printf("| %s | %d | %s | %s | %.1f %% | %s |\n", what, count, took.Round(10*time.Millisecond), cpu.Round(time.Millisecond),
		100*cpu.Seconds()/took.Seconds(), memory())
}

// memory is what the system has given to this process (resident set), and what of
// that the Go heap and stacks use.
func memory() string {
	text, err := os.ReadFile("/proc/self/statm")
	var size, resident int
	if err == nil {
		_, err = fmt.Sscan(string(text), &size, &resident)
	}
	if err != nil {
		return err.Error()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return fmt.Sprintf("%.0f MB (heap %.0f, stacks %.0f)", float64(resident*os.Getpagesize())/1e6, float64(m.HeapInuse)/1e6, float64(m.StackInuse)/1e6)
}

// beAgents joins with each token of a list, and stays connected.
func beAgents(control string, tokens io.Reader) error {
	dir, err := os.MkdirTemp("", "agents")
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	lines := bufio.NewScanner(tokens)
	for n := 0; lines.Scan(); n++ {
		identity, err := link.Join(context.Background(), link.JoinOptions{
			Control: control, Token: lines.Text(), Folder: filepath.Join(dir, fmt.Sprint(n)), Now: time.Now,
		})
		if err != nil {
			return err
		}
		dialer := &link.Dialer{Identity: identity, Now: time.Now, Log: slog.New(slog.DiscardHandler), Save: func(link.Identity) error { return nil }}
		all.Go(func() { dialer.Run(context.Background(), idle) })
	}
	all.Wait()
	return lines.Err()
}

func idle(conn link.Conn) {
	hello := link.Message{Hello: &link.Hello{Version: "bench", Kinds: []string{upkeep.JobSiteApply, upkeep.JobMkdir}}}
	if conn.Send(context.Background(), hello) != nil {
		return
	}
	for {
		if _, err := conn.Receive(context.Background()); err != nil {
			return
		}
	}
}
