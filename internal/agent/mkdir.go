package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/policy"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
)

// mkdir makes one folder below a root of the policy. The folder that it is made
// in must be there.
func mkdir(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.Mkdir)
	if _, err := r.policy.Root(t.Root); err != nil {
		return nil, err
	}
	want, err := r.attributes(t)
	if err != nil {
		return nil, err
	}
	// The home of an account is root's, so that the names in it mean what root
	// made them mean; and what is not a home has no place beside them.
	if t.Root == policy.Home {
		account, _, below := strings.Cut(t.Path, "/")
		switch {
		case !below:
			return nil, fmt.Errorf("%s would be a home: those are made with the first site of their account: %w", t.Path, upkeep.ErrRefused)
		case t.Owner != "root" && t.Owner != account:
			// It would be in the way of a site of that name.
			return nil, fmt.Errorf("%s would be a folder of the account %s in the home of another: %w", t.Path, t.Owner, upkeep.ErrRefused)
		}
	}
	leave, err := r.atDisk(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	parent := r.roots[t.Root]
	if dir := path.Dir(t.Path); dir != "." {
		if parent, err = parent.Walk(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the folder above it is not there (homes are made with the first site of their account): %w", err)
		} else if err != nil {
			return nil, err
		}
		defer parent.Close()
	}
	made, wasMade, err := parent.Ensure(path.Base(t.Path), want)
	if err != nil {
		return nil, err
	}
	defer made.Close()
	return struct {
		Path string `json:"path"`
		Made bool   `json:"made"`
	}{made.Path(), wasMade}, nil
}

// attributes finds out what the names in a job mean on this server.
func (r *Root) attributes(t task.Mkdir) (want safefs.Attributes, err error) {
	mode, err := strconv.ParseUint(t.Mode, 8, 12)
	if err != nil {
		return want, err // which validation has refused
	}
	want.Mode = fs.FileMode(mode)
	if t.Owner != "root" || r.policy.OneUser() {
		owner, err := r.accounts.find(t.Owner)
		if err != nil {
			return want, err
		}
		want.UID = owner.uid
	}
	switch {
	case t.Group == task.WebGroup:
		want.GID, err = r.accounts.groupID(r.policy.Group)
	case t.Group != "root" || r.policy.OneUser():
		var group owner
		group, err = r.accounts.find(t.Group)
		want.GID = group.gid
	}
	return want, err
}
