//go:build linux && amd64

package agent

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"upkeep/internal/testkit/killer"
)

// TestImageKilled kills an agent with kill -9 at chosen writes of its work on images.
// When it is started again what was to be changed or made is as it was or as it was to
// be, and nothing is left beside it; the job that is sent again is done, once.
func TestImageKilled(t *testing.T) {
	for name, j := range imageJobs() {
		t.Run(name, func(t *testing.T) {
			l := newImageJobLab(t, j)
			calls, _ := l.killAt(0)
			for _, at := range killPoints(calls) {
				calls, killed := l.killAt(at)
				where := "it ended by itself"
				if killed {
					where = fmt.Sprintf("killed before write %d of %d, %s of %s", at, len(calls), calls[at-1].Name, calls[at-1].Target)
				}
				l.start()
				done := l.took(where)
				t.Logf("%s: done %v", where, done)
				l.again(where, done)
			}
		})
	}
}

// killPoints are those at which most is to be lost: in the middle; before a file gets its
// name, and after; when the second file takes an image's place; and when it is noted
// that the job is done.
func killPoints(calls []killer.Call) []int {
	var points []int
	for i, c := range calls {
		switch {
		case c.Name == "linkat": // the exchange is what comes next, if there is one
			points = append(points, i/2, i*3/4, i+1, i+2, i+3)
		case c.Name == "ftruncate" && strings.HasSuffix(c.Target, "/x.img"): // it is grown in place
			points = append(points, i+1, i+3)
		}
		if strings.HasSuffix(c.Target, "/"+appliedFile) && c.Name == "write" {
			points = append(points, i+1, i+3)
			break
		}
	}
	slices.Sort(points)
	return slices.Compact(slices.DeleteFunc(points, func(at int) bool { return at < 1 || at > len(calls) }))
}

// killAt has a victim do the job on fresh files, and kills it at one of its writes;
// 0 lets it come to its end.
func (l *imageJobLab) killAt(at int) ([]killer.Call, bool) {
	l.t.Helper()
	l.prepared()
	cmd := exec.Command("/proc/self/exe", "agent-images", l.dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	calls, killed, err := killer.Run(cmd, at)
	if err != nil {
		l.t.Fatalf("%v: %s", err, said.String())
	}
	l.letGo()
	return calls, killed
}
