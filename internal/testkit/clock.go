package testkit

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StepClock steps the wall clock of one process, and of it alone, forward or
// back by whole seconds, as a wrong time server does. Its monotonic clock is
// left alone, and so is everything outside the process.
//
// A program reads the wall clock through the vDSO, a page of code that the
// kernel maps into each process. StepClock writes a clock_gettime of its own
// there (chaos-mesh's TimeChaos does the same), because neither a time
// namespace can step the wall clock nor can a preloaded library reach a static
// binary. It is written for Linux on amd64.
func StepClock(pid int, by time.Duration) error {
	if runtime.GOARCH != "amd64" {
		return errors.New("stepping a clock: not written for " + runtime.GOARCH)
	}
	if err := stepClock(pid, by); err != nil {
		return fmt.Errorf("stepping the clock of process %d: %w", pid, err)
	}
	return nil
}

// clockCode is clock_gettime(clock, *timespec): the system call, and the offset
// added to the seconds if the clock is CLOCK_REALTIME (0).
var clockCode = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov eax, SYS_clock_gettime
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 0x07, // jne +7
	0x48, 0x81, 0x06, 0, 0, 0, 0, // add qword [rsi], offset
	0xc3, // ret
}

// clockOffset is where the offset stands in clockCode.
const clockOffset = 14

func stepClock(pid int, by time.Duration) (err error) {
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, memory.Close()) }()
	from, to, err := vdso(pid)
	if err != nil {
		return err
	}
	image := make([]byte, to-from)
	if _, err := memory.ReadAt(image, int64(from)); err != nil {
		return err
	}
	at, err := clockFunction(image)
	if err != nil {
		return err
	}
	code := bytes.Clone(clockCode)
	offset := int64(by / time.Second)
	if current := image[at : at+uint64(len(code))]; bytes.Equal(current[:clockOffset], code[:clockOffset]) {
		offset += int64(int32(binary.LittleEndian.Uint32(current[clockOffset:])))
	}
	binary.LittleEndian.PutUint32(code[clockOffset:], uint32(int32(offset)))
	if err := pauseOutside(pid, from, to); err != nil {
		return err
	}
	_, err = memory.WriteAt(code, int64(from+at))
	return errors.Join(err, syscall.Kill(pid, syscall.SIGCONT))
}

// vdso finds the vDSO in a process.
func vdso(pid int) (from, to uint64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.SplitSeq(string(maps), "\n") {
		if strings.HasSuffix(line, "[vdso]") {
			_, err = fmt.Sscanf(line, "%x-%x", &from, &to)
			return from, to, err
		}
	}
	return 0, 0, errors.New("it has no vDSO")
}

// clockFunction finds clock_gettime in the image of a vDSO.
func clockFunction(image []byte) (uint64, error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, err
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, err
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" && s.Size >= uint64(len(clockCode)) && s.Value+s.Size <= uint64(len(image)) {
			return s.Value, nil
		}
	}
	return 0, errors.New("its vDSO has no clock_gettime that could be replaced")
}

// pauseOutside stops the process at a moment at which no thread is in the
// address range.
func pauseOutside(pid int, from, to uint64) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		outside, err := stoppedOutside(pid, from, to)
		if err == nil && outside {
			return nil
		}
		if err != nil {
			return errors.Join(err, syscall.Kill(pid, syscall.SIGCONT))
		}
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			return err
		}
	}
	return errors.New("it is in clock_gettime all the time")
}

// stoppedOutside waits until all threads stand, and reports whether none stands
// in the range.
func stoppedOutside(pid int, from, to uint64) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		// "running", or "NUMBER ... SP PC".
		for {
			text, err := os.ReadFile(thread)
			if os.IsNotExist(err) || errors.Is(err, syscall.ESRCH) {
				break // the thread has ended
			}
			if err != nil {
				return false, err
			}
			fields := strings.Fields(string(text))
			if len(fields) < 3 {
				runtime.Gosched()
				continue
			}
			pc, err := strconv.ParseUint(fields[len(fields)-1], 0, 64)
			if err != nil {
				return false, err
			}
			if pc >= from && pc < to {
				return false, nil
			}
			break
		}
	}
	return true, nil
}
