package systemd

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func listen(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestNotifySendsOneDatagram(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@upkeep-test-" + strconv.Itoa(os.Getpid())} {
		conn := listen(t, name)
		n := FromEnvironment(env(map[string]string{"NOTIFY_SOCKET": name}))
		if err := n.Notify(Ready, Status("two\nlines")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 200)
		size, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(buf[:size]), "READY=1\nSTATUS=two lines"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWithoutServiceManager(t *testing.T) {
	n := FromEnvironment(env(map[string]string{"WATCHDOG_USEC": "2000000"}))
	if n.WatchdogEvery() != 0 {
		t.Errorf("a service manager was seen where there is none: %+v", n)
	}
	if err := n.Notify(Ready); err != nil {
		t.Error(err)
	}
}

func TestWatchdogEvery(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"2000000", "", time.Second},
		{"2000000", self, time.Second},
		{"2000000", "1", 0}, // meant for another process
		{"", "", 0},
		{"-5", "", 0},
		{"abc", "", 0},
		{"99999999999999999999", "", 0},
	} {
		n := FromEnvironment(env(map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": tt.usec, "WATCHDOG_PID": tt.pid}))
		if got := n.WatchdogEvery(); got != tt.want {
			t.Errorf("usec %q, pid %q: got %s, want %s", tt.usec, tt.pid, got, tt.want)
		}
	}
}

func TestNotifyReportsADeadSocket(t *testing.T) {
	n := FromEnvironment(env(map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "gone")}))
	if err := n.Notify(Ready); err == nil {
		t.Error("no error from a socket that does not exist")
	}
}

func TestEnvironmentForChildren(t *testing.T) {
	got := Environment([]string{"PATH=/bin", "NOTIFY_SOCKET=/x", "WATCHDOG_USEC=1", "WATCHDOG_PID=2", "LISTEN_FDS=1", "HOME=/"})
	if want := []string{"PATH=/bin", "HOME=/"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
