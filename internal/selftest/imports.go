package selftest

import (
	"context"
	"fmt"
	"strings"

	"upkeep"
	"upkeep/internal/article"
)

// importAttacks are old tables that somebody has prepared.
var importAttacks = []Attack{
	{
		Name: "poisoned-import", Lesson: "PHP unserialize of what a customer wrote; HestiaCP's second-order injection in a queue",
		Tries: "imports tables with shell jobs, objects, lengths that lie, paths, names of others and directives in every column",
		Holds: "what is not plain data is left out and said; what is left is held to the rules of everything else",
		Do:    poisonedImport,
	},
	{
		Name: "broken-import", Lesson: "readers that hang, or grow",
		Tries: "imports dumps that are cut off, nested a million deep, or claim more than there is",
		Holds: "reading ends soon, with an error or with notes",
		Do:    brokenImport,
	},
}

// serialised are values of columns that hold PHP's serialised data.
var serialised = []string{
	`O:8:"Evil_Log":1:{s:4:"file";s:11:"/etc/passwd";}`, `C:11:"ArrayObject":5:{x:i:0}`, `a:99999999999999999999:{}`, `a:1:{i:0;a:1:{i:0;a:1:{i:0;R:1;}}}`, `s:9999999:"x";`, `s:-1:"x";`,
	`a:1:{i:404;s:30:"%{file:/etc/passwd}x1234567890";}`, `a:1:{s:3:"404";s:20:"/x` + "\n" + `Include /etc/passwd";}`, `b:2;`, `i:1e999;`, `d:NAN;`, strings.Repeat("a:1:{i:0;", 10_000), `a:1:{i:0;s:9:"evil.test";}`, ``,
}

func poisonedImport(ctx context.Context, w *World) error {
	var dump strings.Builder
	dump.WriteString("CREATE TABLE `virtual_hosts` (`id` int, `date` int, `user` varchar(255), `yuid` int, `appid` int, `server` char(255), `environment_variable` char(255), `subof` int, `firewall` longtext, `errorpages` longtext);\n")
	dump.WriteString("CREATE TABLE `upkeep` (`id` bigint, `uid` int, `date` int, `completed` int, `status` varchar(30), `type` varchar(30), `data` longtext);\n")
	id := 0
	host := func(user, server, variable, firewall, pages string) {
		id++
		fmt.Fprintf(&dump, "INSERT INTO `virtual_hosts` VALUES (%d,1,%s,1,1,%s,%s,0,%s,%s);\n", id, sqlText(user), sqlText(server), sqlText(variable), sqlText(firewall), sqlText(pages))
	}
	const none = "a:0:{}"
	for i, value := range serialised {
		name := fmt.Sprintf("evil-import-%d.test", i)
		host("evil-import", name, "A=b", value, none)
		host("evil-import", "p."+name, "A=b", none, value)
		id++
		fmt.Fprintf(&dump, "INSERT INTO `upkeep` VALUES (%d,0,1,0,'pending','mkdir',%s),(%d,0,1,0,'pending','shell',%[2]s),(%[1]d,0,1,0,%[2]s,'vhost','i:1;');\n", id, sqlText(value), id+1000)
	}
	for _, user := range []string{"root", "../x", "evil\nroot", "-x", "www-data", ""} {
		host(user, fmt.Sprintf("evil-import-user-%d.test", id), "A=b", none, none)
	}
	for _, server := range []string{"victim.test\n", "x\" y", "../../etc/passwd", "*", "*.victim.test", "shop.victim.test\x00", "", "a b"} {
		host("evil-import", server, "A=b", none, none)
	}
	for _, variable := range []string{"LD_PRELOAD=/x.so", "A=${PATH}", "A=b\nInclude /etc/passwd", "PATH=/x", "=", "A", "A=%{file:/etc/passwd}"} {
		host("evil-import", fmt.Sprintf("evil-import-env-%d.test", id), variable, none, none)
	}
	tables, err := article.ReadDump(strings.NewReader(dump.String()))
	if err != nil {
		return fmt.Errorf("reading the tables: %w", err)
	}
	plan, err := tables.Convert(article.Options{Servers: []string{w.Server}, Canonical: true})
	if err != nil {
		return fmt.Errorf("making a plan of the tables: %w", err)
	}
	for _, note := range plan.Notes {
		if err := printable(upkeep.Printable(note)); err != nil {
			return err
		}
	}
	for _, payload := range plan.Jobs {
		if payload.Kind() != upkeep.JobMkdir && payload.Kind() != upkeep.JobNotification {
			return fmt.Errorf("a %s job came out of it", payload.Kind())
		}
		if broken := payload.Validate(); len(broken) > 0 {
			return fmt.Errorf("a job came out of it that breaks rules: %w", &upkeep.InvalidError{Fields: broken})
		}
	}
	for _, object := range plan.Objects() {
		if broken := object.Validate(); len(broken) > 0 {
			return fmt.Errorf("%s %s came out of it and breaks rules: %w", object.ObjectKind(), object.ObjectName(), &upkeep.InvalidError{Fields: broken})
		}
	}
	return w.takeOver(ctx, plan)
}

// takeOver declares what an import made, as the verb does.
func (w *World) takeOver(ctx context.Context, plan article.Plan) error {
	documents := make([]any, 0, len(plan.Sites)+1)
	for _, a := range plan.Accounts {
		// Hyphens are dropped, so that these are the tenant's, too.
		w.accounts = append(w.accounts, a.Name)
		documents = append(documents, account(a.Name))
	}
	if _, err := w.Declare(ctx, documents...); err != nil {
		return err
	}
	for _, site := range plan.Sites {
		if strings.Contains(site.Name, "victim") {
			return fmt.Errorf("the neighbour's name %q came out of it", site.Name)
		}
		_, err := w.Declare(ctx, w.site(site.Name, map[string]any{"account": site.Account, "error_pages": site.ErrorPages, "environment": site.Environment, "deny": site.Deny}))
		if err != nil {
			if err := refused(err); err != nil {
				return err
			}
			continue
		}
		status, err := w.Site(ctx, site.Name)
		if err != nil {
			return err
		}
		if status.State != upkeep.SiteLive {
			return fmt.Errorf("what was taken over is %s: %s", status.State, status.Reason)
		}
		if err := w.harmless(ctx, site.Name); err != nil {
			return err
		}
	}
	return nil
}

// sqlText is a text as mysqldump writes it.
func sqlText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\x00", `\0`).Replace(s) + "'"
}

func brokenImport(ctx context.Context, _ *World) error {
	for what, text := range map[string]string{
		"a text that does not end": "INSERT INTO `virtual_hosts` VALUES (1,'" + strings.Repeat("x", 1<<20), "parentheses": "INSERT INTO `virtual_hosts` VALUES " + strings.Repeat("(", 1_000_000),
		"a comment that does not end": "/*" + strings.Repeat("*", 1<<20), "NULs": strings.Repeat("\x00", 1<<20), "no SQL": strings.Repeat("\xff", 1<<16), "rows of other lengths": "INSERT INTO `upkeep` VALUES (1),(1,2,3,4,5,6,7,8,9,10);",
		"columns twice": "CREATE TABLE `upkeep` (`id` int,`id` int);INSERT INTO `upkeep` VALUES (1,2);", "many rows": "INSERT INTO `upkeep` VALUES " + strings.Repeat("(1),", 300_000) + "(1);",
	} {
		done := make(chan error, 1)
		go func() {
			tables, err := article.ReadDump(strings.NewReader(text))
			if err == nil {
				var plan article.Plan
				plan, err = tables.Convert(article.Options{Servers: []string{webServer}})
				if len(plan.Sites)+len(plan.Accounts)+len(plan.Jobs) > 0 {
					err = fmt.Errorf("%s: something came out of it", what)
					done <- err
					return
				}
			}
			if err != nil && len(err.Error()) > 64<<10 {
				done <- fmt.Errorf("%s: the error has %d bytes", what, len(err.Error()))
				return
			}
			done <- nil
		}()
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("%s: reading does not end", what)
		}
	}
	return nil
}
