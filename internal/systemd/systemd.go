// Package systemd tells the service manager how the process is doing, as
// sd_notify(3) describes. Without a service manager every call does nothing.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Messages of sd_notify(3).
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Alive    = "WATCHDOG=1"
)

// Status makes the message that "systemctl status" shows beside the unit.
func Status(text string) string {
	// A newline would start a message of its own.
	return "STATUS=" + strings.NewReplacer("\n", " ", "\r", " ").Replace(text)
}

// Notifier sends messages to the service manager. The zero Notifier has none
// and sends nothing.
type Notifier struct {
	socket   string
	watchdog time.Duration
}

// FromEnvironment reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID through
// getenv, which is os.Getenv outside of tests. Children must not inherit the
// variables: they would speak in the name of this process.
func FromEnvironment(getenv func(string) string) Notifier {
	n := Notifier{socket: getenv("NOTIFY_SOCKET")}
	if n.socket == "" {
		return Notifier{}
	}
	// WATCHDOG_PID names the process that must report, for a variable that was
	// inherited is meant for a parent.
	if pid := getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n
	}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 && usec < int64(time.Hour/time.Microsecond)*24 {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// WatchdogEvery is how often [Alive] must be sent: half of what the service
// manager waits for, as sd_watchdog_enabled(3) recommends. Zero means never.
func (n Notifier) WatchdogEvery() time.Duration { return n.watchdog / 2 }

// Notify sends messages in one datagram.
func (n Notifier) Notify(messages ...string) error {
	if n.socket == "" {
		return nil
	}
	// A leading @ stands for the abstract namespace, and so it does for net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("reaching the service manager: %w", err)
	}
	defer func() { _ = conn.Close() }() // a datagram is sent or it is not
	if _, err := conn.Write([]byte(strings.Join(messages, "\n"))); err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	return nil
}

// Environment returns environ without the variables that belong to this process
// alone, for a child.
func Environment(environ []string) []string {
	var kept []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES":
		default:
			kept = append(kept, entry)
		}
	}
	return kept
}
