package probe

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The loop's system calls, none of which can block. They are made without
// telling the runtime (RawSyscall): it would otherwise take the processor away in
// the middle of every tenth batch, and its monitor thread would wake thousands of
// times a second to see whether it should, at 9 % of the cost of all.

// mmsghdr is struct mmsghdr of recvmmsg(2), which x/sys does not have.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// sendmmsg sends what it can. An error is about the first message.
func sendmmsg(fd int, messages []mmsghdr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])),
		uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func recvmmsg(fd int, messages []mmsghdr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])),
		uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// connect begins to connect a non-blocking socket.
func connect(fd int, to *unix.RawSockaddrInet6, size uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(to)), uintptr(size))
	if errno != 0 {
		return errno
	}
	return nil
}

// tcpState is the state of a connection, in the kernel's numbering, and the
// round trip time that it has measured.
func tcpState(fd int) (state uint8, rtt time.Duration, err error) {
	var info unix.TCPInfo
	size := uint32(unsafe.Offsetof(info.Rttvar)) // as far as Rtt
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, 0, errno
	}
	return info.State, time.Duration(info.Rtt) * time.Microsecond, nil
}

// closeSocket closes a non-blocking socket that does not linger. Linux frees the
// descriptor whatever it returns.
func closeSocket(fd int) {
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// putSockaddr writes the socket address of either family and returns its size.
func putSockaddr(to *unix.RawSockaddrInet6, a netip.Addr, port uint16) (size uint32) {
	var network [2]byte
	binary.BigEndian.PutUint16(network[:], port)
	big := binary.NativeEndian.Uint16(network[:])
	if a.Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(to))
		*sa = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: big, Addr: a.As4()}
		return unix.SizeofSockaddrInet4
	}
	*to = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: big, Addr: a.As16(), Scope_id: scope(a)}
	return unix.SizeofSockaddrInet6
}

// scope is the index of the interface that a link-local address names.
func scope(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0
	}
	return uint32(i.Index)
}
