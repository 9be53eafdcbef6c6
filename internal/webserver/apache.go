package webserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/lazy"
	"upkeep/internal/vhost"
)

// Apache is an Apache 2.4 whose main configuration includes a folder of ours.
type Apache struct {
	// Program is the server's, such as /usr/sbin/apache2.
	Program string
	// Config is its main configuration, which has a line that includes all files
	// of Include that end in .conf; see [Apache.SetInclude].
	Config, Include string
	// PIDFile is where the running server writes its number.
	PIDFile string
	// Scratch is a folder of root's for what is only read by tests.
	Scratch string
}

// Renderer implements [Server].
func (Apache) Renderer() vhost.Renderer { return vhost.Apache{} }

// Process implements [Server].
func (a Apache) Process() (Process, error) { return findProcess(a.PIDFile, a.Program) }

// env is what the running server has, or what it will be started with.
func (a Apache) env() []string {
	if p, err := a.Process(); err == nil && len(p.Environment) > 0 {
		return p.Environment
	}
	return envvars(filepath.Join(filepath.Dir(a.Config), "envvars"))
}

// Test implements [Server]. The main configuration is read from a copy in which
// the line of the include folder names a list of files: nothing that is tested is
// yet where the server, or a server that is started meanwhile, reads.
func (a Apache) Test(ctx context.Context, files []string) error {
	copied, err := a.copyConfig(files)
	if err != nil {
		return err
	}
	_, output, err := run(ctx, a.env(), a.Program, "-t", "-D", vhost.DefineTest, "-f", copied)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil || output == "" {
		return err
	}
	return testError(output)
}

func (a Apache) copyConfig(files []string) (string, error) {
	text, err := os.ReadFile(a.Config)
	if err != nil {
		return "", fmt.Errorf("reading the web server's configuration: %w", err)
	}
	lines := includeLine(a.Include, a.Config).FindAllIndex(text, -1)
	switch len(lines) {
	case 0:
		return "", upkeep.WithHint(fmt.Errorf("%s does not include %s", a.Config, a.Include), "add this line to its end: "+IncludeLine(a.Include))
	case 1:
	default:
		return "", fmt.Errorf("%s includes %s %d times, so each site would be there as often", a.Config, a.Include, len(lines))
	}
	list := filepath.Join(a.Scratch, "files.conf")
	var includes []byte
	for _, file := range files {
		includes = fmt.Appendf(includes, "Include \"%s\"\n", file)
	}
	// One line for one: the numbers in messages stay right.
	text = slices.Concat(text[:lines[0][0]], fmt.Appendf(nil, `Include "%s"`, list), text[lines[0][1]:])
	copied := filepath.Join(a.Scratch, "main.conf")
	return copied, errors.Join(writeScratch(list, includes), writeScratch(copied, text))
}

// IncludeLine is the one line that a server's main configuration needs.
func IncludeLine(folder string) string { return `IncludeOptional "` + folder + `/*.conf"` }

// includeLine matches the line, as people write it: by full path, or relative to
// the folder of the main configuration.
func includeLine(folder, config string) *regexp.Regexp {
	paths := []string{regexp.QuoteMeta(folder)}
	if rel, err := filepath.Rel(filepath.Dir(config), folder); err == nil && !strings.HasPrefix(rel, "..") {
		paths = append(paths, regexp.QuoteMeta(rel))
	}
	return regexp.MustCompile(`(?mi)^[ \t]*Include(?:Optional)?[ \t]+(["']?)(?:` + strings.Join(paths, "|") + `)/\*\.conf(["']?)[ \t]*$`)
}

// Reload implements [Server]. Apache's parent takes its configuration anew on
// SIGUSR1, and ends if it cannot, so it comes after a test of ours; "apachectl
// graceful" would be a second one.
func (a Apache) Reload(context.Context) error {
	return signal(a.PIDFile, a.Program, unix.SIGUSR1)
}

// firstWins says that Apache takes the first virtual host that a name fits, in the
// order in which it reads them, be it by a pattern: those of the operator's come
// before ours.
func (Apache) firstWins() {}

// Version implements [Server].
func (a Apache) Version(ctx context.Context) (string, error) {
	out, _, err := run(ctx, nil, a.Program, "-v")
	if m := apacheVersion().FindString(out); m != "" {
		return m, nil
	}
	return "", fmt.Errorf("asking %s for its version: %w", a.Program, err)
}

var (
	apacheVersion = lazy.Regexp(`Apache/[0-9.]+`)
	// "         port 80 namevhost a.test (/x.conf:1)", "*:80    a.test (/x.conf:1)", "  alias www.a.test"
	dumpAlone = lazy.Regexp(`(?m)^(\S+)\s+\S+ \(.+:\d+\)$`)
	dumpHost  = lazy.Regexp(`(?m)^.*\s(\S+) \((.+):(\d+)\)$`)
	dumpAlias = lazy.Regexp(`(?m)^\s+(?:wild )?alias (\S+)$`)
	dumpFile  = lazy.Regexp(`(?m)^\s+\([*0-9]+\) (.+)$`)
)

// Foreign implements [Server]: what is left when our folder is empty. Aliases are
// listed for addresses with several virtual hosts only, so those with one get a
// second for the occasion.
func (a Apache) Foreign(ctx context.Context, beside []string) (names, files []string, err error) {
	out, err := a.dump(ctx, beside)
	if err != nil {
		return nil, nil, err
	}
	if alone := dumpAlone().FindAllStringSubmatch(out, -1); len(alone) > 0 {
		second := filepath.Join(a.Scratch, "second.conf")
		var text []byte
		for _, m := range alone {
			text = fmt.Appendf(text, "<VirtualHost %s>\nServerName %s\n</VirtualHost>\n", m[1], vhost.UnknownHost)
		}
		if err := writeScratch(second, text); err != nil {
			return nil, nil, err
		}
		if out, err = a.dump(ctx, append(slices.Clone(beside), second)); err != nil {
			return nil, nil, err
		}
	}
	for _, found := range [][][]string{dumpHost().FindAllStringSubmatch(out, -1), dumpAlias().FindAllStringSubmatch(out, -1)} {
		for _, m := range found {
			if m[1] != vhost.UnknownHost {
				names = append(names, strings.ToLower(m[1]))
			}
		}
	}
	slices.Sort(names)
	for _, m := range dumpFile().FindAllStringSubmatch(out, -1) {
		if filepath.Dir(m[1]) != a.Scratch {
			files = append(files, m[1])
		}
	}
	return slices.Compact(names), append(files, a.Config, a.Program), nil
}

func (a Apache) dump(ctx context.Context, files []string) (string, error) {
	copied, err := a.copyConfig(files)
	if err != nil {
		return "", err
	}
	out, output, err := run(ctx, a.env(), a.Program, "-t", "-D", "DUMP_VHOSTS", "-D", "DUMP_INCLUDES", "-f", copied)
	if err != nil {
		return "", fmt.Errorf("reading the web server's own configuration: %w", testError(output))
	}
	return out, nil
}
