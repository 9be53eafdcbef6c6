package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/policy"
	"upkeep/internal/safefs"
	"upkeep/internal/webserver"
)

// tended is what was found of the folders that upkeep made for accounts and sites.
type tended struct {
	drift []webserver.Drift
	// amiss is, by site, what cannot be put right without asking.
	amiss map[string]error
	// uids are the users of accounts, by site.
	uids map[string]int
	// pagesSeen has the sites, by name, whose pages are where they were made last.
	pagesSeen map[string]bool
}

func (t *tended) cannot(site string, err error) { t.amiss[site] = errors.Join(t.amiss[site], err) }

// tending is the look at the folders of one site after the other.
type tending struct {
	*syncing
	home  *safefs.Dir
	group int
	seen  map[string]bool
}

// tend compares the homes of accounts and the folders of sites with how they were
// made, and puts them right where it does not only verify: those two alone, since their
// names are root's to give. What lies in a site's folder is its owner's, who could
// rename somebody else's folder to what is expected, to be given it.
func (s *syncing) tend() {
	s.tended = tended{amiss: map[string]error{}, uids: map[string]int{}, pagesSeen: map[string]bool{}}
	home, exists := s.r.roots[policy.Home]
	if !exists {
		return // preparing says so
	}
	group, err := s.r.accounts.groupID(s.r.policy.Group)
	if err != nil {
		return // as above
	}
	s.r.disk <- struct{}{}
	defer func() { <-s.r.disk }()
	t := tending{s, home, group, map[string]bool{}}
	for _, site := range s.t.Sites {
		relative, below := strings.CutPrefix(s.lastApply(site).Pages, home.Path()+"/")
		if parts := strings.SplitN(relative, "/", 3); below && len(parts) == 3 {
			t.site(site.Site.Name, parts[0], parts[1], parts[2])
		}
	}
}

// site looks at the folders of a site: of its own or of the one that it lives in.
func (t tending) site(site, account, folder, pages string) {
	owner, err := t.r.accounts.find(account)
	if err != nil {
		t.cannot(site, err)
		return
	}
	t.uids[site] = owner.uid
	if there, _ := t.folder(site, "", account, owner, t.r.roots0751()); !there {
		return
	}
	if folder == site && pages == "htdocs" && t.asMade(account+"/"+folder, owner) {
		t.pagesSeen[site] = true
		return
	}
	there, in := t.folder(site, account, folder, owner, siteFolder(owner, t.group), "htdocs", "log")
	if !there {
		return
	}
	path := account + "/" + folder
	if in == nil { // a site that lives in it came first
		if _, in, err = t.home.Look(path, "htdocs", "log"); err != nil || in == nil {
			t.cannot(site, err)
			return
		}
	}
	for i, name := range strings.Split(pages, "/") {
		path += "/" + name
		found := in[0]
		if i > 0 {
			found, _, err = t.home.Look(path)
		}
		if found.Missing || errors.Is(err, fs.ErrNotExist) {
			break // the pages are gone, which is told and fixed elsewhere
		}
		if err != nil {
			t.cannot(site, err)
			break
		}
		t.pagesSeen[site] = i == strings.Count(pages, "/")
		if found.UID != owner.uid {
			t.cannot(site, upkeep.WithHint(fmt.Errorf("%s belongs to user %d and not to %d, the account's; it lies in a folder of the account's, and is not given to it unasked", t.at(path), found.UID, owner.uid),
				fmt.Sprintf("if it is the account's: chown %d:%d %s", owner.uid, owner.gid, t.at(path))))
		}
	}
	if folder == site && in[1].Missing {
		t.link(site, account, folder)
	}
}

// asMade reports whether a site's folder, its pages and the link to its logs are as
// they were made. It looks by path, which takes half the time, and so may be lied to by
// who can rename things in the account's folder: root, or else that folder was found not
// to be as made. What is not as made is looked at properly.
func (t tending) asMade(folder string, owner owner) bool {
	want := siteFolder(owner, t.group)
	path := t.at(folder)
	var site, pages, log unix.Stat_t
	if unix.Lstat(path, &site) != nil || unix.Lstat(path+"/htdocs", &pages) != nil || unix.Lstat(path+"/log", &log) != nil {
		return false
	}
	return site.Mode&unix.S_IFMT == unix.S_IFDIR && site.Mode&0o002 == 0 && int(site.Uid) == want.UID && int(site.Gid) == want.GID && int(pages.Uid) == owner.uid
}

func (t tending) at(relative string) string { return t.home.Path() + "/" + relative }

// folder looks at a folder in the home of accounts, or in one account's, once. It
// reports whether there is a folder, and what has some names in it, the first time.
func (t tending) folder(site, in, name string, owner owner, want safefs.Attributes, names ...string) (there bool, within []safefs.Found) {
	path := strings.TrimPrefix(in+"/"+name, "/")
	if there, seen := t.seen[path]; seen {
		return there, nil
	}
	found, within, err := t.home.Look(path, names...)
	t.seen[path] = err == nil && found.Dir
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		t.cannot(site, err)
		return false, nil
	case !found.Dir:
		t.cannot(site, fmt.Errorf("%s is not a folder", t.at(path)))
		return false, nil
	}
	if want.Keep { // its owner may have chosen the mode, but not that everybody writes there
		want.Mode = found.Mode &^ 0o002
	}
	if found.UID == want.UID && found.GID == want.GID && found.Mode == want.Mode {
		return true, within
	}
	if found.UID != owner.uid && found.UID != os.Geteuid() && t.r.accounts.has(found.UID) {
		t.cannot(site, upkeep.WithHint(fmt.Errorf("%s belongs to user %d, another account, and is not taken from it", t.at(path), found.UID),
			fmt.Sprintf("once it is clear whose it is, move it away, or: chown %d:%d %s", want.UID, want.GID, t.at(path))))
		return true, within
	}
	d := webserver.Drift{Site: site, Path: t.at(path), HaveRights: rights(found.Mode, found.UID, found.GID), WantRights: rights(want.Mode, want.UID, want.GID)}
	if !t.t.Verify {
		if err := t.giveBack(in, name, want); err != nil {
			t.cannot(site, fmt.Errorf("putting %s right: %w", t.at(path), err))
			return true, within
		}
	}
	t.drift = append(t.drift, d)
	return true, within
}

func rights(mode fs.FileMode, uid, gid int) string {
	return fmt.Sprintf("mode %04o, owner %d, group %d", uint32(mode), uid, gid)
}

func (t tending) giveBack(in, name string, want safefs.Attributes) error {
	if in == "" {
		return t.home.GiveBack(name, want)
	}
	account, err := t.home.Open(in)
	if err != nil {
		return err
	}
	return errors.Join(account.GiveBack(name, want), account.Close())
}

// link makes the link to a site's logs, where nothing has its name. What the owner has
// put there instead is the owner's business.
func (t tending) link(site, account, folder string) {
	path, target := t.at(account+"/"+folder+"/log"), t.web.Layout.LogFolder(site)
	if !t.t.Verify {
		if err := t.makeLink(account+"/"+folder, target); err != nil {
			t.cannot(site, fmt.Errorf("making the link %s: %w", path, err))
			return
		}
	}
	t.drift = append(t.drift, webserver.Drift{Site: site, Path: path, HaveRights: "nothing", WantRights: "a link to " + target})
}

func (t tending) makeLink(folder, target string) error {
	dir, err := t.home.Walk(folder)
	if err != nil {
		return err
	}
	return errors.Join(dir.Link("log", target), dir.Close())
}
