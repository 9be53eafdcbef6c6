package webserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/lazy"
	"upkeep/internal/vhost"
)

// Nginx is an nginx whose main configuration includes a folder of ours, in its
// http block.
type Nginx struct {
	// Program, Config, Include, PIDFile and Scratch are as those of [Apache].
	Program, Config, Include, PIDFile, Scratch string
}

// Renderer implements [Server].
func (Nginx) Renderer() vhost.Renderer { return vhost.Nginx{} }

// Process implements [Server].
func (n Nginx) Process() (Process, error) { return findProcess(n.PIDFile, n.Program) }

// Test implements [Server]; see [Apache.Test].
func (n Nginx) Test(ctx context.Context, files []string) error {
	_, output, err := n.run(ctx, "-t", files)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil || output == "" {
		return err
	}
	return testError(output)
}

// run runs the program on a copy of the main configuration. The copy lies beside
// it while that lasts: nginx takes paths in it as relative to its folder.
func (n Nginx) run(ctx context.Context, flag string, files []string) (stdout, stderr string, err error) {
	text, err := os.ReadFile(n.Config)
	if err != nil {
		return "", "", fmt.Errorf("reading the web server's configuration: %w", err)
	}
	lines := nginxInclude(n.Include).FindAllIndex(text, -1)
	if len(lines) != 1 {
		return "", "", upkeep.WithHint(fmt.Errorf("%s includes %s %d times, and should do so once", n.Config, n.Include, len(lines)),
			"its http block needs this line: include "+n.Include+"/*.conf;")
	}
	list := filepath.Join(n.Scratch, "files.conf")
	var includes []byte
	for _, file := range files {
		includes = fmt.Appendf(includes, "include \"%s\";\n", file)
	}
	text = slices.Concat(text[:lines[0][0]], fmt.Appendf(nil, `include "%s";`, list), text[lines[0][1]:])
	copied := filepath.Join(filepath.Dir(n.Config), ".upkeep-test"+tempMark)
	if err := errors.Join(writeScratch(list, includes), writeScratch(copied, text)); err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, removeAll(copied)) }()
	return run(ctx, nil, n.Program, flag, "-q", "-c", copied)
}

func nginxInclude(folder string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^[ \t]*include[ \t]+"?` + regexp.QuoteMeta(folder) + `/\*\.conf"?[ \t]*;`)
}

// Reload implements [Server]. nginx keeps what it has when it cannot take the new
// configuration, and when it can, its old workers take new connections for a
// tenth of a second more: the reload is over when each of them says that it is
// shutting down, or has.
func (n Nginx) Reload(ctx context.Context) error {
	p, err := n.Process()
	if err != nil {
		return err
	}
	old := workers(p.PID)
	if err := signal(n.PIDFile, n.Program, unix.SIGHUP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nginxPatience)
	defer cancel()
	for slices.ContainsFunc(old, works) {
		select {
		case <-ctx.Done():
			return upkeep.WithHint(errors.New("nginx has not taken the new configuration, and goes on with the old one"), "its error log says why")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// nginxPatience is how long nginx may take to read its configuration.
const nginxPatience = time.Minute

// workers lists the children of a process that work.
func workers(pid int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(field); err == nil && works(child) {
			pids = append(pids, child)
		}
	}
	return pids
}

// works reports whether a process is a worker that takes new connections. nginx
// has them tell in their titles.
func works(pid int) bool {
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.HasPrefix(string(title), "nginx: worker process") && !strings.Contains(string(title), "shutting down")
}

var nginxVersion = lazy.Regexp(`nginx/[0-9.]+`)

// Version implements [Server].
func (n Nginx) Version(ctx context.Context) (string, error) {
	_, out, err := run(ctx, nil, n.Program, "-v")
	if m := nginxVersion().FindString(out); m != "" {
		return m, nil
	}
	return "", fmt.Errorf("asking %s for its version: %w", n.Program, err)
}

var (
	// "# configuration file /etc/nginx/nginx.conf:"
	nginxFile = lazy.Regexp(`(?m)^# configuration file (.+):$`)
	nginxName = lazy.Regexp(`(?m)^[^#\n]*\bserver_name\s+([^;]+);`)
)

// Foreign implements [Server].
func (n Nginx) Foreign(ctx context.Context, beside []string) (names, files []string, err error) {
	out, output, err := n.run(ctx, "-T", beside)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the web server's own configuration: %w", testError(cmpText(output, err)))
	}
	for _, m := range nginxName().FindAllStringSubmatch(out, -1) {
		for _, name := range strings.Fields(m[1]) {
			if name = strings.Trim(name, `"'`); name != "_" && name != "" {
				names = append(names, strings.ToLower(name))
			}
		}
	}
	slices.Sort(names)
	for _, m := range nginxFile().FindAllStringSubmatch(out, -1) {
		if filepath.Dir(m[1]) != n.Scratch && !strings.HasSuffix(m[1], tempMark) {
			files = append(files, m[1])
		}
	}
	// Not its folder's own time: the copies that tests read come and go there.
	return slices.Compact(names), append(files, n.Config, n.Program), nil
}

// cmpText is what a program said or, if that is nothing, what went wrong.
func cmpText(output string, err error) string {
	if output != "" {
		return output
	}
	return err.Error()
}
