package netlab_test

import (
	"context"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"upkeep/internal/testkit"
	"upkeep/internal/testkit/netlab"
)

func network(t *testing.T, names ...string) *netlab.Network {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "ip", "nsenter", "nft")
	n, err := netlab.New(names...)
	testkit.NeedThat(t, "network namespaces", err)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// asks reports whether a connection from one host to another gets its answer.
// An answer that is expected is waited for long, silence not.
func asks(t *testing.T, from *netlab.Host, address string, expected bool) bool {
	t.Helper()
	patience := 300 * time.Millisecond
	if expected {
		patience = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	answer, err := io.ReadAll(conn)
	return err == nil && string(answer) == "hello"
}

func greet(t *testing.T, h *netlab.Host) {
	t.Helper()
	listener, err := h.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("hello"))
			_ = conn.Close()
		}
	}()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFaults(t *testing.T) {
	n := network(t, "a", "b", "c")
	a, b, c := n.Host("a"), n.Host("b"), n.Host("c")
	greet(t, b)
	greet(t, c)
	see := func(when string, toB, toC bool) {
		t.Helper()
		for _, target := range []struct {
			h    *netlab.Host
			want bool
		}{{b, toB}, {c, toC}} {
			for _, address := range []string{target.h.Addr.String(), target.h.Addr6.String()} {
				if got := asks(t, a, net.JoinHostPort(address, "7"), target.want); got != target.want {
					t.Errorf("%s: a reaches %s at %s: %v", when, target.h.Name, address, got)
				}
			}
		}
	}
	see("at first", true, true)
	must(t, b.Blackhole())
	see("b a black hole", false, true)
	must(t, b.Heal())
	see("b healed", true, true)
	must(t, a.Cut(c))
	see("a cut off from all but c", false, true)
	must(t, a.Heal())
	must(t, a.Cut())
	see("a cut off", false, false)
	must(t, a.Heal())
	see("a healed", true, true)
	must(t, b.Cut(c))
	must(t, c.Blackhole())
	see("faults of two hosts at once", false, false)
	must(t, c.Heal())
	see("one of the two healed", false, true)
	must(t, b.Heal())
	must(t, a.Cut(c))
	must(t, c.Blackhole())
	see("cut off from all but a black hole", false, false)
}

func TestLossIsAFraction(t *testing.T) {
	testkit.Need(t, "fping")
	n := network(t, "a", "b")
	must(t, n.Host("b").Lose(0.5, 0))
	const count = 400
	output, _ := n.Host("a").Run("fping", "-q", "-p", "2", "-t", "50", "-c", "400", n.Host("b").Addr.String())
	var sent, received int
	if !scan(output, &sent, &received) || sent != count {
		t.Fatalf("fping says: %s", output)
	}
	// Binomial with mean 200 and deviation 10: eight deviations never happen.
	if received < 120 || received > 280 {
		t.Errorf("%d of %d passed at a loss of a half", received, sent)
	}
}

// The machine's own namespace sees nothing of a network, and one network
// nothing of another that has the same addresses.
func TestNetworksAreApart(t *testing.T) {
	before, err := net.Interfaces()
	must(t, err)
	first, second := network(t, "a", "b"), network(t, "a", "b")
	greet(t, first.Host("b"))
	if asks(t, second.Host("a"), "10.53.0.2:7", false) {
		t.Error("one network reaches another")
	}
	if !asks(t, first.Host("a"), "10.53.0.2:7", true) {
		t.Error("a network does not work")
	}
	after, err := net.Interfaces()
	must(t, err)
	if len(before) != len(after) {
		t.Errorf("%d interfaces before, %d after", len(before), len(after))
	}
}

func TestRunKeepsTheOutput(t *testing.T) {
	n := network(t, "a")
	output, err := n.Host("a").Run("sh", "-c", "echo said; exit 3")
	if err == nil || output != "said\n" {
		t.Errorf("%q, %v", output, err)
	}
	if _, err := os.Stat("/run/netns/a"); err == nil {
		t.Error("a namespace has a name")
	}
}

// scan reads fping's summary, "10.53.0.2 : xmt/rcv/%loss = 400/201/49%, ...".
func scan(output string, sent, received *int) bool {
	found := regexp.MustCompile(`= (\d+)/(\d+)/`).FindStringSubmatch(output)
	if found == nil {
		return false
	}
	*sent, _ = strconv.Atoi(found[1])
	*received, _ = strconv.Atoi(found[2])
	return true
}
