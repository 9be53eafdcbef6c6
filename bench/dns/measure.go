package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// sample is one round of one server.
type sample struct {
	answered     int
	lost         int
	rate         float64 // queries a second, as dnsperf counts them
	user, system time.Duration
}

func (s sample) per(d time.Duration) float64 { return float64(d.Microseconds()) / float64(s.answered) }
func (s sample) perQuery() float64           { return s.per(s.user + s.system) }

// measure lets dnsperf ask for a while and takes the server's processor time
// before and after.
func measure(ctx context.Context, s *server, l load, questions string, length time.Duration) (sample, error) {
	user, system, err := processorTime(s.process.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	args := append([]string{
		"-s", s.at.Addr().String(), "-p", fmt.Sprint(s.at.Port()), "-d", questions,
		"-c", "20", "-l", fmt.Sprint(int(length.Seconds())), "-t", "1",
	}, l.args...)
	output, err := exec.CommandContext(ctx, "dnsperf", args...).CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("running dnsperf: %w\n%s", err, output)
	}
	userAfter, systemAfter, err := processorTime(s.process.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	one := sample{user: userAfter - user, system: systemAfter - system}
	if one.answered, err = figure(output, `Queries completed:\s+(\d+)`); err != nil {
		return sample{}, err
	}
	if one.answered == 0 {
		return sample{}, fmt.Errorf("nothing was answered\n%s", output)
	}
	if one.lost, err = figure(output, `Queries lost:\s+(\d+)`); err != nil {
		return sample{}, err
	}
	if good, err := figure(output, `NOERROR (\d+)`); err != nil || good != one.answered {
		return sample{}, fmt.Errorf("not every answer is NOERROR\n%s", output)
	}
	rate, err := figure(output, `Queries per second:\s+(\d+)`)
	one.rate = float64(rate)
	return one, err
}

func figure(output []byte, expression string) (int, error) {
	found := regexp.MustCompile(expression).FindSubmatch(output)
	if found == nil {
		return 0, fmt.Errorf("dnsperf printed nothing like %s\n%s", expression, output)
	}
	return strconv.Atoi(string(found[1]))
}

// tick is the unit of /proc/PID/stat: USER_HZ, which is 100 on all platforms
// that Go runs Linux on.
const tick = 10 * time.Millisecond

// processorTime reads what all threads of a process have used so far.
func processorTime(pid int) (user, system time.Duration, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name in parentheses may hold spaces; the fields after it do not.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	u, errUser := strconv.Atoi(fields[11])
	k, errSystem := strconv.Atoi(fields[12])
	if errUser != nil || errSystem != nil {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	return time.Duration(u) * tick, time.Duration(k) * tick, nil
}
