//go:build linux && amd64

package agent

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/testkit/killer"
)

// TestImageKilled kills an agent with kill -9 at chosen writes of its work on an
// image. When it is started again the image is what it was or what it was to be, and
// nothing is left beside it; the job that is sent again is done, once.
func TestImageKilled(t *testing.T) {
	for name, g := range growths() {
		t.Run(name, func(t *testing.T) {
			g.needed(t)
			l := newImageLab(t, g.policy)
			l.must(l.root.Close())
			l.root, l.key = nil, killKey()
			l.o.Key = killKey().Public().(ed25519.PublicKey)
			l.must(os.WriteFile(l.path("policy"), []byte(g.policy), 0o600))
			calls, _ := l.killAt(g, 0)
			for _, at := range killPoints(calls) {
				if calls, killed := l.killAt(g, at); killed {
					t.Logf("killed before write %d of %d, %s of %s", at, len(calls), calls[at-1].Name, calls[at-1].Target)
				}
				l.recovered(g)
			}
		})
	}
}

// killPoints are those at which most is to be lost: in the middle; when the second
// file takes the image's place, and right after; and when it is noted that the job is
// done.
func killPoints(calls []killer.Call) []int {
	var points []int
	for i, c := range calls {
		switch {
		case c.Name == "linkat": // the exchange is what comes next
			points = append(points, i/2, i+3)
		case c.Name == "ftruncate" && strings.HasSuffix(c.Target, "/a.img"): // it is grown in place
			points = append(points, i+3)
		}
		if strings.HasSuffix(c.Target, "/"+appliedFile) && c.Name == "write" {
			points = append(points, i+1, i+3)
			break
		}
	}
	slices.Sort(points)
	return slices.Compact(slices.DeleteFunc(points, func(at int) bool { return at < 1 || at > len(calls) }))
}

// killAt has a victim do the job on a fresh image, and kills it at one of its writes;
// 0 lets it come to its end.
func (l *lab) killAt(g growth, at int) ([]killer.Call, bool) {
	l.t.Helper()
	l.must(os.RemoveAll(l.o.State))
	l.must(os.RemoveAll(l.path("images/a.img")))
	l.start()
	l.wantDone(made("a.img", g.from, g.fs), 0)
	l.must(l.root.Close())
	l.root = nil
	cmd := exec.Command("/proc/self/exe", "agent-images", l.dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	calls, killed, err := killer.Run(cmd, at)
	if err != nil {
		l.t.Fatalf("%v: %s", err, said.String())
	}
	// The kernel lets go of what the killed had.
	testkit.Eventually(l.t, time.Minute, func() (bool, string) {
		d := l.described("a.img")
		return len(d.Holders) == 0, fmt.Sprint(d.Holders)
	})
	return calls, killed
}

// recovered starts the agent again, and sends the job once more.
func (l *lab) recovered(g growth) {
	l.t.Helper()
	l.start()
	l.settledRecord("a.img")
	l.whole("a.img", g.from, g.to)
	for range 2 {
		signed, err := signWith(killKey(), 7, g.job(), 1)
		l.must(err)
		if outcome := l.root.Do(l.t.(*testing.T).Context(), signed, nil); outcome.State != upkeep.JobDone {
			l.t.Errorf("sent again it was %+v", outcome)
		}
	}
	l.whole("a.img", g.to)
	l.settledRecord("a.img")
}
