package testkit

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The child prints its wall clock, and the time since its start by the monotonic
// clock; both as a program of this kind reads them.
func TestStepClock(t *testing.T) {
	if os.Getenv("TESTKIT_CLOCK") != "" {
		start := time.Now()
		for {
			now := time.Now()
			fmt.Printf("%d %d\n", now.Unix(), now.Sub(start).Milliseconds())
			<-time.After(time.Millisecond)
		}
	}
	if runtime.GOARCH != "amd64" {
		lack(t, "needs amd64")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := Command{
		Argv: []string{self, "-test.run=^TestStepClock$"},
		Env:  append(os.Environ(), "TESTKIT_CLOCK=1"),
	}.Start(t)
	reads := func(offset time.Duration) {
		t.Helper()
		Eventually(t, 10*time.Second, func() (bool, string) {
			lines := strings.Split(strings.TrimSpace(child.Log()), "\n")
			wall, mono, _ := strings.Cut(lines[max(0, len(lines)-2)], " ")
			seconds, err := strconv.ParseInt(wall, 10, 64)
			since, err2 := strconv.ParseInt(mono, 10, 64)
			ahead := time.Unix(seconds, 0).Sub(time.Now().Add(offset)).Abs()
			return err == nil && err2 == nil && ahead < time.Minute && since >= 0 && since < 60_000, lines[len(lines)-1]
		})
	}
	reads(0)
	for i, step := range []time.Duration{-time.Hour, 2 * time.Hour, -time.Hour} {
		err := StepClock(child.PID(), step)
		NeedThat(t, "writing to another process's vDSO", err)
		reads([]time.Duration{-time.Hour, time.Hour, 0}[i])
	}
}
