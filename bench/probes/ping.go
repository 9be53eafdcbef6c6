package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// fpingTargets is less than the 65,535 that fping can take.
const fpingTargets = 20_000

// measurePing has fping and upkeep ping the same addresses at about the same
// rate: fping as fast as it can, upkeep at one ping a second for each.
func measurePing(length time.Duration) ([]row, error) {
	var rows []row
	for range 2 {
		r, err := fping(3)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
		e, err := engine("-type", "ping", "-n", fmt.Sprint(fpingTargets), "-interval", "1s", "-length", (length / 2).String())
		if err != nil {
			return rows, err
		}
		rows = append(rows, e.row(fmt.Sprintf("upkeep, %d pings each second", fpingTargets)))
	}
	return rows, nil
}

func fping(rounds int) (row, error) {
	var list bytes.Buffer
	for i := range fpingTargets {
		fmt.Fprintln(&list, address(i))
	}
	cmd := exec.Command("fping", "-q", "-i0", "-p10", "-C", fmt.Sprint(rounds))
	cmd.Stdin = &list
	var out bytes.Buffer
	cmd.Stderr = &out
	cmd.Stdout = os.Stdout
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if cmd.ProcessState == nil {
		return row{}, fmt.Errorf("running fping: %w", err)
	}
	answered, asked := 0, 0
	for line := range strings.Lines(out.String()) {
		_, times, found := strings.Cut(line, " : ")
		if !found {
			continue
		}
		for _, time := range strings.Fields(times) {
			asked++
			if time != "-" {
				answered++
			}
		}
	}
	if asked == 0 {
		return row{}, fmt.Errorf("fping printed no result: %w: %.200s", err, out.String())
	}
	state := cmd.ProcessState
	return row{
		what: fmt.Sprintf("fping -i0, %d targets, %d rounds", fpingTargets, rounds), checks: answered, asked: asked,
		cpu: state.UserTime() + state.SystemTime(), wall: wall,
		peak: int(state.SysUsage().(*syscall.Rusage).Maxrss),
	}, nil
}

// measureScale is the aim of the engine: 100,000 targets each second.
func measureScale(length time.Duration) ([]row, error) {
	r, err := engine("-type", "ping", "-n", "100000", "-interval", "1s", "-length", length.String())
	if err != nil {
		return nil, err
	}
	return []row{r.row("upkeep, 100,000 targets, interval 1s")}, nil
}

// measureIdle is what a member costs that is not being probed just now.
func measureIdle(time.Duration) ([]row, error) {
	var rows []row
	for _, kind := range []string{"ping", "tcp"} {
		r, err := engine("-type", kind, "-n", "100000", "-port", map[string]string{"ping": "0", "tcp": "9"}[kind], "-interval", "1h", "-length", "1s")
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{
			what: "upkeep, 100,000 idle members, " + kind, checks: 0, wall: time.Second, cpu: r.CPU, peak: r.Peak,
			remark: fmt.Sprintf("**%d bytes of heap for each**; set in %s", r.HeapPerMember, r.Setting.Round(time.Millisecond)),
		})
	}
	return rows, nil
}
