package tool

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// architectures are what seccomp calls those that Go builds for here.
var architectures = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "riscv64": unix.AUDIT_ARCH_RISCV64}

// without has a system call do nothing and succeed on the calling thread, and in what is
// started from it, for good. On kernels that cannot do that it does what it does. See
// seccomp(2).
func without(call uintptr) error {
	architecture, known := architectures[runtime.GOARCH]
	if !known {
		return nil
	}
	const number, arch = 0, 4 // in struct seccomp_data
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(is uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: is}
	}
	filter := []unix.SockFilter{
		load(arch), unless(architecture, 3),
		load(number), unless(uint32(call), 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO}, // with the error 0
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping a program from system call %d: %w", call, err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	switch errno {
	case 0, unix.ENOSYS, unix.EINVAL, unix.EPERM, unix.EACCES: // or where a sandbox forbids it
		return nil
	}
	return fmt.Errorf("keeping a program from system call %d: %w", call, errno)
}
