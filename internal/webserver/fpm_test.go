package webserver

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

func findFPM(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/sbin/php-fpm*")
	if err == nil && len(found) == 0 {
		err = os.ErrNotExist
	}
	testkit.NeedThat(t, "php-fpm (try: make deps)", err)
	return found[len(found)-1]
}

// startFPM starts the php-fpm of the options.
func (w *world) startFPM(config string) *testkit.Process {
	w.t.Helper()
	process := testkit.Start(w.t, w.options.PHP.Program, "-y", config)
	testkit.Eventually(w.t, 20*time.Second, func() (bool, string) {
		_, err := findProcess(w.options.PHP.PIDFile, w.options.PHP.Program)
		return err == nil, fmt.Sprint(err, process.Log())
	})
	return process
}

// newPHPWorld is a world with a php-fpm that has a pool of its own, and is to be
// started with the function.
func newPHPWorld(t *testing.T) (w *world, start func() *testkit.Process) {
	t.Helper()
	return phpWorld(t, newWorld)
}

// phpWorld is newPHPWorld with a web server of choice.
func phpWorld(t *testing.T, server func(testing.TB) *world) (w *world, start func() *testkit.Process) {
	t.Helper()
	testkit.NeedRoot(t)
	program := findFPM(t)
	w = server(t)
	if err := w.Applier.Close(); err != nil {
		t.Fatal(err)
	}
	w.options.Layout.FPM = filepath.Join(w.dir, "fpm")
	config := filepath.Join(w.dir, "php-fpm.conf")
	w.write(config, fmt.Sprintf(`[global]
pid = %[1]s/run/php.pid
error_log = %[1]s/logs/php.log
daemonize = no
include = %[1]s/fpm/*.conf
[none]
user = www-data
listen = %[1]s/run/none.sock
pm = ondemand
pm.max_children = 1
`, w.dir), 0o600)
	if err := os.Mkdir(w.options.Layout.FPM, 0o755); err != nil {
		t.Fatal(err)
	}
	w.options.PHP = &FPM{Program: program, Config: config, PIDFile: filepath.Join(w.dir, "run", "php.pid")}
	w.options.Patience = 5 * time.Second
	return w, func() *testkit.Process { return w.startFPM(config) }
}

// The folder of the pools' sockets is made where it is not there. Where it cannot
// be had, or a socket in it is another's, sites with PHP fail before php-fpm is
// touched: it would end, and all other pools with it.
func TestPHPSockets(t *testing.T) {
	w, start := newPHPWorld(t)
	folder := filepath.Join(w.dir, "run", "php", "sockets")
	w.options.Layout.Sockets = folder
	process := start()
	w.open()
	if err := os.RemoveAll(filepath.Dir(folder)); err != nil { // as somebody tidies up
		t.Fatal(err)
	}
	in := func(name string) vhost.Input {
		in := w.input(name, 1)
		in.Site.PHP = &upkeep.PHP{}
		return in
	}
	w.mustApply(in("example.test"))
	info, err := os.Stat(folder)
	if err != nil || info.Mode() != os.ModeDir|0o755 || info.Sys().(*unixStat).Uid != 0 {
		t.Errorf("the folder of sockets: %v %v", info, err)
	}
	pings := func(site string) {
		t.Helper()
		if err := pingPool(t.Context(), w.options.Layout.Socket(site)); err != nil {
			t.Errorf("the pool of %s: %v", site, err)
		}
	}
	pings("example.test")
	refused := func(site string, parts ...string) {
		t.Helper()
		r := w.apply(in(site))
		if r.State != upkeep.JobFailed || r.Field != "php" {
			t.Fatalf("%s: %+v", site, r)
		}
		for _, part := range parts {
			if text := withHint(r.Err).Error(); !strings.Contains(text, part) {
				t.Errorf("%q says nothing of %q", text, part)
			}
		}
		if exists(filepath.Join(w.options.Layout.FPM, site+".conf")) {
			t.Errorf("the pool of %s is where php-fpm reads", site)
		}
		pings("example.test")
	}
	chmod := func(mode os.FileMode) {
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(0o777)
	refused("open.test", folder, "written to by others", "/run/upkeep-php")
	chmod(0o700)
	refused("closed.test", folder, "0700", "chmod 0755")
	chmod(0o755)
	if err := os.Chown(folder, 33, 33); err != nil {
		t.Fatal(err)
	}
	refused("others.test", folder, "user 33")
	if err := os.Chown(folder, 0, 0); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", w.options.Layout.Socket("taken.test"))
	if err != nil {
		t.Fatal(err)
	}
	refused("taken.test", fmt.Sprintf("process %d listens on %s", os.Getpid(), w.options.Layout.Socket("taken.test")))
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	w.mustApply(in("taken.test"))

	// A boot empties /run. The agent makes the folder when it starts, and php-fpm,
	// which ended without it, starts again.
	process.Stop(5 * time.Second)
	if err := w.Applier.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(folder)); err != nil {
		t.Fatal(err)
	}
	w.open()
	start()
	pings("example.test")
	pings("taken.test")
}

// Scripts run as the account's own user, with the site's environment and limits.
func TestPHP(t *testing.T) {
	w, start := newPHPWorld(t)
	process := start()
	w.open()
	in := w.input("example.test", 1)
	in.Site.PHP = &upkeep.PHP{Memory: 32}
	in.Site.Environment = map[string]string{"APP_MODE": `a "b" \ $c`}
	w.write(filepath.Join(in.DocumentRoot(), "x.php"), `<?php echo posix_getuid(), "|", getenv("APP_MODE"), "|", ini_get("memory_limit"), "|", var_export(@file_get_contents("/etc/passwd"), true);`, 0o644)
	w.write(filepath.Join(in.DocumentRoot(), "x.txt"), `<?php echo "run";`, 0o644)
	w.mustApply(in)
	w.expect("GET", "example.test", "/x.txt", 200, "<?php")
	w.expect("GET", "example.test", "/x.txt/y.php", 404, "")
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		status, body, _ := w.get("example.test", "/x.php")
		return status == 200 && body == `20001|a "b" \ $c|32M|false`, fmt.Sprint(status, body)
	})
	if info, err := os.Stat(w.options.Layout.Socket("example.test")); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("others may speak to the socket: %v %v", info, err)
	}
	// A pool that php-fpm does not accept fails its site alone.
	w.write(filepath.Join(w.dir, "fpm", "by-hand.conf"), "[broken]\nlisten = /x\nno_such_thing = 1\n", 0o600)
	other := w.input("other.test", 1)
	other.Site.PHP = &upkeep.PHP{}
	if r := w.apply(other); r.State != upkeep.JobFailed || r.Field != "php" || !strings.Contains(r.Err.Error(), "php-fpm") {
		t.Errorf("%+v", r)
	}
	if exists(filepath.Join(w.options.Layout.FPM, "other.test.conf")) {
		t.Error("a pool that did not pass is where php-fpm reads")
	}
	if err := os.Remove(filepath.Join(w.dir, "fpm", "by-hand.conf")); err != nil {
		t.Fatal(err)
	}
	// Where php-fpm is away, sites without PHP are none the worse, and the others
	// live once it is back and they are asked for again.
	process.Stop(5 * time.Second)
	results := w.applyAll([]vhost.Input{other, w.input("plain.test", 1)})
	if r := results["other.test"]; r.State != upkeep.JobFailed || r.Field != "php" || !strings.Contains(r.Err.Error(), "php-fpm") {
		t.Errorf("%+v", r)
	}
	if why := results["other.test"].Err.Error(); strings.Contains(why, "web server") {
		t.Errorf("it is put on the web server: %s", why)
	}
	if astray := w.Astray(); len(astray) > 0 {
		t.Errorf("sites are tried again when the web server is back, which was never away: %v", astray)
	}
	if r := results["plain.test"]; r.State != upkeep.JobDone {
		t.Errorf("a site without PHP: %+v", r)
	}
	if err := os.Remove(filepath.Join(w.options.Layout.FPM, "other.test.conf")); err != nil { // it starts without
		t.Fatal(err)
	}
	start()
	w.mustApply(other)
	if err := pingPool(t.Context(), w.options.Layout.Socket("other.test")); err != nil {
		t.Errorf("its pool: %v", err)
	}
	w.expect("GET", "other.test", vhost.PingPath, 404, "")
	w.expect("GET", "example.test", "/x.php", 200, "20001|")
	in.Generation, in.Site.PHP = 2, nil
	w.mustApply(in)
	w.expect("GET", "example.test", "/x.php", 403, "")
	if _, err := os.Stat(filepath.Join(w.options.Layout.FPM, "example.test.conf")); !os.IsNotExist(err) {
		t.Errorf("the pool is still there: %v", err)
	}
	testkit.Eventually(t, 20*time.Second, func() (bool, string) {
		return pingPool(t.Context(), w.options.Layout.Socket("example.test")) != nil, "the pool that was removed still answers"
	})
	if err := pingPool(t.Context(), w.options.Layout.Socket("other.test")); err != nil {
		t.Errorf("the other pool: %v", err)
	}
}

// Whatever a socket answers, no more than the bound is read and nothing panics.
func FuzzFastCGI(f *testing.F) {
	f.Add(fcgiRecord(fcgiRecord(nil, fcgiStdout, []byte("Content-type: text/plain\r\n\r\npong")), fcgiEnd, make([]byte, 8)))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		output, err := fcgiAnswer(bytes.NewReader(answer))
		if err == nil && len(output) > len(answer) {
			t.Errorf("%d bytes of %d", len(output), len(answer))
		}
	})
}
