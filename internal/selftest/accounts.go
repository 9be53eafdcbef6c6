package selftest

import (
	"context"
	"fmt"
	"os"
	"strings"

	"upkeep"
)

// accountAttacks are about who one is.
var accountAttacks = []Attack{
	{
		Name: "forbidden-users", Lesson: "Froxlor reserves 7 names, HestiaCP 10",
		Tries: "asks for accounts that are named like users and groups of systems",
		Holds: "they are refused, and no user is made or changed",
		Do: refusedAccounts("root", "daemon", "bin", "sys", "adm", "sudo", "wheel", "shadow", "disk", "docker", "lxd", "kvm", "www-data", "apache", "nginx", "mysql", "postgres", "nobody", "nogroup", "backup",
			"admin", "administrator", "upkeep", "systemd", "systemd-network", "messagebus", "sshd", "staff", "tty", "users", "hosted", "webmaster", "postmaster"),
	},
	{
		Name: "no-users", Lesson: "Froxlor CVE-2026-109961: a line end in a list of members",
		Tries: "asks for accounts whose names are paths, options, numbers, lines of /etc/passwd or lookalikes",
		Holds: "they are refused",
		Do: refusedAccounts("", "..", ".", "../outside", "/etc", "a/b", "-rf", "--help", "0", "1000", "4294967296", "root ", " root", "Root", "ROOT", "r\u043e\u043et", "x:0:0::/:/bin/sh", "evil\nroot::0:0::/:/bin/sh",
			"evil\x00", "evil\t", "evil-", "e", "evil_x", "evil.x", "evil@x", "evil%20", "evil$", "évil", strings.Repeat("a", 32), strings.Repeat("a", 100_000), "evil,root", "evil;id", "\u202eroot"),
	},
	{
		Name: "uids", Lesson: "an id of 0, one of the system's, one of a neighbour, one that wraps around to 0",
		Tries: "asks for user ids that are not its to have",
		Holds: "they are refused, by control or by the agent",
		Do:    uids,
	},
	{
		Name: "users-of-others", Lesson: "HestiaCP and others take over users that are there", Needs: Users,
		Tries: "asks for an account with the name, and one with the number, of a user that upkeep did not make",
		Holds: "the agent refuses; the user stays as it is, and gets no files",
		Do:    usersOfOthers,
	},
	{
		Name: "mails", Lesson: "header lines in addresses",
		Tries: "gives mail addresses with further lines, further addresses and comments",
		Holds: "they are refused",
		Do:    mails,
	},
}

func account(name string, fields ...any) map[string]any {
	document := map[string]any{"kind": upkeep.KindAccount, "name": name}
	for i := 0; i+1 < len(fields); i += 2 {
		document[fields[i].(string)] = fields[i+1]
	}
	return document
}

// refusedAccounts are names that no account may have, and no site be of.
func refusedAccounts(names ...string) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		for _, name := range names {
			_, err := w.Declare(ctx, account(name))
			if err := refused(err); err != nil {
				return fmt.Errorf("the account %.40q: %w", name, err)
			}
			_, err = w.Declare(ctx, w.site(w.fresh(), map[string]any{"account": name}))
			if err := refused(err); err != nil {
				return fmt.Errorf("a site of %.40q: %w", name, err)
			}
		}
		return nil
	}
}

func uids(ctx context.Context, w *World) error {
	for _, uid := range []any{1, 33, 999, 1000, 19999, 60000, 65534, 65535, 65536, 65536 + 33, -1, int64(1) << 32, int64(1)<<32 + 33, int64(1) << 62, 1e300, 20000.5, "0", "root", "0x0", true, []int{0}} {
		_, err := w.Declare(ctx, account("evil-uid", "uid", uid))
		if err := refused(err); err != nil {
			return fmt.Errorf("the id %v: %w", uid, err)
		}
	}
	declared, err := w.Declared(ctx)
	if err != nil {
		return err
	}
	taken := 0
	if _, err := fmt.Sscanf(after(declared[upkeep.KindAccount+"/"+victim], `"uid":`), "%d", &taken); err != nil {
		return fmt.Errorf("finding the neighbour's number in %q: %w", declared[upkeep.KindAccount+"/"+victim], err)
	}
	_, err = w.Declare(ctx, account("evil-uid", "uid", taken))
	if err := refused(err); err != nil {
		return fmt.Errorf("the neighbour's id %d: %w", taken, err)
	}
	_, err = w.Declare(ctx, account(evil, "uid", taken))
	if err := refused(err); err != nil {
		return fmt.Errorf("changing to the neighbour's id %d: %w", taken, err)
	}
	_, err = w.Declare(ctx, account(evil, "uid", 29998))
	if err := refused(err); err != nil {
		return fmt.Errorf("changing to an id that nobody has, while files carry the old one: %w", err)
	}
	return nil
}

// after is what stands behind the first part in a text.
func after(text, part string) string {
	_, rest, _ := strings.Cut(text, part)
	return rest
}

func usersOfOthers(ctx context.Context, w *World) error {
	name := w.fresh()
	for _, who := range []map[string]any{account(foreignAccount), account("evil-number", "uid", foreignUID)} {
		of := who["name"].(string)
		if _, err := w.Declare(ctx, who, w.site(name, map[string]any{"account": of})); err != nil {
			return refused(err)
		}
		status, err := w.Site(ctx, name)
		if err != nil {
			return err
		}
		if status.State != upkeep.SiteFailed {
			return fmt.Errorf("a site of the account %s is %s", of, status.State)
		}
		if err := printable(status.Reason); err != nil {
			return err
		}
		if !strings.Contains(status.Reason, foreignAccount) {
			return fmt.Errorf("the reason does not say whose it is: %s", status.Reason)
		}
		if _, err := os.Lstat(w.folder(of, name)); err == nil {
			return fmt.Errorf("%s has a folder now", of)
		}
		name = w.fresh()
	}
	return nil
}

func mails(ctx context.Context, w *World) error {
	for _, mail := range []string{"a@evil.test\nBcc: b@evil.test", "a@evil.test\r\n\r\nx", "a@evil.test, b@evil.test", "A <a@evil.test>", "a@evil.test (x)", "a", "@", "a@", "a\x00@evil.test", "|/bin/sh@x", strings.Repeat("a", 300) + "@evil.test"} {
		_, err := w.Declare(ctx, account(evil, "email", mail))
		if err := refused(err); err != nil {
			return fmt.Errorf("the address %.40q: %w", mail, err)
		}
	}
	return nil
}
