package probe

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"upkeep/internal/testkit"
)

// apart runs the calling test again in a process and a network namespace of its
// own. It reports whether this is that process; the caller returns when not.
func apart(t *testing.T) bool {
	t.Helper()
	const mark = "UPKEEP_TEST_APART"
	if os.Getenv(mark) == t.Name() {
		mustRun(t, "ip", "link", "set", "lo", "up")
		return true
	}
	testkit.NeedRoot(t)
	testkit.Need(t, "ip")
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=100s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		testkit.NeedThat(t, "a network namespace", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("it did not run:\n%s", out)
	}
	return false
}

func mustRun(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}

// A cable is a network that the test plays: it is given each packet that is sent
// to 10.9.0.0/24 or fd09::/64 and writes what it likes. This end has .1.
type cable struct {
	file *os.File
	mu   sync.Mutex
	sent map[netip.Addr]int // packets by destination
}

// newCable needs a namespace of the test's own. on is called for each packet, in
// order; what it returns is delivered to this end.
func newCable(t *testing.T, on func(w *cable, to netip.Addr, packet []byte)) *cable {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	testkit.NeedThat(t, "/dev/net/tun", err)
	var request struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "wire")
	request.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request))); errno != 0 {
		testkit.NeedThat(t, "a tun device", errno)
	}
	for _, args := range []string{"addr add 10.9.0.1/24 dev wire", "addr add fd09::1/64 dev wire nodad", "link set wire up"} {
		mustRun(t, append([]string{"ip"}, strings.Fields(args)...)...)
	}
	w := &cable{file: os.NewFile(uintptr(fd), "wire"), sent: map[netip.Addr]int{}}
	done := make(chan struct{})
	t.Cleanup(func() { _ = w.file.Close(); <-done })
	go func() {
		defer close(done)
		for {
			buf := make([]byte, 2048)
			n, err := w.file.Read(buf)
			if err != nil {
				return
			}
			packet := buf[:n]
			to, ok := destination(packet)
			if !ok {
				continue
			}
			w.mu.Lock()
			w.sent[to]++
			w.mu.Unlock()
			on(w, to, packet)
		}
	}()
	return w
}

func destination(packet []byte) (netip.Addr, bool) {
	switch {
	case len(packet) > ip4Least && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[16:20])), true
	case len(packet) > ip6Size && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[24:40])), true
	}
	return netip.Addr{}, false
}

// deliver gives a packet to this end after a while.
func (w *cable) deliver(after time.Duration, packet []byte) {
	if after == 0 {
		_, _ = w.file.Write(packet)
		return
	}
	time.AfterFunc(after, func() { _, _ = w.file.Write(packet) })
}

// withoutRaw does f on a thread without CAP_NET_RAW.
func withoutRaw(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		// Not unlocked: the thread dies with the goroutine.
		lockThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << unix.CAP_NET_RAW
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
