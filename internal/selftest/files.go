package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// fileAttacks are what a tenant does in its own folders, and tries in others'.
var fileAttacks = []Attack{
	{
		Name: "swap-race", Lesson: "Froxlor CVE-2026-100716 and CVE-2026-113678, cPanel CVE-2026-29203: an intermediate folder becomes a link while root works in it", Needs: Users,
		Tries: "changes a folder and a link to root's folder against each other, thousands of times a second, while root makes folders in it",
		Holds: "root makes folders in the tenant's folder or not at all; nothing outside gets a folder, an owner or a mode",
		Do:    swapRace,
	},
	{
		Name: "not-a-folder", Lesson: "go os.Root: hard links are not seen, opening a FIFO waits for ever", Needs: Users,
		Tries: "puts a FIFO, a socket, a file, a link to root's folder and a link to itself where root makes folders",
		Holds: "the job fails soon and says why; nothing waits, and nothing is followed",
		Do:    notAFolder,
	},
	{
		Name: "hard-links", Lesson: "cPanel 2004-1603, LiteSpeed CVE-2026-54420: chown of a hard link to root's file", Needs: Users,
		Tries: "has hard links to root's files where root works, as on a system without protected_hardlinks",
		Holds: "owner and mode of the files stay",
		Do:    hardLinks,
	},
	{
		Name: "removal-follows-links", Lesson: "Froxlor CVE-2026-100715: rm -rf path/ removes what a link leads to", Needs: Users,
		Tries: "fills its folders with links to root's and the neighbour's, then has the site removed",
		Holds: "links go, what they lead to stays",
		Do:    removalFollowsLinks,
	},
	{
		Name: "links-in-pages", Lesson: "jabali JAB-183: a link to another tenant's wp-config.php is served as text", Needs: Users,
		Tries: "puts links to root's files, to the neighbour's and to folders into its pages, and visits them",
		Holds: "the web server follows no link to what is not the tenant's",
		Do:    linksInPages,
	},
	{
		Name: "htaccess", Lesson: "iNetPanel GHSA-mjmx-xpqq-p2h8; options that a .htaccess takes back",
		Tries: "has a .htaccess with every kind of directive in its pages",
		Holds: "it is not read, and not shown",
		Do:    htaccess,
	},
	{
		Name: "folders-of-others", Lesson: "log, include and home folders that a customer can write to", Needs: Users,
		Tries: "as its user, makes, renames and removes entries in root's folders, its own home among them, and in the neighbour's",
		Holds: "the kernel refuses every one",
		Do:    foldersOfOthers,
	},
	{
		Name: "secrets", Lesson: "jabali JAB-351: the user that faces the internet can speak to the root agent", Needs: Users,
		Tries: "as its user, reads control's database, keys and token, the agent's identity and policy, password files and the neighbour's pages, and connects to control's socket",
		Holds: "the kernel refuses every one",
		Do:    secrets,
	},
	{
		Name: "folders-by-jobs", Lesson: "iNetPanel: callers pass an account and a relative folder, never a path",
		Tries: "asks for folders by job: absolute, through .. and links, of root and of others, with set-id bits, as homes",
		Holds: "each is refused, or fails with a reason",
		Do:    foldersByJobs,
	},
	{
		Name: "programs", Lesson: "programs of a site that run as the web server's user can read every site", Needs: Users,
		Tries: "has a CGI program of its own read the neighbour's pages, password files and the web server's processes",
		Holds: "it runs as the account's user, or not at all",
		Do:    programs,
	},
}

// racing is how long a race is run.
const racing = 3 * time.Second

func swapRace(ctx context.Context, w *World) error {
	name := w.fresh()
	generation := func(n int) map[string]any {
		return w.site(name, map[string]any{"root": fmt.Sprintf("public/deep/g%d", n)})
	}
	if err := w.live(ctx, generation(0)); err != nil {
		return err
	}
	swapped := []string{w.htdocs(evil, name), filepath.Join(w.htdocs(evil, name), "public")}
	beside := func(folder string) string {
		return filepath.Join(w.folder(evil, name), "link-"+filepath.Base(folder))
	}
	var stop atomic.Bool
	var swaps atomic.Int64
	ended := make(chan error, len(swapped))
	for _, folder := range swapped {
		go func() {
			ended <- w.tenant(func() error {
				link := beside(folder)
				if err := os.Symlink(w.Outside, link); err != nil {
					return err
				}
				for !stop.Load() {
					if unix.Renameat2(unix.AT_FDCWD, folder, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE) == nil {
						swaps.Add(1)
					}
				}
				return nil
			})
		}()
	}
	refusals := 0
	var broken error
	for n, end := 1, time.Now().Add(racing); broken == nil && time.Now().Before(end); n++ {
		if _, broken = w.Declare(ctx, generation(n)); broken != nil {
			break
		}
		status, err := w.Site(ctx, name)
		if broken = err; err == nil && status.State != upkeep.SiteLive {
			refusals++
			broken = printable(status.Reason)
		}
	}
	stop.Store(true)
	broken = errors.Join(broken, <-ended, <-ended)
	for _, folder := range swapped { // the outer one first, which the other is in
		broken = errors.Join(broken, w.tenant(func() error {
			if info, err := os.Lstat(folder); err != nil || info.Mode()&fs.ModeSymlink == 0 {
				return err
			}
			return unix.Renameat2(unix.AT_FDCWD, folder, unix.AT_FDCWD, beside(folder), unix.RENAME_EXCHANGE)
		}))
	}
	if swaps.Load() < 1000 {
		broken = errors.Join(broken, fmt.Errorf("the race was no race: %d swaps", swaps.Load()))
	}
	if broken != nil {
		return broken
	}
	return w.live(ctx, generation(0)) // it still can be served
}

// noFolders are what a tenant puts in the place of a folder, by what it is.
func (w *World) noFolders() map[string]func(place string) error {
	link := func(to string) func(string) error {
		return func(place string) error { return os.Symlink(to, place) }
	}
	return map[string]func(string) error{
		"a FIFO": func(place string) error { return unix.Mkfifo(place, 0o666) },
		"a file": func(place string) error { return os.WriteFile(place, []byte("x"), 0o644) },
		"a socket": func(place string) error {
			listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: place})
			if err != nil {
				return err
			}
			listener.SetUnlinkOnClose(false)
			return listener.Close()
		},
		"a link to a folder of its": func(place string) error {
			loop := filepath.Join(filepath.Dir(place), "loop")
			return errors.Join(os.MkdirAll(loop, 0o755), os.Symlink("loop", place))
		},
		"a link to root's folder": link(w.Outside), "a link to the neighbour's": link(w.htdocs(victim, victimSite)), "a link to itself": link("public"),
		"a link to the root of /proc": link("/proc/self/root"), "a link to nothing, not there": link(w.outside("nothing")),
	}
}

func notAFolder(ctx context.Context, w *World) error {
	plants := w.noFolders()
	names, plain := map[string]string{}, []any{}
	for what := range plants {
		names[what] = w.fresh()
		plain = append(plain, w.site(names[what]))
	}
	if err := w.live(ctx, plain...); err != nil {
		return err
	}
	for what, plant := range plants {
		name := names[what]
		place := filepath.Join(w.htdocs(evil, name), "public")
		if err := w.tenant(func() error { return plant(place) }); err != nil {
			return fmt.Errorf("planting %s: %w", what, err)
		}
		began := time.Now()
		if _, err := w.Declare(ctx, w.site(name, map[string]any{"root": "public/new"})); err != nil {
			return err
		}
		status, err := w.Site(ctx, name)
		switch {
		case err != nil:
			return fmt.Errorf("with %s: %w", what, err)
		case status.State != upkeep.SiteFailed:
			return fmt.Errorf("with %s in the place of a folder the site is %s", what, status.State)
		case time.Since(began) > 20*time.Second:
			return fmt.Errorf("with %s it took %s", what, time.Since(began))
		}
		if err := printable(status.Reason); err != nil {
			return err
		}
		if err := w.tenant(func() error { return os.Remove(place) }); err != nil {
			return err
		}
	}
	return w.live(ctx, plain...) // each can be served once more
}

func hardLinks(ctx context.Context, w *World) error {
	name := w.fresh()
	if err := w.live(ctx, w.site(name)); err != nil {
		return err
	}
	// With root's help, since the kernel may refuse it to a tenant.
	planted := map[string]string{
		filepath.Join(w.htdocs(evil, name), "public"):    w.outside("inner/private.txt"),
		filepath.Join(w.htdocs(evil, name), "index.php"): w.outside("secret.txt"),
		filepath.Join(w.folder(evil, name), "cgi-bin"):   w.outside("inner/private.txt"),
	}
	for link, to := range planted {
		if err := os.Link(to, link); err != nil {
			return err
		}
	}
	var broken error
	for _, fields := range []map[string]any{{"root": "public"}, {"cgi": true}, {"index": []string{"index.php"}}} {
		_, err := w.Declare(ctx, w.site(name, fields))
		if err == nil {
			_, err = w.Site(ctx, name)
		}
		broken = errors.Join(broken, err)
	}
	for link := range planted {
		uid, _, err := ownerOf(link)
		if err == nil && uid != 0 {
			err = fmt.Errorf("%s, a file of root's, belongs to user %d now", link, uid)
		}
		broken = errors.Join(broken, err, os.Remove(link))
	}
	return broken
}

func removalFollowsLinks(ctx context.Context, w *World) error {
	name := w.fresh()
	if err := w.live(ctx, w.site(name, map[string]any{"root": "public"})); err != nil {
		return err
	}
	if err := w.tenant(func() error {
		folder := w.htdocs(evil, name)
		return errors.Join(
			os.Symlink(w.Outside, filepath.Join(folder, "out")), os.Symlink(w.Outside+"/", filepath.Join(folder, "public", "slash")),
			os.Symlink(w.folder(victim, victimSite), filepath.Join(w.folder(evil, name), "victim")),
			os.Rename(filepath.Join(folder, "public"), filepath.Join(folder, "was")), os.Symlink(w.Outside, filepath.Join(folder, "public")),
		)
	}); err != nil {
		return err
	}
	if err := w.Delete(ctx, upkeep.KindSite, name); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) {
		got, err := w.get(ctx, name, "/")
		return got.status == http.StatusNotFound || got.status == http.StatusMisdirectedRequest, err
	})
}

func linksInPages(ctx context.Context, w *World) error {
	name := w.fresh()
	if err := w.live(ctx, w.site(name)); err != nil {
		return err
	}
	folder := w.htdocs(evil, name)
	links := map[string]string{
		"secret.txt": w.outside("secret.txt"), "out": w.Outside, "victim.txt": filepath.Join(w.htdocs(victim, victimSite), "index.html"), "victim": w.htdocs(victim, victimSite),
		"up": "../../../..", "passwd.txt": "/etc/passwd", "environ.txt": "/proc/self/environ", "root": "/proc/self/root",
	}
	if err := w.tenant(func() error {
		var errs []error
		for link, to := range links {
			errs = append(errs, os.Symlink(to, filepath.Join(folder, link)))
		}
		return errors.Join(append(errs, os.WriteFile(filepath.Join(folder, "plain.txt"), []byte("plain"), 0o644))...)
	}); err != nil {
		return err
	}
	if got, err := w.get(ctx, name, "/plain.txt"); err != nil || got.body != "plain" {
		return fmt.Errorf("the tenant's own page is not served: status %d, %w", got.status, err)
	}
	for _, path := range []string{
		"/secret.txt", "/out/secret.txt", "/victim.txt", "/victim/index.html", "/up/" + victim + "/" + victimSite + "/htdocs/index.html", "/passwd.txt", "/environ.txt",
		"/root" + w.outside("secret.txt"), "/../" + victimSite + "/htdocs/index.html", "/%2e%2e/%2e%2e/secret.txt", "/..%2f..%2f", "/log/access.log", "/../log/access.log",
	} {
		got, err := w.get(ctx, name, path)
		if err != nil {
			return err
		}
		if got.status == http.StatusOK {
			return fmt.Errorf("%s is served: %.80q", path, got.body)
		}
	}
	return nil
}

func htaccess(ctx context.Context, w *World) error {
	name := w.fresh()
	if err := w.live(ctx, w.site(name)); err != nil {
		return err
	}
	folder := w.htdocs(evil, name)
	text := strings.ReplaceAll("Header always set X-Pwned 1\nOptions +FollowSymLinks +ExecCGI +Includes +Indexes\nErrorDocument 404 \"%{file:OUTSIDE/secret.txt}\"\nRedirect /pwned https://evil.test/\n"+
		"SetHandler server-status\nAddHandler cgi-script .html\nRewriteEngine On\nRewriteRule ^old OUTSIDE/secret.txt\nphp_value auto_prepend_file OUTSIDE/secret.txt\nNonsense\n", "OUTSIDE", w.Outside)
	if err := w.tenant(func() error {
		return errors.Join(os.WriteFile(filepath.Join(folder, ".htaccess"), []byte(text), 0o644), os.WriteFile(filepath.Join(folder, "index.html"), []byte("fine"), 0o644))
	}); err != nil {
		return err
	}
	if got, err := w.get(ctx, name, "/"); err != nil || got.status != http.StatusOK || got.body != "fine" {
		return fmt.Errorf("the site answers with status %d: %.80q, %w", got.status, got.body, err)
	}
	got, err := w.get(ctx, name, "/.htaccess")
	if err == nil && strings.Contains(got.body, "Nonsense") {
		err = errors.New("the .htaccess is shown")
	}
	return errors.Join(err, w.harmless(ctx, name))
}

func foldersOfOthers(_ context.Context, w *World) error {
	l := w.Layout
	folders := []string{
		l.Home, filepath.Join(l.Home, evil), filepath.Join(l.Home, victim), w.folder(victim, victimSite), w.htdocs(victim, victimSite), l.Include, l.Pages, l.Auth, l.Logs,
		filepath.Join(l.Logs, evilSite), filepath.Join(l.Logs, victimSite), w.Outside, filepath.Join(l.Home, evil, ".trash"), filepath.Dir(l.Include), filepath.Dir(w.Outside), "/etc",
	}
	folders = append(folders, w.Watched...)
	return w.tenant(func() error {
		var broken []error
		tried := func(what string, err error) {
			switch {
			case err == nil:
				broken = append(broken, fmt.Errorf("%s worked", what))
			case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EROFS):
				broken = append(broken, fmt.Errorf("%s: %w", what, err))
			}
		}
		for _, folder := range folders {
			file := filepath.Join(folder, "evil-was-here")
			tried("making a file in "+folder, os.WriteFile(file, nil, 0o600))
			tried("making a folder in "+folder, os.Mkdir(file, 0o700))
			tried("making a link in "+folder, os.Symlink("/etc/passwd", file))
			tried("making a FIFO in "+folder, unix.Mkfifo(file, 0o600))
			tried("changing the mode of "+folder, os.Chmod(folder, 0o777))
			tried("taking "+folder, os.Chown(folder, os.Getuid(), -1))
			if entries, err := os.ReadDir(folder); err == nil {
				for _, entry := range entries[:min(len(entries), 20)] {
					at := filepath.Join(folder, entry.Name())
					if owner, _, err := ownerOf(at); err != nil || owner == w.uid && !strings.HasPrefix(at, filepath.Join(l.Home, evil)) {
						continue
					}
					tried("renaming "+at, os.Rename(at, at+"-evil"))
				}
			}
		}
		return errors.Join(broken...)
	})
}

func secrets(_ context.Context, w *World) error {
	files := append([]string{w.outside("inner/private.txt"), filepath.Join(w.htdocs(victim, victimSite), "index.html"), filepath.Join(w.Layout.Logs, victimSite, "access.log")}, w.Secrets...)
	for _, dir := range []string{w.Layout.Auth, w.Layout.Include} {
		// As root, to know what there is.
		if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				files = append(files, path)
			}
			return err
		}); err != nil {
			return err
		}
	}
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("there is nothing to keep secret: %w", err)
		}
	}
	return w.tenant(func() error {
		var broken []error
		for _, file := range files {
			if _, err := os.ReadFile(file); !errors.Is(err, fs.ErrPermission) {
				broken = append(broken, fmt.Errorf("reading %s: %w", file, orWorked(err)))
			}
		}
		for _, socket := range w.Sockets {
			conn, err := net.Dial("unix", socket)
			if err == nil {
				err = conn.Close()
			}
			if !errors.Is(err, fs.ErrPermission) {
				broken = append(broken, fmt.Errorf("connecting to %s: %w", socket, orWorked(err)))
			}
		}
		return errors.Join(broken...)
	})
}

var errWorked = errors.New("it worked")

func orWorked(err error) error {
	if err == nil {
		return errWorked
	}
	return err
}

func foldersByJobs(ctx context.Context, w *World) error {
	type folder struct{ Root, Path, Owner, Group, Mode string }
	for _, f := range []folder{
		{"data", "../outside/x", evil, evil, "0755"}, {"data", "/etc/x", evil, evil, "0755"}, {"data", "a/../../x", evil, evil, "0755"}, {"data", ".", evil, evil, "0755"}, {"data", "", evil, evil, "0755"},
		{"data", "x\x00y", evil, evil, "0755"}, {"data", "x\ny", evil, evil, "0755"}, {"data", "-rf", evil, evil, "0755"}, {"data", "x", "root", evil, "0775"}, {"data", "x", evil, victim, "0770"},
		{"data", "x", evil, evil, "4755"}, {"data", "x", evil, evil, "0777"}, {"data", "x", evil, evil, "9999"}, {"data", "x", "nobody", "nogroup", "0755"}, {"data", "x", "www-data", "www-data", "0755"},
		{"data", "x", "0", "0", "0755"}, {"etc", "x", evil, evil, "0755"}, {"../etc", "x", evil, evil, "0755"}, {"home", "evil-home", evil, evil, "0755"}, {"home", victim, evil, evil, "0755"},
		{"home", victim + "/" + victimSite, evil, evil, "0755"}, {"home", victim + "/" + victimSite + "/htdocs", evil, evil, "0755"}, {"home", victim + "/evil.test", evil, evil, "0755"},
		{"data", strings.Repeat("a/", 200) + "x", evil, evil, "0755"}, {"data", strings.Repeat("a", 5000), evil, evil, "0755"}, {"data", "x", foreignAccount, foreignAccount, "0755"},
	} {
		payload, err := json.Marshal(map[string]string{"root": f.Root, "path": f.Path, "owner": f.Owner, "group": f.Group, "mode": f.Mode})
		if err != nil {
			return err
		}
		job, err := w.Job(ctx, upkeep.JobMkdir, json.RawMessage(payload))
		if err != nil {
			if err := refused(err); err != nil {
				return fmt.Errorf("the folder %.200s: %w", payload, err)
			}
			continue
		}
		if err := refusedBy(job.State, job.Error); err != nil {
			return fmt.Errorf("the folder %.200s: %w", payload, err)
		}
	}
	return nil
}

func programs(ctx context.Context, w *World) error {
	name := w.fresh()
	if _, err := w.Declare(ctx, w.site(name, map[string]any{"cgi": true})); err != nil {
		return refused(err)
	}
	status, err := w.Site(ctx, name)
	if err != nil {
		return err
	}
	if status.State == upkeep.SiteFailed {
		return printable(status.Reason)
	}
	program := filepath.Join(w.folder(evil, name), "cgi-bin", "look")
	text := fmt.Sprintf("#!/bin/sh\necho Content-Type: text/plain\necho\n/usr/bin/id -u\n/bin/cat %s %s/*/* 2>&1\n", filepath.Join(w.htdocs(victim, victimSite), "index.html"), w.Layout.Auth)
	if err := w.tenant(func() error { return os.WriteFile(program, []byte(text), 0o755) }); err != nil {
		return err
	}
	got, err := w.get(ctx, name, "/cgi-bin/look")
	if err != nil {
		return err
	}
	if strings.Contains(got.body, page(victimSite)) || strings.Contains(got.body, "$2y$") {
		return fmt.Errorf("a program of the tenant's runs as another user, and reads the neighbour's files: %.300q", got.body)
	}
	if uid := strings.TrimSpace(firstLine(got.body)); got.status == http.StatusOK && uid != fmt.Sprint(w.uid) {
		return fmt.Errorf("a program of the tenant's runs as user %s", uid)
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
