package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// logAttacks are on what the web server writes as root.
var logAttacks = []Attack{
	{
		Name: "log-links", Lesson: "Debian nginx CVE-2016-1247: a log that is a link to /etc/cron.d is written by root", Needs: Users,
		Tries: "puts links, FIFOs and folders where its logs are, or seem to be, and has the web server reload",
		Holds: "logs are root's, in root's folders; the web server goes on and writes nowhere else",
		Do:    logLinks,
	},
	{
		Name: "log-traps", Lesson: "Apache trap: apache2 -t takes a log that is a folder, a FIFO or a dangling link, and the reload kills the server", Needs: Users,
		Tries: "has a folder, a FIFO or a dangling link in the place of a log of a new site, as by somebody who got that far",
		Holds: "that site fails with a reason; no reload is tried with it, and every other site goes on",
		Do:    logTraps,
	},
	{
		Name: "log-lines", Lesson: "request lines and headers with line ends, quotes and escapes in a log that others read", Needs: Users,
		Tries: "visits its site with line ends, escape sequences and quotes in request line, user agent and referer",
		Holds: "each request is one line of text in its own log, and none in another's",
		Do:    logLines,
	},
}

func logLinks(ctx context.Context, w *World) error {
	name := w.fresh()
	if err := w.live(ctx, w.site(name)); err != nil {
		return err
	}
	log, logs := filepath.Join(w.folder(evil, name), "log"), w.Layout.LogFolder(name)
	for what, plant := range map[string]func() error{
		"a link to root's folder": func() error { return os.Symlink(w.Outside, log) },
		"a folder with links": func() error {
			return errors.Join(os.Mkdir(log, 0o777), os.Symlink(w.outside("evil-log"), filepath.Join(log, "access.log")), os.Symlink(w.outside("evil-log"), filepath.Join(log, "error.log")))
		},
		"a FIFO": func() error { return unix.Mkfifo(log, 0o666) },
		"FIFOs": func() error {
			return errors.Join(os.Mkdir(log, 0o777), unix.Mkfifo(filepath.Join(log, "access.log"), 0o666))
		},
	} {
		if err := w.tenant(func() error {
			for _, file := range []string{"access.log", "error.log"} {
				for _, change := range []error{
					os.Remove(filepath.Join(logs, file)), os.Rename(filepath.Join(logs, file), filepath.Join(logs, "x")), os.WriteFile(filepath.Join(logs, file), nil, 0o600),
					os.Symlink(w.outside("evil-log"), filepath.Join(logs, "new")),
				} {
					if change == nil {
						return fmt.Errorf("the tenant can change %s in %s", file, logs)
					}
				}
			}
			return errors.Join(os.RemoveAll(log), plant())
		}); err != nil {
			return fmt.Errorf("planting %s: %w", what, err)
		}
		if _, err := w.Declare(ctx, w.site(name, map[string]any{"headers": map[string]string{"X-For": what}})); err != nil {
			return err
		}
		status, err := w.Site(ctx, name)
		if err != nil {
			return err
		}
		if err := printable(status.Reason); err != nil {
			return err
		}
		if _, err := w.get(ctx, name, "/"+strings.Repeat("x", 100)); err != nil {
			return fmt.Errorf("with %s in the place of its logs: %w", what, err)
		}
	}
	return nil
}

func logTraps(ctx context.Context, w *World) error {
	for what, plant := range map[string]func(string) error{
		"a folder":              func(p string) error { return os.Mkdir(p, 0o755) },
		"a FIFO":                func(p string) error { return unix.Mkfifo(p, 0o666) },
		"a dangling link":       func(p string) error { return os.Symlink(w.outside("evil-log"), p) },
		"a link to root's file": func(p string) error { return os.Symlink(w.outside("secret.txt"), p) },
	} {
		name := w.fresh()
		folder := w.Layout.LogFolder(name)
		if err := errors.Join(os.MkdirAll(folder, 0o755), plant(filepath.Join(folder, "access.log"))); err != nil {
			return err
		}
		if _, err := w.Declare(ctx, w.site(name)); err != nil {
			return err
		}
		status, err := w.Site(ctx, name)
		if err != nil {
			return fmt.Errorf("with %s as a log: %w", what, err)
		}
		if status.State != upkeep.SiteFailed {
			return fmt.Errorf("with %s as a log the site is %s", what, status.State)
		}
		if err := printable(status.Reason); err != nil {
			return err
		}
		// The others' changes go through.
		if err := w.live(ctx, w.site(evilSite, map[string]any{"wildcard": true, "headers": map[string]string{"X-After": strings.ReplaceAll(what, " ", "-")}})); err != nil {
			return fmt.Errorf("after %s: %w", what, err)
		}
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
	}
	return nil
}

func logLines(ctx context.Context, w *World) error {
	log := filepath.Join(w.Layout.LogFolder(evilSite), "access.log")
	others := filepath.Join(w.Layout.LogFolder(victimSite), "access.log")
	marker := fmt.Sprintf("marker%d", time.Now().UnixNano())
	requests := []string{
		"GET /" + marker + "%0a127.0.0.1%20-%20forged HTTP/1.1\r\nHost: evil.test\r\nUser-Agent: a\x1b[2J" + marker + "\r\nReferer: \"x\" y\\\r\nConnection: close\r\n\r\n",
		"GET /" + marker + "\x1b]0;x\x07 HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
		"GET /" + marker + "\nvictim.test forged HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
		"GET /" + marker + " HTTP/1.1\r\nHost: evil.test\r\nUser-Agent: " + strings.Repeat("x", 7000) + "\r\nConnection: close\r\n\r\n",
		"GET /" + marker + "-last HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
	}
	for _, request := range requests {
		if _, err := w.raw(ctx, request); err != nil {
			return err
		}
	}
	var text []byte
	if err := until(ctx, func() (bool, error) {
		var err error
		text, err = os.ReadFile(log)
		return strings.Contains(string(text), marker+"-last"), err
	}); err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\x07\r\x00") {
			return fmt.Errorf("the log has control characters: %.200q", line)
		}
		if strings.HasPrefix(line, "victim.test forged") || strings.HasPrefix(line, "127.0.0.1 - forged") {
			return fmt.Errorf("a line of the log is forged: %.200q", line)
		}
	}
	text, err := os.ReadFile(others)
	if err != nil {
		return err
	}
	if strings.Contains(string(text), marker) {
		return errors.New("a request is in the neighbour's log")
	}
	info, err := os.Stat(log)
	if err != nil {
		return err
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("the log is %s and belongs to user %d", info.Mode(), st.Uid)
	}
	return nil
}
