package selftest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Isolated is this program, started again with arguments, its name first, in
// namespaces of its own: mounts, so that it can have an /etc with users who are
// nowhere else; processes, so that whatever it starts ends with it, however it
// ends; and a network, so that nobody else can reach what is attacked. It takes
// root. The process has to call [Enter] before anything else. It is killed when
// the thread that starts it ends: lock the goroutine to it.
func Isolated(argv ...string) *exec.Cmd {
	return &exec.Cmd{
		Path: "/proc/self/exe", Args: argv,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL},
	}
}

// Enter furnishes the namespaces that [Isolated] has made: dir, a folder that
// must be there, gets the copy of /etc that is seen in place of the real one.
func Enter(dir string) error {
	// Nothing that is mounted here may be seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := loopback(); err != nil {
		return fmt.Errorf("bringing the loopback interface up: %w", err)
	}
	etc := filepath.Join(dir, "etc")
	if err := copyTree("/etc", etc); err != nil {
		return fmt.Errorf("copying /etc: %w", err)
	}
	if err := unix.Mount(etc, "/etc", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting the copy of /etc: %w", err)
	}
	return nil
}

// loopback brings up the one interface of a new network namespace.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// copyTree copies folders, files and links with their modes and owners.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target, st := filepath.Join(to, relative), info.Sys().(*syscall.Stat_t)
		switch {
		case entry.IsDir():
			err = os.Mkdir(target, 0o700)
		case info.Mode()&fs.ModeSymlink != 0:
			var link string
			if link, err = os.Readlink(path); err == nil {
				err = os.Symlink(link, target)
			}
			return errors.Join(err, os.Lchown(target, int(st.Uid), int(st.Gid)))
		case info.Mode().IsRegular():
			err = copyFile(path, target)
		default:
			return nil // sockets and pipes are made by who needs them
		}
		return errors.Join(err, os.Lchown(target, int(st.Uid), int(st.Gid)), os.Chmod(target, info.Mode()))
	})
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// throwAwayUsers are written into the copy of /etc: control and the front of the
// agent have users of their own, and one stands for a person whom upkeep did not
// make.
var throwAwayUsers = []struct {
	name string
	id   int
}{{controlUser, controlID}, {frontUser, frontID}, {foreignAccount, foreignUID}}

const (
	controlUser, controlID = "upkeep-selftest", 19998
	frontUser, frontID     = "upkeep-selftest-front", 19999
)

// addUsers writes the throw-away users into an etc that is nobody else's.
func addUsers(etc string) error {
	var text [4]string
	for _, user := range throwAwayUsers {
		text[0] += fmt.Sprintf("%s:x:%d:%[2]d:somebody:/nonexistent:/usr/sbin/nologin\n", user.name, user.id)
		text[1] += fmt.Sprintf("%s:x:%d:\n", user.name, user.id)
		text[2] += user.name + ":!:19000:0:99999:7:::\n"
		text[3] += user.name + ":!::\n"
	}
	for i, file := range []string{"passwd", "group", "shadow", "gshadow"} {
		out, err := os.OpenFile(filepath.Join(etc, file), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text[i])
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
	return nil
}
