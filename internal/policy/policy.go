// Package policy is what the root of a server allows upkeep's control to have
// done there: a file on the server that control can neither read nor change. The
// agent obeys it whatever a job says, and whoever signed it.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"upkeep"
	"upkeep/internal/declare"
	"upkeep/internal/lazy"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
)

// DefaultFile is where the policy is unless another place is given.
const DefaultFile = "/etc/upkeep/agent-policy.yaml"

// DefaultDeleteBudget is the delete budget when the policy does not say.
const DefaultDeleteBudget = 20

// Home is the name of the root that has the homes of accounts.
const Home = "home"

// Policy is the whole of what is allowed. What is not mentioned is not allowed.
type Policy struct {
	// Kinds are the kinds of jobs that are done; all others are refused.
	Kinds []string `json:"kinds"`
	// Roots are the folders below which folders are made, by the names that jobs
	// use for them. One named home has HOME/ACCOUNT.
	Roots map[string]Root `json:"roots,omitempty"`
	// UIDs are the numbers that users of accounts may have here.
	UIDs UIDs `json:"uids,omitzero"`
	// Group is the group that web servers run as, here or where these files are
	// mounted: sites' folders let it in. www-data when left out.
	Group string `json:"group,omitempty"`
	// Web is the web server; there is none without it.
	Web *Web `json:"web,omitempty"`
	// Zones is the name server; there is none without it.
	Zones *Zones `json:"zones,omitempty"`
	// Images are the disk images; there are none without it.
	Images *Images `json:"images,omitempty"`
	// DeleteBudget is how many users and sites may be removed, and contents of
	// images overwritten, in an hour, so that a mistake, or an attacker, cannot empty
	// a server; 0 forbids it altogether, and 20 is meant when it is left out.
	DeleteBudget *int `json:"delete_budget,omitempty"`
	// Front is the user that the agent's unprivileged half runs as;
	// upkeep-agent when left out.
	Front string `json:"front,omitempty"`

	// user is set for the agent of a normal user: everything belongs to that
	// user, whatever account it is for.
	user bool
}

// Root is a folder below which work is done.
type Root struct {
	Path string `json:"path"`
	// Mounts lets work go on in file systems that are mounted below it.
	Mounts bool `json:"mounts,omitempty"`
}

// UnmarshalText reads the short form, which is the path alone.
func (r *Root) UnmarshalText(text []byte) error {
	r.Path = string(text)
	return nil
}

// UIDs is a range of user ids, both ends in it.
type UIDs struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// First is the first number after the last that is not free, in the range; where
// that is its end, the first that is free at all; 0 for none.
func (u UIDs) First(free func(uid int) bool) int {
	if u.Min == 0 {
		return 0
	}
	last := u.Max
	for last >= u.Min && free(last) {
		last--
	}
	if last < u.Max {
		return last + 1
	}
	for uid := u.Min; uid <= u.Max; uid++ {
		if free(uid) {
			return uid
		}
	}
	return 0
}

// Zones says where include files of zones may be written and how named is asked
// to read them. Commands and addresses in jobs are not used: they are given here.
type Zones struct {
	// IncludeDirs are the folders that may hold soa.include and ips.include. They
	// and all above them must be root's.
	IncludeDirs []string `json:"include_dirs"`
	// ZoneDirs are folders whose zone files may be read to check a zone before it
	// is loaded. A job that names a zone file elsewhere is refused.
	ZoneDirs []string `json:"zone_dirs,omitempty"`
	// RNDC and Checkzone are commands, program first, as absolute paths:
	// /usr/sbin/rndc and /usr/bin/named-checkzone when left out.
	RNDC      []string `json:"rndc,omitempty"`
	Checkzone []string `json:"checkzone,omitempty"`
	// Server is where this named answers; 127.0.0.1:53 when left out.
	Server string `json:"server,omitempty"`
	// Chroot is the folder that named has for its root (named -t).
	Chroot string `json:"chroot,omitempty"`
	// Notify are the secondaries that are sent a NOTIFY after each change, as
	// address:port: named holds its own second one back for notify-delay.
	Notify []string `json:"notify,omitempty"`
}

// maxFile bounds the policy file, in bytes.
const maxFile = 1 << 20

// Load reads a policy file. It is refused when anybody but root could have
// written it: it, and each folder above it, must be root's (or this process's
// user's) and writable by nobody else, and none of them a symbolic link.
func Load(path string) (*Policy, error) {
	text, err := safefs.ReadTrusted(path, maxFile)
	if err != nil {
		return nil, unreadable(path, err)
	}
	return Read(path, text)
}

func unreadable(path string, err error) error {
	err = fmt.Errorf("reading the policy: %w", err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return upkeep.WithHint(err, "without a policy nothing is allowed; begin with the example that comes with upkeep, agent-policy.yaml")
	case errors.Is(err, upkeep.ErrRefused):
		return upkeep.WithHint(err, "whoever can change "+path+" decides what root does here: it and the folders above it must be root's, writable by root alone, and no symbolic links")
	}
	return err
}

// Read reads the text of a policy. The name of the file is for messages.
func Read(file string, text []byte) (*Policy, error) {
	p, err := declare.Settings[Policy](file, text)
	if err != nil {
		return nil, err
	}
	return new(p.withDefaults()), nil
}

func (p Policy) withDefaults() Policy {
	if p.DeleteBudget == nil {
		p.DeleteBudget = new(DefaultDeleteBudget)
	}
	if p.Front == "" {
		p.Front = "upkeep-agent"
	}
	if p.Group == "" {
		p.Group = "www-data"
	}
	if p.Web != nil {
		web := p.Web.withDefaults()
		p.Web = &web
	}
	if p.Zones != nil {
		zones := *p.Zones
		if len(zones.RNDC) == 0 {
			zones.RNDC = []string{"/usr/sbin/rndc"}
		}
		if len(zones.Checkzone) == 0 {
			zones.Checkzone = []string{"/usr/bin/named-checkzone"}
		}
		if zones.Server == "" {
			zones.Server = "127.0.0.1:53"
		}
		p.Zones = &zones
	}
	return p
}

// ForUser is the policy of an agent that lives in upkeep up and does not run as
// root: everything is below the data folder and belongs to the user who started
// it. Accounts have no system users there. With web, sites are applied to a web
// server of upkeep's own.
func ForUser(dataDir string, web bool) *Policy {
	p := Policy{
		Kinds: []string{upkeep.JobMkdir, upkeep.JobUserEnsure, upkeep.JobUserRemove, upkeep.JobSiteFiles, upkeep.JobServerFacts},
		Roots: map[string]Root{Home: {Path: filepath.Join(dataDir, "home")}},
		UIDs:  UIDs{upkeep.MinUID, upkeep.MaxUID},
		user:  true,
	}
	for _, kind := range task.Kinds() {
		if strings.HasPrefix(kind, "image.") {
			p.Kinds = append(p.Kinds, kind)
		}
	}
	p.Images = &Images{Roots: map[string]Root{"images": {Path: filepath.Join(dataDir, "images")}}, MaxSize: task.MaxImage}
	if web {
		p.Kinds = append(p.Kinds, upkeep.JobSiteApply, upkeep.JobSiteRemove, upkeep.JobSiteSync)
	}
	return new(p.withDefaults())
}

// OneUser reports whether everything belongs to the user that the agent runs
// as: see [ForUser].
func (p *Policy) OneUser() bool { return p.user }

// Told is what control may know of the policy.
func (p *Policy) Told() *upkeep.Allowed {
	folders := func(roots map[string]Root) map[string]string {
		if len(roots) == 0 {
			return nil
		}
		paths := make(map[string]string, len(roots))
		for name, root := range roots {
			paths[name] = root.Path
		}
		return paths
	}
	told := &upkeep.Allowed{Roots: folders(p.Roots), UIDMin: p.UIDs.Min, UIDMax: p.UIDs.Max}
	if p.DeleteBudget != nil {
		told.DeleteBudget = *p.DeleteBudget
	}
	if p.Images != nil {
		told.ImageRoots, told.MaxImage = folders(p.Images.Roots), p.Images.MaxSize
	}
	if p.Zones != nil {
		told.IncludeDirs = p.Zones.IncludeDirs
	}
	return told
}

// Allows refuses kinds that the policy does not have.
func (p *Policy) Allows(kind string) error {
	if !slices.Contains(p.Kinds, kind) {
		return fmt.Errorf("the policy of this server does not allow %s jobs: %w", kind, upkeep.ErrRefused)
	}
	return nil
}

// Root finds a root by its name.
func (p *Policy) Root(name string) (Root, error) {
	root, exists := p.Roots[name]
	if !exists {
		return Root{}, fmt.Errorf("the policy of this server has no root named %q: %w", name, upkeep.ErrRefused)
	}
	return root, nil
}

// AllowsUID refuses numbers that no account may have here.
func (p *Policy) AllowsUID(uid int) error {
	if uid < p.UIDs.Min || uid > p.UIDs.Max || p.UIDs.Min == 0 {
		return fmt.Errorf("user id %d is not one of %d to %d, which the policy of this server has for accounts: %w", uid, p.UIDs.Min, p.UIDs.Max, upkeep.ErrRefused)
	}
	return nil
}

// AllowsInclude refuses include folders and zone files that are not in the
// policy.
func (z *Zones) AllowsInclude(p upkeep.Publisher) error {
	if !slices.Contains(z.IncludeDirs, p.IncludeDir) {
		return fmt.Errorf("the policy of this server does not have %q among the include_dirs of zones: %w", p.IncludeDir, upkeep.ErrRefused)
	}
	if p.ZoneFile == "" {
		return nil
	}
	dir := filepath.Dir(p.ZoneFile)
	if filepath.Clean(p.ZoneFile) != p.ZoneFile || !slices.Contains(z.ZoneDirs, dir) {
		return fmt.Errorf("the policy of this server does not have %q among the zone_dirs, whose zone files may be read: %w", dir, upkeep.ErrRefused)
	}
	return nil
}

// Validate returns every rule that the policy breaks.
func (p Policy) Validate() []upkeep.FieldError {
	var b broken
	for i, kind := range p.Kinds {
		at := fmt.Sprintf("kinds[%d]", i)
		switch {
		case kind == upkeep.JobNotification || !slices.Contains(task.Kinds(), kind):
			b.add(at, kind, "is not a kind that agents do; they do %s", strings.Join(agentKinds(), ", "))
		case slices.Contains(p.Kinds[:i], kind):
			b.add(at, kind, "is given twice")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Roots)) {
		at := "roots." + name
		if !upkeep.ValidObject(name) {
			b.add(at, name, "must be named in lower-case letters, digits and hyphens")
		}
		b.folder(at, p.Roots[name].Path)
	}
	b.homes(p)
	if p.UIDs != (UIDs{}) {
		b.uids(p.UIDs)
	}
	if p.DeleteBudget != nil && (*p.DeleteBudget < 0 || *p.DeleteBudget > 100_000) {
		b.add("delete_budget", fmt.Sprint(*p.DeleteBudget), "must be 0 to 100000")
	}
	if p.Front != "" && !systemName().MatchString(p.Front) {
		b.add("front", p.Front, "must be the name of a system user")
	}
	if p.Group != "" && (!systemName().MatchString(p.Group) || slices.Contains(powerful, p.Group)) {
		b.add("group", p.Group, "must be the group that the web server runs as, and none that has powers on the system")
	}
	if p.Web != nil {
		b.web(p)
	}
	if p.Zones != nil {
		b.zones(p)
	}
	if p.Images != nil {
		b.images(p)
	}
	b.needs(p)
	return b.fields
}

func agentKinds() []string {
	return slices.DeleteFunc(slices.Clone(task.Kinds()), func(kind string) bool { return kind == upkeep.JobNotification })
}

// systemName is a name of a user or a group of the system.
var systemName = lazy.Regexp(`^[a-z_][a-z0-9_-]{0,31}$`)

// powerful are groups that are as good as root, or that may read what root keeps.
var powerful = strings.Fields("root daemon bin sys adm tty disk kmem sudo wheel shadow staff docker lxd libvirt kvm systemd-journal")

// broken collects broken rules.
type broken struct{ fields []upkeep.FieldError }

func (b *broken) add(field, value, rule string, args ...any) {
	b.fields = append(b.fields, upkeep.FieldError{Field: field, Value: value, Rule: fmt.Sprintf(rule, args...)})
}

// folder checks the path of a folder of the policy's own.
func (b *broken) folder(at, path string) bool {
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.ContainsFunc(path, control):
		b.add(at, path, "must be an absolute path of a folder, without . and .. and without a slash at its end")
	case slices.ContainsFunc(notFolders, func(dir string) bool { return path == dir || below(path, dir) }):
		b.add(at, path, "must not be below %s", strings.Join(notFolders, ", "))
	default:
		return true
	}
	return false
}

// notFolders are kernel interfaces: files there are no files.
var notFolders = []string{"/proc", "/sys", "/dev"}

func control(c rune) bool { return c < 0x20 || c == 0x7f }

func below(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

// homes checks that no root lies in the homes, where folders belong to
// customers, and that none is what a system runs from.
func (b *broken) homes(p Policy) {
	for _, name := range slices.Sorted(maps.Keys(p.Roots)) {
		path := p.Roots[name].Path
		if systemFolder(path) {
			b.add("roots."+name, path, "is a folder of the system, in which nobody else may be given anything")
		}
		for _, other := range slices.Sorted(maps.Keys(p.Roots)) {
			if below(path, p.Roots[other].Path) {
				b.add("roots."+name, path, "must not lie in the root %s", other)
			}
		}
	}
}

// systemFolder reports whether a folder is one of the system, and no root.
func systemFolder(path string) bool {
	return slices.Contains(systemFolders, path) || below(path, "/etc") || below(path, "/usr") || below(path, "/boot")
}

// systemFolders may not be roots.
var systemFolders = strings.Fields("/bin /boot /etc /lib /lib32 /lib64 /root /run /sbin /usr /var /var/lib /var/log /var/run /var/spool /tmp /var/tmp")

func (b *broken) uids(u UIDs) {
	if u.Min < upkeep.MinUID || u.Max > upkeep.MaxUID || u.Min > u.Max {
		b.add("uids", fmt.Sprintf("%d to %d", u.Min, u.Max), "must be a range within %d to %d", upkeep.MinUID, upkeep.MaxUID)
	}
}

// command checks a command of the policy's own: it is run as root.
func (b *broken) command(at string, argv []string) {
	if len(argv) == 0 {
		return
	}
	if !filepath.IsAbs(argv[0]) || filepath.Clean(argv[0]) != argv[0] || slices.ContainsFunc(argv, func(arg string) bool { return strings.ContainsFunc(arg, control) }) {
		b.add(at, argv[0], "must be a command with its program first, as an absolute path; no shell is involved")
	}
}

func (b *broken) zones(p Policy) {
	z := p.Zones
	if len(z.IncludeDirs) == 0 {
		b.add("zones.include_dirs", "", "is required: the folders of soa.include and ips.include")
	}
	for field, list := range map[string][]string{"include_dirs": z.IncludeDirs, "zone_dirs": z.ZoneDirs} {
		for i, path := range list {
			at := fmt.Sprintf("zones.%s[%d]", field, i)
			if b.folder(at, path) {
				b.outsideRoots(at, path, p)
			}
		}
	}
	if z.Chroot != "" {
		b.folder("zones.chroot", z.Chroot)
	}
	b.command("zones.rndc", z.RNDC)
	b.command("zones.checkzone", z.Checkzone)
	if z.Server != "" {
		b.zone("zones.server", z.Server, upkeep.Zone{Publishers: []upkeep.Publisher{{Type: upkeep.PublishBind, IncludeDir: "/x", Server: z.Server}}})
	}
	if len(z.Notify) > 0 {
		b.zone("zones.notify", "", upkeep.Zone{Publishers: []upkeep.Publisher{{Type: upkeep.PublishBind, IncludeDir: "/x"}}, Servers: z.Notify})
	}
}

// zone holds something of the policy's to the rules of zones.
func (b *broken) zone(at, value string, as upkeep.Zone) {
	as.Name = "x.test"
	for _, field := range as.Validate() {
		b.add(at, cmp.Or(value, field.Value), "%s", field.Rule)
	}
}

// outsideRoots refuses folders of servers that lie where customers work.
func (b *broken) outsideRoots(at, path string, p Policy) {
	for _, name := range slices.Sorted(maps.Keys(p.Roots)) {
		if root := p.Roots[name].Path; path == root || below(path, root) || below(root, path) {
			b.add(at, path, "must not share a path with the root %s, in which folders are made for customers", name)
		}
	}
}

// needs checks that what the kinds work with is there.
func (b *broken) needs(p Policy) {
	for i, kind := range p.Kinds {
		at, lacks := fmt.Sprintf("kinds[%d]", i), ""
		switch kind {
		case upkeep.JobMkdir:
			if len(p.Roots) == 0 {
				lacks = "roots"
			}
		case upkeep.JobUserEnsure, upkeep.JobUserRemove:
			if p.UIDs == (UIDs{}) {
				lacks = "uids"
			}
		case upkeep.JobSiteFiles:
			lacks = lacksHome(p)
		case upkeep.JobSiteRemove: // of files alone, where there is no web server
			lacks = lacksHome(p)
		case upkeep.JobSiteApply, upkeep.JobSiteSync:
			if lacks = lacksHome(p); p.Web == nil {
				lacks = "web"
			}
		case upkeep.JobServerPurge:
			if p.Web == nil {
				lacks = "web"
			}
		case upkeep.JobZonePublish:
			if p.Zones == nil {
				lacks = "zones"
			}
		default:
			if strings.HasPrefix(kind, "image.") && p.Images == nil {
				lacks = "images"
			}
		}
		if lacks != "" {
			b.add(at, kind, "needs %s in the policy", lacks)
		}
	}
}

func lacksHome(p Policy) string {
	if _, exists := p.Roots[Home]; !exists {
		return "roots.home"
	}
	if p.UIDs == (UIDs{}) {
		return "uids"
	}
	return ""
}
