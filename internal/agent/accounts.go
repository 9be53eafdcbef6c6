package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"upkeep"
	"upkeep/internal/policy"
	"upkeep/internal/safefs"
	"upkeep/internal/task"
)

// accounts are the system users that upkeep made. One is upkeep's if it stands in
// a register that only root can write, and carries a mark in the system's own
// files; a user that somebody else made is never changed, removed or worked for.
//
// Users are made by the system's own tools (shadow), one at a time: they know the
// locks, the formats and the further files of each distribution, and refuse what
// another source of names (NSS) already has. Writing /etc/passwd was turned down
// for that reason.
type accounts struct {
	mu     sync.Mutex
	state  *safefs.Dir
	policy *policy.Policy
	// prefix is "" or a folder that has etc/passwd and the like, for tests.
	prefix string
	known  map[string]account
	uids   map[int]string // also of those removed
}

// account is an entry of the register.
type account struct {
	UID int `json:"uid"`
	// Removed accounts keep their number: files that still have it must not come
	// to belong to somebody else.
	Removed bool `json:"removed,omitempty"`
}

const accountsFile = "accounts.json"

// accountMark is the comment (GECOS) of users that upkeep makes.
const accountMark = "upkeep account"

func openAccounts(state *safefs.Dir, p *policy.Policy, prefix string) (*accounts, error) {
	a := &accounts{state: state, policy: p, prefix: prefix, known: map[string]account{}, uids: map[int]string{}}
	text, err := state.ReadFile(accountsFile, 64<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which users are upkeep's: %w", err)
	}
	if err := json.Unmarshal(text, &a.known); err != nil {
		return nil, fmt.Errorf("reading which users are upkeep's: %s: %w", accountsFile, err)
	}
	for name, entry := range a.known {
		a.uids[entry.UID] = name
	}
	return a, nil
}

// owner is a user and its group, to whom files are given.
type owner struct{ uid, gid int }

// find returns the owner of an account's files. It must be one of upkeep's.
func (a *accounts) find(name string) (owner, error) {
	if a.policy.OneUser() {
		return owner{os.Geteuid(), os.Getegid()}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	entry, known := a.known[name]
	if !known || entry.Removed {
		return owner{}, fmt.Errorf("there is no account %q on this server that upkeep made: %w", name, upkeep.ErrRefused)
	}
	if err := a.policy.AllowsUID(entry.UID); err != nil {
		return owner{}, err
	}
	return owner{entry.UID, entry.UID}, nil
}

// has reports whether a user is, or was, an account of upkeep's.
func (a *accounts) has(uid int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.uids[uid]
	return known
}

// group tells safefs whose folders may be worked in.
func (a *accounts) group(uid int) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	name, known := a.uids[uid]
	switch {
	case !known:
		return 0, errors.New("who is no account of upkeep's")
	case a.known[name].Removed:
		return 0, fmt.Errorf("who was the account %s and was removed", name)
	}
	return uid, a.policy.AllowsUID(uid)
}

// ensure makes the user of an account, or sees that it is there.
func (a *accounts) ensure(ctx context.Context, t task.Tenant) (owner, error) {
	if a.policy.OneUser() {
		return a.find(t.Account)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	users, err := a.users()
	if err != nil {
		return owner{}, err
	}
	if err := a.mayBe(t, users); err != nil {
		return owner{}, err
	}
	if _, exists := users.names[t.Account]; exists {
		return owner{t.UID, t.UID}, nil
	}
	// The register comes first: a user that is there after a kill is then known
	// to be ours.
	if err := a.register(t.Account, account{UID: t.UID}); err != nil {
		return owner{}, err
	}
	if err := a.make(ctx, t, users); err != nil {
		return owner{}, fmt.Errorf("making the user %s: %w", t.Account, err)
	}
	return owner{t.UID, t.UID}, nil
}

// mayBe refuses an account that is not, and could not become, upkeep's.
func (a *accounts) mayBe(t task.Tenant, users users) error {
	if err := a.policy.AllowsUID(t.UID); err != nil {
		return upkeep.WithHint(err, fmt.Sprintf("widen uids in the agent's policy, or %s", a.otherNumber(users)))
	}
	refuse := func(why string, args ...any) error {
		return fmt.Errorf("the account %s: %s: %w", t.Account, fmt.Sprintf(why, args...), upkeep.ErrRefused)
	}
	entry, known := a.known[t.Account]
	if known && entry.UID != t.UID {
		return refuse("has the number %d on this server, and the job says %d; its files carry the first", entry.UID, t.UID)
	}
	if other, taken := a.uids[t.UID]; taken && other != t.Account {
		return refuse("has the number %d, which is that of the account %s; files of it may still be here", t.UID, other)
	}
	for _, other := range []struct{ kind, name string }{{"user", users.ids[t.UID]}, {"group", users.groupIDs[t.UID]}} {
		if other.name != "" && other.name != t.Account {
			return upkeep.WithHint(refuse("has the number %d, which is that of the %s %s of this server", t.UID, other.kind, other.name),
				fmt.Sprintf("give the %s %s another number there, or %s", other.kind, other.name, a.otherNumber(users)))
		}
	}
	user, exists := users.names[t.Account]
	if exists && (!known || entry.Removed || user.uid != t.UID || user.gid != t.UID || user.comment != accountMark) {
		return refuse("there is a user of that name on this server that upkeep did not make")
	}
	if gid, exists := users.groups[t.Account]; exists && (!known || gid != t.UID) {
		return refuse("there is a group of that name on this server that upkeep did not make")
	}
	return nil
}

// otherNumber advises to declare an account with a number that is free here. One
// that an account has already stays its own, because files on servers carry it.
func (a *accounts) otherNumber(users users) string {
	const advice = "declare an account of another name with a number that is free here"
	free := func(uid int) bool { return a.uids[uid] == "" && users.ids[uid] == "" && users.groupIDs[uid] == "" }
	if uid := a.policy.UIDs.First(free); uid != 0 {
		return fmt.Sprintf("%s, such as uid: %d", advice, uid)
	}
	return advice + "; the policy has none left"
}

// make runs the system's tools.
func (a *accounts) make(ctx context.Context, t task.Tenant, users users) error {
	id := strconv.Itoa(t.UID)
	if _, exists := users.groups[t.Account]; !exists {
		if _, err := run(ctx, a.tool("groupadd", "--gid", id, t.Account)...); err != nil {
			return err
		}
	}
	home := "/nonexistent"
	if root, err := a.policy.Root(policy.Home); err == nil {
		home = filepath.Join(root.Path, t.Account)
	}
	// SUB_UID_COUNT: without it each account is given 65536 further user ids.
	if _, err := run(ctx, a.tool("useradd", "--uid", id, "--gid", id, "--comment", accountMark, "--home-dir", home, "--no-create-home",
		"--no-user-group", "--no-log-init", "--shell", "/usr/sbin/nologin", "-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", t.Account)...); err != nil {
		return err
	}
	made, err := a.users()
	if err != nil {
		return err
	}
	if user := made.names[t.Account]; user.uid != t.UID || user.gid != t.UID {
		return fmt.Errorf("useradd said nothing, and %s has user id %d and group %d", t.Account, user.uid, user.gid)
	}
	return nil
}

// tool is a command of the shadow suite.
func (a *accounts) tool(name string, args ...string) []string {
	argv := []string{filepath.Join("/usr/sbin", name)}
	if a.prefix != "" {
		argv = append(argv, "--prefix", a.prefix)
	}
	return append(argv, args...)
}

// remove removes the user of an account, if upkeep made it. Its files stay.
func (a *accounts) remove(ctx context.Context, t task.Tenant, spend func() error) error {
	if a.policy.OneUser() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	users, err := a.users()
	if err != nil {
		return err
	}
	entry, known := a.known[t.Account]
	if _, exists := users.names[t.Account]; !known && !exists {
		return nil // there is nothing to remove
	}
	if !known || entry.UID != t.UID {
		return fmt.Errorf("removing the user %s: upkeep did not make a user of that name and number on this server: %w", t.Account, upkeep.ErrRefused)
	}
	user, exists := users.names[t.Account]
	if exists && (user.uid != t.UID || user.comment != accountMark || entry.Removed) {
		return fmt.Errorf("removing the user %s: somebody else has made or changed it: %w", t.Account, upkeep.ErrRefused)
	}
	if exists {
		if err := spend(); err != nil {
			return err
		}
		if _, err := run(ctx, a.tool("userdel", t.Account)...); err != nil {
			return fmt.Errorf("removing the user %s: %w", t.Account, err)
		}
	}
	if _, exists := users.groups[t.Account]; exists {
		if err := a.removeGroup(ctx, t); err != nil {
			return err
		}
	}
	return a.register(t.Account, account{UID: t.UID, Removed: true})
}

// removeGroup removes the group that userdel leaves where the system does not
// give each user its own.
func (a *accounts) removeGroup(ctx context.Context, t task.Tenant) error {
	users, err := a.users()
	if err != nil {
		return err
	}
	if gid, exists := users.groups[t.Account]; !exists || gid != t.UID {
		return nil
	}
	if _, err := run(ctx, a.tool("groupdel", t.Account)...); err != nil {
		return fmt.Errorf("removing the group %s: %w", t.Account, err)
	}
	return nil
}

// register changes an entry of the register, on disk first.
func (a *accounts) register(name string, entry account) error {
	if a.known[name] == entry {
		return nil
	}
	was, had := a.known[name]
	a.known[name] = entry
	text, err := json.Marshal(a.known)
	if err == nil {
		_, err = a.state.WriteFile(accountsFile, text, ownFile())
	}
	if err != nil {
		delete(a.known, name)
		if had {
			a.known[name] = was
		}
		return fmt.Errorf("keeping which users are upkeep's: %w", err)
	}
	a.uids[entry.UID] = name
	return nil
}

// users are the users and groups in the system's files.
type users struct {
	names    map[string]systemUser
	ids      map[int]string
	groups   map[string]int
	groupIDs map[int]string
}

type systemUser struct {
	uid, gid int
	comment  string
}

// users reads /etc/passwd and /etc/group (passwd(5), group(5)). Lines that are
// none, which some systems use to include other sources, are skipped.
func (a *accounts) users() (users, error) {
	u := users{map[string]systemUser{}, map[int]string{}, map[string]int{}, map[int]string{}}
	err := errors.Join(
		a.lines("passwd", 7, func(f []string) {
			uid, err1 := strconv.Atoi(f[2])
			gid, err2 := strconv.Atoi(f[3])
			if err1 == nil && err2 == nil {
				u.names[f[0]], u.ids[uid] = systemUser{uid, gid, f[4]}, f[0]
			}
		}),
		a.lines("group", 4, func(f []string) {
			if gid, err := strconv.Atoi(f[2]); err == nil {
				u.groups[f[0]], u.groupIDs[gid] = gid, f[0]
			}
		}),
	)
	return u, err
}

func (a *accounts) lines(file string, fields int, each func([]string)) error {
	text, err := os.ReadFile(filepath.Join(a.prefix, "/etc", file))
	if err != nil {
		return fmt.Errorf("reading the users of this server: %w", err)
	}
	for line := range bytes.Lines(text) {
		if split := strings.Split(strings.TrimSuffix(string(line), "\n"), ":"); len(split) == fields {
			each(split)
		}
	}
	return nil
}

// groupID finds a group of the system by its name.
func (a *accounts) groupID(name string) (int, error) {
	if a.policy.OneUser() && os.Geteuid() != 0 {
		return os.Getegid(), nil
	}
	users, err := a.users()
	if err != nil {
		return 0, err
	}
	gid, exists := users.groups[name]
	if !exists && a.policy.OneUser() {
		return os.Getegid(), nil
	}
	if !exists {
		return 0, upkeep.WithHint(fmt.Errorf("there is no group %q on this server", name), "set group in the agent's policy to the one that the web server runs as")
	}
	return gid, nil
}
