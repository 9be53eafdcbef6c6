package selftest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/link"
)

// orderAttacks are by somebody who has control's place on the network, and all
// but one by somebody who has its keys, too: what is left is what the agent
// verifies, validates again, and allows by its policy.
var orderAttacks = []Attack{
	{
		Name: "forged-orders", Lesson: "Salt CVE-2020-11651: whoever reaches the port is root on every server", Needs: Keys,
		Tries: "sends orders that are signed with another key, changed after they were signed, for another server, expired, or no orders at all",
		Holds: "the agent refuses each, and does nothing",
		Do:    stolen(forgedOrders),
	},
	{
		Name: "replayed-orders", Lesson: "a recorded order undoes what came after it", Needs: Keys,
		Tries: "sends a recorded order again, and older ones after newer ones",
		Holds: "the same again changes nothing; an older one is superseded",
		Do:    stolen(replayedOrders),
	},
	{
		Name: "orders-beyond-the-policy", Lesson: "Salt: a stolen master is root on every minion", Needs: Keys,
		Tries: "signs orders for shells, other folders, other users and ids, set-id bits, and files outside",
		Holds: "the agent refuses each with a reason, whoever signed it",
		Do:    stolen(ordersBeyondThePolicy),
	},
	{
		Name: "orders-with-directives", Lesson: "HestiaCP GHSA-47mf: what is stored first and believed later", Needs: Keys,
		Tries: "signs orders for sites that have line ends, quotes, expressions, variables, backslashes and paths in every text, past every check of control's",
		Holds: "the agent holds them to the same rules again: refused, or harmless",
		Do:    stolen(ordersWithDirectives),
	},
	{
		Name: "orders-for-names-of-others", Lesson: "Apache trap 6, with the table of names out of the way", Needs: Keys,
		Tries: "signs orders for sites of the tenant's that have the neighbour's names, as aliases and by wildcard",
		Holds: "the server gives no name to two sites, and an exact name stays before a wildcard",
		Do:    stolen(ordersForNames),
	},
	{
		Name: "orders-that-empty", Lesson: "one order that removes everything", Needs: Keys,
		Tries: "signs orders that remove site after site, users, and all sites at once",
		Holds: "no more is removed than the policy's budget has; the neighbours are still there",
		Do:    stolen(ordersThatEmpty),
	},
}

// accomplice is a thief at work.
type accomplice struct {
	Thief
	w *World
}

// stolen steals control's keys for as long as an attack takes.
func stolen(do func(context.Context, *accomplice) error) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		t, err := w.Stolen(ctx)
		if err != nil {
			return fmt.Errorf("stealing control's keys: %w", err)
		}
		return errors.Join(do(ctx, &accomplice{t, w}), t.Close())
	}
}

// number is that of the next order, beyond those of control.
func (a *accomplice) number() int64 { return 1<<40 + a.w.serial.Add(1) }

// order is a job for this server.
func (a *accomplice) order(kind, object string, generation int64, payload any) (link.Job, error) {
	text, is := payload.(json.RawMessage)
	if !is {
		written, err := json.Marshal(payload)
		if err != nil {
			return link.Job{}, err
		}
		text = written
	}
	return link.Job{
		ID: a.number(), Server: a.w.Server, Kind: kind, Object: object, Generation: generation, Expires: time.Now().Add(time.Hour), Payload: text,
	}, nil
}

// do signs an order and has it carried out.
func (a *accomplice) do(ctx context.Context, kind, object string, generation int64, payload any) (link.Outcome, error) {
	job, err := a.order(kind, object, generation, payload)
	if err != nil {
		return link.Outcome{}, err
	}
	outcomes, err := a.all(ctx, job)
	if err != nil {
		return link.Outcome{}, err
	}
	return outcomes[0], nil
}

// all signs orders and has them carried out at the same time.
func (a *accomplice) all(ctx context.Context, jobs ...link.Job) ([]link.Outcome, error) {
	signed := make([]link.Signed, len(jobs))
	for i, job := range jobs {
		var err error
		if signed[i], err = a.Sign(job); err != nil {
			return nil, err
		}
	}
	return a.Send(ctx, signed...)
}

// send sends one order as it is.
func (a *accomplice) send(ctx context.Context, signed link.Signed) (link.Outcome, error) {
	outcomes, err := a.Send(ctx, signed)
	if err != nil {
		return link.Outcome{}, err
	}
	return outcomes[0], nil
}

// applying is a site.apply order for a site of the tenant's.
func (a *accomplice) applying(site map[string]any, generation int64) map[string]any {
	document := map[string]any{}
	for key, value := range site {
		if key != "kind" {
			document[key] = value
		}
	}
	return map[string]any{"site": document, "generation": generation, "tenant": map[string]any{"account": evil, "uid": a.w.uid}}
}

func forgedOrders(ctx context.Context, a *accomplice) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	payload := map[string]string{"root": "data", "path": "evil-forged", "owner": "root", "group": "root", "mode": "0755"}
	job, err := a.order(upkeep.JobMkdir, "dir/data/evil-forged", 1, payload)
	if err != nil {
		return err
	}
	change := func(f func(*link.Job)) link.Job {
		other := job
		other.ID = a.number()
		f(&other)
		return other
	}
	other, err1 := link.Sign(key, job)
	true1, err2 := a.Sign(job)
	elsewhere, err3 := a.Sign(change(func(j *link.Job) { j.Server = "web2" }))
	late, err4 := a.Sign(change(func(j *link.Job) { j.Expires = time.Now().Add(-time.Minute) }))
	long, err5 := a.Sign(change(func(j *link.Job) { j.Expires = time.Now().Add(1000 * time.Hour) }))
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	changed := link.Signed{Body: bytes.Replace(true1.Body, []byte("evil-forged"), []byte("evil-forgot"), 2), Signature: true1.Signature}
	for what, signed := range map[string]link.Signed{
		"another key's": other, "one that was changed": changed, "another server's": elsewhere, "an expired one": late, "one that lives for weeks": long,
		"one without a signature":       {Body: true1.Body, Signature: make([]byte, ed25519.SignatureSize)},
		"one signed for something else": {Body: true1.Body, Signature: ed25519.Sign(key, true1.Body)},
	} {
		outcome, err := a.send(ctx, signed)
		if err != nil {
			return fmt.Errorf("%s order: %w", what, err)
		}
		if err := refusedBy(outcome.State, outcome.Error); err != nil {
			return fmt.Errorf("%s order: %w", what, err)
		}
	}
	return nil
}

func replayedOrders(ctx context.Context, a *accomplice) error {
	name := a.w.fresh()
	of := func(n int) map[string]any {
		return a.applying(a.w.site(name, map[string]any{"headers": map[string]string{"X-N": fmt.Sprint(n)}}), int64(n))
	}
	second, err := a.order(upkeep.JobSiteApply, "site/"+name, 2, of(2))
	if err != nil {
		return err
	}
	signed, err := a.Sign(second)
	if err != nil {
		return err
	}
	want := func(n int) error {
		got, err := a.w.get(ctx, name, "/")
		if err == nil && got.header.Get("X-N") != fmt.Sprint(n) {
			err = fmt.Errorf("the site answers with generation %q and not %d", got.header.Get("X-N"), n)
		}
		return err
	}
	for range 3 {
		outcome, err := a.send(ctx, signed)
		if err == nil && outcome.State != upkeep.JobDone {
			err = fmt.Errorf("an order is %s: %s", outcome.State, outcome.Error)
		}
		if err := errors.Join(err, want(2)); err != nil {
			return err
		}
	}
	if outcome, err := a.do(ctx, upkeep.JobSiteApply, "site/"+name, 3, of(3)); err != nil || outcome.State != upkeep.JobDone {
		return fmt.Errorf("a newer order is %s: %s, %w", outcome.State, outcome.Error, err)
	}
	outcome, err := a.send(ctx, signed)
	if err == nil && outcome.State != upkeep.JobSuperseded {
		err = fmt.Errorf("an older order is %s", outcome.State)
	}
	if err := errors.Join(err, want(3)); err != nil {
		return err
	}
	// A number in the order that is not the payload's.
	outcome, err = a.do(ctx, upkeep.JobSiteApply, "site/"+name, 9, of(2))
	if err == nil {
		err = refusedBy(outcome.State, outcome.Error)
	}
	return errors.Join(err, want(3))
}

// beyond are orders for more than the policy has, by kind, object and payload.
// UID, OTHER and OUTSIDE stand for what they are in the world.
var beyond = [][3]string{
	{"shell", "x", `{"command":"touch OUTSIDE/pwned"}`},
	{"exec", "x", `{"argv":["/usr/bin/touch","OUTSIDE/pwned"]}`},
	{"notification", "account/evil", `{"account":"evil","text":"x"}`},
	{"zone.publish", "zone/evil.test", `{"zone":{"name":"evil.test"},"publisher":{"type":"bind","include_dir":"OUTSIDE"},"serial":1,"sets":[]}`},
	{"mkdir", "dir/etc/x", `{"root":"etc","path":"x","owner":"root","group":"root","mode":"0755"}`},
	{"mkdir", "dir/data/../outside/x", `{"root":"data","path":"../outside/x","owner":"evil","group":"evil","mode":"0755"}`},
	{"mkdir", "dir/data//x", `{"root":"data","path":"/OUTSIDE/x","owner":"evil","group":"evil","mode":"0755"}`},
	{"mkdir", "dir/data/x", `{"root":"data","path":"x","owner":"evil","group":"evil","mode":"6755"}`},
	{"mkdir", "dir/data/x", `{"root":"data","path":"x","owner":"evil-handmade","group":"evil-handmade","mode":"0755"}`},
	{"mkdir", "dir/data/x", `{"root":"data","path":"x","owner":"www-data","group":"www-data","mode":"0755"}`},
	{"mkdir", "dir/home/evil-new", `{"root":"home","path":"evil-new","owner":"evil","group":"evil","mode":"0755"}`},
	{"mkdir", "dir/home/victim/victim.test", `{"root":"home","path":"victim/victim.test","owner":"evil","group":"evil","mode":"0755"}`},
	{"mkdir", "dir/home/victim/victim.test/htdocs", `{"root":"home","path":"victim/victim.test/htdocs","owner":"evil","group":"evil","mode":"0755"}`},
	{"user.ensure", "account/evil-x", `{"account":"evil-x","uid":0}`},
	{"user.ensure", "account/evil-x", `{"account":"evil-x","uid":33}`},
	{"user.ensure", "account/evil-x", `{"account":"evil-x","uid":-1}`},
	{"user.ensure", "account/evil-x", `{"account":"evil-x","uid":4294967296}`},
	{"user.ensure", "account/evil-x", `{"account":"evil-x","uid":59999}`},
	{"user.ensure", "account/evil-x", `{"account":"evil-x","uid":20500}`},
	{"user.ensure", "account/evil-x", `{"account":"evil-x","uid":OTHER}`},
	{"user.ensure", "account/evil", `{"account":"evil","uid":20777}`},
	{"user.ensure", "account/evil-handmade", `{"account":"evil-handmade","uid":20500}`},
	{"user.ensure", "account/root", `{"account":"root","uid":20777}`},
	{"user.ensure", "account/x:0:0::/:/bin/sh\n", `{"account":"x:0:0::/:/bin/sh\n","uid":20777}`},
	{"user.ensure", "account/--help", `{"account":"--help","uid":20777}`},
	{"user.ensure", "account/victim", `{"account":"evil-x","uid":20778}`},
	{"user.remove", "account/evil-handmade", `{"account":"evil-handmade","uid":20500}`},
	{"user.remove", "account/root", `{"account":"root","uid":UID}`},
	{"user.remove", "account/daemon", `{"account":"daemon","uid":1}`},
	{"site.files", "site/../../outside", `{"site":{"name":"../../outside","account":"evil","servers":["web1"]},"generation":7,"tenant":{"account":"evil","uid":UID}}`},
	{"site.files", "site/evil-o.test", `{"site":{"name":"evil-o.test","account":"victim","servers":["web1"]},"generation":7,"tenant":{"account":"evil","uid":UID}}`},
	{"site.files", "site/evil-o.test", `{"site":{"name":"evil-o.test","account":"evil","servers":["web1"]},"generation":7,"tenant":{"account":"evil","uid":OTHER}}`},
	{"site.files", "site/evil-o.test", `{"site":{"name":"evil-o.test","account":"../outside","servers":["web1"]},"generation":7,"tenant":{"account":"../outside","uid":UID}}`},
	{"site.files", "site/evil-o.test", `{"site":{"name":"evil-o.test","account":"evil","servers":["web1"],"root":"../../.."},"generation":7,"tenant":{"account":"evil","uid":UID}}`},
	{"site.apply", "site/evil-o.test", `{"site":{"name":"evil-o.test","account":"evil","servers":["web1"],"directives":"Include /etc/shadow"},"generation":7,"tenant":{"account":"evil","uid":UID}}`},
	{"site.apply", "site/evil-o.test", `{"site":{"name":"evil-p.test","account":"evil","servers":["web1"]},"generation":7,"tenant":{"account":"evil","uid":UID}}`},
	{"site.apply", "site/evil-o.test", `{"site":{"name":"evil-o.test","account":"evil","servers":["web1"]},"generation":-7,"tenant":{"account":"evil","uid":UID}}`},
	{"site.apply", "site/evil-o.test", `{"site":null,"generation":7,"tenant":null}`},
	{"site.apply", "site/evil-o.test", `{"site":{"name":["evil-o.test"],"account":{"a":1},"servers":"web1"},"generation":"7"}`},
	{"site.remove", "site/..", `{"name":"..","account":"evil","generation":9}`},
	{"site.remove", "site/evil-o.test", `{"name":"evil-o.test","account":"..","generation":9}`},
	{"site.remove", "site/victim.test", `{"name":"victim.test","account":"evil","generation":900}`},
}

func ordersBeyondThePolicy(ctx context.Context, a *accomplice) error {
	for _, one := range beyond {
		text := strings.NewReplacer("OUTSIDE", a.w.Outside, "UID", fmt.Sprint(a.w.uid), "OTHER", fmt.Sprint(a.w.other)).Replace(one[2])
		generation := int64(5)
		var own struct{ Generation int64 }
		if json.Unmarshal([]byte(text), &own) == nil && own.Generation > 0 {
			generation = own.Generation
		}
		outcome, err := a.do(ctx, one[0], one[1], generation, json.RawMessage(text))
		if err != nil {
			return fmt.Errorf("%s %s: %w", one[0], text, err)
		}
		if err := refusedBy(outcome.State, outcome.Error); err != nil {
			return fmt.Errorf("%s %s: %w", one[0], text, err)
		}
	}
	return nil
}

// smuggled are texts that an agent must not write into a configuration as more
// than text.
var smuggled = []string{
	"x\nAlias /pwned \"OUTSIDE/secret.txt\"", "/x\nHeader always set X-Pwned 1", "x\" \"y", `x\`, "%{file:OUTSIDE/secret.txt}", "expr=%{file:OUTSIDE/secret.txt}", "${EVIL_SECRET}", "https://${PATH}/", "|/usr/bin/touch OUTSIDE/pwned",
	"../../../etc/passwd", "OUTSIDE/secret.txt", "x\x00y", "x\x1b[2J", "",
}

// trial is an order with something in it that must do no harm.
type trial struct {
	what, site string
	job        link.Job
}

func ordersWithDirectives(ctx context.Context, a *accomplice) error {
	name := a.w.fresh()
	if outcome, err := a.do(ctx, upkeep.JobSiteApply, "site/"+name, 1, a.applying(a.w.complete(name), 1)); err != nil || outcome.State != upkeep.JobDone {
		return fmt.Errorf("what is harmless is %s: %s, %w", outcome.State, outcome.Error, err)
	}
	var trials []trial
	for _, value := range smuggled {
		value = strings.ReplaceAll(value, "OUTSIDE", a.w.Outside)
		for number := 0; ; number++ {
			name := a.w.fresh()
			document := a.w.complete(name)
			place := replace(document, number, value)
			if place == "" {
				break
			}
			job, err := a.order(upkeep.JobSiteApply, "site/"+document["name"].(string), 1, a.applying(document, 1))
			if err != nil {
				return err
			}
			trials = append(trials, trial{fmt.Sprintf("%s = %q", place, value), name, job})
		}
	}
	return a.tryAll(ctx, trials)
}

// tryAll has orders carried out at the same time. Each is refused, or harmless.
func (a *accomplice) tryAll(ctx context.Context, trials []trial) error {
	var jobs []link.Job
	for _, one := range trials {
		jobs = append(jobs, one.job)
	}
	outcomes, err := a.all(ctx, jobs...)
	if err != nil {
		return err
	}
	for i, one := range trials {
		if outcomes[i].State == upkeep.JobDone {
			err = a.w.harmless(ctx, one.site)
		} else {
			err = refusedBy(outcomes[i].State, outcomes[i].Error)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", one.what, err)
		}
	}
	return nil
}

// ordersForNames come at the same time: the agent waits some seconds for a name
// that another site may be about to give up.
func ordersForNames(ctx context.Context, a *accomplice) error {
	aliases := []string{victimSite, "www." + victimSite, victimOther, "VICTIM.test", foreignSite, "*.victim.test", "*"}
	var jobs []link.Job
	for _, alias := range aliases {
		name := a.w.fresh()
		job, err := a.order(upkeep.JobSiteApply, "site/"+name, 1, a.applying(a.w.site(name, map[string]any{"aliases": []string{alias}}), 1))
		if err != nil {
			return err
		}
		jobs = append(jobs, job)
	}
	outcomes, err := a.all(ctx, jobs...)
	if err != nil {
		return err
	}
	for i, outcome := range outcomes {
		if err := refusedBy(outcome.State, outcome.Error); err != nil {
			return fmt.Errorf("the alias %s: %w", aliases[i], err)
		}
	}
	return nil
}

func ordersThatEmpty(ctx context.Context, a *accomplice) error {
	var applies, removals []link.Job
	for range deleteBudget + 3 {
		name := a.w.fresh()
		apply, err1 := a.order(upkeep.JobSiteApply, "site/"+name, 1, a.applying(a.w.site(name), 1))
		removal, err2 := a.order(upkeep.JobSiteRemove, "site/"+name, 2, map[string]any{"name": name, "account": evil, "generation": 2})
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		applies, removals = append(applies, apply), append(removals, removal)
	}
	outcomes, err := a.all(ctx, applies...)
	if err != nil {
		return err
	}
	for _, outcome := range outcomes {
		if outcome.State != upkeep.JobDone {
			return fmt.Errorf("what is harmless is %s: %s", outcome.State, outcome.Error)
		}
	}
	if outcomes, err = a.all(ctx, removals...); err != nil {
		return err
	}
	removed := 0
	for _, outcome := range outcomes {
		if outcome.State == upkeep.JobDone {
			removed++
		} else if err := refusedBy(outcome.State, outcome.Error); err != nil {
			return err
		}
	}
	if removed > deleteBudget {
		return fmt.Errorf("%d sites were removed, and the policy allows %d an hour", removed, deleteBudget)
	}
	for _, one := range []struct {
		kind, object string
		payload      any
	}{
		{upkeep.JobSiteSync, "sites", map[string]any{"sites": []any{}}},
		// Not of victimSite: an attempt on it, by the wrong account, is counted already.
		{upkeep.JobSiteRemove, "site/" + victimOther, map[string]any{"name": victimOther, "account": victim, "generation": int64(1) << 40}},
		{upkeep.JobUserRemove, "account/" + victim, map[string]any{"account": victim, "uid": a.w.other}},
	} {
		outcome, err := a.do(ctx, one.kind, one.object, 1<<40, one.payload)
		if err != nil {
			return err
		}
		if err := refusedBy(outcome.State, outcome.Error); err != nil {
			return fmt.Errorf("%s: %w", one.kind, err)
		}
	}
	if _, err := os.Lstat(a.w.folder(victim, victimSite)); err != nil {
		return err
	}
	got, err := a.w.get(ctx, victimSite, "/")
	if err == nil && got.status != http.StatusOK {
		err = fmt.Errorf("the neighbour answers with status %d", got.status)
	}
	return err
}
