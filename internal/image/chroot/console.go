package chroot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// console joins the command to where its input and output come from. A terminal
// outside gets one inside, since the outer one is not in the command's /dev; anything
// else is handed on as it is.
type console struct {
	outer    *os.File // the terminal outside, or nil
	saved    *unix.Termios
	master   *os.File
	terminal *os.File // the command's
	copied   sync.WaitGroup
}

func newConsole(stdin *os.File) (*console, error) {
	c := &console{}
	if !isTerminal(stdin) {
		return c, nil
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("making a terminal: %w", err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a terminal: %w", err), master.Close())
	}
	terminal, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a terminal: %w", err), master.Close())
	}
	c.outer, c.master, c.terminal = stdin, master, terminal
	c.resize()
	c.saved, err = unix.IoctlGetTermios(int(stdin.Fd()), unix.TCGETS)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the state of the terminal: %w", err), master.Close(), terminal.Close())
	}
	unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, c.saved)
	raw := *c.saved // as cfmakeraw(3): the inner terminal does what the outer one did
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	if err := unix.IoctlSetTermios(int(stdin.Fd()), unix.TCSETS, &raw); err != nil {
		return nil, errors.Join(fmt.Errorf("setting the terminal: %w", err), master.Close(), terminal.Close())
	}
	return c, nil
}

// streams are what the command reads and writes: the terminal inside in place of
// the one outside.
func (c *console) streams() (stdin, stdout, stderr uintptr) {
	stream := func(f *os.File) uintptr {
		if c.terminal != nil && isTerminal(f) {
			return c.terminal.Fd()
		}
		return f.Fd()
	}
	return stream(os.Stdin), stream(os.Stdout), stream(os.Stderr)
}

// started begins to carry what is typed and shown.
func (c *console) started() {
	if c.terminal == nil {
		return
	}
	c.terminal.Close() // the command has it now
	go io.Copy(c.master, c.outer)
	show := os.Stdout
	if !isTerminal(show) {
		show = c.outer
	}
	c.copied.Go(func() { io.Copy(show, c.master) }) // ends when no process has the terminal
}

// resize gives the inner terminal the size of the outer one.
func (c *console) resize() {
	if c.outer == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(c.outer.Fd()), unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(c.master.Fd()), unix.TIOCSWINSZ, size)
	}
}

// close shows what is left to be shown, and gives the terminal back as it was.
func (c *console) close() {
	if c.outer == nil {
		return
	}
	c.copied.Wait()
	unix.IoctlSetTermios(int(c.outer.Fd()), unix.TCSETSW, c.saved)
	c.master.Close()
}
