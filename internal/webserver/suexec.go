package webserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"upkeep"
	"upkeep/internal/lazy"
)

// suexec is what is known of the program through which Apache runs programs of
// sites as their accounts, and the files that were read for that. It is asked for
// every few seconds and changes with a package.
type suexec struct {
	mu   sync.Mutex
	of   [3]stamp // of Apache, of suexec, of its settings
	bin  string
	root string
	file string // the settings, of a suexec that has some
}

var (
	suexecBin    = lazy.Regexp(`-D SUEXEC_BIN="([^"]+)"`)
	suexecRoot   = lazy.Regexp(`-D AP_DOC_ROOT="([^"]+)"`)
	suexecConfig = lazy.Regexp(`-D SUEXEC_CONFIG_DIR="?([^"\s]+)`)
)

// CheckSuexec reports why programs of sites would not run, where that is sure: suexec
// is there and refuses all that is not below a folder that does not hold the homes. It
// says so in a log of its own alone, and visitors get status 500. Without suexec at
// all, Apache refuses such sites, or it is not said to be wanted.
func (a *Applier) CheckSuexec(ctx context.Context) error {
	apache, is := a.o.Server.(Apache)
	if !is || a.o.Layout.OneUser {
		return nil
	}
	root, file, err := a.suexec.look(ctx, apache)
	home := filepath.Clean(a.o.Layout.Home)
	if err != nil || root == "" || root == "/" || home == root || strings.HasPrefix(home, root+"/") {
		return nil // what cannot be found out is not warned of
	}
	hint := "apt-get install apache2-suexec-custom, and make " + home + " the first line of /etc/apache2/suexec/www-data"
	if file != "" {
		hint = "make " + home + " the first line of " + file
	}
	return upkeep.WithHint(fmt.Errorf("suexec runs programs below %s alone, and sites are in %s: those with cgi answer 500 there", root, home), hint)
}

func (s *suexec) look(ctx context.Context, apache Apache) (root, file string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := stampOf(apache.Program); s.bin == "" || s.of[0] != now {
		out, errs, err := run(ctx, nil, apache.Program, "-V")
		found := suexecBin().FindStringSubmatch(out + errs)
		if found == nil {
			return "", "", err
		}
		// It tells that before it stumbles over a configuration that needs its environment.
		s.of, s.bin = [3]stamp{now}, found[1]
	}
	bin, err := filepath.EvalSymlinks(s.bin)
	if err != nil {
		return "", "", err // none is installed
	}
	if now := stampOf(bin); s.of[1] != now {
		if s.root, s.file, err = askSuexec(ctx, apache, bin); err != nil {
			return "", "", err
		}
		s.of[1], s.of[2] = now, stamp{}
	}
	if s.file == "" {
		return s.root, "", nil
	}
	if now := stampOf(s.file); s.of[2] != now {
		text, err := os.ReadFile(s.file)
		if err != nil {
			return "", "", err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		s.of[2], s.root = now, filepath.Clean(strings.TrimSpace(line))
	}
	return s.root, s.file, nil
}

// askSuexec asks a suexec for the folder that it was built with, or for the file of
// settings that has it: Debian's configurable one reads that of the web server's user.
func askSuexec(ctx context.Context, apache Apache, bin string) (root, file string, err error) {
	out, errs, err := run(ctx, nil, bin, "-V")
	if err != nil {
		return "", "", err
	}
	if found := suexecConfig().FindStringSubmatch(out + errs); found != nil {
		user := "www-data"
		if process, err := apache.Process(); err == nil {
			for _, variable := range process.Environment {
				if value, is := strings.CutPrefix(variable, "APACHE_RUN_USER="); is && value != "" && filepath.Base(value) == value {
					user = value
				}
			}
		}
		return "", filepath.Join(found[1], user), nil
	}
	if found := suexecRoot().FindStringSubmatch(out + errs); found != nil {
		root = filepath.Clean(found[1])
	}
	return root, "", nil
}
