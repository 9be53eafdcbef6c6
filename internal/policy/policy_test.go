package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/task"
	"upkeep/internal/testkit"
)

const small = "kinds: [mkdir, user.ensure]\nroots: {home: /home, srv: {path: /srv, mounts: true}}\nuids: {min: 20000, max: 20100}\n"

func example(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "packaging", "agent-policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestExample holds that the example can be used as it is, and that what it says
// of defaults is so.
func TestExample(t *testing.T) {
	p, err := Read("agent-policy.yaml", example(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range task.Kinds() {
		if err := p.Allows(kind); (err == nil) != (kind != upkeep.JobNotification) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	short, err := Read("short", []byte("kinds: [site.apply, zone.publish]\nroots: {home: /home}\nuids: {min: 20000, max: 59999}\n"+
		"web: {server: apache, include: /etc/apache2/hosted.d}\nzones: {include_dirs: [/etc/bind/upkeep], zone_dirs: [/etc/bind]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v %+v %d %s %s", *short.Web, *short.Zones, *short.DeleteBudget, short.Front, short.Group), fmt.Sprintf("%+v %+v %d %s %s", *p.Web, *p.Zones, *p.DeleteBudget, p.Front, p.Group); got != want {
		t.Errorf("left out is\n%s\nand the example says\n%s", got, want)
	}
}

func TestWhatIsAllowed(t *testing.T) {
	p, err := Read("p", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		p.Allows(upkeep.JobUserRemove), p.Allows("shell"), p.Allows(""), p.AllowsUID(0), p.AllowsUID(19999), p.AllowsUID(20101), p.AllowsUID(-1),
		second(p.Root("etc")), second(p.Root("")),
	} {
		if !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("got %v", err)
		}
	}
	if err := errors.Join(p.Allows(upkeep.JobMkdir), p.AllowsUID(20000), p.AllowsUID(20100), second(p.Root("home"))); err != nil {
		t.Error(err)
	}
	if root, _ := p.Root("srv"); root != (Root{"/srv", true}) {
		t.Errorf("got %+v", root)
	}
	empty, err := Read("p", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range task.Kinds() {
		if !errors.Is(empty.Allows(kind), upkeep.ErrRefused) {
			t.Errorf("an empty policy allows %s", kind)
		}
	}
	if !errors.Is(empty.AllowsUID(0), upkeep.ErrRefused) {
		t.Error("an empty policy allows root's id")
	}
}

func second[T any](_ T, err error) error { return err }

func TestZones(t *testing.T) {
	p, err := Read("p", []byte("kinds: [zone.publish]\nzones: {include_dirs: [/etc/bind/upkeep], zone_dirs: [/etc/bind]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for publisher, allowed := range map[[2]string]bool{
		{"/etc/bind/upkeep", ""}:                      true,
		{"/etc/bind/upkeep", "/etc/bind/db.test"}:     true,
		{"/etc/bind/upkeep/", ""}:                     false,
		{"/etc/bind/upkeep/../..", ""}:                false,
		{"/etc/bind", ""}:                             false,
		{"/etc/cron.d", ""}:                           false,
		{"", ""}:                                      false,
		{"/etc/bind/upkeep", "/etc/shadow"}:           false,
		{"/etc/bind/upkeep", "/etc/bind/../shadow"}:   false,
		{"/etc/bind/upkeep", "/etc/bind/keys/secret"}: false,
		{"/etc/bind/upkeep", "etc/bind/db.test"}:      false,
	} {
		err := p.Zones.AllowsInclude(upkeep.Publisher{IncludeDir: publisher[0], ZoneFile: publisher[1]})
		if (err == nil) != allowed || err != nil && !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%q: %v", publisher, err)
		}
	}
}

// TestRefusedTexts has one mistake in each text, and what is to be said of it.
func TestRefusedTexts(t *testing.T) {
	web := "kinds: [site.apply]\nroots: {home: /home}\nuids: {min: 20000, max: 20100}\nweb: {server: apache, include: /etc/apache2/hosted.d, %s}\n"
	for text, want := range map[string]string{
		"kinds: [mkdirs]":                                                   "p:1:9: kinds[0]: \"mkdirs\": is not a kind",
		"kinds: [notification]":                                             "is not a kind that agents do",
		"kinds: [server.facts, server.facts]":                               "is given twice",
		"kind: agent":                                                       "kind: is not a field",
		"kinds: [mkdir]":                                                    "needs roots",
		"kinds: [user.ensure]":                                              "needs uids",
		"kinds: [site.files]\nroots: {home: /home}":                         "needs uids",
		"kinds: [site.apply]":                                               "needs web",
		"kinds: [zone.publish]":                                             "needs zones",
		"kinds: [image.grow]":                                               "needs images",
		"images: {}":                                                        "images.roots: is required",
		"images: {roots: {v: /srv}}":                                        "images.max_size: ",
		"images: {roots: {v: /srv}, max_size: big}":                         "is not a size",
		"images: {roots: {v: srv}, max_size: 1G}":                           "must be an absolute path",
		"images: {roots: {V: /srv}, max_size: 1G}":                          "must be named in lower-case",
		"images: {roots: {v: /etc}, max_size: 1G}":                          "is a folder of the system",
		"images: {roots: {v: /dev/x}, max_size: 1G}":                        "must not be below",
		"images: {roots: {v: /s, w: /s}, max_size: 1G}":                     "must not lie in the root v",
		"images: {roots: {v: /s, w: /s/x}, max_size: 1G}":                   "must not lie in the root v",
		"roots: {home: /home}\nimages: {roots: {v: /home/x}, max_size: 1G}": "must not share a path with the root home",
		"shell: true":                                                       "is not a field",
		"roots: {home: home}":                                               "must be an absolute path",
		"roots: {home: /home/}":                                             "must be an absolute path",
		"roots: {home: /home/../etc}":                                       "must be an absolute path",
		"roots: {home: /}":                                                  "must be an absolute path",
		"roots: {home: /etc}":                                               "is a folder of the system",
		"roots: {home: /etc/x}":                                             "is a folder of the system",
		"roots: {home: /tmp}":                                               "is a folder of the system",
		"roots: {home: /proc/1/root}":                                       "must not be below /proc",
		"roots: {home: {}}":                                                 "must be an absolute path",
		"roots: {home: {path: /home, follow: true}}":                        "follow: is not a field",
		"roots: {Home: /home}":                                              "must be named in lower-case",
		"roots: {home: /home, b: /home/x}":                                  "must not lie in the root home",
		"uids: {min: 0, max: 59999}":                                        "must be a range within 20000 to 59999",
		"uids: {min: 20000, max: 65534}":                                    "must be a range within",
		"uids: {min: 30000, max: 20000}":                                    "must be a range within",
		"delete_budget: -1":                                                 "must be 0 to 100000",
		"delete_budget: many":                                               "must be a whole number",
		"front: ../root":                                                    "must be the name of a system user",
		"zones: {}":                                                         "is required",
		"zones: {include_dirs: [bind]}":                                     "must be an absolute path",
		"zones: {include_dirs: [/b], rndc: [rndc]}":                         "as an absolute path",
		"zones: {include_dirs: [/b], server: here}":                         "zones.server",
		"zones: {include_dirs: [/b], notify: [ns2]}":                        "zones.notify",
		"a: 1\n---\nb: 2":                                                   "one document only",
		"- mkdir":                                                           "must be a mapping",
		"kinds: !!binary x":                                                 "tags have no use",
		"group: root":                                                       "must be the group",
		"group: docker":                                                     "must be the group",
		fmt.Sprintf(web, "program: apache2"):                                "must be an absolute path",
		fmt.Sprintf(web, "config: \"/a\\nb\""):                              "must be an absolute path",
		fmt.Sprintf(web, "listen: '*'"):                                     "an address and a port",
		fmt.Sprintf(web, "listen: \"*:80>\""):                               "an address and a port",
		fmt.Sprintf(web, "scheme: gopher"):                                  "must be http or https",
		fmt.Sprintf(web, "logs: /home/logs"):                                "must not share a path with the root home",
		fmt.Sprintf(web, "url: 'file:///etc'"):                              "must be http://",
		fmt.Sprintf(web, "php: {pools: /etc/php}"):                          "web.php.sockets",
		strings.Replace(web, "apache,", "iis,", 1):                          "must be apache or nginx",
	} {
		text = strings.ReplaceAll(text, ", %s}", "}")
		_, err := Read("p", []byte(text))
		var invalid *upkeep.InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestLoadTrustsRootAlone changes one thing at a time about the file or a folder
// above it.
func TestLoadTrustsRootAlone(t *testing.T) {
	testkit.NeedRoot(t)
	for name, one := range map[string]struct {
		spoil func(dir, path string) error
		want  string
	}{
		"as it should be": {func(dir, path string) error { return nil }, ""},
		"read only":       {func(dir, path string) error { return os.Chmod(path, 0o400) }, ""},
		"for all":         {func(dir, path string) error { return os.Chmod(path, 0o666) }, "may be written to by others"},
		"for its group":   {func(dir, path string) error { return os.Chmod(path, 0o660) }, "may be written to by others"},
		"another's":       {func(dir, path string) error { return os.Chown(path, 1000, 0) }, "belongs to user 1000"},
		"folder for all":  {func(dir, path string) error { return os.Chmod(dir, 0o777) }, "may be written to by others"},
		"folder group's":  {func(dir, path string) error { return os.Chmod(dir, 0o770) }, "may be written to by others"},
		"another's folder": {
			func(dir, path string) error { return os.Chown(dir, 1000, 0) }, "belongs to user 1000"},
		"folder above": {func(dir, path string) error { return os.Chmod(filepath.Dir(dir), 0o777) }, "may be written to by others"},
		"a link": {func(dir, path string) error {
			return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path))
		}, "is a symbolic link"},
		"a link above": {func(dir, path string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir))
		}, "is a symbolic link"},
		"a second name": {func(dir, path string) error { return os.Link(path, path+"2") }, "has 2 names"},
		"a folder":      {func(dir, path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "is not a regular file"},
		"none":          {func(dir, path string) error { return os.Remove(path) }, "no such file"},
		"huge":          {func(dir, path string) error { return os.Truncate(path, maxFile+1) }, "has more than"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "upkeep")
			path := filepath.Join(dir, "policy.yaml")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte(small), 0o600), one.spoil(dir, path)); err != nil {
				t.Fatal(err)
			}
			p, err := Load(path)
			switch {
			case one.want == "" && err == nil && p.Allows(upkeep.JobMkdir) == nil:
			case one.want != "" && err != nil && strings.Contains(err.Error(), one.want):
				if hint := new(upkeep.HintError); !errors.As(err, &hint) {
					t.Errorf("no hint in %v", err)
				}
			default:
				t.Errorf("got %v, want %q", err, one.want)
			}
		})
	}
	if _, err := Load("policy.yaml"); err == nil {
		t.Error("a relative path was taken")
	}
}

func TestForUser(t *testing.T) {
	dir := t.TempDir()
	if err := ForUser(dir, true).Allows(upkeep.JobSiteApply); err != nil {
		t.Error(err)
	}
	p := ForUser(dir, false)
	if broken := p.Validate(); len(broken) > 0 {
		t.Error(broken)
	}
	if !p.OneUser() || p.Allows(upkeep.JobSiteApply) == nil || p.Allows(upkeep.JobZonePublish) == nil {
		t.Errorf("got %+v", p)
	}
	for _, root := range p.Roots {
		if !strings.HasPrefix(root.Path, dir+"/") {
			t.Errorf("%s is not below %s", root.Path, dir)
		}
	}
}

// FuzzRead holds that what is read keeps to the rules, whatever the text.
func FuzzRead(f *testing.F) {
	f.Add([]byte(small))
	f.Add(example(f))
	f.Add([]byte("roots: &a {home: *a}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Read("p", text)
		if err != nil {
			var invalid *upkeep.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if p.AllowsUID(0) == nil || p.AllowsUID(upkeep.MinUID-1) == nil || p.AllowsUID(65534) == nil {
			t.Fatalf("%q allows ids of the system", text)
		}
		for _, root := range p.Roots {
			if !filepath.IsAbs(root.Path) || filepath.Clean(root.Path) != root.Path {
				t.Fatalf("%q has the root %q", text, root.Path)
			}
		}
		if broken := p.Validate(); len(broken) > 0 {
			t.Fatalf("%q breaks rules with its defaults: %v", text, broken)
		}
	})
}

func TestImages(t *testing.T) {
	p, err := Read("p", []byte("kinds: [image.grow]\nimages: {roots: {vms: /srv/images, big: {path: /big, mounts: true}}, max_size: 64G}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Images.Trust {
		t.Error("images are trusted by default")
	}
	if root, err := p.Images.Root("big"); err != nil || root != (Root{"/big", true}) {
		t.Errorf("got %+v, %v", root, err)
	}
	if err := p.Images.AllowsSize(64 << 30); err != nil {
		t.Error(err)
	}
	var none *Images
	for _, err := range []error{second(p.Images.Root("home")), second(p.Images.Root("")), second(none.Root("vms")), p.Images.AllowsSize(64<<30 + 1)} {
		if !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("got %v", err)
		}
	}
}
