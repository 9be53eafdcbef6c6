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
}

// maxHosts is what one /24 holds.
const maxHosts = 254

// New makes a network with the hosts named, joined by a switch. It needs root
// (CAP_SYS_ADMIN and CAP_NET_ADMIN) and the programs ip and nsenter.
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
	wiring := &strings.Builder{}
	// A switch that waits before it forwards would lose the first packets.
	fmt.Fprintf(wiring, "link add sw type bridge forward_delay 0 mcast_snooping 0\nlink set sw up\n")
	for i, name := range names {
		ns, err := newNamespace()
		if err != nil {
			return err
		}
		last := byte(i + 1)
		host := &Host{
			Name: name, ns: ns, Addr: netip.AddrFrom4([4]byte{10, 53, 0, last}),
			Addr6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x53, 15: last}),
		}
		n.hosts = append(n.hosts, host)
		fmt.Fprintf(wiring, "link add p%d type veth peer name eth0 netns %s\nlink set p%d master sw up\n", last, ns.path(), last)
	}
	if err := n.sw.ip(wiring.String()); err != nil {
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

// Blackhole drops every packet from and to the host. It stays on the network
// and answers ARP, so whoever asks it meets silence and no error.
func (h *Host) Blackhole() error { return h.fault("drop", "drop") }

// Lose drops incoming packets at random, a fraction of 0 to 1. What a round trip
// loses is that fraction, because answers pass.
func (h *Host) Lose(fraction float64) error {
	return h.fault(fmt.Sprintf("numgen random mod 10000 < %d drop", int(fraction*10000)), "")
}

// Cut drops every packet between the host and others than those named, as when
// its uplink fails and its neighbours stay near.
func (h *Host) Cut(except ...*Host) error {
	if len(except) == 0 {
		return h.Blackhole()
	}
	var addrs, addrs6 []string
	for _, e := range append(except, h) {
		addrs, addrs6 = append(addrs, e.Addr.String()), append(addrs6, e.Addr6.String())
	}
	rule := func(side string) string {
		return fmt.Sprintf("iif lo accept; oif lo accept; ip %[1]s { %[2]s } accept; ip6 %[1]s { %[3]s } accept; drop",
			side, strings.Join(addrs, ", "), strings.Join(addrs6, ", "))
	}
	return h.fault(strings.Replace(rule("saddr"), "oif lo accept; ", "", 1), strings.Replace(rule("daddr"), "iif lo accept; ", "", 1))
}

// Heal ends every fault of the host.
func (h *Host) Heal() error { return h.fault("", "") }

// fault replaces the rules of the host in one transaction.
func (h *Host) fault(in, out string) error {
	script := fmt.Sprintf(`add table inet fault
delete table inet fault
table inet fault {
	chain in { type filter hook input priority 0; %s; }
	chain out { type filter hook output priority 0; %s; }
}`, in, out)
	_, err := h.ns.run(strings.NewReplacer("; ; }", "; }").Replace(script), "nft", "-f", "-")
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
