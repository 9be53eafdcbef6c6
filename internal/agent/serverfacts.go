package agent

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/image"
)

// serverFacts tells what the agent finds on its server.
func serverFacts(ctx context.Context, r *Root, _ job) (any, error) { return r.Facts(ctx), nil }

// Facts are what the agent finds on its server. What cannot be found out is left
// out, with a warning.
func (r *Root) Facts(ctx context.Context) upkeep.Facts {
	facts := upkeep.Facts{
		At: r.o.Now().UTC(), System: osRelease(), Version: r.o.Version, UID: os.Geteuid(), Kinds: r.policy.Kinds, Allows: r.policy.Told(),
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		facts.Hostname, facts.Kernel = unix.ByteSliceToString(name.Nodename[:]), unix.ByteSliceToString(name.Release[:])
	}
	facts.Warnings = r.warnings()
	if web := r.o.Web; web != nil {
		stats := web.Applier.Stats()
		facts.Sites, facts.Foreign, facts.Stall, facts.URL = stats.Sites, stats.Foreign, upkeep.Duration(stats.Stall), web.URL
		for site, one := range web.Applier.Astray() {
			if facts.Astray == nil {
				facts.Astray, facts.InForce = map[string]string{}, map[string]int64{}
			}
			facts.Astray[site], facts.InForce[site] = one.Why, one.InForce
		}
		version, err := web.Applier.Version(ctx)
		if err != nil {
			facts.Warnings = append(facts.Warnings, "the web server's version: "+plainText(err.Error()))
		}
		facts.WebServer = plainText(version)
		if err := web.Applier.CheckSuexec(ctx); err != nil {
			facts.Warnings = append(facts.Warnings, failed(0, err).Error)
		}
		if busy := busyWarning(web.Applier.BusyPHP()); busy != "" {
			facts.Warnings = append(facts.Warnings, busy)
		}
		if _, err := web.Server.Process(); err != nil {
			facts.WebDown = plainText(err.Error())
			facts.Warnings = append(facts.Warnings, "the web server: "+facts.WebDown)
		}
	}
	return facts
}

// busyWarning says of which sites PHP does not come to the requests that it has, ""
// for none.
func busyWarning(sites []string) string {
	switch len(sites) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("PHP of site %s takes requests and is too busy to answer them; raise its php.children if that lasts", sites[0])
	}
	return fmt.Sprintf("PHP of %d sites, %s among them, takes requests and is too busy to answer them; raise their php.children if that lasts", len(sites), sites[0])
}

func osRelease() string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if value, is := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); is {
			return plainText(strings.Trim(value, `"'`))
		}
	}
	return ""
}

// kernelSettings protect customers from each other (sysctl fs, "protected_*").
// The agent does not rely on any of them; other programs on the server do.
var kernelSettings = []struct{ name, guards string }{
	{"protected_hardlinks", "a customer can make hard links to files of others, and wait for a program of root's to change their owner"},
	{"protected_symlinks", "a customer can have a program of root's follow links in /tmp"},
}

func (r *Root) warnings() []string {
	var all []string
	for _, setting := range kernelSettings {
		text, err := os.ReadFile("/proc/sys/fs/" + setting.name)
		switch {
		case err != nil:
			all = append(all, fmt.Sprintf("fs.%s cannot be read, so it is not known whether it is on", setting.name))
		case strings.TrimSpace(string(text)) == "0":
			all = append(all, fmt.Sprintf("fs.%s is 0: %s; set it to 1 in /etc/sysctl.d", setting.name, setting.guards))
		}
	}
	all = append(all, r.images.begun.warnings()...)
	if r.policy.Images != nil && !r.policy.Images.Trust && !image.Confines() {
		all = append(all, "this kernel has no Landlock (Linux 5.13): a program that an image takes over could read other files of this server")
	}
	if r.policy.OneUser() {
		all = append(all, fmt.Sprintf("accounts have no system users here: everything belongs to user %d, and accounts are not kept apart", os.Geteuid()))
	}
	return all
}
