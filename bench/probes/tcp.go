package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// measureTCP has gdnsd and upkeep check the same members, one after the other,
// against one program that accepts and closes.
func measureTCP(length time.Duration) ([]row, error) {
	target, err := startAcceptor()
	if err != nil {
		return nil, err
	}
	defer target.stop()
	var rows []row
	for _, n := range []int{5_000, 20_000} {
		for range 2 {
			r, err := gdnsd(n, target, length)
			if err != nil {
				return rows, err
			}
			rows = append(rows, r)
			e, err := engine("-type", "tcp", "-n", strconv.Itoa(n), "-interval", "2s", "-port", strconv.Itoa(target.port), "-length", length.String())
			if err != nil {
				return rows, err
			}
			rows = append(rows, e.row(fmt.Sprintf("upkeep, tcp, %d members, interval 2s", n)))
		}
	}
	return rows, nil
}

// gdnsd runs the real one with n members and counts the connections that arrive.
func gdnsd(n int, target *acceptor, length time.Duration) (row, error) {
	dir, err := os.MkdirTemp("", "probes-gdnsd-")
	if err != nil {
		return row{}, err
	}
	defer os.RemoveAll(dir)
	if err := writeGdnsd(dir, n, target.port); err != nil {
		return row{}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return row{}, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "gdnsd", "-c", dir, "start")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return row{}, fmt.Errorf("starting gdnsd: %w", err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	// Its first round comes at once; what is measured is the steady state.
	if err := target.settle(n, 20*time.Second); err != nil {
		text, _ := os.ReadFile(log.Name())
		return row{}, fmt.Errorf("%w; gdnsd says: %.600s", err, text)
	}
	time.Sleep(3 * time.Second)
	count0, cpu0, began := target.count(), processCPU(cmd.Process.Pid), time.Now()
	time.Sleep(length)
	return row{
		what: fmt.Sprintf("gdnsd, tcp_connect, %d members, interval 2s", n), checks: target.count() - count0,
		cpu: processCPU(cmd.Process.Pid) - cpu0, wall: time.Since(began), peak: processPeak(cmd.Process.Pid),
	}, nil
}

func writeGdnsd(dir string, n, port int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "options => { listen => 127.0.0.1:5353, zones_default_ttl => 60, run_dir => \"%[1]s/run\", state_dir => \"%[1]s/state\" }\n", dir)
	fmt.Fprintf(&b, "service_types => { t => { plugin => tcp_connect, port => %d, interval => 2, timeout => 1 } }\n", port)
	b.WriteString("plugins => { multifo => { service_types => t\n")
	for i := range n {
		if i%100 == 0 {
			if i > 0 {
				b.WriteString("}\n")
			}
			fmt.Fprintf(&b, "r%d => {", i/100)
		}
		fmt.Fprintf(&b, " a%d => %s", i%100, address(i))
	}
	b.WriteString("}\n}}\n")
	for _, sub := range []string{"run", "state", "zones"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	zone := "@ SOA ns1 host 1 7200 1800 259200 900\n@ NS ns1\nns1 A 127.0.0.1\nwww DYNA multifo!r0\n"
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "config"), []byte(b.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "zones", "example.test"), []byte(zone), 0o644))
}

// acceptor is the far end, in a process of its own.
type acceptor struct {
	cmd  *exec.Cmd
	port int
	ask  func() int
}

func startAcceptor() (*acceptor, error) {
	cmd := self("acceptor")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the far end: %w", err)
	}
	lines := bufio.NewScanner(out)
	number := func() int {
		if !lines.Scan() {
			return 0
		}
		n, _ := strconv.Atoi(lines.Text())
		return n
	}
	a := &acceptor{cmd: cmd, port: number()}
	a.ask = func() int {
		fmt.Fprintln(in)
		return number()
	}
	return a, nil
}

func (a *acceptor) count() int { return a.ask() }

func (a *acceptor) stop() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// settle waits until n more connections have come.
func (a *acceptor) settle(n int, limit time.Duration) error {
	start := a.count()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if a.count()-start >= n {
			return nil
		}
	}
	return fmt.Errorf("only %d of %d members were checked within %s", a.count()-start, n, limit)
}

func runAcceptor([]string) error {
	listener, err := net.Listen("tcp4", "0.0.0.0:8081")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	raw, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	_ = syscall.SetNonblock(int(raw.Fd()), false)
	var n atomic.Int64
	for range 2 {
		go func() {
			for {
				fd, _, err := syscall.Accept(int(raw.Fd()))
				if err != nil {
					continue
				}
				n.Add(1)
				syscall.Close(fd)
			}
		}()
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(n.Load())
	}
	return nil
}

// processCPU is the user and system time of a process so far.
func processCPU(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// processPeak is the most resident memory of a process in KiB.
func processPeak(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, "VmHWM:"); is {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kib
		}
	}
	return 0
}
