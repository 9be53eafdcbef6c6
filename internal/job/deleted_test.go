package job_test

import (
	"context"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/store"
)

// The system user of an account goes with the account, after its sites and where
// it had any, unless the account is declared again first.
func TestDeletedAccount(t *testing.T) {
	onBoth(t, func(t *testing.T, dsn string) {
		c := start(t, dsn)
		remove := func(refs ...store.Ref) {
			t.Helper()
			if _, err := c.store.Apply(context.Background(), "uid 0", store.Change{Delete: refs}); err != nil {
				t.Fatal(err)
			}
		}
		acme, users := upkeep.Account{Name: "acme", UID: 20001}, store.JobFilter{Kind: upkeep.JobUserRemove}
		moved := site("moved.test", "web2")
		c.put(t, moved, site("a.test", "web1"))
		moved.Servers = []string{"web1"}
		c.put(t, moved)
		remove(store.RefOf(moved), store.Ref{Kind: "site", Name: "a.test"}, store.RefOf(acme))
		c.until(t, users, counts{upkeep.JobPending: 2}) // web2 too, which its site has left
		c.put(t, acme)
		c.until(t, users, counts{upkeep.JobCancelled: 2})
		remove(store.RefOf(acme))
		one := connect(t, c, "web1", nil)
		c.until(t, users, counts{upkeep.JobCancelled: 2, upkeep.JobDone: 1, upkeep.JobPending: 1})
		sent := one.sent()
		if last := sent[len(sent)-1]; !strings.HasPrefix(last, "user.remove account/acme") || len(sent) < 3 {
			t.Errorf("sent %v", sent)
		}
		if text := string(one.jobs[len(sent)-1].Payload); text != `{"account":"acme","uid":20001}` {
			t.Error(text)
		}
	})
}
