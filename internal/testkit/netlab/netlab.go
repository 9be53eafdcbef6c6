// Package netlab makes small networks of Linux network namespaces for tests and
// benchmarks: hosts with addresses of their own on one switch, whose packets can
// be dropped.
//
// A namespace has no name and no process that holds it: it lives by a descriptor
// of this process alone, so the kernel takes the whole network away when the
// process ends, however it ends. Nothing is visible in, or reachable from, the
// namespace that the machine itself uses.
package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Network is a switch with hosts on it.
type Network struct {
	sw    namespace
	hosts []*Host
}

// Host is one host of a network. Addr is 10.53.0.N and Addr6 fd53::N, where N
// counts the hosts from 1 in the order in which they were named.
type Host struct {
	Name  string
	Addr  netip.Addr
	Addr6 netip.Addr
	ns    namespace
	sw    namespace
	port  string // of the switch
}

// maxHosts is what one /24 holds.
const maxHosts = 254

// New makes a network with the hosts named, joined by a switch. It needs root
// (CAP_SYS_ADMIN and CAP_NET_ADMIN) and the programs ip, nsenter and nft.
func New(names ...string) (*Network, error) {
	if len(names) > maxHosts {
		return nil, fmt.Errorf("making a network: %d hosts, at most %d", len(names), maxHosts)
	}
	n := &Network{}
	if err := n.build(names); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Network) build(names []string) error {
	var err error
	if n.sw, err = newNamespace(); err != nil {
		return err
	}
	wiring, chains, jumps := &strings.Builder{}, &strings.Builder{}, &strings.Builder{}
	// A switch that waits before it forwards would lose the first packets.
	fmt.Fprintf(wiring, "link add sw type bridge forward_delay 0 mcast_snooping 0\nlink set sw up\n")
	for i, name := range names {
		ns, err := newNamespace()
		if err != nil {
			return err
		}
		last := byte(i + 1)
		host := &Host{
			Name: name, ns: ns, sw: n.sw, port: fmt.Sprintf("p%d", last), Addr: netip.AddrFrom4([4]byte{10, 53, 0, last}),
			Addr6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x53, 15: last}),
		}
		n.hosts = append(n.hosts, host)
		fmt.Fprintf(wiring, "link add %s type veth peer name eth0 netns %s\nlink set %[1]s master sw up\n", host.port, ns.path())
		fmt.Fprintf(chains, "\tchain %s { }\n", host.port)
		fmt.Fprintf(jumps, "\t\tjump %s\n", host.port)
	}
	if err := n.sw.ip(wiring.String()); err != nil {
		return err
	}
	faults := fmt.Sprintf(`table bridge fault {
%s	chain forward {
		type filter hook forward priority 0
		ether type arp accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
%s	}
}
`, chains, jumps)
	if _, err := n.sw.run(faults, "nft", "-f", "-"); err != nil {
		return err
	}
	for _, h := range n.hosts {
		// nodad: an IPv6 address that is being checked for duplicates cannot be
		// bound for a second or so.
		if err := h.ns.ip(fmt.Sprintf("link set lo up\nlink set eth0 up\naddr add %s/24 dev eth0\naddr add %s/64 dev eth0 nodad\n", h.Addr, h.Addr6)); err != nil {
			return err
		}
	}
	return nil
}

// Host returns the host of that name. A name that is not there is a mistake in
// the caller and panics.
func (n *Network) Host(name string) *Host {
	for _, h := range n.hosts {
		if h.Name == name {
			return h
		}
	}
	panic("netlab: no host " + name)
}

// Close gives up the namespaces; they vanish when the last process in them and
// the last socket of theirs has gone.
func (n *Network) Close() error {
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.ns.close())
	}
	return errors.Join(append(errs, n.sw.close())...)
}

// Argv is the command line that runs argv inside the host. The process keeps
// its identity: nsenter replaces itself by the program.
func (h *Host) Argv(argv ...string) []string {
	return append([]string{"nsenter", "--net=" + h.ns.path(), "--"}, argv...)
}

// Run runs a program inside the host to its end and returns its output. The
// error holds the output too.
func (h *Host) Run(argv ...string) (string, error) {
	return h.ns.run("", argv...)
}

// Do calls f on a thread inside the host. Sockets that f opens belong to the
// host for good; goroutines and processes that it starts do not.
func (h *Host) Do(f func() error) error { return h.ns.do(f) }

// Listen opens a listening socket inside the host.
func (h *Host) Listen(network, address string) (listener net.Listener, err error) {
	err = h.Do(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// Dial connects from inside the host. The address must hold no host name: it
// would be resolved outside.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dialling from %s: %w", h.Name, err)
	}
	err = h.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Blackhole drops every packet from and to the host, in the switch: whoever asks
// it, and the host itself, meet silence and no error.
func (h *Host) Blackhole() error {
	return h.fault(func(port string) []string { return []string{"iifname " + port + " drop", "oifname " + port + " drop"} })
}

// Lose drops packets to and from the host at random, each a fraction of 0 to 1.
// With one of them zero, the other is what a round trip loses.
func (h *Host) Lose(to, from float64) error {
	return h.fault(func(port string) []string {
		return []string{
			fmt.Sprintf("oifname %s numgen random mod 10000 < %d drop", port, int(to*10000)),
			fmt.Sprintf("iifname %s numgen random mod 10000 < %d drop", port, int(from*10000)),
		}
	})
}

// Cut drops every packet between the host and others than those named, as when
// its uplink fails and its neighbours stay near.
func (h *Host) Cut(except ...*Host) error {
	return h.fault(func(port string) []string {
		var rules []string
		for _, e := range except {
			rules = append(rules, fmt.Sprintf("iifname %s oifname %s return", port, e.port), fmt.Sprintf("oifname %s iifname %s return", port, e.port))
		}
		return append(rules, "iifname "+port+" drop", "oifname "+port+" drop")
	})
}

// Heal ends every fault of the host.
func (h *Host) Heal() error { return h.fault(func(string) []string { return nil }) }

// fault replaces the rules of the host in one transaction. Addresses go on being
// resolved: a neighbour that cannot be resolved is an error at the sender, which
// a distant host that is dead does not cause.
func (h *Host) fault(rules func(port string) []string) error {
	script := &strings.Builder{}
	fmt.Fprintf(script, "flush chain bridge fault %s\n", h.port)
	for _, rule := range rules(h.port) {
		fmt.Fprintf(script, "add rule bridge fault %s %s\n", h.port, rule)
	}
	_, err := h.sw.run(script.String(), "nft", "-f", "-")
	return err
}

// namespace is a network namespace held by a descriptor.
type namespace struct{ file *os.File }

func newNamespace() (namespace, error) {
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is spoilt and ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{err: fmt.Errorf("making a network namespace: %w", err)}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		result <- made{file, err}
	}()
	m := <-result
	return namespace{m.file}, m.err
}

func (n namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

func (n namespace) close() error {
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

func (n namespace) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not serve others
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("entering a network namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

func (n namespace) ip(batch string) error {
	_, err := n.run(batch, "ip", "-batch", "-")
	return err
}

func (n namespace) run(input string, argv ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"--net=" + n.path(), "--"}, argv...)...)
	cmd.Stdin = strings.NewReader(input)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return output.String(), fmt.Errorf("running %s: %w\n%s%s", strings.Join(argv, " "), err, input, output.String())
	}
	return output.String(), nil
}
