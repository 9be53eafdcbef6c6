package agent

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"upkeep"
	"upkeep/internal/policy"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
)

// siteFiles makes the user and the folders of a site.
func siteFiles(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.SiteFiles)
	return nil, r.folders(ctx, j, t.Site, t.Tenant)
}

// folders makes, below the root home:
//
//	ACCOUNT             root's, 0751: the names in it are root's to give
//	ACCOUNT/SITE        the account's, 0750, for the web server's group
//	ACCOUNT/SITE/htdocs the account's, made as that account, as is all below;
//	                    with a first page where the site is new
//	ACCOUNT/SITE/cgi-bin
//	ACCOUNT/SITE/log    a link to the site's logs, which are root's
//
// What is there already keeps its mode where its owner may have chosen it.
func (r *Root) folders(ctx context.Context, j job, site upkeep.Site, tenant task.Tenant) error {
	owner, err := r.accounts.ensure(ctx, tenant)
	if err != nil {
		return err
	}
	j.step(10, "making folders")
	home, exists := r.roots[policy.Home]
	if !exists {
		return fmt.Errorf("the policy of this server has no root home: %w", upkeep.ErrRefused)
	}
	group, err := r.accounts.groupID(r.policy.Group)
	if err != nil {
		return err
	}
	leave, err := r.atDisk(ctx)
	if err != nil {
		return err
	}
	defer leave()
	account, _, err := home.Ensure(tenant.Account, r.roots0751())
	if err != nil {
		return err
	}
	defer account.Close()
	if site.SubOf != "" {
		return r.subFolder(ctx, j, account, site, owner, group)
	}
	folder, _, err := account.Ensure(site.Name, siteFolder(owner, group))
	if err != nil {
		return err
	}
	defer folder.Close()
	own := safefs.Attributes{UID: owner.uid, GID: owner.gid, Mode: 0o755, Keep: true}
	at := path.Join(tenant.Account, site.Name)
	release, err := r.turns.take(ctx, []claim{{name: pagesOf + at}})
	if err != nil {
		return err
	}
	defer release()
	if err := ensurePath(folder, path.Join("htdocs", site.Root), own, firstPage(j, site, r.early.take(at))); err != nil {
		return err
	}
	if site.CGI {
		if err := ensurePath(folder, "cgi-bin", own, nil); err != nil {
			return err
		}
	}
	if r.o.Web != nil {
		return folder.Link("log", r.o.Web.Layout.LogFolder(site.Name))
	}
	return nil
}

// siteFolder is what the folder of a site is like.
func siteFolder(owner owner, group int) safefs.Attributes {
	return safefs.Attributes{UID: owner.uid, GID: group, Mode: 0o750, Keep: true}
}

// roots0751 is what the home of an account is like.
func (r *Root) roots0751() safefs.Attributes {
	want := ownFile()
	want.Mode = 0o751
	return want
}

// subFolder makes the pages of a site that lives in the folder of another. That
// folder is made here, too, where it is missing: the job of the other site may
// come later, or wait for something.
func (r *Root) subFolder(ctx context.Context, j job, account *safefs.Dir, site upkeep.Site, owner owner, group int) error {
	folder, _, err := account.Ensure(site.SubOf, siteFolder(owner, group))
	if err != nil {
		return fmt.Errorf("the folder of the site %s, in which this one lives: %w", site.SubOf, err)
	}
	defer folder.Close()
	if uid, is := folder.Tenant(); !r.policy.OneUser() && (!is || uid != owner.uid) {
		return fmt.Errorf("the folder of the site %s does not belong to the account %s: %w", site.SubOf, site.Account, upkeep.ErrRefused)
	}
	root := site.Root
	if root == "" {
		root = strings.TrimSuffix(site.Name, "."+site.SubOf)
	}
	own := safefs.Attributes{UID: owner.uid, GID: owner.gid, Mode: 0o755, Keep: true}
	at := path.Join(site.Account, site.SubOf)
	release, err := r.turns.take(ctx, []claim{{name: pagesOf + at}})
	if err != nil {
		return err
	}
	defer release()
	first, pages := firstPage(j, site, nil), path.Join("htdocs", root)
	return ensurePath(folder, pages, own, func(below string, made bool, dir *safefs.Dir) error {
		if made && below != pages && j.Kind != upkeep.JobSiteSync {
			r.early.note(at, below)
		}
		return first(below, made, dir)
	})
}

// pagesOf stands before the account and the name of a site in the name of a claim to
// the making of its folders, which is over before anything else is waited for.
const pagesOf = "pages of "

// early are folders of sites that the jobs of their sub-sites have made on the way to
// their own: whichever of two new sites is first, the other gets its first page. It
// lasts as long as the process; what is lost with it is that page.
type early struct {
	mu    sync.Mutex
	paths map[string][]string // below the folder of a site, by ACCOUNT/SITE
}

func (e *early) note(site, path string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.paths == nil {
		e.paths = map[string][]string{}
	}
	e.paths[site] = append(e.paths[site], path)
}

// take returns the folders of a site that were noted, and forgets them.
func (e *early) take(site string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer delete(e.paths, site)
	return e.paths[site]
}

// ensurePath makes folders within folders, and has each seen with its place below
// dir, and whether it was made now; nil for none.
func ensurePath(dir *safefs.Dir, relative string, want safefs.Attributes, see func(at string, made bool, dir *safefs.Dir) error) error {
	current, at := dir, ""
	for name := range strings.SplitSeq(relative, "/") {
		next, isNew, err := current.Ensure(name, want)
		if current != dir {
			_ = current.Close() // nothing was written through it
		}
		if err != nil {
			return err
		}
		current, at = next, path.Join(at, name)
		if see == nil {
			continue
		}
		if err := see(at, isNew, current); err != nil {
			return errors.Join(err, current.Close())
		}
	}
	return current.Close()
}
