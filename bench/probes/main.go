// Probes measures what a check costs: upkeep's engine beside fping (ping) and
// gdnsd (tcp), in one run on one machine, in a network namespace of its own.
//
//	sudo go run ./bench/probes            # all, about two minutes
//	sudo go run ./bench/probes -only ping # or tcp, scale, idle
//
// Figures are processor seconds (user and system) of the checking process as
// the kernel accounts them, for each 1,000 checks that were answered. The
// targets are addresses of the loopback interface, so that the kernel's work of
// answering is part of them, for all alike.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// roles are what this program is when it runs itself.
var roles = map[string]func(args []string) error{
	"inside":   inside,
	"upkeep":   runEngine,
	"acceptor": runAcceptor,
}

func main() {
	if role, is := strings.CutPrefix(os.Args[0], "probes:"); is {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "error: %s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	flag.Bool("h", false, "show this")
	// The namespace holds nothing but a loopback interface, which is brought up
	// by the program inside.
	cmd := self("inside", os.Args[1:]...)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "error: measuring in a network namespace (needs root): %v\n", err)
		os.Exit(1)
	}
}

// self is a command that runs this program in another role and dies with it.
func self(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "probes:" + role
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// row is one line of the table.
type row struct {
	what   string
	checks int           // answered
	asked  int           // 0: not known
	cpu    time.Duration // of the checking process
	wall   time.Duration
	peak   int // resident KiB
	remark string
}

func (r row) String() string {
	per := "-"
	if r.checks > 0 {
		per = fmt.Sprintf("%.4f", r.cpu.Seconds()*1000/float64(r.checks))
	}
	lost := "-"
	if r.asked > 0 {
		lost = fmt.Sprint(r.asked - r.checks)
	}
	return fmt.Sprintf("| %s | %d | %.0f | %s | %.2f | **%s** | %.1f | %s |",
		r.what, r.checks, float64(r.checks)/r.wall.Seconds(), lost, r.cpu.Seconds(), per, float64(r.peak)/1024, r.remark)
}

func inside(args []string) error {
	flags := flag.NewFlagSet("probes", flag.ExitOnError)
	only := flags.String("only", "", "measure this alone: ping, tcp, scale or idle")
	length := flags.Duration("length", 10*time.Second, "of each run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bringing up loopback: %w: %s", err, out)
	}
	fmt.Println("| what | answered | per second | lost | CPU-s | CPU-s per 1,000 | MiB | |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, part := range []struct {
		name    string
		measure func(time.Duration) ([]row, error)
	}{
		{"ping", measurePing}, {"tcp", measureTCP}, {"scale", measureScale}, {"idle", measureIdle},
	} {
		if *only != "" && *only != part.name {
			continue
		}
		rows, err := part.measure(*length)
		for _, r := range rows {
			fmt.Println(r)
		}
		if err != nil {
			return fmt.Errorf("measuring %s: %w", part.name, err)
		}
	}
	return nil
}
