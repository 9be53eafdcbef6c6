package testkit

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Stranger starts a program that is no descendant of the test's process, and waits
// until it prints "held". At the test's end its input ends, upon which it must end
// too; what it holds is free then.
func Stranger(t testing.TB, cmd *exec.Cmd) (pid int) {
	t.Helper()
	input, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	numbers, number, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer numbers.Close()
	// A process whose parent has ended belongs to init.
	parent := exec.Command("sh", append([]string{"-c", `"$@" <&3 3<&- 4>&- & echo "$!" >&4`, "sh"}, cmd.Args...)...)
	parent.Env, parent.Dir = cmd.Env, cmd.Dir
	parent.ExtraFiles = []*os.File{input, number}
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	input.Close()
	number.Close()
	text, _ := io.ReadAll(numbers)
	if pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		t.Fatalf("starting %q: %q", cmd.Args, text)
	}
	t.Cleanup(func() {
		end.Close()
		Eventually(t, time.Minute, func() (bool, string) { return processEnded(pid) })
		parent.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "held" {
		t.Fatalf("%q says %q, %v", cmd.Args, line, err)
	}
	return pid
}

// processEnded reports whether a process has ended and all its threads with it: the first
// of them may end before others.
func processEnded(pid int) (bool, string) {
	folder := "/proc/" + strconv.Itoa(pid)
	state, err := os.ReadFile(folder + "/stat")
	threads, _ := os.ReadDir(folder + "/task")
	return err != nil || strings.Contains(string(state), ") Z ") && len(threads) <= 1, string(state)
}
